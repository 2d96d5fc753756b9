"""The patches on the files of a real checkout of IPA (a copy of them: yours is only read)."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from patch_tree import Tree, git

from ipa_energy.errors import ConfigError
from ipa_energy.plugin.patch_set import bundled_patches, git_blob_hash, split_lines
from ipa_energy.plugin.patching import apply, check, revert, state_of

pytestmark = pytest.mark.ipa


@pytest.fixture(scope="module")
def pristine_ipa(tmp_path_factory: pytest.TempPathFactory) -> Tree:
    """The optimizer and the experiments of IPA as a git repository of their own."""
    home = os.environ.get("IPA_HOME")
    if not home:
        pytest.skip("needs a checkout of IPA in IPA_HOME")
    tree = Tree(tmp_path_factory.mktemp("ipa") / "ipa", bundled_patches())
    ignored = shutil.ignore_patterns("*.ipynb", "__pycache__")
    for name in ("optimizer", "experiments"):
        shutil.copytree(Path(home) / name, tree.home / name, ignore=ignored)
    for target in tree.patches.targets:
        blob = git_blob_hash((tree.home / target.path).read_bytes())
        if blob != target.blob_before:
            pytest.skip(f"the checkout in IPA_HOME has changes of its own in {target.path}")
    git(tree.home, "init", "--quiet")
    git(tree.home, "add", ".")
    git(tree.home, "commit", "--quiet", "-m", "as it was")
    return tree


@pytest.fixture
def ipa(pristine_ipa: Tree, tmp_path: Path) -> Tree:
    """A checkout to patch."""
    return pristine_ipa.copy(tmp_path / "ipa")


def refused(tree: Tree, path: str, *, keep_edits: bool = False) -> None:
    before = tree.contents()
    for action in (check, apply):
        with pytest.raises(ConfigError, match=path):
            action(tree.checkout, tree.patches, keep_edits=keep_edits)
    assert tree.contents() == before


def test_every_target_shifted_by_one_line_is_refused_or_placed_right(ipa: Tree) -> None:
    for target in ipa.patches.targets:
        data = (ipa.home / target.path).read_bytes()
        ipa.write(target.path, b"\n" + data)
        refused(ipa, target.path)
        files = state_of(ipa.checkout, ipa.patches).files
        if next(file for file in files if file.path == target.path).other is None:
            refused(ipa, target.path, keep_edits=True)
        else:
            apply(ipa.checkout, ipa.patches, keep_edits=True)
            made = (ipa.home / target.path).read_bytes()
            assert git_blob_hash(made.removeprefix(b"\n")) == target.blob_after
            revert(ipa.checkout, ipa.patches)
            assert (ipa.home / target.path).read_bytes() == b"\n" + data
        ipa.write(target.path, data)


def test_a_foreign_edit_beside_any_hunk_is_refused_by_its_number(ipa: Tree) -> None:
    for target in ipa.patches.targets:
        data = (ipa.home / target.path).read_bytes()
        for hunk in target.hunks:
            lines = split_lines(data)
            lines[hunk.after_line - 1] = b"mine = True\n"
            ipa.write(target.path, b"".join(lines))
            refused(ipa, rf"{target.path} .* hunk \d+ of {len(target.hunks)} cannot be put into it")
            refused(ipa, rf"{target.path} .* hunk \d+ of", keep_edits=True)
        ipa.write(target.path, data)


def test_a_half_written_or_half_patched_tree_is_refused(ipa: Tree) -> None:
    apply(ipa.checkout, ipa.patches)
    for target in ipa.patches.targets:
        made = (ipa.home / target.path).read_bytes()
        git(ipa.home, "checkout", "--", target.path)
        assert state_of(ipa.checkout, ipa.patches).state == "partial"
        refused(ipa, "half patched")
        ipa.write(target.path, made[: len(made) // 2])
        refused(ipa, target.path)
        ipa.write(target.path, made)
    assert state_of(ipa.checkout, ipa.patches).state == "patched"
