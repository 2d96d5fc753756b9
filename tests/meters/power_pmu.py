"""A folder of power events as the kernel shows it, on events that this kernel really counts.

The software PMU (type 1) has a clock that counts nanoseconds on each CPU, whoever runs there: at a
scale of 1e-9 it is an energy of exactly one watt a CPU. Its alignment faults never happen on the
processors this runs on: a counter that is listed, readable, and dead.
"""

from __future__ import annotations

from pathlib import Path

ONE_WATT = ("event=0x00", "1e-9")
TEN_WATTS = ("event=0x00", "1e-8")
DEAD = ("event=0x07", "1e-9")
UNKNOWN = ("event=0xff", "1e-9")


def write_topology(folder: Path, *places: tuple[int, int]) -> Path:
    """A folder of CPUs, each with its package and die; returns the folder."""
    for cpu, (package, die) in enumerate(places):
        topology = folder / f"cpu{cpu}" / "topology"
        topology.mkdir(parents=True)
        (topology / "physical_package_id").write_text(f"{package}\n")
        (topology / "die_id").write_text(f"{die}\n")
    return folder


def write_pmu(folder: Path, *, cpus: str = "0", **events: tuple[str, str]) -> Path:
    """``pkg=ONE_WATT`` and so on; returns the folder."""
    (folder / "events").mkdir(parents=True)
    (folder / "format").mkdir()
    (folder / "type").write_text("1\n")
    (folder / "cpumask").write_text(f"{cpus}\n")
    (folder / "format" / "event").write_text("config:0-7\n")
    for name, (config, scale) in events.items():
        path = folder / "events" / f"energy-{name}"
        path.write_text(f"{config}\n")
        path.with_name(f"{path.name}.scale").write_text(f"{scale}\n")
        path.with_name(f"{path.name}.unit").write_text("Joules\n")
    return folder
