"""How long a replica takes to start, and what it holds: forked from the template, or on its own.

    python experiments/live/replica_start.py

Forked: from asking the template to ``ModelReady``, with the model's first answer given. On its own:
``mlserver start`` of the same model class with MLServer's workers, metrics and HTTP as forked ones
have them (off, off; HTTP is on, it cannot be switched off), from the command to ``ModelReady``. A
change: from asking for another variant until it serves and the old one is gone. Own memory is what
no other process shares (``Private_*`` of ``smaps_rollup``). Prints a table and writes
``results/replica_start.json``.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ipa_energy.pipeline_models import OPENMP, ModelSpec
from ipa_energy.records import Allocation, Option
from ipa_energy.serving.local.cpu_groups import Cpus
from ipa_energy.serving.local.replica_process import Launch, ReplicaProcess
from ipa_energy.serving.local.replica_set import ReplicaSet, Wanted
from ipa_energy.serving.local.rpc import RemoteReplica, run
from ipa_energy.serving.local.stage_queue import StageQueue
from ipa_energy.serving.local.template import Template

HERE = Path(__file__).parent
OUT = HERE / "results" / "replica_start.json"
VIDEO = str(HERE.parents[1] / "pipelines" / "video")
ECHO = ModelSpec(str(HERE / "echo_pipeline.py"), "echo", "echo")
MODELS = {
    "stub": ECHO,
    "yolov5n": ModelSpec(VIDEO, "crop", "yolov5n"),
    "resnet18": ModelSpec(VIDEO, "classification", "resnet18"),
}
CHANGES = {
    "yolov5n → yolov5s": ("crop", "yolov5n", "yolov5s"),
    "resnet18 → resnet34": ("classification", "resnet18", "resnet34"),
}
READY_TIMEOUT_S = 120.0


@dataclass(frozen=True, slots=True)
class Started:
    """One start.

    Attributes:
        ready_s: until it was ready.
        cpu_s: CPU seconds that this took in the replica.
        own_mb: memory that is its own alone.
    """

    ready_s: float
    cpu_s: float
    own_mb: float


def own_mb(pid: int) -> float:
    """Memory of a process and its children that nobody else has."""
    total = 0
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    for each in (pid, *map(int, children)):
        for line in Path(f"/proc/{each}/smaps_rollup").read_text().splitlines():
            if line.startswith(("Private_Clean:", "Private_Dirty:")):
                total += int(line.split()[1])
    return total / 1024


async def ready(address: str, model: str) -> bool:
    """True when the model says that it is ready, asked again until it does."""
    remote = RemoteReplica("asked", address, model=model)
    end_s = time.perf_counter() + READY_TIMEOUT_S
    try:
        while time.perf_counter() < end_s:
            if await remote.is_ready(5.0):
                return True
            await asyncio.sleep(0.01)
    finally:
        await remote.close()
    return False


async def forked(template: Template, spec: ModelSpec) -> Started:
    """A fork of the template."""
    start_s = time.perf_counter()
    process = ReplicaProcess(Launch((), spec.variant, forked=spec), (), None, template)
    try:
        if not await ready(f"127.0.0.1:{await process.port()}", process.model):
            raise SystemExit(f"{spec.variant} does not become ready")
        return Started(time.perf_counter() - start_s, process.cpu_s(), own_mb(process.pid))
    finally:
        await process.stop()


async def alone(spec: ModelSpec) -> Started:
    """``mlserver start`` of the same model."""
    with tempfile.TemporaryDirectory() as folder:
        settings = {
            "name": "alone",
            "implementation": "ipa_energy.serving.local.model_server.PipelineModel",
            "parameters": {"extra": asdict(spec)},
        }
        Path(folder, "model-settings.json").write_text(json.dumps(settings))
        ports = free_ports(2)
        told = {
            "MLSERVER_PARALLEL_WORKERS": "0",
            "MLSERVER_DEBUG": "false",
            "MLSERVER_METRICS_ENDPOINT": "",
            "MLSERVER_HOST": "127.0.0.1",
            "MLSERVER_HTTP_PORT": str(ports[0]),
            "MLSERVER_GRPC_PORT": str(ports[1]),
        }
        start_s = time.perf_counter()
        process = subprocess.Popen(
            (str(Path(sys.executable).with_name("mlserver")), "start", folder),
            env=os.environ | OPENMP | told,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd=folder,
        )
        try:
            if not await ready(f"127.0.0.1:{ports[1]}", "alone"):
                raise SystemExit(f"mlserver start of {spec.variant} does not become ready")
            ready_s = time.perf_counter() - start_s
            ticks = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
            cpu_s = (int(ticks[11]) + int(ticks[12])) / os.sysconf("SC_CLK_TCK")
            return Started(ready_s, cpu_s, own_mb(process.pid))
        finally:
            process.kill()
            process.wait()


def free_ports(count: int) -> list[int]:
    """Ports that were free a moment ago."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [int(one.getsockname()[1]) for one in sockets]
    for one in sockets:
        one.close()
    return ports


def option(variant: str) -> Option:
    """A variant on a core."""
    return Option(variant, Allocation.of(1.0), 1, 0.0, 0.0, 0.0, 1e9, 1.0, 0.0, 0.0, None)


async def changed(template: Template, stage: str, old: str, new: str) -> float:
    """Seconds of a change from one variant to another, the old one gone at its end."""
    queue = StageQueue(stage)

    def launch(wanted: Option) -> Launch:
        return Launch((), wanted.variant, forked=ModelSpec(VIDEO, stage, wanted.variant))

    fleet = ReplicaSet(queue, launch, Cpus(), template)
    try:
        fleet.want(Wanted(option(old), 1))
        await fleet.settled(READY_TIMEOUT_S)
        start_s = time.perf_counter()
        fleet.want(Wanted(option(new), 1))
        await fleet.settled(READY_TIMEOUT_S)
        return time.perf_counter() - start_s
    finally:
        await fleet.close()
        queue.close()


@asynccontextmanager
async def template_of(pipeline: str) -> AsyncIterator[Template]:
    """A template process that is up."""
    template = Template(pipeline)
    try:
        yield template
    finally:
        template.close()


async def measure(times: int, out: Path) -> None:
    """Everything in turn, so that all see the same machine."""
    result: dict[str, Any] = {
        "when": time.strftime("%Y-%m-%d"),
        "cpus": len(os.sched_getaffinity(0)),
        "load_average_before": os.getloadavg()[0],
        "starts": {name: {"forked": [], "alone": []} for name in MODELS},
        "changes_s": {name: [] for name in CHANGES},
    }
    start_s = time.perf_counter()
    async with template_of(VIDEO) as video, template_of(ECHO.pipeline) as echo:
        await forked(video, MODELS["yolov5n"])
        result["first_start_s"] = time.perf_counter() - start_s
        await forked(echo, ECHO)
        for _ in range(times):
            for name, spec in MODELS.items():
                template = echo if spec is ECHO else video
                result["starts"][name]["forked"].append(asdict(await forked(template, spec)))
                result["starts"][name]["alone"].append(asdict(await alone(spec)))
            for name, change in CHANGES.items():
                result["changes_s"][name].append(await changed(video, *change))
        result["template_mb"] = own_mb(video.pid)
    result["load_average_after"] = os.getloadavg()[0]
    show(result)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(result, indent=1) + "\n")


def show(result: dict[str, Any]) -> None:
    """The table: medians."""

    def middle(name: str, way: str, figure: str) -> float:
        return float(statistics.median(one[figure] for one in result["starts"][name][way]))

    print(
        f"{result['cpus']} CPUs, load average {result['load_average_before']:.1f} before and"
        f" {result['load_average_after']:.1f} after; medians of"
        f" {len(result['starts']['stub']['forked'])}"
    )
    print(f"template and first replica: {result['first_start_s']:.1f} s")
    for name in result["starts"]:
        one, other = (
            [middle(name, way, figure) for figure in ("ready_s", "cpu_s", "own_mb")]
            for way in ("forked", "alone")
        )
        print(
            f"{name}: ready in {one[0]:.2f} s ({one[1]:.2f} s of CPU), own memory {one[2]:.0f} MB;"
            f" mlserver start {other[0]:.2f} s ({other[1]:.2f} s), {other[2]:.0f} MB;"
            f" ratio {other[0] / one[0]:.1f}, {other[2] / one[2]:.1f}"
        )
    for name, seconds in result["changes_s"].items():
        print(f"{name}: {statistics.median(seconds):.2f} s until the old one is gone")
    print(f"template: {result['template_mb']:.0f} MB of its own")


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--times", type=int, default=3, help="each (default: 3)")
    parser.add_argument("--out", type=Path, default=OUT, help="JSON to write")
    told = parser.parse_args()
    run(measure(told.times, told.out))


if __name__ == "__main__":
    main()
