"""What could have been: yardsticks for a run that knew the load it was given.

Beside IPA without energy, a run is held against two plans that no one could have had in time:

* the **best static plan**: one plan for the whole trace, chosen knowing the trace. It carries the
  busiest second, keeps the latency SLA where the load is lowest (batches wait longest there), and
  maximises the objective at the mean load. If adaptation does not beat it, adaptation is not worth
  its reconfigurations.
* the **oracle**: the same adaptation with a predictor that looks ahead in the trace
  (:mod:`ipa_energy.adaptation.predictor`). What separates a run from it is the price of prediction.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from ipa_energy.optimizer.problem import Candidates, Problem, Program, planned_load_rps
from ipa_energy.optimizer.solution import Conflict, Plan
from ipa_energy.optimizer.solve import solve


@dataclass(frozen=True, slots=True)
class StaticLoads:
    """The three loads a static plan is chosen for, in pipeline requests per second.

    Attributes:
        lowest_rps: smallest per-second count, at least 1.
        mean_rps: mean of the counts, at least 1.
        peak_rps: largest per-second count, at least 1.
    """

    lowest_rps: float
    mean_rps: float
    peak_rps: float

    @classmethod
    def of(cls, counts_rps: npt.NDArray[np.int64]) -> StaticLoads:
        """The loads of a trace of per-second counts."""
        return cls(
            lowest_rps=planned_load_rps(float(counts_rps.min())),
            mean_rps=planned_load_rps(float(counts_rps.mean())),
            peak_rps=planned_load_rps(float(counts_rps.max())),
        )


def static_problem(program: Program, loads: StaticLoads) -> Problem:
    """The program of a plan that has to last: replicas for the peak, waits of the lowest load.

    A stage's candidates are those that can carry the peak; each keeps the replicas of the peak,
    the delay of the lowest load, and joules and penalty at the mean load *with those replicas*.
    """
    peak, lowest = program.at(loads.peak_rps), program.at(loads.lowest_rps)
    stages = tuple(
        _static_candidates(at_peak, at_lowest, program, loads)
        for at_peak, at_lowest in zip(peak.stages, lowest.stages, strict=True)
    )
    return replace(peak, stages=stages, load_rps=loads.mean_rps)


def _static_candidates(
    peak: Candidates, lowest: Candidates, program: Program, loads: StaticLoads
) -> Candidates:
    settings = program.settings
    stage = peak.stage
    options = [stage.options[index] for index in peak.option_index]
    mean_load_rps = stage.requests_per_input * loads.mean_rps
    dynamic_j = np.array([option.dynamic_energy_j for option in options])
    idle_w = np.array([option.idle_power_w for option in options])
    cores = np.array([option.cpu_cores for option in options])
    batch = np.array([option.batch for option in options])
    joules = dynamic_j + peak.replicas * idle_w / mean_load_rps
    energy_j = stage.requests_per_input * joules
    penalty = settings.beta * peak.replicas * cores + settings.gamma * batch
    if settings.energy_weight != 0:
        scale = loads.mean_rps if settings.energy_metric == "watts" else 1.0
        penalty = penalty + settings.energy_weight * scale * energy_j
    where = np.searchsorted(lowest.option_index, peak.option_index)
    return replace(peak, delay_s=lowest.delay_s[where], energy_j=energy_j, penalty=penalty)


def best_static_plan(
    program: Program, counts_rps: npt.NDArray[np.int64]
) -> tuple[Plan | None, Conflict | None]:
    """The best plan that never changes, for a trace known in advance, or why there is none.

    The plan's own figures (wait, joules, latency) are those of the mean load.
    """
    problem = static_problem(program, StaticLoads.of(counts_rps))
    result = solve(problem, method="pareto", top_k=1)
    return (result.plans[0], None) if result.plans else (None, result.conflict)
