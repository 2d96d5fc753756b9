"""Outputs appear whole or not at all, and leave what stands at their place what it is."""

from __future__ import annotations

import fcntl
import os
import resource
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from ipa_energy.errors import ConfigError, IpaEnergyError
from ipa_energy.files import (
    check_output,
    check_output_folder,
    whole_bytes,
    whole_file,
    whole_folder,
)
from ipa_energy.jsonl import append_line


def write(path: Path, text: str = "new") -> None:
    with whole_file(path) as file:
        file.write(text)


def device(path: Path, major: int, minor: int) -> Path:
    """A device node of this test's own."""
    try:
        os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(major, minor))
        path.write_bytes(b"")
    except OSError:
        pytest.skip("needs the right to make a device node")
    return path


def test_a_new_file_has_the_mode_that_any_new_file_has(tmp_path: Path) -> None:
    write(tmp_path / "one")
    (tmp_path / "other").touch()
    assert (tmp_path / "one").read_text() == "new"
    assert (tmp_path / "one").stat().st_mode == (tmp_path / "other").stat().st_mode
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one", "other"]


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(KeyError), whole_file(path) as file:
        file.write("half")
        raise KeyError
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_device_is_written_to_and_stays_a_device(tmp_path: Path) -> None:
    null = device(tmp_path / "null", 1, 3)
    write(null)
    whole_bytes(null, b"new")
    assert stat.S_ISCHR(null.stat().st_mode)
    assert list(tmp_path.iterdir()) == [null]


def test_a_device_that_is_full_says_so(tmp_path: Path) -> None:
    full = device(tmp_path / "full", 1, 7)
    with pytest.raises(OSError, match="No space left"):
        write(full)
    assert stat.S_ISCHR(full.stat().st_mode)


def test_the_reader_of_a_named_pipe_gets_the_content(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    got: list[str] = []
    reader = threading.Thread(target=lambda: got.append(pipe.read_text()))
    reader.start()
    write(pipe)
    reader.join(10)
    assert got == ["new"]
    assert stat.S_ISFIFO(pipe.stat().st_mode)


WRITES_TO_STDOUT = """
from pathlib import Path
from ipa_energy.files import whole_file
print("before")
with whole_file(Path("/dev/stdout")) as file:
    file.write("written\\n")
print("after")
"""


@pytest.mark.parametrize("into", ["pipe", "file"])
def test_standard_output_by_name_is_standard_output(tmp_path: Path, into: str) -> None:
    path = tmp_path / "out"
    with path.open("w") as file:
        done = subprocess.run(
            [sys.executable, "-c", WRITES_TO_STDOUT],
            stdout=file if into == "file" else subprocess.PIPE,
            text=True,
            check=True,
        )
    found = path.read_text() if into == "file" else done.stdout
    assert found == "before\nwritten\nafter\n"


@pytest.mark.parametrize("exists", [True, False])
def test_a_symbolic_link_is_followed(tmp_path: Path, exists: bool) -> None:
    target, link = tmp_path / "folder" / "target", tmp_path / "link"
    target.parent.mkdir()
    if exists:
        target.write_text("old")
    link.symlink_to("folder/target")
    write(link)
    assert link.is_symlink()
    assert target.read_text() == "new"
    assert not target.is_symlink()
    assert list(target.parent.iterdir()) == [target]


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o755])
def test_the_mode_of_a_file_is_kept(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    path.chmod(mode)
    write(path)
    assert path.read_text() == "new"
    assert stat.S_IMODE(path.stat().st_mode) == mode


def test_the_owner_of_a_file_is_kept(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only a superuser writes to files of others")
    path = tmp_path / "file"
    path.write_text("old")
    os.chown(path, 1234, 4321)
    write(path)
    assert (path.stat().st_uid, path.stat().st_gid) == (1234, 4321)


def test_a_read_only_file_is_left_alone_even_by_a_superuser(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    path.chmod(0o444)
    with pytest.raises(PermissionError):
        write(path)
    with pytest.raises(ConfigError, match=r"--out: .*permission denied"):
        check_output(path, where="--out")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("text", ["new", "a longer text than the old one was"])
def test_all_names_of_a_file_keep_being_one_file(tmp_path: Path, text: str) -> None:
    path, other = tmp_path / "file", tmp_path / "other"
    path.write_text("old and longer")
    other.hardlink_to(path)
    write(path, text)
    assert path.read_text() == other.read_text() == text
    assert path.samefile(other)
    assert sorted(tmp_path.iterdir()) == [path, other]


@pytest.mark.parametrize("name", [".", "..", "folder", "/"])
def test_a_folder_is_no_file(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "folder").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(IsADirectoryError):
        write(Path(name))
    with pytest.raises(ConfigError, match=r"--out: .* is a folder; allowed: a file"):
        check_output(Path(name), where="--out")


WRITES_AGAIN_AND_AGAIN = """
import sys
from pathlib import Path
from ipa_energy.files import whole_file
for _ in range(150):
    with whole_file(Path(sys.argv[1]), sync=False) as file:
        for _ in range(20):
            file.write(sys.argv[2] * 1000)
            file.flush()
"""


def test_processes_with_one_target_do_not_disturb_each_other(tmp_path: Path) -> None:
    path = tmp_path / "file"
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITES_AGAIN_AND_AGAIN, str(path), letter])
        for letter in "abcd"
    ]
    assert [writer.wait(100) for writer in writers] == [0, 0, 0, 0]
    text = path.read_text()
    assert text == text[0] * 20_000
    assert list(tmp_path.iterdir()) == [path]


def test_what_a_kill_left_is_cleared_away_but_not_what_another_is_writing(tmp_path: Path) -> None:
    path, left = tmp_path / "file", tmp_path / ".file.partial"
    left.write_text("half")
    write(path)
    assert list(tmp_path.iterdir()) == [path]
    with left.open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        write(path, "newer")
        assert left.exists()
    assert path.read_text() == "newer"


def test_a_folder_takes_the_place_of_an_empty_one_as_it_was(tmp_path: Path) -> None:
    folder, link = tmp_path / "folder", tmp_path / "link"
    folder.mkdir(mode=0o2750)
    folder.chmod(0o2750)
    link.symlink_to("folder")
    whole_folder(link, {"a": "text", "b": b"bytes"})
    assert link.is_symlink()
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {
        "a": b"text",
        "b": b"bytes",
    }
    assert stat.S_IMODE(folder.stat().st_mode) == 0o2750
    with pytest.raises(OSError, match="not empty"):
        whole_folder(folder, {"c": ""})
    assert sorted(tmp_path.iterdir()) == [folder, link]


# ------------------------------------------------------------------ refused before any work


def test_an_input_of_the_call_is_refused_by_whatever_name(tmp_path: Path) -> None:
    source, link, other = tmp_path / "source", tmp_path / "link", tmp_path / "other"
    source.write_text("read")
    link.symlink_to(source)
    other.hardlink_to(source)
    for name in (source, link, other, tmp_path / "." / "source"):
        with pytest.raises(ConfigError, match=r"--out: .* is read by this very call"):
            check_output(name, where="--out", inputs=[tmp_path / "gone", source])
    check_output(tmp_path / "gone", where="--out", inputs=[tmp_path / "gone", source])


def test_a_file_of_another_kind_is_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    path.write_text("\n <!DOCTYPE html>\n")
    check_output(path, where="--html", begins="<!doctype html>")
    path.write_text("")
    check_output(path, where="--html", begins="<!doctype html>")
    path.write_text("alpha: 1\n")
    with pytest.raises(ConfigError, match=r"--html: .* holds something else"):
        check_output(path, where="--html", begins="<!doctype html>")


def test_pipes_devices_and_folders_that_can_be_made_are_fine(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    check_output(tmp_path / "pipe", where="--out", begins="{")
    check_output(Path("/dev/stdout"), where="--out", begins="{")
    check_output(tmp_path / "no" / "such" / "file", where="--out")
    whole_bytes(tmp_path / "no" / "such" / "file", b"here")
    (tmp_path / "link").symlink_to(tmp_path / "gone")
    (tmp_path / "itself").symlink_to(tmp_path / "itself")
    with pytest.raises(ConfigError, match=r"--out: .*itself: cannot be written: too many levels"):
        check_output(tmp_path / "itself", where="--out")
    for name in ("pipe", "link", "no/such/file", "itself"):
        with pytest.raises(ConfigError, match=f"--out: .*{name} is no folder"):
            check_output(tmp_path / name / "new" / "file", where="--out")
        with pytest.raises(ConfigError, match=f"--png: .*{name} is no folder"):
            check_output_folder(tmp_path / name / "new", where="--png")


def test_a_folder_of_outputs_is_no_file_and_no_input(tmp_path: Path) -> None:
    check_output_folder(tmp_path / "new", where="--png")
    check_output_folder(tmp_path, where="--png", inputs=[tmp_path / "run"])
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"--png: .* is a file"):
        check_output_folder(tmp_path / "file", where="--png")
    with pytest.raises(ConfigError, match=r"--png: .* is read by this very call"):
        check_output_folder(tmp_path, where="--png", inputs=[tmp_path])


@pytest.mark.parametrize("length", [100, 20_000])
def test_what_does_not_fit_is_not_appended_at_all(tmp_path: Path, length: int) -> None:
    """As on a disk that fills up in the middle of a line, and has room for its rest afterwards."""
    path = tmp_path / "journal.jsonl"
    append_line(path, "before")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len("before\n") + length // 2 + 10, limits[1]))
    try:
        with pytest.raises(IpaEnergyError, match="cannot write: File too large"):
            append_line(path, "x" * length)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    append_line(path, "after")
    assert path.read_text() == "before\nafter\n"
