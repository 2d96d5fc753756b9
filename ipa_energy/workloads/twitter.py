"""Windows of IPA's own load trace, read from a checkout of IPA.

IPA keeps the trace, requests per second over 22 days, as a compressed archive and unpacks it once;
either file is taken here, and the archive is read in memory: nothing is written to the checkout.
"""

from __future__ import annotations

import tarfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ipa_energy.arrays import Counts
from ipa_energy.config import TwitterWindow
from ipa_energy.errors import ConfigError, UnavailableError
from ipa_energy.workloads.trace import Workload, damped

TRACE_FOLDER = Path("load_tester/barazmoon/twitter")
TEXT_NAME = "workload.txt"
ARCHIVE_NAME = "workload.tbz2"
MOST_TEXT_BYTES = 64 * 2**20
"""The trace is 5.8 MB; a member above this is not it, and is not unpacked."""


def twitter_workload(ipa_home: Path | None, windows: Sequence[TwitterWindow]) -> Workload:
    """The windows of IPA's trace, one after the other: seconds [start, end) of each, damped.

    Args:
        ipa_home: root of a checkout of IPA; None if the user gave none.
        windows: from the pipeline YAML.

    Raises:
        UnavailableError: no checkout is given.
        ConfigError: the folder is not a checkout, its trace is damaged, or a window is out of it.
    """
    if ipa_home is None:
        raise UnavailableError(
            "workload_type twitter needs the trace in a checkout of IPA; fix: give --ipa-home DIR "
            "or set IPA_HOME, or choose another load with --workload NAME|FILE"
        )
    if not windows:
        raise ConfigError("workload_config names no window", allowed="a list of start, end")
    path = _trace_path(ipa_home)
    trace = _read_trace(path)
    parts = [damped(_window_of(trace, window, path), window.damping_factor) for window in windows]
    text = " + ".join(f"{w.start}..{w.end} ÷ {w.damping_factor or 1}" for w in windows)
    return Workload("twitter", np.concatenate(parts), f"{path}, seconds {text}")


def _trace_path(ipa_home: Path) -> Path:
    folder = ipa_home / TRACE_FOLDER
    for name in (TEXT_NAME, ARCHIVE_NAME):
        if (folder / name).is_file():
            return folder / name
    raise ConfigError(
        f"no {TRACE_FOLDER / ARCHIVE_NAME} below it",
        where=ipa_home,
        fix="give the root folder of a checkout of IPA as --ipa-home or IPA_HOME",
    )


def _read_trace(path: Path) -> Counts:
    try:
        text = path.read_bytes() if path.name == TEXT_NAME else _unpacked(path)
        trace = np.array(text.split()).astype(np.int64)
    except (OSError, EOFError, tarfile.TarError, ValueError, OverflowError) as error:
        raise ConfigError(
            f"the trace cannot be read: {error}",
            where=path,
            fix="restore the file from IPA's repository",
        ) from error
    if not len(trace):
        raise ConfigError(
            "the trace is empty", where=path, fix="restore the file from IPA's repository"
        )
    return trace


def _unpacked(path: Path) -> bytes:
    """The text inside the archive; in memory, so that no member name can lead anywhere."""
    with tarfile.open(path, "r:bz2") as archive:
        for member in archive:
            file = archive.extractfile(member) if member.isfile() else None
            if file is None or Path(member.name).name != TEXT_NAME:
                continue
            if member.size > MOST_TEXT_BYTES:
                raise ValueError(f"{TEXT_NAME} in it has {member.size} bytes")
            return file.read()
    raise ValueError(f"it holds no {TEXT_NAME}")


def _window_of(trace: Counts, window: TwitterWindow, path: Path) -> Counts:
    if not 0 <= window.start < window.end <= len(trace):
        raise ConfigError(
            f"workload_config asks for seconds {window.start} to {window.end} of the trace",
            where=path,
            allowed=f"0 <= start < end <= {len(trace)}",
        )
    return trace[window.start : window.end]
