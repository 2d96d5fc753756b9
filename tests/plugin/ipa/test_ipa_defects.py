"""IPA's known defects that lie on our way: our lines survive them."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path
from typing import Any

import pytest
from ipa_checkout import CONFIG, Ipa, steps_of, whole

from ipa_energy.comparing import metrics
from ipa_energy.runlog import read_run

pytestmark = pytest.mark.ipa

SHORT = [{"start": "1301600", "end": "1301720", "damping_factor": 8}]
RISE_AND_FALL = [
    {"start": "1301520", "end": "1301600", "damping_factor": 8},
    {"start": "1302060", "end": "1302160", "damping_factor": 8},
]
"""From 10 requests a second to 30, and from 17 to 8: idle watts weigh most at either end."""

NODES = ("yolo", "resnet-human")


@pytest.fixture(scope="module")
def with_null_steps(patched: Ipa) -> Path:
    """A run whose cap lets only some steps have a plan."""
    folder = patched.simulate(
        20,
        workload_config=RISE_AND_FALL,
        predictor_type="reactive",
        backup_predictor_type="reactive",
        energy_sla_joules=0.47,
        energy_weight=1,
    )
    configs = [step["config"] for step in steps_of(folder).values()]
    assert configs[0] is None
    assert configs[-1] is None
    assert configs.count(None) < len(configs)
    return folder


def test_steps_without_a_plan_keep_their_place_in_the_log(with_null_steps: Path) -> None:
    running = None
    for step in steps_of(with_null_steps).values():
        if step["config"] is None:
            assert step["status"] == "infeasible"
            assert step["objective"] is None
            assert "energy_objective" not in step
        else:
            running = step["config"]
        # What runs costs, whether or not the step found a plan.
        assert (step["energy_joules"] is None) == (running is None)


def test_our_solver_says_why_there_is_no_plan(patched: Ipa) -> None:
    folder = patched.simulate(
        21, workload_config=SHORT, energy_sla_joules=0.01, optimization_method="ipa-energy"
    )
    for step in steps_of(folder).values():
        assert "no plan can meet energy_sla_joules" in step["conflict"]
    assert math.isnan(metrics(read_run(folder)).energy_j)


def test_the_patched_parser_reads_null_steps(patched: Ipa, with_null_steps: Path) -> None:
    found = patched.run("parse", series=str(with_null_steps))
    steps = list(steps_of(with_null_steps).values())
    changes = found["series_changes"]
    assert changes["objective"] == [step["objective"] for step in steps]
    for node in NODES:
        for key, values in changes["nodes"][node].items():
            assert values == [(step["config"] or {}).get(node, {}).get(key) for step in steps]
    planned = sum(step["config"] is not None for step in steps)
    assert {len(each) for each in found["points_with_change"].values()} == {planned - 1}


def test_the_unpatched_parser_fails_on_them(plain: Ipa, with_null_steps: Path) -> None:
    found = plain.run("parse", series=str(with_null_steps))
    assert "NoneType" in found["series_changes"]["error"]


def test_the_unpatched_parser_swallows_what_follows_an_unknown_key(
    plain: Ipa, patched: Ipa
) -> None:
    folder = patched.simulate(22, workload_config=SHORT, energy_weight=1)
    assert len(steps_of(folder)) == 11
    theirs = plain.run("parse", series=str(folder))["series_changes"]
    ours = patched.run("parse", series=str(folder))["series_changes"]
    assert len(theirs["objective"]) == 1
    assert len(ours["objective"]) == 11


def test_an_old_log_parses_as_before(plain: Ipa, patched: Ipa) -> None:
    folder = str(plain.simulate(23, workload_config=SHORT))
    assert patched.run("parse", series=folder) == plain.run("parse", series=folder)


def test_joules_are_no_change_of_a_nodes_configuration(patched: Ipa) -> None:
    folder = patched.simulate(24, workload_config=SHORT, energy_weight=1)
    steps = list(steps_of(folder).values())
    found = patched.run("parse", series=str(folder))["points_with_change"]
    for node in NODES:
        knobs = [
            {key: step["config"][node][key] for key in ("cpu", "replicas", "batch", "variant")}
            for step in steps
        ]
        changed = [before != after for before, after in itertools.pairwise(knobs)]
        assert found[node] == changed


@pytest.fixture(scope="module")
def on_cluster(patched: Ipa) -> dict[str, Any]:
    """IPA's adapter for a cluster through three decisions, the second of them impossible."""
    loads = [[12] * 10, [12] * 10 + [4000] * 10, [9] * 20]
    config = whole(energy_weight=1, initial_replica=[1, 1])
    answer: dict[str, Any] = patched.run("adapt", config=config, loads=loads)
    return answer


def test_the_cluster_log_has_energy_from_the_first_configuration_on(
    on_cluster: dict[str, Any],
) -> None:
    steps = on_cluster["log"]["timesteps"]
    assert [step["status"] for step in steps.values()] == [
        "initial",
        "optimal",
        "infeasible",
        "optimal",
    ]
    for step in steps.values():
        assert {type(step["config"][node]["joules_per_request"]) for node in NODES} == {float}
        assert step["energy_joules"] == pytest.approx(
            sum(
                step["config"][node][key]
                for node in NODES
                for key in ("idle_joules", "dynamic_joules")
            )
        )
    # Each step has the requests that came in it: 10 s of 12, of 4000 and of 9 a second.
    assert [step["requests"] for step in steps.values()] == [120, 40000, 90, 90]
    json.dumps(on_cluster["log"])


def test_batches_as_texts_are_understood(on_cluster: dict[str, Any]) -> None:
    # The step without a plan logs what the cluster runs, with the batch as a text.
    steps = on_cluster["log"]["timesteps"]
    infeasible, before = steps["2"], steps["1"]
    for node in NODES:
        assert infeasible["config"][node]["batch"] == str(before["config"][node]["batch"])
        assert infeasible["config"][node]["idle_joules"] is not None


def test_what_is_applied_to_the_cluster_is_ipas_alone(on_cluster: dict[str, Any]) -> None:
    assert len(on_cluster["applied"]) == 2
    for config in on_cluster["applied"]:
        for node in NODES:
            assert set(config[node]) == {"cpu", "replicas", "batch", "variant"}


def test_a_cluster_without_energy_keys_logs_as_unpatched(plain: Ipa, patched: Ipa) -> None:
    loads = [[12] * 10, [20] * 20]
    config = {key: value for key, value in CONFIG.items() if not key.startswith("energy")}
    ours = patched.run("adapt", config=config, loads=loads)
    assert ours == plain.run("adapt", config=config, loads=loads)
