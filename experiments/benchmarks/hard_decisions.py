"""How near to the best plan decisions on hard programs come in bounded time.

    python experiments/benchmarks/hard_decisions.py [--out FILE.json] [--limit S] [--seeds N]

Programs of 20 stages with 50 options each of every family of :mod:`hard_families`, decided by
every method with the same limit, each in a process of its own, whose largest memory is given. The
gap is the one that the method itself proves; beside it stands how much worse its plan is than the
best plan that any method found. Time is processor time, so that other work on the machine changes
little; limits are wall time, so do not run it beside other work.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from hard_families import FAMILIES, LOAD_RPS, hard_program

from ipa_energy.errors import IpaEnergyError
from ipa_energy.optimizer.solve import solve

DEFAULT_OUT = Path(__file__).parent / "results" / "hard_decisions.json"
METHODS = ("pareto", "auto", "gurobi", "highs")
STAGES, OPTIONS = 20, 50


def main() -> None:
    """Decide every program by every method, and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, default=DEFAULT_OUT)
    parser.add_argument("--limit", type=float, default=1.0, metavar="S")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--one", nargs=3, metavar=("FAMILY", "SEED", "METHOD"))
    args = parser.parse_args()
    if args.one:
        family, seed, method = args.one
        print(json.dumps(decided(family, int(seed), method, args.limit)))
        return
    rows = [
        row
        for family in FAMILIES
        for seed in range(args.seeds)
        for row in in_processes(family, seed, args.limit)
    ]
    args.out.parent.mkdir(parents=True, exist_ok=True)
    command = "python experiments/benchmarks/hard_decisions.py"
    report = {"command": command, "limit_s": args.limit, "rows": rows}
    args.out.write_text(json.dumps(report, indent=1) + "\n")
    print(f"written: {args.out}")


def in_processes(family: str, seed: int, limit_s: float) -> list[dict[str, Any]]:
    """One row a method."""
    rows = []
    for method in METHODS:
        one = ["--one", family, str(seed), method, "--limit", str(limit_s)]
        done = subprocess.run(
            [sys.executable, __file__, *one], capture_output=True, text=True, check=True
        )
        rows.append(json.loads(done.stdout))
    found = [row["objective"] for row in rows if row.get("objective") is not None]
    for row in rows:
        objective = row.get("objective")
        row["below_best"] = (
            None if objective is None else (max(found) - objective) / abs(max(found))
        )
        print(shown(row), flush=True)
    return rows


def decided(family: str, seed: int, method: str, limit_s: float) -> dict[str, Any]:
    """One decision, by a method that has decided something small before."""
    row: dict[str, Any] = {"family": family, "seed": seed, "method": method}
    try:
        solve(hard_program(family, 0, 2, 3).at(LOAD_RPS), method, limit_s=limit_s)
        problem = hard_program(family, seed, STAGES, OPTIONS).at(LOAD_RPS)
        start_s = time.process_time()
        result = solve(problem, method, limit_s=limit_s)
    except IpaEnergyError as error:
        return {**row, "skipped": str(error)}
    return {
        **row,
        "status": result.status,
        "objective": result.plans[0].objective if result.plans else None,
        "gap": result.gap if result.plans else None,
        "wall_s": round(result.decision_s, 3),
        "cpu_s": round(time.process_time() - start_s, 3),
        "memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }


def shown(row: dict[str, Any]) -> str:
    """A line of the table."""
    name = f"{row['family']:>16} {row['seed']} {row['method']:>7}"
    if "skipped" in row:
        return f"{name}  skipped: {row['skipped']}"
    if row["objective"] is None:
        return f"{name}  {row['status']}"
    return (
        f"{name}  {row['status']:>8}  gap {100 * row['gap']:8.4f} %  below the best"
        f" {100 * row['below_best']:8.4f} %  {row['wall_s']:6.2f} s (cpu {row['cpu_s']:5.2f} s)"
        f"  {row['memory_mb']} MB"
    )


if __name__ == "__main__":
    main()
