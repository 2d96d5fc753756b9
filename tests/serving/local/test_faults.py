"""Faults of a live pipeline: what is lost is what the drop limit drops, and that is counted."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

pytest.importorskip("grpc")

import grpc.aio
from live_runs import (
    data_path,
    lines_of,
    of_module,
    running,
    runs,
    send,
    totals_of,
    until,
    words_of,
    write_pipeline,
)
from test_replica_set import LARGE, SMALL, answered, ask, replicas
from test_stage_queue import asynchronous

from ipa_energy.cli import main
from ipa_energy.meters.power_model import power_model_for_this_machine
from ipa_energy.runlog import read_run
from ipa_energy.runlog.reader import Run
from ipa_energy.serving.local.plane import Job, Plane
from ipa_energy.serving.local.protocol import MAX_MESSAGE_BYTES, SERVICE, Named, Payload
from ipa_energy.serving.local.protocol import request_bytes as as_request
from ipa_energy.serving.local.replica_process import Launch
from ipa_energy.serving.local.replica_set import Wanted

pytestmark = [pytest.mark.slow, pytest.mark.measures]


def outcomes(run: Run) -> tuple[int, int, int]:
    """Requests that were answered, dropped and failed; each was one of these."""
    requests = run.requests
    assert requests.request_id.tolist() == list(range(len(requests)))
    lost = requests.dropped_at >= 0
    assert not (requests.failed & ~lost).any()
    return int((~lost).sum()), int((lost & ~requests.failed).sum()), int(requests.failed.sum())


def test_replicas_that_are_killed_and_frozen_cost_no_request(tmp_path: Path) -> None:
    pipeline, out = write_pipeline(tmp_path, [10] * 14), tmp_path / "run"
    with running(words_of(pipeline, out)) as adapter:
        until(lambda: lines_of(out) >= 1)
        for number in (signal.SIGKILL, signal.SIGSTOP):
            victim = of_module(adapter.pid, "stub_model")[0]
            send(victim, number)
            until(lambda victim=victim: not runs(victim))
            time.sleep(1.0)
        assert adapter.wait(120) == 0
    assert outcomes(read_run(out)) == (140, 0, 0)
    assert totals_of(out)["failed"] == 0


def test_a_load_that_stops_and_bursts_tenfold_loses_what_the_limit_drops(tmp_path: Path) -> None:
    """80 requests a second are more than any plan here serves; the rest is dropped, and counted."""
    counts = [8, 8, 8, 0, 0, 0, 80, 80, 80, 0, 8, 8]
    more = "drop_limit: 1\nscaling_cap: 1\n"
    pipeline = write_pipeline(tmp_path, counts, more=more)
    pipeline.write_text(pipeline.read_text().replace("scaling_cap: 20\n", ""))
    out = tmp_path / "run"
    assert main(words_of(pipeline, out)) == 0
    answered_, dropped, failed = outcomes(read_run(out))
    assert answered_ + dropped == sum(counts)
    assert failed == 0
    assert dropped > 50
    totals = totals_of(out)
    assert (totals["requests"], totals["dropped"]) == (sum(counts), dropped)


def test_a_disk_that_is_full_stops_the_run_with_its_reason_and_it_goes_on_later(
    tmp_path: Path,
) -> None:
    pipeline, out = write_pipeline(tmp_path, [10] * 90, interval_s=1), tmp_path / "run"

    def little_room() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (12_000, resource.RLIM_INFINITY))

    words = words_of(pipeline, out)
    with running(words, stderr=subprocess.PIPE, preexec_fn=little_room) as adapter:
        until(lambda: lines_of(out) >= 1)
        pids = list(data_path(adapter.pid))
        assert adapter.wait(120) == 2
        said = adapter.stderr.read()
    assert "cannot write: file too large" in said
    assert not any(runs(pid) for pid in pids)
    kept = lines_of(out)
    assert kept >= 1
    with running(words_of(pipeline, out, "--resume")) as back:
        until(lambda: lines_of(out) > kept)
        send(back.pid, signal.SIGINT)
        back.wait(60)
    assert any(step.gap_s for step in read_run(out).steps)


def test_two_runs_at_once_both_work_and_say_that_they_share(tmp_path: Path) -> None:
    counts = {"one": [5] * 10, "two": [5] * 4}
    pipelines = {name: write_pipeline(tmp_path / name, load) for name, load in counts.items()}
    folders = {name: tmp_path / name / "run" for name in counts}
    with running(words_of(pipelines["one"], folders["one"])) as first:
        until(lambda: of_module(first.pid, "plane_process"))
        words = [word for word in words_of(pipelines["two"], folders["two"]) if word != "--quiet"]
        with running(words, stderr=subprocess.PIPE) as second:
            assert second.wait(120) == 0
            said = second.stderr.read()
        assert first.wait(120) == 0
    assert "another pipeline is served on this machine" in said
    for name, load in counts.items():
        assert outcomes(read_run(folders[name])) == (sum(load), 0, 0)


@asynchronous
async def test_a_replica_that_answers_garbage_is_replaced_and_its_batch_served(
    tmp_path: Path,
) -> None:
    marker = tmp_path / "garbage"
    marker.touch()
    program = str(Path(__file__).parent / "garbage_model.py")
    told = json.dumps({"name": SMALL.variant, "batch_s": {"1": 0.0}})
    async with replicas() as fleet:
        command = (sys.executable, program, told, str(marker))
        fleet._launch = lambda option: Launch(command, option.variant)
        fleet.want(Wanted(SMALL, 1))
        await fleet.settled(60)
        assert await answered(ask(fleet, 3)) == [b"0", b"1", b"2"]
        assert fleet.repaired == 1
        assert fleet.queue.retried == 1
        (why,) = [event.why for event in fleet.take_events() if event.phase == "died"]
        assert "ModelInferResponse" in why


@contextmanager
def plane(seconds: float) -> Iterator[Plane]:
    """One stage of a stub, which takes so long."""
    told = json.dumps({"name": "stub", "batch_s": {"1": seconds}})
    command = (sys.executable, "-m", "ipa_energy.serving.local.stub_model", told)
    stages = {"one": {(LARGE.variant, LARGE.allocation): Launch(command, "stub")}}
    made = Plane(Job("pipe", stages, power_model_for_this_machine()))
    try:
        made.want([[Wanted(LARGE, 1)]])
        made.wait(60)
        yield made
    finally:
        made.close()


@asynchronous
async def test_malformed_oversized_slow_and_cancelled_requests_harm_nobody_else() -> None:
    with plane(0.05) as made:
        host, port = made.address.split(":")
        options = [("grpc.max_send_message_length", -1)]
        channel = grpc.aio.insecure_channel(made.address, options=options)
        infer = channel.unary_unary(f"/{SERVICE}/ModelInfer")
        codes = []
        for data in (b"\xff\xff\xff", b"", b"\x0a\x04pipe", b"x" * (MAX_MESSAGE_BYTES + 1)):
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await infer(data)
            codes.append(refused.value.code().name)
        assert codes == ["INVALID_ARGUMENT"] * 3 + ["RESOURCE_EXHAUSTED"]
        with socket.create_connection((host, int(port))) as slow:
            slow.sendall(b"PRI * HTTP/2.0\r\n\r\nSM")  # and never more
            good = as_request(Named("pipe", "g", Payload((b"x",))))
            calls = [infer(good) for _ in range(20)]
            for call in calls[::2]:
                call.cancel()
            found = await asyncio.gather(*calls[1::2])
        assert len(found) == 10
        with pytest.raises(grpc.aio.AioRpcError) as late:
            await infer(good, timeout=0.02)
        assert late.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        await infer(good)
        await channel.close()
        trips = made.report().trips
        told = [trip.trouble for trip in trips]
        assert told.count(None) == 11
        assert set(told) <= {None, "cancelled by the client"}
        assert made.states()[0].ready == 1


def test_a_port_that_is_taken_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pipeline = write_pipeline(tmp_path, [5] * 4)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        words = words_of(pipeline, tmp_path / "run", "--exporter", str(port))
        assert main(words) == 4
    assert f"cannot listen at port {port}" in capsys.readouterr().err
    assert data_path(os.getpid()) == {}
