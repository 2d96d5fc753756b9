"""A small checkout of our own with the traps that patching meets, and patches for it.

``engine/plan.py`` ends without a newline, ``engine/state.py`` has CRLF lines, ``tools/read.py`` is
read-only, ``tools/start.sh`` is executable. ``engine/spare.py`` is no target.
"""

from __future__ import annotations

import json
import shutil
import stat
import subprocess
from dataclasses import dataclass
from pathlib import Path

from ipa_energy.plugin.checkout import Checkout, open_checkout
from ipa_energy.plugin.patch_set import (
    MANIFEST,
    PatchSet,
    git_blob_hash,
    load_patch_set,
    parse_patch,
    put_in,
)

PLAN = b"""\
import math


def spread(values):
    low = min(values)
    high = max(values)
    return high - low


def cost(rate, width):
    total = math.ceil(rate / width)
    total = abs(total)
    if total > 9:
        total = 9
    if total < 1:
        total = 1
    return total


def best(rates, width):
    found = []
    for rate in rates:
        found.append(cost(rate, width))
    return max(found)"""
STATE = b"""\
class State:\r
    rate = 1\r
    width = 2\r
\r
    def double(self):\r
        return 2 * self.rate\r
\r
    def halve(self):\r
        return self.rate / 2\r
"""
READ = b"""\
def read(path):
    with open(path) as file:
        return file.read()
"""
START = b"""\
#!/bin/sh
echo one
echo two
echo three
"""
SOURCES = {
    "engine/plan.py": PLAN,
    "engine/state.py": STATE,
    "tools/read.py": READ,
    "tools/start.sh": START,
    "engine/spare.py": b"spare = True\n",
}
MODES = {"tools/read.py": 0o444, "tools/start.sh": 0o755}
PATCHES = {
    "plan.patch": b"""\
--- a/engine/plan.py
+++ b/engine/plan.py
@@ -1,0 +2 @@
+import extra_joules as ours
@@ -11,0 +13,2 @@
+    total = ours.weigh(total, width)
+    ours.note(total)
@@ -23,0 +27 @@
+        ours.note(rate)
""",
    "state.patch": b"""\
--- a/engine/state.py
+++ b/engine/state.py
@@ -3,0 +4 @@
+    extra_joules = 0.0
@@ -9,0 +11,2 @@
+    # ours
+    joules = property(lambda self: self.extra_joules)
""",
    "read.patch": b"""\
--- a/tools/read.py
+++ b/tools/read.py
@@ -0,0 +1 @@
+import extra_joules
""",
    "start.patch": b"""\
--- a/tools/start.sh
+++ b/tools/start.sh
@@ -2,0 +3 @@
+echo extra joules
""",
}
TARGETS = ("engine/plan.py", "tools/read.py", "tools/start.sh", "engine/state.py")
"""In the order of the patch files' names."""


def with_hashes(body: bytes, source: bytes, after: str = "0" * 40) -> bytes:
    """A patch with the lines that name its target's blobs, before and (unless given) after."""
    path = body.split(b"\n", 1)[0].removeprefix(b"--- a/")
    head = b"diff --git a/%b b/%b\n" % (path, path)
    before = git_blob_hash(source).encode()
    index = b"index %b..%b 100644\n"
    target = parse_patch(head + index % (before, after.encode()) + body, Path("a patch"))
    if not after.strip("0"):
        after = git_blob_hash(put_in(source, target.hunks))
    return head + index % (before, after.encode()) + body


@dataclass(frozen=True, slots=True)
class Tree:
    """A checkout and the folder of its patches."""

    home: Path
    folder: Path

    @property
    def patches(self) -> PatchSet:
        """The patches as loaded."""
        return load_patch_set(self.folder)

    @property
    def checkout(self) -> Checkout:
        """The checkout as opened."""
        return open_checkout(self.home, self.patches)

    def contents(self) -> dict[str, tuple[bytes, int]]:
        """Bytes and mode of everything outside ``.git``."""
        return {
            path.relative_to(self.home).as_posix(): (
                path.read_bytes(),
                stat.S_IMODE(path.lstat().st_mode),
            )
            for path in sorted(self.home.rglob("*"))
            if path.is_file() and ".git" not in path.parts
        }

    def write(self, path: str, data: bytes) -> None:
        """Edit a file as a user would, its mode kept."""
        place = self.home / path
        mode = stat.S_IMODE(place.stat().st_mode)
        place.chmod(0o644)
        place.write_bytes(data)
        place.chmod(mode)

    def copy(self, to: Path) -> Tree:
        """The same again, elsewhere; links stay links."""
        shutil.copytree(self.home, to, symlinks=True)
        return Tree(to, self.folder)


def git(home: Path, *words: str) -> str:
    """What git prints."""
    identity = ("-c", "user.name=test", "-c", "user.email=test@example.org")
    plain = ("-c", "core.autocrlf=false", "-c", "core.filemode=true")
    done = subprocess.run(
        ["git", "-C", str(home), *identity, *plain, *words],
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


def make_tree(folder: Path) -> Tree:
    """The tree as a git repository with one commit, its patches and their manifest."""
    tree = Tree(folder / "checkout", folder / "patches")
    for path, data in SOURCES.items():
        place = tree.home / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(data)
        place.chmod(MODES.get(path, 0o644))
    git(tree.home, "init", "--quiet")
    git(tree.home, "add", ".")
    git(tree.home, "commit", "--quiet", "-m", "pristine")
    tree.folder.mkdir()
    for path, (name, body) in zip(TARGETS, sorted(PATCHES.items()), strict=True):
        (tree.folder / name).write_bytes(with_hashes(body, SOURCES[path]))
    commit = git(tree.home, "rev-parse", "HEAD").strip()
    manifest = {"repository": "https://example.org/engine", "commit": commit}
    (tree.folder / MANIFEST).write_text(json.dumps(manifest))
    return tree
