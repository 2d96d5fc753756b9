"""How long one decision takes, by size of the pipeline, kind of accuracy and solver.

    python experiments/benchmarks/decision_time.py [--out FILE.json] [--quick]

A decision is ``ipa_energy.optimizer.solve.decide``: the problem built at a load from a ready
:class:`Program`, solved, its plan built and certified. Pipelines are random but realistic
(:mod:`realistic`); the latency SLA binds, or both SLAs do. A shared machine disturbs wall times, so
the least of the repeats is given beside the median, and processor time beside both. Figures that
matter across machines are the ratios at the end.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import statistics
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from realistic import realistic_program

from ipa_energy.errors import LicenceError
from ipa_energy.optimizer.problem import Program
from ipa_energy.optimizer.solve import decide

LOAD_RPS = 20.0
DEFAULT_OUT = Path(__file__).parent / "results" / "decision_time.json"
PACKAGES = ("ipa-energy", "numpy", "scipy", "gurobipy", "highspy")


@dataclass(frozen=True, slots=True)
class Case:
    """One size, stages × variants × batches, with the solvers measured and the target."""

    accuracy: str
    stages: int
    variants: int
    batches: int
    solvers: tuple[str, ...]
    target_ms: float | None = None
    energy_sla: bool = True

    @property
    def name(self) -> str:
        """E.g. ``sum 10x10x7, both SLAs``."""
        slas = "both SLAs" if self.energy_sla else "latency SLA"
        return f"{self.accuracy} {self.stages}x{self.variants}x{self.batches}, {slas}"


ALL = ("pareto", "gurobi", "highs")
GUROBI_TARGET_CASE = "sum 10x10x7, latency SLA"
CASES = (
    Case("sum", 2, 5, 7, ALL, 0.5, energy_sla=False),
    Case("sum", 2, 5, 7, ALL, 0.5),
    Case("sum", 5, 5, 7, ALL),
    Case("sum", 9, 9, 7, ALL),
    Case("sum", 10, 10, 7, ALL, 5.0, energy_sla=False),
    Case("sum", 10, 10, 7, ALL),
    Case("sum", 20, 20, 8, ("pareto", "gurobi"), 100.0),
    Case("multiply", 2, 5, 7, ALL),
    Case("multiply", 3, 6, 7, ALL, 20.0),
    Case("multiply", 10, 10, 7, ("pareto",), 500.0),
)


def main() -> None:
    """Run every case and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, default=DEFAULT_OUT)
    parser.add_argument("--quick", action="store_true", help="one pipeline a case, few repeats")
    arguments = parser.parse_args()
    pipelines, budget_s = (1, 0.2) if arguments.quick else (5, 1.0)
    rows = [row for case in CASES for row in measured_case(case, pipelines, budget_s)]
    report = {
        "command": "python experiments/benchmarks/decision_time.py",
        "load_rps": LOAD_RPS,
        "machine": machine(),
        "versions": {name: version(name) for name in PACKAGES},
        "cases": rows,
        "ratios": ratios(rows),
    }
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(report, indent=1) + "\n")
    print(f"ratios: {json.dumps(report['ratios'])}\nwritten: {arguments.out}")


def measured_case(case: Case, pipelines: int, budget_s: float) -> list[dict[str, Any]]:
    """One row a solver."""
    programs = [
        realistic_program(
            seed,
            case.stages,
            case.variants,
            case.batches,
            accuracy_method=case.accuracy,
            energy_sla=case.energy_sla,
        )
        for seed in range(pipelines)
    ]
    rows = []
    for solver in case.solvers:
        try:
            times = timed(programs, solver, budget_s)
        except LicenceError as error:
            print(f"{case.name:>29} {solver:>8}  skipped: {error}")
            rows.append(
                {**asdict(case), "name": case.name, "solver": solver, "skipped": str(error)}
            )
            continue
        row = {**asdict(case), "name": case.name, "solver": solver, **times}
        if solver != "pareto":
            row["target_ms"] = (
                30.0 if (solver, case.name) == ("gurobi", GUROBI_TARGET_CASE) else None
            )
        rows.append(row)
        target = f"target {row['target_ms']:g} ms" if row["target_ms"] else ""
        print(
            f"{case.name:>29} {solver:>8}  median {row['median_ms']:9.3f} ms"
            f"  least {row['min_ms']:9.3f} ms  cpu {row['cpu_median_ms']:9.3f} ms"
            f"  slowest pipeline {row['slowest_pipeline_ms']:9.3f} ms  {target}"
        )
    return rows


def timed(programs: list[Program], solver: str, budget_s: float) -> dict[str, Any]:
    """Median over all decisions, and of the slowest pipeline; at least two repeats of each."""
    by_pipeline: list[list[float]] = []
    cpu_by_pipeline: list[list[float]] = []
    for program in programs:
        decide(program, LOAD_RPS, solver)  # warm: libraries loaded, licence checked
        walls: list[float] = []
        cpu: list[float] = []
        end = time.perf_counter() + budget_s / len(programs)
        while len(walls) < 2 or (time.perf_counter() < end and len(walls) < 300):
            wall, used = time.perf_counter(), time.process_time()
            decide(program, LOAD_RPS, solver).best  # noqa: B018 (raises if infeasible)
            walls.append(1e3 * (time.perf_counter() - wall))
            cpu.append(1e3 * (time.process_time() - used))
        by_pipeline.append(walls)
        cpu_by_pipeline.append(cpu)
    return {
        "median_ms": statistics.median(statistics.median(times) for times in by_pipeline),
        "min_ms": statistics.median(min(times) for times in by_pipeline),
        "cpu_median_ms": statistics.median(statistics.median(t) for t in cpu_by_pipeline),
        "slowest_pipeline_ms": max(statistics.median(times) for times in by_pipeline),
        "pipelines": len(programs),
        "repeats": sum(len(times) for times in by_pipeline),
    }


def ratios(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Other solvers over pareto in each case, and how pareto grows with size."""
    median = {(row["name"], row["solver"]): row["median_ms"] for row in rows if "median_ms" in row}
    found = {
        f"{solver}/pareto {name}": time_ms / median[name, "pareto"]
        for (name, solver), time_ms in median.items()
        if solver != "pareto"
    }
    for large, small in (
        ("sum 10x10x7, latency SLA", "sum 2x5x7, latency SLA"),
        ("sum 20x20x8, both SLAs", "sum 10x10x7, both SLAs"),
        ("multiply 10x10x7, both SLAs", "multiply 3x6x7, both SLAs"),
    ):
        found[f"pareto {large} / {small}"] = median[large, "pareto"] / median[small, "pareto"]
    return {name: round(ratio, 2) for name, ratio in found.items()}


def machine() -> dict[str, Any]:
    """What it ran on."""
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [line for line in info.read_text().splitlines() if line.startswith("model name")]
        cpu = names[0].partition(":")[2].strip() if names else cpu
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "load_average": os.getloadavg()[0],
        "python": platform.python_version(),
    }


def version(package: str) -> str | None:
    """Installed version, None if it is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


if __name__ == "__main__":
    main()
