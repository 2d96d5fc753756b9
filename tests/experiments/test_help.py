"""Every program of the experiments says what it does when asked, and does nothing else."""

from __future__ import annotations

import os
import runpy
import sys
from collections.abc import Callable, Iterator
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


@pytest.fixture
def run_alone(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Path, str], int]]:
    """A program run in this process, which spares 40 starts; its modules go with it."""
    known, environment = set(sys.modules), dict(os.environ)

    def run(path: Path, word: str) -> int:
        monkeypatch.setattr(sys, "argv", [str(path), word])
        monkeypatch.setattr(sys, "path", [str(path.parent), *sys.path])
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(str(path), run_name="__main__")
        return int(ended.value.code or 0)

    yield run
    os.environ.clear()
    os.environ.update(environment)
    for name in set(sys.modules) - known:
        file = getattr(sys.modules[name], "__file__", None) or ""
        if Path(file).is_relative_to(ROOT / "experiments"):
            del sys.modules[name]


@pytest.mark.parametrize("path", PROGRAMS, ids=lambda path: path.stem)
def test_help_is_help_alone(
    path: Path, run_alone: Callable[[Path, str], int], capsys: pytest.CaptureFixture[str]
) -> None:
    before = written()
    try:
        status = run_alone(path, "--help")
    except ModuleNotFoundError as error:
        pytest.skip(str(error))
    assert status == 0
    assert capsys.readouterr().out.startswith(f"usage: {path.name}")
    assert written() == before
