"""Run as a program: kills a patching process at each of its file operations in turn.

``patch_killer.py apply|revert CHECKOUT PATCHES OUT`` leaves in OUT/0, OUT/1, … a copy of CHECKOUT
each, in which the action was ended by SIGKILL just before its operation 0, 1, … ; the last one is
the copy in which it came to its end.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
from pathlib import Path

from ipa_energy.plugin import patching
from ipa_energy.plugin.checkout import open_checkout
from ipa_energy.plugin.patch_set import PatchSet, load_patch_set

OPERATIONS = {"open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.chmod", "os.chown"}


def act(action: str, home: Path, patches: PatchSet) -> None:
    """Apply or revert, as the command line does."""
    getattr(patching, action)(open_checkout(home, patches), patches)


def kill_before(operation: int) -> None:
    """From here on, count file operations, and die before this one."""
    done = 0

    def count(event: str, _: object) -> None:
        nonlocal done
        if event in OPERATIONS:
            if done == operation:
                os.kill(os.getpid(), signal.SIGKILL)
            done += 1

    sys.addaudithook(count)


def main(action: str, checkout: str, folder: str, out: str) -> None:
    """Kill at every operation, until one run comes to its end."""
    patches = load_patch_set(Path(folder))
    rehearsal = Path(out) / "rehearsal"
    shutil.copytree(checkout, rehearsal, symlinks=True)
    act(action, rehearsal, patches)  # imports what it imports late
    shutil.rmtree(rehearsal)
    operation, status = 0, -1
    while status != 0:
        home = Path(out) / str(operation)
        shutil.copytree(checkout, home, symlinks=True)
        child = os.fork()
        if child == 0:
            kill_before(operation)
            act(action, home, patches)
            os._exit(0)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if status not in {0, -signal.SIGKILL}:
            raise SystemExit(f"operation {operation}: exit status {status}")
        operation += 1


if __name__ == "__main__":
    main(*sys.argv[1:])
