"""The models of a server's container, for MLServer as it is: ``mlserver start .``.

What is to be loaded stands in the environment (:mod:`.manifests`). A pod may be given other cores
while it runs; a model follows them with its threads.
"""

from __future__ import annotations

import asyncio
import math
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from mlserver import MLModel
from mlserver.types import InferenceRequest, InferenceResponse, Parameters, ResponseOutput

from ipa_energy.pipeline_models import Handler, find_pipeline
from ipa_energy.serving.local.model_server import PipelineModel
from ipa_energy.serving.local.protocol import Payload, requests_in
from ipa_energy.serving.local.stub_model import StubModel

PIPELINES_AT = Path("/srv")
"""Images carry pipelines of their users' own in the folder ``pipelines`` there."""

CPU_MAX = Path("/sys/fs/cgroup/cpu.max")
LOOK_EVERY_S = 1.0


class PodModel(PipelineModel):
    """One variant of one stage of a pipeline that is named."""

    async def load(self) -> bool:
        """As of a replica on one machine, of the pipeline that this image has by that name."""
        extra = self.settings.parameters.extra
        near = (Path.cwd(), PIPELINES_AT)
        extra["pipeline"] = find_pipeline(extra["pipeline"], near=near)
        await super().load()
        self._handler = following_cores(self._handler, int(extra.get("threads", 1)))
        return True


class StubPodModel(MLModel):  # type: ignore[misc]
    """Takes the time that the profile gives a batch, and answers with what it got."""

    async def load(self) -> bool:
        """Nothing to load."""
        extra = self.settings.parameters.extra
        batch_s = {int(size): float(seconds) for size, seconds in extra["batch_s"].items()}
        self._stub = StubModel(self.name, batch_s)
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """The same again, later."""
        tensor = payload.inputs[0]
        elements = tuple(tensor.data)
        await asyncio.sleep(self._stub.seconds(requests_in(Payload(elements))))
        beside = (payload.parameters.model_extra or {}).get("json") if payload.parameters else None
        output = ResponseOutput(
            name="output", shape=[len(elements)], datatype="BYTES", data=list(elements)
        )
        parameters = None if beside is None else Parameters(json=beside)
        return InferenceResponse(model_name=self.name, outputs=[output], parameters=parameters)


def following_cores(handler: Handler, threads: int, cpu_max: Path = CPU_MAX) -> Handler:
    """The handler, which computes on as many threads as the pod has cores at the time.

    Args:
        handler: runs in one thread.
        threads: that it computes on until something else is seen.
        cpu_max: the kernel's file of the group's quota.
    """
    seen = {"threads": threads, "looked_s": -math.inf}

    def serve(elements: Sequence[bytes]) -> Sequence[bytes]:
        now_s = time.perf_counter()
        if now_s - seen["looked_s"] > LOOK_EVERY_S:
            seen["looked_s"] = now_s
            cores, torch = _cores_in(cpu_max), sys.modules.get("torch")
            if cores is not None and cores != seen["threads"] and torch is not None:
                torch.set_num_threads(cores)
                seen["threads"] = cores
        return handler(elements)

    return serve


def _cores_in(path: Path) -> int | None:
    """Whole cores of a quota; None without one."""
    try:
        quota, period = path.read_text(encoding="ascii").split()
        return max(1, round(int(quota) / int(period)))
    except (OSError, ValueError):
        return None
