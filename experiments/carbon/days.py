"""Runs of days: how long they take, and what counting requests instead of timing each costs.

    python experiments/carbon/days.py        prints the table, writes experiments/carbon/days.md

One day of `workload_type: diurnal` on configs/video.yaml with carbon, once with every request's
times in the log and once with counts, then seven days with counts. Each run is a process of its
own, timed from its first import to the run read back and its figures computed.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
CONFIGS = HERE.parents[1] / "configs"
RUNS = ((1, "requests"), (1, "counts"), (7, "counts"))

HEAD = """\
# Runs of days

`python experiments/carbon/days.py`: `workload_type: diurnal` on `configs/video.yaml`, decisions
every 10 s, `carbon` with the intensities of GB and a weight; time and memory of the whole process,
2-core virtual machine (AMD EPYC, Zen 5), {load}.

| days | log | sent | wall s | CPU s | peak MB | folder MB | J/req. | g | p50 s | p99 s | in SLA |
|---|---|---|---|---|---|---|---|---|---|---|---|
"""


def measured(days: int, detail: str) -> dict[str, Any]:
    """One run, in this process."""
    begin = time.perf_counter()
    from ipa_energy.comparing import metrics
    from ipa_energy.experiment import load_experiment, run_experiment

    week = CONFIGS / "carbon" / "electricitymaps-GB-2023-week16.csv"
    keys = {
        "workload_type": "diurnal",
        "workload_config": {"duration_s": 86_400 * days},
        "log_detail": detail,
        "carbon": {"intensity": str(week), "weight": 20_000},
    }
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        figures = metrics(run_experiment(load_experiment(CONFIGS / "video.yaml", keys), out))
        bytes_written = sum(path.stat().st_size for path in out.iterdir())
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return {
        "requests": f"{figures.requests:,}",
        "wall": f"{time.perf_counter() - begin:.0f}",
        "cpu": f"{usage.ru_utime + usage.ru_stime:.0f}",
        "peak": f"{usage.ru_maxrss / 1024:.0f}",
        "folder": f"{bytes_written / 1e6:.0f}",
        "joules": f"{figures.joules_per_request:.6f}",
        "grams": f"{figures.grams:.4f}",
        "p50": f"{figures.latency_p50_s:.4f}",
        "p99": f"{figures.latency_p99_s:.4f}",
        "in_sla": f"{100 * figures.sla_attainment:.3f} %",
    }


def main() -> None:
    """Print and write the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--one", nargs=2, metavar=("DAYS", "DETAIL"), help=argparse.SUPPRESS)
    one = parser.parse_args().one
    if one is not None:
        print(json.dumps(measured(int(one[0]), one[1])))
        return
    before = os.getloadavg()[0]
    lines = []
    for days, detail in RUNS:
        command = [sys.executable, __file__, "--one", str(days), detail]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        found = json.loads(done.stdout)
        lines.append(f"| {' | '.join([str(days), detail, *found.values()])} |")
        print(lines[-1], flush=True)
    busy = max(before, os.getloadavg()[0])
    load = "quiet" if before < 1 else f"shared with other work (load up to {busy:.0f})"
    (HERE / "days.md").write_text(HEAD.format(load=load) + "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
