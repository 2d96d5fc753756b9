"""Which energy zones the kernel's powercap tree has, and the counters of those that are added up.

::

    intel-rapl:0        name package-0                  counted
    ├── intel-rapl:0:0  name core       (or uncore)     inside the package: never added
    └── intel-rapl:0:1  name dram                       beside it: added
    intel-rapl:1        name psys                       the whole platform: alone, or not at all
    intel-rapl-mmio:0   name package-0                  the first one again: counted once

Zones are told by ``name``; their numbers, hexadecimal, differ between machines. AMD's processors
appear under the same names. Several dies of one package are added, unless they show one counter:
one that is read between two reads of another and lies between them, several times while both run,
is the other. Counters of their own differ by the joules of everything since the machine started.

The right to read is checked by the kernel when a file is opened, not when it is read. So that a
right that was taken away is noticed, the file's owner and mode are looked at on each read, and the
file is opened again when they changed.
"""

from __future__ import annotations

import logging
import os
import re
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ipa_energy.meters.base import MeterFault
from ipa_energy.meters.sources import POWERCAP

logger = logging.getLogger(__name__)

Opener = Callable[[Path], int]
"""Path → file descriptor for reading; raises OSError."""

METER = "rapl"

DENIED_FIX = (
    "run as root, or once after each boot "
    "`sudo chmod a+r /sys/class/powercap/*-rapl*:*/energy_uj` (any local user can then read it: "
    "see CVE-2020-8694)"
)

MAX_LENGTH_BYTES = 64
RETRIES = 50
RETRY_PAUSE_S = 1e-4


def open_for_reading(path: Path) -> int:
    """A file descriptor for reading."""
    return os.open(path, os.O_RDONLY | os.O_CLOEXEC)


class CounterFile:
    """A file that holds one whole number and is read many times.

    Args:
        path: the file.
        opener: opens it; another one may be given where files are reached in another way.

    Raises:
        MeterUnavailableError: it is not there, or may not be read.
    """

    def __init__(self, path: Path, *, opener: Opener = open_for_reading) -> None:
        self.path = path
        self._opener = opener
        self._fd = -1
        self._rights: tuple[int, int, int, int] | None = None
        self._open()

    def read_uj(self) -> int:
        """The number in it now.

        Raises:
            MeterUnavailableError: it cannot be read any more, or holds something else.
        """
        try:
            if self._fd < 0 or not self._still_admitted():
                self._open()
            content = os.pread(self._fd, MAX_LENGTH_BYTES, 0)
            for _ in range(RETRIES):  # empty while something rewrites a copy of the tree
                if content:
                    break
                time.sleep(RETRY_PAUSE_S)
                content = os.pread(self._fd, MAX_LENGTH_BYTES, 0)
        except OSError as error:
            raise _unavailable(self.path, error) from error
        try:
            value = int(content)
        except ValueError as error:
            told = f"{self.path} holds {content!r}, not a number of microjoules"
            raise MeterFault(METER, "dead", told) from error
        if value < 0:
            raise MeterFault(METER, "dead", f"{self.path} holds {value} µJ, below 0")
        return value

    def close(self) -> None:
        """Give the file back; a read afterwards opens it again."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def __del__(self) -> None:
        """A meter that nobody closed holds no file for ever."""
        self.close()

    def _still_admitted(self) -> bool:
        now = _rights(self._fd)
        return now == self._rights and now[-1] > 0  # no links left: the file was replaced

    def _open(self) -> None:
        self.close()
        try:
            self._fd = self._opener(self.path)
            self._rights = _rights(self._fd)
        except OSError as error:
            raise _unavailable(self.path, error) from error


def _rights(fd: int) -> tuple[int, int, int, int]:
    found = os.fstat(fd)
    return (found.st_mode, found.st_uid, found.st_gid, found.st_nlink)


def _unavailable(path: Path, error: OSError) -> MeterFault:
    if isinstance(error, PermissionError):
        return MeterFault(METER, "denied", f"{path} may not be read", DENIED_FIX)
    return MeterFault(
        METER,
        "absent",
        f"{path} cannot be read: {error.strerror}",
        "modprobe intel_rapl_msr, and see that the powercap tree is mounted",
    )


Kind = Literal["package", "dram", "psys"]

MOUNT_FIX = (
    "mount the host's /sys/devices/virtual/powercap, where the zones are (the entries of "
    "/sys/class/powercap are links into it), and name it: --powercap DIR"
)
NO_ZONE_FIX = (
    "modprobe intel_rapl_msr (most virtual machines have no such counter); in a container "
    + MOUNT_FIX
)

_ZONE = re.compile(
    r"^(?P<control>[a-z]+-rapl(?:-[a-z]+)?):(?P<top>[0-9a-f]+)(?::(?P<sub>[0-9a-f]+))?$"
)
_PACKAGE = re.compile(r"^package-(?P<package>\d+)(?:-die-\d+)?$")


@dataclass(frozen=True, slots=True)
class Zone:
    """One energy zone that may be added up.

    Attributes:
        domain: ``package-0``, ``package-0-die-1``, ``dram-0`` or ``psys``; unique.
        kind: what it covers.
        package: number of its processor package; -1 for the platform.
        path: its folder, with ``energy_uj`` in it.
        range_uj: ``max_energy_range_uj``: after this value the counter goes on at 0.
    """

    domain: str
    kind: Kind
    package: int
    path: Path
    range_uj: int

    @property
    def energy_path(self) -> Path:
        """The file of the cumulative counter."""
        return self.path / "energy_uj"


@dataclass(frozen=True, slots=True)
class _Folder:
    """One folder of the tree, as found."""

    control: str
    top: int
    sub: int | None
    path: Path
    name: str


def find_zones(root: Path = POWERCAP, *, psys: bool = False) -> tuple[Zone, ...]:
    """The zones to add up: packages with their memory, or the platform alone.

    A package that appears under two control types (``intel-rapl`` and ``intel-rapl-mmio``) is one.

    Args:
        root: the powercap folder; containers mount it elsewhere.
        psys: the platform instead of packages and memory.

    Raises:
        MeterUnavailableError: there is no such zone, or its range cannot be read.
    """
    folders = _folders(root)
    zones: list[Zone] = []
    controls: dict[str, str] = {}
    for top in (folder for folder in folders if folder.sub is None):
        if psys:
            if top.name.startswith("psys"):
                zones.append(_zone(top, top.name, "psys", -1, zones))
            continue
        found = _PACKAGE.match(top.name)
        if found is None or controls.setdefault(top.name, top.control) != top.control:
            continue
        package = int(found["package"])
        zones.append(_zone(top, top.name, "package", package, zones))
        for child in folders:
            same_parent = (child.control, child.top) == (top.control, top.top)
            if same_parent and child.sub is not None and child.name == "dram":
                name = top.name.replace("package", "dram")
                zones.append(_zone(child, name, "dram", package, zones))
    if not zones:
        wanted = "psys" if psys else "package"
        raise MeterFault(METER, "absent", f"no {wanted} zone under {root}", NO_ZONE_FIX)
    return tuple(zones)


def zone_names(root: Path = POWERCAP) -> tuple[str, ...]:
    """Names of all zones of the tree, those that are never added included."""
    return tuple(folder.name for folder in _folders(root))


def _folders(root: Path) -> list[_Folder]:
    """Every zone's folder once; the class folder links to children that also lie in parents."""
    found: dict[str, _Folder] = {}
    dangling: list[str] = []
    try:
        candidates = _candidates(root)
    except OSError as error:
        told = f"{root} cannot be listed: {error.strerror}"
        if isinstance(error, PermissionError):
            raise MeterFault(METER, "denied", told, DENIED_FIX) from error
        raise MeterFault(METER, "absent", told, NO_ZONE_FIX) from error
    for path in candidates:
        zone = _ZONE.match(path.name)
        if zone is None or path.name in found:
            continue
        try:
            name = (path / "name").read_text(encoding="ascii").strip()
        except PermissionError as error:
            raise MeterFault(METER, "denied", f"{path} may not be read", DENIED_FIX) from error
        except (OSError, UnicodeDecodeError):
            if path.is_symlink() and not path.exists():
                dangling.append(path.name)
            continue  # not a zone: nothing without a name can be told apart
        sub = int(zone["sub"], 16) if zone["sub"] is not None else None
        found[path.name] = _Folder(zone["control"], int(zone["top"], 16), sub, path, name)
    lost = sorted(set(dangling) - set(found))
    if lost:
        told = f"links under {root} lead nowhere: {', '.join(lost)}"
        raise MeterFault(METER, "absent", told, MOUNT_FIX)
    return sorted(
        found.values(),
        key=lambda f: (len(f.control), f.control, f.top, -1 if f.sub is None else f.sub),
    )


def _candidates(root: Path) -> list[Path]:
    """What lies in the tree and in its zones, down to the children of packages."""
    found: list[Path] = []
    places = [root]
    for _ in range(3):  # intel-rapl / intel-rapl:0 / intel-rapl:0:0
        inside = [path for place in places if place.is_dir() for path in place.iterdir()]
        found += inside
        places = [path for path in inside if "-rapl" in path.name]
    return found


def _zone(folder: _Folder, domain: str, kind: Kind, package: int, others: list[Zone]) -> Zone:
    path = folder.path / "max_energy_range_uj"
    try:
        range_uj = int(path.read_text(encoding="ascii"))
    except (OSError, ValueError) as error:
        told = f"{path} cannot be read ({error}), and without it a wrap cannot be told"
        raise MeterFault(METER, "absent", told) from error
    if range_uj <= 0:
        raise MeterFault(METER, "dead", f"{path} holds {range_uj} µJ; allowed: above 0")
    taken = {other.domain for other in others}
    names = [domain, *(f"{domain}#{number}" for number in range(2, len(others) + 3))]
    unique = next(name for name in names if name not in taken)
    return Zone(unique, kind, package, folder.path, range_uj)


LOOKS = 3
PAUSE_S = 0.004
TOLERANCE_UJ = 100_000
"""What two registers of one counter may differ by when one is a step old: 100 W for 1 ms."""


def without_mirrors(
    zones: Sequence[Zone],
    *,
    opener: Opener = open_for_reading,
    sleep: Callable[[float], None] = time.sleep,
) -> tuple[Zone, ...]:
    """The zones without those that repeat another of the same kind and package.

    Raises:
        MeterUnavailableError: a counter that had to be compared cannot be read.
    """
    kept: list[Zone] = []
    for zone in zones:
        rivals = [z for z in kept if (z.kind, z.package) == (zone.kind, zone.package)]
        original = next((z for z in rivals if _is_mirror(z, zone, opener, sleep)), None)
        if original is None:
            kept.append(zone)
        else:
            logger.info("%s repeats %s: counted once", zone.domain, original.domain)
    return tuple(kept)


def _is_mirror(original: Zone, other: Zone, opener: Opener, sleep: Callable[[float], None]) -> bool:
    with ExitStack() as opened:
        first = opened.enter_context(closing(CounterFile(original.energy_path, opener=opener)))
        second = opened.enter_context(closing(CounterFile(other.energy_path, opener=opener)))
        for look in range(LOOKS):
            if look:
                sleep(PAUSE_S)
            if not _agree(first, second):
                return False
    return True


def _agree(first: CounterFile, second: CounterFile) -> bool:
    before, between, after = first.read_uj(), second.read_uj(), first.read_uj()
    if after < before:  # it wrapped just now; it will not do so twice in a row
        before, between, after = first.read_uj(), second.read_uj(), first.read_uj()
    return before - TOLERANCE_UJ <= between <= after + TOLERANCE_UJ
