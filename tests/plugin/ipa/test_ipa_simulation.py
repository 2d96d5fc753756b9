"""IPA's own simulation runner over the bursty window of its trace, with the patches and without."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from ipa_checkout import CONFIG, Ipa, IpaFailedError, steps_of

from ipa_energy.as_json import as_json
from ipa_energy.comparing import compare, metrics
from ipa_energy.plugin.hooks.adaptation_log import NODE_KEYS
from ipa_energy.runlog import read_run

pytestmark = pytest.mark.ipa

CAP_J = 1.2
SHORT = [{"start": "1301160", "end": "1301400", "damping_factor": 8}]


@pytest.fixture(scope="module")
def without_patches(plain: Ipa) -> Path:
    return plain.simulate(1)


@pytest.fixture(scope="module")
def weight_0(patched: Ipa) -> Path:
    return patched.simulate(2, energy_weight=0)


@pytest.fixture(scope="module")
def weight_1(patched: Ipa) -> Path:
    return patched.simulate(3, energy_weight=1)


def untimed(folder: Path) -> dict[str, Any]:
    log: dict[str, Any] = json.loads((folder / "adaptation_log.json").read_text())
    for step in log["timesteps"].values():
        del step["duration"]
    return log


def test_without_energy_keys_the_log_is_the_unpatched_one(
    patched: Ipa, without_patches: Path
) -> None:
    log = untimed(patched.simulate(1))
    assert len(log["timesteps"]) == 119
    assert log == untimed(without_patches)


def test_weight_0_only_adds_to_the_log(weight_0: Path, without_patches: Path) -> None:
    ours, theirs = steps_of(weight_0), steps_of(without_patches)
    assert list(ours) == list(theirs)
    for key, step in theirs.items():
        kept = {name: ours[key][name] for name in step}
        kept["config"] = {
            node: {name: value for name, value in config.items() if name not in NODE_KEYS}
            for node, config in kept["config"].items()
        }
        assert kept | {"duration": 0} == step | {"duration": 0}
        assert ours[key]["energy_objective"] == 0


def test_weight_1_lowers_the_joules(weight_0: Path, weight_1: Path) -> None:
    base, saving = metrics(read_run(weight_0)), metrics(read_run(weight_1))
    assert base.requests == saving.requests == 14388  # those after the first decision
    assert saving.energy_j < 0.95 * base.energy_j
    assert saving.quality == base.quality == "estimated"


def test_every_joule_of_the_log_follows_from_the_profile(weight_1: Path) -> None:
    from ipa_checkout import PROFILE, SERIES

    from ipa_energy.profile_table.profile_csv import read_profile

    rows = {(r.stage, r.variant, r.cpu_cores, r.batch): r for r in read_profile(PROFILE)}
    for key, step in steps_of(weight_1).items():
        total_j = objective = 0.0
        for stage, (node, _) in SERIES.items():
            config = step["config"][node]
            row = rows[stage, config["variant"], config["cpu"], config["batch"]]
            dynamic_j = row.dynamic_energy_j * step["requests"]
            idle_j = config["replicas"] * row.idle_power_w * 10
            assert config["dynamic_joules"] == pytest.approx(dynamic_j)
            assert config["idle_joules"] == pytest.approx(idle_j)
            planned_j = row.dynamic_energy_j + (
                config["replicas"] * row.idle_power_w / step["predicted_load"]
            )
            assert config["joules_per_request"] == pytest.approx(planned_j)
            assert config["power_w"] == pytest.approx(planned_j * step["predicted_load"])
            assert config["energy_quality"] == row.quality
            total_j += dynamic_j + idle_j
            objective += planned_j
        assert step["energy_joules"] == pytest.approx(total_j), key
        assert step["energy_objective"] == pytest.approx(objective)
        assert step["objective"] == pytest.approx(
            step["accuracy_objective"]
            - step["resource_objective"]
            - step["batch_objective"]
            - step["energy_objective"]
        )


def test_every_timestep_respects_the_cap(patched: Ipa, weight_0: Path) -> None:
    steps = steps_of(patched.simulate(4, energy_weight=0, energy_sla_joules=CAP_J))
    assert any(step["joules_per_request"] > CAP_J for step in steps_of(weight_0).values())
    planned = [step for step in steps.values() if step["config"] is not None]
    assert len(planned) > 100
    for step in planned:
        nodes = step["config"].values()
        assert sum(node["joules_per_request"] for node in nodes) <= CAP_J + 1e-9
    for step in steps.values():
        assert (step["config"] is None) == (step["status"] == "infeasible")


def test_our_solver_in_their_runner_decides_alike(patched: Ipa, weight_1: Path) -> None:
    exact = steps_of(patched.simulate(5, energy_weight=1, optimization_method="ipa-energy"))
    for key, step in steps_of(weight_1).items():
        assert exact[key]["objective"] == pytest.approx(step["objective"], rel=1e-9)
        assert exact[key]["strict_latency"] is True
        assert step["strict_latency"] is False


def test_compare_reads_both_kinds(without_patches: Path, weight_0: Path, weight_1: Path) -> None:
    runs = [read_run(path) for path in (without_patches, weight_0, weight_1)]
    found = as_json(compare(runs))
    assert [run["energy_j"] is None for run in found["runs"]] == [True, False, False]
    assert found["runs"][0]["cores_mean"] == pytest.approx(found["runs"][1]["cores_mean"])
    assert found["runs"][2]["joules_per_request"] < found["runs"][1]["joules_per_request"]
    assert found["runs"][1]["joules_per_request"] == pytest.approx(
        found["runs"][1]["energy_j"] / 14388
    )


def test_compare_prints_both_kinds(without_patches: Path, weight_1: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "ipa_energy", "compare", str(without_patches), str(weight_1)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "has no joules" in done.stdout


def test_ipas_parser_reads_the_energy_back(patched: Ipa, weight_1: Path) -> None:
    found = patched.run("parse", series=str(weight_1))["series_changes"]
    steps = list(steps_of(weight_1).values())
    assert found["energy_joules"] == [step["energy_joules"] for step in steps]
    assert found["objective"] == [step["objective"] for step in steps]
    for node, metrics_of_node in found["nodes"].items():
        for key, values in metrics_of_node.items():
            assert values == [step["config"][node][key] for step in steps]


@pytest.mark.parametrize("weight", [None, 2.5])
def test_every_runner_hands_the_keys_to_its_pipeline(patched: Ipa, weight: float | None) -> None:
    further = {
        "central_queue": True,
        "debug_mode": False,
        "from_storage": [False, False],
        "models_num_range": {"start": 2, "end": 3},
        "tasks_num_range": {"start": 2, "end": 3},
        "arrival_rate": 5,
        "complete_profile": False,
        "random_sample": False,
        "generate": ["optimal"],
    }
    config = {**CONFIG, **further} | ({} if weight is None else {"energy_weight": weight})
    for folder in ("final", "pipeline-simulation"):
        path = patched.home / "data" / "configs" / folder / "every.yaml"
        path.write_text(yaml.safe_dump(config))
    found = patched.run("runners", name="every")
    assert len(found) == 4
    assert set(found.values()) == {weight}


def test_a_mistake_in_the_yaml_ends_the_runner_with_one_message(patched: Ipa) -> None:
    with pytest.raises(IpaFailedError) as caught:
        patched.simulate(6, energy_wieght=1)
    assert caught.value.status == 2
    assert "did you mean energy_weight?" in caught.value.output
    assert "Traceback" not in caught.value.output


def test_an_unstrict_plan_over_the_sla_is_told(patched: Ipa) -> None:
    # A negative gamma makes large batches, whose waits IPA's constraint does not see, attractive.
    keys: dict[str, Any] = {"energy_weight": 0, "workload_config": SHORT, "gamma": -0.1}
    unstrict = steps_of(patched.simulate(7, **keys, latency_sla_s=3))
    over = [step for step in unstrict.values() if step["planned_latency_s"] > 3]
    assert len(over) == patched.output[0].count("over the latency SLA of 3 s") > 0
    strict = steps_of(patched.simulate(8, **keys, latency_sla_s=3, strict_latency=True))
    assert len(strict) == len(unstrict)
    for step in strict.values():
        assert step["strict_latency"] is True
        assert step["planned_latency_s"] <= 3 + 1e-9


def untold(step: dict[str, Any]) -> dict[str, Any]:
    """What a step runs."""
    return {
        node: {k: c[k] for k in ("variant", "cpu", "batch")} for node, c in step["config"].items()
    }


@pytest.mark.parametrize("method", ["gurobi", "ipa-energy"])
def test_grams_decide_at_the_intensity_of_the_runs_clock(
    patched: Ipa, tmp_path: Path, method: str
) -> None:
    """A kilowatt-hour of next to nothing for two minutes, then as dear as energy_weight 1."""
    series = tmp_path / "series.csv"
    rates = "".join(f"2024-01-01T00:0{minute}Z,{(1e-6, 900)[minute > 1]}\n" for minute in range(5))
    series.write_text("time,rate\n" + rates)
    said = {"path": str(series), "unit": "g/kWh"}
    common = {"workload_config": SHORT, "optimization_method": method}
    carbon = {"intensity": said, "weight": 3.6e6 / 900}
    by_grams = steps_of(patched.simulate(11, carbon=carbon, **common))
    free = steps_of(patched.simulate(12, energy_weight=0, **common))
    priced = steps_of(patched.simulate(13, energy_weight=1, **common))
    assert any(untold(free[key]) != untold(priced[key]) for key in free)
    for key, step in by_grams.items():
        begin_s = step["time_interval"]
        is_dear = begin_s >= 120
        assert step["signals"]["g_per_kwh"] == (900 if is_dear else 1e-6)
        other = (priced if is_dear else free)[key]
        assert step["objective"] == pytest.approx(other["objective"], abs=1e-6)
        assert step["terms"]["grams_per_request"] == pytest.approx(
            step["joules_per_request"] * (1.0 if is_dear else 1e-6 / 900)
        )
        if is_dear:  # where nothing costs anything several plans are as good
            assert untold(step) == untold(other)
        rate = 900 if is_dear else 1e-6
        assert step["grams"] == pytest.approx(step["energy_joules"] * rate / 3.6e6)


def test_grams_stay_within_their_cap(patched: Ipa) -> None:
    cap_g = CAP_J * 360 / 3.6e6
    carbon = {"intensity": 360, "sla_grams": cap_g}
    folder = patched.simulate(14, carbon=carbon, workload_config=SHORT)
    capped = patched.simulate(15, energy_sla_joules=CAP_J, workload_config=SHORT)
    assert [step["config"] for step in steps_of(folder).values()] == [
        step["config"] for step in steps_of(capped).values()
    ]
    figures = metrics(read_run(folder))
    assert figures.grams == pytest.approx(figures.energy_j * 360 / 3.6e6)
