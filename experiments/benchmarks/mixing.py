"""What mixing options of a stage saves under an accuracy floor, and how long its decisions take.

    python experiments/benchmarks/mixing.py        prints the table, writes results/mixing.md

Least joules at a floor, by one option a stage and by a mix, on the shipped measured profiles and on
random four-stage pipelines (:mod:`realistic`). Times are CPU seconds of the process, so that other
work on the machine does not count.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from realistic import realistic_program

from ipa_energy.optimizer.problem import Program
from ipa_energy.optimizer.settings import Settings
from ipa_energy.optimizer.solve import solve
from ipa_energy.planning.planner import load_planner
from ipa_energy.records import Stage

HERE = Path(__file__).resolve().parent
CONFIGS = HERE.parents[1] / "configs"
FLOORS = (0.15, 0.3, 0.45, 0.6, 0.75, 0.9)
"""Of the way from the least to the most accurate plan."""

LOADS_RPS = {"video": (5.0, 20.0), "boards": (10.0, 100.0)}
PROFILES = {
    "video, 2 stages": ("video", "video-epyc-9005-2vcpu"),
    "video, older machine": ("video", "video-epyc-9004-2vcpu"),
    "boards: rpi4": ("boards", "mlperf-rpi4"),
    "boards: vim4": ("boards", "mlperf-vim4"),
    "boards: firefly": ("boards", "mlperf-firefly"),
    "boards: odroid": ("boards", "mlperf-odroid"),
    "boards: orin": ("boards", "mlperf-orin"),
}
HEAD = """\
# What mixing saves, and what it takes

`python experiments/benchmarks/mixing.py --method {method}`: least joules under {floors}
accuracy floors, one option a stage against a mix; CPU seconds of a decision.

| profile | programs | saved, mean | median | most | s, median | most |
|---|---|---|---|---|---|---|
"""


def main() -> None:
    """Print the table and write it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--method", default="auto", help="solver of the mixes (default: auto)")
    parser.add_argument("--seeds", type=int, default=4, help="random pipelines (default: 4)")
    args = parser.parse_args()
    text = HEAD.format(floors=len(FLOORS), method=args.method)
    for name, (config, profile) in PROFILES.items():
        text += line(name, list(measured(config, profile)), args.method)
        print(text.splitlines()[-1], flush=True)
    random = [realistic_program(seed, 4, 5, 4) for seed in range(args.seeds)]
    cases = [case for each in random for case in floored(each.stages, each.settings, 20.0)]
    text += line("random, 4 stages", cases, args.method)
    (HERE / "results" / "mixing.md").write_text(text, encoding="utf-8")
    print(text)


def measured(config: str, profile: str) -> Iterator[tuple[Sequence[Stage], Settings, float]]:
    """Programs of a shipped profile."""
    path = CONFIGS / "profiles" / f"{profile}.csv"
    planner = load_planner(CONFIGS / f"{config}.yaml", {"profile": path, "capacity": None})
    for load_rps in LOADS_RPS[config]:
        yield from floored(planner.stages, planner.program.settings, load_rps)


def floored(
    stages: Sequence[Stage], settings: Settings, load_rps: float
) -> Iterator[tuple[Sequence[Stage], Settings, float]]:
    """The least joules under each floor."""
    ends = [[option.accuracy for option in stage.options] for stage in stages]
    low, high = np.mean([min(each) for each in ends]), np.mean([max(each) for each in ends])
    for share in FLOORS:
        floor = float(low + share * (high - low))
        yield stages, replace(
            settings, alpha=0.0, beta=0.0, prices={}, weights={}, energy_weight=1.0,
            energy_metric="joules_per_request", energy_sla_joules=None,
            accuracy_method="average", accuracy_floor=floor,
        ), load_rps  # fmt: skip


def line(name: str, cases: Sequence[tuple[Sequence[Stage], Settings, float]], method: str) -> str:
    """A row of the table."""
    saved, seconds = [], []
    for stages, settings, load_rps in cases:
        alone = solve(Program(stages, settings).at(load_rps))
        if not alone.plans:
            continue
        problem = Program(stages, replace(settings, mix=True)).at(load_rps)
        begin = time.process_time()
        mixed = solve(problem, method, limit_s=60.0)
        seconds.append(time.process_time() - begin)
        saved.append(1 - mixed.best.joules_per_request / alone.best.joules_per_request)
    if not saved:
        return f"| {name} | 0 | | | | | |\n"
    shares = (np.mean(saved), np.median(saved), max(saved))
    cells = " | ".join(f"{100 * share:.1f} %" for share in shares)
    times = f"{statistics.median(seconds):.2f} | {max(seconds):.2f}"
    return f"| {name} | {len(saved)} | {cells} | {times} |\n"


if __name__ == "__main__":
    main()
