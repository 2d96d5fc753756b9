"""Powercap trees as the kernel shows them, whose energies the tests know.

:class:`Machine` runs on a clock of its own that only moves when told to: what a meter must say is
then known to the microjoule. :class:`LiveMachine` advances a tree in real time from another thread
and remembers every value it showed.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from pathlib import Path

SERVER_RANGE_UJ = 262_143_328_850
"""Range of the package counters of many Xeons."""


@dataclass
class SimulatedZone:
    """A zone with its true, unwrapped energy."""

    path: Path
    range_uj: int
    power_w: float
    total_uj: float
    running: bool = True

    @property
    def shown_uj(self) -> int:
        return int(self.total_uj) % (self.range_uj + 1)

    def write(self) -> None:
        (self.path / "energy_uj").write_text(f"{self.shown_uj}\n")

    def replace(self) -> None:
        """As :meth:`write`, but never half done for a reader in another thread."""
        draft = self.path / ".energy_uj"
        draft.write_text(f"{self.shown_uj}\n")
        draft.replace(self.path / "energy_uj")


class Machine:
    """A tree whose clock moves by :meth:`advance`; ``clock`` and ``sleep`` go into a meter."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.now_s = 100.0
        self.zones: dict[str, SimulatedZone] = {}
        root.mkdir(parents=True, exist_ok=True)

    def add(
        self,
        folder: str,
        name: str,
        *,
        power_w: float = 0.0,
        start_uj: float = 0.0,
        range_uj: int = SERVER_RANGE_UJ,
    ) -> SimulatedZone:
        """A zone ``folder`` (may be nested) named ``name``, drawing ``power_w``."""
        path = self.root / folder
        path.mkdir(parents=True, exist_ok=True)
        (path / "name").write_text(f"{name}\n")
        (path / "max_energy_range_uj").write_text(f"{range_uj}\n")
        zone = SimulatedZone(path, range_uj, power_w, start_uj)
        zone.write()
        self.zones[folder] = zone
        return zone

    def advance(self, seconds: float) -> None:
        self.now_s += seconds
        for zone in self.zones.values():
            if zone.running:
                zone.total_uj += zone.power_w * seconds * 1e6
                zone.write()

    def clock(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.advance(seconds)

    @property
    def injected(self):
        """Arguments that put a meter on this machine's clock."""
        return {"clock": self.clock, "sleep": self.sleep, "keep_alive": False}


def two_sockets(root: Path, **options) -> Machine:
    """Two packages with memory, and everything that must not be added to them."""
    machine = Machine(root)
    for socket, (package_w, dram_w) in enumerate([(120.0, 20.0), (80.0, 15.0)]):
        top = f"intel-rapl:{socket}"
        start_uj = 1e9 * (socket + 1)
        machine.add(top, f"package-{socket}", power_w=package_w, start_uj=start_uj, **options)
        machine.add(f"{top}:0", "core", power_w=70.0, **options)
        machine.add(f"{top}:1", "uncore", power_w=7.0, **options)
        machine.add(f"{top}:2", "dram", power_w=dram_w, **options)
    machine.add("intel-rapl:2", "psys", power_w=400.0, **options)
    (root / "intel-rapl").mkdir()
    (root / "intel-rapl" / "enabled").write_text("1\n")
    return machine


def window(machine: Machine, meter, seconds: float, looks: int = 1):
    """Energy of a window of the machine's own clock, looked at ``looks`` times within."""
    start = meter.read()
    for look in range(looks):
        machine.advance(seconds / looks)
        if look < looks - 1:
            meter.look()
    return meter.energy_between(start, meter.read())


class LiveMachine:
    """Advances zones in real time, about every millisecond, within a ``with`` block.

    Attributes:
        longest_step_s: the longest that one zone stood behind another, as a busy machine's may.
    """

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.shown: dict[str, dict[int, float]] = {folder: {} for folder in machine.zones}
        self._starts_uj = {folder: zone.total_uj for folder, zone in machine.zones.items()}
        self.longest_step_s = 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> LiveMachine:
        self._begin_s = time.perf_counter()
        self._step()
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(0.001):
            self._step()

    def _step(self) -> None:
        now_s = time.perf_counter()
        for folder, zone in self.machine.zones.items():
            if zone.running:
                gone_s = now_s - self._begin_s
                zone.total_uj = int(self._starts_uj[folder] + zone.power_w * gone_s * 1e6)
                self.shown[folder][int(zone.total_uj)] = now_s
                zone.replace()
        self.longest_step_s = max(self.longest_step_s, time.perf_counter() - now_s)
