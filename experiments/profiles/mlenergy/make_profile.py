"""The profile of language models from the table of the ML.ENERGY benchmark.

Beside this file lie the lines of task ``gpqa`` of the table, as published, and the accuracies of
the models that have a published one, each with its source. ``IDLE_WATTS`` holds what a GPU draws
while it waits with a model loaded. Models without a cited accuracy are left out.

Run it to write the profile again::

    python experiments/profiles/mlenergy/make_profile.py configs/profiles/mlenergy-gpqa.csv
"""

from __future__ import annotations

import argparse
from pathlib import Path

from ipa_energy.files import write_json
from ipa_energy.profile_table.mlenergy_table import (
    Cited,
    MlEnergyChoice,
    meta,
    profile_rows,
    read_accuracies,
    read_entries,
)
from ipa_energy.profile_table.profile_csv import meta_path, write_profile

HERE = Path(__file__).parent
TABLE = HERE / "mlenergy-v3-gpqa.csv"
ACCURACIES = HERE / "accuracies-gpqa.csv"

IDLE_WATTS = {
    "H100": Cited(
        116.0,
        "mean of four H100 80GB HBM3, each with a process that holds memory, at 0 % load: 117, 112,"
        " 116 and 119 W by nvidia-smi, in pkg/nvidia/root.go of github.com/chaunceyjiang/"
        "fake-gpu; 75 and 71 W without a process",
    ),
    "B200": Cited(
        194.0,
        "mean of two B200 with a model loaded at 0 % load: 192 and 196 W by nvidia-smi, in"
        " github.com/NVIDIA/TensorRT-LLM/issues/10278",
    ),
}
"""A single reading of machines that are not the benchmark's: better than none, not more."""


def write_files(path: Path) -> list[str]:
    """Write profile and meta file; what is there is replaced. Returns what was left out."""
    choice = MlEnergyChoice(
        task="gpqa", accuracies=read_accuracies(ACCURACIES), idle_power_w=IDLE_WATTS
    )
    rows, left_out = profile_rows(read_entries(TABLE), choice, TABLE)
    write_profile(path, rows)
    about = {
        "pipeline": "llm",
        "entries": len(rows),
        **meta(choice),
        "licence": "Apache-2.0 (dataset ml-energy/benchmark-v3)",
        "left_out": left_out,
    }
    write_json(meta_path(path), about)
    return left_out


def main() -> None:
    """Write the profile that is named."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("profile", type=Path, help="CSV to write")
    for reason in write_files(parser.parse_args().profile):
        print(f"left out: {reason}")


if __name__ == "__main__":
    main()
