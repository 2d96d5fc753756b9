"""The folder of patches: what makes its manifest, what reads it, and where it is installed."""

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
from typing import Any

import pytest
from patch_tree import PATCHES, PLAN, TARGETS, Tree, git

from ipa_energy.errors import ConfigError
from ipa_energy.plugin.blob import git_blob_hash
from ipa_energy.plugin.manifest import FOLDER, MANIFEST, bundled_patches, load_patch_set, main
from ipa_energy.plugin.manifest_build import build_manifest

SOURCE = Path(__file__).resolve().parents[2]


@pytest.fixture
def folder(tree: Tree, tmp_path: Path) -> Path:
    """A copy of the patches, to break."""
    return shutil.copytree(tree.folder, tmp_path / "patches")


def test_the_manifest_names_commit_and_hashes_as_git_does(tree: Tree) -> None:
    document = json.loads((tree.folder / MANIFEST).read_text())
    assert document["commit"] == git(tree.home, "rev-parse", "HEAD").strip()
    assert tuple(entry["path"] for entry in document["files"]) == TARGETS
    for entry in document["files"]:
        assert entry["blob_before"] == git(tree.home, "hash-object", entry["path"]).strip()
    from ipa_energy.plugin.patching import apply

    apply(tree.checkout, tree.patches)
    for entry in document["files"]:
        assert entry["blob_after"] == git(tree.home, "hash-object", entry["path"]).strip()


def test_git_applies_the_same_patches_to_the_same_bytes(tree: Tree) -> None:
    """But for the file with CRLF lines, into which git puts lines that end in LF."""
    for name in PATCHES:
        git(tree.home, "apply", "--unidiff-zero", str(tree.folder / name))
    for target in tree.patches.targets:
        data = (tree.home / target.path).read_bytes()
        if target.path == "engine/state.py":
            data = data.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
        assert git_blob_hash(data) == target.blob_after


def test_no_line_of_a_target_is_in_the_folder(tree: Tree) -> None:
    text = b"".join(path.read_bytes() for path in tree.folder.iterdir())
    for target in tree.patches.targets:
        for line in (tree.home / target.path).read_bytes().split():
            assert len(line) < 8 or line not in text or line in b"".join(PATCHES.values())


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (b"@@ -23,0 +27 @@", b"@@ -24,0 +28 @@", "last line without an end"),
        (b"@@ -23,0 +27 @@", b"@@ -30,0 +34 @@", "goes after line 30 of 24"),
        (b"+    ours.note(total)", b"+    return total", "adds a line that the target has"),
        (b"+    ours.note(total)", b"+    ours.note(total", "would no longer be Python: line"),
        (b"engine/plan.py", b"engine/absent.py", "engine/absent.py: No such file"),
    ],
)
def test_patches_that_do_not_fit_or_could_not_be_undone_are_refused(
    tree: Tree, folder: Path, old: bytes, new: bytes, message: str
) -> None:
    patch = folder / "plan.patch"
    before = (folder / MANIFEST).read_bytes()
    assert old in patch.read_bytes()
    patch.write_bytes(patch.read_bytes().replace(old, new))
    with pytest.raises(ConfigError, match=message):
        build_manifest(folder, tree.home, "x")
    assert (folder / MANIFEST).read_bytes() == before


def test_two_patches_for_one_file_are_refused(tree: Tree, folder: Path) -> None:
    shutil.copy(folder / "read.patch", folder / "read-again.patch")
    with pytest.raises(ConfigError, match=r"two patches for tools/read\.py"):
        build_manifest(folder, tree.home, "x")


def test_an_empty_folder_is_refused(tree: Tree, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no \*\.patch in it"):
        build_manifest(tmp_path, tree.home, "x")


def test_a_place_that_looks_like_another_is_refused(tree: Tree, folder: Path) -> None:
    (tree.home / "engine/plan.py").write_bytes(b"x = 1\n" * 200)
    git(tree.home, "commit", "--quiet", "-am", "repetitive")
    text = b"--- a/engine/plan.py\n+++ b/engine/plan.py\n@@ -100,0 +101 @@\n+y = 1\n"
    (folder / "plan.patch").write_bytes(text)
    with pytest.raises(ConfigError, match="the place of hunk 1 looks like another"):
        build_manifest(folder, tree.home, "x")


def test_a_checkout_with_edits_makes_no_manifest(
    tree: Tree, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tree.write("engine/plan.py", PLAN + b"\n")
    status = main(["--ipa-home", str(tree.home), "--patches", str(folder)])
    assert status == 2
    assert "not as the commit has it; fix: take a pristine checkout" in capsys.readouterr().err


def test_the_program_says_what_it_wrote(
    tree: Tree, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / MANIFEST).unlink()
    assert main(["--ipa-home", str(tree.home), "--patches", str(folder)]) == 0
    assert capsys.readouterr().out == f"{folder / MANIFEST}: 4 files, 7 hunks\n"
    assert load_patch_set(folder).targets == tree.patches.targets


def test_no_git_repository_makes_no_manifest(tree: Tree, folder: Path) -> None:
    shutil.rmtree(tree.home / ".git")
    with pytest.raises(ConfigError, match="not a git repository"):
        build_manifest(folder, tree.home, "x")


def broken(document: dict[str, Any], *steps: str | int, value: object) -> dict[str, Any]:
    place: Any = document
    for step in steps[:-1]:
        place = place[step]
    place[steps[-1]] = value
    return document


@pytest.mark.parametrize(
    ("steps", "value", "message"),
    [
        (("format",), 2, "format: Input should be 1"),
        (("files",), [], "files: .* at least 1 item"),
        (("files", 0, "path"), "../plan.py", "files.0.path: .*not a plain relative path"),
        (("files", 0, "path"), "/etc/passwd", "files.0.path: .*not a plain relative path"),
        (("files", 0, "patch"), "../x.patch", "files.0.patch"),
        (("files", 0, "patch"), "a/x.patch", "not the name of a file in the same folder"),
        (("files", 0, "patch"), "none.patch", "none.patch: cannot be read: No such file"),
        (("files", 0, "patch"), "read.patch", "not the patch of engine/plan.py"),
        (("files", 0, "hunks"), [], "not the patch of engine/plan.py"),
        (("files", 0, "blob_after"), "abc", "files.0.blob_after"),
        (("files", 1, "path"), "engine/plan.py", "two entries for one file|not the patch"),
        (("more",), 1, "more: Unexpected keyword argument"),
    ],
)
def test_a_malformed_manifest_is_refused(
    folder: Path, steps: tuple[str | int, ...], value: object, message: str
) -> None:
    path = folder / MANIFEST
    path.write_text(json.dumps(broken(json.loads(path.read_text()), *steps, value=value)))
    with pytest.raises(ConfigError, match=message):
        load_patch_set(folder)


@pytest.mark.parametrize("text", ["", "{", "[]"])
def test_a_manifest_that_is_no_json_object_is_refused(folder: Path, text: str) -> None:
    (folder / MANIFEST).write_text(text)
    with pytest.raises(ConfigError, match=r"manifest\.json"):
        load_patch_set(folder)


def test_the_patches_for_ipa_come_with_the_package() -> None:
    patches = load_patch_set(bundled_patches())
    assert patches.commit == "e1f08dde84e2bb721b2c78ad7ef651134abf5380"
    blobs = {target.path: target.blob_before for target in patches.targets}
    assert blobs["optimizer/optimizer.py"] == "3a0a18cdbf35022f3a1c4cd96b8a6632a9380694"


def test_the_patches_of_the_source_tree_are_installed_with_the_package(tmp_path: Path) -> None:
    found = importlib.util.find_spec("setuptools")
    if found is None or int(metadata.version("setuptools").split(".")[0]) < 77:
        pytest.skip("needs setuptools 77 or newer to build a wheel")
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(SOURCE / name, tmp_path / name)
    shutil.copytree(SOURCE / "patches", tmp_path / "patches")
    package = tmp_path / "ipa_energy"
    package.mkdir()
    for name in ("__init__.py", "errors.py"):
        shutil.copy(SOURCE / "ipa_energy" / name, package / name)
    ignored = shutil.ignore_patterns("__pycache__")
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
    code = "from ipa_energy.plugin.manifest import bundled_patches; print(bundled_patches())"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd="/",
        env={**os.environ, "PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == str(installed)
