"""experiments/live/validation.py: a short live run of stubs, simulated with its decisions."""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path

import pytest
from small_pipeline import write_small_pipeline

pytest.importorskip("grpc")

pytestmark = [pytest.mark.slow, pytest.mark.measures]

SCRIPT = Path(__file__).resolve().parents[2] / "experiments" / "live" / "validation.py"


def test_what_was_served_live_is_simulated_with_the_same_requests(tmp_path: Path) -> None:
    pipeline = write_small_pipeline(tmp_path)
    out = tmp_path / "results"
    words = ["--pipeline", str(pipeline), "--backend", "local-stub", "--stubs-sleep"]
    words += ["--seconds", "8", "--repeats", "1", "--rps", "3", "--set", "adaptation_interval=20"]
    done = subprocess.run(
        [sys.executable, str(SCRIPT), *words, "--out", str(out)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    with (out / "validation.csv").open() as file:
        rows = {row["figure"]: row for row in csv.DictReader(file)}
    assert float(rows["requests"]["live"]) == float(rows["requests"]["simulated"]) > 8
    assert float(rows["lost"]["live"]) == 0
    for stage in ("find", "name"):
        live, other = (float(rows[f"{stage}: service, mean (s)"][k]) for k in ("live", "simulated"))
        assert live >= other * 0.9
    page = (out / "validation.md").read_text()
    assert page == done.stdout.removesuffix("\n")
    assert "| p99 (s) |" in page and "goal 10%" in page
    assert (out / "validation.png").stat().st_size > 5000
