"""Real processes of stub models: started, changed, killed, stopped, and gone with their parent."""

from __future__ import annotations

import asyncio
import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("grpc")

from live_runs import runs, until
from test_stage_queue import asynchronous

from ipa_energy.records import Option
from ipa_energy.serving.local.cpu_groups import Cpus
from ipa_energy.serving.local.protocol import Payload
from ipa_energy.serving.local.replica_process import Launch
from ipa_energy.serving.local.replica_set import ReplicaSet, Wanted
from ipa_energy.serving.local.stage_queue import StageQueue, Visit
from ipa_energy.serving.local.stub_model import StubModel
from ipa_energy.testing import fake_stages

pytestmark = [pytest.mark.slow, pytest.mark.measures]

OPTIONS = fake_stages()[0].options
SMALL, SMALL_2 = OPTIONS[0], OPTIONS[1]
LARGE = OPTIONS[3]


def stub(option: Option, *, seconds: float = 0.0, works: bool = False) -> Launch:
    told = {"name": option.variant, "batch_s": {"1": seconds}, "work": works}
    command = (sys.executable, "-m", "ipa_energy.serving.local.stub_model", json.dumps(told))
    return Launch(command, option.variant)


@asynccontextmanager
async def replicas(**told: float) -> AsyncIterator[ReplicaSet]:
    queue = StageQueue("crop")
    made = ReplicaSet(queue, lambda option: stub(option, **told), Cpus())
    try:
        yield made
    finally:
        await made.close()
        queue.close()
    assert made.members == []


def ask(fleet: ReplicaSet, count: int) -> list[Visit]:
    return [fleet.queue.enter(Payload((b"%d" % i,)), time.perf_counter()) for i in range(count)]


async def answered(visits: list[Visit]) -> list[bytes]:
    return [(await visit.answer).elements[0] for visit in visits]


def test_a_stub_takes_what_the_profile_gives_a_batch() -> None:
    model = StubModel("m", {1: 0.1, 4: 0.4, 8: 0.6})
    assert [model.seconds(n) for n in (0, 1, 2, 4, 6, 8, 9)] == pytest.approx(
        [0.1, 0.1, 0.2, 0.4, 0.5, 0.6, 0.6]
    )


@asynchronous
async def test_another_variant_starts_first_and_then_the_old_one_goes() -> None:
    async with replicas() as fleet:
        fleet.want(Wanted(SMALL, 1))
        assert [(s.option, s.starting) for s in fleet.states()] == [(SMALL, 1)]
        (first_s,), (later_s,) = (fleet.states()[0].starting_for_s for _ in range(2))
        assert 0 < first_s < later_s < 60
        await fleet.settled(60)
        assert await answered(ask(fleet, 5)) == [b"%d" % i for i in range(5)]
        pid = fleet.members[0].process.pid

        fleet.want(Wanted(SMALL_2, 1, batch_timeout_s=0.05))  # another batch size: same process
        await fleet.settled(60)
        assert fleet.members[0].process.pid == pid
        visits = ask(fleet, 2)
        await answered(visits)
        assert visits[0].started_s == visits[1].started_s

        fleet.want(Wanted(LARGE, 2))
        states = {s.option.variant: s for s in fleet.states()}
        assert (states["yolov5n"].ready, states["yolov5s"].starting) == (1, 2)
        await answered(ask(fleet, 5))
        await fleet.settled(60)
        assert [(s.option, s.ready) for s in fleet.states()] == [(LARGE, 2)]
        assert [member.process.status for member in fleet.take_ended()] == [0]
        assert fleet.repaired == 0


@asynchronous
async def test_killed_and_hung_replicas_are_mended_and_nothing_is_lost() -> None:
    async with replicas(seconds=0.01) as fleet:
        wanted = Wanted(SMALL, 2, call_timeout_s=1.5)
        fleet.want(wanted)
        await fleet.settled(60)
        for repaired, number in enumerate((signal.SIGKILL, signal.SIGSTOP), 1):
            os.kill(fleet.members[0].process.pid, number)
            assert len(await answered(ask(fleet, 20))) == 20
            async with asyncio.timeout(60):
                while (fleet.repaired, [s.ready for s in fleet.states()]) != (repaired, [2]):
                    await asyncio.sleep(0.01)
        assert fleet.queue.retried >= 1


@asynchronous
async def test_what_cannot_start_is_tried_later_and_later_while_the_old_serves() -> None:
    async with replicas() as fleet:
        fleet.want(Wanted(SMALL, 1))
        await fleet.settled(60)
        for command in ((sys.executable, "-c", "raise SystemExit(3)"), ("/no/such/program",)):
            fleet._launch = lambda option, command=command: Launch(command, "none")
            fleet.want(Wanted(LARGE, 1))
            async with asyncio.timeout(60):
                while fleet._failures.total() < 3:
                    await asyncio.sleep(0.01)
            states = {s.option.variant: s for s in fleet.states()}
            assert states["yolov5n"].ready == 1
            assert await answered(ask(fleet, 1)) == [b"0"]
        fleet._launch = stub
        fleet.want(Wanted(LARGE, 1))
        await fleet.settled(60)


@asynchronous
async def test_cpu_time_is_known_to_the_end_even_after_a_kill() -> None:
    async with replicas(seconds=0.2, works=True) as fleet:
        option = replace(SMALL, batch=1)
        fleet.want(Wanted(option, 1))
        await fleet.settled(60)
        process = fleet.members[0].process
        before_s = process.cpu_s()
        assert len(os.sched_getaffinity(process.pid)) == 1
        await answered(ask(fleet, 1))
        assert 0.2 <= process.cpu_s() - before_s < 0.3
        seen_s = process.cpu_s()
        process.kill()
        async with asyncio.timeout(60):
            while process.is_running:
                await asyncio.sleep(0.01)
        assert process.status == -signal.SIGKILL
        assert seen_s <= process.cpu_s() < seen_s + 0.2


@asynchronous
async def test_what_happens_to_replicas_is_told_and_how_long_a_change_took() -> None:
    async with replicas() as fleet:
        fleet.want(Wanted(SMALL, 1))
        await fleet.settled(60)
        fleet.want(Wanted(LARGE, 1))
        await fleet.settled(60)
        seen = [(e.replica, e.phase) for e in fleet.take_events()]
        assert seen == [
            *(("crop-1", phase) for phase in ("asked", "starting", "ready")),
            *(("crop-2", phase) for phase in ("asked", "starting", "ready")),
            *(("crop-1", phase) for phase in ("draining", "stopped")),
        ]
        first, second = fleet.take_changes()
        assert second.to == f"{LARGE.label} x1"
        assert first.asked_s < first.ready_s <= first.gone_s < second.asked_s
        assert second.asked_s < second.ready_s < second.gone_s

        os.kill(fleet.members[0].process.pid, signal.SIGKILL)
        async with asyncio.timeout(60):
            while [s.ready for s in fleet.states()] != [1] or fleet.repaired == 0:
                await asyncio.sleep(0.01)
        events = fleet.take_events()
        assert [(e.replica, e.phase) for e in events] == [
            ("crop-2", "died"),
            *(("crop-3", phase) for phase in ("asked", "starting", "ready", "repaired")),
        ]
        assert events[-1].why == "crop-2: replica crop-2 ended with status -9"
        assert events[0].option == LARGE.label
        fleet.want(Wanted(SMALL, 1))
        fleet.want(Wanted(SMALL, 2))
        await fleet.settled(60)
        left, done = fleet.take_changes()
        assert math.isnan(left.ready_s)
        assert math.isnan(left.gone_s)
        assert done.ready_s <= done.gone_s


@asynchronous
async def test_a_slow_replica_is_replaced_a_few_times_at_most() -> None:
    async with replicas(seconds=0.06) as fleet:
        fleet.want(Wanted(SMALL, 1, slow_after_s=0.03))
        await fleet.settled(60)
        for _ in range(4):
            await answered(ask(fleet, 5))
            await fleet.settled(60)
        assert fleet.repaired == 2
        whys = [e.why for e in fleet.take_events() if e.phase == "repaired"]
        assert len(whys) == 2
        assert whys[0].startswith("crop-1 was slow: 0.0")
        assert [m.name for m in fleet.members] == ["crop-3"]


@asynchronous
async def test_changes_that_come_faster_than_replicas_start_leave_somebody_serving() -> None:
    async with replicas() as fleet:
        fleet.want(Wanted(SMALL, 1))
        for _ in range(4):
            await asyncio.sleep(0.002)
            fleet.want(Wanted(LARGE, 1))
            await asyncio.sleep(0.002)
            fleet.want(Wanted(SMALL, 1))
        fleet.want(Wanted(LARGE, 1))
        first = fleet.members[0]
        assert (first.name, first.phase) == ("crop-1", "starting")
        async with asyncio.timeout(60):
            while first.phase == "starting":
                await asyncio.sleep(0.01)
        assert await answered(ask(fleet, 1)) == [b"0"]
        await fleet.settled(60)
        assert [(s.option, s.ready) for s in fleet.states()] == [(LARGE, 1)]
        assert fleet.repaired == 0


@asynchronous
async def test_one_slow_batch_is_no_slow_replica() -> None:
    async with replicas(seconds=0.02) as fleet:
        fleet.want(Wanted(SMALL, 1, slow_after_s=0.5))
        await fleet.settled(60)
        member = fleet.members[0]
        for seconds in (1.0, 1.0, 0.1, 1.0, 1.0):
            fleet._served(member.remote, seconds)
        assert not member.is_slow
        fleet._served(member.remote, 1.0)
        assert member.is_slow
        assert [s.ready for s in fleet.states()] == [1]


@asynchronous
async def test_a_change_works_with_a_single_cpu_and_moves_apart_when_there_are_more() -> None:
    cpus = sorted(os.sched_getaffinity(0))
    async with replicas() as fleet:
        fleet._cpus = Cpus(cpus[:1])
        fleet.want(Wanted(SMALL, 1))
        await fleet.settled(60)
        fleet.want(Wanted(LARGE, 2))
        await fleet.settled(60)
        assert await answered(ask(fleet, 4)) == [b"0", b"1", b"2", b"3"]
        pids = [member.process.pid for member in fleet.members]
        assert [os.sched_getaffinity(pid) for pid in pids] == [{cpus[0]}] * 2


def test_replicas_share_cpus_only_while_there_are_too_few() -> None:
    cpus = Cpus([0, 1])
    moved: list[tuple[int, ...]] = []
    one, two, three = cpus.take(1), cpus.take(1), cpus.take(1)
    three.move = moved.append
    assert [p.cpus for p in (one, two, three)] == [(0,), (1,), (0,)]
    cpus.give_back(two)
    assert sorted([one.cpus, three.cpus]) == [(0,), (1,)]
    cpus.give_back(one)
    assert len(moved) <= 1
    assert cpus.take(5).cpus == (0, 1)


PARENT = """
import asyncio, sys
sys.path[:0] = {folders!r}
from test_replica_set import LARGE, SMALL, Wanted, replicas
async def main():
    async with replicas() as fleet:
        fleet.want(Wanted(SMALL, 2))
        await fleet.settled(30)
        print(*(member.process.pid for member in fleet.members), flush=True)
        await asyncio.sleep(600)
asyncio.run(main())
"""


def test_no_replica_survives_kill_9_of_its_parent_not_even_a_stopped_one() -> None:
    here = Path(__file__).parent
    program = PARENT.format(folders=[str(here), str(here.parents[1])])
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True
    ) as parent:
        try:
            pids = [int(word) for word in parent.stdout.readline().split()]
            assert len(pids) == 2
            os.kill(pids[0], signal.SIGSTOP)
        finally:
            parent.kill()
    # Well before it could find out by itself, and a stopped one finds out nothing.
    until(lambda: not any(map(runs, pids)), patience_s=20)


@asynchronous
async def test_several_options_at_once_keep_their_old_shares_until_all_of_the_new_is_ready() -> (
    None
):
    async with replicas(seconds=0.005) as fleet:
        fleet.want(Wanted(SMALL, 1))
        await fleet.settled(60)
        fleet.want(Wanted(SMALL, 1, share=0.75), Wanted(LARGE, 1, share=0.25))
        assert fleet.queue.shares == {}
        await answered(ask(fleet, 5))
        await fleet.settled(60)
        first = {state.option.label: (state.ready, state.share) for state in fleet.states()}
        assert first == {SMALL.label: (1, 0.75), LARGE.label: (1, 0.25)}

        before = {m.option.variant: m.requests for m in fleet.members}
        await answered(ask(fleet, 40))
        after = {m.option.variant: m.requests - before[m.option.variant] for m in fleet.members}
        assert after == {SMALL.variant: 30, LARGE.variant: 10}

        # The same server with two batch sizes, and one replica less of the other.
        pids = {member.process.pid for member in fleet.members}
        both = [Wanted(SMALL, 1, share=0.5), Wanted(SMALL_2, 1, 0.05, share=0.25)]
        fleet.want(*both, Wanted(LARGE, 1, share=0.25))
        visits = ask(fleet, 30)
        await fleet.settled(60)
        visits += ask(fleet, 40)
        assert len(await answered(visits)) == 70
        assert {state.option.label: state.share for state in fleet.states()} == {
            SMALL.label: 0.5,
            SMALL_2.label: 0.25,
            LARGE.label: 0.25,
        }
        assert pids < {member.process.pid for member in fleet.members}

        os.kill(next(m.process.pid for m in fleet.members if m.option == LARGE), signal.SIGKILL)
        assert len(await answered(ask(fleet, 40))) == 40
        async with asyncio.timeout(60):
            while fleet.repaired != 1 or sum(state.ready for state in fleet.states()) != 3:
                await asyncio.sleep(0.01)
        fleet.want(Wanted(LARGE, 1))
        await answered(ask(fleet, 20))
        await fleet.settled(60)
        assert [(s.option, s.ready, s.share) for s in fleet.states()] == [(LARGE, 1, None)]
        told = [change.to for change in fleet.take_changes()]
        assert told[1] == f"{SMALL.label} x1 75% + {LARGE.label} x1 25%"


@asynchronous
async def test_an_option_that_cannot_start_delays_no_other() -> None:
    def launch(option: Option) -> Launch:
        gone = Launch((sys.executable, "-c", "raise SystemExit(3)"), option.variant)
        return gone if option is LARGE else stub(option)

    queue = StageQueue("crop")
    fleet = ReplicaSet(queue, launch, Cpus())
    try:
        fleet.want(Wanted(SMALL, 2, share=0.5), Wanted(LARGE, 1, share=0.5))

        def ready() -> int:
            return sum(s.ready for s in fleet.states() if s.option is SMALL)

        async with asyncio.timeout(60):
            while fleet._failures[LARGE.variant, LARGE.allocation] < 5 or ready() < 2:
                await asyncio.sleep(0.01)
        small = next(m for m in fleet.members if m.option is SMALL)
        os.kill(small.process.pid, signal.SIGKILL)
        async with asyncio.timeout(60):
            while small in fleet.members:
                await asyncio.sleep(0.005)
        starting = sum(s.starting for s in fleet.states() if s.option is SMALL)
        assert ready() + starting == 2  # at once, whatever the other one waits for
    finally:
        await fleet.close()
        queue.close()
