"""A stage that runs several options at once: shares hold, nothing is lost, whoever dies."""

from __future__ import annotations

import asyncio
import math
import random
from collections import Counter

import pytest

pytest.importorskip("grpc")

from scripted_replica import ScriptedReplica
from test_stage_queue import asynchronous

from ipa_energy.serving.load import next_of
from ipa_energy.serving.local.protocol import Payload
from ipa_energy.serving.local.stage_queue import StageQueue, Visit

MIX = {"small": 0.7, "large": 0.3}


class _Lane:
    def __init__(self, share: float) -> None:
        self.shares, self.credits = (share,), [0.0]


def queue_of(*replicas: ScriptedReplica, shares: dict[str, float] = MIX) -> StageQueue:
    """Divided, each replica in the lane that its mark names."""
    queue = StageQueue("crop")
    for replica in replicas:
        queue.add(replica)
    queue.divide(shares, {replica.name: replica.mark.decode() for replica in replicas})
    return queue


def ask(queue: StageQueue, count: int) -> list[Visit]:
    return [queue.enter(Payload((b"x",)), 0.0) for _ in range(count)]


async def served_by(visits: list[Visit]) -> Counter[str]:
    return Counter([(await visit.answer).elements[0][1:].decode() for visit in visits])


@pytest.mark.parametrize("seed", range(20))
def test_after_any_number_of_requests_each_option_has_its_share_to_within_one_or_two(seed):
    rng = random.Random(seed)
    weights = [rng.random() for _ in range(rng.randint(2, 6))]
    lanes = [_Lane(weight / sum(weights)) for weight in weights]
    got = Counter()
    for count in range(1, 2000):
        got[id(next_of(lanes))] += 1
        for lane in lanes:
            # Two lanes are never off by a whole request, more by no more than their number lets.
            bound = 1.0 if len(lanes) == 2 else len(lanes) / 2
            assert abs(got[id(lane)] - lane.shares[0] * count) < bound


@pytest.mark.parametrize("seed", range(20))
def test_who_has_no_share_gets_nothing_when_another_has_gone(seed):
    rng = random.Random(seed)
    lanes = [_Lane(0.0), *(_Lane(rng.uniform(0.02, 0.4)) for _ in range(3))]
    for there in (lanes, [lanes[0], *rng.sample(lanes[1:], rng.randint(1, 2))]):
        whole = sum(lane.shares[0] for lane in there)
        for _ in range(rng.randint(1, 40)):
            assert next_of(there, whole=whole) is not lanes[0]


@asynchronous
async def test_requests_go_to_options_by_their_shares_each_with_its_own_batches() -> None:
    small = ScriptedReplica("a", mark=b"small", batch=7, batch_timeout_s=5.0)
    large = ScriptedReplica("b", mark=b"large", batch=3, batch_timeout_s=5.0)
    queue = queue_of(small, large)
    assert await served_by(ask(queue, 1000)) == {"small": 700, "large": 300}
    assert {len(batch) for batch in small.batches} == {7}
    assert {len(batch) for batch in large.batches} == {3}


@asynchronous
async def test_classes_go_to_options_by_shares_of_their_own() -> None:
    small, large = ScriptedReplica("a", mark=b"small"), ScriptedReplica("b", mark=b"large")
    queue = queue_of(small, large)
    by_class = {"small": {"easy": 0.6, "hard": 0.1}, "large": {"hard": 0.3}}
    queue.divide(MIX, {"a": "small", "b": "large"}, by_class)

    def of_class(name: str, count: int) -> list[Visit]:
        return [queue.enter(Payload((b"x",)), 0.0, name) for _ in range(count)]

    easy, hard, neither = of_class("easy", 60), of_class("hard", 40), ask(queue, 10)
    assert await served_by(easy) == {"small": 60}
    assert await served_by(hard) == {"small": 10, "large": 30}
    assert await served_by(neither) == {"small": 7, "large": 3}
    queue.remove("a")  # the only one that was to have easy requests
    assert await served_by(of_class("easy", 5)) == {"large": 5}


@asynchronous
async def test_a_busy_option_delays_only_its_own_requests() -> None:
    small, large = ScriptedReplica("a", mark=b"small"), ScriptedReplica("b", mark=b"large")
    large.go.clear()
    queue = queue_of(small, large)
    visits = ask(queue, 10)
    await asyncio.sleep(0.05)
    assert sum(visit.answer.done() for visit in visits) == 7
    large.go.set()
    assert await served_by(visits) == {"small": 7, "large": 3}


@asynchronous
async def test_new_shares_hold_for_what_waits_too_and_the_queue_can_be_one_again() -> None:
    small, large = ScriptedReplica("a", mark=b"small"), ScriptedReplica("b", mark=b"large")
    small.go.clear(), large.go.clear()
    queue = queue_of(small, large)
    visits = ask(queue, 102)  # one is at work in each
    queue.divide({"small": 0.1, "large": 0.9}, {"a": "small", "b": "large"})
    assert len(queue) == 100
    queue.divide({}, {})
    queue.divide({"small": 0.4, "large": 0.6}, {"a": "small", "b": "large"})
    small.go.set(), large.go.set()
    assert await served_by(visits) == {"small": 41, "large": 61}
    queue.divide({}, {})
    assert queue.shares == {}
    more = ask(queue, 50)
    assert (await served_by(more)).total() == 50


@asynchronous
async def test_who_waits_for_an_option_that_died_is_served_by_the_others_until_it_is_back() -> None:
    small, large = ScriptedReplica("a", mark=b"small"), ScriptedReplica("b", mark=b"large")
    small.go.clear(), large.go.clear()
    queue = queue_of(small, large)
    visits = ask(queue, 20)
    queue.remove("b")  # with a request at work
    small.go.set()
    assert await served_by([*visits, *ask(queue, 20)]) == {"small": 40}
    large.go.set()
    queue.add(large, "large")
    # It gets its share from now on, and none of what it missed.
    assert await served_by(ask(queue, 100)) == {"small": 70, "large": 30}


@asynchronous
async def test_a_request_that_is_cancelled_leaves_the_lane_that_it_was_moved_to() -> None:
    small, large = ScriptedReplica("a", mark=b"small"), ScriptedReplica("b", mark=b"large")
    small.go.clear(), large.go.clear()
    queue = queue_of(small, large)
    visits = ask(queue, 12)
    queue.divide({"large": 1.0}, {"a": "small", "b": "large"})
    for visit in visits[2:]:
        visit.answer.cancel()
    await asyncio.sleep(0)
    assert len(queue) == 0


@pytest.mark.parametrize("seed", range(8))
@asynchronous
async def test_nothing_is_lost_while_shares_change_and_replicas_fail(
    seed: int,
) -> None:
    rng = random.Random(seed)
    queue, count, asked = StageQueue("crop"), 0, []
    replicas: dict[str, ScriptedReplica] = {}
    names = ("small", "large", "huge")

    def add() -> None:
        nonlocal count
        count += 1
        lane = rng.choice(names)
        replica = ScriptedReplica(
            f"r{count}",
            mark=lane.encode(),
            batch=rng.randint(1, 3),
            batch_timeout_s=0.001,
            latency_s=rng.random() / 500,
            in_time_s=rng.choice(({}, {"": math.inf}, {"": 0.0})),  # of these all come too late
        )
        replicas[replica.name] = replica
        queue.add(replica, lane)

    add()
    for _ in range(150):
        act = rng.random()
        if act < 0.2:
            add()
        elif act < 0.3 and len(queue.replicas) > 1:
            queue.remove(rng.choice(queue.replicas))
        elif act < 0.4 and len(queue.replicas) > 1:
            leaving = asyncio.ensure_future(queue.drain(rng.choice(queue.replicas)))
            await asyncio.sleep(0)
            del leaving
        elif act < 0.6:
            weights = {name: rng.random() for name in rng.sample(names, rng.randint(1, 3))}
            whole = sum(weights.values())
            shares = {name: weight / whole for name, weight in weights.items()}
            lanes = {name: r.mark.decode() for name, r in replicas.items()}
            queue.divide(shares if rng.random() < 0.8 else {}, lanes)
        asked += ask(queue, rng.randint(0, 5))
        await asyncio.sleep(rng.random() / 1000)
    if not queue.replicas:
        add()
    async with asyncio.timeout(20):
        answers = await asyncio.gather(*(v.answer for v in asked), return_exceptions=True)
    lost = [answer for answer in answers if isinstance(answer, Exception)]
    # A request that was at work in five replicas that were removed has failed; none is forgotten.
    assert all("failed 5 times" in str(error) for error in lost)
    assert len(lost) <= len(asked) / 100
    assert len(queue) == 0
