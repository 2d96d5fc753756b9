"""Measuring anew what changed, and only that; nothing measured is lost."""

import json
import os
from collections import Counter
from pathlib import Path

import pytest
from journal_lines import without_seals
from short_trials import SHORT

from ipa_energy.errors import ConfigError
from ipa_energy.meters.power_model import PowerModel
from ipa_energy.pipeline_models import Variant, load_pipeline
from ipa_energy.profile_table.profile_csv import meta_path, read_profile
from ipa_energy.profiling import profile_sweep as sweep_module
from ipa_energy.profiling.profile_sweep import profile_pipeline
from ipa_energy.profiling.replica_meter import cpu_time_choice

pytestmark = pytest.mark.measures

PIPELINE = str(Path(__file__).with_name("fake_pipeline.py"))
CORE = max(os.sched_getaffinity(0))
MODEL = PowerModel(idle_w=2.0, max_w=10.0, cores=2, source="made up for the test")
LONGER = SHORT.with_window(0.04)


class Changed:
    """The fake pipeline with other variants or versions."""

    def __init__(self, variants, versions=None):
        self.VARIANTS = tuple(variants)
        self._versions = versions or {"fake": "1"}

    def versions(self):
        return self._versions


STEADY = Variant("work", "steady", 0.5, "made up", (2,))


@pytest.fixture
def pipeline(monkeypatch):
    """Replaces what the sweep takes for the pipeline; replicas still run the real one."""

    def put(*variants, versions=None):
        found = Changed(variants or load_pipeline(PIPELINE).VARIANTS, versions)
        monkeypatch.setattr(sweep_module, "load_pipeline", lambda reference: found)

    return put


def sweep(out, **changes):
    arguments = {
        "out": out,
        "meter": cpu_time_choice(MODEL),
        "variants": ["steady", "slower"],
        "batches": (1,),
        "core_ids": [CORE],
        "trials": 1,
        "settings": SHORT,
        "only_changed": True,
    }
    return profile_pipeline(PIPELINE, **(arguments | changes))


def measured(result):
    return sorted(row.variant for row in result.rows)


def trials(out):
    lines = out.with_suffix(".trials.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    return Counter(record["entry"]["variant"] for record in records if "entry" in record)


@pytest.fixture
def begun(tmp_path):
    out = tmp_path / "p.csv"
    assert measured(sweep(out)) == ["slower", "steady"]  # nothing there: everything is new
    return out


def test_nothing_changed_measures_nothing(begun):
    before = begun.read_bytes()
    result = sweep(begun)
    assert (result.rows, len(result.kept)) == ((), 2)
    assert begun.read_bytes() == before


@pytest.mark.parametrize(
    "changes", [{"settings": LONGER}, {"meter": cpu_time_choice(PowerModel(1.0, 9.0, 2, "new"))}]
)
def test_other_settings_or_meter_change_every_entry(begun, changes):
    assert measured(sweep(begun, **changes)) == ["slower", "steady"]
    assert len(read_profile(begun)) == 2
    assert set(trials(begun).values()) == {2}  # the old ones are still in the journal
    meta = json.loads(meta_path(begun).read_text())
    assert all(len(facts["windows"]) == 1 for facts in meta["entries"].values())
    assert set(meta["superseded"]) == set(meta["entries"])
    assert measured(sweep(begun, **changes)) == []


def test_other_versions_change_every_entry(begun, pipeline):
    pipeline(versions={"fake": "2"})
    assert measured(sweep(begun)) == ["slower", "steady"]
    assert json.loads(meta_path(begun).read_text())["versions"] == {"fake": "2"}


def test_other_weights_change_their_variant_only(begun, tmp_path):
    weights = tmp_path / "w"
    weights.write_text("one\n")
    given = {"weights": {"steady": str(weights)}}
    assert measured(sweep(begun, **given)) == ["steady"]
    # The fake runner adds lines to its weights: other content, same name.
    assert measured(sweep(begun, **given)) == ["steady"]
    assert trials(begun) == {"steady": 3, "slower": 1}


def test_other_definition_changes_its_variant_only(begun, pipeline):
    pipeline(STEADY, Variant("work", "slower", 0.6, "made up", (2,)))
    assert measured(sweep(begun)) == ["slower"]
    assert {row.variant: row.accuracy for row in read_profile(begun)} == {
        "steady": 0.5,
        "slower": 0.6,
    }


def test_new_variant_is_measured_and_one_that_is_gone_leaves_the_table(begun, pipeline, caplog):
    pipeline(STEADY, Variant("work", "sleepy", 0.5, "made up", (2,)))
    result = sweep(begun, variants=None, meter=cpu_time_choice(MODEL), batches=(1,))
    assert {failure.entry.variant for failure in result.failures} <= {"sleepy"}
    assert "steady" in {row.variant for row in read_profile(begun)}
    assert "slower" not in {row.variant for row in read_profile(begun)}
    assert "work/slower" in caplog.text
    assert trials(begun)["slower"] == 1


def test_resuming_without_it_refuses_what_changed(begun, tmp_path):
    weights = tmp_path / "w"
    weights.write_text("one\n")
    before = begun.with_suffix(".trials.jsonl").read_bytes()
    for changes in ({"settings": LONGER}, {"weights": {"steady": str(weights)}}):
        with pytest.raises(ConfigError, match=r"was begun with .*--only-changed"):
            sweep(begun, only_changed=False, resume=True, **changes)
    assert begun.with_suffix(".trials.jsonl").read_bytes() == before


def test_rows_that_would_be_lost_are_not(begun):
    before = begun.read_bytes()
    with pytest.raises(ConfigError, match="1 entry not asked for now, such as work/slow"):
        sweep(begun, variants=["steady"], settings=LONGER)
    assert begun.read_bytes() == before
    assert measured(sweep(begun, variants=["steady"])) == []


def test_kill_between_setting_aside_and_the_table_leaves_no_old_row(begun):
    table = begun.read_bytes()
    sweep(begun, settings=LONGER)
    journal = begun.with_suffix(".trials.jsonl")
    lines = journal.read_text().splitlines(keepends=True)
    last = max(number for number, line in enumerate(lines) if '"superseded"' in line)
    journal.write_text("".join(lines[: last + 1]))
    begun.write_bytes(table)  # as it was before the second call
    result = sweep(begun, resume=True, only_changed=False)
    assert measured(result) == ["slower", "steady"]
    assert len(read_profile(begun)) == 2


def test_journal_of_an_older_version_goes_on(begun):
    journal = begun.with_suffix(".trials.jsonl")
    lines = without_seals(journal.read_text()).splitlines(keepends=True)
    new = (',"replicas":1', ',"gpu_share":0.0', ',"settle_s":[]', ',"idle_settled":true')
    new += (',"peak_gpu_memory_bytes":null', ',"parts":{}')
    old = [line for line in lines if not line.startswith('{"inputs"')]
    for field in new:
        assert any(field in line for line in old)
        old = [line.replace(field, "") for line in old]
    journal.write_text("".join(old))
    assert measured(sweep(begun)) == []
    assert measured(sweep(begun, only_changed=False, resume=True)) == []


def test_weights_for_no_variant_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="weights for stedy"):
        sweep(tmp_path / "p.csv", weights={"stedy": __file__})
    with pytest.raises(ConfigError, match="cannot read weights"):
        sweep(tmp_path / "p.csv", weights={"steady": str(tmp_path / "none")})
    assert list(tmp_path.iterdir()) == []
