"""One adaptation step: what it sees, what it plans for, and which of equal plans it takes."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from option_maker import make_option

from ipa_energy.adaptation.loop import Adapter
from ipa_energy.adaptation.predictor import make_predictor
from ipa_energy.errors import ConfigError
from ipa_energy.optimizer import pareto
from ipa_energy.optimizer.deadline import Bounded
from ipa_energy.optimizer.problem import Program
from ipa_energy.optimizer.settings import Settings
from ipa_energy.planning.horizon_adapter import adapter_for
from ipa_energy.planning.planner import load_planner
from ipa_energy.records import Allocation, Option, Provenance, Stage
from ipa_energy.runner import initial_configuration
from ipa_energy.serving.deployment import DeployedStage, changed_stages, deployment_of


def option(variant: str, batch: int, rate_rps: float = 5.0) -> Option:
    return make_option(
        variant, batch, throughput_rps=rate_rps, dynamic_energy_j=math.nan, idle_power_w=math.nan
    )


TWINS = Stage("only", "node", (option("left", 1), option("middle", 1), option("right", 1)))


class Fixed:
    """Predicts one figure and remembers what it saw."""

    def __init__(self, load_rps: float) -> None:
        self.load_rps = load_rps
        self.seen: list[list[int]] = []

    def predict(self, history_rps: np.ndarray, now_s: int) -> float:
        self.seen.append(history_rps.tolist())
        return self.load_rps


SEEN = np.arange(5)


def adapter(
    predictor: Fixed, *stages: Stage, cap: int = 3, energy_sla_j: float | None = None
) -> Adapter:
    settings = Settings(
        alpha=1.0,
        beta=1.0,
        gamma=0.0,
        scaling_cap=cap,
        batching_cap=8,
        energy_sla_joules=energy_sla_j,
    )
    interval_s = 10.0 if energy_sla_j is None else 1.0
    program = Program(stages or (TWINS,), settings)
    return Adapter(program, predictor, method="pareto", interval_s=interval_s)


@pytest.mark.parametrize("running", ["left", "middle", "right"])
def test_equal_plans_leave_what_runs_alone(running: str) -> None:
    current = next(o for o in TWINS.options if o.variant == running)
    decision = adapter(Fixed(4.0)).decide(5, SEEN, [DeployedStage("only", current, 1)])
    assert decision.plan is not None
    assert decision.plan.stages[0].option.variant == running
    assert changed_stages(deployment_of(decision.plan), [DeployedStage("only", current, 1)]) == []


def test_a_better_plan_is_taken_although_it_changes() -> None:
    worse, better = option("slow", 1, 2.0), option("fast", 1, 10.0)
    stage = Stage("only", "node", (worse, better))
    decision = adapter(Fixed(6.0), stage).decide(5, SEEN, [DeployedStage("only", worse, 3)])
    assert decision.plan is not None
    assert decision.plan.stages[0].option is better
    assert changed_stages(deployment_of(decision.plan), [DeployedStage("only", worse, 3)]) == [
        "only"
    ]


def test_predictor_sees_what_arrived() -> None:
    predictor = Fixed(1.0)
    running = [DeployedStage("only", TWINS.options[0], 1)]
    decision = adapter(predictor).decide(5, np.array([2, 3, 4]), running)
    assert predictor.seen == [[2, 3, 4]]
    assert decision.monitored_load_rps == (2, 3, 4)


def test_no_load_is_logged_and_planned_as_one_request_an_interval() -> None:
    decision = adapter(Fixed(0.0)).decide(
        5, np.zeros(5, dtype=np.int64), [DeployedStage("only", TWINS.options[0], 1)]
    )
    assert decision.predicted_load_rps == 0.0
    assert decision.planned_load_rps == 0.1
    assert decision.plan is not None
    assert decision.plan.load_rps == 0.1


def test_small_prediction_is_planned_as_it_is() -> None:
    decision = adapter(Fixed(0.25)).decide(5, SEEN, [DeployedStage("only", TWINS.options[0], 1)])
    assert (decision.predicted_load_rps, decision.planned_load_rps) == (0.25, 0.25)


def test_energy_sla_is_planned_at_the_quietest_interval_seen() -> None:
    """At 8 rps 2 + 4/8 J are planned; the quietest second had 2 rps: 2 + 4/2 = 4 J must fit."""
    only = make_option("only", throughput_rps=10.0, dynamic_energy_j=2.0, idle_power_w=4.0)
    running = [DeployedStage("only", only, 1)]
    seen = np.array([9, 2, 6])
    for cap_j, status in ((4.0, "optimal"), (3.99, "infeasible")):
        asked = adapter(Fixed(8.0), Stage("only", "node", (only,)), energy_sla_j=cap_j)
        decision = asked.decide(5, seen, running)
        assert (decision.status, decision.capped_load_rps) == (status, 2.0)
    assert decision.conflict is not None
    assert "an energy SLA of at least 4 J (at 2 rps, which may come)" in decision.conflict


def test_infeasible_step_has_a_conflict_and_changes_nothing() -> None:
    decision = adapter(Fixed(100.0), cap=2).decide(
        5, SEEN, [DeployedStage("only", TWINS.options[0], 1)]
    )
    assert decision.status == "infeasible"
    assert decision.plan is None
    assert decision.conflict is not None


@pytest.mark.parametrize(
    ("after", "changes"),
    [
        (DeployedStage("only", option("left", 1), 2), ["only"]),
        (DeployedStage("only", option("left", 4), 1), ["only"]),
        (DeployedStage("only", option("right", 1), 1), ["only"]),
        (DeployedStage("only", option("left", 1), 1), []),
    ],
)
def test_changed_stages_count_each_knob(after: DeployedStage, changes: list[str]) -> None:
    assert changed_stages([after], [DeployedStage("only", option("left", 1), 1)]) == changes


def with_joules(variant: str, joules: float) -> Option:
    return Option(
        variant, Allocation.of(1), 1, 0.1, 0.1, 0.1, 5.0, 0.5, joules, 0.1,
        Provenance("fake", "estimated", 1, 0.0),
    )  # fmt: skip


def test_of_equal_plans_fewer_changes_count_before_fewer_joules() -> None:
    hungry, frugal = with_joules("hungry", 2.0), with_joules("frugal", 1.0)
    stage = Stage("only", "node", (frugal, hungry))
    decision = adapter(Fixed(4.0), stage).decide(5, SEEN, [DeployedStage("only", hungry, 1)])
    assert decision.plan is not None
    assert decision.plan.stages[0].option is hungry


def test_of_plans_equal_in_changes_the_one_with_fewer_joules_is_taken() -> None:
    stage = Stage("only", "node", (with_joules("hungry", 2.0), with_joules("frugal", 1.0)))
    elsewhere = option("old", 1)
    decision = adapter(Fixed(4.0), stage).decide(5, SEEN, [DeployedStage("only", elsewhere, 1)])
    assert decision.plan is not None
    assert decision.plan.stages[0].option.variant == "frugal"


def in_time(monkeypatch: pytest.MonkeyPatch, choices: list[tuple[int, ...]], bound: float) -> None:
    """Whatever is asked, this is what is known when time is up."""
    known = Bounded(choices, bound)
    monkeypatch.setattr(pareto.solve, "within", lambda *_: known)


def test_a_decision_that_is_not_proven_says_how_far_it_may_be_off(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    in_time(monkeypatch, [(1,)], -0.4)  # 0.5 of accuracy and one core: −0.5
    running = (DeployedStage("only", TWINS.options[0], 1),)
    looking = adapter(Fixed(2.0))
    looking.limit_s = 0.5
    decision = looking.decide(10, SEEN, running)
    assert (decision.status, decision.gap) == ("feasible", pytest.approx(0.2))
    assert decision.plan is not None and decision.plan.stages[0].option.variant == "middle"


def test_what_runs_goes_on_when_no_plan_is_found_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    in_time(monkeypatch, [], math.inf)
    looking = adapter(Fixed(2.0))
    looking.limit_s = 0.5
    decision = looking.decide(10, SEEN, (DeployedStage("only", TWINS.options[0], 1),))
    assert (decision.status, decision.plan, decision.conflict) == ("kept", None, None)
    assert decision.trouble == "no plan was found in 0.5 s"


def test_a_decision_that_may_take_its_time_is_proven() -> None:
    decision = adapter(Fixed(2.0)).decide(10, SEEN, (DeployedStage("only", TWINS.options[0], 1),))
    assert (decision.status, decision.gap, decision.trouble) == ("optimal", 0.0, None)


def test_quantiles_are_planned_with_each_for_what_it_is_for(small_pipeline: Path) -> None:
    """Replicas carry the peak, joules are those of the mean, and the log says the quantiles."""
    config = small_pipeline.read_text() + "forecast_levels: [0.1, 0.5, 0.9]\n"
    small_pipeline.write_text(config)
    planner = load_planner(small_pipeline)
    trace = np.array([3, 3, 3, 3, 3, 3, 3, 3, 3, 9] * 20)
    oracle = make_predictor("oracle", trace=trace)
    adapter = adapter_for(planner, oracle, lambda _, __: {}, 20)
    decision = adapter.decide(100, trace[:100], initial_configuration(planner))
    assert decision.plan is not None
    assert decision.predicted_load_rps == 9
    assert decision.planned_load_rps == pytest.approx(3.6)
    assert decision.plan.load_rps == pytest.approx(3.6)
    assert all(stage.capacity_rps >= 9 for stage in decision.plan.stages)
    assert decision.forecast is not None
    assert set(decision.forecast["peak_rps"]) == {9}
    assert set(decision.forecast["mean_rps"]) == {3.6}


def test_levels_that_do_not_rise_are_refused(small_pipeline: Path) -> None:
    small_pipeline.write_text(small_pipeline.read_text() + "forecast_levels: [0.5, 0.1, 0.9]\n")
    with pytest.raises(ConfigError, match=r"0\.5, 0\.1, 0\.9; allowed: three, ascending"):
        load_planner(small_pipeline)


FIRST_DECISION = """
import json, sys
import numpy as np
from ipa_energy.adaptation.predictor import make_predictor
from ipa_energy.planning.horizon_adapter import adapter_for
from ipa_energy.planning.planner import load_planner
from ipa_energy.runner import initial_configuration

planner = load_planner(sys.argv[1], json.loads(sys.argv[2]))
adapter = adapter_for(planner, make_predictor("reactive"), lambda *_: {}, 20)
before = set(sys.modules)
decision = adapter.decide(60, np.full(60, 6), initial_configuration(planner))
assert decision.plan is not None
print({name.partition(".")[0] for name in set(sys.modules) - before} or "nothing")
"""


@pytest.mark.parametrize(
    "keys",
    [
        {"optimization_method": "highs"},
        {"optimization_method": "gurobi"},
        {"optimization_method": "auto", "mix": True},
        {"controller": "horizon"},
    ],
)
def test_the_first_decision_imports_nothing_while_it_is_timed(
    small_pipeline: Path, keys: dict[str, object]
) -> None:
    if keys.get("optimization_method") == "gurobi":
        pytest.importorskip("gurobipy")
    words = [sys.executable, "-c", FIRST_DECISION, str(small_pipeline), json.dumps(keys)]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "nothing"
