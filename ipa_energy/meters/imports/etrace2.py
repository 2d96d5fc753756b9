"""Joules from the output of etrace2 0.1, the RAPL tool of the Chameleon testbed.

::

    # ETRACE2_VERSION=0.1
    … output of the command that was measured …
    # ELAPSED=2.579472
    # ENERGY=365.788208
    # ENERGY_SOCKET0=99.037841
    # ENERGY_DRAM0=78.577698
    # ENERGY_SOCKET1=109.230103
    # ENERGY_DRAM1=80.336548

With ``-i`` there are also rows of time, power and energy, each for its interval, and the final
``ENERGY`` is that of the last interval only; so the joules are always the sum of sockets and
memories. Without ``-i`` etrace2 reads the counters at the start and at the end only, and one that
went round in between shows what is left over its range (262 kJ on many Xeons).

etrace2 prints six decimals with a point, whatever the locale: a line that ends early or has a comma
was changed on the way, and is refused with its number.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path

from ipa_energy.errors import ConfigError

VERSION = "0.1"
ROWS_HEADER = "# Time [S]   Power [W]   Energy [J]"
FAILURES = ("raplreader_init() failed", "Failed to start etrace!")

TOTAL_TOLERANCE = 0.02
"""``ENERGY`` against the sum of its parts. In the example above, which is that of Chameleon's
documentation in full, they are 0.4 % apart; and etrace2 may leave memory out of the total."""

PACKAGE_RANGE_J = 262_144.0
BUSY_PACKAGE_W = 500.0
LONGEST_S = PACKAGE_RANGE_J / BUSY_PACKAGE_W
"""Between two reads of a counter; within it a busy package does not go round unseen."""

_LINE = re.compile(r"# (ETRACE2_VERSION|ELAPSED|ENERGY(?:_(?:SOCKET|DRAM)\d+)?)=(.*)$")
_NUMBER = re.compile(r"\d+\.\d{6}")
_ROW = re.compile(r"\d+\.\d{3}  \d+\.\d{3}  \d+\.\d{3}")


@dataclass(frozen=True, slots=True)
class Etrace2Output:
    """What one run of etrace2 counted.

    Attributes:
        duration_s: of the run.
        domains: joules of ``package-0``, ``dram-0`` …; memories that stayed at 0 are left out.
        notes: what is left out, and why it may be too little.
    """

    duration_s: float
    domains: dict[str, float]
    notes: tuple[str, ...] = ()


def looks_like_etrace2(text: str) -> bool:
    """True if etrace2 wrote any of it."""
    return "# ETRACE2_VERSION=" in text or any(failure in text for failure in FAILURES)


def parse_etrace2(text: str, *, where: str | Path) -> Etrace2Output:
    """The totals in an output of etrace2, the measured command's own lines passed over.

    Args:
        text: the output.
        where: the file, for messages.

    Raises:
        ConfigError: etrace2 failed, the output is not whole, a line cannot be read, parts and total
            disagree, there is more than one run in it, or a processor's counter stood still.
    """
    failure = next((line for line in text.splitlines() if any(f in line for f in FAILURES)), None)
    if failure is not None:
        raise ConfigError(
            f"etrace2 measured nothing: {failure.strip()!r}",
            where=where,
            fix="run it as root on a machine with RAPL, one at a time",
        )
    found = _lines(text, where)
    missing = [key for key in ("ETRACE2_VERSION", "ELAPSED", "ENERGY") if key not in found]
    sockets = [key for key in found if key.startswith("ENERGY_SOCKET")]
    if missing or not sockets:
        raise ConfigError(
            f"the output has no {', '.join(missing) or 'ENERGY_SOCKET'}",
            where=where,
            fix="keep the whole output: these lines come last, when the command has ended",
        )
    values = {key: _joules(key, *entry, where=where) for key, entry in found.items()}
    duration_s, total_j = values.pop("ELAPSED"), values.pop("ENERGY")
    values.pop("ETRACE2_VERSION")
    _require_whole(values, total_j, where, by_interval=ROWS_HEADER in text)
    if not duration_s > 0:
        raise ConfigError(f"ELAPSED is {duration_s:g} s", where=where, allowed="more than 0")
    domains = _domains(values, where)
    dead = [domain for domain in map(_domain, values) if domain not in domains]
    notes = [f"{domain} stood at 0 J and is left out" for domain in dead]
    reads = 1 + len(_ROW.findall(text)) if ROWS_HEADER in text else 1
    if duration_s / reads > LONGEST_S:
        notes.append(
            f"the counters were read {duration_s / reads:.0f} s apart, and a busy processor goes "
            f"round its {PACKAGE_RANGE_J / 1000:.0f} kJ in {LONGEST_S:.0f} s: the joules may be "
            "far too few; run etrace2 with -i 60"
        )
    return Etrace2Output(duration_s, domains, tuple(notes))


def _lines(text: str, where: str | Path) -> dict[str, tuple[str, int]]:
    """Key → (value, line number) of etrace2's own lines; a command's last line may precede one."""
    found: dict[str, tuple[str, int]] = {}
    for number, line in enumerate(text.splitlines(), 1):
        match = _LINE.search(line)
        if match is None:
            if line.startswith("# Time [") and line.rstrip() != ROWS_HEADER:
                raise ConfigError(
                    f"columns {line!r}", where=f"{where}:{number}", allowed=ROWS_HEADER
                )
            continue
        key, value = match[1], match[2]
        if key in found:
            raise ConfigError(
                f"{key} for the second time (first in line {found[key][1]})",
                where=f"{where}:{number}",
                fix="one run a file",
            )
        found[key] = value, number
    return found


def _joules(key: str, value: str, number: int, *, where: str | Path) -> float:
    place = f"{where}:{number}"
    if key == "ETRACE2_VERSION":
        if value.strip() != VERSION:
            raise ConfigError(f"etrace2 version {value!r}", where=place, allowed=VERSION)
        return math.nan
    if not _NUMBER.fullmatch(value):
        raise ConfigError(
            f"{key}={value!r}",
            where=place,
            allowed="a number with a point and six decimals, as etrace2 prints it",
            fix="take the file as etrace2 wrote it, to its end",
        )
    return float(value)


def _require_whole(
    parts: dict[str, float], total_j: float, where: str | Path, *, by_interval: bool
) -> None:
    """Every socket is there, each with its memory or none with it, and they fit the total."""
    count = sum(key.startswith("ENERGY_SOCKET") for key in parts)
    sockets = [f"ENERGY_SOCKET{index}" for index in range(count)]
    memories = [f"ENERGY_DRAM{index}" for index in range(count)]
    sum_j, sockets_j = math.fsum(parts.values()), math.fsum(parts.get(key, 0.0) for key in sockets)
    too_large = total_j > sum_j * (1 + TOTAL_TOLERANCE)
    # With -i the total is that of the last interval, a part of the sum.
    too_small = not by_interval and total_j < sockets_j * (1 - TOTAL_TOLERANCE)
    if set(parts) not in (set(sockets), {*sockets, *memories}) or too_large or too_small:
        raise ConfigError(
            f"ENERGY is {total_j:.6f} J and {', '.join(parts)} make {sum_j:.6f} J",
            where=where,
            fix="a line is missing or was changed: take the file as etrace2 wrote it",
        )


def _domains(parts: dict[str, float], where: str | Path) -> dict[str, float]:
    domains = {}
    for key, joules in parts.items():
        domain = _domain(key)
        if joules > 0:
            domains[domain] = joules
        elif domain.startswith("package"):
            raise ConfigError(
                f"{domain} stood at 0 J: its counter is dead",
                where=where,
                fix="measure on a machine whose RAPL counter moves (not on most virtual machines)",
            )
    return domains


def _domain(key: str) -> str:
    """``package-0`` for ``ENERGY_SOCKET0``."""
    index = key.removeprefix("ENERGY_DRAM").removeprefix("ENERGY_SOCKET")
    return f"{'dram' if key.startswith('ENERGY_DRAM') else 'package'}-{index}"
