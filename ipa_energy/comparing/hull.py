"""The least joules at an accuracy that a system reaches by its other weights: the yardstick.

A run with energy saves something only against the best that the *same* system does without energy
at the same accuracy and no worse SLA attainment, whatever its weights. Of the runs without energy
that answer as many requests in time, two can be mixed over the day: an hour at one's weights, the
next at the other's. What mixtures reach is the lower convex hull of (accuracy, joules per
request)::

    joules │        ×        × runs without energy
           │   ×   ╱         ● the run with energy
           │      ×          saving at its accuracy = 1 − ●/hull
           │  ×──╱  ●
           └──────────────── accuracy

An accuracy below the hull's first point is met by that point, which needs least joules of all.
Above its last one there is nothing to compare with, and no figure is given.

What knowing the load would have gained is the other yardstick: :class:`HindsightShare`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ipa_energy.as_json import fields_of
from ipa_energy.tables import share, significant

SAME_ATTAINMENT = 0.0005
"""Shares of requests in time that print alike in percent with one decimal are called the same."""

ATTAINMENT_ROOM = 0.005
"""An alternative may answer so much less in time than the run that is held against it: the last
tenths are luck, and a saving must not rest on leaving out everyone who lacked it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What one run came to.

    Attributes:
        label: how it was weighted, for people: ``alpha 20``, ``fa2-low``.
        accuracy: of the pipeline, mean over the time of the run.
        joules_per_request: of the run; NaN if nothing is known of them.
        sla_attainment: share of the requests sent that were answered in time.
        energy_weight: of its objective; 0 is IPA.
        seed: of its arrivals and service times.
        grams_per_request: of the run; None where nobody said what a joule emits.
    """

    label: str
    accuracy: float
    joules_per_request: float
    sla_attainment: float
    energy_weight: float = 0.0
    seed: int = 0
    grams_per_request: float | None = None

    @property
    def in_grams(self) -> Outcome:
        """Itself with its grams, a million requests', in the place of its joules."""
        grams = math.nan if self.grams_per_request is None else self.grams_per_request
        return replace(self, joules_per_request=1e6 * grams)


@dataclass(frozen=True, slots=True)
class Hull:
    """Least joules per request over accuracy, by mixing outcomes; see the module.

    Attributes:
        corners: by rising accuracy, joules rise with it; empty if no outcome qualifies.
    """

    corners: tuple[Outcome, ...]

    def mixture_at(self, accuracy: float) -> Outcome | None:
        """The mixture of least joules that is at least this accurate; None above all."""
        if not self.corners or accuracy > self.corners[-1].accuracy:
            return None
        before = self.corners[0]
        for corner in self.corners:
            if accuracy <= corner.accuracy:
                return _mixture(before, corner, accuracy)
            before = corner
        raise AssertionError  # the last corner is at least as accurate

    def joules_at(self, accuracy: float) -> float:
        """Least joules per request of a mixture that is at least this accurate; NaN above all."""
        mixture = self.mixture_at(accuracy)
        return math.nan if mixture is None else mixture.joules_per_request

    def saving(self, outcome: Outcome) -> float:
        """Share of the hull's joules that ``outcome`` does without at its accuracy.

        Negative if it needs more; NaN if the hull does not reach its accuracy.
        """
        return _saved(outcome.joules_per_request, self.joules_at(outcome.accuracy))


def _saved(spent: float, needed: float) -> float:
    """Share of what is needed that is not spent; grams of electricity without carbon are both 0."""
    if needed == 0:
        return 0.0 if spent == 0 else math.nan
    return 1.0 - spent / needed


def _mixture(one: Outcome, other: Outcome, accuracy: float) -> Outcome:
    width = other.accuracy - one.accuracy
    if accuracy <= one.accuracy or width <= 0:
        return one
    share = (accuracy - one.accuracy) / width
    joules, grams = (
        left + share * (right - left)
        for left, right in (
            (one.joules_per_request, other.joules_per_request),
            (one.in_grams.joules_per_request, other.in_grams.joules_per_request),
        )
    )
    known_g = None if math.isnan(grams) else grams / 1e6
    return replace(one, accuracy=accuracy, joules_per_request=joules, grams_per_request=known_g)


def hull_of(outcomes: Iterable[Outcome], attainment: float) -> Hull:
    """The hull of the outcomes that answer at least this share of the requests in time."""
    keeping = sorted(
        (
            outcome
            for outcome in outcomes
            if outcome.sla_attainment >= attainment - SAME_ATTAINMENT
            and math.isfinite(outcome.joules_per_request)
        ),
        key=lambda outcome: (outcome.joules_per_request, -outcome.accuracy),
    )
    corners: list[Outcome] = []
    for outcome in keeping:
        if corners and outcome.accuracy <= corners[-1].accuracy:
            continue  # no more accurate than one that needs less
        while len(corners) > 1 and not _is_below(corners[-2], corners[-1], outcome):
            corners.pop()
        corners.append(outcome)
    return Hull(tuple(corners))


def _is_below(left: Outcome, middle: Outcome, right: Outcome) -> bool:
    """True if the middle one needs less than the mixture of the others with its accuracy."""
    return middle.joules_per_request < _mixture(left, right, middle.accuracy).joules_per_request


def common_reach(hulls: Iterable[Hull]) -> tuple[float, float]:
    """Least and greatest accuracy that all have; the first is above the second if none is."""
    corners = [hull.corners for hull in hulls]
    if not all(corners):
        return math.inf, -math.inf
    return max(each[0].accuracy for each in corners), min(each[-1].accuracy for each in corners)


@dataclass(frozen=True, slots=True)
class Saving:
    """What energy in the objective saves at equal accuracy and SLA attainment.

    Attributes:
        outcomes: of the run with energy, one a seed.
        savings: shares, one a seed; NaN where no run without energy is as accurate.
        attainments: share of requests in time that the runs without energy had to have, one a seed:
            that of the run, or less if none of them is as accurate and as punctual.
        least_joules: per request, of the hull without energy at the run's accuracy, one a seed.
        grams: the same in grams of a million requests, of runs with carbon in their objective, held
            against those without that may have a constant weight of energy; None of others.
        rivals: of such grams, who else there is → the saving against them alone
            (:data:`ipa_energy.frontier.weightings.ORACLE` among them, which knows more).
    """

    outcomes: tuple[Outcome, ...]
    savings: tuple[float, ...]
    attainments: tuple[float, ...]
    least_joules: tuple[float, ...]
    grams: Saving | None = None
    rivals: Mapping[str, Saving] = field(default_factory=dict)

    @property
    def mean(self) -> float:
        """Mean over the seeds that have a figure; NaN if none has."""
        known = self._known
        return sum(known) / len(known) if known else math.nan

    @property
    def _known(self) -> list[float]:
        return [saving for saving in self.savings if not math.isnan(saving)]

    @property
    def least(self) -> float:
        """Of the seeds that have a figure."""
        return min(self._known, default=math.nan)

    @property
    def most(self) -> float:
        """Of the seeds that have a figure."""
        return max(self._known, default=math.nan)

    @property
    def change(self) -> str:
        """``1.7 % fewer``; what prints as nothing is not called more."""
        saved = share(abs(self.mean))
        more = self.mean < 0 and saved != share(0.0)
        return f"{saved} {'more' if more else 'fewer'}"

    def sentence(
        self, what: str = "joules", rivals: str = "IPA with its best other weights"
    ) -> str:
        """The answer before anything else is said.

        Args:
            what: is saved.
            rivals: that it is held against.
        """
        if math.isnan(self.mean):
            others = "weights without energy" if what == "joules" else "other weights"
            return (
                f"no {others} reach this accuracy, so there is nothing to hold its {what} against"
            )
        seeds = len(self._known)
        spread = (
            f" (one seed: {self.outcomes[0].seed})"
            if seeds == 1
            else f" ({share(self.least)} to {share(self.most)} over {seeds} seeds)"
        )
        equal, late = "accuracy and SLA attainment", ""
        relaxed = [
            needed
            for needed, outcome in zip(self.attainments, self.outcomes, strict=True)
            if not _is_as_punctual(needed, outcome)
        ]
        if relaxed:
            equal = "accuracy"
            late = f", which answer only {share(min(relaxed))} of the requests in time"
        saved = f"{self.change} {what}"
        return f"at the same {equal}, {saved} than {rivals}{spread}{late}"


def _is_as_punctual(attainment: float, outcome: Outcome) -> bool:
    """True if the hull that an outcome is held against counts a run with this attainment."""
    return attainment >= outcome.sla_attainment - ATTAINMENT_ROOM - SAME_ATTAINMENT


def saving_of(
    with_energy: Sequence[Outcome],
    without: Sequence[Outcome],
    *,
    reads_grams: bool = False,
    least_accuracy: float = -math.inf,
) -> Saving:
    """Hold runs with energy against the hull of those without, seed by seed.

    Args:
        with_energy: one a seed, of equal weights.
        without: every run without energy, of the same seeds.
        reads_grams: True for what the mixture of least joules emits, in the place of its joules.
        least_accuracy: what a run without energy has to have to be held against one that has it:
            who breaks the pipeline's floor is no rival of who keeps it.
    """
    savings, attainments, least = [], [], []
    for outcome in with_energy:
        floor = least_accuracy if outcome.accuracy >= least_accuracy else -math.inf
        same = [other for other in without if other.seed == outcome.seed]
        mine = [other for other in same if other.accuracy >= floor]
        attainment = _attainment(outcome, mine)
        mixture = hull_of(mine, attainment - ATTAINMENT_ROOM).mixture_at(outcome.accuracy)
        pair = [one and (one.in_grams if reads_grams else one) for one in (outcome, mixture)]
        spent, needed = (math.nan if one is None else one.joules_per_request for one in pair)
        savings.append(_saved(spent, needed))
        attainments.append(attainment)
        least.append(needed)
    outcomes = [one.in_grams if reads_grams else one for one in with_energy]
    return Saving(tuple(outcomes), tuple(savings), tuple(attainments), tuple(least))


def _attainment(outcome: Outcome, without: Sequence[Outcome]) -> float:
    """The run's share of requests in time; less if no run without energy has both it and accuracy.

    Then the most punctual ones that reach the accuracy count: they are the stronger for it, since
    being late saves joules.
    """
    reaching = [other.sla_attainment for other in without if other.accuracy >= outcome.accuracy]
    return min(outcome.sla_attainment, max(reaching, default=outcome.sla_attainment))


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
