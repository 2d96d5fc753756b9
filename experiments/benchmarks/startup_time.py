"""How long ``ipa-energy --help`` takes, beside a bare interpreter and an import of pandas.

    python experiments/benchmarks/startup_time.py

Prints medians and writes ``results/startup_time.json``. The ratio to the bare interpreter is what
to watch: absolute times are those of one machine.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path

REPEATS = 15
COMMANDS = {
    "bare interpreter": [sys.executable, "-c", "pass"],
    "ipa-energy --help": [sys.executable, "-m", "ipa_energy", "--help"],
    "ipa-energy run --help": [sys.executable, "-m", "ipa_energy", "run", "--help"],
    "import pandas": [sys.executable, "-c", "import pandas"],
}


def main() -> None:
    """Time every command in turn, so that a drift of the machine falls on all alike."""
    times_s: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(REPEATS + 1):
        for name, command in COMMANDS.items():
            begin = time.perf_counter()
            subprocess.run(command, check=True, capture_output=True)
            times_s[name].append(time.perf_counter() - begin)
    medians = {name: statistics.median(values[1:]) for name, values in times_s.items()}
    bare_s = medians["bare interpreter"]
    report = {
        "python": platform.python_version(),
        "repeats": REPEATS,
        "median_s": {name: round(value, 4) for name, value in medians.items()},
        "ratio_to_bare": {name: round(value / bare_s, 2) for name, value in medians.items()},
    }
    for name, value in medians.items():
        print(f"{name:24s} {value:7.3f} s   {value / bare_s:6.1f} x")
    path = Path(__file__).parent / "results" / "startup_time.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.parse_args()
    main()
