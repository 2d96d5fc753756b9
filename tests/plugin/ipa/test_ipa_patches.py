"""The patches themselves: pure additions, nothing of IPA's in them, and every byte comes back."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from ipa_checkout import Ipa, copy_checkout, git, patch_checkout

from ipa_energy.errors import ConfigError
from ipa_energy.plugin import patching
from ipa_energy.plugin.checkout import open_checkout
from ipa_energy.plugin.patch_set import bundled_patches, load_patch_set

pytestmark = pytest.mark.ipa

WORDS = re.compile(r"\w+")
TARGET = "optimizer/optimizer.py"


@pytest.fixture
def copy(ipa_home: Path, tmp_path: Path) -> Path:
    return copy_checkout(ipa_home, tmp_path / "ipa")


def added_lines() -> list[str]:
    lines = [
        line
        for path in sorted(bundled_patches().glob("*.patch"))
        for line in path.read_text().splitlines()
        if not line.startswith(("diff", "index", "---", "+++", "@@"))
    ]
    assert all(line.startswith("+") for line in lines)
    return [line[1:] for line in lines]


def sequences(text: str, length: int = 5) -> set[tuple[str, ...]]:
    words = WORDS.findall(text)
    return {tuple(words[at : at + length]) for at in range(len(words) - length + 1)}


def test_no_five_words_of_a_patch_are_in_ipas_sources(ipa_home: Path) -> None:
    theirs: set[tuple[str, ...]] = set()
    for kind in ("*.py", "*.ipynb", "*.yaml", "*.md", "*.sh"):
        for path in ipa_home.rglob(kind):
            theirs |= sequences(path.read_text(errors="replace"))
    assert len(theirs) > 30_000
    ours = set().union(*(sequences(line) for line in added_lines()))
    assert len(ours) > 5
    assert ours & theirs == set()


def test_hunk_headers_carry_no_text(patched: Ipa) -> None:
    for path in bundled_patches().glob("*.patch"):
        for line in path.read_text().splitlines():
            assert not line.startswith("@@") or line.endswith(" @@")


def test_a_patched_checkout_differs_by_added_lines_alone(patched: Ipa) -> None:
    diff = git(patched.home, "diff", "-U0", "--", "*.py").splitlines()
    assert [line for line in diff if line.startswith("-") and not line.startswith("---")] == []
    added = [line[1:] for line in diff if line.startswith("+") and not line.startswith("+++")]
    assert sorted(added) == sorted(added_lines())


def test_apply_check_revert_leaves_nothing(copy: Path) -> None:
    patches = load_patch_set(bundled_patches())
    checkout = open_checkout(copy, patches)
    patching.check(checkout, patches)
    assert git(copy, "status", "--porcelain") == ""
    patching.apply(checkout, patches)
    changed = git(copy, "status", "--porcelain").splitlines()
    assert len(changed) == len(patches.targets)
    patching.apply(checkout, patches)
    assert git(copy, "status", "--porcelain").splitlines() == changed
    patching.revert(checkout, patches)
    assert git(copy, "status", "--porcelain") == ""


def test_patches_give_the_hashes_that_they_say(copy: Path) -> None:
    patch_checkout(copy)
    patches = load_patch_set(bundled_patches())
    for target in patches.targets:
        assert git(copy, "hash-object", target.path).strip() == target.blob_after


@pytest.mark.parametrize("damage", ["shifted", "foreign", "half"])
def test_a_checkout_that_is_not_as_it_should_be_is_refused_untouched(
    copy: Path, damage: str
) -> None:
    patches = load_patch_set(bundled_patches())
    target = copy / TARGET
    text = target.read_bytes()
    if damage == "shifted":
        target.write_bytes(b"\n" + text)
    elif damage == "foreign":
        lines = text.splitlines(keepends=True)
        lines[lines.index(b"\n")] = b"# a line of the user's own\n"
        target.write_bytes(b"".join(lines))
    else:
        patch_checkout(copy)
        lines = target.read_bytes().splitlines(keepends=True)
        target.write_bytes(b"".join(line for line in lines if b"hooks.gurobi" not in line))
    before = git(copy, "diff")
    with pytest.raises(ConfigError, match=re.escape(TARGET)):
        patching.apply(open_checkout(copy, patches), patches)
    assert git(copy, "diff") == before
