"""A line of a journal that was lost, doubled, moved or changed is noticed; old ones are read."""

from __future__ import annotations

import json
import random
import zlib
from pathlib import Path

import pytest
from journal_lines import without_seals

from ipa_energy.errors import ConfigError
from ipa_energy.jsonl import DamageError, Seals, append_line, dump_line, sealed
from ipa_energy.profiling.trial_journal import Journal
from ipa_energy.runlog import RunLog, read_run
from ipa_energy.runlog.journal import read_lines
from ipa_energy.testing import fake_config, fake_info, fake_intervals, write_fake_run

RECORDS = [{"context": {}}, {"session": {"a": 1}}, {"session": {"a": 2}}, {"session": {}}]
LINES = [sealed(dump_line(record), number).encode() for number, record in enumerate(RECORDS, 1)]


def check(lines: list[bytes]) -> None:
    seals = Seals()
    for line in lines:
        seals.check(line + b"\n")


def test_a_seal_is_number_and_crc_at_the_end_of_the_object() -> None:
    line = sealed('{"session":{}}', 7)
    crc = zlib.crc32(b'{"session":{},"line":7')
    assert line == f'{{"session":{{}},"line":7,"crc32":"{crc:08x}"}}'
    assert json.loads(line) == {"session": {}, "line": 7, "crc32": f"{crc:08x}"}
    check(LINES)


@pytest.mark.parametrize(
    ("order", "says"),
    [
        ([0, 2, 3], "this was line 3"),
        ([1, 2, 3], "this was line 2"),
        ([0, 1, 1, 2, 3], "this was line 2"),
        ([0, 2, 1, 3], "this was line 3"),
        ([0, 1, 2, 3, 3], "this was line 4"),
    ],
)
def test_lines_out_of_place_are_noticed(order: list[int], says: str) -> None:
    with pytest.raises(DamageError, match=says):
        check([LINES[index] for index in order])


def test_every_flipped_bit_is_noticed() -> None:
    for number, line in enumerate(LINES):
        for bit in range(8 * len(line)):
            changed = bytearray(line)
            changed[bit // 8] ^= 1 << bit % 8
            lines = [*LINES[:number], bytes(changed), *LINES[number + 1 :]]
            if number == 0 and bytes(changed).startswith(LINES[0][: LINES[0].index(b',"line"')]):
                continue  # in the seal of the first line itself: its content is whole
            with pytest.raises(DamageError):
                check(lines)


def test_lines_without_seals_come_first_or_not_at_all() -> None:
    old = [dump_line(record).encode() for record in RECORDS]
    check(old)
    check([*old[:2], *LINES[2:]])
    with pytest.raises(DamageError, match="has no checksum, and lines before it have"):
        check([*LINES[:2], *old[2:]])


# ------------------------------------------------------------------ the journal of a run


@pytest.fixture
def unfinished(tmp_path: Path) -> Path:
    """A run stopped after five of its intervals."""
    log = RunLog.create(tmp_path / "run", config_yaml=fake_config(), info=fake_info(seconds=60))
    for interval in list(fake_intervals(seconds=60))[:5]:
        log.append_interval(interval)
    log.close()
    return log.path


def finish(path: Path) -> bytes:
    """Resume a run to its end; its adaptation log."""
    log = RunLog.resume(path)
    for interval in list(fake_intervals(seconds=60))[len(log.finished) :]:
        log.append_interval(interval)
    log.complete({})
    return (path / "adaptation_log.json").read_bytes()


@pytest.mark.parametrize("order", ["0134", "1234", "012234", "02134", "0123344", "01243"])
def test_a_run_with_lines_out_of_place_is_neither_read_nor_resumed(
    unfinished: Path, order: str
) -> None:
    journal = unfinished / "journal.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join(lines[int(index)] for index in order))
    for look in (read_run, RunLog.resume):
        with pytest.raises(ConfigError, match=r"journal\.jsonl:\d: .*lost, doubled or moved"):
            look(unfinished)


def test_flipped_bits_of_a_run_are_noticed(unfinished: Path) -> None:
    journal = unfinished / "journal.jsonl"
    content = journal.read_bytes()
    first = content.index(b'"crc32"')
    generator = random.Random(1)
    for _ in range(150):
        place = generator.randrange(len(content) - 1)  # the last newline may be torn off
        if first - 20 < place < content.index(b"\n"):
            continue
        changed = bytearray(content)
        changed[place] ^= 1 << generator.randrange(8)
        journal.write_bytes(changed)
        with pytest.raises(ConfigError, match=r"journal\.jsonl:\d"):
            list(read_lines(journal))


def test_the_advice_for_a_damaged_line_works(unfinished: Path, tmp_path: Path) -> None:
    journal = unfinished / "journal.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join([*lines[:3], lines[3].replace(b"1", b"2", 1), lines[4]]))
    with pytest.raises(ConfigError, match=r"journal\.jsonl:4: .*sed -i '4,\$d'") as caught:
        RunLog.resume(unfinished)
    assert "it was changed: its checksum is another" in str(caught.value)
    journal.write_bytes(b"".join(lines[:3]))
    whole = write_fake_run(tmp_path / "whole", seconds=60)
    assert finish(unfinished) == (whole / "adaptation_log.json").read_bytes()


def test_a_journal_of_an_older_version_is_resumed(unfinished: Path, tmp_path: Path) -> None:
    journal = unfinished / "journal.jsonl"
    journal.write_text(without_seals(journal.read_text()))
    assert b"crc32" not in journal.read_bytes()
    whole = write_fake_run(tmp_path / "whole", seconds=60)
    assert finish(unfinished) == (whole / "adaptation_log.json").read_bytes()


# ------------------------------------------------------------------ the journal of a profile


def profile_journal(path: Path) -> Journal:
    return Journal(path, {"machine": "a"}, {})


@pytest.mark.parametrize("damage", ["lost", "doubled", "changed", "not UTF-8"])
def test_a_damaged_journal_of_a_profile_is_refused(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "p.trials.jsonl"
    journal = profile_journal(path)
    journal.begin({})
    for number in range(3):
        journal.add_session({"number": number})
    assert [each["number"] for each in profile_journal(path).sessions] == [0, 1, 2]
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(
        {
            "lost": b"".join([*lines[:2], *lines[3:]]),
            "doubled": b"".join([*lines[:3], *lines[2:]]),
            "changed": b"".join(lines).replace(b'"number":1', b'"number":3'),
            "not UTF-8": b"".join(lines).replace(b'"number"', b'"n\xf5mber"'),
        }[damage]
    )
    with pytest.raises(ConfigError, match=r"not a line of a profile's journal: (this|it) was"):
        profile_journal(path)


def test_a_journal_of_an_older_profile_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "p.trials.jsonl"
    append_line(path, dump_line({"context": {"machine": "a"}}))
    append_line(path, dump_line({"session": {"number": 0}}))
    profile_journal(path).add_session({"number": 1})
    profile_journal(path).add_session({"number": 2})
    assert [each["number"] for each in profile_journal(path).sessions] == [0, 1, 2]
    assert [b"crc32" in line for line in path.read_bytes().splitlines()] == [0, 0, 1, 1]
