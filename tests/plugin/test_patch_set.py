"""The folder of patches: the form of a patch file, what reads it, and where it is installed."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
from patch_tree import PATCHES, PLAN, TARGETS, Tree, git, with_hashes

from ipa_energy.errors import ConfigError
from ipa_energy.plugin.patch_set import (
    FOLDER,
    MANIFEST,
    Hunk,
    bundled_patches,
    git_blob_hash,
    load_patch_set,
    parse_patch,
    put_in,
    split_lines,
)
from ipa_energy.plugin.patching import apply, check

SOURCE = Path(__file__).resolve().parents[2]
WHERE = Path("some.patch")
BEFORE, AFTER = "1" * 40, "2" * 40
GOOD = (
    b"diff --git a/x/y.py b/x/y.py\nindex %b..%b 100644\n--- a/x/y.py\n+++ b/x/y.py\n"
    b"@@ -3,0 +4,2 @@\n+one\n+two\n@@ -7,0 +10 @@\n+three\n"
) % (BEFORE.encode(), AFTER.encode())


@pytest.fixture
def folder(tree: Tree, tmp_path: Path) -> Path:
    """A copy of the patches, to break."""
    return shutil.copytree(tree.folder, tmp_path / "patches")


def test_the_blob_hash_is_the_one_git_prints() -> None:
    # Of nothing, and of a string: both are printed in the book "Pro Git", section Git Objects.
    assert git_blob_hash(b"") == "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391"
    assert git_blob_hash(b"what is up, doc?") == "bd9dbf5aae1a3862dd1526723246b20206e5fc37"


def test_a_patch_is_read() -> None:
    target = parse_patch(GOOD, WHERE)
    assert (target.path, target.blob_before, target.blob_after) == ("x/y.py", BEFORE, AFTER)
    assert target.hunks == (Hunk(1, 3, (b"one", b"two")), Hunk(2, 7, (b"three",)))


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        (b"@@ -3,0 +4,2 @@", b"@@ -3,0 +4,2 @@ def f():", 5),
        (b"@@ -3,0 +4,2 @@", b"@@ -3,1 +4,2 @@", 5),
        (b"@@ -3,0 +4,2 @@", b"@@ -3,0 +5,2 @@", 5),
        (b"@@ -3,0 +4,2 @@", b"@@ -3,0 +4,3 @@", 5),
        (b"@@ -3,0 +4,2 @@", b"@@ -3,0 +4,0 @@", 5),
        (b"@@ -7,0 +10 @@", b"@@ -7,0 +9 @@", 8),
        (b"@@ -7,0 +10 @@", b"@@ -3,0 +6 @@", 8),
        (b"+one", b" one", 5),
        (b"+two", b"-two", 5),
        (b"+three\n", b"+three\n\\ No newline at end of file\n", 10),
        (b"+three\n", b"+three", 8),
        (b"+three\n", b"+three\r\n", 8),
        (b"@@ -3,0 +4,2 @@\n+one\n+two\n@@ -7,0 +10 @@\n+three\n", b"", 5),
        (b"+++ b/x/y.py", b"+++ b/x/z.py", 1),
        (b"--- a/x/y.py\n", b"", 1),
        (b"index 1", b"index ", 1),
    ],
)
def test_anything_but_pure_additions_is_refused_with_its_line(
    old: bytes, new: bytes, line: int
) -> None:
    with pytest.raises(ConfigError, match=rf"some\.patch:{line}: not a patch of pure additions"):
        parse_patch(GOOD.replace(old, new, 1), WHERE)


@pytest.mark.parametrize("path", [b"../y.py", b"/x/y.py", b"x//y.py", b"x/./y.py", b"x\\y.py"])
def test_a_path_that_leads_out_of_the_checkout_is_refused(path: bytes) -> None:
    with pytest.raises(ConfigError, match="is not a plain relative path"):
        parse_patch(GOOD.replace(b"x/y.py", path), WHERE)


@pytest.mark.parametrize("data", [b"", b"a", b"a\n", b"a\r\nb\rc\n\nd", b"\n\n"])
def test_split_lines_joins_to_the_same_bytes(data: bytes) -> None:
    assert b"".join(split_lines(data)) == data
    assert len(split_lines(data)) == data.count(b"\n") + (not data.endswith(b"\n") and data != b"")


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b"a\nb\nc\nd\n", b"a\np\nb\nc\nq\nr\nd\n"),
        (b"a\nb\nc\nd", b"a\np\nb\nc\nq\nr\nd"),
        (b"a\r\nb\nc\nd", b"a\r\np\r\nb\nc\nq\nr\nd"),
    ],
)
def test_lines_go_in_with_the_neighbours_end(before: bytes, after: bytes) -> None:
    assert put_in(before, (Hunk(1, 1, (b"p",)), Hunk(2, 3, (b"q", b"r")))) == after


def test_the_patches_name_commit_and_hashes_as_git_does(tree: Tree) -> None:
    patches = tree.patches
    assert patches.commit == git(tree.home, "rev-parse", "HEAD").strip()
    assert tuple(target.path for target in patches.targets) == TARGETS
    for target in patches.targets:
        assert target.blob_before == git(tree.home, "hash-object", target.path).strip()
    apply(tree.checkout, patches)
    for target in patches.targets:
        assert target.blob_after == git(tree.home, "hash-object", target.path).strip()


def test_git_writes_this_form(tree: Tree) -> None:
    """As CONTRIBUTING tells: a patch is what git prints, without the text after the second @@."""
    apply(tree.checkout, tree.patches)
    for path, name in zip(TARGETS, sorted(PATCHES), strict=True):
        printed = git(tree.home, "diff", "-U0", "--full-index", path).splitlines()
        lines = ["@@".join(x.split("@@")[:2]) + "@@" if x[:2] == "@@" else x for x in printed]
        made = parse_patch("".join(line.rstrip("\r") + "\n" for line in lines).encode(), WHERE)
        assert made == parse_patch((tree.folder / name).read_bytes(), WHERE)


def test_git_applies_the_same_patches_to_the_same_bytes(tree: Tree) -> None:
    """But for the file with CRLF lines, into which git puts lines that end in LF."""
    for name in PATCHES:
        git(tree.home, "apply", "--unidiff-zero", str(tree.folder / name))
    for target in tree.patches.targets:
        data = (tree.home / target.path).read_bytes()
        if target.path == "engine/state.py":
            data = data.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
        assert git_blob_hash(data) == target.blob_after


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"@@ -23,0 +27 @@", b"@@ -24,0 +28 @@"),  # a last line without an end
        (b"@@ -23,0 +27 @@", b"@@ -30,0 +34 @@"),
        (b"+    ours.note(total)", b"+    return total"),  # a line that the target has
    ],
)
def test_patches_that_could_not_be_undone_are_refused(
    tree: Tree, folder: Path, old: bytes, new: bytes
) -> None:
    body = PATCHES["plan.patch"]
    assert old in body
    (folder / "plan.patch").write_bytes(with_hashes(body.replace(old, new), PLAN))
    before = tree.contents()
    for action in (check, apply):
        with pytest.raises(ConfigError, match=r"engine/plan\.py has a patch that does not give"):
            action(tree.checkout, load_patch_set(folder))
    assert tree.contents() == before


def test_two_patches_for_one_file_are_refused(folder: Path) -> None:
    shutil.copy(folder / "read.patch", folder / "read-again.patch")
    with pytest.raises(ConfigError, match=r"two patches for tools/read\.py"):
        load_patch_set(folder)


def test_a_folder_without_patches_is_refused(folder: Path) -> None:
    for path in folder.glob("*.patch"):
        path.unlink()
    with pytest.raises(ConfigError, match=r"no \*\.patch in it"):
        load_patch_set(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"commit": "e1f08dd"}, "commit: String should match pattern"),
        ({"commit": None}, "commit: Input should be a valid string"),
        ({"more": 1}, "more: Unexpected keyword argument"),
    ],
)
def test_a_malformed_manifest_is_refused(
    folder: Path, change: dict[str, object], message: str
) -> None:
    path = folder / MANIFEST
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(ConfigError, match=message):
        load_patch_set(folder)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}"])
def test_a_manifest_that_is_no_json_object_is_refused(folder: Path, text: str) -> None:
    (folder / MANIFEST).write_text(text)
    with pytest.raises(ConfigError, match=r"manifest\.json"):
        load_patch_set(folder)


def test_the_patches_for_ipa_come_with_the_package() -> None:
    patches = load_patch_set(bundled_patches())
    assert patches.commit == "e1f08dde84e2bb721b2c78ad7ef651134abf5380"
    blobs = {target.path: target.blob_before for target in patches.targets}
    assert blobs["optimizer/optimizer.py"] == "3a0a18cdbf35022f3a1c4cd96b8a6632a9380694"
    added = [hunk.lines for target in patches.targets for hunk in target.hunks]
    assert (len(patches.targets), len(added), sum(map(len, added))) == (10, 13, 24)


def test_the_patches_of_the_source_tree_are_installed_with_the_package(tmp_path: Path) -> None:
    found = importlib.util.find_spec("setuptools")
    if found is None or int(metadata.version("setuptools").split(".")[0]) < 77:
        pytest.skip("needs setuptools 77 or newer to build a wheel")
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(SOURCE / name, tmp_path / name)
    ignored = shutil.ignore_patterns("__pycache__")
    for folder in ("patches", "configs", "pipelines"):
        shutil.copytree(SOURCE / folder, tmp_path / folder, ignore=ignored)
    package = tmp_path / "ipa_energy"
    package.mkdir()
    for name in ("__init__.py", "errors.py", "shipped.py"):
        shutil.copy(SOURCE / "ipa_energy" / name, package / name)
    shutil.copytree(SOURCE / "ipa_energy/plugin", package / "plugin", ignore=ignored)
    code = "from setuptools.build_meta import build_wheel; print(build_wheel('out'))"
    built = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    site = tmp_path / "site"
    with zipfile.ZipFile(tmp_path / "out" / built.stdout.splitlines()[-1]) as wheel:
        wheel.extractall(site)
    source = {path.name: path.read_bytes() for path in (SOURCE / "patches" / FOLDER).iterdir()}
    installed = site / "ipa_energy" / "patches" / FOLDER
    assert {path.name: path.read_bytes() for path in installed.iterdir()} == source
    code = "from ipa_energy.plugin.patch_set import bundled_patches; print(bundled_patches())"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd="/",
        env={**os.environ, "PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == str(installed)
