"""The program ``perf``: which one is there, what it can print, and why it refused."""

from __future__ import annotations

import re
import shutil
import subprocess

from ipa_energy.meters.fault import MeterFault
from ipa_energy.meters.perf.output import refusal

METER = "perf"
PERF = "perf"

JSON_SINCE = (5, 19)

DENIED_FIX = (
    "run as root, or let everybody count: sudo sysctl kernel.perf_event_paranoid=0 (containers "
    "need CAP_PERFMON as well)"
)
NO_EVENT_FIX = "modprobe rapl (most virtual machines have no such counter)"
INSTALL_FIX = "install it: Debian linux-perf, Ubuntu linux-tools-$(uname -r), Fedora perf"


def perf_version(perf: str = PERF) -> tuple[int, int]:
    """Major and minor version of perf.

    Raises:
        MeterUnavailableError: there is no perf, or it does not run.
    """
    if shutil.which(perf) is None:
        raise MeterFault(METER, "absent", f"no program {perf}", INSTALL_FIX)
    try:
        done = subprocess.run(
            [perf, "--version"], capture_output=True, text=True, timeout=10, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise MeterFault(METER, "absent", f"{perf} does not run: {error}", INSTALL_FIX) from error
    found = re.search(r"perf version (\d+)\.(\d+)", done.stdout)
    if done.returncode != 0 or found is None:
        told = (done.stderr or done.stdout).strip().replace("\n", " ")
        raise MeterFault(METER, "absent", f"{perf} --version says: {told}", INSTALL_FIX)
    return int(found[1]), int(found[2])


def output_form(version: tuple[int, int]) -> tuple[str, ...]:
    """The option for JSON lines; separated values (rounded to 0.01 J) where perf is older."""
    return ("-j",) if version >= JSON_SINCE else ("-x", ";")


def refused(messages: str, status: int) -> MeterFault:
    """Why perf ended without counting, from what it said."""
    told = " ".join(messages.partition("Run 'perf list'")[0].split())
    state = refusal(messages)
    if state == "denied":
        return MeterFault(METER, "denied", told, DENIED_FIX)
    if state == "absent":
        return MeterFault(METER, "absent", told, NO_EVENT_FIX)
    return MeterFault(METER, "absent", f"perf ended with status {status}: {told or 'no message'}")
