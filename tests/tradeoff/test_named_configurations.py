"""The user's own configurations: YAML, CSV, a run's log, and every way to get them wrong."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from small_programs import program_of, small_option

from ipa_energy.energy import replicas_needed
from ipa_energy.errors import ConfigError
from ipa_energy.optimizer.quantities import Moment
from ipa_energy.records import Stage
from ipa_energy.tradeoff.named_configurations import (
    NamedConfiguration,
    configurations_of_run,
    read_configurations,
    with_replicas,
)

STAGES = (
    Stage(
        "find",
        "finder",
        (
            small_option("s", 1, throughput_rps=5.0),
            small_option("s", 4, throughput_rps=8.0),
            small_option("l", 1, cpu_cores=1, throughput_rps=2.0),
            small_option("l", 1, cpu_cores=2, throughput_rps=3.0),
        ),
    ),
    Stage("name", "namer", (small_option("n", 1, throughput_rps=10.0, latency_s=0.9),), 2.0),
)

YAML = """\
configurations:
  - name: light
    stages:
      - {stage: name, variant: n, batch: 1, replicas: 3}
      - {stage: find, variant: s, cpu_cores: 1, batch: 4}
  - name: heavy
    stages:
      - {stage: find, variant: l, cpu_cores: 2, batch: 1}
      - {stage: name, variant: n, batch: 1}
"""

CSV = """\
name,stage,variant,cpu_cores,batch,replicas
light,name,n,,1,3
light,find,s,1,4,
heavy,find,l,2,1,
heavy,name,n,,1,
"""


def listed(tmp_path: Path, text: str, suffix: str = "yaml") -> tuple[NamedConfiguration, ...]:
    path = tmp_path / f"list.{suffix}"
    path.write_text(text)
    return read_configurations(path, STAGES)


@pytest.mark.parametrize(("text", "suffix"), [(YAML, "yaml"), (CSV, "csv"), (CSV, "CSV")])
def test_a_list_is_read_in_the_order_of_the_pipeline(
    tmp_path: Path, text: str, suffix: str
) -> None:
    light, heavy = listed(tmp_path, text, suffix)
    assert (light.name, heavy.name) == ("light", "heavy")
    assert [option.label for option in light.options] == ["s 1c b4", "n 1c b1"]
    assert light.replicas == (None, 3)
    assert [option.label for option in heavy.options] == ["l 2c b1", "n 1c b1"]


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("variant: s,", "variant: q,", ["yaml:5", "no q on 1 cores at batch 4", "s 1c b1"]),
        ("batch: 4", "batch: 2", ["yaml:5", "no s on 1 cores at batch 2", "s 1c b1, s 1c b4"]),
        ("batch: 4", "batch: 0", ["yaml:5", "batch is 0", "an integer ≥ 1"]),
        ("batch: 4", "batch: four", ["yaml:5", "batch is the text 'four'"]),
        ("batch: 4", "bach: 4", ["yaml:5", "unknown key bach", "batch is missing"]),
        ("cpu_cores: 2, ", "", ["yaml:8", "several allocations", "give cpu_cores"]),
        ("name: heavy", "name: light", ["two configurations named light"]),
        ("stage: find, variant: l", "stage: name, variant: n", ["the stages name, name"]),
        ("configurations:", "configuration:", ["unknown key configuration"]),
    ],
)
def test_a_mistake_in_a_yaml_is_told_with_its_line(
    tmp_path: Path, old: str, new: str, expected: list[str]
) -> None:
    with pytest.raises(ConfigError) as caught:
        listed(tmp_path, YAML.replace(old, new))
    for text in expected:
        assert text in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("light,find,s,1,4,", "light,find,s,1,3,", ["csv:3", "no s on 1 cores at batch 3"]),
        ("light,find,s,1,4,", "light,find,s,1,x,", ["csv:3", "batch is the text 'x'"]),
        ("light,find,s,1,4,", "light,find,s,1,,", ["csv:3", "batch is missing"]),
        ("light,find,s,1,4,", "light,find,s,1,4", ["csv:3", "cells"]),
        ("light,find,s,1,4,", "light,find,s,1,4,,,", ["csv:3", "cells"]),
        ("heavy,name,n,,1,\n", "", ["csv:4", "configuration heavy has the stages find"]),
        ("name,stage", "name,stages", ["csv:1", "the header is"]),
        ("cpu_cores,batch", "batch,batch", ["csv:1", "each once"]),
    ],
)
def test_a_mistake_in_a_csv_is_told_with_its_line(
    tmp_path: Path, old: str, new: str, expected: list[str]
) -> None:
    with pytest.raises(ConfigError) as caught:
        listed(tmp_path, CSV.replace(old, new, 1), "csv")
    for text in expected:
        assert text in str(caught.value)


@pytest.mark.parametrize("text", ["", "name,stage,variant,batch\n"])
def test_an_empty_list_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError):
        listed(tmp_path, text, "csv")


def test_every_mistake_is_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="2 problems"):
        listed(tmp_path, YAML.replace("batch: 4", "batch: 3").replace("variant: l", "variant: z"))


def needed(stage: int, load_rps: float) -> float:
    option = STAGES[stage].options[0]
    share = STAGES[stage].requests_per_input * load_rps
    return float(replicas_needed(share, np.array(option.throughput_rps)))


def test_replicas_are_those_that_the_load_needs() -> None:
    # 6 rps of 5 rps a replica, and twice the requests of 10 rps a replica
    assert needed(0, 6.0) == 2
    assert needed(1, 5.0) == 1
    assert needed(1, 5.1) == 2
    assert needed(1, 0.1) == 1


def wanted(
    name: str, replicas: tuple[int | None, ...] = (None, None), first: int = 0
) -> NamedConfiguration:
    return NamedConfiguration(
        name, (STAGES[0].options[first], STAGES[1].options[0]), replicas, "list"
    )


def test_a_configuration_gets_its_plan_and_key() -> None:
    found, skipped = with_replicas(
        [wanted("a"), wanted("b", (7, None))], program_of(STAGES), loads(6)
    )
    assert skipped == []
    assert [one.key for one in found] == ["C1", "C2"]
    assert found[0].label == "s 1c b1 x2 | n 1c b1 x2"
    assert found[1].label == "s 1c b1 x7 | n 1c b1 x2"


def test_one_that_cannot_carry_the_load_is_left_out_with_the_reason() -> None:
    asked = [wanted("few", (1, None)), wanted("fine"), wanted("many", first=2)]
    found, skipped = with_replicas(asked, program_of(STAGES, scaling_cap=2), loads(6))
    assert [one.name for one in found] == ["fine"]
    assert "1 of s 1c b1 in stage find carry 5 rps, not 6: it takes 2" in skipped[0].reason
    assert "needs 3 replicas of l 1c b1, and scaling_cap is 2" in skipped[1].reason


def test_one_that_breaks_an_sla_is_kept() -> None:
    found, skipped = with_replicas(
        [wanted("slow")], program_of(STAGES, latency_sla_s=0.5), loads(6)
    )
    assert skipped == []
    assert not found[0].plan.certificate.holds


def test_replicas_carry_the_peak_of_a_trace() -> None:
    found, _ = with_replicas([wanted("a")], program_of(STAGES), Moment(1.0, 3.0, 11.0))
    assert found[0].plan.stages[0].replicas == 3
    assert found[0].plan.load_rps == 3.0


def loads(load_rps: float) -> Moment:
    return Moment.at(load_rps)


def logged(second: float, *picks: tuple[str, float, int, int]) -> SimpleNamespace:
    """A step of a log: (variant, cores, batch, replicas) of each stage."""
    names = ("variant", "cpu_cores", "batch", "replicas")
    stages = [
        SimpleNamespace(gpu_share=0.0, parts=(), **dict(zip(names, pick, strict=True)))
        for pick in picks
    ]
    return SimpleNamespace(start_s=second, stages=stages)


def of_log(*steps: SimpleNamespace) -> tuple[NamedConfiguration, ...]:
    run: Any = SimpleNamespace(name="r", path=Path("r"), steps=steps)
    return configurations_of_run(run, STAGES)


def test_a_log_gives_each_choice_of_options_once_from_its_first_use() -> None:
    small, large, name = ("s", 1.0, 1, 2), ("l", 2.0, 1, 1), ("n", 1.0, 1, 1)
    found = of_log(
        logged(0, small, name),
        logged(10, large, name),
        logged(20),  # an infeasible step of IPA's own log
        logged(30, ("s", 1.0, 1, 9), name),
    )
    assert [one.name for one in found] == ["s 1c b1 | n 1c b1", "l 2c b1 | n 1c b1"]
    assert [one.origin for one in found] == ["run r, second 0", "run r, second 10"]
    assert found[0].replicas == (None, None)


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        ([logged(0, ("s", 1.0, 1, 1))], "the log has 1 stages, the pipeline 2"),
        ([logged(0, ("q", 1.0, 1, 1), ("n", 1.0, 1, 1))], "no q on 1 cores at batch 1"),
        ([logged(0)], "no step of the log has a configuration"),
    ],
)
def test_a_log_of_another_pipeline_is_refused(steps: list[SimpleNamespace], expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        of_log(*steps)
