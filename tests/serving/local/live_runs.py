"""Live runs of stubs in processes of their own, and what can be seen of them from outside."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from small_pipeline import write_small_pipeline

PATIENCE_S = 90.0
"""How long anything may take on a machine that is busy with something else."""


def write_pipeline(
    folder: Path, counts: list[int], *, interval_s: int = 2, more: str = "drop_limit: null\n"
) -> Path:
    """Two stages under a load of so many requests a second, of which a busy machine drops none."""
    folder.mkdir(parents=True, exist_ok=True)
    path = write_small_pipeline(folder)
    load = (
        "workload_type: csv\nworkload_config: {path: load.csv}\n"
        f"adaptation_interval: {interval_s}\n{more}"
    )
    text = path.read_text()
    path.write_text(text[: text.index("workload_type")] + load)
    rows = [f"{second},{count}" for second, count in enumerate(counts)]
    (folder / "load.csv").write_text("\n".join(["second,requests", *rows, ""]))
    return path


def words_of(pipeline: Path, out: Path, *more: str) -> list[str]:
    """The command line of a live run; stubs sleep and need no cores."""
    words = ["run", str(pipeline), "--backend", "local-stub", "--out", str(out), "--quiet"]
    return [*words, "--overcommit", *more]


@contextmanager
def running(words: list[str], **named: object) -> Iterator[subprocess.Popen[str]]:
    """The program with these words; killed at the end if it still runs."""
    program = [sys.executable, "-m", "ipa_energy", *words]
    with subprocess.Popen(program, text=True, **named) as process:
        try:
            yield process
        finally:
            process.kill()


def until(is_so: Callable[[], object], *, patience_s: float = PATIENCE_S) -> float:
    """Wait until something is so; for how long."""
    start_s = time.perf_counter()
    while not is_so():
        if time.perf_counter() - start_s > patience_s:
            raise AssertionError(f"not so after {patience_s:g} s")
        time.sleep(0.02)
    return time.perf_counter() - start_s


def lines_of(out: Path) -> int:
    """Intervals in the journal so far."""
    path = out / "journal.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def data_path(root: int) -> dict[int, str]:
    """Process id → module, of a process's live descendants in this package's data path."""
    found = {}
    for pid, parent in descendants(root).items():
        words = _command(pid)
        modules = [word for word in words if word.startswith("ipa_energy.serving")]
        if modules and words != _command(parent):  # its program runs, not its parent's still
            found[pid] = modules[0].rpartition(".")[2]
    return found


def _command(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")
    except (FileNotFoundError, ProcessLookupError):
        return []


def descendants(root: int) -> dict[int, int]:
    """Process id → parent's, of those below one."""
    parents: dict[int, int] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(path.parent.name)] = int(path.read_text().rpartition(")")[2].split()[1])
        except (FileNotFoundError, ProcessLookupError):
            continue
    found: dict[int, int] = {}
    new = {root: 0}
    while new:
        new = {pid: parent for pid, parent in parents.items() if parent in new}
        found |= new
    return found


def runs(pid: int) -> bool:
    """True if a process runs; one that has ended and was not waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def of_module(root: int, module: str) -> list[int]:
    """Descendants that run a module of the data path, oldest first."""
    return sorted(pid for pid, name in data_path(root).items() if name == module)


def send(pid: int, number: int = signal.SIGKILL) -> None:
    """A signal to a process."""
    os.kill(pid, number)


def totals_of(out: Path) -> dict[str, float]:
    """Of a complete run."""
    totals: dict[str, float] = json.loads((out / "run.json").read_text())["totals"]
    return {"failed": 0, **totals}
