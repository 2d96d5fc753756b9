"""A pipeline served live without and with energy in its objective, and the two compared.

    make live                                                        real models, 2 × 3 minutes
    python experiments/live/first_run.py --backend local-stub --seconds 20 --pipeline PIPELINE.yaml

Sends a few requests a second, in waves, twice the same: at ``energy_weight`` 0, which is IPA, and
at ``--energy-weight``. Writes the runs and ``live.html`` into ``--out`` and opens the page where
there is a display.
"""

from __future__ import annotations

import argparse
import math
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np

from ipa_energy.cli import main as ipa_energy

ROOT = Path(__file__).resolve().parents[2]
WAVE_S = 60.0
START_S = 30
"""What a run needs beside its load: the template's imports, replicas, the last answers."""


def write_load(path: Path, seconds: int, mean_rps: float) -> None:
    """Requests of each second: waves of a minute around the mean, up to twice and down to 0."""
    second = np.arange(seconds)
    rate_rps = mean_rps * (1 - np.cos(2 * math.pi * second / WAVE_S))
    counts = np.random.default_rng(0).poisson(rate_rps)
    counts[0] = max(1, counts[0])
    rows = "\n".join(f"{at},{count}" for at, count in enumerate(counts.tolist()))
    path.write_text(f"second,requests\n{rows}\n", encoding="utf-8")


def show(page: Path) -> None:
    """Open the page where somebody can look at it."""
    opener = shutil.which("xdg-open")
    if opener and (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        subprocess.run([opener, str(page)], check=False)


def main() -> int:
    """Run twice, compare, show; the exit status of what failed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    default = ROOT / "configs" / "video-live.yaml"
    parser.add_argument("--pipeline", type=Path, default=default, help="pipeline YAML")
    parser.add_argument("--backend", default="local", help="local or local-stub (default: local)")
    parser.add_argument("--seconds", type=int, default=180, help="of each run (default: 180)")
    parser.add_argument("--rps", type=float, default=2.0, help="mean load (default: 2)")
    parser.add_argument("--energy-weight", type=float, default=20.0, help="of the second run")
    parser.add_argument("--out", type=Path, default=Path("runs"), help="folder (default: runs)")
    told = parser.parse_args()
    told.out.mkdir(parents=True, exist_ok=True)
    load = told.out / "live-load.csv"
    write_load(load, told.seconds, told.rps)
    minutes = 2 * (told.seconds + START_S) / 60
    print(
        f"two runs of {told.seconds} s at {told.rps:g} requests a second, without and with energy;"
        f" about {math.ceil(minutes)} minutes. Nothing is downloaded; weights are random.",
        flush=True,
    )
    runs = {"live-ipa": 0.0, "live-energy": told.energy_weight}
    for name, weight in runs.items():
        shutil.rmtree(told.out / name, ignore_errors=True)
        words = ["run", str(told.pipeline), "--backend", told.backend, "--workload", str(load)]
        words += ["--energy-weight", f"{weight:g}", "--out", str(told.out / name)]
        if status := ipa_energy(words):
            return status
    page = told.out / "live.html"
    folders = [str(told.out / name) for name in runs]
    if status := ipa_energy(["compare", *folders, "--no-yardstick", "--html", str(page)]):
        return status
    show(page)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
