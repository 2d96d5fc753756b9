"""The answer in words is true whatever the figures are."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
from small_programs import one_stage, program_of, small_option

from ipa_energy.tradeoff.correlation import Correlation
from ipa_energy.tradeoff.energy_added import Hypervolume, OnlyEnergy
from ipa_energy.tradeoff.plan_map import map_row
from ipa_energy.tradeoff.sentences import answer_of, coefficient, counted
from ipa_energy.tradeoff.study import Case, Study


def counts(
    front: int = 9, blind: int = 6, supported: int = 5, only_supported: int = 2
) -> OnlyEnergy:
    return OnlyEnergy(
        front=front,
        front_without_energy=blind,
        supported=supported,
        only_supported=only_supported,
    )


def spearman(x: str, value: float) -> Correlation:
    return Correlation(
        over="plans",
        method="spearman",
        x=x,
        y="joules_per_request",
        given=None,
        value=value,
        low=math.nan,
        high=math.nan,
        n=50,
        reason="test",
    )


def case(**figures: Any) -> Case:
    given: dict[str, Any] = {
        "name": "5 rps",
        "load_rps": 5.0,
        "lowest_rps": 5.0,
        "peak_rps": 5.0,
        "duration_s": 60,
        "latency_sla_s": 1.0,
        "plans": 50,
        "feasible_plans": 40,
        "is_counted": True,
    }
    return Case(**(given | figures))


def study(*cases: Case, **facts: Any) -> Study:
    given: dict[str, Any] = {
        "pipeline": "p",
        "profile": "p.csv",
        "hardware": "cpu",
        "backend": "simulate",
        "seed": 0,
        "trials": 3,
        "selection": "test",
        "settings": {"accuracy_method": "sum", "energy_weight": 0},
        "meter": "rapl",
        "quality": "measured",
        "cases": cases,
    }
    return Study(**(given | facts))


def text(*cases: Case, **facts: Any) -> str:
    return "\n".join(answer_of(study(*cases, **facts)))


def test_energy_that_adds_plans() -> None:
    found = text(case(only_energy=counts()))
    assert "energy adds plans of its own: 3 of 9 undominated plans (33.3 %)" in found
    assert "2 of the 5 plans that some weights of the objective make optimal are so only" in found


def test_energy_that_adds_none() -> None:
    found = text(case(only_energy=counts(front=4, blind=4, supported=4, only_supported=0)))
    assert "energy adds no plan of its own: each of the 4 undominated plans is" in found
    assert "no plan needs a weight on energy to be the best: 4 plans are optimal" in found
    assert "adds plans of its own" not in found


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (0.99, "almost one to one (Spearman +0.99"),
        (-0.97, "almost one to one (Spearman −0.97"),
        (0.85, "closely"),
        (0.6, "in part"),
        (0.1, "hardly"),
    ],
)
def test_the_company_of_energy_is_named_by_its_strength(value: float, words: str) -> None:
    found = text(
        case(
            only_energy=counts(),
            correlations=(spearman("cost_cores", value), spearman("latency_s", 0.05)),
        )
    )
    assert f"goes with cores {words}" in found


def test_undefined_correlations_name_no_company() -> None:
    found = text(case(only_energy=counts(), correlations=(spearman("cost_cores", math.nan),)))
    assert "goes with" not in found
    assert "undefined" in found


def test_measured_joules_need_no_caution() -> None:
    assert text(case()) == ""


@pytest.mark.parametrize("quality", ["estimated", "imported"])
def test_other_joules_are_called_what_they_are(quality: str) -> None:
    found = text(case(), quality=quality, meter="cpu-time")
    assert f"The profile's joules are {quality} (cpu-time)" in found


def test_no_energy_is_said() -> None:
    assert "The profile has no energy" in text(case(), quality=None, meter=None)


def test_a_conflict_is_said_at_its_load() -> None:
    found = text(case(), case(name="900 rps", conflict="no plan can meet scaling_cap:a"))
    assert "At 900 rps: no plan is feasible: no plan can meet scaling_cap:a." in found


def test_a_thinned_hypervolume_is_a_lower_bound() -> None:
    found = Hypervolume(
        with_energy=0.5,
        without_energy=0.4,
        points_with_energy=9,
        points_without_energy=6,
        best={},
        worst={},
    )
    assert "50.00 % of the trade-off box" in text(case(hypervolume=found))
    assert "(+25.00 %)" in text(case(hypervolume=found))
    thinned = dataclasses.replace(found, is_exact=False)
    assert "lower bounds" in text(case(hypervolume=thinned))


def test_the_map_in_a_sentence() -> None:
    stages = one_stage(
        small_option("large", accuracy=0.9, dynamic_energy_j=4.0),
        small_option("small", accuracy=0.5, dynamic_energy_j=1.0),
    )
    row = map_row(program_of(stages).at(5.0), {})
    found = text(case(optimum=row))
    assert "changes at 1 energy weight (0.133)" in found
    assert "at 4 J per request to small 1c b1 x1 at 1 J, which is 75.0 % less (estimated)" in found
    assert "40.0 points less accuracy, summed over the stages" in found


def test_figures_in_words() -> None:
    assert counted(1, "plan") == "1 plan"
    assert counted(1200, "plan") == "1,200 plans"
    whole = dataclasses.replace(spearman("accuracy", 0.5), low=0.1, high=0.8)
    assert coefficient(whole) == "+0.50 (+0.10 to +0.80)"
    assert coefficient(spearman("accuracy", 0.5)) == "+0.50"
