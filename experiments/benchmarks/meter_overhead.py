"""What it costs to measure: a read, a window, the look in the background, and the import.

    python experiments/benchmarks/meter_overhead.py

On a powercap tree of two sockets with memory that another process advances each millisecond (the
machine's own tree is timed as well where it can be read). Each figure stands beside what it must
stay under, and beside a plain read of the same four files, which is the least that any meter of
them costs. Prints a table and writes ``results/meter_overhead.json``.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ipa_energy.errors import MeterUnavailableError
from ipa_energy.meters.powercap import find_zones
from ipa_energy.meters.rapl import RaplMeter
from ipa_energy.meters.sources import POWERCAP

READS = 20_000
WINDOWS = 30
WINDOW_S = 0.2
BACKGROUND_S = 20.0
IMPORTS = 11

LIMITS = {
    "read_s": 50e-6,
    "window_share_of_1_s": 1e-3,
    "background_share_of_a_core": 1e-3,
    "import_s": 0.2,
}

ZONES = [
    ("intel-rapl:0", "package-0", 120.0),
    ("intel-rapl:0:0", "dram", 20.0),
    ("intel-rapl:1", "package-1", 80.0),
    ("intel-rapl:1:0", "dram", 15.0),
]

IMPORT = "import ipa_energy.meters.discovery"
HEAVY = ("torch", "pynvml", "numpy", "scipy", "pandas")


def write_tree(root: Path) -> None:
    """Two sockets with memory."""
    for folder, name, _ in ZONES:
        path = root / folder
        path.mkdir(parents=True)
        (path / "name").write_text(f"{name}\n")
        (path / "max_energy_range_uj").write_text("262143328850\n")
        (path / "energy_uj").write_text(f"{0:020d}\n")


def advance(root: Path) -> None:
    """Write every counter each millisecond until the other side goes away."""
    files = [(os.open(root / folder / "energy_uj", os.O_WRONLY), w) for folder, _, w in ZONES]
    begin_s = time.perf_counter()
    while os.getppid() != 1:
        for fd, power_w in files:
            energy_uj = int(power_w * (time.perf_counter() - begin_s) * 1e6)
            os.pwrite(fd, b"%020d\n" % energy_uj, 0)
        time.sleep(0.001)


@contextmanager
def running_tree() -> Iterator[Path]:
    """A tree that a process of its own advances."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_tree(root)
        child = subprocess.Popen([sys.executable, __file__, folder])
        try:
            time.sleep(0.5)
            yield root
        finally:
            child.kill()
            child.wait()


def read_times_s(root: Path) -> dict[str, float]:
    """One read of the meter, and of the same files without it."""
    paths = [zone.energy_path for zone in find_zones(root)]
    files = [os.open(path, os.O_RDONLY) for path in paths]
    took_s: dict[str, list[float]] = {"read": [], "plain": []}
    with RaplMeter(root) as meter:
        for _ in range(READS):
            begin_s = time.perf_counter()
            meter.read()
            middle_s = time.perf_counter()
            for fd in files:
                int(os.pread(fd, 64, 0))
            took_s["read"].append(middle_s - begin_s)
            took_s["plain"].append(time.perf_counter() - middle_s)
    for fd in files:
        os.close(fd)
    return {
        "zones": len(files),
        "median_s": statistics.median(took_s["read"]),
        "p99_s": statistics.quantiles(took_s["read"], n=100)[98],
        "plain_median_s": statistics.median(took_s["plain"]),
    }


def window_cost_s(root: Path) -> dict[str, float]:
    """What opening, closing and computing a window takes, the work within left out."""
    cpu_s, wall_s = [], []
    with RaplMeter(root) as meter:
        for _ in range(WINDOWS):
            begin_s, begin_cpu_s = time.perf_counter(), time.thread_time()
            start = meter.read()
            opened_s = time.perf_counter() - begin_s
            time.sleep(WINDOW_S)
            middle_s = time.perf_counter()
            meter.energy_between(start, meter.read())
            wall_s.append(opened_s + time.perf_counter() - middle_s)
            cpu_s.append(time.thread_time() - begin_cpu_s)
    return {"cpu_s": statistics.median(cpu_s), "wall_s": statistics.median(wall_s)}


def background_share(root: Path) -> dict[str, float]:
    """CPU seconds a second of a process that holds a meter and does nothing."""
    with RaplMeter(root) as meter:
        time.sleep(0.1)
        begin_s, begin_cpu_s = time.perf_counter(), time.process_time()
        time.sleep(BACKGROUND_S)
        used_s = time.process_time() - begin_cpu_s
        return {
            "share": used_s / (time.perf_counter() - begin_s),
            "look_period_s": meter.look_period_s,
        }


def import_times_s() -> dict[str, Any]:
    """Importing the meters beside a bare interpreter, and what heavy things that loads."""
    commands = {"bare": "pass", "meters": IMPORT}
    took_s: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(IMPORTS):
        for name, code in commands.items():
            begin_s = time.perf_counter()
            subprocess.run([sys.executable, "-c", code], check=True)
            took_s[name].append(time.perf_counter() - begin_s)
    listed = f"{IMPORT}; import sys; print(*[m for m in {HEAVY} if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", listed], check=True, capture_output=True, text=True
    )
    bare_s, with_s = (statistics.median(took_s[name]) for name in commands)
    return {"bare_s": bare_s, "added_s": with_s - bare_s, "heavy": done.stdout.split()}


def own_tree() -> dict[str, float] | None:
    """Reads of this machine's own counters; None if there are none to read."""
    try:
        return read_times_s(POWERCAP)
    except MeterUnavailableError:
        return None


def main() -> None:
    """Time everything, print it beside its limit, write it down."""
    with running_tree() as root:
        reads, window = read_times_s(root), window_cost_s(root)
        background = background_share(root)
    imports, own = import_times_s(), own_tree()
    found = {
        "read_s": reads["median_s"],
        "window_share_of_1_s": window["wall_s"],
        "background_share_of_a_core": background["share"],
        "import_s": imports["added_s"],
    }
    for name, value in found.items():
        print(
            f"{name:28s} {value:.3g}  limit {LIMITS[name]:.3g}  {value / LIMITS[name]:6.1%} of it"
        )
    print(f"a read is {reads['median_s'] / reads['plain_median_s']:.1f} x four plain reads")
    report = {
        "python": platform.python_version(),
        "limits": LIMITS,
        "found": found,
        "within_limits": all(value <= LIMITS[name] for name, value in found.items()),
        "read": {**reads, "ratio_to_plain": reads["median_s"] / reads["plain_median_s"]},
        "window": window,
        "background": background,
        "import": imports,
        "own_powercap_tree": own,
    }
    path = Path(__file__).parent / "results" / "meter_overhead.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("tree", nargs="?", type=Path, help="only advance the counters in there")
    tree = parser.parse_args().tree
    if tree is not None:
        advance(tree)
    else:
        main()
