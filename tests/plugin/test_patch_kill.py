"""A patch that is killed, refused by the system or raced leaves a tree that is whole or mended."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from patch_tree import PLAN, SOURCES, TARGETS, Tree

from ipa_energy.errors import ConfigError
from ipa_energy.plugin import checkout as checkout_module
from ipa_energy.plugin.checkout import FOLDER
from ipa_energy.plugin.patching import apply, check, revert, state_of

KILLER = Path(__file__).with_name("patch_killer.py")
Contents = dict[str, tuple[bytes, int]]


def kill_everywhere(action: str, tree: Tree, out: Path) -> list[Tree]:
    """Copies of the tree, the action killed before its first, second, … file operation."""
    out.mkdir()
    command = [sys.executable, str(KILLER), action, str(tree.home), str(tree.folder), str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    copies = sorted(out.iterdir(), key=lambda path: int(path.name))
    return [Tree(path, tree.folder) for path in copies]


def own(tree: Tree) -> Contents:
    """Contents without what a kill may leave of ours."""
    return {path: found for path, found in tree.contents().items() if FOLDER not in path}


@pytest.fixture
def plain(tree: Tree) -> Tree:
    """A checkout that is no git repository."""
    shutil.rmtree(tree.home / ".git")
    return tree


@pytest.fixture
def patched(plain: Tree, tmp_path: Path) -> Tree:
    """The same, patched."""
    made = plain.copy(tmp_path / "patched")
    apply(made.checkout, made.patches)
    return made


@pytest.mark.parametrize("action", ["apply", "revert"])
def test_a_kill_at_any_moment_is_mended_by_the_next_call(
    plain: Tree, patched: Tree, tmp_path: Path, action: str
) -> None:
    clean_files, patched_files = plain.contents(), patched.contents()
    start = plain if action == "apply" else patched
    copies = kill_everywhere(action, start, tmp_path / "killed")
    halves, seen = 0, set()
    for copy in copies:
        found = own(copy)
        for path, content in found.items():
            assert content in (clean_files[path], patched_files[path]), f"{copy.home}: {path} torn"
        now = state_of(copy.checkout, copy.patches)
        seen.add(now.state)
        if now.unfinished:
            assert now.state == "partial"
            with pytest.raises(ConfigError, match="a patch was interrupted here"):
                check(copy.checkout, copy.patches)
        else:
            assert found in (clean_files, patched_files)
        halves += found not in (clean_files, patched_files)
        again = copy.copy(tmp_path / "again")
        apply(again.checkout, again.patches)
        assert again.contents() == patched_files
        shutil.rmtree(again.home)
        revert(copy.checkout, copy.patches)
        assert copy.contents() == clean_files
    # A kill between any two of the four files was among them.
    assert halves >= len(TARGETS) - 1
    assert seen == {"clean", "partial", "patched"}


def test_a_kill_while_a_kill_is_mended_is_mended(plain: Tree, tmp_path: Path) -> None:
    clean_files = plain.contents()
    for copy in kill_everywhere("apply", plain, tmp_path / "killed"):
        found = own(copy)
        if sum(found[path] != clean_files[path] for path in TARGETS) == 2:
            break
    else:
        pytest.fail("no copy with two of the files patched")
    for twice in kill_everywhere("revert", copy, tmp_path / "twice"):
        revert(twice.checkout, twice.patches)
        assert twice.contents() == clean_files


@pytest.mark.parametrize("done", range(1, len(TARGETS)))
def test_a_kill_between_merged_files_loses_no_edit(tree: Tree, done: int) -> None:
    edited = {path: SOURCES[path] + b"# mine\n" for path in TARGETS}
    edited[TARGETS[0]] = b"# mine\n" + PLAN
    edited["engine/state.py"] = SOURCES["engine/state.py"].replace(b"2 * self", b"3 * self")
    for path, data in edited.items():
        tree.write(path, data)
    before = tree.contents()
    apply(tree.checkout, tree.patches, keep_edits=True)
    for path in TARGETS[done:]:
        tree.write(path, edited[path])
    (tree.home / FOLDER).mkdir()
    assert state_of(tree.checkout, tree.patches).unfinished
    assert apply(tree.checkout, tree.patches, keep_edits=True).undone
    assert revert(tree.checkout, tree.patches).changed == TARGETS
    assert tree.contents() == before


def interrupted(tree: Tree, tmp_path: Path) -> Tree:
    """A copy with some files patched and our folder there."""
    clean_files = own(tree)
    for copy in kill_everywhere("apply", tree, tmp_path / "killed"):
        if own(copy) != clean_files:
            return copy
    raise AssertionError


def test_git_does_not_see_what_a_kill_leaves(tree: Tree, tmp_path: Path) -> None:
    copy = interrupted(tree, tmp_path)
    assert (copy.home / FOLDER).is_dir()
    done = subprocess.run(
        ["git", "-C", str(copy.home), "status", "--porcelain"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert FOLDER not in done.stdout


def test_an_edit_made_after_a_kill_is_never_lost(plain: Tree, tmp_path: Path) -> None:
    clean_files = own(plain)
    for copy in kill_everywhere("apply", plain, tmp_path / "killed"):
        if sum(own(copy)[path] != clean_files[path] for path in TARGETS) == 2:
            break
    place = copy.home / TARGETS[0]
    place.write_bytes(b"# mine\n" + place.read_bytes())
    revert(copy.checkout, copy.patches)
    assert place.read_bytes() == b"# mine\n" + PLAN
    assert {**copy.contents(), TARGETS[0]: clean_files[TARGETS[0]]} == clean_files


def test_our_lines_changed_after_a_kill_are_refused(plain: Tree, tmp_path: Path) -> None:
    copy = interrupted(plain, tmp_path)
    place = copy.home / TARGETS[0]
    place.write_bytes(place.read_bytes().replace(b"    ours.note(total)\n", b""))
    before = copy.contents()
    for action in (apply, revert):
        with pytest.raises(ConfigError, match=r"engine/plan\.py has changes .* hunk 2 of 3"):
            action(copy.checkout, copy.patches)
        assert own(copy) == {path: found for path, found in before.items() if FOLDER not in path}


def test_a_link_in_the_folders_place_is_not_followed(plain: Tree, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "1.old").write_bytes(b"mine")
    (plain.home / FOLDER).symlink_to(elsewhere)
    with pytest.raises(ConfigError, match="is not a folder of this program's"):
        apply(plain.checkout, plain.patches)
    assert (elsewhere / "1.old").read_bytes() == b"mine"


# ------------------------------------------------------------------ what the system refuses


@pytest.mark.parametrize("action", [apply, revert])
def test_a_disk_that_is_full_at_any_moment_changes_nothing(
    plain: Tree, patched: Tree, monkeypatch: pytest.MonkeyPatch, action: object
) -> None:
    tree = plain if action is apply else patched
    before = tree.contents()
    write = os.fsync
    room, left, refusals = 0, 0, 0

    def fsync(descriptor: int) -> None:
        nonlocal left
        left -= 1
        if left == -1:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    while True:
        left = room
        try:
            action(tree.checkout, tree.patches)  # type: ignore[operator]
            break
        except ConfigError as error:
            assert "No space left on device; no file was changed" in str(error)
            assert tree.contents() == before
            refusals += 1
        room += 1
    assert refusals > len(TARGETS)


def test_a_file_size_limit_of_the_system_changes_nothing(plain: Tree) -> None:
    before = plain.contents()
    code = (
        "import sys, resource\n"
        "from pathlib import Path\n"
        "from ipa_energy.plugin.checkout import open_checkout\n"
        "from ipa_energy.plugin.patch_set import load_patch_set\n"
        "from ipa_energy.plugin.patching import apply\n"
        "patches = load_patch_set(Path(sys.argv[2]))\n"
        "checkout = open_checkout(Path(sys.argv[1]), patches)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (300, 300))\n"
        "try: apply(checkout, patches)\n"
        "except Exception as error: print(type(error).__name__, error)\n"
    )
    assert len(PLAN) > 300
    done = subprocess.run(
        [sys.executable, "-c", code, plain.home, plain.folder],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "ConfigError" in done.stdout
    assert os.strerror(errno.EFBIG) in done.stdout
    assert plain.contents() == before


@pytest.fixture
def open_place() -> Iterator[Path]:
    """A folder that any user may reach, which pytest's own are not."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o777)
    yield folder
    for path in folder.rglob("*"):
        if path.is_dir():
            path.chmod(0o755)
    shutil.rmtree(folder)


@pytest.mark.parametrize("read_only", ["tools", "."])
def test_a_read_only_folder_changes_nothing(plain: Tree, open_place: Path, read_only: str) -> None:
    """As an ordinary user: root may write anywhere."""
    tree = plain.copy(open_place / "checkout")
    patches = open_place / "patches"
    shutil.copytree(plain.folder, patches)
    before = tree.contents()
    (tree.home / read_only).chmod(0o555)
    code = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from ipa_energy.plugin.checkout import open_checkout\n"
        "from ipa_energy.plugin.patch_set import load_patch_set\n"
        "from ipa_energy.plugin import environment, patching\n"
        "if os.getuid() == 0: os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "patches = load_patch_set(Path(sys.argv[2]))\n"
        "checkout = open_checkout(Path(sys.argv[1]), patches)\n"
        "try: patching.apply(checkout, patches)\n"
        "except Exception as error: print(type(error).__name__, error)\n"
    )
    if os.getuid() == 0:
        for path in [tree.home, *tree.home.rglob("*")]:
            os.chown(path, 65534, 65534)
    done = subprocess.run(
        [sys.executable, "-c", code, tree.home, patches], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("ConfigError"), done
    assert "no file was changed" in done.stdout
    assert tree.contents() == before


def test_an_edit_between_reading_and_writing_is_not_overwritten(
    plain: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = plain.contents()
    last = plain.home / TARGETS[-1]
    stage = checkout_module._stage

    def edit_after_staging(*arguments: object) -> None:
        stage(*arguments)  # type: ignore[arg-type]
        last.write_bytes(b"mine\n")

    monkeypatch.setattr(checkout_module, "_stage", edit_after_staging)
    with pytest.raises(ConfigError, match="changed by another program meanwhile"):
        apply(plain.checkout, plain.patches)
    assert last.read_bytes() == b"mine\n"
    assert {**plain.contents(), TARGETS[-1]: before[TARGETS[-1]]} == before


def test_an_interrupt_from_the_keyboard_is_undone_at_once(
    plain: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = plain.contents()
    verify, calls = checkout_module._require_unchanged, 0

    def interrupt(path: Path, data: bytes) -> None:
        nonlocal calls
        calls += 1
        if calls == 3:
            assert sum(found != before.get(name) for name, found in own(plain).items()) == 2
            raise KeyboardInterrupt
        verify(path, data)

    monkeypatch.setattr(checkout_module, "_require_unchanged", interrupt)
    with pytest.raises(KeyboardInterrupt):
        apply(plain.checkout, plain.patches)
    assert plain.contents() == before


def test_a_file_of_the_users_in_our_folder_stays(plain: Tree) -> None:
    (plain.home / FOLDER).mkdir()
    (plain.home / FOLDER / "mine.txt").write_text("mine")
    with pytest.raises(ConfigError, match="cannot be cleared away: Directory not empty"):
        apply(plain.checkout, plain.patches)
    assert (plain.home / FOLDER / "mine.txt").read_text() == "mine"


@pytest.mark.parametrize("action", ["apply", "revert"])
def test_two_processes_at_once_do_it_once(plain: Tree, patched: Tree, action: str) -> None:
    tree, goal = (plain, patched.contents()) if action == "apply" else (patched, plain.contents())
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from ipa_energy.plugin import patching\n"
        "from ipa_energy.plugin.checkout import open_checkout\n"
        "from ipa_energy.plugin.patch_set import load_patch_set\n"
        "patches = load_patch_set(Path(sys.argv[3]))\n"
        "checkout = open_checkout(Path(sys.argv[2]), patches)\n"
        "print(len(getattr(patching, sys.argv[1])(checkout, patches).changed))\n"
    )
    command = [sys.executable, "-c", code, action, str(tree.home), str(tree.folder)]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    answers = sorted(process.communicate()[0].strip() for process in running)
    assert answers == ["0", "0", str(len(TARGETS))]
    assert tree.contents() == goal
