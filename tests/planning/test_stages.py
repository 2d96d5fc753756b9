"""Rows of a profile become the stages of a pipeline."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest

from ipa_energy.config import PipelineConfig
from ipa_energy.errors import ConfigError
from ipa_energy.planning.stages import stages_from_rows
from ipa_energy.profile_table.profile_row import ProfileRow
from ipa_energy.records import Allocation

ROW = ProfileRow(
    "crop", "small", "cpu", 1.0, 0.0, 2, 1, 5.0, 0.1, 0.2, 8.0, 0.28, 1.5, 2.0, 1.9, 0.3, 1,
    "rapl", "measured",
)  # fmt: skip


def row(**changes: Any) -> ProfileRow:
    return dataclasses.replace(ROW, **changes)


def bare(**changes: Any) -> ProfileRow:
    nan = math.nan
    return row(
        dynamic_energy_j=nan,
        idle_power_w=nan,
        joules_per_request=nan,
        energy_ci95_j=nan,
        meter="",
        quality=None,
        **changes,
    )


def config(**changes: Any) -> PipelineConfig:
    keys = {
        "pipeline_name": "video",
        "nodes": [{"node_name": "yolo"}],
        "task_name": ["crop"],
        "alpha": 1,
        "beta": 1,
    }
    return PipelineConfig.model_validate({**keys, **changes})


def test_stages_come_in_the_order_of_the_config() -> None:
    two = config(
        nodes=[{"node_name": "resnet"}, {"node_name": "yolo"}],
        task_name=["cls", "crop"],
        requests_per_input=[1, 2],
    )
    rows = [row(), row(batch=4), row(stage="cls"), row(stage="other")]
    stages = stages_from_rows(rows, two)
    assert [(s.name, s.node_name, s.requests_per_input) for s in stages] == [
        ("cls", "resnet", 1),
        ("crop", "yolo", 2),
    ]
    assert [option.batch for option in stages[1].options] == [2, 4]


def test_option_carries_the_row() -> None:
    (stage,) = stages_from_rows([row()], config())
    (option,) = stage.options
    assert (option.variant, option.allocation, option.batch) == ("small", Allocation.of(1), 2)
    assert (option.latency_s, option.latency_avg_s, option.latency_p99_s) == (0.2, 0.1, 0.2)
    assert (option.throughput_rps, option.accuracy) == (8, 0.28)
    assert (option.dynamic_energy_j, option.idle_power_w) == (1.5, 2)
    assert option.provenance is not None
    assert dataclasses.astuple(option.provenance) == ("rapl", "measured", 1, 0.3)


@pytest.mark.parametrize(
    ("changes", "latency_s", "throughput_rps"),
    [
        ({"reference_latency": "avg"}, 0.1, 8.0),
        ({"latency_margin": 100}, 0.4, 8.0),
        ({"throughput_margin": -50}, 0.2, 4.0),
        ({"only_measured_profiles": False}, 0.2, 10.0),
        (
            {"only_measured_profiles": False, "latency_margin": 100, "throughput_margin": -50},
            0.4,
            5.0,
        ),
    ],
)
def test_reference_and_margins(
    changes: dict[str, Any], latency_s: float, throughput_rps: float
) -> None:
    (stage,) = stages_from_rows([row()], config(**changes))
    assert stage.options[0].latency_s == pytest.approx(latency_s, rel=1e-12)
    assert stage.options[0].throughput_rps == pytest.approx(throughput_rps, rel=1e-12)
    assert stage.options[0].latency_p99_s == 0.2


def test_rows_that_differ_in_replicas_or_load_are_one_option() -> None:
    rows = [
        row(replicas=2, load_rps=1.0, latency_p99_s=0.9, throughput_rps=7.0, trials=2),
        row(load_rps=20.0, latency_p99_s=0.5, dynamic_energy_j=2.5, idle_power_w=4.0, trials=3,
            energy_ci95_j=0.4),
        row(load_rps=10.0, latency_p99_s=0.25, throughput_rps=8.5, trials=1),
    ]  # fmt: skip
    (stage,) = stages_from_rows(rows, config())
    (option,) = stage.options
    # Latency and throughput of one replica at the lowest load it was alone at.
    assert (option.latency_s, option.throughput_rps) == (0.25, 8.5)
    # (3·2.5 + 1.5) / 4 and (3·4 + 2) / 4: the joules of one replica, at whatever load.
    assert option.dynamic_energy_j == pytest.approx(2.25, rel=1e-12)
    assert option.idle_power_w == pytest.approx(3.5, rel=1e-12)
    assert option.provenance is not None
    assert option.provenance.trials == 4
    # √((0.4·3/4)² + (0.3/4)²)
    assert option.provenance.ci95_j == pytest.approx(math.sqrt(0.095625), rel=1e-12)
    assert option.energy_ci95_j == option.provenance.ci95_j
    two = option.at(2)
    assert (two.latency_s, two.throughput_rps, two.dynamic_energy_j) == (0.9, 7.0, 1.5)
    assert two.provenance is not None and two.provenance.trials == 2
    assert option.at(1) == option and two.at(1) == option and option.at(9) == two


def test_margins_and_the_reference_hold_for_every_number_of_replicas() -> None:
    rows = [row(), row(replicas=4, latency_avg_s=0.15, latency_p99_s=0.4, throughput_rps=6.0)]
    changes = {"reference_latency": "avg", "latency_margin": 100, "throughput_margin": -50}
    (stage,) = stages_from_rows(rows, config(**changes))
    four = stage.options[0].at(4)
    assert (four.latency_s, four.throughput_rps) == pytest.approx((0.3, 3.0))


def test_joules_that_a_number_of_replicas_lacks_are_those_of_the_nearest() -> None:
    rows = [
        row(), bare(replicas=2), bare(replicas=3), row(replicas=4, dynamic_energy_j=3.0),
    ]  # fmt: skip
    (stage,) = stages_from_rows(rows, config())
    assert [stage.options[0].at(count).dynamic_energy_j for count in (1, 2, 3, 4)] == [
        1.5, 1.5, 3.0, 3.0,
    ]  # fmt: skip
    assert stage.options[0].has_energy


def test_a_prediction_for_other_numbers_of_replicas_never_dilutes_a_measurement() -> None:
    guess = row(replicas=2, trials=0, meter="fit(rapl)", quality="estimated", throughput_rps=1.0)
    (stage,) = stages_from_rows([row(), guess], config())
    assert stage.options[0].at(2) == stage.options[0]
    (stage,) = stages_from_rows([guess], config())
    assert stage.options[0].throughput_rps == 1.0


def test_merged_provenance_is_that_of_the_weakest() -> None:
    rows = [row(), row(load_rps=6.0, meter="cpu-time", quality="estimated", energy_ci95_j=math.nan)]
    (stage,) = stages_from_rows(rows, config())
    provenance = stage.options[0].provenance
    assert provenance is not None
    assert (provenance.meter, provenance.quality, provenance.trials) == (
        "cpu-time+rapl",
        "estimated",
        2,
    )
    assert math.isnan(provenance.ci95_j)


def test_energy_comes_from_the_rows_that_have_it() -> None:
    (stage,) = stages_from_rows([bare(load_rps=1.0), row()], config())
    assert stage.options[0].dynamic_energy_j == 1.5
    (stage,) = stages_from_rows([bare()], config())
    assert not stage.options[0].has_energy
    assert stage.options[0].provenance is None


def test_a_load_is_that_of_variant_and_allocation_whatever_the_batch() -> None:
    rows = [
        row(batch=1, load_s=2.0, load_energy_j=5.0),
        row(batch=8, load_s=4.0),
        row(batch=8, replicas=2, load_s=2.5, load_energy_j=7.0),
        row(),
        row(cpu_cores=4.0, load_s=9.0, load_energy_j=1.0),
        row(variant="unknown"),
    ]
    found = stages_from_rows(rows, config())[0].options
    assert [(o.batch, o.load_s, o.load_energy_j) for o in found[:4]] == [
        (1, 2.5, 6.0),
        (8, 2.5, 6.0),
        (2, 2.5, 6.0),
        (2, 9.0, 1.0),
    ]
    assert math.isnan(found[4].load_s) and math.isnan(found[4].load_energy_j)


def test_hardware_makes_options_of_its_own() -> None:
    (stage,) = stages_from_rows([row(), row(hardware="cpu-avx512")], config())
    assert [option.hardware for option in stage.options] == ["cpu", "cpu-avx512"]


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"task_name": ["detect"]}, ["no stage detect", "has crop", "task_name"]),
        ({"initial_active_model": ["large"]}, ["no variant large", "allowed: small"]),
        (
            {"initial_active_model": ["small"], "initial_cpu_allocation": [4]},
            ["no small at 4 cores", "1c b2"],
        ),
        (
            {
                "initial_active_model": ["small"],
                "initial_cpu_allocation": [1],
                "initial_batch": [1],
            },
            ["no small at 1 cores, batch 1", "1c b2"],
        ),
    ],
)
def test_what_the_yaml_names_and_the_profile_lacks(
    changes: dict[str, Any], parts: list[str]
) -> None:
    with pytest.raises(ConfigError) as caught:
        stages_from_rows([row()], config(**changes), where="p.csv")
    assert str(caught.value).startswith("p.csv: ")
    for part in parts:
        assert part in str(caught.value)
