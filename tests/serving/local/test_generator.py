"""The load generator: when it sends, what it counts as latency, and how it ends."""

from __future__ import annotations

import asyncio
import math
import os
import signal
import time
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import pytest
from stub_server import stub_server

pytest.importorskip("grpc")

import grpc
from test_stage_queue import asynchronous

from ipa_energy.arrays import Floats
from ipa_energy.errors import ServingError
from ipa_energy.serving.load import TraceLoad
from ipa_energy.serving.local.protocol import MESSAGES
from ipa_energy.serving.local.sender import Sender, generator_job, send_all, sent_of

pytestmark = [pytest.mark.slow, pytest.mark.measures]


def equally(*counts: int) -> Floats:
    """When requests are sent, so many in each second."""
    return TraceLoad(np.array(counts), mode="equal", seed=1).sending_s(0.0, math.inf)


@asynccontextmanager
async def sending(times_s: Floats, address: str, *, zero_s: float = 0.0) -> AsyncIterator[Sender]:
    """A load that is being sent; second 0 was so long ago."""
    sender = Sender()
    try:
        await sender.prepare(generator_job(times_s, address=address, model="m"))
        await sender.begin(time.perf_counter() - zero_s)
        yield sender
    finally:
        sender.close()
        await sender.ended()


@asynchronous
async def test_every_request_is_sent_at_its_time_and_answered_once() -> None:
    times_s = equally(40, 0, 20)
    with stub_server(0.01) as (_, address):
        async with sending(times_s, address) as sender:
            await sender.wait_for_last()
            first = sent_of(sender.take(1.0), times_s)
            finished = first + sent_of(sender.take(math.inf), times_s)
    assert all(one.done_s < 1.0 for one in first)
    assert sorted(one.number for one in finished) == list(range(60))
    assert [one.trouble for one in finished] == [None] * 60
    assert min(one.latency_s for one in finished) >= 0.01
    assert min(one.lateness_s for one in finished) >= 0
    assert max(one.sent_s for one in finished) > 2.9
    assert np.median([one.lateness_s for one in finished]) < 0.05
    assert sender.cpu_s() > 0


@asynchronous
async def test_what_waits_while_the_server_stands_still_counts_in_full() -> None:
    """A closed loop would have sent one request in that half second, and seen one slow answer."""
    times_s = equally(100, 100)
    with stub_server(0.0) as (pid, address):
        async with sending(times_s, address) as sender:
            zero_s = time.perf_counter()
            await asyncio.sleep(0.5)
            os.kill(pid, signal.SIGSTOP)
            stopped_s = time.perf_counter() - zero_s
            await asyncio.sleep(0.5)
            resumed_s = time.perf_counter() - zero_s
            os.kill(pid, signal.SIGCONT)
            await sender.wait_for_last()
            finished = sent_of(sender.take(math.inf), times_s)
    # What was under way when the signal came is no case of either kind.
    during = [one for one in finished if stopped_s + 0.1 < one.intended_s < resumed_s]
    assert abs(len(during) - 100 * (min(resumed_s, 2.0) - stopped_s - 0.1)) <= 1
    assert all(one.done_s >= resumed_s for one in during)
    # Half of them at least left while it stood still, however busy the machine is.
    assert sum(one.sent_s < resumed_s for one in during) >= len(during) / 2
    before = [one.latency_s for one in finished if one.intended_s < stopped_s - 0.1]
    assert np.median(before) < 0.1


@asynchronous
async def test_a_run_that_is_taken_up_goes_on_from_its_second() -> None:
    times_s = 2.0 + equally(5)
    with stub_server(0.0) as (_, address):
        async with sending(times_s, address, zero_s=2.0) as sender:
            await sender.wait_for_last()
            finished = sent_of(sender.take(math.inf), times_s)
    assert [one.number for one in finished] == list(range(5))
    assert min(one.intended_s for one in finished) == 2.0
    assert min(one.done_s for one in finished) < 3.5  # second 2 was when it began


@asynchronous
async def test_refusals_are_reported_with_their_reason() -> None:
    times_s = equally(50)
    with stub_server(0.0) as (pid, address):
        async with sending(times_s, address) as sender:
            os.kill(pid, signal.SIGKILL)  # before most were sent
            await sender.wait_for_last()
            finished = sent_of(sender.take(math.inf), times_s)
    troubles = [one.trouble for one in finished if one.trouble]
    assert len(finished) == 50
    assert troubles
    assert "UNAVAILABLE" in troubles[-1]


@asynchronous
async def test_a_generator_that_dies_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    times_s = equally(*[10] * 60)
    with stub_server(0.0) as (_, address):
        async with sending(times_s, address) as sender:
            assert sender.take(0.0) == []
            os.kill(sender.pid, signal.SIGKILL)
            await sender.wait_for_last()
            with pytest.raises(ServingError, match="died"):
                sender.take(0.0)
        monkeypatch.setattr(Sender, "begin", lambda sender, _: asyncio.to_thread(kill, sender.pid))
        with pytest.raises(ServingError, match="ended before its last request"):
            await send_all(times_s, address=address, model="m")


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)


class NamedTensor(grpc.GenericRpcHandler):
    """A server of somebody else's: its model takes a tensor of another name."""

    def __init__(self) -> None:
        self.tensors: list[str] = []

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        name = details.method.rpartition("/")[2]
        answers = {
            "ModelReady": lambda _: MESSAGES["ModelReadyResponse"](ready=True),
            "ModelMetadata": lambda _: MESSAGES["ModelMetadataResponse"](
                name="m", inputs=[{"name": "pixels", "datatype": "BYTES"}]
            ),
            "ModelInfer": self._infer,
        }
        if name not in answers:
            return None
        return grpc.unary_unary_rpc_method_handler(
            lambda request, _: answers[name](request),
            request_deserializer=MESSAGES[f"{name}Request"].FromString,
            response_serializer=lambda answer: answer.SerializeToString(),
        )

    def _infer(self, request: Any) -> Any:
        self.tensors.append(request.inputs[0].name)
        return MESSAGES["ModelInferResponse"](model_name="m", id=request.id)


def test_the_tensor_has_the_name_that_the_server_gives_it() -> None:
    others = NamedTensor()
    server = grpc.server(ThreadPoolExecutor(2), handlers=(others,))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        address = f"127.0.0.1:{port}"
        sent, _ = asyncio.run(send_all(equally(5), address=address, model="m"))
        assert [one.trouble for one in sent] == [None] * 5
    finally:
        server.stop(None)
    assert others.tensors == ["pixels"] * 5
