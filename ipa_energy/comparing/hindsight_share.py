"""How much of what was possible a run got, had its load been known."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from ipa_energy.as_json import fields_of
from ipa_energy.tables import share, significant


@dataclass(frozen=True, slots=True, kw_only=True)
class HindsightShare:
    """A run, a plan that knew its load and the bound, in the objective of the run.

    All are the objective as a whole run comes to it, the more the better; NaN where unknown.

    Attributes:
        run: its name.
        first: name of the run that gains are counted from; None without another that is comparable.
        objective: of the run.
        first_objective: of the first run, at the weights of this one.
        static_objective: of the best plan that never changes.
        hindsight_objective: of the best course of a plan that knew the load.
        bound: no run that answers as promptly comes to more.
        energy_weight: what a joule per request weighs in it; 0 if it weighs none.
    """

    run: str
    first: str | None
    objective: float
    first_objective: float
    static_objective: float
    hindsight_objective: float
    bound: float
    energy_weight: float

    @property
    def of_hindsight(self) -> float:
        """Share of the hindsight plan's gain over the first run; NaN if there is none to gain."""
        return self._share(self.hindsight_objective)

    @property
    def of_bound(self) -> float:
        """Share of the bound's."""
        return self._share(self.bound)

    @property
    def missed_j(self) -> float:
        """Joules a request that the hindsight plan would have been better by, at equal accuracy.

        Its gain in the objective at the weight of a joule; NaN if joules weigh nothing.
        """
        if not self.energy_weight:
            return math.nan
        return (self.hindsight_objective - self.objective) / self.energy_weight

    def _share(self, most: float) -> float:
        possible = most - self.first_objective
        gained = self.objective - self.first_objective
        return gained / possible if math.isfinite(possible) and possible > 0 else math.nan

    def sentence(self) -> str:
        """What is to be said of it."""
        if not math.isnan(self.of_hindsight):
            told = (
                f"{self.run} got {share(self.of_hindsight)} of what a plan that knew the load would"
                f" have gained over {self.first} in the objective of {self.run}"
            )
            if math.isnan(self.of_bound):
                return told
            return f"{told}, and {share(self.of_bound)} of the bound that nothing exceeds"
        if not math.isnan(self.missed_j):
            less = "fewer" if self.missed_j >= 0 else "more"
            return (
                f"A plan that knew the load of {self.run} would have come to the worth of"
                f" {significant(abs(self.missed_j))} J a request {less}"
            )
        return (
            f"The objective of {self.run} is {significant(self.objective)}, that of a plan that"
            f" knew the load {significant(self.hindsight_objective)}"
        )

    def to_json(self) -> dict[str, Any]:
        """The record as ``compare --json`` shows it."""
        return {
            **fields_of(self),
            "of_hindsight": self.of_hindsight,
            "of_bound": self.of_bound,
            "missed_j": self.missed_j,
            "sentence": self.sentence(),
        }
