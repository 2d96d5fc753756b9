"""What of a stage no moment changes: its rules, the scores of its options, their figures."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ipa_energy.arrays import Floats, Ints
from ipa_energy.optimizer.settings import Settings
from ipa_energy.records import Allocation, Option, Stage


@dataclass(frozen=True, slots=True, kw_only=True)
class StageRules:
    """What narrows a stage's options before the program sees them.

    Attributes:
        allocations: variant → the allocations that it may have (IPA's base allocation, on each
            kind of hardware); variants not named are out. None: every profiled one is open.
        variants: the only variants allowed (FA2 fixes one). None: all.
        replicas: fixed number of replicas (RIM). None: equation (2) decides.
        any_class: True to leave in what does not serve every class of requests.
    """

    allocations: Mapping[str, tuple[Allocation, ...]] | None = None
    variants: frozenset[str] | None = None
    replicas: int | None = None
    any_class: bool = False

    def allows(self, option: Option) -> bool:
        """True if ``option`` passes the variant and allocation rules."""
        if self.variants is not None and option.variant not in self.variants:
            return False
        return self.allows_allocation(option)

    def allows_allocation(self, option: Option) -> bool:
        """True if ``option`` passes the allocation rule."""
        if self.allocations is None:
            return True
        return option.allocation in self.allocations.get(option.variant, ())


def accuracy_scores(stage: Stage, *, normalize: bool) -> list[float]:
    """The accuracy that enters the objective, one an option of the stage.

    Raw accuracies, which may differ between the kinds of hardware that a variant runs on; or IPA's
    rank normalisation of the variants: see :func:`accuracy_ranks`.
    """
    if not normalize:
        return [option.accuracy for option in stage.options]
    ranks = accuracy_ranks(stage)
    return [ranks[option.variant] for option in stage.options]


def accuracy_ranks(stage: Stage) -> dict[str, float]:
    """Variant → its rank: sorted by (accuracy, name) they get 0, …, 1 in equal steps.

    A single variant gets 1. Ranks count every profiled variant of the stage, also those that rules
    or caps exclude, so that a cap never changes what a variant is worth. A variant whose accuracy
    differs by hardware is ranked by the last one of the profile.
    """
    raw = {option.variant: option.accuracy for option in stage.options}
    ranked = sorted(raw, key=lambda variant: (raw[variant], variant))
    if len(ranked) == 1:
        return {ranked[0]: 1.0}
    return {variant: rank / (len(ranked) - 1) for rank, variant in enumerate(ranked)}


_OF_REPLICAS = ("latency_s", "throughput_rps", "dynamic_energy_j", "idle_power_w")
_OF_QUEUES = ("latency_avg_s", "latency_p99_s")
"""Figures of an option that may depend on how many replicas work at once."""


def throughputs(options: Sequence[Option]) -> Floats:
    """What :func:`~ipa_energy.energy.replicas_needed` takes: h_o, by replicas where it depends."""
    return _by_replicas("throughput_rps", options)


def _by_replicas(figure: str, options: Sequence[Option]) -> Floats:
    """(N,) a figure; (N, K) with 1 … K replicas at once if it may depend on them."""
    most = max((option.most_measured for option in options), default=1)
    if most == 1:
        return _column(getattr(option, figure) for option in options)
    rows = [[getattr(o.at(count), figure) for count in range(1, most + 1)] for o in options]
    return np.array(rows, dtype=np.float64)


class StageColumns:
    """Everything about a stage's allowed options that no moment changes.

    Its arrays are named as the figures of an option, so that amounts take it for one; those of so
    many replicas come from :meth:`at`.
    """

    latency_s: Floats
    latency_avg_s: Floats
    latency_p99_s: Floats
    dynamic_energy_j: Floats
    idle_power_w: Floats

    def __init__(
        self, stage: Stage, rules: StageRules, settings: Settings, kept: Ints | None = None
    ) -> None:
        options = stage.options
        scores = accuracy_scores(stage, normalize=settings.normalize_accuracy)
        self.allowed = _allowed(stage, rules, settings) if kept is None else kept
        self._options = [options[index].planned(settings.energy_risk) for index in self.allowed]
        self._replicas: Floats | None = None
        self.scores = _column(scores[index] for index in self.allowed)
        self.accuracy = _column(option.accuracy for option in self._options)
        self.batch = _column(option.batch for option in self._options)
        self.cpu_cores = _column(option.cpu_cores for option in self._options)
        self.throughput_rps = throughputs(self._options)
        figures = _OF_REPLICAS + (_OF_QUEUES if settings.latency_model == "queue" else ())
        self._figures = {figure: _by_replicas(figure, self._options) for figure in figures}
        self._units: dict[str, Floats] = {}
        if self.throughput_rps.ndim == 1:
            self._take(self._figures)

    def of(self, options: Ints) -> StageColumns:
        """Those of some of the allowed options, in the order given, each as often as it is."""
        at = np.searchsorted(self.allowed, options)
        found = copy.copy(self)
        for name in ("allowed", "scores", "accuracy", "batch", "cpu_cores", "throughput_rps"):
            setattr(found, name, getattr(self, name)[at])
        found._options = [self._options[index] for index in at]
        found._figures = {figure: values[at] for figure, values in self._figures.items()}
        found._units = {}
        if found.throughput_rps.ndim == 1:
            found._take(found._figures)
        return found

    def at(self, replicas: Floats) -> StageColumns:
        """The columns while ``replicas`` of each option work at once."""
        if self.throughput_rps.ndim == 1:
            return self
        most = self.throughput_rps.shape[1]
        index = (np.arange(len(replicas)), np.minimum(replicas, most).astype(np.intp) - 1)
        found = copy.copy(self)
        found._replicas = replicas
        found._take({figure: values[index] for figure, values in self._figures.items()})
        return found

    @property
    def options(self) -> list[Option]:
        """The options themselves, for quantities that take them one by one."""
        if self._replicas is None:
            return self._options
        return [o.at(int(n)) for o, n in zip(self._options, self._replicas, strict=True)]

    def _take(self, figures: Mapping[str, Floats]) -> None:
        for figure, values in figures.items():
            setattr(self, figure, values)

    def units(self, resource: str) -> Floats:
        """Units of a resource that one replica of each holds."""
        if resource not in self._units:
            self._units[resource] = _column(o.units(resource) for o in self._options)
        return self._units[resource]


def _allowed(stage: Stage, rules: StageRules, settings: Settings) -> Ints:
    return np.array(
        [
            index
            for index, option in enumerate(stage.options)
            if option.batch <= settings.batching_cap
            and rules.allows(option)
            and (rules.any_class or settings.mix or serves_all(option, settings))
        ],
        dtype=np.intp,
    )


def serves_all(option: Option, settings: Settings) -> bool:
    """True if an option alone can be all that a stage runs: it serves every class of requests."""
    return not option.by_class or all(
        option.of_class(each.name) is not None or each.share == 0
        for each in settings.request_classes
    )


def _column(values: Iterable[float]) -> Floats:
    return np.array(list(values), dtype=np.float64)
