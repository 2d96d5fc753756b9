"""A load sent to somebody else's server of the Open Inference Protocol, and what came of it."""

from __future__ import annotations

import asyncio
import logging
import math
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ipa_energy.arrays import Floats
from ipa_energy.errors import ConfigError, ServingError, in_words
from ipa_energy.serving.load import TraceLoad
from ipa_energy.serving.local.generator import Sent
from ipa_energy.serving.local.sender import (
    EVERYTHING_S,
    PAYLOADS,
    Line,
    NotReadyError,
    Sender,
    generator_job,
)

logger = logging.getLogger(__name__)

CONNECT_TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadTest:
    """What a server made of a load; latencies count from the intended times, NaN without answers.

    Attributes:
        target, model: whom was asked.
        duration_s: length of the load.
        requests, answered, failed: sent in all, of these answered, and not.
        first_failure: why the first was not; None if all were answered.
        latency_mean_s, latency_p50_s, latency_p95_s, latency_p99_s, latency_max_s: of answers.
        latency_sla_s: within which an answer is in time; None: nobody said.
        sla_attainment: answers in time over requests; NaN without an SLA.
        late_p50_s, late_p99_s: how much later than intended requests were sent.
        generator_cores: CPU seconds of the generator over those of the load, its start included.
    """

    target: str
    model: str
    duration_s: float
    requests: int
    answered: int
    failed: int
    first_failure: str | None
    latency_mean_s: float
    latency_p50_s: float
    latency_p95_s: float
    latency_p99_s: float
    latency_max_s: float
    latency_sla_s: float | None
    sla_attainment: float
    late_p50_s: float
    late_p99_s: float
    generator_cores: float


def load_test(
    load: TraceLoad,
    *,
    target: str,
    model: str,
    payloads: Sequence[bytes],
    latency_sla_s: float | None = None,
) -> LoadTest:
    """Send a load and wait for the last answer.

    Raises:
        ConfigError: ``target`` is no address.
        ServingError: nobody listens there, or the model is not ready.
    """
    _connect(target)
    times_s = load.sending_s(0.0, EVERYTHING_S)
    began_s = time.perf_counter()
    try:
        sent, cpu_s = asyncio.run(send_all(times_s, address=target, model=model, payloads=payloads))
    except NotReadyError as error:
        raise ServingError(
            f"{target} listens, but does not say over gRPC that its model {model} is ready;"
            " fix: name the model as the server does (--model), and the port of its gRPC"
        ) from error
    logger.info("sent and answered in %.1f s", time.perf_counter() - began_s)
    whom = (target, model)
    return summed(sent, whom, float(load.duration_s), cpu_s, latency_sla_s=latency_sla_s)


async def send_all(
    times_s: Floats, *, address: str, model: str, payloads: Sequence[bytes] = PAYLOADS
) -> tuple[list[Sent], float]:
    """Send requests, second 0 being now, and return when the last has left.

    Args:
        times_s: when to send, ascending.
        address: to whom.
        model: of that server.
        payloads: byte strings to send in turn.

    Returns:
        what came of each in the order of leaving, and the generator's CPU seconds.

    Raises:
        NotReadyError: the server is not reached, or does not have the model.
        ServingError: the generator ended before.
    """
    sender = Sender()
    try:
        job = generator_job(times_s, address=address, model=model, payloads=payloads)
        await sender.prepare(job)
        await sender.begin(time.perf_counter())
        await sender.wait_for_last()
        try:
            return sent_of(sender.take(math.inf), times_s), sender.cpu_s()
        except ServingError as error:
            raise ServingError("the load generator has ended before its last request") from error
    finally:
        await sender.ended()


def sent_of(lines: Sequence[Line], times_s: Floats) -> list[Sent]:
    """What became of requests, with the times at which they were to be sent."""
    return [
        Sent(number, float(times_s[number]), sent_s, done_s, trouble)
        for number, sent_s, done_s, trouble in lines
    ]


def summed(
    sent: Sequence[Sent],
    whom: tuple[str, str],
    duration_s: float,
    cpu_s: float,
    *,
    latency_sla_s: float | None,
) -> LoadTest:
    """The figures of what was sent to ``whom``, address and model."""
    answered_s = np.array([one.latency_s for one in sent if one.trouble is None])
    late_s = [one.lateness_s for one in sent] or [math.nan]
    troubles = [one.trouble for one in sorted(sent, key=lambda one: one.number) if one.trouble]
    p50_s, p95_s, p99_s = (
        np.quantile(answered_s, [0.5, 0.95, 0.99]) if len(answered_s) else [math.nan] * 3
    )
    in_time = 0 if latency_sla_s is None else int((answered_s <= latency_sla_s).sum())
    return LoadTest(
        target=whom[0],
        model=whom[1],
        duration_s=duration_s,
        requests=len(sent),
        answered=len(answered_s),
        failed=len(troubles),
        first_failure=troubles[0] if troubles else None,
        latency_mean_s=float(answered_s.mean()) if len(answered_s) else math.nan,
        latency_p50_s=float(p50_s),
        latency_p95_s=float(p95_s),
        latency_p99_s=float(p99_s),
        latency_max_s=float(answered_s.max(initial=-math.inf)) if len(answered_s) else math.nan,
        latency_sla_s=latency_sla_s,
        sla_attainment=in_time / len(sent) if latency_sla_s is not None and sent else math.nan,
        late_p50_s=float(np.quantile(late_s, 0.5)),
        late_p99_s=float(np.quantile(late_s, 0.99)),
        generator_cores=cpu_s / duration_s,
    )


def _connect(target: str) -> None:
    """See that somebody listens: gRPC itself would try for long and not say why."""
    host, colon, port = target.rpartition(":")
    if not (colon and host and port.isdecimal() and 0 < int(port) < 2**16):
        raise ConfigError(f"{target!r} is no address", where="--target", allowed="HOST:PORT")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), CONNECT_TIMEOUT_S):
            pass
    except OSError as error:
        raise ServingError(f"{target} cannot be reached: {in_words(error)}") from error
