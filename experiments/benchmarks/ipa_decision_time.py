"""How long one decision takes inside IPA: as it is, patched, and by our solver on its pipeline.

    IPA_HOME=DIR python experiments/benchmarks/ipa_decision_time.py [--out FILE.json] [--quick]

Copies of the checkout are made, one is patched, and its optimizer and the unpatched one decide in
turns in one process, on the same profile (video, 2 stages × 5 variants × 4 batches) and the same
loads. A shared machine disturbs wall times, so the least of the repeats stands for each load; the
figures that matter are the ratios. Needs scikit-learn; what IPA imports beyond that is stubbed as
in the tests (``tests/plugin/ipa``).
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2] / "tests" / "plugin" / "ipa"))

from ipa_checkout import PROFILE, Ipa, copy_checkout, patch_checkout, whole

LOADS_RPS = [4, 8, 12, 20, 33]
DEFAULT_OUT = Path(__file__).parent / "results" / "ipa_decision_time.json"
PACKAGES = ("ipa-energy", "gurobipy", "numpy", "pandas")
SETTINGS: dict[str, dict[str, Any]] = {
    "unpatched": {},
    "patched, no energy key": {},
    "patched, energy_weight: 0": {"energy_weight": 0},
    "patched, energy_weight: 1": {"energy_weight": 1},
    "patched, strict_latency": {"energy_weight": 1, "strict_latency": True},
    "ipa-energy, energy_weight: 1": {"energy_weight": 1, "optimization_method": "ipa-energy"},
}


def main() -> None:
    """Time every setting and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, default=DEFAULT_OUT)
    parser.add_argument("--quick", action="store_true", help="few repeats")
    arguments = parser.parse_args()
    home = os.environ.get("IPA_HOME")
    if not home:
        parser.error("needs a checkout of IPA in IPA_HOME")
    repeats = 3 if arguments.quick else 15
    with tempfile.TemporaryDirectory() as folder:
        plain = copy_checkout(Path(home), Path(folder) / "plain")
        patched = copy_checkout(Path(home), Path(folder) / "patched")
        patch_checkout(patched)
        found: dict[str, list[list[float]]] = Ipa(patched, []).run(
            "times",
            config=whole(),
            settings=SETTINGS,
            loads=LOADS_RPS,
            repeats=repeats,
            unpatched=str(plain),
        )
    report = report_of(found, repeats)
    arguments.out.write_text(json.dumps(report, indent=2) + "\n")
    print_table(report)
    print(f"\nfigures: {arguments.out}")


def report_of(found: dict[str, list[list[float]]], repeats: int) -> dict[str, Any]:
    """The figures as they are kept."""
    least = {name: [min(times) for times in by_load] for name, by_load in found.items()}
    rows = [
        {
            "setting": name,
            "least_ms": [1e3 * seconds for seconds in least[name]],
            "median_ms": [1e3 * statistics.median(times) for times in found[name]],
            "mean_of_least_ms": 1e3 * statistics.fmean(least[name]),
            "times_unpatched": statistics.fmean(least[name]) / statistics.fmean(least["unpatched"]),
        }
        for name in found
    ]
    exact = statistics.fmean(least["ipa-energy, energy_weight: 1"])
    return {
        "command": "python experiments/benchmarks/ipa_decision_time.py",
        "machine": {"processor": platform.machine(), "cpus": os.cpu_count()},
        "versions": {name: importlib.metadata.version(name) for name in PACKAGES},
        "profile": PROFILE.name,
        "loads_rps": LOADS_RPS,
        "repeats": repeats,
        "rows": rows,
        "ratios": {
            "patched without energy keys / unpatched": rows[1]["times_unpatched"],
            "patched at weight 0 / unpatched": rows[2]["times_unpatched"],
            "unpatched / ipa-energy": statistics.fmean(least["unpatched"]) / exact,
            "patched Gurobi at weight 1 / ipa-energy at weight 1": statistics.fmean(
                least["patched, energy_weight: 1"]
            )
            / exact,
        },
    }


def print_table(report: dict[str, Any]) -> None:
    """The figures for people."""
    print(f"{'setting':<32}{'mean ms':>10}{'of unpatched':>14}")
    for row in report["rows"]:
        least, ratio = row["mean_of_least_ms"], row["times_unpatched"]
        print(f"{row['setting']:<32}{least:>10.3f}{ratio:>14.3f}")
    for name, ratio in report["ratios"].items():
        print(f"{name}: {ratio:.3g}")


if __name__ == "__main__":
    main()
