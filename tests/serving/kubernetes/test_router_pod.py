"""The router's side: pods come and go as slices say, its control asks for the token."""

from __future__ import annotations

import asyncio
import json
import sys

import pytest
from installed import require_installed
from option_maker import make_option

from ipa_energy.serving.kubernetes.manifests import server_name
from ipa_energy.serving.kubernetes.pod_set import Endpoint, PodSet
from ipa_energy.serving.kubernetes.router_pod import PodControl, PodPipeline, endpoints_in
from ipa_energy.serving.local import control
from ipa_energy.serving.local.protocol import Payload
from ipa_energy.serving.local.replica_set import Wanted
from ipa_energy.serving.local.rpc import start_server
from ipa_energy.serving.local.stage_queue import StageQueue
from ipa_energy.serving.local.stub_model import StubModel

SMALL, LARGE = make_option("small"), make_option("large")
OPTIONS = {server_name(option): option for option in (SMALL, LARGE)}


class Pod(StubModel):
    """A server whose name is not its model's."""

    def __init__(self, option, seconds=0.0):
        super().__init__(server_name(option), {1: seconds})
        object.__setattr__(self, "model", option.variant)
        object.__setattr__(self, "asked", [])

    async def infer(self, named):
        self.asked.append(named)
        return await super().infer(named)

    def is_ready(self, model):
        return model in ("", self.model)


async def _until(holds, timeout_s=60.0):
    async with asyncio.timeout(timeout_s):
        while not holds():
            await asyncio.sleep(0.01)


def _stage():
    queue = StageQueue("crop")
    return queue, PodSet(queue, OPTIONS)


def test_pods_serve_from_when_they_are_ready_until_they_begin_to_end():
    async def main():
        queue, pods = _stage()
        served = [Pod(SMALL, 0.05) for _ in range(2)]
        servers = [await start_server(pod) for pod in served]
        ends = [Endpoint(f"p{i}", f"127.0.0.1:{port}", True) for i, (_, port) in enumerate(servers)]
        pods.want(Wanted(SMALL, 2, server=server_name(SMALL)))
        pods.update([ends[0], Endpoint("p1", ends[1].address, False)])
        await _until(lambda: queue.replicas == ("p0",))
        pods.update(ends)
        await pods.settled(60)
        visits = [queue.enter(Payload((b"x",)), 0.0) for _ in range(6)]
        pods.update([ends[0], Endpoint("p1", ends[1].address, False)])
        assert [(await visit.answer).elements for visit in visits] == [(b"x",)] * 6
        assert queue.replicas == ("p0",)
        assert len(served[1].asked) <= 1  # what it had; then no more
        await _until(lambda: len(pods.members) == 1)
        [ended] = pods.take_ended()
        assert ended.name == "p1" and ended.process.cpu_s() > 0
        assert [state.ready for state in pods.states()] == [1]
        await pods.close()
        for server, _ in servers:
            await server.stop(None)

    asyncio.run(main())


def test_a_pod_that_is_gone_loses_no_request():
    async def main():
        queue, pods = _stage()
        servers = [await start_server(Pod(SMALL, 0.2)) for _ in range(2)]
        ends = [Endpoint(f"p{i}", f"127.0.0.1:{port}", True) for i, (_, port) in enumerate(servers)]
        pods.want(Wanted(SMALL, 2, server=server_name(SMALL)))
        pods.update(ends)
        await pods.settled(60)
        visits = [queue.enter(Payload((b"x",)), 0.0) for _ in range(4)]
        await asyncio.sleep(0.05)
        await servers[1][0].stop(None)
        pods.update(ends[:1])
        assert [(await visit.answer).elements for visit in visits] == [(b"x",)] * 4
        await pods.close()
        await servers[0][0].stop(None)

    asyncio.run(main())


def test_old_and_new_serve_side_by_side_each_with_its_own_batches():
    async def main():
        queue, pods = _stage()
        old, new = await start_server(Pod(SMALL)), await start_server(Pod(LARGE))
        pods.want(Wanted(SMALL, 1, server=server_name(SMALL)))
        pods.update([Endpoint("old", f"127.0.0.1:{old[1]}", True)])
        await pods.settled(60)
        large = make_option("large", 8)
        pods.want(Wanted(large, 1, 0.5, server=server_name(LARGE)))
        both = [Endpoint(n, f"127.0.0.1:{s[1]}", True) for n, s in (("old", old), ("new", new))]
        pods.update(both)
        await _until(lambda: len(queue.replicas) == 2)
        batches = {member.name: member.remote.batch for member in pods.members}
        assert batches == {"old": 1, "new": 8}
        pods.update(both[1:])
        await pods.settled(60)
        changes = pods.take_changes()
        assert changes[-1].gone_s >= changes[-1].ready_s >= changes[-1].asked_s
        await pods.close()
        for server, _ in (old, new):
            await server.stop(None)

    asyncio.run(main())


@pytest.mark.parametrize(
    ("conditions", "takes"),
    [
        ({"ready": True, "serving": True, "terminating": False}, True),
        ({"ready": False, "serving": True, "terminating": True}, False),
        ({}, True),
        ({"ready": None}, True),
        ({"ready": False}, False),
    ],
)
def test_conditions_of_endpoints_are_read_as_they_are_meant(conditions, takes):
    endpoint = {
        "addresses": ["fd00::1"],
        "conditions": conditions,
        "targetRef": {"kind": "Pod", "name": "p"},
    }
    ports = [{"name": "http", "port": 8080}, {"name": "grpc", "port": 8081}]
    found = endpoints_in({"endpoints": [endpoint], "ports": ports})
    assert found == [Endpoint("p", "[fd00::1]:8081", takes)]
    assert endpoints_in({"endpoints": None, "ports": ports}) == []


def test_who_does_not_know_the_token_is_told_nothing_and_changes_nothing():
    async def main():
        pod = PodControl(PodPipeline("127.0.0.1"), "right")
        server = await asyncio.start_server(pod._talk, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        for word, is_admitted in (("wrong", False), ("", False), ("right", True)):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(control.frame({"ask": "hello", "with": word}))
            answer = await control.next_message(reader)
            assert ("error" not in answer) is is_admitted
            if is_admitted:
                writer.write(control.frame({"ask": "busy", "with": None}))
                assert (await control.next_message(reader))["answer"] is False
                assert not pod._over.is_set()
            writer.close()
        await _until(pod._over.is_set)  # nothing to come back to: the container begins anew
        server.close()
        await pod._pipeline.close(grace_s=0.0)

    asyncio.run(main())


def test_the_stub_of_a_server_image_loads_in_mlserver_as_its_environment_says(tmp_path):
    import os
    import subprocess

    told = json.dumps({"batch_s": {"1": 0.25, "4": 0.5}})
    code = (
        "import asyncio\n"
        "from mlserver.repository.repository import SchemalessModelRepository as R\n"
        "[s] = asyncio.run(R('.').list())\n"
        "model = s.implementation(s)\n"
        "assert asyncio.run(model.load())\n"
        "print(model.name, model._stub.seconds(4))\n"
    )
    require_installed("mlserver")
    environment = {
        "MLSERVER_MODEL_NAME": "yolov5n",
        "MLSERVER_MODEL_IMPLEMENTATION": "ipa_energy.serving.kubernetes.model_pod.StubPodModel",
        "MLSERVER_MODEL_EXTRA": told,
    }
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stdout.split() == ["yolov5n", "0.5"]
