"""The whole analysis of one load: what it says, and that it agrees with what is planned."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from seeds import seeds
from small_programs import every_plan, one_stage, program_of, random_small_program, small_option

from ipa_energy.as_json import as_json
from ipa_energy.errors import InfeasibleError
from ipa_energy.optimizer.front import FrontTooLargeError
from ipa_energy.optimizer.quantities import Moment
from ipa_energy.planning.planner import load_planner
from ipa_energy.tradeoff import sensitivity as sensitivity_module
from ipa_energy.tradeoff.sensitivity import Sensitivity, analyse, analyse_program
from ipa_energy.tradeoff.sentences import sensitivity_sentences

STAGES = one_stage(
    small_option("large", accuracy=0.8, dynamic_energy_j=10.0, latency_s=0.4, ci95_j=1.0),
    small_option("almost", accuracy=0.795, dynamic_energy_j=8.0, latency_s=0.2, ci95_j=1.0),
    small_option("small", accuracy=0.4, dynamic_energy_j=1.0, latency_s=0.1, ci95_j=0.1),
)


def text_of(found: Sensitivity) -> str:
    json.dumps(as_json(found), allow_nan=False)
    return "\n".join(sensitivity_sentences(found))


def test_it_says_what_each_analysis_found() -> None:
    found = analyse_program(program_of(STAGES, latency_sla_s=0.3), 10.0, draws=50, seed=3)
    assert found.plan.label.startswith("almost")
    assert found.front is not None
    assert found.front.size == 2
    assert found.front.holds_plan
    assert found.front.ranges["joules_per_request"] == pytest.approx((1.0, 8.0))
    text = text_of(found)
    assert "Pareto front of accuracy, cores, latency and joules: 2 of 3 plans" in text
    assert "give up 1 % accuracy, save nothing; the least that saves anything is 49.7 %" in text
    assert "use one core more, save" in text
    assert "answer 50 ms later, save" in text
    assert "latency SLA of 0.3 s: binding; from 0.4 s on the plan is large" in text
    assert "energy SLA: not set, so not binding" in text
    assert "50 times (seed 3), the chosen plan is optimal in 100.0 % of the draws" in text
    assert "joules do not enter the decision" in text
    assert "8 J per request (estimated)" in text


def test_a_weight_of_energy_can_lose_by_the_draw() -> None:
    # alpha·A − w·J: almost 0.795 − 0.08·w', small 0.4 − 0.01·w': equal at w = 0.0564
    program = program_of(STAGES, latency_sla_s=0.3, energy_weight=0.0564)
    found = analyse_program(program, 10.0, draws=400)
    assert found.robustness is not None
    assert 0.2 < found.robustness.stays_optimal < 0.8
    text = text_of(found)
    assert "of the draws small" in text or "of the draws almost" in text
    assert "in joules' worth" in text


def test_without_joules_the_rest_is_still_said() -> None:
    stages = one_stage(
        small_option("a", accuracy=0.9, dynamic_energy_j=math.nan, idle_power_w=math.nan),
        small_option("b", latency_s=0.05, dynamic_energy_j=math.nan, idle_power_w=math.nan),
    )
    found = analyse_program(program_of(stages, latency_sla_s=0.08), 10.0)
    assert found.exchanges is None
    assert found.robustness is None
    assert set(found.reasons) == {"exchanges", "robustness"}
    text = text_of(found)
    assert "joules unknown" in text
    assert "no exchange rates: the profile has no joules" in text
    assert "from 0.1 s on the plan is a" in text
    assert "energy SLA: no price: the profile has no joules" in text


def test_a_profile_without_intervals_is_not_called_robust() -> None:
    stages = one_stage(small_option("a", ci95_j=math.nan))
    text = text_of(analyse_program(program_of(stages, energy_weight=1.0), 10.0))
    assert "the profile has no interval for any joule figure" in text
    assert "optimal in" not in text


def test_some_unknown_intervals_are_counted() -> None:
    stages = one_stage(small_option("a", ci95_j=0.1), small_option("b", ci95_j=math.nan))
    text = text_of(analyse_program(program_of(stages, energy_weight=1.0), 10.0))
    assert "1 of 2 options have no interval" in text


def test_planning_with_upper_ends_is_said() -> None:
    program = program_of(STAGES, latency_sla_s=0.3, energy_weight=0.001, energy_risk="upper")
    found = analyse_program(program, 10.0, draws=100)
    assert found.energy_risk == "upper"
    assert found.plan.joules_per_request == pytest.approx(9.0)
    assert found.robustness is not None
    assert found.robustness.joules is not None
    # the draws are around the mean, whatever is planned with
    assert found.robustness.joules.mean == pytest.approx(8.0, abs=0.3)
    assert found.robustness.upper_is_same
    assert "9 J per request (estimated, upper ends of the intervals)" in text_of(found)


def test_nothing_feasible_is_an_error() -> None:
    with pytest.raises(InfeasibleError, match="latency"):
        analyse_program(program_of(STAGES, latency_sla_s=0.01), 10.0)


def test_too_large_a_front_leaves_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(problem: object) -> None:
        raise FrontTooLargeError("the front has too many points")

    monkeypatch.setattr(sensitivity_module, "pareto_front", refuse)
    found = analyse_program(program_of(STAGES), 10.0, draws=20)
    assert found.front is None
    text = text_of(found)
    assert "no Pareto front: the front has too many points" in text
    assert "no exchange rates: the front has too many points" in text
    assert found.robustness is not None


def test_ranks_stand_in_where_raw_accuracies_cannot_be_multiplied() -> None:
    stages = one_stage(
        small_option("good", accuracy=-0.1, dynamic_energy_j=2.0),
        small_option("bad", accuracy=-0.3, dynamic_energy_j=1.0),
    )
    program = program_of(stages, accuracy_method="multiply", normalize_accuracy=True)
    found = analyse_program(program, 10.0, draws=20)
    assert not found.accuracy_is_raw
    assert found.plan.accuracy == 1.0
    assert found.front is not None
    assert found.front.holds_plan
    assert "accuracies are ranks" in text_of(found)


def test_normalised_programs_are_judged_by_raw_accuracy() -> None:
    found = analyse_program(program_of(STAGES, normalize_accuracy=True), 10.0, draws=20)
    assert found.accuracy_is_raw
    assert found.plan.accuracy == pytest.approx(0.8)
    assert found.exchanges is not None
    accuracy = found.exchanges.at_plan[0]
    assert accuracy.bought is not None
    assert accuracy.bought.saved_j == pytest.approx(2.0)


def test_a_trace_is_judged_by_all_of_its_loads() -> None:
    stages = one_stage(small_option("a", batch=2, throughput_rps=10.0, idle_power_w=4.0))
    found = analyse_program(program_of(stages), Moment(2.0, 10.0, 30.0), draws=20)
    assert found.load_rps == 10.0
    # replicas of the peak, wait of the lowest load, joules of the mean one
    assert found.plan.cost_cores == 3.0
    assert found.plan.latency_s == pytest.approx(0.1 + 1 / 2.0)
    assert found.plan.joules_per_request == pytest.approx(1.0 + 3 * 4.0 / 10.0)


@pytest.mark.parametrize("seed", seeds(15))
def test_the_chosen_plan_is_the_best_and_every_word_can_be_said(seed: int) -> None:
    program, load_rps = random_small_program(seed)
    plans = every_plan(program.at(load_rps))
    if not plans:
        with pytest.raises(InfeasibleError):
            analyse_program(program, load_rps)
        return
    found = analyse_program(program, load_rps, draws=10)
    assert found.plan.objective == pytest.approx(max(plan.objective for plan in plans))
    assert found.front is not None
    assert found.front.holds_plan == (not beaten(found, plans))
    assert "nan" not in text_of(found)


def beaten(found: Sensitivity, plans: list[object]) -> bool:
    def figures(plan: object) -> tuple[float, ...]:
        names = ("cost_cores", "latency_s", "joules_per_request")
        accuracy = getattr(plan, "accuracy_raw", None)
        if accuracy is None:
            accuracy = found.plan.accuracy
        return (-accuracy, *(getattr(plan, name) for name in names))

    mine = figures(found.plan)
    return any(
        all(other <= own + 1e-9 for other, own in zip(figures(plan), mine, strict=True))
        and any(other < own - 1e-9 for other, own in zip(figures(plan), mine, strict=True))
        for plan in plans
    )


def test_a_pipeline_of_the_repository_is_analysed() -> None:
    planner = load_planner(Path(__file__).parents[2] / "configs" / "video.yaml")
    found = analyse(planner, 10.0, draws=50)
    assert found.robustness is not None
    assert found.robustness.seed == planner.config.seed
    assert found.front is not None
    assert found.front.size > 10
    assert len(found.front.shown) <= 20
    text_of(found)
