"""Enough of ``perf stat`` to put around a command: energies of known power.

``FAKE_PERF`` in the environment is a JSON object: ``version``; ``watts`` by event; ``refuse``: what
to say and which status to leave with; ``uncounted``: what stands in place of figures.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

ABOUT = json.loads(os.environ.get("FAKE_PERF", "{}"))


def line(event: str, seconds: float) -> str:
    raw = f"{ABOUT.get('watts', {}).get(event, 0.0) * seconds:.6f}"
    if event == "duration_time":
        raw = f"{1e9 * seconds:.6f}"
    unit = "ns" if event == "duration_time" else "Joules"
    raw = ABOUT.get("uncounted", raw)
    if "-j" in sys.argv:
        return (
            f'{{"counter-value" : "{raw}", "unit" : "{unit}", "event" : "{event}", '
            '"event-runtime" : 202515718, "pcnt-running" : 100.00}\n'
        )
    separator = sys.argv[sys.argv.index("-x") + 1]
    raw = raw if raw.startswith("<") else f"{float(raw):.2f}"
    return separator.join([raw, unit, event, "202515718", "100.00", "", ""]) + "\n"


def around_a_command(events: list[str], output: Path) -> int:
    begin_s = time.perf_counter()
    done = subprocess.run(sys.argv[sys.argv.index("--") + 1 :], check=False)
    seconds = time.perf_counter() - begin_s
    text = "".join(line(event, seconds) for event in events)
    output.write_text(f"# started on Mon\n\n{text}")
    return max(0, done.returncode)


def main() -> int:
    if "--version" in sys.argv:
        sys.stdout.write(f"perf version {ABOUT.get('version', '6.1.0')}\n")
        return 0
    if "refuse" in ABOUT:
        sys.stderr.write(ABOUT["refuse"]["says"] + "\n")
        return int(ABOUT["refuse"]["status"])
    events = sys.argv[sys.argv.index("-e") + 1].split(",")
    return around_a_command(events, Path(sys.argv[sys.argv.index("-o") + 1]))


if __name__ == "__main__":
    sys.exit(main())
