"""Every program of the experiments says what it does when asked, and does nothing else."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROGRAMS = sorted(
    path
    for folder in ("experiments", "pipelines")
    for path in (ROOT / folder).rglob("*.py")
    if '__name__ == "__main__"' in path.read_text(encoding="utf-8")
)


def written() -> dict[Path, int]:
    """When each file of the experiments was last written."""
    return {
        path: path.stat().st_mtime_ns
        for path in (ROOT / "experiments").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def test_there_are_programs() -> None:
    assert {"study.py", "startup_time.py", "meter_overhead.py"} <= {path.name for path in PROGRAMS}


@pytest.mark.parametrize("path", PROGRAMS, ids=lambda path: path.stem)
def test_help_is_help_alone(path: Path) -> None:
    before = written()
    done = subprocess.run(
        [sys.executable, str(path), "--help"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    if "ModuleNotFoundError" in done.stderr:
        pytest.skip(done.stderr.splitlines()[-1])
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"usage: {path.name}")
    assert written() == before
