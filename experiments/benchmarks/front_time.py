"""How long the exact Pareto front of all plans takes, and which of it some weights would choose.

    python experiments/benchmarks/front_time.py [--out FILE.json] [--quick] [--check]

Fronts of accuracy, cores, latency and joules per request (:mod:`ipa_energy.optimizer.front`) of
random but realistic pipelines (:mod:`realistic`), with the latency SLA alone, so that most plans
are feasible. ``--check`` also finds the front of the largest case from all of its plans at once,
without stages, and compares; that needs about 3 GB. A shared machine disturbs wall times, so the
least of the repeats is given beside the median, and processor time beside both.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from decision_time import machine, version
from realistic import realistic_program

from ipa_energy.optimizer.dominance import pareto_points
from ipa_energy.optimizer.front import EQUAL_RTOL, pareto_front
from ipa_energy.optimizer.problem import Problem
from ipa_energy.optimizer.supported import supported

LOAD_RPS = 20.0
DEFAULT_OUT = Path(__file__).parent / "results" / "front_time.json"
PACKAGES = ("ipa-energy", "numpy", "scipy")


@dataclass(frozen=True, slots=True)
class Case:
    """One size, stages × variants × allocations × batches, and the target."""

    accuracy: str
    stages: int
    variants: int
    allocations: int
    batches: int
    target_s: float | None = None

    @property
    def name(self) -> str:
        """E.g. ``sum 3x6x4x8``."""
        return f"{self.accuracy} {self.stages}x{self.variants}x{self.allocations}x{self.batches}"

    def problem(self, seed: int) -> Problem:
        """A pipeline of this size at :data:`LOAD_RPS`."""
        return realistic_program(
            seed,
            self.stages,
            self.variants,
            self.batches,
            allocations=self.allocations,
            accuracy_method=self.accuracy,
            energy_sla=False,
        ).at(LOAD_RPS)


LARGEST = Case("sum", 3, 6, 4, 8, 5.0)
CASES = (
    Case("sum", 2, 5, 1, 7),
    LARGEST,
    Case("multiply", 3, 6, 4, 8, 5.0),
    Case("sum", 5, 5, 1, 7),
    Case("multiply", 5, 5, 1, 7),
)


def main() -> None:
    """Run every case and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, default=DEFAULT_OUT)
    parser.add_argument("--quick", action="store_true", help="one pipeline a case, two repeats")
    parser.add_argument("--check", action="store_true", help="compare with all plans at once")
    arguments = parser.parse_args()
    pipelines, repeats = (1, 2) if arguments.quick else (5, 5)
    report = {
        "command": "python experiments/benchmarks/front_time.py"
        + (" --check" if arguments.check else ""),
        "load_rps": LOAD_RPS,
        "machine": machine(),
        "versions": {name: version(name) for name in PACKAGES},
        "cases": [measured_case(case, pipelines, repeats) for case in CASES],
        "all_plans_at_once": compared(LARGEST) if arguments.check else None,
    }
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(report, indent=1) + "\n")
    print(f"written: {arguments.out}")


def measured_case(case: Case, pipelines: int, repeats: int) -> dict[str, Any]:
    """Times of one size, and how large its fronts are."""
    problems = [case.problem(seed) for seed in range(pipelines)]
    fronts = [pareto_front(problem) for problem in problems]
    timed = [[seconds(problem) for _ in range(repeats)] for problem in problems]
    walls = [[wall for wall, _ in times] for times in timed]
    start = time.perf_counter()
    chosen = [supported(front) for front in fronts]
    row = {
        **asdict(case),
        "name": case.name,
        "plans": fronts[0].combinations,
        "points": [len(front) for front in fronts],
        "supported": [int(each.mask.sum()) for each in chosen],
        "median_s": statistics.median(statistics.median(times) for times in walls),
        "min_s": statistics.median(min(times) for times in walls),
        "cpu_median_s": statistics.median(cpu for times in timed for _, cpu in times),
        "slowest_pipeline_s": max(statistics.median(times) for times in walls),
        "supported_s": (time.perf_counter() - start) / pipelines,
        "pipelines": pipelines,
        "repeats": repeats,
    }
    print(
        f"{case.name:>17}  {row['plans']:>12,} plans  {max(row['points']):>6,} points"
        f"  median {row['median_s']:7.3f} s  least {row['min_s']:7.3f} s"
        f"  cpu {row['cpu_median_s']:7.3f} s  supported {row['supported_s']:6.3f} s"
        + (f"  target {case.target_s:g} s" if case.target_s else "")
    )
    return row


def seconds(problem: Problem) -> tuple[float, float]:
    """(wall, processor) time of one front."""
    wall, used = time.perf_counter(), time.process_time()
    pareto_front(problem)
    return time.perf_counter() - wall, time.process_time() - used


def compared(case: Case) -> dict[str, Any]:
    """The front of a sum from all plans at once: how long that takes, and whether it is the same.

    Raises:
        SystemExit: it is not.
    """
    problem = case.problem(0)
    by_stage = pareto_front(problem)
    start = time.perf_counter()
    at_once = front_of_all_plans(problem)
    took_s = time.perf_counter() - start
    columns = np.round(np.stack(by_stage.losses(), axis=1), 9) + 0.0
    same = {tuple(row) for row in columns.tolist()} == {tuple(row) for row in at_once.tolist()}
    print(f"all plans of {case.name} at once: {took_s:.1f} s, same front: {same}")
    if not same:
        raise SystemExit("the front found stage by stage is not that of all plans")
    return {"case": case.name, "seconds": took_s, "points": len(at_once), "same_front": same}


def front_of_all_plans(problem: Problem) -> np.ndarray:
    """(F, 4) losses, to 9 decimals, of the unbeaten among all feasible plans."""
    shape = tuple(len(candidates) for candidates in problem.stages)
    totals = [np.zeros(math.prod(shape)) for _ in range(4)]
    for stage, candidates in enumerate(problem.stages):
        along = [1] * len(shape)
        along[stage] = shape[stage]
        parts = (
            -candidates.accuracy,
            candidates.amounts["cost"],
            candidates.delay_s,
            candidates.energy_j,
        )
        for total, part in zip(totals, parts, strict=True):
            total.reshape(shape)[...] += part.reshape(along)
    cap = problem.settings.latency_sla_s
    if cap is not None:
        fits = totals[2] <= cap
        totals = [total[fits] for total in totals]
    rounded = [np.round(total / (EQUAL_RTOL * float(np.abs(total).max()))) for total in totals]
    kept = pareto_points(rounded, np.zeros(len(totals[0])), len(totals[0]))
    return np.round(np.stack([total[kept] for total in totals], axis=1), 9) + 0.0


if __name__ == "__main__":
    main()
