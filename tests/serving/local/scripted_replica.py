"""Replicas in this process, which do as they are told."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from ipa_energy.serving.local.protocol import Payload, joined, parted, requests_in


class ScriptedReplica:
    """Answers ``x`` with ``x + mark``, after ``latency_s``, unless its script says otherwise.

    Args:
        script: what to do for the first batches, in order: raise it, or call it with the payload;
            None is an ordinary answer.
    """

    def __init__(
        self,
        name: str = "a",
        *,
        batch: int = 1,
        batch_timeout_s: float = 0.0,
        call_timeout_s: float = 5.0,
        latency_s: float = 0.0,
        mark: bytes = b"!",
        in_time_s: Mapping[str, float] | None = None,
        script: list[Exception | Callable[[Payload], Payload] | None] | None = None,
    ) -> None:
        self.name, self.batch, self.mark = name, batch, mark
        self.batch_timeout_s, self.call_timeout_s = batch_timeout_s, call_timeout_s
        self.in_time_s = in_time_s or {}
        self.latency_s = latency_s
        self.script = list(script or [])
        self.batches: list[tuple[bytes, ...]] = []
        self.at_once = self.most_at_once = 0
        self.go = asyncio.Event()
        self.go.set()

    async def infer(self, payload: Payload) -> Payload:
        self.batches.append(payload.elements)
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            await asyncio.sleep(self.latency_s)
            await self.go.wait()
        finally:
            self.at_once -= 1
        act = self.script.pop(0) if self.script else None
        if isinstance(act, Exception):
            raise act
        if act is not None:
            return act(payload)
        requests = parted(payload, requests_in(payload))
        return joined([self.answer(request) for request in requests])

    def answer(self, request: Payload) -> Payload:
        return Payload(tuple(x + self.mark for x in request.elements), request.parameters)
