"""The live queue serves those first that can still be in time; in time that does not pass."""

from __future__ import annotations

import asyncio
import math
import selectors
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import partial, wraps
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("google.protobuf")

from option_maker import make_option
from scripted_replica import ScriptedReplica

from ipa_energy.config import load_config
from ipa_energy.planning.stages import mixture
from ipa_energy.records import Option, RequestClass, Stage
from ipa_energy.serving.deployment import DeployedStage
from ipa_energy.serving.load import ClassesOfRequests
from ipa_energy.serving.local.protocol import Payload, RefusedError, ReplicaLostError
from ipa_energy.serving.local.stage_queue import StageQueue, Visit
from ipa_energy.serving.queue_order import in_time_ages_s
from ipa_energy.serving.simulated.backend import SimulatedBackend

VIDEO = Path(__file__).parents[3] / "configs" / "video.yaml"

AGE_S = {"": 1.0}
"""An SLA of 2 s where a batch takes 1 s."""


class _Selector(selectors.SelectSelector):
    """Waits for nothing: the time that it would have waited has passed."""

    now_s = 0.0

    def select(self, timeout: float | None = None) -> Any:
        ready = super().select(0)
        if not ready:
            self.now_s += timeout or 0.0
        return ready


class _Loop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self.waits = _Selector()
        super().__init__(self.waits)

    def time(self) -> float:
        return self.waits.now_s


def timeless(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    """Run a test in an event loop whose time passes only by being waited for."""

    @wraps(test)
    def run_it(*arguments: object, **named: object) -> None:
        with asyncio.Runner(loop_factory=_Loop) as runner:
            runner.run(test(*arguments, **named))

    return run_it


def queue_of(*replicas: ScriptedReplica, drop_limit_s: float = math.inf) -> StageQueue:
    queue = StageQueue("s", drop_limit_s=drop_limit_s, now_s=asyncio.get_running_loop().time)
    for replica in replicas:
        queue.add(replica)
    return queue


@dataclass
class Outcome:
    """What became of requests, in order of sending; NaN for what did not happen."""

    visits: list[Visit] = field(default_factory=list)
    left_s: dict[int, float] = field(default_factory=dict)

    @property
    def took_s(self) -> list[float]:
        return [self.left_s[id(visit)] - visit.sent_s for visit in self.visits]

    @property
    def dropped(self) -> list[bool]:
        return [visit.answer.exception() is not None for visit in self.visits]


async def served(
    queue: StageQueue, sent_s: Sequence[float], classes: Sequence[str] | None = None
) -> Outcome:
    """Enter requests at these seconds, and wait for all that becomes of them."""
    loop, found = asyncio.get_running_loop(), Outcome()

    def note(visit: Visit, _: object) -> None:
        found.left_s[id(visit)] = loop.time()

    for number, at_s in enumerate(sent_s):
        await asyncio.sleep(max(0.0, at_s - loop.time()))
        kind = classes[number] if classes else ""
        visit = queue.enter(Payload((b"%d" % number,)), at_s, kind)
        visit.answer.add_done_callback(partial(note, visit))
        found.visits.append(visit)
    await asyncio.wait([visit.answer for visit in found.visits])
    await asyncio.sleep(0)
    assert len(queue) == 0
    return found


def replica(**told: Any) -> ScriptedReplica:
    return ScriptedReplica(**{"latency_s": 1.0, "call_timeout_s": 60.0, **told})


@timeless
async def test_twice_what_is_carried_has_half_in_time_and_all_are_answered() -> None:
    sent_s, in_time = [0.499 * number for number in range(40)], {}
    for name, ages_s in (("fifo", {}), ("in-time-first", AGE_S)):
        start_s = asyncio.get_running_loop().time()
        found = await served(queue_of(replica(in_time_s=ages_s)), [start_s + at for at in sent_s])
        assert not any(found.dropped)
        assert max(found.left_s.values()) - start_s == pytest.approx(40.0)  # the same work
        in_time[name] = sum(took <= 2.0 for took in found.took_s)
        passed = [
            v.started_s for v, took in zip(found.visits, found.took_s, strict=True) if took > 2
        ]
        assert passed == sorted(passed)  # oldest first
    assert in_time["fifo"] <= 3
    assert in_time["in-time-first"] >= 20


@timeless
async def test_who_comes_after_the_rush_does_not_wait_for_those_that_it_made_late() -> None:
    found = await served(queue_of(replica(in_time_s=AGE_S)), [*[0.0] * 10, 5.5, 6.5, 7.5])
    assert found.took_s[-3:] == [1.5, 1.5, 1.5]
    assert max(found.left_s.values()) == 13.0


@timeless
async def test_what_is_late_fills_batches_that_have_room_and_none_waits_to_fill_then() -> None:
    """At 3 s one is in time and three are late: they go along at once, a time-out of a minute."""
    one = replica(batch=4, latency_s=3.0, batch_timeout_s=60.0, in_time_s=AGE_S)
    queue = queue_of(one)
    found = await served(queue, [0.0, 0.0, 0.0, 0.0, 0.5, 0.5, 2.5, 5.5])
    assert one.batches[1:] == [(b"6", b"4", b"5"), (b"7",)]
    assert found.visits[-1].started_s == 6.5  # nobody is late: it waits for others while it may


@timeless
async def test_who_is_late_is_served_at_once_when_nobody_else_waits() -> None:
    one = replica(batch=4, batch_timeout_s=60.0, in_time_s={"": -1.0})
    found = await served(queue_of(one), [0.0, 0.25])
    assert [visit.started_s for visit in found.visits] == [0.0, 1.0]


@timeless
async def test_the_drop_limit_holds_for_who_is_passed() -> None:
    found = await served(
        queue_of(replica(in_time_s=AGE_S), drop_limit_s=5.0), [0.499 * n for n in range(60)]
    )
    ages_s = np.array(found.took_s)
    dropped = np.array(found.dropped)
    assert dropped.sum() > 10
    assert (ages_s[dropped] > 5.0).all()
    assert ages_s[dropped].max() <= 6.5  # whenever a replica is free, not only in the end
    assert (ages_s[~dropped] <= 6.0).all()


@timeless
async def test_each_class_by_its_own_sla_and_who_names_none_by_the_common_one() -> None:
    one = replica(in_time_s={"": 3.0, "hasty": 1.0, "patient": 19.0})
    found = await served(
        queue_of(one), [0.0] * 6, ["hasty", "patient", "hasty", "", "odd", "hasty"]
    )
    assert [visit.started_s for visit in found.visits] == [0.0, 1.0, 4.0, 2.0, 3.0, 5.0]


@timeless
async def test_of_those_set_aside_the_oldest_is_served_first_whoever_came_here_first() -> None:
    one = replica(in_time_s=AGE_S)
    queue = queue_of(one)
    visits = [queue.enter(Payload((b"%d" % n,)), sent) for n, sent in enumerate((0, -7, -9, -8))]
    await asyncio.wait([visit.answer for visit in visits])
    assert one.batches == [(b"0",), (b"2",), (b"3",), (b"1",)]


@pytest.mark.parametrize("comes", [False, True])
@pytest.mark.parametrize("ages_s", [{}, {"": 30.0}])
@timeless
async def test_set_aside_they_are_looked_at_anew_when_replicas_change(
    ages_s: dict[str, float], comes: bool
) -> None:
    """First come, first served again, or by one that is fast enough: told, or one that comes."""
    one = replica(in_time_s=AGE_S)
    queue = queue_of(one)
    old = [queue.enter(Payload((b"%d" % n,)), -9.0) for n in range(3)]
    new = [queue.enter(Payload((b"new",)), 0.9) for _ in range(2)]
    await asyncio.sleep(1.5)
    assert one.batches == [(b"0",), (b"new",)] and all(visit.is_late for visit in old[1:])
    if comes:
        queue.add(replica(name="other", in_time_s=ages_s))
    else:
        one.in_time_s = ages_s
        queue.wake()
    await asyncio.sleep(1.0)
    assert old[1].started_s == (1.5 if comes else 2.0)
    await asyncio.wait([visit.answer for visit in [*old, *new]])
    assert comes or old[2].started_s == 3.0 < new[1].started_s
    assert len(queue) == 0


@timeless
async def test_set_aside_they_can_be_cancelled_counted_and_closed() -> None:
    one = replica(in_time_s=AGE_S)
    queue = queue_of(one)
    visits = [queue.enter(Payload((b"%d" % n,)), -9.0) for n in range(4)]
    fresh = queue.enter(Payload((b"fresh",)), 0.5)
    await asyncio.sleep(1.5)  # the first of all at 0, then who is in time
    assert one.batches == [(b"0",), (b"fresh",)]
    assert len(queue) == 3 and all(visit.is_late for visit in visits[1:])
    visits[1].answer.cancel()
    await asyncio.sleep(0)
    assert len(queue) == 2
    await asyncio.sleep(1.0)
    assert one.batches[2:] == [(b"2",)] and fresh.answer.done()
    queue.close()
    await asyncio.sleep(0)
    assert len(queue) == 0 and visits[3].answer.exception() is not None
    visits[2].answer.exception()


@timeless
async def test_what_was_set_aside_moves_along_when_the_queue_is_divided() -> None:
    """Oldest first in every lane, and set aside again there by its replicas' ages."""
    small, large = (replica(name=name, in_time_s=AGE_S) for name in ("small", "large"))
    queue = queue_of(small, large)
    visits = [queue.enter(Payload((b"%d" % n,)), -9.0) for n in range(10)]
    visits.append(queue.enter(Payload((b"fresh",)), 0.5))
    await asyncio.sleep(1.5)
    assert sorted(small.batches + large.batches) == [(b"0",), (b"1",), (b"2",), (b"fresh",)]
    queue.divide({"a": 0.5, "b": 0.5}, {"small": "a", "large": "b"})
    assert len(queue) == 7
    last = queue.enter(Payload((b"last",)), 1.5)
    await asyncio.sleep(1.0)  # one batch more each
    assert last.started_s == 2.0
    await asyncio.wait([visit.answer for visit in visits])
    for one in (small, large):
        late = [int(word) for (word,) in one.batches if word.isdigit()]
        assert late == sorted(late)
    queue.divide({}, {})
    assert len(queue) == 0


@timeless
async def test_a_batch_that_failed_goes_back_to_the_head_whoever_was_late_in_it() -> None:
    bad = replica(name="bad", batch=2, script=[ReplicaLostError("gone")], in_time_s=AGE_S)
    queue = queue_of(bad)
    visits = [queue.enter(Payload((word,)), sent) for word, sent in ((b"a", -9.0), (b"b", -8.0))]
    visits += [queue.enter(Payload((word,)), 0.9) for word in (b"c", b"d")]
    await asyncio.sleep(1.5)
    assert queue.replicas == () and len(queue) == 4
    good = replica(name="good", batch=2, in_time_s=AGE_S)
    queue.add(good)
    await asyncio.wait([visit.answer for visit in visits])
    assert bad.batches == [(b"a",)]  # alone: nobody waits for others beside who is late
    assert good.batches[0] == (b"a", b"c")
    assert [visit.tries for visit in visits] == [2, 1, 1, 1]


@timeless
async def test_of_a_refused_batch_of_late_ones_only_the_bad_one_is_refused() -> None:
    def picky(_: Payload) -> Payload:
        raise RefusedError("no picture")

    one = replica(batch=3, script=[None, picky, None, picky], in_time_s=AGE_S)
    queue = queue_of(one)
    visits = [queue.enter(Payload((b"%d" % n,)), -9.0) for n in range(4)]
    await asyncio.wait([visit.answer for visit in visits])
    assert one.batches == [(b"0",), (b"1", b"2", b"3"), (b"1",), (b"2",), (b"3",)]
    failed = [visit.answer.exception() is not None for visit in visits]
    assert failed == [False, False, True, False]


@pytest.mark.parametrize("seed", range(12))
@timeless
async def test_nothing_changes_while_everybody_can_be_in_time(seed: int) -> None:
    random = np.random.default_rng(seed)
    sent_s = np.sort(random.uniform(0, 30, 60))
    batch, wait_s = int(random.integers(1, 5)), random.uniform(0, 2)
    began_s = []
    for ages_s in ({}, {"": 100.0}):
        start_s = asyncio.get_running_loop().time()
        queue = queue_of(
            *(replica(name=n, batch=batch, batch_timeout_s=wait_s, in_time_s=ages_s) for n in "ab")
        )
        found = await served(queue, [start_s + at_s for at_s in sent_s])
        began_s.append([visit.started_s - start_s for visit in found.visits])
    assert began_s[1] == pytest.approx(began_s[0], abs=1e-6)


@dataclass(frozen=True)
class Case:
    """A stage under more load than it carries, for the queue and for the simulation."""

    seed: int
    order: str

    def __post_init__(self) -> None:
        random = np.random.default_rng(self.seed)
        batch, replicas = int(random.integers(1, 5)), int(random.integers(1, 4))
        service_s = random.uniform(0.5, 1.5)
        span_s = 80 * service_s / (batch * replicas * random.uniform(0.8, 2.0))
        made = {
            "batch": batch,
            "replicas": replicas,
            "service_s": service_s,
            "sent_s": np.sort(random.uniform(0, span_s, 80)),
            "wait_s": random.choice([0.0, random.uniform(0, 2)]),
            "limit_s": random.choice([math.inf, random.uniform(3, 8)]),
            "slas_s": random.uniform(1.2, 4.0, 2) * service_s,
            "kinds": random.integers(0, 2, 80),
        }
        for name, value in made.items():
            object.__setattr__(self, name, value)

    @property
    def ages_s(self) -> dict[str, float]:
        if self.order == "fifo":
            return {}
        ages_s = self.slas_s - self.service_s
        return {"": math.nan, "hasty": ages_s[0], "other": ages_s[1]}


async def _by_the_queue(case: Case) -> tuple[list[float], list[bool]]:
    queue = queue_of(
        *(
            replica(
                name=f"r{number}",
                batch=case.batch,
                latency_s=case.service_s,
                batch_timeout_s=case.wait_s,
                in_time_s=case.ages_s,
            )
            for number in range(case.replicas)
        ),
        drop_limit_s=case.limit_s,
    )
    names = [("hasty", "other")[kind] for kind in case.kinds]
    found = await served(queue, case.sent_s.tolist(), names)
    return [visit.started_s for visit in found.visits], found.dropped


def _by_the_simulation(case: Case) -> tuple[list[float], list[bool]]:
    classes = tuple(RequestClass(name, 0.5) for name in ("hasty", "other"))
    rate = case.batch / case.service_s
    alone = make_option("v", case.batch, latency_s=case.service_s, throughput_rps=rate)
    option = mixture({each.name: alone for each in classes}, classes)
    backend = SimulatedBackend(
        [Stage("s", "node", (option,))],
        (DeployedStage("s", option, case.replicas),),
        seed=0,
        drop_limit_s=None if case.limit_s == math.inf else case.limit_s,
        batch_timeout_s=[case.wait_s],
        classes=ClassesOfRequests(("hasty", "other"), case.kinds),
        slas_s=() if case.order == "fifo" else tuple(case.slas_s.tolist()),
    )
    windows = [backend.serve(case.sent_s, float(case.sent_s[-1]) + 1.0), backend.finish()]
    began_s, dropped = {}, {}
    for each in (window.requests for window in windows):
        began_s |= dict(zip(each.request_id.tolist(), each.started_s[:, 0].tolist(), strict=True))
        dropped |= dict(zip(each.request_id.tolist(), each.dropped_at >= 0, strict=True))
    return [began_s[n] for n in range(len(began_s))], [
        bool(dropped[n]) for n in range(len(dropped))
    ]


@pytest.mark.parametrize("order", ["fifo", "in-time-first"])
@pytest.mark.parametrize("seed", range(40))
def test_the_live_queue_and_the_simulated_one_serve_in_the_same_order(
    seed: int, order: str
) -> None:
    case = Case(seed, order)
    with asyncio.Runner(loop_factory=_Loop) as runner:
        began_s, dropped = runner.run(_by_the_queue(case))
    simulated_s, simulated_dropped = _by_the_simulation(case)
    assert dropped == simulated_dropped
    assert began_s == pytest.approx(simulated_s, abs=1e-6, nan_ok=True)


def test_ages_are_what_an_sla_leaves_for_this_option_and_the_fastest_of_each_later_stage() -> None:
    def option(latency_s: float) -> Option:
        return make_option("v", latency_s=latency_s)

    later = [[option(0.5), option(0.25)], [option(0.125)]]
    fifo = load_config(VIDEO, {})
    assert in_time_ages_s(fifo, 3.0, option(1.0), later) == {}
    first = load_config(VIDEO, {"queue_order": "in-time-first"})
    assert in_time_ages_s(first, 3.0, option(1.0), later) == {"": 1.625}
    assert in_time_ages_s(first, 3.0, option(1.0), []) == {"": 2.0}
    assert in_time_ages_s(first, None, option(1.0), []) == {}
    classes = (RequestClass("hasty", 0.5), RequestClass("patient", 0.5, latency_sla_s=9.0))
    told: Any = SimpleNamespace(order="in-time-first", sla_steps=None, classes=classes)
    assert in_time_ages_s(told, 3.0, option(1.0), []) == {"": 8.0, "hasty": 2.0, "patient": 8.0}
