"""The format of a patch file, and how hunks go into a file and out of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from ipa_energy.errors import ConfigError
from ipa_energy.plugin.blob import git_blob_hash, split_lines
from ipa_energy.plugin.hunk import Hunk, parse_patch
from ipa_energy.plugin.placement import find_places, put_in, take_out, unique_surroundings

WHERE = Path("some.patch")
GOOD = b"--- a/x/y.py\n+++ b/x/y.py\n@@ -3,0 +4,2 @@\n+one\n+two\n@@ -7,0 +10 @@\n+three\n"


def test_the_blob_hash_is_the_one_git_prints() -> None:
    # Of nothing, and of a string: both are printed in the book "Pro Git", section Git Objects.
    assert git_blob_hash(b"") == "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391"
    assert git_blob_hash(b"what is up, doc?") == "bd9dbf5aae1a3862dd1526723246b20206e5fc37"


def test_a_patch_is_read() -> None:
    patch = parse_patch(b"diff --git a/x/y.py b/x/y.py\nindex 12..34 100644\n" + GOOD, WHERE)
    assert patch.path == "x/y.py"
    assert patch.hunks == (Hunk(1, 3, (b"one", b"two")), Hunk(2, 7, (b"three",)))


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        (b"@@ -3,0 +4,2 @@", b"@@ -3,0 +4,2 @@ def f():", 3),
        (b"@@ -3,0 +4,2 @@", b"@@ -3,1 +4,2 @@", 3),
        (b"@@ -3,0 +4,2 @@", b"@@ -3,0 +5,2 @@", 3),
        (b"@@ -3,0 +4,2 @@", b"@@ -3,0 +4,3 @@", 6),
        (b"@@ -3,0 +4,2 @@", b"@@ -3,0 +4,0 @@", 3),
        (b"@@ -7,0 +10 @@", b"@@ -7,0 +9 @@", 6),
        (b"@@ -7,0 +10 @@", b"@@ -3,0 +6 @@", 6),
        (b"+one", b" one", 4),
        (b"+one", b"-one", 4),
        (b"+three\n", b"+three\n\\ No newline at end of file\n", 8),
        (b"+++ b/x/y.py", b"+++ b/x/z.py", 2),
        (b"--- a/x/y.py\n", b"", 1),
    ],
)
def test_anything_but_pure_additions_is_refused_with_its_line(
    old: bytes, new: bytes, line: int
) -> None:
    with pytest.raises(ConfigError, match=rf"some\.patch:{line}: not a patch of pure additions"):
        parse_patch(GOOD.replace(old, new, 1), WHERE)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"--- a/x\n+++ b/x\n", "without a hunk"),
        (GOOD.rstrip(b"\n"), "last line has no end"),
        (GOOD.replace(b"\n", b"\r\n"), "carriage returns"),
    ],
)
def test_other_malformed_patches_are_refused(data: bytes, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_patch(data, WHERE)


@pytest.mark.parametrize("data", [b"", b"a", b"a\n", b"a\r\nb\rc\n\nd", b"\n\n"])
def test_split_lines_joins_to_the_same_bytes(data: bytes) -> None:
    assert b"".join(split_lines(data)) == data
    assert len(split_lines(data)) == data.count(b"\n") + (not data.endswith(b"\n") and data != b"")


HUNKS = (Hunk(1, 1, (b"p",)), Hunk(2, 3, (b"q", b"r")))


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b"a\nb\nc\nd\n", b"a\np\nb\nc\nq\nr\nd\n"),
        (b"a\nb\nc\nd", b"a\np\nb\nc\nq\nr\nd"),
        (b"a\r\nb\nc\nd", b"a\r\np\r\nb\nc\nq\nr\nd"),
    ],
)
def test_lines_go_in_with_the_neighbours_end_and_come_out(before: bytes, after: bytes) -> None:
    made = put_in(split_lines(before), HUNKS, [1, 3])
    assert made == after
    assert take_out(split_lines(made), HUNKS) == (before, [])


@pytest.mark.parametrize(
    ("edited", "hunk", "reason"),
    [
        (b"a\nb\nc\nq\nr\nd\n", 1, "changed, moved or repeated"),
        (b"a\np\nb\nc\nq\nd\n", 2, "changed, moved or repeated"),
        (b"a\nq\nr\nb\nc\np\nd\n", 1, "changed, moved or repeated"),
        (b"a\np\nb\nc\nq\nx\nr\nd\n", 2, "other lines stand between"),
        (b"a\np\nb\nc\nq\nr\nd\nq\n", 2, "line 8 repeats"),
    ],
)
def test_lines_that_were_touched_stay_in(edited: bytes, hunk: int, reason: str) -> None:
    data, misfits = take_out(split_lines(edited), HUNKS)
    assert data == edited
    assert [misfit.hunk.number for misfit in misfits] == [hunk]
    assert reason in misfits[0].reason


FILE = b"".join(b"line %d\n" % number for number in range(1, 21))


def places(data: bytes, after: tuple[int, ...]) -> tuple[list[int], list[tuple[int, str]]]:
    """Where hunks made for ``FILE`` go in ``data``, and which do not."""
    hunks = [Hunk(number, line, (b"new",)) for number, line in enumerate(after, start=1)]
    wanted = [unique_surroundings(split_lines(FILE), line) for line in after]
    found, misfits = find_places(split_lines(data), hunks, [one for one in wanted if one])
    return found, [(misfit.hunk.number, misfit.reason) for misfit in misfits]


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (FILE, [0, 10, 20]),
        (FILE.replace(b"\n", b"\r\n"), [0, 10, 20]),
        (FILE.replace(b"line 6\n", b"line 6\nmine\nmine\n"), [0, 12, 22]),
        (FILE.replace(b"line 15\n", b""), [0, 10, 19]),
    ],
)
def test_a_hunk_finds_its_place_by_its_surroundings(data: bytes, expected: list[int]) -> None:
    assert places(data, (0, 10, 20)) == (expected, [])


@pytest.mark.parametrize(
    ("data", "hunk", "reason"),
    [
        (FILE.replace(b"line 9\n", b"line nine\n"), 2, "lines around line 10 were changed"),
        (FILE.replace(b"line 12\n", b""), 2, "lines around line 10 were changed"),
        (FILE + FILE[FILE.index(b"line 7\n") : FILE.index(b"line 14\n")], 2, "occur 2 times"),
        (b"mine\n" + FILE, 1, "lines around line 0 were changed"),
        (FILE[:-1], 3, "lost its end"),
    ],
)
def test_a_hunk_without_one_certain_place_is_named(data: bytes, hunk: int, reason: str) -> None:
    _, misfits = places(data, (0, 10, 20))
    assert (hunk, True) in [(number, reason in text) for number, text in misfits]


def test_hunks_that_were_swapped_are_refused() -> None:
    lines = split_lines(FILE)
    swapped = b"".join([*lines[10:], *lines[:10]])
    _, misfits = places(swapped, (5, 15))
    assert misfits == [(2, "its surroundings were moved before another hunk's")]


def test_surroundings_grow_until_they_are_unique() -> None:
    lines = split_lines(b"x\n" * 5 + b"a\n" + b"x\n" * 9)
    found = unique_surroundings(lines, 10)
    assert found is not None
    # Four x on each side are around line 11 too; the fifth before line 10 is the a.
    assert found.context_lines == 5
    assert unique_surroundings(split_lines(b"x\n" * 200), 100) is None
