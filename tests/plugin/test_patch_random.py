"""Random trees, random insertions, random edits: nothing is lost and nothing is half done."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from patch_tree import git
from seeds import seeds

from ipa_energy.errors import ConfigError
from ipa_energy.plugin.checkout import Checkout, merged
from ipa_energy.plugin.patch_set import (
    Hunk,
    PatchSet,
    Target,
    git_blob_hash,
    put_in,
    split_lines,
)
from ipa_energy.plugin.patching import IN, apply, revert, state_of

# Few different lines, so that surroundings repeat and edits hit our places.
WORDS = [b"", b"a", b"b", b"    c", b"d"]
ENDS = [b"\n", b"\n", b"\n", b"\r\n"]


def random_file(rng: random.Random) -> bytes:
    """Up to 30 short lines, sometimes with CRLF, sometimes without a last newline."""
    lines = [rng.choice(WORDS) + rng.choice(ENDS) for _ in range(rng.randint(0, 30))]
    data = b"".join(lines)
    return data.rstrip(b"\r\n") if rng.random() < 0.3 else data


def random_target(rng: random.Random, path: str, data: bytes) -> Target:
    """Up to five hunks anywhere but after a last line without an end."""
    lines = split_lines(data)
    ended = not lines or lines[-1].endswith(b"\n")
    places = range(max(1, len(lines) + bool(ended)))
    chosen = sorted(rng.sample(places, min(len(places), rng.randint(1, 5))))
    hunks = tuple(
        Hunk(number, place, tuple(b"ours %d" % rng.randint(0, 3) for _ in range(rng.randint(1, 3))))
        for number, place in enumerate(chosen, start=1)
    )
    return Target(path, git_blob_hash(data), git_blob_hash(put_in(data, hunks)), hunks)


def random_edit(rng: random.Random, data: bytes) -> bytes:
    """One line more, one less, one changed, a block moved, or the line ends turned."""
    lines = split_lines(data)
    kind = rng.randrange(5)
    place = rng.randint(0, len(lines))
    if kind == 0 or not lines:
        lines.insert(place, rng.choice([*WORDS, b"mine"]) + b"\n")
    elif kind == 1:
        del lines[min(place, len(lines) - 1)]
    elif kind == 2:
        lines[min(place, len(lines) - 1)] = b"mine\n"
    elif kind == 3:
        end = rng.randint(place, len(lines))
        lines = [*lines[:place], *lines[end:], *lines[place:end]]
    else:
        return data.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
    return b"".join(lines)


def random_tree(rng: random.Random, root: Path) -> tuple[Checkout, PatchSet, dict[str, bytes]]:
    """One to four files in a git repository, with patches for them."""
    files: dict[str, bytes] = {}
    targets: list[Target] = []
    while not targets or (len(targets) < 4 and rng.random() < 0.7):
        path, data = f"folder-{len(files) % 2}/file-{len(files)}.txt", random_file(rng)
        files[path] = data
        targets.append(random_target(rng, path, data))
    for path, data in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(data)
    git(root, "init", "--quiet")
    git(root, "add", ".")
    return Checkout(root, "0" * 40), PatchSet("x", "0" * 40, tuple(targets)), files


def contents(root: Path) -> dict[str, bytes]:
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in root.rglob("*")
        if path.is_file() and ".git" not in path.parts
    }


@pytest.mark.parametrize("seed", seeds(10))
def test_apply_then_revert_is_nothing(seed: int, tmp_path: Path) -> None:
    checkout, patches, files = random_tree(random.Random(seed), tmp_path)
    assert state_of(checkout, patches).state == "clean"
    apply(checkout, patches)
    assert state_of(checkout, patches).state == "patched"
    for target in patches.targets:
        assert git_blob_hash((tmp_path / target.path).read_bytes()) == target.blob_after
    revert(checkout, patches)
    assert contents(tmp_path) == files


@pytest.mark.parametrize("seed", seeds(20))
def test_edits_never_end_in_a_half_patched_tree(seed: int, tmp_path: Path) -> None:
    rng = random.Random(1000 + seed)
    checkout, patches, files = random_tree(rng, tmp_path)
    edited = dict(files)
    for path in rng.sample(sorted(files), rng.randint(1, len(files))):
        for _ in range(rng.randint(1, 3)):
            edited[path] = random_edit(rng, edited[path])
        (tmp_path / path).write_bytes(edited[path])
    try:
        apply(checkout, patches, keep_edits=rng.random() < 0.8)
    except ConfigError:
        assert contents(tmp_path) == edited
        return
    assert {file.patch for file in state_of(checkout, patches).files} == {IN}
    added = sum(len(hunk.lines) for target in patches.targets for hunk in target.hunks)
    now = contents(tmp_path)
    assert (
        sum(len(split_lines(now[path])) - len(split_lines(edited[path])) for path in now) == added
    )
    revert(checkout, patches)
    assert contents(tmp_path) == edited


@pytest.mark.parametrize("seed", seeds(20))
def test_edits_after_apply_stay_or_revert_is_refused(seed: int, tmp_path: Path) -> None:
    rng = random.Random(5000 + seed)
    checkout, patches, _ = random_tree(rng, tmp_path)
    apply(checkout, patches)
    path = rng.choice(patches.targets).path
    before = random_edit(rng, (tmp_path / path).read_bytes())
    (tmp_path / path).write_bytes(before)
    whole = contents(tmp_path)
    try:
        revert(checkout, patches)
    except ConfigError as error:
        assert path in str(error)
        assert contents(tmp_path) == whole
        return
    after = split_lines((tmp_path / path).read_bytes())
    left = [line for line in split_lines(before) if not line.startswith(b"ours ")]
    assert after == left


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.sampled_from(WORDS), min_size=1, max_size=25), st.integers(0, 2**32), st.data())
def test_a_merged_hunk_stands_between_the_lines_it_was_made_for(
    made_for: list[bytes], seed: int, draw: st.DataObject
) -> None:
    """Whatever the edits: what git merges is the edited file and our lines, each in its place."""
    base = b"".join(line + b"\n" for line in made_for)
    hunks = random_target(random.Random(seed), "file.txt", base).hunks
    found = list(made_for)
    for _ in range(draw.draw(st.integers(1, 2))):
        found.insert(draw.draw(st.integers(0, len(found))), draw.draw(st.sampled_from(WORDS)))
    mine = b"".join(line + b"\n" for line in found)
    made = merged(mine, base, put_in(base, hunks))
    if made is None:
        return
    lines = [line.removesuffix(b"\n") for line in split_lines(made)]
    assert [line for line in lines if not line.startswith(b"ours ")] == found
    ours = [line for line in lines if line.startswith(b"ours ")]
    assert ours == [line for hunk in hunks for line in hunk.lines]
    assert neighbours(lines) == neighbours(
        [line.removesuffix(b"\n") for line in split_lines(put_in(base, hunks))]
    )


def neighbours(lines: list[bytes]) -> list[tuple[bytes | None, bytes | None]]:
    """The lines before and after each block of ours; None at an end of the file."""
    padded = [None, *lines, None]
    mine = [line is None or not line.startswith(b"ours ") for line in padded]
    starts = [at for at in range(1, len(padded)) if mine[at - 1] and not mine[at]]
    ends = [at for at in range(1, len(padded)) if not mine[at - 1] and mine[at]]
    return [(padded[start - 1], padded[end]) for start, end in zip(starts, ends, strict=True)]
