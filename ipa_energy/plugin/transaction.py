"""New contents for several files: all of them or none, whatever the moment of a kill.

::

    1  a folder .ipa-energy-patch in the checkout (git ignores it: it holds a .gitignore of *)
    2  for every file its new content N.new and a copy N.old, forced to disk
    3  journal.json: what was, and what is to be        ── from here a kill leaves work to undo
    4  every N.new renamed over its file
    5  journal.json removed, then the folder            ── from here it is done

Whatever fails before 3 has touched no file. Whatever fails, or is killed, between 3 and 5 is undone
from the copies: at once if this process lives, else by the next one that changes the checkout. A
file is renamed into place with the mode, the owner and the extended attributes of the old one, so a
read-only file is patched and stays read-only, as git does it; a read-only folder is refused.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from ipa_energy.errors import ConfigError
from ipa_energy.files import whole_file
from ipa_energy.plugin.blob import git_blob_hash
from ipa_energy.plugin.checkout import Checkout
from ipa_energy.plugin.manifest import RelativePath

FOLDER = ".ipa-energy-patch"
JOURNAL = "journal.json"
_IGNORE = ".gitignore"
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Change:
    """One file's blob hash before and after; its contents are ``number.old`` and ``number.new``."""

    number: int
    path: RelativePath
    blob_old: str
    blob_new: str


_JOURNAL_TYPE = TypeAdapter(tuple[Change, ...])


def is_unfinished(checkout: Checkout) -> bool:
    """Whether a change was interrupted after it had begun to touch files."""
    return (checkout.place(FOLDER) / JOURNAL).is_file()


def replace_files(checkout: Checkout, contents: Mapping[str, tuple[str, bytes]]) -> None:
    """Give every file its new content, or none of them.

    Args:
        checkout: where; locked, and without an unfinished change.
        contents: per path, the blob hash that the file must have now, and what it gets.

    Raises:
        ConfigError: the system refuses, or a file changed meanwhile; no file is changed then.
    """
    changes = tuple(
        Change(number, path, blob, git_blob_hash(data))
        for number, (path, (blob, data)) in enumerate(contents.items())
    )
    doing = checkout.place(FOLDER)
    try:
        for change in changes:
            _require_writable(checkout.place(change.path).parent)
        _stage(checkout, changes, contents)
        for change in changes:
            doing = checkout.place(change.path)
            _require_unchanged(doing, change.blob_old)
            (checkout.place(FOLDER) / f"{change.number}.new").replace(doing)
        _sync_parents(checkout, changes)
    except OSError as error:
        _undo(checkout, keep_finished=False)
        raise ConfigError(
            f"cannot be written: {error.strerror}; no file was changed",
            where=error.filename2 or error.filename or doing,
        ) from error
    except BaseException:
        _undo(checkout, keep_finished=False)
        raise
    try:
        _forget(checkout)
    except OSError as error:
        left = checkout.place(FOLDER)
        _log.warning("%s: cannot be removed (%s); the next call will", left, error.strerror)


def roll_back(checkout: Checkout) -> bool:
    """Undo an interrupted change, or clear away one that had come to its end.

    Returns:
        Whether a file was restored.

    Raises:
        ConfigError: a file changed since, so that its earlier content would lose something, or
            the system refuses.
    """
    try:
        return _undo(checkout, keep_finished=True)
    except OSError as error:
        raise ConfigError(
            f"an interrupted patch cannot be cleared away: {error.strerror}",
            where=error.filename or checkout.place(FOLDER),
        ) from error


def _undo(checkout: Checkout, *, keep_finished: bool) -> bool:
    folder = checkout.place(FOLDER)
    if not os.path.lexists(folder):
        return False
    if folder.is_symlink() or not folder.is_dir():
        raise ConfigError("is not a folder of this program's", where=folder, fix="remove it")
    restore: list[Change] = []
    if is_unfinished(checkout):
        changes = _read_journal(folder / JOURNAL)
        replaced = [change for change in changes if _is_replaced(folder, change)]
        if len(replaced) < len(changes) or not keep_finished:
            restore = [change for change in replaced if _needs_restoring(checkout, change)]
        for change in restore:
            (folder / f"{change.number}.old").replace(checkout.place(change.path))
        _sync_parents(checkout, restore)
    _forget(checkout)
    return bool(restore)


def _is_replaced(folder: Path, change: Change) -> bool:
    """Whether the new content was moved into place, and the old one not back again."""
    old, new = folder / f"{change.number}.old", folder / f"{change.number}.new"
    return old.is_file() and not new.is_file()


def _needs_restoring(checkout: Checkout, change: Change) -> bool:
    now = _blob(checkout, change.path)
    if now not in {change.blob_new, change.blob_old}:
        raise ConfigError(
            "an interrupted patch cannot be undone: this file changed since",
            where=checkout.place(change.path),
            fix=f"put {FOLDER}/{change.number}.old in its place, or keep it as it is by removing "
            f"the folder {checkout.place(FOLDER)}",
        )
    return now == change.blob_new


def _stage(
    checkout: Checkout, changes: tuple[Change, ...], contents: Mapping[str, tuple[str, bytes]]
) -> None:
    folder = checkout.place(FOLDER)
    folder.mkdir()
    _write(folder / _IGNORE, b"*\n")
    for change in changes:
        target = checkout.place(change.path)
        old, new = folder / f"{change.number}.old", folder / f"{change.number}.new"
        _write(old, target.read_bytes())
        _write(new, contents[change.path][1])
        status = target.stat()
        for copy in (old, new):
            # Only root may give a file away; anyone else owns what they write.
            with suppress(PermissionError):
                os.chown(copy, status.st_uid, status.st_gid)
            shutil.copystat(target, copy)
        os.utime(new)
    _sync(folder)
    with whole_file(folder / JOURNAL) as file:
        file.write(_JOURNAL_TYPE.dump_json(changes).decode())
    _sync(folder)


def _require_writable(folder: Path) -> None:
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ConfigError(
            "is a read-only folder; no file was changed", where=folder, fix="allow writing in it"
        )


def _require_unchanged(path: Path, blob: str) -> None:
    if git_blob_hash(path.read_bytes()) != blob:
        raise ConfigError(
            "was changed by another program meanwhile; nothing was patched",
            where=path,
            fix="try again",
        )


def _read_journal(path: Path) -> tuple[Change, ...]:
    try:
        return _JOURNAL_TYPE.validate_json(path.read_bytes())
    except ValidationError as error:
        raise ConfigError(
            "is not a journal of this program's", where=path, fix=f"remove {path.parent}"
        ) from error


def _blob(checkout: Checkout, path: str) -> str | None:
    if checkout.obstacle(path) is not None:
        return None
    try:
        return git_blob_hash(checkout.place(path).read_bytes())
    except OSError:
        return None


def _forget(checkout: Checkout) -> None:
    """Remove the journal, which ends the change, then what else is ours in the folder."""
    folder = checkout.place(FOLDER)
    if not folder.is_dir():
        return
    (folder / JOURNAL).unlink(missing_ok=True)
    _sync(folder)
    for path in sorted(folder.iterdir()):
        if path.suffix in {".new", ".old", ".partial"} or path.name == _IGNORE:
            path.unlink()
    folder.rmdir()
    _sync(folder.parent)


def _write(path: Path, data: bytes) -> None:
    with path.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync_parents(checkout: Checkout, changes: list[Change] | tuple[Change, ...]) -> None:
    for folder in {checkout.place(change.path).parent for change in changes}:
        _sync(folder)


def _sync(folder: Path) -> None:
    """Force a folder's names to disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
