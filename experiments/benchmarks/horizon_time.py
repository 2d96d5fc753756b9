"""How long a decision takes that looks ahead, by size of the pipeline.

    python experiments/benchmarks/horizon_time.py [--out FILE.json] [--repeats N]

A decision is ``ipa_energy.planning.horizon.best_course`` over six steps of a load that rises and
falls and may be higher, from a plan that runs, with a few requests waiting; the forecast is not
part of it. Pipelines are random but realistic (:mod:`realistic`). Wall time and processor time, the
median and the most.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
from decision_time import machine
from realistic import realistic_program

from ipa_energy.optimizer.problem import Program
from ipa_energy.optimizer.quantities import Moment
from ipa_energy.optimizer.solve import decide
from ipa_energy.planning.horizon import Prices, Start, best_course
from ipa_energy.planning.lateness import Loads
from ipa_energy.serving.deployment import StageState

DEFAULT_OUT = Path(__file__).parent / "results" / "horizon_time.json"
LOADS_RPS = (20.0, 22.0, 27.0, 33.0, 30.0, 24.0)
MAY_BE = np.array([0.8, 0.84, 0.9, 0.94, 1.0])
"""Of each of these loads, the middle first, and how likely it is."""
WEIGHTS = np.array([0.625, 0.2, 0.1, 0.04, 0.035])
SIZES = {(2, 5, 7): 20.0, (5, 5, 7): None, (10, 10, 7): 200.0}
"""Stages × variants × batches → target, ms."""

PRICES = Prices(
    interval_s=10.0,
    switching=1.0,
    lateness=40.0,
    patience_s=1.0,
    reconfiguration_s=8.0,
    in_time_first=True,
)


def main() -> None:
    """Time every size and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, default=DEFAULT_OUT)
    parser.add_argument("--repeats", type=int, default=8)
    arguments = parser.parse_args()
    rows = [row_of(size, target_ms, arguments.repeats) for size, target_ms in SIZES.items()]
    report = {
        "command": "python experiments/benchmarks/horizon_time.py",
        "machine": machine(),
        "rows": rows,
    }
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(report, indent=2) + "\n")


def row_of(size: tuple[int, int, int], target_ms: float | None, repeats: int) -> dict[str, Any]:
    """The times of one size, printed and returned."""
    wall_ms, cpu_ms = [], []
    for seed in range(3):
        program = realistic_program(seed, *size)
        start = Start(running(program), waiting=5.0)
        moments = [Moment(0.8 * rps, 0.8 * rps, rps) for rps in LOADS_RPS]
        loads = [Loads(MAY_BE * rps, WEIGHTS) for rps in LOADS_RPS]
        for _ in range(repeats):
            wall_s, cpu_s = time.perf_counter(), time.process_time()
            found = best_course(program, moments, start, PRICES, loads=loads)
            wall_ms.append(1e3 * (time.perf_counter() - wall_s))
            cpu_ms.append(1e3 * (time.process_time() - cpu_s))
            if found is None:
                raise SystemExit(f"{size}: no course")
    row = {
        "size": "x".join(map(str, size)),
        "target_ms": target_ms,
        "wall_ms_median": round(statistics.median(wall_ms), 2),
        "wall_ms_max": round(max(wall_ms), 2),
        "cpu_ms_median": round(statistics.median(cpu_ms), 2),
        "cpu_ms_max": round(max(cpu_ms), 2),
    }
    print(row)
    return row


def running(program: Program) -> list[list[StageState]]:
    """What runs at first: the best plan of a lower load."""
    plan = decide(program, 15.0).best
    return [[StageState(each.stage, each.option, ready=each.replicas)] for each in plan.stages]


if __name__ == "__main__":
    main()
