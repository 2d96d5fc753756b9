"""Replicas forked from the template: served by MLServer, refused, killed, and gone with it all."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest
from installed import require_installed

pytest.importorskip("grpc")

from live_runs import runs, until
from test_stage_queue import asynchronous

from ipa_energy.errors import ServingError
from ipa_energy.pipeline_models import ModelSpec
from ipa_energy.serving.local.protocol import Payload, RefusedError, ReplicaLostError, parted
from ipa_energy.serving.local.replica_process import NEVER_BEGAN, Launch, ReplicaProcess
from ipa_energy.serving.local.rpc import RemoteReplica
from ipa_energy.serving.local.template import Template

require_installed("mlserver")
pytestmark = [pytest.mark.slow, pytest.mark.measures]

PIPELINE = str(Path(__file__).with_name("served_pipeline.py"))


@asynccontextmanager
async def template() -> AsyncIterator[Template]:
    made = Template(PIPELINE)
    try:
        yield made
    finally:
        made.close()


def replica(made: Template, variant: str, cpus: tuple[int, ...] = ()) -> ReplicaProcess:
    spec = ModelSpec(PIPELINE, "first", variant, threads=3)
    return ReplicaProcess(Launch((), variant, forked=spec), cpus, None, made)


@asynccontextmanager
async def client(process: ReplicaProcess) -> AsyncIterator[RemoteReplica]:
    remote = RemoteReplica("r", f"127.0.0.1:{await process.port()}", model=process.model)
    try:
        assert await remote.is_ready(30.0)
        yield remote
    finally:
        await remote.close()


async def refusal(remote: RemoteReplica, *elements: bytes) -> str:
    return await refusal_of(remote, Payload(elements))


async def refusal_of(remote: RemoteReplica, payload: Payload) -> str:
    with pytest.raises(RefusedError) as caught:
        await remote.infer(payload)
    return str(caught.value)


@asynchronous
async def test_a_forked_replica_answers_refuses_by_the_element_and_ends_when_told() -> None:
    cpu = min(os.sched_getaffinity(0))
    async with template() as made:
        one, two = replica(made, "echo", (cpu,)), replica(made, "echo")
        assert one.model != two.model
        async with client(one) as remote, client(two):
            beside = {"parts": [1, 1], "requests": [{"a": 1}, {}]}
            answer = await remote.infer(Payload((b"x", b"y"), beside))
            assert answer == Payload((b"x echo 3 cpu", b"y echo 3 cpu"), beside)

            assert os.sched_getaffinity(one.pid) == {cpu}
            words = Path(f"/proc/{one.pid}/environ").read_bytes().split(b"\0")
            assert b"OMP_WAIT_POLICY=PASSIVE" in words
            parent = Path(f"/proc/{one.pid}/stat").read_text().rpartition(")")[2].split()[1]
            assert int(parent) == os.getpid()

            assert "element 1 is unreadable" in await refusal(remote, b"x", b"unreadable")
            assert "element 0 of 1001 bytes; allowed: text/plain" in await refusal(
                remote, b"x" * 1001
            )
            assert "element 1 of 0 bytes" in await refusal(remote, b"x", b"")
            assert "0 elements; allowed: 1 to 1024" in await refusal(remote)
            remote.model = two.model
            assert "not found" in await refusal(remote, b"x")
        await one.stop()
        assert one.status == 0
        assert one.cpu_s() > 0
        two.kill()
        await two.stop()
        assert two.status == -signal.SIGKILL


@asynchronous
async def test_a_replica_that_yields_several_says_whose_they_are() -> None:
    async with template() as made:
        spec = ModelSpec(PIPELINE, "first", "echo", yields=1.5)
        process = ReplicaProcess(Launch((), "echo", forked=spec), (), None, made)
        async with client(process) as remote:
            answer = await remote.infer(Payload((b"2", b"0", b"1")))
            assert answer.elements == (b"2", b"2", b"1")
            assert [part.elements for part in parted(answer, 3)] == [(b"2", b"2"), (), (b"1",)]
            beside = {"parts": [2, 1], "requests": [{"a": 1}, {}]}
            answer = await remote.infer(Payload((b"1", b"2", b"0"), beside))
            assert answer == Payload((b"1", b"2", b"2"), {**beside, "parts": [3, 0]})
            nothing = await remote.infer(Payload((b"0",)))
            assert parted(nothing, 1) == [Payload(())]
            assert "parts [7]" in await refusal_of(remote, Payload((b"1",), {"parts": [7]}))
        await process.stop()


@asynchronous
async def test_a_killed_template_is_started_again_and_takes_no_replica_along() -> None:
    async with template() as made:
        told: list[str] = []
        made._on_died = told.append
        first = replica(made, "echo")
        async with client(first) as remote:
            os.kill(made.pid, signal.SIGKILL)
            end_s = time.perf_counter() + 60
            while not made.restarts and time.perf_counter() < end_s:
                await asyncio.sleep(0.01)
            assert (await remote.infer(Payload((b"x",)))).elements == (b"x echo 3 cpu",)
            second = None
            while second is None and time.perf_counter() < end_s:
                try:
                    second = replica(made, "other")
                except ServingError:
                    await asyncio.sleep(0.01)
            assert second is not None
            assert await second.port() > 0
            await second.stop()
        assert first.is_running
        await first.stop()
        assert made.cpu_s() > 0
        assert "ended with status -9; another is started" in told[0]


@asynchronous
async def test_what_is_wrong_with_a_model_reaches_who_asked_for_it() -> None:
    async with template() as made:
        unloadable = replica(made, "unloadable")
        with pytest.raises(ServingError, match=r"^weights\.pt: these weights are torn$"):
            await unloadable.port()
        await unloadable.stop()
        assert not unloadable.is_running
        for variant, why in (("short", "a batch of 2 got 1 answers"), ("raises", "out of some")):
            process = replica(made, variant)
            async with client(process) as remote:
                with pytest.raises(ReplicaLostError, match=why):
                    await remote.infer(Payload((b"x", b"y")))
            await process.stop()
        dies = replica(made, "dies")
        async with client(dies) as remote:
            with pytest.raises(ReplicaLostError):
                await remote.infer(Payload((b"x",)))
        await dies.stop()
        assert dies.status == -signal.SIGKILL
    late = Template(PIPELINE)
    never = replica(late, "echo")
    late.close()  # before it came to fork anybody
    await never.stop()
    assert never.status == NEVER_BEGAN


SERVER = """
import asyncio, sys, time
from ipa_energy.serving.local.replica_process import Launch, ReplicaProcess
from ipa_energy.serving.local.rpc import run
from ipa_energy.serving.local.template import ModelSpec, Template

async def main():
    made = Template(sys.argv[1])
    model = ModelSpec(sys.argv[1], "first", "echo")
    replica = ReplicaProcess(Launch((), "echo", forked=model), (), None, made)
    await replica.port()
    print(made.pid, replica.pid, flush=True)
    await asyncio.sleep(60)

run(main())
"""


@contextmanager
def serving() -> Iterator[tuple[subprocess.Popen[str], list[int]]]:
    """A process with a template and a replica, and their process ids."""
    words = (sys.executable, "-c", SERVER, PIPELINE)
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield process, [int(word) for word in process.stdout.readline().split()]
        finally:
            process.kill()


def test_template_and_replicas_die_with_who_started_them_even_when_stopped() -> None:
    with serving() as (process, pids):
        assert len(pids) == 2
        os.kill(pids[1], signal.SIGSTOP)
        process.kill()
        until(lambda: not any(map(runs, pids)), patience_s=20)
