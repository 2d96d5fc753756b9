"""From a config and a profile to the program: modes, baselines, what runs first."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from option_maker import make_option

from ipa_energy.config import PipelineConfig
from ipa_energy.errors import ConfigError
from ipa_energy.planning.policies import (
    apply_baseline,
    initial_deployment,
    program_for,
    settings_from,
)
from ipa_energy.records import Allocation, Option, Stage
from ipa_energy.registries import POLICIES


def option(variant: str, accuracy: float, cores: float, batch: int, latency_s: float) -> Option:
    return make_option(
        variant,
        batch,
        latency_s=latency_s,
        throughput_rps=batch / latency_s,
        accuracy=accuracy,
        idle_power_w=1.0,
        cpu_cores=cores,
    )


def stage(name: str, node: str, slow: float = 1.0) -> Stage:
    """Three variants on 1 and 2 cores at batches 1 and 2; ``big`` never reaches 4 rps."""
    latencies_s = {"small": (0.1, 0.05), "mid": (0.3, 0.2), "big": (1.0, 0.8)}
    options = [
        option(variant, 0.2 + 0.3 * rank, cores, batch, slow * latency_s * batch)
        for rank, (variant, by_cores) in enumerate(latencies_s.items())
        for cores, latency_s in zip((1.0, 2.0), by_cores, strict=True)
        for batch in (1, 2)
    ]
    return Stage(name, node, tuple(options))


STAGES = (stage("crop", "yolo"), stage("cls", "resnet", slow=0.5))
KEYS: dict[str, Any] = {
    "pipeline_name": "video",
    "nodes": [{"node_name": "yolo"}, {"node_name": "resnet"}],
    "task_name": ["crop", "cls"],
    "initial_active_model": ["small", "mid"],
    "initial_cpu_allocation": [1, 2],
    "initial_replica": [1, 2],
    "initial_batch": [1, 2],
    "alpha": 2,
    "beta": 1,
    "sla_factor": 2,
    "threshold": 4,
}


def config(**changes: Any) -> PipelineConfig:
    return PipelineConfig.model_validate({**KEYS, **changes})


# Batch 1 at 2 cores: 0.05, 0.2, 0.8 s; 5 · 2 · 1.05 / 3 = 3.5 s, and half of it for cls.
CROP_SLA_S, CLS_SLA_S = 3.5, 1.75


def test_latency_sla_by_ipas_rule_or_as_given() -> None:
    planned = program_for(config(), STAGES)
    assert planned.stage_slas_s == pytest.approx({"crop": CROP_SLA_S, "cls": CLS_SLA_S}, rel=1e-12)
    assert planned.latency_sla_s == pytest.approx(5.25, rel=1e-12)
    given = program_for(config(latency_sla_s=0.7), STAGES)
    assert given.latency_sla_s == given.program.settings.latency_sla_s == 0.7
    assert given.stage_slas_s == planned.stage_slas_s


def test_base_mode_fixes_an_allocation_per_variant_and_tells_who_is_out() -> None:
    planned = program_for(config(), STAGES)
    # crop: small sustains 10 rps on 1 core; mid 3.3 rps there, 5 rps on 2; big 1.25 rps at best.
    # cls: twice as fast, so mid reaches 6.7 rps on 1 core; big 2.5 rps at best.
    assert planned.base_allocations == {
        "crop": {"small": (Allocation.of(1),), "mid": (Allocation.of(2),)},
        "cls": {"small": (Allocation.of(1),), "mid": (Allocation.of(1),)},
    }
    assert {name: list(out) for name, out in planned.excluded.items()} == {
        "crop": ["big"],
        "cls": ["big"],
    }
    crop = planned.program.at(1).stages[0]
    kept = {(STAGES[0].options[i].variant, STAGES[0].options[i].cpu_cores)
            for i in crop.option_index}  # fmt: skip
    assert kept == {("small", 1), ("mid", 2)}


def test_variable_mode_leaves_everything_open() -> None:
    planned = program_for(config(allocation_mode="variable"), STAGES)
    assert planned.base_allocations is None
    assert planned.excluded == {}
    assert [len(candidates) for candidates in planned.program.at(1).stages] == [12, 12]


def test_fix_mode_keeps_the_initial_allocation_of_each_stage() -> None:
    planned = program_for(config(allocation_mode="fix"), STAGES)
    cores = [
        {candidates.stage.options[i].cpu_cores for i in candidates.option_index}
        for candidates in planned.program.at(1).stages
    ]
    assert cores == [{1}, {2}]
    assert planned.base_allocations is None


def test_fix_mode_tells_which_variant_was_not_profiled_there() -> None:
    without = Stage(
        "crop",
        "yolo",
        tuple(o for o in STAGES[0].options if (o.variant, o.cpu_cores) != ("mid", 1)),
    )
    planned = program_for(config(allocation_mode="fix"), (without, STAGES[1]))
    assert planned.excluded == {
        "crop": {"mid": "not profiled on the stage's initial allocation of 1 cores"}
    }


def test_scale_fixes_the_variant() -> None:
    rules = program_for(config(baseline_mode="scale"), STAGES).program.rules
    assert [rule.variants for rule in rules] == [frozenset({"small"}), frozenset({"mid"})]
    assert [rule.replicas for rule in rules] == [None, None]


def test_scale_on_a_variant_without_base_allocation_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"crop.*fixes variant big.*1\.25 rps.*small, mid"):
        program_for(config(baseline_mode="scale", initial_active_model=["big", "mid"]), STAGES)


def test_switch_fixes_the_replicas() -> None:
    rules = program_for(config(baseline_mode="switch"), STAGES).program.rules
    assert [rule.replicas for rule in rules] == [1, 2]
    assert [rule.variants for rule in rules] == [None, None]


def test_switch_scale_is_null_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        rules = program_for(config(baseline_mode="switch-scale"), STAGES).program.rules
    assert rules == program_for(config(), STAGES).program.rules
    assert "switch-scale" in caplog.text


def test_settings_carry_every_weight_and_cap() -> None:
    settings = settings_from(
        config(
            gamma=3,
            energy_weight=4,
            energy_metric="watts",
            energy_sla_joules=5,
            accuracy_method="multiply",
            normalize_accuracy=False,
            scaling_cap=6,
            batching_cap=7,
        ),
        latency_sla_s=8.0,
    )
    assert (settings.alpha, settings.beta, settings.gamma, settings.energy_weight) == (2, 1, 3, 4)
    assert (settings.energy_metric, settings.energy_sla_joules) == ("watts", 5)
    assert (settings.accuracy_method, settings.normalize_accuracy) == ("multiply", False)
    assert (settings.scaling_cap, settings.batching_cap, settings.latency_sla_s) == (6, 7, 8)


def test_initial_deployment_is_the_yamls() -> None:
    first = initial_deployment(config(), STAGES)
    assert [(o.variant, o.cpu_cores, o.batch, n) for o, n in first] == [
        ("small", 1, 1, 1),
        ("mid", 2, 2, 2),
    ]


def test_initial_deployment_of_a_silent_yaml_is_the_smallest() -> None:
    silent = {key: value for key, value in KEYS.items() if not key.startswith("initial_")}
    first = initial_deployment(PipelineConfig.model_validate(silent), STAGES)
    assert [(o.variant, o.cpu_cores, o.batch, n) for o, n in first] == [("small", 1, 1, 1)] * 2


def test_initial_deployment_that_was_not_profiled_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"crop.*no small at 3 cores and batch 1.*small 1c b1"):
        initial_deployment(config(initial_cpu_allocation=[3, 2]), STAGES)


@pytest.mark.parametrize(
    ("policy", "mode", "variants", "replicas"),
    [
        ("ipa", None, ["small", "mid"], [1, 2]),
        ("fa2-low", "scale", ["small", "small"], [1, 2]),
        ("fa2-high", "scale", ["mid", "mid"], [1, 2]),
        ("rim-low", "switch", ["small", "mid"], [1, 1]),
        ("rim-high", "switch", ["small", "mid"], [3, 3]),
    ],
)
def test_baselines(policy: str, mode: str | None, variants: list[str], replicas: list[int]) -> None:
    changed = apply_baseline(config(baseline_mode="switch"), policy, STAGES)
    assert changed.baseline_mode == mode
    assert [item.initial_variant for item in changed.stages] == variants
    assert [item.initial_replicas for item in changed.stages] == replicas
    assert PipelineConfig.model_validate(changed.model_dump()) == changed
    program_for(changed, STAGES)
    initial_deployment(changed, STAGES)


def test_fa2_starts_on_its_variants_base_allocation() -> None:
    changed = apply_baseline(config(), "fa2-high", STAGES)
    first = initial_deployment(changed, STAGES)
    assert [(o.variant, o.cpu_cores, o.batch) for o, _ in first] == [("mid", 2, 1), ("mid", 1, 1)]


def test_fa2_high_under_variable_allocation_is_the_most_accurate_of_all() -> None:
    changed = apply_baseline(config(allocation_mode="variable"), "fa2-high", STAGES)
    assert [item.initial_variant for item in changed.stages] == ["big", "big"]


def test_unknown_policy_is_refused() -> None:
    with pytest.raises(ConfigError, match="fa2-low") as caught:
        apply_baseline(config(), "fa3", STAGES)
    assert str(caught.value) == f"--policy: no policy fa3; allowed: {' | '.join(POLICIES)}"
