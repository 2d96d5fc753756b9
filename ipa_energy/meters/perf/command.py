"""``perf stat`` around a command, as scripts have always used it.

The command's own output, input and locale are left alone: perf writes its counts to a file of
its own, and the C locale that keeps them readable is taken back before the command starts. A shell
in between passes on the command's status, because perf reports a killed command as a success.
"""

from __future__ import annotations

import math
import os
import subprocess
import tempfile
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from ipa_energy.errors import ConfigError
from ipa_energy.meters.base import Energy
from ipa_energy.meters.fault import MeterFault
from ipa_energy.meters.perf.meter import POWER_PMU, energy_events
from ipa_energy.meters.perf.output import DURATION_EVENT, parse_perf_output
from ipa_energy.meters.perf.program import (
    DENIED_FIX,
    METER,
    PERF,
    output_form,
    perf_version,
    refused,
)

_RUN_AND_TELL = 'told=$1; shift; "$@"; status=$?; echo "$status" > "$told"; exit "$status"'
"""128 + the signal where the command was killed, as in any shell."""


@dataclass(frozen=True, slots=True)
class CommandJoules:
    """One run of a command under ``perf stat``.

    Attributes:
        energy: of the whole machine while it ran.
        exit_status: the command's; 128 + signal if it was killed.
    """

    energy: Energy
    exit_status: int


def measure_command(
    command: Sequence[str],
    *,
    psys: bool | None = None,
    leave_out: Collection[str] = (),
    perf: str = PERF,
    pmu: Path = POWER_PMU,
) -> CommandJoules:
    """Joules of the machine while a command runs.

    Args:
        command: program and arguments.
        psys: the platform instead of packages and memory; None for it only where they are missing.
        leave_out: domains not to count, e.g. a ``dram`` found dead.
        perf: the program.
        pmu: the kernel's folder of the power events.

    Raises:
        ConfigError: no command was given.
        MeterUnavailableError: no perf, no event, no right to count, or a counter that stood still.
    """
    if not command:
        raise ConfigError("no command to measure", fix="give a program and its arguments")
    chosen = energy_events(pmu, psys=psys)
    events = [f"power/{event}/" for event, domain in chosen.items() if domain not in leave_out]
    form = output_form(perf_version(perf))
    with tempfile.TemporaryDirectory() as folder:
        counts, told = Path(folder, "counts"), Path(folder, "status")
        counting = [perf, "stat", "-a", *form, "-o", str(counts)]
        counting += ["-e", ",".join([*events, DURATION_EVENT]), "--"]
        _check_admitted(counting)
        begin_s = time.perf_counter()
        done = subprocess.run(
            [*counting, *_own_locale(), "sh", "-c", _RUN_AND_TELL, "sh", str(told), *command],
            env=_c_locale(),
            check=False,
        )
        wall_s = time.perf_counter() - begin_s
        if not told.exists():
            raise refused("perf ended before the command did", done.returncode)
        exit_status = int(told.read_text(encoding="ascii"))
        output = counts.read_text(encoding="utf-8", errors="replace")
    return CommandJoules(_energy(output, wall_s), exit_status)


def _check_admitted(counting: Sequence[str]) -> None:
    """Ask perf for nothing first, so that its refusal does not end among the command's messages."""
    done = subprocess.run(
        [*counting, "true"], env=_c_locale(), capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise refused(done.stderr, done.returncode)


def _energy(output: str, wall_s: float) -> Energy:
    try:
        found = parse_perf_output(output)
    except ConfigError as error:
        raise MeterFault(METER, "dead", str(error)) from error
    for event in found.events():
        problem = found.problem_of(event)
        if problem is not None:
            raise MeterFault(METER, "denied", f"{event}: <{problem}>", DENIED_FIX)
    joules = found.domains()
    for domain, energy_j in joules.items():
        if not energy_j > 0:
            raise MeterFault(
                METER, "dead", f"{domain} stood at {energy_j:.2f} J for {wall_s:.3g} s"
            )
    duration_s = wall_s if math.isnan(found.duration_s) else found.duration_s
    return Energy(sum(joules.values()), duration_s, joules, METER, "measured")


def _c_locale() -> dict[str, str]:
    return {**os.environ, "LC_ALL": "C"}


def _own_locale() -> list[str]:
    """``env`` with the locale as it was before perf was given its own."""
    before = os.environ.get("LC_ALL")
    return ["env", "-u", "LC_ALL"] if before is None else ["env", f"LC_ALL={before}"]
