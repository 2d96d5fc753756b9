"""How long a simulated run takes, and how it grows with the number of requests.

    python experiments/benchmarks/simulation_speed.py

A 20-minute bursty trace through two stages in windows of 10 s, with a reconfiguration (replicas,
batch, now and then the variant) at each of 119 decisions; decisions themselves are not in it, they
have their own benchmark. Then 10 and 100 times the requests, in two ways: a longer trace, and a
busier one with as many times the replicas. Every case runs in a process of its own, arrivals
included, so that peak memory is its own too. Prints a table and writes
``results/simulation_speed.json``; the ratios are what to watch. They are of processor time, which
other work on the machine disturbs less than the clock on the wall.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from ipa_energy.records import Allocation, Option, Provenance, Stage
from ipa_energy.serving.deployment import DeployedStage, Deployment
from ipa_energy.serving.load import arrival_times_s
from ipa_energy.serving.simulated.backend import SimulatedBackend
from ipa_energy.workloads.shapes import named_workload

INTERVAL_S = 10
REPEATS = 3
CASES = [(1, 1), (10, 1), (100, 1), (1, 10), (1, 100)]
"""(times as long, times as busy)."""

VARIANTS = {"detect": [("n", 0.08), ("s", 0.15)], "classify": [("18", 0.03), ("34", 0.05)]}
"""Stage → (variant, seconds of a batch of 1 on one core)."""


def stages() -> tuple[Stage, ...]:
    """Two stages of two variants at batches 1 to 8, about as fast as IPA's video pipeline."""
    provenance = Provenance("synthetic", "estimated", 1, math.nan)
    found = []
    for name, variants in VARIANTS.items():
        options = []
        for variant, first_s in variants:
            for batch in (1, 2, 4, 8):
                latency_s = first_s * (0.3 + 0.7 * batch)
                options.append(
                    Option(
                        variant=variant,
                        allocation=Allocation.of(1.0),
                        batch=batch,
                        latency_s=1.3 * latency_s,
                        latency_avg_s=latency_s,
                        latency_p99_s=1.3 * latency_s,
                        throughput_rps=batch / latency_s,
                        accuracy=0.7,
                        dynamic_energy_j=5 * latency_s / batch,
                        idle_power_w=1.0,
                        provenance=provenance,
                    )
                )
        found.append(Stage(name, name, tuple(options)))
    return tuple(found)


def deployment(pipeline: tuple[Stage, ...], load_rps: float, decision: int) -> Deployment:
    """Enough replicas for the load with a fifth to spare; the variant changes once a minute."""
    variant = decision // 6 % 2
    batch = 1 + decision % 2
    deployed = []
    for stage in pipeline:
        option = stage.options[4 * variant + batch]
        replicas = math.ceil(1.2 * load_rps / option.throughput_rps)
        deployed.append(DeployedStage(stage.name, option, max(1, replicas)))
    return tuple(deployed)


def one_case(longer: int, busier: int) -> dict[str, float]:
    """Simulate one case and say what it took."""
    begin_s, begin_cpu_s = time.perf_counter(), time.process_time()
    counts = np.tile(named_workload("bursty").counts, longer) * busier
    peaks = counts.reshape(-1, INTERVAL_S).max(axis=1)
    sending_s = arrival_times_s(counts, seed=0)
    pipeline = stages()
    backend = SimulatedBackend(
        pipeline, deployment(pipeline, peaks[0], 0), seed=0, drop_limit_s=10.0
    )
    edges = np.searchsorted(sending_s, INTERVAL_S * np.arange(len(peaks) + 1))
    left = dropped = 0
    for window in range(len(peaks)):
        if window:
            backend.deploy(deployment(pipeline, peaks[window - 1], window))
        served = backend.serve(
            sending_s[edges[window] : edges[window + 1]], (window + 1) * INTERVAL_S
        )
        left += len(served.requests)
        dropped += int((served.requests.dropped_at >= 0).sum())
    left += len(backend.finish().requests)
    took_s, took_cpu_s = time.perf_counter() - begin_s, time.process_time() - begin_cpu_s
    return {
        "longer": longer,
        "busier": busier,
        "requests": len(sending_s),
        "left": left,
        "dropped": dropped,
        "decisions": len(peaks) - 1,
        "time_s": round(took_s, 3),
        "cpu_s": round(took_cpu_s, 3),
        "peak_memory_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
    }


def main() -> None:
    """Run every case in its own process, the small ones several times, and print ratios."""
    results: list[dict[str, Any]] = []
    for longer, busier in CASES:
        command = [sys.executable, __file__, str(longer), str(busier)]
        runs = [
            json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
            for _ in range(REPEATS if longer * busier < 100 else 1)
        ]
        best = min(runs, key=lambda run: float(run["cpu_s"]))
        best["cpu_ratio"] = round(best["cpu_s"] / (results or [best])[0]["cpu_s"], 1)
        results.append(best)
        print(
            f"{longer:4d} x as long {busier:4d} x as busy {best['requests']:10,d} requests"
            f" {best['time_s']:8.3f} s  {best['cpu_s']:8.3f} s CPU  {best['cpu_ratio']:6.1f} x"
            f"  {1e6 * best['cpu_s'] / best['requests']:6.1f} us a request"
            f"  {best['peak_memory_mb']:7.1f} MB",
            flush=True,
        )
    report = {"python": platform.python_version(), "repeats": REPEATS, "cases": results}
    path = Path(__file__).parent / "results" / "simulation_speed.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("case", nargs="*", type=int, help="times as long, times as busy: one case")
    case = parser.parse_args().case
    if len(case) == 2:
        print(json.dumps(one_case(*case)))
    elif case:
        parser.error("a case is two numbers")
    else:
        main()
