"""Every rule of the central queue, with replicas in this process."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import wraps

import pytest

pytest.importorskip("google.protobuf")

from scripted_replica import ScriptedReplica

from ipa_energy.serving.local.protocol import (
    DroppedError,
    Payload,
    RefusedError,
    ReplicaLostError,
    StageFailedError,
)
from ipa_energy.serving.local.stage_queue import MAX_TRIES, Replica, StageQueue, Visit

LOST = ReplicaLostError("gone")
BLINK_S = 0.02
"""Longer than the event loop needs for what is due at once."""


def asynchronous(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    @wraps(test)
    def run(*arguments: object, **named: object) -> None:
        async def bounded() -> None:
            async with asyncio.timeout(90):
                await test(*arguments, **named)

        asyncio.run(bounded())

    return run


class Clock:
    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def send(queue: StageQueue, *words: bytes, sent_s: float = 1e9) -> list[Visit]:
    return [queue.enter(Payload((word,), {"w": word.decode()}), sent_s) for word in words]


async def outcomes(visits: list[Visit]) -> list[bytes | str]:
    found = await asyncio.gather(*(visit.answer for visit in visits), return_exceptions=True)
    return [one.elements[0] if isinstance(one, Payload) else type(one).__name__ for one in found]


@asynchronous
async def test_a_full_batch_leaves_at_once_and_each_gets_its_own_answer() -> None:
    queue, replica = StageQueue("s"), ScriptedReplica(batch=2, batch_timeout_s=60)
    queue.add(replica)
    visits = send(queue, b"a", b"b")
    assert await outcomes(visits) == [b"a!", b"b!"]
    assert (await visits[1].answer).parameters == {"w": "b"}
    assert replica.batches == [(b"a", b"b")]
    assert visits[0].queued_s <= visits[0].started_s <= visits[0].served_s


@asynchronous
async def test_a_batch_that_is_not_full_leaves_at_the_time_out_of_its_oldest() -> None:
    queue, replica = StageQueue("s"), ScriptedReplica(batch=4, batch_timeout_s=0.1)
    queue.add(replica)
    (first,) = send(queue, b"a")
    await asyncio.sleep(0.05)
    (second,) = send(queue, b"b")
    assert replica.batches == []
    assert await outcomes([first, second]) == [b"a!", b"b!"]
    assert replica.batches == [(b"a", b"b")]
    assert first.started_s - first.queued_s > 0.09
    assert second.started_s - second.queued_s < first.started_s - first.queued_s


@asynchronous
async def test_without_a_free_replica_requests_wait_and_then_leave_oldest_first() -> None:
    queue = StageQueue("s")
    visits = send(queue, b"a", b"b", b"c")
    await asyncio.sleep(BLINK_S)
    assert len(queue) == 3
    replica = ScriptedReplica(batch=2, batch_timeout_s=0)
    queue.add(replica)
    await outcomes(visits)
    assert replica.batches == [(b"a", b"b"), (b"c",)]


@asynchronous
async def test_a_replica_has_one_batch_at_a_time_and_the_longest_free_is_next() -> None:
    queue = StageQueue("s")
    one, two = ScriptedReplica("one", latency_s=0.01), ScriptedReplica("two", latency_s=0.01)
    queue.add(one)
    queue.add(two)
    await outcomes(send(queue, *[b"%d" % i for i in range(10)]))
    assert one.most_at_once == two.most_at_once == 1
    assert len(one.batches) == len(two.batches) == 5
    for word in (b"x", b"y"):  # one by one: in turn
        await outcomes(send(queue, word))
    assert {one.batches[-1], two.batches[-1]} == {(b"x",), (b"y",)}


@asynchronous
async def test_requests_older_than_the_drop_limit_are_dropped_one_by_one_and_counted() -> None:
    clock = Clock()
    queue = StageQueue("s", drop_limit_s=10, now_s=clock)
    old = send(queue, b"a", sent_s=89.9)
    young = send(queue, b"b", sent_s=90.0)
    older = send(queue, b"c", sent_s=80.0)
    youngest = send(queue, b"d", sent_s=99.0)
    replica = ScriptedReplica(batch=3)
    queue.add(replica)
    found = await outcomes(old + young + older + youngest)
    assert found == ["DroppedError", b"b!", "DroppedError", b"d!"]
    assert replica.batches == [(b"b", b"d")]
    assert queue.dropped == 2
    with pytest.raises(DroppedError, match=r"stage s: 10\.1 s old, more than the drop limit of 10"):
        await old[0].answer


@asynchronous
async def test_nothing_is_dropped_before_its_batch_forms() -> None:
    clock = Clock()
    queue = StageQueue("s", drop_limit_s=10, now_s=clock)
    (visit,) = send(queue, b"a", sent_s=0.0)
    await asyncio.sleep(BLINK_S)
    assert not visit.answer.done()


@asynchronous
async def test_a_lost_batch_goes_to_the_head_of_the_queue_and_the_replica_is_out() -> None:
    told: list[tuple[str, str]] = []
    queue = StageQueue("s", on_lost=lambda replica, error: told.append((replica.name, str(error))))
    bad = ScriptedReplica("bad", batch=2, batch_timeout_s=60, script=[LOST])
    queue.add(bad)
    visits = send(queue, b"a", b"b", b"c")
    await asyncio.sleep(3 * BLINK_S)
    assert queue.replicas == ()
    good = ScriptedReplica("good", batch=2)
    queue.add(good)
    assert await outcomes(visits) == [b"a!", b"b!", b"c!"]
    assert bad.batches == [(b"a", b"b")]
    assert good.batches == [(b"a", b"b"), (b"c",)]
    assert told == [("bad", "gone")]
    assert queue.retried == 2


@asynchronous
async def test_a_request_is_tried_five_times() -> None:
    queue = StageQueue("s")
    for number in range(MAX_TRIES + 1):
        queue.add(ScriptedReplica(f"r{number}", script=[LOST]))
    (visit,) = send(queue, b"a")
    with pytest.raises(StageFailedError, match="stage s failed 5 times, last: gone"):
        await visit.answer
    assert visit.tries == MAX_TRIES == 5
    assert queue.replicas == ("r5",)
    assert (queue.failed, queue.retried) == (1, 4)


@asynchronous
async def test_a_replica_that_hangs_is_out_after_its_call_time_out() -> None:
    queue = StageQueue("s")
    hung = ScriptedReplica("hung", latency_s=60, call_timeout_s=0.05)
    queue.add(hung)
    (visit,) = send(queue, b"a")
    await asyncio.sleep(0)
    queue.add(ScriptedReplica("well"))
    assert await outcomes([visit]) == [b"a!"]
    assert queue.replicas == ("well",)


@asynchronous
async def test_a_replica_that_works_is_only_slow_and_gets_some_time_more() -> None:
    async def works(_: Replica) -> bool:
        return True

    queue = StageQueue("s", is_working=works)
    queue.add(ScriptedReplica("slow", latency_s=0.25, call_timeout_s=0.05))
    assert await outcomes(send(queue, b"a")) == [b"a!"]
    assert queue.replicas == ("slow",)
    await queue.drain("slow")
    queue.add(ScriptedReplica("endless", latency_s=60, call_timeout_s=0.02))
    visits = send(queue, b"b")
    await asyncio.sleep(0)
    queue.add(ScriptedReplica("well"))
    assert await outcomes(visits) == [b"b!"]
    assert queue.replicas == ("well",)


@asynchronous
async def test_a_replica_that_hangs_while_it_drains_loses_nothing() -> None:
    queue = StageQueue("s")
    queue.add(ScriptedReplica("hung", latency_s=60, call_timeout_s=0.1))
    (visit,) = send(queue, b"a")
    await asyncio.sleep(BLINK_S)
    queue.add(ScriptedReplica("well"))
    await queue.drain("hung")
    assert await outcomes([visit]) == [b"a!"]


@asynchronous
async def test_a_dead_replica_is_removed_at_once() -> None:
    queue = StageQueue("s")
    queue.add(ScriptedReplica("dead", latency_s=60, call_timeout_s=60))
    (visit,) = send(queue, b"a")
    await asyncio.sleep(BLINK_S)
    queue.add(ScriptedReplica("well"))
    queue.remove("dead")
    assert await outcomes([visit]) == [b"a!"]
    queue.remove("well")
    queue.remove("well")
    assert queue.replicas == ()


@asynchronous
async def test_an_answer_that_is_none_counts_as_a_lost_replica() -> None:
    queue = StageQueue("s")
    queue.add(ScriptedReplica("odd", script=[lambda _: Payload((b"x",) * 7, {"parts": "?"})]))
    (visit,) = send(queue, b"a")
    await asyncio.sleep(BLINK_S)
    queue.add(ScriptedReplica("well"))
    assert await outcomes([visit]) == [b"a!"]


@asynchronous
async def test_of_a_refused_batch_only_the_bad_request_is_refused() -> None:
    def picky(payload: Payload) -> Payload:
        raise RefusedError("no picture")

    queue = StageQueue("s")
    replica = ScriptedReplica(batch=3, batch_timeout_s=60, script=[picky, None, picky, None])
    queue.add(replica)
    visits = send(queue, b"a", b"b", b"c")
    assert await outcomes(visits) == [b"a!", "RefusedError", b"c!"]
    assert replica.batches == [(b"a", b"b", b"c"), (b"a",), (b"b",), (b"c",)]
    assert queue.replicas == ("a",)


@asynchronous
async def test_cancelled_requests_are_skipped() -> None:
    queue = StageQueue("s")
    visits = send(queue, b"a", b"b", b"c")
    visits[1].answer.cancel()
    await asyncio.sleep(0)
    assert len(queue) == 2
    replica = ScriptedReplica(batch=2, batch_timeout_s=60)
    queue.add(replica)
    assert await outcomes([visits[0], visits[2]]) == [b"a!", b"c!"]
    assert replica.batches == [(b"a", b"c")]


@asynchronous
async def test_who_is_cancelled_in_a_batch_disturbs_nobody() -> None:
    queue, replica = StageQueue("s"), ScriptedReplica(batch=2, latency_s=BLINK_S)
    queue.add(replica)
    replica.go.clear()
    queue.drop_limit_s = 1e9
    first = send(queue, b"x")
    visits = send(queue, b"a", b"b")
    await asyncio.sleep(BLINK_S)
    replica.go.set()
    await outcomes(first)
    visits[0].answer.cancel()
    assert await outcomes(visits[1:]) == [b"b!"]


@asynchronous
async def test_draining_waits_for_the_last_batch_and_gives_no_other() -> None:
    queue, replica = StageQueue("s"), ScriptedReplica(latency_s=0.05)
    queue.add(replica)
    visits = send(queue, b"a", b"b")
    await asyncio.sleep(BLINK_S)
    await queue.drain("a")
    assert visits[0].answer.done()
    assert len(queue) == 1
    assert replica.batches == [(b"a",)]
    await queue.drain("a")
    await queue.drain("never was")
    queue.add(ScriptedReplica("next"))
    assert await outcomes(visits) == [b"a!", b"b!"]


@asynchronous
async def test_old_and_new_replicas_serve_side_by_side_each_with_its_own_batch() -> None:
    queue = StageQueue("s")
    old = ScriptedReplica("old", batch=1, latency_s=0.01)
    new = ScriptedReplica("new", batch=4, batch_timeout_s=0, latency_s=0.01)
    queue.add(old)
    queue.add(new)
    await outcomes(send(queue, *[b"%d" % i for i in range(20)]))
    assert max(map(len, old.batches)) == 1
    assert max(map(len, new.batches)) == 4


@asynchronous
async def test_a_model_that_raises_anything_leaves_nobody_waiting() -> None:
    queue = StageQueue("s")
    queue.add(ScriptedReplica(script=[ValueError("a defect")]))
    (visit,) = send(queue, b"a")
    with pytest.raises(StageFailedError, match="unexpectedly"):
        await visit.answer
    await asyncio.sleep(0)


@asynchronous
async def test_closing_fails_what_waits_and_what_is_being_served() -> None:
    queue = StageQueue("s")
    queue.add(ScriptedReplica(latency_s=60))
    visits = send(queue, b"a", b"b")
    await asyncio.sleep(BLINK_S)
    queue.close()
    assert await outcomes(visits) == ["StageFailedError"] * 2
    assert await outcomes(send(queue, b"c")) == ["StageFailedError"]


@asynchronous
async def test_a_batch_that_is_called_off_before_it_began_leaves_nobody_waiting() -> None:
    queue, replica = StageQueue("s"), ScriptedReplica("a")
    queue.add(replica)
    visits = send(queue, b"x")
    queue.remove("a")  # before the event loop came to its batch
    await queue.drain("a")
    assert (queue.replicas, len(queue), replica.batches) == ((), 1, [])
    queue.add(ScriptedReplica("b"))
    assert await outcomes(visits) == [b"x!"]
    visits = send(queue, b"y")
    queue.close()
    await queue.drain("b")
    assert await outcomes(visits) == ["StageFailedError"]


@asynchronous
async def test_nothing_is_lost_while_replicas_come_go_and_fail() -> None:
    """2000 requests, 4 to 8 replicas of which one is lost or drained every few batches."""
    queue = StageQueue("s")
    for number in range(4):
        queue.add(ScriptedReplica(f"r{number}", batch=3, script=[LOST] if number == 0 else None))

    async def disturb() -> None:
        for number in range(4, 200):
            await asyncio.sleep(0.001)
            script = [None] * (9 + number % 7) + [LOST]
            queue.add(ScriptedReplica(f"r{number}", batch=1 + number % 4, script=script))
            if len(queue.replicas) > 4:
                await queue.drain(queue.replicas[0])

    disturbing = asyncio.create_task(disturb())
    visits = []
    for number in range(2000):
        visits += send(queue, b"%d" % number)
        if number % 10 == 0:
            await asyncio.sleep(0.001)
    await disturbing
    queue.add(ScriptedReplica("last"))
    assert await outcomes(visits) == [b"%d!" % number for number in range(2000)]
    assert queue.retried > 0
