"""The names in a run folder, and what to say when the disk refuses one of them."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from ipa_energy.errors import ConfigError
from ipa_energy.files import whole_file, whole_folder

CONFIG_FILE = "0.yaml"
RESPONSES_FILE = "0.json"
ADAPTATION_FILE = "adaptation_log.json"
RUN_FILE = "run.json"
JOURNAL_FILE = "journal.jsonl"
WORKLOAD_FILE = "workload.csv"
PROFILE_FILE = "profile.csv"
RUN_FILES = (
    *(CONFIG_FILE, RESPONSES_FILE, ADAPTATION_FILE, RUN_FILE),
    *(JOURNAL_FILE, WORKLOAD_FILE, PROFILE_FILE),
)

_FIXES = {
    errno.ENOSPC: "free some space and call again; an unfinished run goes on with --resume",
    errno.EDQUOT: "free some of your quota and call again; a run goes on with --resume",
    errno.EROFS: "choose a place on a writable disk",
    errno.EACCES: "choose a place that you may write to",
    errno.EPERM: "choose a place that you may write to",
}


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn what the system says about ``path`` into one clear error.

    Raises:
        ConfigError: the disk is full, read-only, or not ours to write to, or any other OS error.
    """
    try:
        yield
    except OSError as error:
        reason = os.strerror(error.errno).lower() if error.errno else str(error)
        raise ConfigError(
            f"cannot write: {reason}",
            where=path,
            fix=_FIXES.get(error.errno or 0, "choose another place"),
        ) from error


def write_atomically(path: Path, write: Callable[[TextIO], object], *, sync: bool = True) -> None:
    """Call ``write`` on a new file and put it at ``path``; nothing is left if it fails.

    Args:
        path: where the file goes.
        write: gets the open file.
        sync: force it to disk first, so that a power cut cannot leave an empty file either.

    Raises:
        ConfigError: it cannot be written.
    """
    with writing(path), whole_file(path, sync=sync) as file:
        write(file)


def check_is_free(path: Path) -> None:
    """Refuse a run folder that holds something.

    Raises:
        ConfigError: ``path`` is a file, or a folder that is not empty.
    """
    if path.is_dir():
        if any(path.iterdir()):
            raise ConfigError(
                "the folder exists and is not empty",
                where=path,
                allowed="a new or empty folder",
                fix="go on with the run in it by --resume, or choose another --out",
            )
        if path.samefile(Path.cwd()):  # it is replaced, and you would stand nowhere
            raise ConfigError("is the folder you are in", where=path, allowed="a new folder in it")
    elif path.exists() or path.is_symlink():
        raise ConfigError("is a file", where=path, allowed="a new or empty folder")


def create_folder(path: Path, files: Mapping[str, str | bytes]) -> None:
    """Make the folder ``path`` with ``files`` in it, all of them or none.

    Raises:
        ConfigError: ``path`` is taken, or it cannot be written.
    """
    check_is_free(path)
    with writing(path):
        whole_folder(path, files)
