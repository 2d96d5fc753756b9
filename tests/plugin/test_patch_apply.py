"""Apply, check, revert and status on a small checkout with every trap that came to mind."""

from __future__ import annotations

import os
import shutil
import stat
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from patch_tree import PLAN, READ, SOURCES, STATE, TARGETS, Tree, git

from ipa_energy.errors import ConfigError
from ipa_energy.plugin import checkout as checkout_module
from ipa_energy.plugin.checkout import locked, open_checkout
from ipa_energy.plugin.patching import apply, check, revert, state_of

PATCHED_STATE = (
    b"class State:\r\n    rate = 1\r\n    width = 2\r\n    extra_joules = 0.0\r\n\r\n"
    b"    def double(self):\r\n        return 2 * self.rate\r\n\r\n"
    b"    def halve(self):\r\n        return self.rate / 2\r\n"
)


def states(tree: Tree) -> dict[str, str]:
    return {file.path: file.state for file in state_of(tree.checkout, tree.patches).files}


def overall(tree: Tree) -> str:
    return state_of(tree.checkout, tree.patches).state


def refused(tree: Tree, message: str, *, keep_edits: bool = False) -> None:
    """Apply and check refuse with this message, and nothing changes."""
    before = tree.contents()
    for action in (check, apply):
        with pytest.raises(ConfigError, match=message):
            action(tree.checkout, tree.patches, keep_edits=keep_edits)
        assert tree.contents() == before


def test_apply_adds_lines_and_changes_nothing_else(tree: Tree) -> None:
    outcome = apply(tree.checkout, tree.patches)
    assert outcome.changed == TARGETS
    assert overall(tree) == "patched"
    numbers = git(tree.home, "diff", "--numstat").splitlines()
    assert sorted(line.split("\t") for line in numbers) == [
        ["1", "0", "tools/read.py"],
        ["1", "0", "tools/start.sh"],
        ["3", "0", "engine/state.py"],
        ["4", "0", "engine/plan.py"],
    ]
    assert (tree.home / "tools/read.py").read_bytes() == b"import extra_joules\n" + READ
    assert (tree.home / "engine/plan.py").read_bytes().endswith(b"    return max(found)")
    state = (tree.home / "engine/state.py").read_bytes()
    assert state.replace(b"    # ours\r\n    joules = property(lambda self: self.extra_joules)\r\n",
                         b"") == PATCHED_STATE  # fmt: skip


def test_revert_restores_every_byte_and_mode(tree: Tree) -> None:
    before = tree.contents()
    apply(tree.checkout, tree.patches)
    modes = {path: mode for path, (_, mode) in tree.contents().items()}
    assert modes == {path: mode for path, (_, mode) in before.items()}
    assert revert(tree.checkout, tree.patches).changed == TARGETS
    assert tree.contents() == before
    assert git(tree.home, "status", "--porcelain") == ""


def test_both_are_idempotent(tree: Tree) -> None:
    assert revert(tree.checkout, tree.patches).changed == ()
    apply(tree.checkout, tree.patches)
    before = tree.contents()
    assert apply(tree.checkout, tree.patches).changed == ()
    assert check(tree.checkout, tree.patches).state == "patched"
    assert tree.contents() == before


def test_it_works_without_git(tree: Tree) -> None:
    shutil.rmtree(tree.home / ".git")
    before = tree.contents()
    apply(tree.checkout, tree.patches)
    assert overall(tree) == "patched"
    revert(tree.checkout, tree.patches)
    assert tree.contents() == before


def test_nothing_of_ours_is_left_in_the_checkout(tree: Tree) -> None:
    apply(tree.checkout, tree.patches)
    assert set(tree.contents()) == set(SOURCES)


def test_other_changes_of_the_user_stay(tree: Tree) -> None:
    tree.write("engine/spare.py", b"spare = False\n")
    (tree.home / "notes.txt").write_text("mine")
    apply(tree.checkout, tree.patches)
    revert(tree.checkout, tree.patches)
    assert (tree.home / "engine/spare.py").read_bytes() == b"spare = False\n"
    assert (tree.home / "notes.txt").read_text() == "mine"


# ------------------------------------------------------------------ targets unlike the expected


def test_a_file_shifted_by_one_line_is_refused(tree: Tree) -> None:
    tree.write(
        "engine/plan.py", PLAN.replace(b"    low =", b"    values = list(values)\n    low =")
    )
    assert states(tree)["engine/plan.py"] == "foreign"
    refused(tree, r"engine/plan\.py has changes of its own; nothing was changed; fix: --keep-edits")
    tree.write("engine/plan.py", b"# mine\n" + PLAN)
    refused(tree, r"engine/plan\.py has changes of its own; nothing was changed; fix: --keep-edits")


def test_a_foreign_edit_is_refused_by_file_and_hunk(tree: Tree) -> None:
    tree.write("engine/plan.py", PLAN.replace(b"abs(total)", b"total"))
    refused(
        tree, r"engine/plan\.py has changes .* hunk 2 of 3 .* lines around line 11 were changed"
    )
    refused(tree, r"hunk 2 of 3", keep_edits=True)
    refused(tree, r"fix: git -C .* checkout .* -- engine/plan\.py; changes in these files would be")


def test_edits_can_be_kept_where_every_place_is_certain(tree: Tree) -> None:
    mine = PLAN.replace(b"    total = 1\n", b"    # mine\n        # mine too\n        total = 1\n")
    tree.write("engine/plan.py", mine)
    refused(tree, r"engine/plan\.py has changes of its own; .*--keep-edits")
    apply(tree.checkout, tree.patches, keep_edits=True)
    made = (tree.home / "engine/plan.py").read_bytes()
    assert b"found.append(cost(rate, width))\n        ours.note(rate)\n" in made
    first = state_of(tree.checkout, tree.patches).files[0]
    assert (first.state, first.patch) == ("foreign", "in")
    assert apply(tree.checkout, tree.patches, keep_edits=True).changed == ()
    revert(tree.checkout, tree.patches)
    assert (tree.home / "engine/plan.py").read_bytes() == mine


def test_edits_elsewhere_in_every_file_stay_byte_for_byte(tree: Tree) -> None:
    """At both ends of the files, between hunks, and with the old ends of lines."""
    tree.write("engine/plan.py", b"# mine\n" + PLAN.replace(b"return high - low", b"return 1"))
    tree.write("engine/state.py", STATE.replace(b"return 2 * self.rate", b"return 3 * self.rate"))
    tree.write("tools/read.py", READ.replace(b"file.read()", b"file.read().strip()\n\n\n# mine"))
    tree.write("tools/start.sh", b"#!/bin/sh\n# mine\necho one\necho two\necho three\n")
    before = tree.contents()
    refused(tree, r"engine/plan\.py has changes of its own \(and 3 more: .*--keep-edits")
    assert apply(tree.checkout, tree.patches, keep_edits=True).changed == TARGETS
    assert {file.patch for file in state_of(tree.checkout, tree.patches).files} == {"in"}
    assert (tree.home / "tools/read.py").read_bytes().startswith(b"import extra_joules\ndef read")
    assert git(tree.home, "diff", "--numstat", "tools/start.sh").split()[:2] == ["2", "0"]
    assert revert(tree.checkout, tree.patches).changed == TARGETS
    assert tree.contents() == before


def test_edits_in_a_copy_without_git_are_refused(tree: Tree) -> None:
    shutil.rmtree(tree.home / ".git")
    tree.write("engine/plan.py", b"# mine\n" + PLAN)
    for keep_edits in (False, True):
        refused(
            tree,
            r"engine/plan\.py has changes of its own, and without a git repository here .*"
            r"fix: take these files from IPA anew \(git clone https://example\.org/engine",
            keep_edits=keep_edits,
        )


def test_git_is_only_needed_for_edits(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    checkout = tree.checkout
    monkeypatch.setenv("PATH", "/nowhere")
    apply(checkout, tree.patches)
    revert(checkout, tree.patches)
    tree.write("engine/plan.py", PLAN + b"\n# mine\n")
    refused(tree, r"git cannot be run \(No such file or directory\)", keep_edits=True)
    assert tree.checkout.commit is None


def test_edits_of_a_later_commit_are_merged_from_the_blob_of_ours(tree: Tree) -> None:
    mine = PLAN.replace(b"return high - low", b"return low - high")
    tree.write("engine/plan.py", mine)
    git(tree.home, "commit", "--quiet", "-am", "later")
    apply(tree.checkout, tree.patches, keep_edits=True)
    assert b"    ours.note(total)\n" in (tree.home / "engine/plan.py").read_bytes()
    revert(tree.checkout, tree.patches)
    assert (tree.home / "engine/plan.py").read_bytes() == mine


def test_edits_after_apply_stay_through_revert(tree: Tree) -> None:
    apply(tree.checkout, tree.patches)
    place = tree.home / "engine/plan.py"
    tree.write("engine/plan.py", place.read_bytes().replace(b"> 9", b"> 7") + b"\n# mine\n")
    found = state_of(tree.checkout, tree.patches)
    assert (found.state, found.files[0].patch) == ("foreign", "in")
    refused(tree, r"engine/plan\.py has changes of its own, with the patch's .* fix: --keep-edits")
    assert apply(tree.checkout, tree.patches, keep_edits=True).changed == ()
    revert(tree.checkout, tree.patches)
    assert place.read_bytes() == PLAN.replace(b"> 9", b"> 7") + b"\n# mine\n"


@pytest.mark.parametrize(
    ("old", "new", "hunk"),
    [
        (b"ours.weigh(total, width)", b"ours.weigh(total, 2)", 2),
        (b"    ours.note(total)\n", b"", 2),
        (b"        ours.note(rate)\n", b"        ours.note(rate)\n        ours.note(rate)\n", 3),
        (b"import extra_joules as ours\n", b"", 1),
    ],
)
def test_revert_refuses_when_our_own_lines_were_changed(
    tree: Tree, old: bytes, new: bytes, hunk: int
) -> None:
    apply(tree.checkout, tree.patches)
    tree.write("engine/plan.py", (tree.home / "engine/plan.py").read_bytes().replace(old, new))
    before = tree.contents()
    assert overall(tree) == "foreign"
    for action in (revert, apply, check):
        with pytest.raises(ConfigError, match=rf"engine/plan\.py .* hunk {hunk} of 3 "):
            action(tree.checkout, tree.patches)
        assert tree.contents() == before


def test_our_line_as_the_only_one_of_a_block_stays(tree: Tree) -> None:
    apply(tree.checkout, tree.patches)
    made = (tree.home / "engine/plan.py").read_bytes()
    loop = b"        found.append(cost(rate, width))\n"
    tree.write("engine/plan.py", made.replace(loop, b""))
    with pytest.raises(ConfigError, match=r"would be no Python without the patch's lines"):
        revert(tree.checkout, tree.patches)


def test_line_ends_turned_to_crlf_are_told_and_can_be_kept(tree: Tree) -> None:
    tree.write("engine/plan.py", PLAN.replace(b"\n", b"\r\n"))
    refused(tree, r"engine/plan\.py has lines that end in CRLF")
    apply(tree.checkout, tree.patches, keep_edits=True)
    assert b"import extra_joules as ours\r\n" in (tree.home / "engine/plan.py").read_bytes()
    revert(tree.checkout, tree.patches)
    assert (tree.home / "engine/plan.py").read_bytes() == PLAN.replace(b"\n", b"\r\n")


def test_a_patched_tree_turned_to_crlf_still_reverts(tree: Tree) -> None:
    apply(tree.checkout, tree.patches)
    made = (tree.home / "engine/plan.py").read_bytes()
    tree.write("engine/plan.py", made.replace(b"\n", b"\r\n"))
    revert(tree.checkout, tree.patches)
    assert (tree.home / "engine/plan.py").read_bytes() == PLAN.replace(b"\n", b"\r\n")


def test_one_file_already_patched_is_a_half_patched_tree(tree: Tree) -> None:
    apply(tree.checkout, tree.patches)
    tree.write("engine/state.py", STATE)
    assert overall(tree) == "partial"
    refused(tree, r"half patched: 3 of 4 files have the patch.*patch revert")
    revert(tree.checkout, tree.patches)
    assert git(tree.home, "status", "--porcelain") == ""


@pytest.mark.parametrize("length", [0, 10, 60, len(PLAN) - 1])
def test_a_half_written_file_is_refused(tree: Tree, length: int) -> None:
    tree.write("engine/plan.py", PLAN[:length])
    refused(tree, r"engine/plan\.py has changes of its own")
    assert revert(tree.checkout, tree.patches).changed == ()
    assert (tree.home / "engine/plan.py").read_bytes() == PLAN[:length]


def test_a_missing_file_is_refused(tree: Tree) -> None:
    (tree.home / "engine/state.py").unlink()
    assert states(tree)["engine/state.py"] == "missing"
    refused(tree, r"engine/state\.py is not there")
    refused(tree, r"engine/state\.py is not there", keep_edits=True)


def test_every_file_that_stands_in_the_way_is_named(tree: Tree) -> None:
    tree.write("engine/state.py", b"")
    (tree.home / "tools/read.py").unlink()
    refused(tree, r"tools/read\.py is not there \(and 1 more: engine/state\.py\)")


@pytest.mark.parametrize("inside", [True, False])
def test_a_target_that_is_a_link_is_refused(tree: Tree, tmp_path: Path, inside: bool) -> None:
    place = tree.home / "engine/plan.py"
    real = tree.home / "real.py" if inside else tmp_path / "elsewhere.py"
    place.rename(real)
    place.symlink_to(real)
    assert states(tree)["engine/plan.py"] == "foreign"
    refused(tree, r"engine/plan\.py is a symbolic link", keep_edits=True)
    assert revert(tree.checkout, tree.patches).changed == ()
    assert real.read_bytes() == PLAN


def test_a_folder_that_leads_out_of_the_checkout_is_refused(tree: Tree, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    (tree.home / "engine").rename(outside)
    (tree.home / "engine").symlink_to(outside)
    refused(tree, r"engine/plan\.py engine is a symbolic link|engine is a symbolic link")
    assert (outside / "plan.py").read_bytes() == PLAN


def test_a_folder_in_a_files_place_is_refused(tree: Tree) -> None:
    (tree.home / "engine/plan.py").unlink()
    (tree.home / "engine/plan.py").mkdir()
    with pytest.raises(ConfigError, match=r"engine/plan\.py is not a file"):
        apply(tree.checkout, tree.patches)


def test_a_checkout_reached_through_a_link_is_fine(tree: Tree, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(tree.home)
    apply(open_checkout(link, tree.patches), tree.patches)
    assert overall(tree) == "patched"


def test_another_commit_is_named(tree: Tree) -> None:
    tree.write("engine/plan.py", PLAN + b"\n")
    git(tree.home, "commit", "--quiet", "-am", "later")
    refused(tree, rf"checkout {tree.patches.short_commit} \(the patches are for that commit, .* at")


def test_another_commit_with_the_same_files_is_fine(tree: Tree) -> None:
    tree.write("engine/spare.py", b"spare = 3\n")
    git(tree.home, "commit", "--quiet", "-am", "later")
    assert apply(tree.checkout, tree.patches).changed == TARGETS


@pytest.mark.parametrize(
    ("folder", "message"),
    [
        ("nowhere", "no such folder; fix: git clone https://example.org/engine"),
        ("engine/plan.py", "is not a folder"),
        ("engine", r"no checkout of IPA: none of the 4 files.*its root is .*checkout"),
        ("..", r"no checkout of IPA.*its root is .*checkout"),
    ],
)
def test_a_folder_that_is_no_checkout_is_refused(tree: Tree, folder: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        open_checkout(tree.home / folder, tree.patches)


def test_a_patch_with_another_hash_after_is_refused(tree: Tree) -> None:
    first, *others = tree.patches.targets
    wrong = replace(tree.patches, targets=(replace(first, blob_after="0" * 40), *others))
    with pytest.raises(ConfigError, match="does not give the content it says"):
        apply(tree.checkout, wrong)
    assert git(tree.home, "status", "--porcelain") == ""


def test_a_file_with_two_names_keeps_the_other_one(tree: Tree, tmp_path: Path) -> None:
    os.link(tree.home / "engine/plan.py", tmp_path / "other-name.py")
    apply(tree.checkout, tree.patches)
    assert (tmp_path / "other-name.py").read_bytes() == PLAN


def test_owner_and_times_of_the_patched_file(tree: Tree) -> None:
    place = tree.home / "engine/plan.py"
    os.utime(place, (1, 1))
    if os.getuid() == 0:
        os.chown(place, 12345, 12345)
    before = place.stat()
    apply(tree.checkout, tree.patches)
    after = place.stat()
    assert (after.st_uid, after.st_gid) == (before.st_uid, before.st_gid)
    assert stat.S_IMODE(after.st_mode) == stat.S_IMODE(before.st_mode)
    assert after.st_mtime > 1  # else Python would go on with what it compiled before


# ------------------------------------------------------------------ others at work


def test_a_second_call_waits_for_the_first(tree: Tree) -> None:
    done: list[str] = []

    def second() -> None:
        apply(tree.checkout, tree.patches)
        done.append("second")

    thread = threading.Thread(target=second)
    with locked(tree.checkout):
        thread.start()
        thread.join(timeout=0.1)
        assert done == []
    thread.join(timeout=30)
    assert done == ["second"]


def test_a_checkout_held_for_long_is_refused(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkout_module, "LOCK_WAIT_S", 0.05)
    with (
        locked(tree.checkout),
        pytest.raises(ConfigError, match="another ipa-energy patch is at work here"),
    ):
        apply(tree.checkout, tree.patches)
