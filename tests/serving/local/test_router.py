"""Requests through two stages: what is written down, and the same over real gRPC."""

from __future__ import annotations

import asyncio
import math

import numpy as np
import pytest

pytest.importorskip("grpc")

import grpc.aio
from scripted_replica import ScriptedReplica
from test_stage_queue import BLINK_S, asynchronous

from ipa_energy.errors import ServingError
from ipa_energy.serving.local.protocol import (
    MESSAGES,
    SERVICE,
    DroppedError,
    Named,
    Payload,
    RefusedError,
    ReplicaLostError,
    joined,
    parted,
    requests_in,
    spread,
)
from ipa_energy.serving.local.router import Router
from ipa_energy.serving.local.rpc import RemoteReplica, start_server
from ipa_energy.serving.local.stage_queue import StageQueue


def two_stages(**first: object) -> tuple[Router, ScriptedReplica, ScriptedReplica]:
    queues = StageQueue("one"), StageQueue("two")
    replicas = ScriptedReplica("1", mark=b"1", **first), ScriptedReplica("2", mark=b"2")
    for queue, replica in zip(queues, replicas, strict=True):
        queue.add(replica)
    return Router("pipe", queues), *replicas


@asynchronous
async def test_a_request_goes_through_all_stages_and_its_times_are_kept() -> None:
    router, _, _ = two_stages(latency_s=0.01)
    answer = await router.infer(Named("pipe", "7", Payload((b"x",), {"k": 1})))
    assert answer == Named("pipe", "7", Payload((b"x12",), {"k": 1}))
    (trip,) = router.take_finished()
    times = [trip.arrived_s]
    for index in range(2):
        times += [trip.queued_s[index], trip.started_s[index], trip.served_s[index]]
    assert [*times, trip.left_s] == sorted([*times, trip.left_s])
    assert (trip.request_id, trip.stopped_at, trip.trouble) == ("7", -1, None)
    assert router.take_finished() == []
    assert router.take_arrived() == [trip.arrived_s]


@asynchronous
async def test_a_request_for_another_model_is_refused_and_nobodys() -> None:
    router, first, _ = two_stages()
    with pytest.raises(RefusedError, match="no model 'other' is served here; allowed: pipe"):
        await router.infer(Named("other", "7", Payload((b"x",))))
    assert (first.batches, router.take_finished(), router.take_arrived()) == ([], [], [])


@asynchronous
async def test_a_drop_is_written_down_with_its_stage() -> None:
    router, _, _ = two_stages(latency_s=0.05)
    router.queues[1].drop_limit_s = 0.01
    with pytest.raises(DroppedError, match="stage two"):
        await router.infer(Named("pipe", "7", Payload((b"x",))))
    (trip,) = router.take_finished()
    assert trip.stopped_at == 1
    assert len(trip.queued_s) == 2
    assert math.isnan(trip.started_s[1])
    assert math.isnan(trip.served_s[1])
    assert router.under_way == 0


@asynchronous
async def test_a_request_that_its_client_cancels_is_under_way_no_more() -> None:
    router, _, second = two_stages(latency_s=60)
    task = asyncio.create_task(router.infer(Named("pipe", "7", Payload((b"x",)))))
    await asyncio.sleep(BLINK_S)
    assert router.under_way == 1
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    (trip,) = router.take_finished()
    assert (trip.stopped_at, trip.trouble, router.under_way) == (0, "cancelled by the client", 0)
    assert second.batches == []


def fanning(**second: object) -> tuple[Router, ScriptedReplica, ScriptedReplica]:
    """A stage that makes ``ab`` ``a`` and ``b``; one that sees each apart; one that gathers."""
    queues = StageQueue("one"), StageQueue("two"), StageQueue("three")

    def letters(batch: Payload) -> Payload:
        return spread(batch, [[b"%c" % letter for letter in x] for x in batch.elements])

    replicas = (
        ScriptedReplica("1", script=[letters] * 9),
        ScriptedReplica("2", mark=b"2", **second),
        ScriptedReplica("3", mark=b"3"),
    )
    for queue, replica in zip(queues, replicas, strict=True):
        queue.add(replica)
    return Router("pipe", queues, apart=("two",)), replicas[1], replicas[2]


@asynchronous
async def test_elements_of_one_request_are_requests_of_a_stage_that_sees_several() -> None:
    router, second, third = fanning(batch=2, latency_s=0.01)
    asked = [Named("pipe", "7", Payload((b"abc",), {"k": 1})), Named("pipe", "8", Payload((b"d",)))]
    answers = await asyncio.gather(*(router.infer(one) for one in asked))
    assert [answer.payload for answer in answers] == [
        Payload((b"a23", b"b23", b"c23"), {"k": 1}),
        Payload((b"d23",)),
    ]
    assert second.batches == [(b"a", b"b"), (b"c", b"d")]  # whoever's they are
    assert sorted(third.batches) == [(b"a2", b"b2", b"c2"), (b"d2",)]  # together again
    assert router.queues[1].take_served() == (4, 2)
    assert router.queues[1].take_served() == (0, 0)
    assert router.queues[2].take_served() == (2, 2)
    trip = next(trip for trip in router.take_finished() if trip.request_id == "7")
    first_s, last_s = trip.started_s[1], trip.served_s[1]
    assert last_s - first_s > 0.015  # from the first part's batch to the last part's
    assert trip.queued_s[2] >= last_s


@asynchronous
async def test_a_request_with_nothing_left_passes_by_the_stages_that_remain() -> None:
    router, second, third = fanning()
    answer = await router.infer(Named("pipe", "7", Payload((b"",))))
    assert answer.payload.elements == ()
    assert (second.batches, third.batches) == ([], [])
    (trip,) = router.take_finished()
    assert (trip.stopped_at, len(trip.queued_s)) == (-1, 3)
    assert np.isnan([trip.queued_s[1:], trip.started_s[1:], trip.served_s[1:]]).all()


@asynchronous
async def test_a_request_with_a_part_that_is_too_old_is_dropped_whole_and_once() -> None:
    router, second, third = fanning(latency_s=0.05)
    router.queues[1].drop_limit_s = 0.07
    with pytest.raises(DroppedError, match="stage two"):
        await router.infer(Named("pipe", "7", Payload((b"abcde",))))
    (trip,) = router.take_finished()
    assert (trip.stopped_at, trip.is_dropped, math.isnan(trip.served_s[1])) == (1, True, True)
    assert len(router.queues[1]) == 0  # its other parts left the queue with it
    assert third.batches == []
    assert (await router.infer(Named("pipe", "8", Payload((b"z",))))).payload.elements == (b"z23",)
    assert second.batches[-1] == (b"z",)


class Model:
    """Upper case, unless the element is bad."""

    name = "model"
    loaded = True

    def is_ready(self, model: str) -> bool:
        return self.loaded and model in ("", self.name)

    async def infer(self, named: Named) -> Named:
        payload = named.payload
        if b"bad" in payload.elements:
            raise RefusedError("bad is no word")
        if b"crash" in payload.elements:
            raise ServingError("crashed")
        if b"defect" in payload.elements:
            raise ZeroDivisionError
        requests = parted(payload, requests_in(payload))
        answers = [Payload(tuple(x.upper() for x in r.elements), r.parameters) for r in requests]
        return Named(self.name, named.request_id, joined(answers))


@asynchronous
async def test_over_real_grpc_two_stages_batch_refuse_and_retry() -> None:
    servers = [await start_server(Model()) for _ in range(3)]
    lost: list[str] = []
    queues = [StageQueue(name, on_lost=lambda r, _: lost.append(r.name)) for name in ("one", "two")]
    replicas = []
    for index, (_, port) in enumerate(servers):
        replica = RemoteReplica(
            f"r{index}", f"127.0.0.1:{port}", model="model", batch=4, batch_timeout_s=0.01
        )
        assert await replica.is_ready()
        replicas.append(replica)
        queues[0 if index < 2 else 1].add(replica)
    router = Router("pipe", queues)
    front, port = await start_server(router)
    client = RemoteReplica("client", f"127.0.0.1:{port}", model="pipe")
    assert await client.is_ready()

    big = Payload((b"a" * 5_000_000,), {"k": "é"})
    assert await client.infer(big) == Payload((b"A" * 5_000_000,), {"k": "é"})
    asked = [client.ask(str(i), Payload((b"w%d" % i,))) for i in range(50)]
    answers = await asyncio.gather(*asked)
    assert [answer.elements for answer in answers] == [(b"W%d" % i,) for i in range(50)]

    await servers[0][0].stop(None)
    asked = [client.infer(Payload((b"v%d" % i,))) for i in range(20)]
    assert [a.elements for a in await asyncio.gather(*asked)] == [(b"V%d" % i,) for i in range(20)]
    assert lost == ["r0"]

    words = [b"ok", b"bad", b"fine"]
    found = await asyncio.gather(
        *(client.infer(Payload((word,))) for word in words), return_exceptions=True
    )
    assert isinstance(found[1], RefusedError)
    assert "INVALID_ARGUMENT: replica r1: INVALID_ARGUMENT: bad is no word" in str(found[1])
    assert [found[0].elements, found[2].elements] == [(b"OK",), (b"FINE",)]

    await client.close()
    for replica in replicas:
        await replica.close()
    for server in (front, *(server for server, _ in servers)):
        await server.stop(None)


@asynchronous
async def test_what_a_replica_answers_tells_whether_it_or_the_request_is_at_fault() -> None:
    model = Model()
    server, port = await start_server(model)
    replica = RemoteReplica("r", f"127.0.0.1:{port}", model="model")
    for word in (b"crash", b"defect"):
        with pytest.raises(ReplicaLostError):
            await replica.infer(joined([Payload((word,))]))
    model.loaded = False
    assert not await replica.is_ready()
    with pytest.raises(ServingError, match=f"cannot listen at 127.0.0.1:{port}"):
        await start_server(model, f"127.0.0.1:{port}")
    raw = grpc.aio.insecure_channel(f"127.0.0.1:{port}")
    ask = raw.unary_unary(f"/{SERVICE}/ModelInfer")
    with pytest.raises(grpc.aio.AioRpcError, match="0 inputs; allowed: 1") as refused:
        await ask(b"")
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    metadata = raw.unary_unary(f"/{SERVICE}/ServerMetadata")
    answer = MESSAGES["ServerMetadataResponse"].FromString(await metadata(b""))
    assert answer.name == "model"
    await raw.close()
    await replica.close()
    await server.stop(None)
    assert not await RemoteReplica("r", f"127.0.0.1:{port}", model="model").is_ready(0.2)
