"""Files and folders that appear whole or not at all: the one door through which outputs go.

A file is written beside its place and renamed over it; a folder is filled under a hidden name and
renamed into place. Whatever the moment of a kill, a reader sees the old state or the new one. What
the system refuses comes out as the :class:`OSError` it is: only the caller knows what was being
written and what the user can do about it.

What stands at the place stays what it is: a pipe or a device is written to, a symbolic link is
followed, a file keeps its mode, its owner and its other names, and one that may not be written
stays as it is.
"""

from __future__ import annotations

import errno
import fcntl
import io
import itertools
import json
import os
import shutil
import stat
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from io import FileIO
from pathlib import Path
from typing import Any, BinaryIO, TextIO

from ipa_energy.as_json import as_json
from ipa_energy.errors import ConfigError, IpaEnergyError, in_words

PAGE_BEGINS = "<!doctype html>"
"""How an HTML page begins, for :func:`check_output`."""


@contextmanager
def whole_file(path: Path, *, sync: bool = True) -> Iterator[TextIO]:
    """A new text file to write to, which is put at ``path`` at the end; nothing is left on failure.

    Args:
        path: where the file goes; its folder is made.
        sync: force it to disk first, so that a power cut cannot leave an empty file either.

    Raises:
        OSError: it cannot be written, or ``path`` is a folder.
    """
    with _whole(path, sync=sync) as raw:
        text = io.TextIOWrapper(raw, encoding="utf-8")
        try:
            yield text
            text.flush()
        finally:
            with suppress(OSError, ValueError):  # the write that failed raises already
                text.detach()


def whole_bytes(path: Path, data: bytes) -> None:
    """Put ``data`` at ``path``, its folder is made; nothing is left on failure.

    Raises:
        OSError: it cannot be written, or ``path`` is a folder.
    """
    with _whole(path, sync=False) as file:
        file.write(data)


def whole_folder(path: Path, files: Mapping[str, str | bytes]) -> None:
    """Make the folder ``path`` and its parents, with ``files`` in it.

    Raises:
        OSError: it cannot be written, or ``path`` is a file or a folder that is not empty.
    """
    path = Path(os.path.realpath(path))
    make_folder_of(path)
    hidden = path.with_name(f".{path.name}.partial-{os.getpid()}")
    try:
        hidden.mkdir()
        if path.is_dir():  # an empty one, whose place it takes
            before = path.stat()
            with suppress(PermissionError):
                os.chown(hidden, before.st_uid, before.st_gid)
            hidden.chmod(stat.S_IMODE(before.st_mode))
        for name, content in files.items():
            data = content.encode() if isinstance(content, str) else content
            (hidden / name).write_bytes(data)
        hidden.rename(path)
    except BaseException:
        shutil.rmtree(hidden, ignore_errors=True)
        raise


def append_whole(file: FileIO, end: int, data: bytes, *, sync: bool = True) -> None:
    """Add ``data`` at the end of an open file: all of it, or nothing.

    Args:
        file: opened for appending, without a buffer: the rest of a failed write would wait in one
            and be written when it is closed.
        end: where the file ends now, and will end if this fails.
        data: what is added.
        sync: have it on disk when this returns.

    Raises:
        OSError: it cannot be written.
    """
    try:
        left = memoryview(data)
        while left:
            left = left[file.write(left) :]
        if sync:
            os.fsync(file.fileno())
    except OSError:
        os.ftruncate(file.fileno(), end)
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


def check_output(
    path: Path,
    *,
    where: str,
    inputs: Iterable[Path] = (),
    begins: str | None = None,
) -> None:
    """Refuse a place for a file while nothing is done yet that would be lost.

    Args:
        path: where the file will go.
        where: the option that named it.
        inputs: files that the same call reads.
        begins: how a file of this kind begins, white space aside, if only such a one may be
            replaced.

    Raises:
        ConfigError: its folder cannot be made, it is a folder, it may not be written, it is an
            input, or it is a file of another kind.
    """

    def refuse(what: str, allowed: str = "a new file, or one to be written anew") -> ConfigError:
        return ConfigError(f"{path}: {what}", where=where, allowed=allowed)

    check_can_be_made(path.parent, where=where)
    if path.is_dir():
        raise refuse("is a folder", "a file")
    if _own_descriptor(path) is not None:
        return
    try:
        path.stat()
    except FileNotFoundError:
        pass
    except OSError as error:  # a name that is too long, a link to itself
        raise refuse(f"cannot be written: {in_words(error)}") from error
    if not path.exists():
        folder = Path(os.path.realpath(path)).parent
        if folder.is_dir() and not os.access(folder, os.W_OK):
            raise refuse("its folder may not be written to", "a folder that you may write to")
        return
    if not path.is_file():
        return  # a pipe, a device
    try:
        _as_it_is(Path(os.path.realpath(path)))
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise refuse(f"cannot be written: {reason}") from error
    if any(_is_same(path, source) for source in inputs):
        raise refuse("is read by this very call and would be lost", "another file")
    if begins is not None and path.stat().st_size:
        with path.open("rb") as file:
            if not file.read(4096).lstrip().lower().startswith(begins.encode().lower()):
                raise refuse("holds something else", "a new file, or one that this wrote before")


def check_output_folder(path: Path, *, where: str, inputs: Iterable[Path] = ()) -> None:
    """The same for a folder that files are written into.

    Args:
        path: the folder.
        where: the option that named it.
        inputs: folders that the same call reads.

    Raises:
        ConfigError: it is a file, cannot be made, may not be written to, or is an input.
    """
    if path.exists() and not path.is_dir():
        raise ConfigError(f"{path}: is a file", where=where, allowed="a folder, new or not")
    check_can_be_made(path, where=where)
    if path.is_dir() and not os.access(path, os.W_OK):
        raise ConfigError(
            f"{path}: may not be written to", where=where, allowed="a folder that you may write to"
        )
    if any(source.is_dir() and path.is_dir() and source.samefile(path) for source in inputs):
        raise ConfigError(
            f"{path}: is read by this very call", where=where, allowed="a folder of its own"
        )


def make_folder_of(path: Path) -> None:
    """Make the folder of a file that will be written, with its parents, if it is not there.

    Raises:
        OSError: it cannot be made.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        number = errno.ENOTDIR
        raise NotADirectoryError(number, os.strerror(number), str(path.parent)) from error


def check_can_be_made(folder: Path, *, where: str | Path) -> None:
    """Refuse a folder that is not there and cannot be made, while nothing is done yet.

    Args:
        folder: that will be made with its parents, if it is not there.
        where: what named it.

    Raises:
        ConfigError: something on the way to it is no folder, or may not be written to.
    """
    nearest = folder.absolute()
    while not os.path.lexists(nearest):
        nearest = nearest.parent
    if not nearest.is_dir():
        within = "" if nearest == folder.absolute() else f"{nearest} "
        what = f"{folder}: {within}is no folder"
        raise ConfigError(what, where=where, allowed="a folder, new or not")
    if not (folder.is_dir() or os.access(nearest, os.W_OK | os.X_OK)):
        what = f"{folder}: cannot be made, {nearest} may not be written to"
        raise ConfigError(what, where=where, allowed="a folder that you may write to")


@contextmanager
def _whole(path: Path, *, sync: bool) -> Iterator[BinaryIO]:
    stream = _stream(path)
    if stream is not None:
        with stream:
            yield stream
        return
    target = Path(os.path.realpath(path))
    before = _as_it_is(target)
    make_folder_of(target)
    partial, file = _open_partial(target)
    with file:  # its lock goes with it, after the renaming
        try:
            if before is not None:
                _dress(file, before)
            yield file
            file.flush()
            if sync:
                os.fsync(file.fileno())
            if before is not None and before.st_nlink > 1:
                _pour(partial, target)
                partial.unlink()
            else:
                partial.replace(target)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise


def _stream(path: Path) -> BinaryIO | None:
    """What can only be written to, opened: a pipe, a device, a descriptor of this process."""
    descriptor = _own_descriptor(path)
    if descriptor is not None:
        for printed in (sys.stdout, sys.stderr):
            if printed is not None:
                printed.flush()
        return os.fdopen(os.dup(descriptor), "wb")
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return None
    if stat.S_ISCHR(mode) or stat.S_ISFIFO(mode):
        return os.fdopen(os.open(path, os.O_WRONLY | os.O_CLOEXEC), "wb")
    return None


def _own_descriptor(path: Path) -> int | None:
    """The number behind ``/dev/stdout``, ``/dev/fd/3`` and the like.

    Opened by name, a standard output that is a file would be written from its beginning again.
    """
    folder = f"/proc/{os.getpid()}/fd"
    for _ in range(40):  # as many links as Linux follows
        if path.name.isdecimal() and os.path.realpath(path.parent) == folder:
            return int(path.name)
        if not path.is_symlink():
            return None
        path = path.parent / path.readlink()
    return None


def _as_it_is(target: Path) -> os.stat_result | None:
    """What is known of the file at a place; None if there is none.

    Raises:
        OSError: it is no file, or one that may not be written. Renaming would not notice, and a
            superuser may write anything: a file without any right to write is meant to stay.
    """
    try:
        found = target.stat()
    except FileNotFoundError:
        return None
    number = 0
    if stat.S_ISDIR(found.st_mode):
        number = errno.EISDIR
    elif not stat.S_ISREG(found.st_mode):
        number = errno.ENOTSUP
    elif not (found.st_mode & 0o222 and os.access(target, os.W_OK)):
        number = errno.EACCES
    if number:
        raise OSError(number, os.strerror(number), str(target))
    return found


def _open_partial(target: Path) -> tuple[Path, BinaryIO]:
    """A new hidden file beside ``target`` that no other process writes to.

    Each holds a lock on its own, so that what a killed one left can be told and is cleared away.
    """
    for number in itertools.count(1):
        further = f"-{number}" if number > 1 else ""
        partial = target.with_name(f".{target.name}.partial{further}")
        _clear(partial)
        try:
            file = partial.open("xb")
        except FileExistsError:
            continue
        if _lock(file, without=True) and _is_at(file, partial):
            return partial, file
        file.close()
    raise AssertionError  # numbers do not end


def _clear(partial: Path) -> None:
    """Remove what a killed process left, if that is what it is."""
    with suppress(OSError), partial.open("r+b") as left:
        if _lock(left, without=False) and _is_at(left, partial):
            partial.unlink()


def _lock(file: BinaryIO, *, without: bool) -> bool:
    """Take the lock of a file; ``without`` is the answer where the disk knows no locks."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return without
    return True


def _is_same(path: Path, source: Path) -> bool:
    try:
        return path.samefile(source)
    except OSError:  # there is none, or the name of a command's argument is no name of a file
        return False


def _is_at(file: BinaryIO, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.lstat())
    except FileNotFoundError:
        return False


def _dress(file: BinaryIO, before: os.stat_result) -> None:
    """Give a file the owner, as far as that may be, and the mode of the one it will replace."""
    now = os.fstat(file.fileno())
    if (now.st_uid, now.st_gid) != (before.st_uid, before.st_gid):
        with suppress(PermissionError):
            os.fchown(file.fileno(), before.st_uid, before.st_gid)
    if stat.S_IMODE(now.st_mode) != stat.S_IMODE(before.st_mode):
        os.fchmod(file.fileno(), stat.S_IMODE(before.st_mode))


def _pour(partial: Path, target: Path) -> None:
    """Write a finished file into one that has several names, which renaming would part."""
    with partial.open("rb") as source, target.open("r+b") as file:
        shutil.copyfileobj(source, file)
        file.truncate()
        file.flush()
        os.fsync(file.fileno())
