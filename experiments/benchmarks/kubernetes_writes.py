"""How soon a plan stands on a cluster: writes, an outage made up for, idle rounds, memory.

    python experiments/benchmarks/kubernetes_writes.py              against the stand-in cluster
    KUBECONFIG=… python experiments/benchmarks/kubernetes_writes.py --real     against a real one
    python experiments/benchmarks/kubernetes_writes.py --outage 5   a shorter outage

Prints and writes ``results/kubernetes_writes.json``. The stand-in runs in a process of its own on
the same machine; how long pods take to be ready is no part of any figure but the outage's. A round
is a look at everything that is there, the comparison, and the writes one after the other.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from ipa_energy.config.sections import KubernetesConfig
from ipa_energy.errors import TryAgainError
from ipa_energy.records import Allocation, Option
from ipa_energy.serving.deployment import DeployedStage, Deployment
from ipa_energy.serving.kubernetes.cluster_api import ClusterApi
from ipa_energy.serving.kubernetes.manifests import Model, Rendering
from ipa_energy.serving.kubernetes.reconciler import Reconciler

ROOT = Path(__file__).parents[2]
REPEATS = 7
INTERVAL_S = 10.0
SIZES = {2: 0.2, 20: 1.0}
"""Stages → the seconds in which a plan that changes all of them is to be written."""

PODS, MOST_BYTES = 500, 200e6
MEMORY_CHILD = """
import sys, time
from pathlib import Path
from ipa_energy.serving.kubernetes.cluster_api import ClusterApi, path_of
api = ClusterApi(Path(sys.argv[1]))
pods, there = path_of(("v1", "Pod"), sys.argv[2]), {}
first = api.get(pods)
for one in first["items"]:
    there[one["metadata"]["name"]] = one
print("listed", flush=True)
until = time.monotonic() + 60
version = first["metadata"]["resourceVersion"]
query = {"resourceVersion": version, "timeoutSeconds": 60}
events = 0
over = lambda: events >= len(there) or time.monotonic() > until
for event in api.watch(pods, query, is_over=over):
    there[event["object"]["metadata"].get("name", "")] = event["object"]
    events += 1
status = Path("/proc/self/status").read_text()
peak = next(line for line in status.splitlines() if line.startswith("VmHWM"))
print(len(there), events, int(peak.split()[1]) * 1024)
"""


def option(variant: str) -> Option:
    """One of a made-up profile."""
    return Option(
        variant=variant,
        allocation=Allocation.of(1.0),
        batch=1,
        latency_s=0.05,
        latency_avg_s=0.05,
        latency_p99_s=0.06,
        throughput_rps=20.0,
        accuracy=0.5,
        dynamic_energy_j=1.0,
        idle_power_w=1.0,
        provenance=None,
    )


def plan(stages: int, variant: str, replicas: int = 1) -> Deployment:
    """Every stage runs the same."""
    return tuple(DeployedStage(f"stage-{n}", option(variant), replicas) for n in range(stages))


@contextlib.contextmanager
def cluster(folder: Path, *, is_real: bool) -> Iterator[tuple[ClusterApi, Rendering, Path]]:
    """A cluster, a namespace in it, and its kubeconfig."""
    name = f"bench-{uuid.uuid4().hex[:6]}"
    if is_real:
        path = Path(os.environ["KUBECONFIG"])
        child = None
    else:
        path = folder / "kubeconfig"
        command = [sys.executable, "-m", "tests.standin_cluster", "--pretend"]
        child = subprocess.Popen(
            [*command, "--kubeconfig", str(path)], stdout=subprocess.PIPE, text=True, cwd=ROOT
        )
        if child.stdout is None or not child.stdout.readline():
            raise SystemExit("the stand-in cluster does not start")
    api = ClusterApi(path, seed=1)
    with contextlib.ExitStack() as stack:
        if child is not None:
            stack.callback(child.wait)
            stack.callback(child.terminate)
        api._asked("POST", "/api/v1/namespaces", None, {"metadata": {"name": name}})
        stack.callback(api._asked, "DELETE", f"/api/v1/namespaces/{name}")
        settings = KubernetesConfig()
        rendering = Rendering(
            "bench", name, settings, lambda stage, _: Model("a.Stub", {"s": stage})
        )
        yield api, rendering, path


def written_s(api: ClusterApi, rendering: Rendering, stages: int) -> dict[str, Any]:
    """Seconds of a round that changes every stage, and of one in which nothing changed."""
    mine = replace(rendering, pipeline=f"of-{stages}")
    reconciler = Reconciler(api, mine)
    reconciler.step(plan(stages, "v0"))
    times_s, idle_s, writes = [], [], []
    for n in range(REPEATS):
        before = api.writes
        begin = time.perf_counter()
        reconciler.step(plan(stages, f"v{n + 1}"))
        times_s.append(time.perf_counter() - begin)
        writes.append(api.writes - before)
        time.sleep(0.5)
        before = api.writes
        begin = time.perf_counter()
        reconciler.step(plan(stages, f"v{n + 1}"))
        idle_s.append(time.perf_counter() - begin)
        writes.append(-(api.writes - before))
    return {
        "stages": stages,
        "round_s": round(statistics.median(times_s), 4),
        "worst_round_s": round(max(times_s), 4),
        "limit_s": SIZES[stages],
        "writes": max(writes),
        "idle_round_s": round(statistics.median(idle_s), 4),
        "idle_writes": -min(writes),
    }


def outage(length_s: float) -> dict[str, Any]:
    """A plan comes while the server answers 503: when it stands, counted from the outage's end."""
    sys.path.insert(0, str(ROOT / "tests"))
    from standin_cluster.api_server import ApiServer
    from standin_cluster.world import World

    with tempfile.TemporaryDirectory() as folder, ApiServer() as server, World(server):
        api = ClusterApi(server.kubeconfig(Path(folder) / "kubeconfig"), seed=1)
        rendering = Rendering(
            "bench", "default", KubernetesConfig(), lambda stage, _: Model("a.Stub", {"s": stage})
        )
        reconciler = Reconciler(api, rendering)
        before, after = plan(2, "v0"), plan(2, "v1", 3)
        while reconciler.step(before) or reconciler.unsettled(before):
            time.sleep(0.05)
        server.faults.outage(length_s)
        ends_s = time.perf_counter() + length_s
        tick_s, intervals, failures = time.perf_counter(), 0, 0
        while True:
            is_over = time.perf_counter() > ends_s
            try:
                if not reconciler.step(after) and not reconciler.unsettled(after):
                    break
            except TryAgainError:
                failures += 1
            intervals += is_over
            tick_s += INTERVAL_S
            time.sleep(max(0.0, tick_s - time.perf_counter()))
        api.close()
    return {
        "outage_s": length_s,
        "interval_s": INTERVAL_S,
        "rounds_that_failed": failures,
        "intervals_until_all_serves": intervals,
        "limit_intervals": 2,
        "after_the_outage_s": round(time.perf_counter() - ends_s, 1),
    }


def watched(api: ClusterApi, rendering: Rendering, path: Path) -> dict[str, Any]:
    """Memory of a process that lists and watches hundreds of pods, all of which change once."""
    mine = replace(rendering, pipeline="many")
    reconciler = Reconciler(api, mine)
    wanted = plan(5, "v0", PODS // 5)
    end_s = time.monotonic() + 120
    while reconciler.step(wanted) or reconciler.unsettled(wanted):
        if time.monotonic() > end_s:
            raise SystemExit("the pods do not come")
        time.sleep(0.5)
    child = subprocess.Popen(
        [sys.executable, "-c", MEMORY_CHILD, str(path), rendering.namespace],
        stdout=subprocess.PIPE,
        text=True,
    )
    if child.stdout is None or not child.stdout.readline():
        raise SystemExit("the watching process does not start")
    for pod in reconciler.live.pods:
        metadata = pod["metadata"]
        place = f"/api/v1/namespaces/{rendering.namespace}/pods/{metadata['name']}"
        body = {"metadata": {"annotations": {"touched": "yes"}}}
        api._asked("PATCH", place, None, body, "application/merge-patch+json")
    told, _ = child.communicate()
    pods, events, peak = map(int, told.split())
    return {"pods": pods, "events": events, "peak_bytes": peak, "limit_bytes": int(MOST_BYTES)}


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--real", action="store_true", help="the cluster of KUBECONFIG")
    parser.add_argument("--outage", type=float, default=60.0, metavar="SECONDS")
    args = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as folder,
        cluster(Path(folder), is_real=args.real) as (api, rendering, path),
    ):
        version = api.get("/version")
        rounds = [written_s(api, rendering, stages) for stages in SIZES]
        memory = None if args.real else watched(api, rendering, path)
    report = {
        "server": f"{version['major']}.{version['minor']}" + ("" if args.real else " stand-in"),
        "python": platform.python_version(),
        "cpus": os.cpu_count(),
        "load_1min": round(os.getloadavg()[0], 1),
        "repeats": REPEATS,
        "rounds": rounds,
        "outage": None if args.real else outage(args.outage),
        "watched": memory,
    }
    for each in rounds:
        print(
            f"{each['stages']:3d} stages: {each['writes']} writes in {each['round_s']:.3f} s "
            f"(worst {each['worst_round_s']:.3f}, limit {each['limit_s']}); nothing changed: "
            f"{each['idle_writes']} writes, {each['idle_round_s']:.3f} s"
        )
    print(json.dumps({name: report[name] for name in ("outage", "watched")}, indent=2))
    name = "kubernetes_writes_real" if args.real else "kubernetes_writes"
    out = Path(__file__).parent / "results" / f"{name}.json"
    out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
