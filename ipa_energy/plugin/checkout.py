"""The user's checkout of IPA: which folder it is, what git keeps of it, and writing in it.

Only regular files that are reached from its root without a symbolic link are ever read or written.

New contents for several files come all or not at all, whatever the moment of a kill::

    1  a folder .ipa-energy-patch in the checkout (git ignores it: it holds a .gitignore of *)
    2  for every file its new content N.new and a copy N.old, forced to disk
    3  every N.new renamed over its file          ── a kill here leaves some files with the patch
    4  the folder removed

What fails before 3 has touched no file; what fails in 3 is put back from the copies at once. After
a kill in 3 some files have the patch, some have not, and the folder is there: that is how the next
call knows, and it takes the patch's lines out again first (see ``patching``). A file is renamed
into place with the mode, the owner and the extended attributes of the old one, so a read-only file
is patched and stays read-only, as git does it; a read-only folder is refused.
"""

from __future__ import annotations

import fcntl
import logging
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from ipa_energy.errors import ConfigError
from ipa_energy.plugin.patch_set import PatchSet

FOLDER = ".ipa-energy-patch"
LOCK_WAIT_S = 10.0
_LOCK_POLL_S = 0.02
_IGNORE = ".gitignore"
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Checkout:
    """A folder with files of IPA; ``commit`` is git's HEAD, None where git does not say."""

    root: Path
    commit: str | None

    def place(self, path: str) -> Path:
        """Where the file ``path`` is."""
        return self.root / path

    def obstacle(self, path: str) -> str | None:
        """Why ``path`` cannot be one of IPA's own files; None if it can (or is not there)."""
        here = self.root
        for part in path.split("/"):
            here = here / part
            if here.is_symlink():
                name = here.relative_to(self.root).as_posix()
                return "is a symbolic link" if name == path else f"{name} is a symbolic link"
        if here.exists() and not here.is_file():
            return "is not a file"
        return None

    @property
    def has_leftover(self) -> bool:
        """Whether a call before this one was ended before it came to its own end."""
        return os.path.lexists(self.place(FOLDER))


def open_checkout(ipa_home: Path, patches: PatchSet) -> Checkout:
    """The checkout at ``ipa_home``.

    Raises:
        ConfigError: there is no such folder, or it holds none of the files to patch.
    """
    get_it = f"{clone_command(patches)}, and give its root folder"
    if not ipa_home.is_dir():
        found = "is not a folder" if ipa_home.exists() else "no such folder"
        raise ConfigError(found, where=ipa_home, fix=get_it)
    root = ipa_home.resolve()
    if not any(os.path.lexists(root / target.path) for target in patches.targets):
        raise ConfigError(
            f"no checkout of IPA: none of the {len(patches.targets)} files to patch is in it",
            where=ipa_home,
            fix=_root_above(root, patches) or get_it,
        )
    head: str | None = None
    if (root / ".git").exists():
        with suppress(ConfigError):
            head = git(root, "rev-parse", "--verify", "HEAD").decode().strip()
    return Checkout(root, head)


def clone_command(patches: PatchSet) -> str:
    """How to get the commit that the patches are for."""
    return f"git clone {patches.repository} DIR && git -C DIR checkout {patches.short_commit}"


def _root_above(folder: Path, patches: PatchSet) -> str | None:
    """A hint, when the folder lies in a checkout or holds one."""
    first = patches.targets[0].path
    inside = sorted(folder.iterdir()) if os.access(folder, os.R_OK | os.X_OK) else []
    for other in [*folder.parents, *inside]:
        if (other / first).is_file():
            return f"its root is {other}"
    return None


# ------------------------------------------------------------------ git


def git(folder: Path, *words: str) -> bytes:
    """What ``git`` prints in a folder.

    Raises:
        ConfigError: there is no git, or it fails.
    """
    # A git hook that calls this program has variables that name another repository.
    own = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    try:
        command = ["git", "-C", str(folder), *words]
        return subprocess.run(command, capture_output=True, check=True, env=own).stdout
    except OSError as error:
        raise ConfigError(
            f"git cannot be run ({error.strerror}), and it keeps edits apart from IPA's own lines",
            fix="install git",
        ) from error
    except subprocess.CalledProcessError as error:
        last = error.stderr.decode(errors="replace").strip().splitlines()[-1:]
        raise ConfigError(f"git: {''.join(last) or error.returncode}", where=folder) from error


def merged(mine: bytes, base: bytes, other: bytes) -> bytes | None:
    """``mine`` with what makes ``other`` of ``base``; None where git finds both at one place."""
    with tempfile.TemporaryDirectory(prefix="ipa-energy-") as name:
        folder = Path(name)
        for file, data in (("mine", mine), ("base", base), ("other", other)):
            (folder / file).write_bytes(data)
        try:
            return git(folder, "merge-file", "-p", "-q", "mine", "base", "other")
        except ConfigError as error:
            if isinstance(error.__cause__, subprocess.CalledProcessError):
                return None
            raise


# ------------------------------------------------------------------ one process at a time


@contextmanager
def locked(checkout: Checkout) -> Iterator[None]:
    """Hold the checkout against other processes of this program; a kill lets it go.

    Raises:
        ConfigError: another process held it for ``LOCK_WAIT_S`` seconds, or it cannot be read.
    """
    try:
        folder = os.open(checkout.root, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror}", where=checkout.root) from error
    try:
        _lock(folder, checkout.root)
        yield
    finally:
        os.close(folder)


def _lock(folder: int, root: Path) -> None:
    until_s = time.perf_counter() + LOCK_WAIT_S
    while True:
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.perf_counter() > until_s:
                raise ConfigError(
                    "another ipa-energy patch is at work here", where=root, fix="wait for its end"
                ) from None
            time.sleep(_LOCK_POLL_S)
            continue
        except OSError as error:
            # Some network file systems lock no folders.
            _log.warning("%s: cannot be locked (%s): patch it once at a time", root, error.strerror)
        return


# ------------------------------------------------------------------ all or none


def replace_files(checkout: Checkout, contents: Mapping[str, tuple[bytes, bytes]]) -> None:
    """Give every file its new content, or none of them.

    Args:
        checkout: where; locked.
        contents: per path, what the file must hold now, and what it gets.

    Raises:
        ConfigError: the system refuses, or a file changed meanwhile; no file is changed then.
    """
    begun: list[int] = []
    doing = checkout.place(FOLDER)
    try:
        for path in contents:
            _require_writable(checkout.place(path).parent)
        _stage(checkout, contents)
        for number, (path, (old, _)) in enumerate(contents.items()):
            doing = checkout.place(path)
            _require_unchanged(doing, old)
            begun.append(number)
            (checkout.place(FOLDER) / f"{number}.new").replace(doing)
        _sync_parents(checkout, contents)
    except BaseException as error:
        _put_back(checkout, contents, begun)
        if not isinstance(error, OSError):
            raise
        raise ConfigError(
            f"cannot be written: {error.strerror}; no file was changed",
            where=error.filename2 or error.filename or doing,
        ) from error
    try:
        _forget(checkout)
    except OSError as error:
        left = checkout.place(FOLDER)
        _log.warning("%s: cannot be removed (%s); the next call will", left, error.strerror)


def clear_leftover(checkout: Checkout) -> None:
    """Remove what a call that was ended has left beside the files.

    Raises:
        ConfigError: the system refuses.
    """
    try:
        _forget(checkout)
    except OSError as error:
        raise ConfigError(
            f"an interrupted patch cannot be cleared away: {error.strerror}",
            where=error.filename or checkout.place(FOLDER),
        ) from error


def _stage(checkout: Checkout, contents: Mapping[str, tuple[bytes, bytes]]) -> None:
    folder = _own_folder(checkout)
    folder.mkdir(exist_ok=True)  # the call after one that was ended finds it
    _write(folder / _IGNORE, b"*\n")
    for number, (path, pair) in enumerate(contents.items()):
        target = checkout.place(path)
        status = target.stat()
        for data, kind in zip(pair, ("old", "new"), strict=True):
            copy = folder / f"{number}.{kind}"
            _write(copy, data)
            # Only root may give a file away; anyone else owns what they write.
            with suppress(PermissionError):
                os.chown(copy, status.st_uid, status.st_gid)
            shutil.copystat(target, copy)
        os.utime(folder / f"{number}.new")
    _sync(folder)


def _put_back(
    checkout: Checkout, contents: Mapping[str, tuple[bytes, bytes]], begun: list[int]
) -> None:
    for number, (path, (_, new)) in enumerate(contents.items()):
        place = checkout.place(path)
        if number in begun and place.read_bytes() == new:
            (checkout.place(FOLDER) / f"{number}.old").replace(place)
    _sync_parents(checkout, contents)
    _forget(checkout)


def _own_folder(checkout: Checkout) -> Path:
    folder = checkout.place(FOLDER)
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise ConfigError("is not a folder of this program's", where=folder, fix="remove it")
    return folder


def _require_writable(folder: Path) -> None:
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ConfigError(
            "is a read-only folder; no file was changed", where=folder, fix="allow writing in it"
        )


def _require_unchanged(path: Path, data: bytes) -> None:
    if path.read_bytes() != data:
        raise ConfigError(
            "was changed by another program meanwhile; nothing was patched",
            where=path,
            fix="try again",
        )


def _forget(checkout: Checkout) -> None:
    """Remove what is ours in our folder, then the folder."""
    folder = _own_folder(checkout)
    if not folder.exists():
        return
    for path in sorted(folder.iterdir()):
        if path.suffix in {".new", ".old"} or path.name == _IGNORE:
            path.unlink()
    folder.rmdir()
    _sync(folder.parent)


def _write(path: Path, data: bytes) -> None:
    path.unlink(missing_ok=True)
    with path.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync_parents(checkout: Checkout, paths: Mapping[str, object]) -> None:
    for folder in {checkout.place(path).parent for path in paths}:
        _sync(folder)


def _sync(folder: Path) -> None:
    """Force a folder's names to disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
