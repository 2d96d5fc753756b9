"""Files and folders that appear whole or not at all.

A file is written beside its place and renamed over it; a folder is filled under a hidden name and
renamed into place. Whatever the moment of a kill, a reader sees the old state or the new one. What
the system refuses comes out as the :class:`OSError` it is: only the caller knows what was being
written and what the user can do about it.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from ipa_energy.as_json import as_json
from ipa_energy.errors import IpaEnergyError


@contextmanager
def whole_file(path: Path, *, sync: bool = True) -> Iterator[TextIO]:
    """A new text file to write to, which is put at ``path`` at the end; nothing is left on failure.

    Args:
        path: where the file goes; its folder must exist.
        sync: force it to disk first, so that a power cut cannot leave an empty file either.

    Raises:
        OSError: it cannot be written.
    """
    beside = path.with_name(f".{path.name}.partial")
    try:
        with beside.open("w", encoding="utf-8") as file:
            yield file
            if sync:
                file.flush()
                os.fsync(file.fileno())
        beside.replace(path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise


def whole_folder(path: Path, files: Mapping[str, str | bytes]) -> None:
    """Make the folder ``path`` and its parents, with ``files`` in it.

    Raises:
        OSError: it cannot be written, or ``path`` is a file or a folder that is not empty.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    hidden = path.with_name(f".{path.name}.partial-{os.getpid()}")
    try:
        hidden.mkdir()
        for name, content in files.items():
            data = content.encode() if isinstance(content, str) else content
            (hidden / name).write_bytes(data)
        hidden.rename(path)
    except BaseException:
        shutil.rmtree(hidden, ignore_errors=True)
        raise


def whole_bytes(path: Path, data: bytes) -> None:
    """Put ``data`` at ``path``; nothing is left on failure.

    Raises:
        OSError: it cannot be written.
    """
    beside = path.with_name(f".{path.name}.partial")
    try:
        beside.write_bytes(data)
        beside.replace(path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise


def write_json(path: Path, data: Mapping[str, Any]) -> None:
    """Replace a JSON file in one step: readers see the old one or the new one.

    Raises:
        IpaEnergyError: it cannot be written; the old file stays.
    """
    try:
        with whole_file(path, sync=False) as file:
            file.write(json.dumps(as_json(data), indent=2) + "\n")
    except OSError as error:
        raise IpaEnergyError(f"{path}: cannot write: {error.strerror}") from error
