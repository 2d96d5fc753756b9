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

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from ipa_energy.optimizer.conflict import Conflict
from ipa_energy.optimizer.plan import Plan
from ipa_energy.optimizer.problem import Program
from ipa_energy.optimizer.quantities import USUAL_INTERVAL_S, Moment
from ipa_energy.optimizer.solve import solve


def best_static_plan(
    program: Program,
    counts_rps: npt.NDArray[np.int64],
    interval_s: float = USUAL_INTERVAL_S,
    signals: Mapping[str, float] | None = None,
) -> tuple[Plan | None, Conflict | None]:
    """The best plan that never changes, for a trace known in advance, or why there is none.

    The plan's own figures (wait, joules, latency) are those of the mean load, and so is an energy
    SLA: it caps the joules of the whole trace.

    Args:
        program: the pipeline's.
        counts_rps: (seconds,) the trace.
        interval_s: between decisions.
        signals: what is known beside the load, as means over the trace.
    """
    moment = Moment.of(counts_rps, interval_s, **(signals or {}))
    result = solve(program.at(moment), method="pareto", top_k=1)
    return (result.plans[0], None) if result.plans else (None, result.conflict)
