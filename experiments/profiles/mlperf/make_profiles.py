"""Profiles of edge boards from the wall power that MLPerf Inference publishes.

``edge-classification-wall-power.csv`` beside this file holds one line a measured (stack, model):
watts of the whole board at the wall (1 Hz analyser), single-stream latency and throughput over ten
minutes, top-1 on 50,000 images, and the watts after the run. Every line comes from two runs, the
ranging and the performance run; a reading that the analyser marks as failed (−1 W, up to a third of
a ranging run) is in neither mean. ``ipa-energy import`` makes the same figures of the raw logs.
Here each line becomes a row of a profile:

* ``dynamic_energy_j`` is the mean of both runs' joules per request less idle watts over throughput;
* ``energy_ci95_j`` is Student's interval over the two runs (n = 2, t = 12.7: hence wide);
* ``cpu_cores`` is the number of cores of the board, all of which a replica holds, and ``resource``
  the board itself, so that ``capacity: {rpi4: 3}`` says how many there are;
* ``hardware`` is the stack: one board under one runtime is an option beside the same under another.

Run it to write the profiles again::

    python experiments/profiles/mlperf/make_profiles.py configs/profiles
"""

from __future__ import annotations

import argparse
import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from ipa_energy.files import write_json
from ipa_energy.profile_table import profile_csv
from ipa_energy.profile_table.profile_row import ProfileRow

TABLE = Path(__file__).with_name("edge-classification-wall-power.csv")

CORES_OF_BOARD = {
    "rpi4": 4,
    "firefly": 8,
    "odroid": 6,
    "vim4": 8,
    "xavier": 8,
    "orin": 12,
}
"""Boards by the beginning of a stack's name, and the cores of their processors."""

NOTICE = (
    "MLPerf Inference v1.0, v1.1, v2.0, v2.1 and v3.0, open division, retrieved from"
    " github.com/mlcommons/inference_results_v1.0, _v1.1, _v2.0, _v2.1 and _v3.0; joules per"
    " request computed from the published power logs; result not verified by MLCommons"
    " Association. The MLPerf name and logo are registered trademarks of MLCommons Association."
)
METHOD = (
    "Mean of the watts between power_begin and power_end of the log, over queries per second"
    " without the load generator's overhead. Idle watts: the median over the testing runs of a"
    " stack of each run's median of the samples later than 4 s after power_end. SingleStream,"
    " batch 1, whole board at the wall."
)
T_TWO_RUNS = 12.706204736432095
"""97.5 % quantile of Student's t with one degree of freedom."""


def board_of(stack: str) -> str:
    """``rpi4coral-fan.on-armnn-v21.02-neon`` → ``rpi4``; empty if it is none of ours."""
    return next((board for board in CORES_OF_BOARD if stack.startswith(board)), "")


def row_of(entry: Mapping[str, str]) -> ProfileRow:
    """One line of the table as a row of a profile."""
    board = board_of(entry["system"])
    first, second = float(entry["joules_run"]), float(entry["joules_ranging_run"])
    throughput_rps, idle_power_w = float(entry["throughput_sps"]), float(entry["idle_power_w"])
    joules = (first + second) / 2
    return ProfileRow(
        stage="classification",
        variant=entry["model"],
        hardware=entry["system"],
        cpu_cores=float(CORES_OF_BOARD[board]),
        gpu_share=0.0,
        batch=1,
        replicas=1,
        load_rps=throughput_rps,
        latency_avg_s=float(entry["latency_avg_s"]),
        latency_p99_s=float(entry["latency_p99_s"]),
        throughput_rps=throughput_rps,
        accuracy=round(float(entry["accuracy_top1"]), 5),
        dynamic_energy_j=_rounded(joules - idle_power_w / throughput_rps),
        idle_power_w=idle_power_w,
        joules_per_request=_rounded(joules),
        energy_ci95_j=_rounded(T_TWO_RUNS * abs(first - second) / 2),
        trials=2,
        meter="mlperf-wall",
        quality="measured",
        resource=board,
        resource_units=1.0,
        source=f"MLPerf Inference {entry['round']} {entry['division']}, {entry['submitter']}",
    )


def _rounded(value: float) -> float:
    return float(f"{value:.6g}")


def read_table(path: Path = TABLE) -> list[ProfileRow]:
    """Every line of a board that we have the cores of, in the order of the table."""
    with path.open(encoding="utf-8", newline="") as file:
        entries = [entry for entry in csv.DictReader(file) if board_of(entry["system"])]
    return [row_of(entry) for entry in entries]


def write_files(path: Path, rows: Sequence[ProfileRow]) -> None:
    """A profile and its meta file; what was there is replaced."""
    profile_csv.write_profile(path, rows)
    stacks = sorted({row.hardware for row in rows})
    meta = {
        "pipeline": "boards",
        "machine": {"boards": sorted({row.resource for row in rows}), "stacks": stacks},
        "meter": {
            "name": "mlperf-wall",
            "quality": "measured",
            "of": "the whole board, at the wall, 1 Hz power analyser",
        },
        "method": METHOD,
        "notice": NOTICE,
        "licence": "Apache-2.0 (LICENSE.md of each results repository)",
        "entries": len(rows),
        "trials": "2 an entry, the ranging and the performance run; largest interval"
        f" {max(_share(row) for row in rows):.0%} of its joules",
    }
    write_json(path.with_suffix(".meta.json"), meta)


def _share(row: ProfileRow) -> float:
    return row.energy_ci95_j / row.joules_per_request if row.joules_per_request else math.nan


def main() -> None:
    """Write one profile a board, and one of all boards."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, help="where the profiles go")
    folder = parser.parse_args().folder
    rows = read_table()
    for board in CORES_OF_BOARD:
        write_files(folder / f"mlperf-{board}.csv", [row for row in rows if row.resource == board])
    write_files(folder / "mlperf-boards.csv", rows)


if __name__ == "__main__":
    main()
