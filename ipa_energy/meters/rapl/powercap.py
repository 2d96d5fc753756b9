"""Which energy zones the kernel's powercap tree has, and which of them may be added up.

::

    intel-rapl:0        name package-0                  counted
    ├── intel-rapl:0:0  name core       (or uncore)     inside the package: never added
    └── intel-rapl:0:1  name dram                       beside it: added
    intel-rapl:1        name psys                       the whole platform: alone, or not at all
    intel-rapl-mmio:0   name package-0                  the first one again: counted once

Zones are told by ``name``; their numbers differ between machines. AMD's processors appear under the
same names. Several dies of one package are added, unless they show one counter (:mod:`.mirrors`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ipa_energy.meters.fault import MeterFault
from ipa_energy.meters.rapl.counter_file import DENIED_FIX, METER

POWERCAP = Path("/sys/class/powercap")

Kind = Literal["package", "dram", "psys"]

NO_ZONE_FIX = (
    "modprobe intel_rapl_msr (most virtual machines have no such counter); in a container "
    "mount the host's /sys/class/powercap and name it: --powercap DIR"
)

_ZONE = re.compile(r"^(?P<control>[a-z]+-rapl(?:-[a-z]+)?):(?P<top>\d+)(?::(?P<sub>\d+))?$")
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
    try:
        candidates = [path for place in (root, *root.glob("*-rapl*")) for path in _inside(place)]
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
        except (OSError, UnicodeDecodeError):
            continue  # not a zone: nothing without a name can be told apart
        sub = int(zone["sub"]) if zone["sub"] is not None else None
        found[path.name] = _Folder(zone["control"], int(zone["top"]), sub, path, name)
    return sorted(
        found.values(),
        key=lambda f: (len(f.control), f.control, f.top, -1 if f.sub is None else f.sub),
    )


def _inside(place: Path) -> list[Path]:
    return list(place.iterdir()) if place.is_dir() else []


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
