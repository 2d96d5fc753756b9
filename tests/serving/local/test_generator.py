"""The load generator: when it sends, what it counts as latency, and how it ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

pytest.importorskip("grpc")

import grpc

from ipa_energy.errors import ServingError
from ipa_energy.serving.load import TraceLoad
from ipa_energy.serving.local.live_load import LiveLoad
from ipa_energy.serving.local.protocol import MESSAGES

pytestmark = [pytest.mark.slow, pytest.mark.measures]


@contextmanager
def stub_server(seconds: float) -> Iterator[tuple[int, str]]:
    """A stub model's process id and address."""
    told = json.dumps({"name": "m", "batch_s": {"1": seconds}})
    with subprocess.Popen(
        [sys.executable, "-m", "ipa_energy.serving.local.stub_model", told],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        try:
            port = json.loads(process.stdout.readline())["port"]
            yield process.pid, f"127.0.0.1:{port}"
        finally:
            process.kill()


@contextmanager
def sending(counts: list[int], address: str, **named: object) -> Iterator[LiveLoad]:
    trace = TraceLoad(np.array(counts), mode="equal", seed=1)
    load = LiveLoad(trace, address=address, model="m", **named)
    try:
        yield load
    finally:
        load.close()
        load.close()


def test_every_request_is_sent_at_its_time_and_answered_once() -> None:
    with stub_server(0.01) as (_, address), sending([40, 0, 20], address) as load:
        load.start()
        load.wait_for_last()
        first = load.take_finished(1.0)
        finished = first + load.take_finished(1e9)
    assert all(one.done_s < 1.0 for one in first)
    assert sorted(one.number for one in finished) == list(range(60))
    assert [one.trouble for one in finished] == [None] * 60
    assert min(one.latency_s for one in finished) >= 0.01
    assert min(one.lateness_s for one in finished) >= 0
    assert max(one.sent_s for one in finished) > 2.9
    assert np.median([one.lateness_s for one in finished]) < 0.05
    assert load.cpu_s > 0


def test_what_waits_while_the_server_stands_still_counts_in_full() -> None:
    """A closed loop would have sent one request in that half second, and seen one slow answer."""
    zero: list[float] = []
    with (
        stub_server(0.0) as (pid, address),
        sending([100, 100], address, on_start=zero.append) as load,
    ):
        load.start()
        time.sleep(0.5)
        os.kill(pid, signal.SIGSTOP)
        stopped_s = time.perf_counter() - zero[0]
        time.sleep(0.5)
        resumed_s = time.perf_counter() - zero[0]
        os.kill(pid, signal.SIGCONT)
        load.wait_for_last()
        finished = load.take_finished(1e9)
    # What was under way when the signal came is no case of either kind.
    during = [one for one in finished if stopped_s + 0.1 < one.intended_s < resumed_s]
    assert abs(len(during) - 100 * (min(resumed_s, 2.0) - stopped_s - 0.1)) <= 1
    assert all(one.done_s >= resumed_s for one in during)
    # Half of them at least left while it stood still, however busy the machine is.
    assert sum(one.sent_s < resumed_s for one in during) >= len(during) / 2
    before = [one.latency_s for one in finished if one.intended_s < stopped_s - 0.1]
    assert np.median(before) < 0.1


def test_a_run_that_is_taken_up_sends_only_what_is_left() -> None:
    with stub_server(0.0) as (_, address), sending([5, 5, 5], address, first_s=2.0) as load:
        load.start()
        load.wait_for_last()
        finished = load.take_finished(1e9)
    assert [one.number for one in finished] == list(range(5))
    assert min(one.intended_s for one in finished) == 2.0
    assert min(one.done_s for one in finished) < 3.5  # second 2 was when it began


def test_refusals_are_reported_with_their_reason() -> None:
    with stub_server(0.0) as (pid, address), sending([50], address) as load:
        load.start()
        os.kill(pid, signal.SIGKILL)  # before most were sent
        load.wait_for_last()
        finished = load.take_finished(1e9)
    troubles = [one.trouble for one in finished if one.trouble]
    assert len(finished) == 50
    assert troubles
    assert "UNAVAILABLE" in troubles[-1]


def test_a_generator_that_dies_is_noticed() -> None:
    with stub_server(0.0) as (_, address), sending([10] * 60, address) as load:
        load.start()
        load.check()
        threading.Timer(0.2, os.kill, (load.pid, signal.SIGKILL)).start()
        with pytest.raises(ServingError, match="ended before its last request"):
            load.wait_for_last()
        with pytest.raises(ServingError, match="died"):
            load.check()


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
        with sending([5], f"127.0.0.1:{port}") as load:
            load.start()
            load.wait_for_last()
            assert [one.trouble for one in load.take_finished(1e9)] == [None] * 5
    finally:
        server.stop(None)
    assert others.tensors == ["pixels"] * 5
