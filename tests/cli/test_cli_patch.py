"""``ipa-energy patch`` from the command line: states, messages, exit status."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from command_line import call
from patch_tree import PLAN, TARGETS, Tree, git, make_tree


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tree:
    """A small checkout of our own."""
    if shutil.which("git") is None:
        pytest.skip("needs git to make a checkout")
    monkeypatch.delenv("IPA_HOME", raising=False)
    return make_tree(tmp_path)


class Patch:
    """The verb on one tree."""

    def __init__(self, tree: Tree, capsys: pytest.CaptureFixture[str]) -> None:
        self._places = ("--ipa-home", tree.home, "--patches", tree.folder)
        self._capsys = capsys

    def __call__(self, *words: str | Path) -> tuple[int, str, str]:
        return call(self._capsys, "patch", *words, *self._places)

    def json(self, *words: str | Path) -> tuple[int, Any]:
        status, out, _ = self(*words, "--json")
        return status, json.loads(out)


@pytest.fixture
def patch(tree: Tree, capsys: pytest.CaptureFixture[str]) -> Patch:
    return Patch(tree, capsys)


def test_from_clean_to_patched_and_back(tree: Tree, patch: Patch) -> None:
    before = tree.contents()
    assert patch("status")[:2] == (0, patch("status")[1])
    assert "state: clean" in patch("status")[1]
    status, out, err = patch("check")
    assert (status, err) == (0, "")
    assert out.startswith("state: clean (apply would patch it)")
    status, out, err = patch("apply")
    assert (status, err) == (0, "")
    assert out.startswith("patched: 4 files, 9 lines added in 7 places\n")
    status, out, _ = patch("apply")
    assert (status, out.splitlines()[0]) == (0, "already patched: nothing to do")
    assert patch("check")[0] == 0
    assert "state: patched" in patch("status")[1]
    assert patch("revert") == (0, "reverted: 4 files\n", "")
    assert patch("revert") == (0, "not patched: nothing to do\n", "")
    assert tree.contents() == before


def test_json_has_the_documented_shape(patch: Patch) -> None:
    status, found = patch.json("apply")
    assert status == 0
    assert found["state"] == "patched"
    assert [(file["path"], file["state"]) for file in found["files"]] == [
        (path, "patched") for path in TARGETS
    ]
    assert found["changed"] == list(TARGETS)
    assert all(set(lack) == {"name", "reason", "fix"} for lack in found["missing"])
    assert {"profiles", "LSTM weights"} <= {lack["name"] for lack in found["missing"]}
    assert patch.json("revert")[1]["state"] == "clean"


def test_what_ipa_lacks_is_listed_with_the_fix(patch: Patch) -> None:
    out = patch("status")[1]
    assert "to run, IPA lacks" in out
    assert "LSTM weights: " in out
    assert "    fix: train it with" in out
    assert "IPA lacks" not in patch("revert")[1]


def test_the_others_say_in_one_line_that_ipa_lacks_something(tree: Tree, patch: Patch) -> None:
    for action, first in (("check", "state: clean"), ("apply", "patched: 4"), ("apply", "already")):
        out = patch(action)[1]
        assert out.startswith(first)
        assert re.fullmatch(
            rf"to run, IPA lacks \d+ things here: ipa-energy patch status --ipa-home {tree.home}",
            out.splitlines()[-1],
        )
        assert "fix:" not in out


@pytest.mark.parametrize("action", ["apply", "check"])
def test_a_refusal_names_file_and_hunk_and_tells_the_state(
    tree: Tree, patch: Patch, action: str
) -> None:
    tree.write("engine/plan.py", PLAN.replace(b"abs(total)", b"total"))
    before = tree.contents()
    status, out, err = patch(action)
    assert (status, out) == (2, "")
    assert err.startswith(f"ipa-energy: error: {tree.home}: engine/plan.py has changes of its own")
    assert "hunk 2 of 3" in err
    assert "fix: git -C" in err
    status, found = patch.json(action)
    assert (status, found["state"]) == (2, "foreign")
    assert found["error"]["kind"] == "ConfigError"
    assert "hunk 2 of 3" in found["error"]["message"]
    first = found["files"][0]
    assert (first["path"], first["state"], first["patch"]) == ("engine/plan.py", "foreign", "out")
    assert [hunk["hunk"] for hunk in first["hunks"]] == [2]
    assert tree.contents() == before


def test_status_tells_a_foreign_and_a_partial_tree_without_an_error(
    tree: Tree, patch: Patch
) -> None:
    tree.write("engine/plan.py", b"mine\n")
    status, out, err = patch("status")
    assert (status, err) == (0, "")
    assert "state: foreign" in out
    assert "engine/plan.py: has changes of its own" in out
    tree.write("engine/plan.py", PLAN)
    patch("apply")
    git(tree.home, "checkout", "--", "engine/plan.py")
    assert patch.json("status")[1]["state"] == "partial"
    status, _, err = patch("apply")
    assert status == 2
    assert "half patched: 3 of 4 files" in err


def test_kept_edits_are_told_at_revert(tree: Tree, patch: Patch) -> None:
    mine = PLAN.replace(b"    low =", b"    values = list(values)\n    low =")
    tree.write("engine/plan.py", mine)
    assert patch("check")[0] == 2
    assert patch("check", "--keep-edits")[0] == 0
    assert patch("apply", "--keep-edits")[0] == 0
    assert "engine/plan.py: has changes of its own; the patch is in it" in patch("status")[1]
    status, out, _ = patch("revert")
    assert status == 0
    assert out == "reverted: 4 files; your changes in engine/plan.py are kept\n"
    assert (tree.home / "engine/plan.py").read_bytes() == mine


def test_another_commit_is_told_even_where_the_files_fit(tree: Tree, patch: Patch) -> None:
    git(tree.home, "commit", "--quiet", "--allow-empty", "-m", "later")
    head = git(tree.home, "rev-parse", "HEAD").strip()
    assert f"the checkout is at {head[:7]}, the patches are for" in patch("status")[1]
    assert patch.json("status")[1]["commit"] == {"needed": tree.patches.commit, "found": head}


def test_the_checkout_may_come_from_the_environment(
    tree: Tree, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IPA_HOME", str(tree.home))
    status, out, _ = call(capsys, "patch", "status", "--patches", tree.folder)
    assert status == 0
    assert "state: clean" in out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["status"], "no checkout of IPA given; fix: give --ipa-home DIR, or set IPA_HOME"),
        (["apply", "--ipa-home", "/nowhere"], "/nowhere: no such folder; fix: git clone "),
        (["apply", "--ipa-home", "."], "no checkout of IPA: none of the"),
        (["undo", "--ipa-home", "."], "invalid choice: 'undo'"),
        (["revert", "--keep-edits", "--ipa-home", "."], "--keep-edits means nothing with revert"),
        (["status", "--patches", "/nowhere", "--ipa-home", "."], "/nowhere/manifest.json: cannot"),
    ],
)
def test_bad_input_is_told(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    words: list[str],
    message: str,
) -> None:
    monkeypatch.delenv("IPA_HOME", raising=False)
    monkeypatch.chdir(tmp_path)
    status, out, err = call(capsys, "patch", *words)
    assert (status, out) == (2, "")
    assert message in err


def test_a_python_that_cannot_be_run_is_told_before_anything_is_done(
    tree: Tree, patch: Patch
) -> None:
    before = tree.contents()
    status, _, err = patch("apply", "--python", "/nowhere/python")
    assert status == 2
    assert "--python /nowhere/python: cannot be run: No such file" in err
    assert tree.contents() == before
