"""The user's checkout of IPA: which folder it is, what may be touched in it, and by whom at a time.

Only regular files that are reached from its root without a symbolic link are ever read or written.
"""

from __future__ import annotations

import fcntl
import logging
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ipa_energy.errors import ConfigError
from ipa_energy.plugin.manifest import PatchSet

LOCK_WAIT_S = 10.0
_LOCK_POLL_S = 0.02
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


def open_checkout(ipa_home: Path, patches: PatchSet) -> Checkout:
    """The checkout at ``ipa_home``.

    Raises:
        ConfigError: there is no such folder, or it holds none of the files to patch.
    """
    get_it = (
        f"git clone {patches.repository} DIR && git -C DIR checkout {patches.short_commit}, "
        "and give its root folder"
    )
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
    return Checkout(root, _head(root))


def _root_above(folder: Path, patches: PatchSet) -> str | None:
    """A hint, when the folder lies in a checkout or holds one."""
    first = patches.targets[0].path
    inside = sorted(folder.iterdir()) if os.access(folder, os.R_OK | os.X_OK) else []
    for other in [*folder.parents, *inside]:
        if (other / first).is_file():
            return f"its root is {other}"
    return None


def _head(root: Path) -> str | None:
    if not (root / ".git").exists():
        return None
    # A git hook that calls this program has variables that name another repository.
    own = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    try:
        done = subprocess.run(
            ["git", "-C", str(root), "rev-parse", "--verify", "HEAD"],
            capture_output=True,
            text=True,
            check=True,
            env=own,
        )
    except (OSError, subprocess.CalledProcessError) as error:
        _log.debug("git does not say what %s has checked out: %s", root, error)
        return None
    return done.stdout.strip()


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
