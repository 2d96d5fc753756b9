"""What the router adds to a direct call, and what it stands.

    python experiments/live/router_overhead.py

Two stages of stub models that take no time, one replica each, in processes of their own; the router
in a third, the load generator (an open loop) in a fourth. Direct calls and calls through the router
are timed in turn, a few seconds each and several times over, so that both see the same machine;
medians are of all rounds together. Latency counts from the intended time of sending.

What the router adds to a stage is what a request through it took beyond a direct call to each of
its stages, and beyond what the generator was late by::

    ((routed − late) − 2 (direct − late)) / 2

Prints a table with the ratio to a direct call and writes ``results/router_overhead.json``. Takes
less than a minute.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ipa_energy.meters.power_model import power_model_for_this_machine
from ipa_energy.records import Allocation, Option
from ipa_energy.serving.load import TraceLoad
from ipa_energy.serving.local.generator import Sent
from ipa_energy.serving.local.plane import Job, Plane
from ipa_energy.serving.local.replica_process import Launch
from ipa_energy.serving.local.replica_set import Wanted
from ipa_energy.serving.local.router import Trip
from ipa_energy.serving.local.sender import send_all

OUT = Path(__file__).parent / "results" / "router_overhead.json"
STAGES = ("one", "two")
ROUNDS = 2
STUB = json.dumps({"name": "stub", "batch_s": {"1": 0.0}})
COMMAND = (sys.executable, "-m", "ipa_energy.serving.local.stub_model", STUB)


def option(batch: int) -> Option:
    """A stub on a core."""
    return Option("stub", Allocation.of(1.0), batch, 0.0, 0.0, 0.0, 1e9, 1.0, 0.0, 0.0, None)


@contextmanager
def stub() -> Iterator[str]:
    """The address of a stub model that nobody else asks."""
    with subprocess.Popen(COMMAND, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            line = process.stdout.readline() if process.stdout else b""
            yield f"127.0.0.1:{json.loads(line)['port']}"
        finally:
            process.kill()


@contextmanager
def two_stages() -> Iterator[Plane]:
    """The router before two stages, one replica each."""
    server = (option(1).variant, option(1).allocation)
    stages = {name: {server: Launch(COMMAND, "stub")} for name in STAGES}
    plane = Plane(Job("pipe", stages, power_model_for_this_machine()))
    try:
        set_batch(plane, 1, 0.0)
        plane.wait(60)
        yield plane
    finally:
        plane.close()


def set_batch(plane: Plane, batch: int, timeout_s: float) -> None:
    """What both stages' replicas take at once, and wait for."""
    plane.want([[Wanted(option(batch), 1, timeout_s, 10.0)]] * len(STAGES))


def sent(address: str, model: str, rps: int, seconds: int, payload: int) -> Sending:
    """Send Poisson arrivals; what came of them."""
    trace = TraceLoad(np.full(seconds, rps), seed=1)
    times_s, payloads = trace.sending_s(0.0, math.inf), [os.urandom(payload)]
    finished, cpu_s = asyncio.run(
        send_all(times_s, address=address, model=model, payloads=payloads)
    )
    return Sending(rps, seconds, finished, cpu_s)


@dataclass(frozen=True, slots=True)
class Sending:
    """What became of a load, or of several alike.

    Attributes:
        rps: requests a second.
        seconds: of it.
        finished: every request.
        cpu_s: of the generator, its start included.
    """

    rps: int
    seconds: int
    finished: list[Sent]
    cpu_s: float

    def __add__(self, other: Sending) -> Sending:
        return Sending(
            self.rps,
            self.seconds + other.seconds,
            self.finished + other.finished,
            self.cpu_s + other.cpu_s,
        )

    def figures(self) -> dict[str, float]:
        """Counts, and times in milliseconds."""
        latency_ms = np.array([one.latency_s for one in self.finished]) * 1e3
        lateness_ms = np.array([one.lateness_s for one in self.finished]) * 1e3
        return {
            "rps": self.rps,
            "answered": sum(one.trouble is None for one in self.finished),
            "lost": sum(one.trouble is not None for one in self.finished),
            "p50_ms": float(np.median(latency_ms)),
            "p99_ms": float(np.quantile(latency_ms, 0.99)),
            "served_p50_ms": float(np.median(latency_ms - lateness_ms)),
            "late_p50_ms": float(np.median(lateness_ms)),
            "generator_cores": self.cpu_s / self.seconds,
        }


def added(plane: Plane, address: str, seconds: int, payload: int) -> dict[str, Any]:
    """Direct and through two stages in turn, and the router's own part by its own clock."""
    direct, routed = Sending(50, 0, [], 0.0), Sending(50, 0, [], 0.0)
    trips: list[Trip] = []
    cpu_s = 0.0
    for _ in range(ROUNDS):
        direct += sent(address, "stub", 50, seconds, payload)
        before_s = plane.report().cpu_s
        routed += sent(plane.address, "pipe", 50, seconds, payload)
        report = plane.report()
        trips += report.trips
        cpu_s += report.cpu_s - before_s
    calls_ms = np.array([np.subtract(trip.served_s, trip.started_s) for trip in trips]) * 1e3
    inside_ms = np.array([trip.left_s - trip.arrived_s for trip in trips]) * 1e3
    queue_ms = (inside_ms - calls_ms.sum(axis=1)) / len(STAGES)
    alone, through = direct.figures(), routed.figures()
    beyond_ms = through["served_p50_ms"] - len(STAGES) * alone["served_p50_ms"]
    return {
        "payload_bytes": payload,
        "direct": alone,
        "routed": through,
        "ratio_p50": through["served_p50_ms"] / alone["served_p50_ms"],
        "added_a_stage_p50_ms": beyond_ms / len(STAGES),
        "stage_call_p50_ms": float(np.median(calls_ms)),
        "queueing_a_stage_p50_ms": float(np.median(queue_ms)),
        "plane_cores": cpu_s / routed.seconds,
        "plane_cpu_ms_a_request": 1e3 * cpu_s / max(1, len(trips)),
    }


def at_rate(plane: Plane, rps: int, seconds: int) -> dict[str, float]:
    """Through both stages, 1 kB each."""
    return sent(plane.address, "pipe", rps, seconds, 1024).figures()


def memory_mb(pid: int) -> float:
    """Resident memory of a process."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) / 1024


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=int, default=3, help="of each load (default: 3)")
    parser.add_argument("--out", type=Path, default=OUT, help="JSON to write")
    told = parser.parse_args()
    result: dict[str, Any] = {
        "when": time.strftime("%Y-%m-%d"),
        "cpus": len(os.sched_getaffinity(0)),
        "load_average_before": os.getloadavg()[0],
    }
    with two_stages() as plane, stub() as address:
        sent(plane.address, "pipe", 50, 2, 1024)
        result["added"] = [added(plane, address, told.seconds, size) for size in (1024, 60_000)]
        result["batch_1"] = [at_rate(plane, rps, told.seconds) for rps in (200, 400)]
        set_batch(plane, 8, 0.01)
        result["batch_8"] = [at_rate(plane, rps, told.seconds) for rps in (400, 800)]
        result["plane_mb"] = memory_mb(plane.pid)
    result["load_average_after"] = os.getloadavg()[0]
    show(result)
    told.out.parent.mkdir(parents=True, exist_ok=True)
    told.out.write_text(json.dumps(result, indent=1) + "\n")


def show(result: dict[str, Any]) -> None:
    """The table."""
    print(
        f"{result['cpus']} CPUs, load average {result['load_average_before']:.1f} before and"
        f" {result['load_average_after']:.1f} after"
    )
    for one in result["added"]:
        direct, routed = one["direct"], one["routed"]
        print(
            f"50 rps, {one['payload_bytes']} B: direct {direct['served_p50_ms']:.2f} ms, two stages"
            f" {routed['served_p50_ms']:.2f} ms (medians, ratio {one['ratio_p50']:.2f}); p99"
            f" {direct['p99_ms']:.1f} and {routed['p99_ms']:.1f} ms\n"
            f"    added a stage {one['added_a_stage_p50_ms']:.2f} ms, of it queueing"
            f" {one['queueing_a_stage_p50_ms']:.3f} ms; a call to the replica"
            f" {one['stage_call_p50_ms']:.2f} ms; router {one['plane_cores']:.1%} of a core,"
            f" {one['plane_cpu_ms_a_request']:.2f} ms of CPU a request; generator late by"
            f" {routed['late_p50_ms']:.2f} ms, {routed['generator_cores']:.1%} of a core"
            " with its start"
        )
    for name in ("batch_1", "batch_8"):
        for one in result[name]:
            print(
                f"{name.replace('_', ' ')}, {one['rps']} rps: {one['answered']} answered,"
                f" {one['lost']} lost, p50 {one['p50_ms']:.1f} ms, p99 {one['p99_ms']:.1f} ms"
            )
    print(f"plane {result['plane_mb']:.0f} MB")


if __name__ == "__main__":
    main()
