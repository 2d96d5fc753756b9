"""Trials during which others used the cores are measured again, and stay on record."""

import json
import os
from pathlib import Path

import pytest
from journal_lines import without_seals
from short_trials import SHORT

from ipa_energy.meters.power_model import PowerModel
from ipa_energy.profile_table.profile_csv import meta_path, read_profile
from ipa_energy.profiling.profile_sweep import profile_pipeline
from ipa_energy.profiling.replica_meter import cpu_time_choice

pytestmark = pytest.mark.measures

PIPELINE = str(Path(__file__).with_name("fake_pipeline.py"))


def sweep(out, **changes):
    return profile_pipeline(
        PIPELINE,
        out=out,
        meter=cpu_time_choice(PowerModel(2.0, 10.0, 2, "made up for the test")),
        variants=["steady", "slower"],
        batches=(1,),
        core_ids=[max(os.sched_getaffinity(0))],
        trials=2,
        settings=SHORT,
        **changes,
    )


@pytest.fixture
def disturbed(tmp_path):
    """A finished profile whose journal says that others disturbed so many trials of `steady`."""
    out = tmp_path / "p.csv"
    sweep(out)

    def mark(count):
        journal = out.with_suffix(".trials.jsonl")
        lines = without_seals(journal.read_text()).splitlines()
        of_steady = [n for n, line in enumerate(lines) if '"trial"' in line and "steady" in line]
        for number in of_steady[:count]:
            assert '"contended":false' in lines[number]
            lines[number] = lines[number].replace('"contended":false', '"contended":true')
        journal.write_text("\n".join([*lines, ""]))
        return out

    return mark


@pytest.mark.parametrize("count", [1, 2])
def test_contended_trials_alone_are_measured_again(disturbed, count):
    out = disturbed(count)
    before = {row.variant: row for row in read_profile(out)}
    found = sweep(out, redo_contended=True)
    assert [row.variant for row in found.rows] == ["steady"]
    after = {row.variant: row for row in read_profile(out)}
    assert after["slower"] == before["slower"]
    assert after["steady"] != before["steady"]
    assert after["steady"].trials == 2
    meta = json.loads(meta_path(out).read_text())
    assert meta["redone"] == {"work/steady cpu 1c b1": count}
    assert not any(facts["contended"] for facts in meta["entries"].values())
    assert {len(facts["windows"]) for facts in meta["entries"].values()} == {2}


def test_earlier_trials_stay_on_record_and_are_not_redone_twice(disturbed):
    out = disturbed(1)
    journal = out.with_suffix(".trials.jsonl")
    before = journal.read_text()
    sweep(out, redo_contended=True)
    assert journal.read_text().startswith(before)
    assert sweep(out, redo_contended=True).rows == ()
    assert sweep(out, resume=True).rows == ()


def test_killed_before_it_measured_it_goes_on_when_resumed(disturbed):
    out = disturbed(2)
    sweep(out, redo_contended=True, time_limit_s=1e-9)
    assert [row.variant for row in sweep(out, resume=True).rows] == ["steady"]
