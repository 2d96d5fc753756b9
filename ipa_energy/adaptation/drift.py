r"""Whether a pipeline still costs what its profile says, and since when it does not.

Of each window and stage one number is watched: r = ln(live J / (scale · profiled J)), both at the
window's own batch fill and load (:mod:`ipa_energy.serving.live_joules`). With z = r/σ, clipped at
±3, a two-sided CUSUM ::

    S⁺ ← max(0, S⁺ + z − k)      S⁻ ← max(0, S⁻ − z − k)      k = 0.5, alarm above h = 6.56

knows its target, 0, so that it finds a profile that was wrong from the first window as fast as one
that goes wrong later; tests that estimate their own mean never find the first. The sum's last zero
dates the change, and exp(mean r since then) is by how much the joules changed.

σ is the scatter of the profile's trials, at least 8 %, until windows were seen, and moves to that
of the last :data:`LEARNED` clean ones; neighbours that resemble each other (autocorrelation ρ)
count as fewer: σ·√((1 + ρ)/(1 − ρ)). Both come from differences of windows one and two apart, which
a change of level hardly touches. Windows in which the stage was changed, or that served too few
requests, are passed over.

An alarm rescales the option's joules from the next decision on, if the 95 % interval of the mean
excludes 0 and the change is more than 5 %: e by the dynamic joules of the windows since then over
the profile's, p by the idle ones (one factor for both would be wrong again at another load); each
stays within [0.2, 5].
Options of the stage that never ran take the *common* scale of those that did, on the same hardware:
what makes a profile wrong (another clock, a power model that is off, a busier machine) is mostly
the machine's, and if only what runs were rescaled, every option that was never tried would look
better or worse than it for no other reason. Whatever runs has its own scale as soon as it ran.
"""

from __future__ import annotations

import logging
import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

import numpy as np

from ipa_energy.interval import half_width_95, t_quantile_95
from ipa_energy.records import Option, Quality, ReplicaFigures, Stage, weakest_quality
from ipa_energy.serving.observed import Correction, Scale, StageJoules

logger = logging.getLogger(__name__)

ALLOWANCE_K = 0.5
THRESHOLD_H = 6.56
"""One false alarm in 2,000 windows (5.6 h of 10 s) where σ is known and windows are independent."""

CLIP = 3.0
NORMAL_95 = 1.96
LEAST_SIGMA, LEAST_PRIOR_SIGMA = 0.02, 0.08
PRIOR_WINDOWS = 6
"""How many windows the scatter of the profile counts for."""

LEARNED = 240
MOST_RHO = 0.8
SMALLEST_CHANGE = 0.05
LOWEST_SCALE, HIGHEST_SCALE = 0.2, 5.0
SEEN_WINDOWS = 5
"""So many clean windows make an option one that ran."""


@dataclass(frozen=True, slots=True)
class Change:
    """What an alarm found.

    Attributes:
        factor: exp(mean r since the change).
        windows: since the change.
    """

    factor: float
    windows: int


class Cusum:
    """The chart of one option; values are r = ln(live/expected).

    Args:
        prior_sigma: scatter of r before any was seen; NaN if nobody knows.

    Attributes:
        windows: how many values were seen.
    """

    def __init__(self, prior_sigma: float = math.nan) -> None:
        known = 0.0 if math.isnan(prior_sigma) else prior_sigma
        self._prior = max(LEAST_PRIOR_SIGMA, known)
        self._seen: list[float] = []
        self._high = self._low = 0.0
        self._since_high: list[float] = []
        self._since_low: list[float] = []
        self._sigma = self._prior
        self.windows = 0

    @property
    def sigma(self) -> float:
        """σ as known so far, inflated."""
        return self._sigma

    def add(self, r: float) -> Change | None:
        """One window more; what changed, once it is beyond doubt, after which it starts anew."""
        self.windows += 1
        self._seen = [*self._seen[-LEARNED + 1 :], r]
        self._sigma = self._learned()
        z = max(-CLIP, min(CLIP, r / self._sigma))
        self._high = max(0.0, self._high + z - ALLOWANCE_K)
        self._low = max(0.0, self._low - z - ALLOWANCE_K)
        self._since_high = [*self._since_high, r] if self._high else []
        self._since_low = [*self._since_low, r] if self._low else []
        for total, since in ((self._high, self._since_high), (self._low, self._since_low)):
            if total > THRESHOLD_H and (change := self._judged(since)) is not None:
                self._restart(change)
                return change
        return None

    def _restart(self, change: Change) -> None:
        """Watch anew, values from here on being relative to ``factor`` times what they were."""
        self._high = self._low = 0.0
        self._since_high, self._since_low = [], []
        before = max(0, len(self._seen) - change.windows)
        later = [r - math.log(change.factor) for r in self._seen[before:]]
        self._seen = [*self._seen[:before], *later]

    def _judged(self, since: list[float]) -> Change | None:
        mean, count = statistics.fmean(since), len(since)
        if count < 2:
            return None
        half = max(NORMAL_95 * self._sigma / math.sqrt(count), half_width_95(since))
        factor = math.exp(mean)
        is_change = abs(mean) > half and abs(factor - 1) > SMALLEST_CHANGE
        return Change(factor, count) if is_change else None

    def _learned(self) -> float:
        """σ from the prior and from differences: d₁ = σ²(1 − ρ), d₂ = σ²(1 − ρ²) on average."""
        values = np.array(self._seen)
        weight = max(0, len(values) - 2)
        one, two = (values[lag:] - values[:-lag] for lag in (1, 2))
        prior = self._prior**2
        d1 = (PRIOR_WINDOWS * prior + float((one**2).sum()) / 2) / (PRIOR_WINDOWS + len(one))
        d2 = (PRIOR_WINDOWS * prior + float((two**2).sum()) / 2) / (PRIOR_WINDOWS + len(two))
        rho = min(MOST_RHO, max(0.0, d2 / d1 - 1.0)) * weight / (weight + PRIOR_WINDOWS)
        return max(LEAST_SIGMA, math.sqrt(d1 * (1 + rho)) / (1 - rho))


Figures = TypeVar("Figures", Option, ReplicaFigures)
Figure = Callable[[StageJoules], float]


@dataclass(slots=True)
class _Watched:
    """One option of a stage: variant and allocation, whatever the batch."""

    chart: Cusum
    scale: Scale
    windows: list[StageJoules] = field(default_factory=list)

    @property
    def is_scaled(self) -> bool:
        """False while it is as profiled."""
        return (self.scale.dynamic, self.scale.idle) != (1.0, 1.0)


@dataclass(slots=True)
class DriftWatch:
    """Watches the joules of every option that runs.

    Attributes:
        stages: the pipeline with its profile as it is.
        corrects: False to say what drifted and change nothing.
    """

    stages: Sequence[Stage]
    corrects: bool = True
    _watched: dict[tuple[str, str, str], _Watched] = field(default_factory=dict)
    _told: bool = False

    def watch(
        self, window: Iterable[StageJoules], end_s: float, quality: Quality | None = None
    ) -> tuple[Correction, ...]:
        """One window more, which ended at ``end_s``; what is to be rescaled from now on.

        Args:
            window: its stages.
            end_s: seconds since the start of the run.
            quality: of its joules; estimates correct no profile that was measured.
        """
        found = []
        for seen in window:
            ratio = seen.ratio
            if not seen.is_clean or math.isnan(ratio) or not self._may_correct(quality):
                continue
            watched = self._of_key((seen.stage, seen.variant, seen.allocation))
            watched.windows = [*watched.windows[-LEARNED + 1 :], seen]
            change = watched.chart.add(math.log(seen.live_j / _expected_j(seen, watched.scale)))
            if change is not None and (one := self._corrected(seen, watched, change, end_s)):
                found.append(one)
        return tuple(found)

    def _may_correct(self, quality: Quality | None) -> bool:
        """False if the live joules are of a weaker quality than the profile's."""
        sources = [option.provenance for stage in self.stages for option in stage.options]
        profiled = weakest_quality([source.quality for source in sources if source])
        if quality is None or profiled is None or quality == profiled:
            return True
        may = weakest_quality([quality, profiled]) == profiled
        if not may and not self._told:
            self._told = True
            logger.warning("live joules are %s, the profile's %s: no drift", quality, profiled)
        return may

    def restore(self, scales: Iterable[Scale]) -> None:
        """Go on with the scales of an earlier run."""
        for scale in scales:
            watched = self._of_key((scale.stage, scale.variant, scale.allocation))
            watched.scale, watched.chart.windows = scale, SEEN_WINDOWS

    @property
    def scales(self) -> tuple[Scale, ...]:
        """Those of options that ran; without any correction none."""
        watched = self._watched.values()
        if not self.corrects or not any(one.is_scaled for one in watched):
            return ()
        return tuple(
            one.scale for one in watched if one.chart.windows >= SEEN_WINDOWS or one.is_scaled
        )

    def scaled_stages(self) -> tuple[Stage, ...]:
        """The profile with every option rescaled: by its own scale, or by its stage's."""
        return scaled(self.stages, self.scales)

    def _corrected(
        self, seen: StageJoules, watched: _Watched, change: Change, end_s: float
    ) -> Correction | None:
        """Rescale; None if the scale is at its bound already."""
        before = watched.scale
        windows = watched.windows[-change.windows :]
        watched.scale = _scale_over(windows, before)
        expected = math.fsum(_expected_j(one, before) * one.requests for one in windows)
        now = math.fsum(_expected_j(one, watched.scale) * one.requests for one in windows)
        if abs(now / expected - 1) <= SMALLEST_CHANGE:
            return None
        correction = Correction(
            stage=seen.stage,
            variant=seen.variant,
            allocation=seen.allocation,
            found_s=end_s,
            windows=change.windows,
            factor=now / expected,
            scale=watched.scale.factor,
            dynamic=watched.scale.dynamic,
            idle=watched.scale.idle,
            is_applied=self.corrects,
        )
        logger.warning("second %.0f: %s", end_s, correction.told)
        return correction

    def _of_key(self, key: tuple[str, str, str]) -> _Watched:
        if key not in self._watched:
            as_profiled = Scale(*key, 1.0, 1.0, 1.0)
            self._watched[key] = _Watched(Cusum(self._prior_sigma(*key)), as_profiled)
        return self._watched[key]

    def _prior_sigma(self, stage: str, variant: str, allocation: str) -> float:
        """Scatter of the profile's trials, relative; NaN if there is no interval."""
        mine = [
            option
            for one in self.stages
            if one.name == stage
            for option in one.options
            if (option.variant, option.allocation.label) == (variant, allocation)
        ]
        return max((_scatter(option) for option in mine), default=math.nan)


def _scatter(option: Option) -> float:
    """Standard deviation of the trials of an option, relative to their mean; 0 if unknown."""
    source = option.provenance
    if source is None or source.trials < 2 or not option.dynamic_energy_j > 0:
        return 0.0
    sigma_j = source.ci95_j * math.sqrt(source.trials) / t_quantile_95(source.trials - 1)
    return 0.0 if math.isnan(sigma_j) else sigma_j / option.dynamic_energy_j


def _expected_j(seen: StageJoules, scale: Scale) -> float:
    """Joules per request of a window by the rescaled profile."""
    if math.isnan(seen.profile_idle_j):
        return scale.factor * seen.profile_j
    dynamic_j = seen.profile_j - seen.profile_idle_j
    return scale.dynamic * dynamic_j + scale.idle * seen.profile_idle_j


def _scale_over(windows: Sequence[StageJoules], before: Scale) -> Scale:
    """What windows really spent over what the profile says of them, part by part."""

    def ratio(
        live: Callable[[StageJoules], float], profiled: Callable[[StageJoules], float]
    ) -> float:
        spent, said = (
            math.fsum(figure(one) * one.requests for one in windows) for figure in (live, profiled)
        )
        found = spent / said if said > 0 else math.nan
        return min(HIGHEST_SCALE, max(LOWEST_SCALE, found))

    factor = ratio(lambda one: one.live_j, lambda one: one.profile_j)
    dynamic = ratio(
        lambda one: one.live_j - one.live_idle_j, lambda one: one.profile_j - one.profile_idle_j
    )
    idle = ratio(lambda one: one.live_idle_j, lambda one: one.profile_idle_j)
    parts = [factor if math.isnan(part) else part for part in (dynamic, idle)]
    return Scale(before.stage, before.variant, before.allocation, factor, *parts)


def scaled(stages: Sequence[Stage], scales: Sequence[Scale]) -> tuple[Stage, ...]:
    """Stages whose options cost what the scales say; see the module on those without one."""
    return tuple(
        replace(
            stage,
            options=tuple(
                scaled_option(option, *_scale_of(stage, option, scales)) for option in stage.options
            ),
        )
        for stage in stages
    )


def scaled_option(option: Option, dynamic: float, idle: float) -> Option:
    """An option whose e and p are so many times its own."""
    if dynamic == idle == 1.0:
        return option
    at_once = tuple(_rescaled(figures, dynamic, idle) for figures in option.at_once)
    return _rescaled(replace(option, at_once=at_once), dynamic, idle)


def _rescaled(figures: Figures, dynamic: float, idle: float) -> Figures:
    source = figures.provenance
    return replace(
        figures,
        dynamic_energy_j=figures.dynamic_energy_j * dynamic,
        idle_power_w=figures.idle_power_w * idle,
        provenance=source and replace(source, ci95_j=source.ci95_j * dynamic),
    )


def _scale_of(stage: Stage, option: Option, scales: Sequence[Scale]) -> tuple[float, float]:
    mine = [scale for scale in scales if scale.stage == stage.name]
    for scale in mine:
        if (scale.variant, scale.allocation) == (option.variant, option.allocation.label):
            return scale.dynamic, scale.idle
    hardware = {known.allocation.label: known.hardware for known in stage.options}
    like = [scale for scale in mine if hardware.get(scale.allocation) == option.hardware]
    if not like:
        return 1.0, 1.0
    mean = statistics.geometric_mean
    return mean([one.dynamic for one in like]), mean([one.idle for one in like])
