"""One cumulative counter in a file of sysfs, kept open and read in a microsecond.

The right to read is checked by the kernel when a file is opened, not when it is read. So that a
right that was taken away is noticed, the file's owner and mode are looked at on each read, and the
file is opened again when they changed.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

from ipa_energy.meters.fault import MeterFault

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
