r"""The two controllers side by side: every bundled workload and five other windows, over weights.

Each is run by ``controller: interval`` and by ``controller: horizon``, nothing else changed. Beside
accuracy, cores, joules and the share in time stands the objective of the whole run,
alpha·accuracy − beta·cores − weight·joules a request, which does not count lateness.

    python experiments/controller/horizon_table.py configs/video.yaml \\
        [--trace FILE.csv …] > experiments/controller/horizon_table.md
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from ipa_energy.comparing import RunMetrics, metrics
from ipa_energy.experiment import load_experiment, run_experiment

WEIGHTS = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0)
FEWER_WEIGHTS = (0.0, 1.0, 4.0)
BUNDLED = ("bursty", "fluctuating", "steady-low", "steady-high")
OTHER_SEEDS = (("bursty", 1), ("fluctuating", 1), ("bursty", 2))
TRACES_DAMPED_BY = 8

Case = tuple[Path, str, dict[str, Any]]


def cases(pipeline: Path, traces: list[Path]) -> Iterator[Case]:
    """What is run: pipeline, name of the load, YAML keys."""
    for name in BUNDLED:
        for weight in WEIGHTS:
            yield pipeline, name, {"workload_type": name, "energy_weight": weight}
    others: list[tuple[str, dict[str, Any]]] = [
        (f"{name}, seed {seed}", {"workload_type": name, "seed": seed})
        for name, seed in OTHER_SEEDS
    ]
    for trace in traces:
        read = {"path": str(trace.resolve()), "damping_factor": TRACES_DAMPED_BY}
        others.append((trace.stem, {"workload_type": "csv", "workload_config": read}))
    for name, keys in others:
        for weight in FEWER_WEIGHTS:
            yield pipeline, name, {**keys, "energy_weight": weight}


def measured(case: Case) -> list[RunMetrics]:
    """Both runs of a case."""
    logging.disable(logging.WARNING)
    pipeline, _, keys = case
    return [
        metrics(run_experiment(load_experiment(pipeline, {**keys, "controller": controller})))
        for controller in ("interval", "horizon")
    ]


def objective(found: RunMetrics, weight: float, alpha: float, beta: float) -> float:
    """Of a whole run."""
    joules = weight * found.joules_per_request
    return alpha * found.accuracy_mean - beta * found.cores_mean - joules


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("pipeline", type=Path)
    parser.add_argument("--trace", type=Path, nargs="*", default=[])
    parser.add_argument("--processes", type=int, default=2)
    arguments = parser.parse_args()
    config = load_experiment(arguments.pipeline).planner.config
    print("| load | weight | in time | accuracy | cores | J/request | changes | objective |")
    print("|---|---|---|---|---|---|---|---|")
    todo = list(cases(arguments.pipeline, arguments.trace))
    with ProcessPoolExecutor(arguments.processes) as pool:
        for (_, name, keys), pair in zip(todo, pool.map(measured, todo), strict=True):
            weight = keys["energy_weight"]
            columns = [
                [f"{100 * each.sla_attainment:.2f} %" for each in pair],
                [f"{each.accuracy_mean:.4f}" for each in pair],
                [f"{each.cores_mean:.2f}" for each in pair],
                [f"{each.joules_per_request:.4f}" for each in pair],
                [str(each.reconfigurations) for each in pair],
                [f"{objective(each, weight, config.alpha, config.beta):.3f}" for each in pair],
            ]
            shown = " | ".join(" → ".join(column) for column in columns)
            print(f"| {name} | {weight:g} | {shown} |", flush=True)


if __name__ == "__main__":
    main()
