"""Joules in IPA's profiles: carried to models, refused where absent, measured by its profiler."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from ipa_checkout import PROFILE, Ipa, IpaFailedError, whole

from ipa_energy.profile_table.ipa_tables import read_notes
from ipa_energy.profile_table.profile_csv import read_profile

pytestmark = pytest.mark.ipa

ENERGY_LISTS = ("joules_per_request", "dynamic_joules_per_request", "idle_power_w")
OLD = [171, 172]


def make_old(home: Path, *, cpu_seconds: bool) -> None:
    """Series as IPA's own profiler leaves them: no joules, CPU seconds or not."""
    profiling = home / "data/results/profiling/nodes/series"
    for new, old in zip((71, 72), OLD, strict=True):
        shutil.rmtree(profiling / str(old), ignore_errors=True)
        shutil.copytree(profiling / str(new), profiling / str(old))
        (profiling / str(old) / "ipa-energy.jsonl").unlink()
        for path in (profiling / str(old)).glob("*.json"):
            result = json.loads(path.read_text())
            for key in ENERGY_LISTS:
                result.pop(key, None)
            if cpu_seconds:
                end_s = result["end_time_experiment"]
                result["time_cpu_usage_count"] = [end_s * at / 4 for at in range(5)]
                result["cpu_usage_count"] = [end_s * at / 8 for at in range(5)]
            path.write_text(json.dumps(result))


def test_models_carry_the_profiles_joules(patched: Ipa) -> None:
    found = patched.run("profile", config=whole(energy_weight=1))
    rows = {
        (row.variant, row.cpu_cores, row.batch): row
        for row in read_profile(PROFILE)
        if row.stage == "crop"
    }
    assert len(found["carried"]) == len(rows) == len(found["rows"]) == 40
    for entry in found["carried"]:
        row = rows[entry["variant"], entry["cpu"], entry["batch"]]
        assert entry["dynamic"] == pytest.approx(row.dynamic_energy_j)
        assert entry["idle"] == pytest.approx(row.idle_power_w)
        assert (entry["quality"], entry["meter"]) == (row.quality, row.meter)
    for line in found["rows"]:
        row = rows[line["model_variant"], line["cpu_request"], line["max_batch_size"]]
        assert line["dynamic_joules_per_request"] == pytest.approx(row.dynamic_energy_j)
        assert line["energy_quality"] == row.quality


def test_an_old_profile_is_loaded_as_before(plain: Ipa, patched: Ipa) -> None:
    for ipa in (plain, patched):
        make_old(ipa.home, cpu_seconds=False)
    config = whole(profiling_series=OLD)
    unpatched = plain.run("profile", config=config)
    found = patched.run("profile", config={**config, "energy_weight": 0})
    assert found["columns"] == unpatched["columns"]
    assert found["rows"] == unpatched["rows"]
    assert found["carried"] == []


def test_an_old_profile_with_weight_0_logs_no_joules(patched: Ipa) -> None:
    make_old(patched.home, cpu_seconds=False)
    case = {"methods": ["gurobi"], "load": 9, "energy_weight": 0}
    [answer] = patched.run("decide", config=whole(profiling_series=OLD), cases=[case])
    assert "energy_objective" not in answer["gurobi"][0]


@pytest.mark.parametrize("keys", [{"energy_weight": 1}, {"energy_sla_joules": 2}])
def test_an_old_profile_is_refused_where_joules_count(patched: Ipa, keys: dict[str, Any]) -> None:
    make_old(patched.home, cpu_seconds=False)
    with pytest.raises(IpaFailedError, match="the profile has no joules for 80 entries") as caught:
        patched.run("profile", config=whole(profiling_series=OLD, **keys))
    assert caught.value.status == 2
    assert "energy_estimate: cpu-time" in caught.value.output


def test_an_estimate_is_made_when_asked_for(patched: Ipa) -> None:
    make_old(patched.home, cpu_seconds=True)
    config = whole(profiling_series=OLD, energy_weight=1, energy_estimate="cpu-time")
    found = patched.run("profile", config=config)
    assert {entry["quality"] for entry in found["carried"]} == {"estimated"}
    assert {entry["meter"] for entry in found["carried"]} == {"cpu-time"}
    assert len(found["carried"]) == 40
    assert all(entry["dynamic"] > 0 and entry["idle"] > 0 for entry in found["carried"])


def test_an_estimate_without_cpu_seconds_is_refused(patched: Ipa) -> None:
    make_old(patched.home, cpu_seconds=False)
    config = whole(profiling_series=OLD, energy_weight=1, energy_estimate="cpu-time")
    with pytest.raises(IpaFailedError, match="nor CPU seconds"):
        patched.run("profile", config=config)


NODE = {
    "pipeline_name": "video",
    "node_name": "yolo",
    "model_variants": ["yolov5n"],
    "max_batch_size": ["1"],
    "max_batch_time": ["1"],
    "cpu_request": ["1"],
    "memory_request": ["1Gi"],
    "replicas": [2],
    "series_meta": "a test",
    "workload_type": "static",
    "workload_config": {"loads_to_test": [20], "load_duration": 100},
    "logs_enabled": False,
    "distrpution_time": 1,
    "mode": "step",
    "benchmark_duration": 1,
    "use_threading": True,
    "num_interop_threads": 1,
    "num_threads": 1,
    "timeout": 1,
}


def test_the_profiler_records_joules(patched: Ipa) -> None:
    config = {**NODE, "series": 501, "energy_meter": "rapl"}
    folder = Path(patched.run("profile_node", config=config))
    result = json.loads((folder / "1.json").read_text())
    # 62 W for 100 s over 42 W waiting, 2000 requests: 1 J each. Of the machine's 40 W empty, two of
    # four cores hold 20 W, and the two loaded models add 2 W: 11 W a replica.
    assert result["dynamic_joules_per_request"] == [pytest.approx(1.0)]
    assert result["idle_power_w"] == [pytest.approx(11.0)]
    assert result["joules_per_request"] == [pytest.approx(1.0 + 2 * 11 / 20)]
    note = read_notes(folder)[1]
    assert (note.meter, note.quality, note.trials) == ("fake", "measured", 1)
    assert note.load_rps == pytest.approx(20)


def test_what_the_profiler_recorded_is_what_the_models_carry(patched: Ipa) -> None:
    config = {**NODE, "series": 502, "energy_meter": "rapl"}
    patched.run("profile_node", config=config)
    asked = whole(
        profiling_series=[502, 72],
        energy_weight=0,
        variants=["yolov5n", "resnet18"],
    )
    [entry] = patched.run("profile", config=asked)["carried"]
    assert entry["dynamic"] == pytest.approx(1.0)
    assert entry["idle"] == pytest.approx(11.0)
    assert (entry["quality"], entry["meter"]) == ("measured", "fake")


def test_a_profiler_without_a_meter_records_what_it_did_before(plain: Ipa, patched: Ipa) -> None:
    files = []
    for ipa in (plain, patched):
        config = {**NODE, "series": 503, "energy_meter": "none"}
        folder = Path(ipa.run("profile_node", config=config, meter=False))
        assert sorted(path.name for path in folder.iterdir()) == ["1.json", "key_config_mapper.csv"]
        files.append(json.loads((folder / "1.json").read_text()))
    assert files[0] == files[1]


def test_a_meter_that_cannot_be_used_is_told_before_anything_runs(patched: Ipa) -> None:
    config = {**NODE, "series": 504, "energy_meter": "cpu-time"}
    with pytest.raises(IpaFailedError, match="cannot see into pods"):
        patched.run("profile_node", config=config, meter=False)
