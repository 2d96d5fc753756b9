"""Random trees, random insertions, random edits: nothing is lost and nothing is half done."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from seeds import seeds

from ipa_energy.errors import ConfigError
from ipa_energy.plugin.blob import git_blob_hash, line_end, split_lines
from ipa_energy.plugin.checkout import Checkout
from ipa_energy.plugin.hunk import Hunk
from ipa_energy.plugin.manifest import PatchSet, Target
from ipa_energy.plugin.patching import apply, revert, state_of
from ipa_energy.plugin.placement import put_in, unique_surroundings
from ipa_energy.plugin.target_state import FOREIGN, IN, state_of_content

# Few different lines, so that surroundings repeat and edits hit our places.
WORDS = [b"", b"a", b"b", b"    c", b"d"]
ENDS = [b"\n", b"\n", b"\n", b"\r\n"]


def random_file(rng: random.Random) -> bytes:
    """Up to 30 short lines, sometimes with CRLF, sometimes without a last newline."""
    lines = [rng.choice(WORDS) + rng.choice(ENDS) for _ in range(rng.randint(0, 30))]
    data = b"".join(lines)
    return data.rstrip(b"\r\n") if rng.random() < 0.3 else data


def random_target(rng: random.Random, path: str, data: bytes) -> Target | None:
    """Up to five hunks at places that have unique surroundings; None if there is no such place."""
    lines = split_lines(data)
    ended = not lines or line_end(lines[-1])
    places = [
        place
        for place in range(len(lines) + bool(ended))
        if unique_surroundings(lines, place) is not None
    ]
    if not places:
        return None
    chosen = sorted(rng.sample(places, min(len(places), rng.randint(1, 5))))
    hunks = tuple(
        Hunk(number, place, tuple(b"ours %d" % rng.randint(0, 3) for _ in range(rng.randint(1, 3))))
        for number, place in enumerate(chosen, start=1)
    )
    around = [unique_surroundings(lines, place) for place in chosen]
    made = put_in(lines, hunks, chosen)
    return Target(
        path,
        git_blob_hash(data),
        git_blob_hash(made),
        hunks,
        tuple(one for one in around if one is not None),
    )


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
    """One to four files on disk, with patches for them."""
    files: dict[str, bytes] = {}
    targets: list[Target] = []
    while not targets or (len(targets) < 4 and rng.random() < 0.7):
        path, data = f"folder-{len(files) % 2}/file-{len(files)}.txt", random_file(rng)
        target = random_target(rng, path, data)
        if target is not None:
            files[path] = data
            targets.append(target)
    for path, data in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(data)
    return Checkout(root, None), PatchSet("x", "0" * 40, tuple(targets)), files


def contents(root: Path) -> dict[str, bytes]:
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in root.rglob("*")
        if path.is_file()
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


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.sampled_from(WORDS), min_size=1, max_size=25), st.integers(0, 2**32), st.data())
def test_a_hunk_goes_only_where_its_surroundings_are(
    made_for: list[bytes], seed: int, draw: st.DataObject
) -> None:
    """Against the definition: every hunk's neighbours, as far as they count, are the same lines."""
    data = b"".join(line + b"\n" for line in made_for)
    target = random_target(random.Random(seed), "file.txt", data)
    if target is None:
        return
    found = list(made_for)
    for _ in range(draw.draw(st.integers(1, 2))):
        found.insert(draw.draw(st.integers(0, len(found))), draw.draw(st.sampled_from(WORDS)))
    other = b"".join(line + b"\n" for line in found)
    state = state_of_content(other, target)
    assert state.state == FOREIGN
    places = [
        starts(found, made_for, hunk.after_line, around.context_lines)
        for hunk, around in zip(target.hunks, target.surroundings, strict=True)
    ]
    only = [place[0] for place in places if len(place) == 1]
    if len(only) < len(places) or only != sorted(set(only)):
        assert state.other is None
        assert state.misfits
        return
    assert state.other == put_in(split_lines(other), target.hunks, only)
    assert state_of_content(state.other, target).patch == IN


def starts(found: list[bytes], made_for: list[bytes], place: int, count: int) -> list[int]:
    """Every place of ``found`` whose neighbours are those of ``place`` in ``made_for``."""
    wanted = made_for[max(0, place - count) : place + count]
    before = min(count, place)
    return [
        start + before
        for start in range(len(found) - len(wanted) + 1)
        if found[start : start + len(wanted)] == wanted
        and (place >= count or start == 0)
        and (place + count <= len(made_for) or start + len(wanted) == len(found))
    ]
