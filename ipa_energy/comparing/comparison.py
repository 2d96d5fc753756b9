"""Runs side by side, what keeps them from being comparable, and the difference in a sentence."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from ipa_energy.comparing.hull import Saving
from ipa_energy.comparing.metrics import RunMetrics, metrics
from ipa_energy.errors import ConfigError
from ipa_energy.runlog.reader import Run

COPIED = ("workload", "profile")
"""What a run folder holds a copy of, and comparable runs have in common."""

AnyRun = TypeVar("AnyRun", Run, RunMetrics)

SAME_SHARE = 0.0005
"""Shares that print alike in percent with one decimal are called the same."""

Baselines = RunMetrics | Mapping[str, RunMetrics] | None
"""One for all runs, or one a run by its name: the best static plan depends on the weights."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """What ``compare`` found.

    Attributes:
        runs: one a run, the first is what the others are held against; names are unique.
        static_best: the best plan that never changes, in hindsight; run name → metrics, or ``""``
            for one that stands for all.
        oracle: the same for an adaptation that knows the load.
        warnings: why these runs do not tell what their difference seems to tell.
        savings: run name → what its energy saves at equal accuracy and SLA attainment against the
            best weights without; runs without energy in the objective are not in it.
    """

    runs: tuple[RunMetrics, ...]
    static_best: Mapping[str, RunMetrics]
    oracle: Mapping[str, RunMetrics]
    warnings: tuple[str, ...]
    savings: Mapping[str, Saving] = field(default_factory=dict)

    @property
    def baselines(self) -> tuple[RunMetrics, ...]:
        """Every static best, then every oracle."""
        return (*self.static_best.values(), *self.oracle.values())

    def to_json(self) -> dict[str, Any]:
        """The comparison as ``compare --json`` shows it.

        With baselines by run, ``static_best`` is that of the last run that has one, and all of them
        stand under its ``per_run``; likewise ``oracle``.
        """
        return {
            "runs": self.runs,
            "static_best": _baseline_json(self.static_best),
            "oracle": _baseline_json(self.oracle),
            "difference": [self.difference(run) for run in self.runs[1:]],
            "warnings": self.warnings,
            "yardstick": {
                name: {
                    "saving_mean": saving.mean,
                    "saving_least": saving.least,
                    "saving_most": saving.most,
                    "savings": saving.savings,
                    "sentence": saving.sentence(),
                }
                for name, saving in self.savings.items()
            },
        }

    def difference(self, run: RunMetrics) -> dict[str, Any]:
        """A run against the first: relative changes, and differences where these say little.

        ``X_change`` is X of the run over X of the first, minus one: −0.17 is 17 % less. The same
        number stands under ``X_ratio``, its old name.
        """
        first = self.runs[0]
        ratios = ("joules_per_request", "energy_j", "cores_mean", "core_hours", "power_mean_w")
        gaps = ("accuracy_mean", "sla_attainment", "latency_p50_s", "latency_p99_s")
        changes = {key: relative(getattr(run, key), getattr(first, key)) for key in ratios}
        for key, amount in run.amounts.items():
            changes[key] = relative(amount, first.amount(key))
        names = ("change", "ratio")
        return {
            "name": run.name,
            "to": first.name,
            **{f"{key}_{name}": change for key, change in changes.items() for name in names},
            **{key: getattr(run, key) - getattr(first, key) for key in gaps},
        }


def relative(value: float, base: float) -> float:
    """``value/base − 1``; NaN if that means nothing."""
    return value / base - 1.0 if base > 0 else math.nan


def _baseline_json(baselines: Mapping[str, RunMetrics]) -> dict[str, Any] | None:
    if not baselines:
        return None
    data = list(baselines.values())[-1].to_json()
    if "" not in baselines:
        data["per_run"] = dict(baselines)
    return data


def compare(
    runs: Sequence[Run | RunMetrics],
    *,
    static_best: Baselines = None,
    oracle: Baselines = None,
    savings: Mapping[str, Saving] | None = None,
) -> Comparison:
    """Runs side by side.

    Args:
        runs: at least one; the others are held against the first. Runs of one name get a number.
        static_best: the best static plan in hindsight, as metrics of having run it.
        oracle: an adaptation that knows the load, as metrics of having run it.
        savings: run name → against the best weights without energy
            (:func:`ipa_energy.frontier.sweep.saving_of_run`).

    Raises:
        ConfigError: there are no runs.
    """
    if not runs:
        raise ConfigError("nothing to compare", allowed="one run or more")
    found = numbered([run if isinstance(run, RunMetrics) else metrics(run) for run in runs])
    return Comparison(
        runs=tuple(found),
        static_best=_by_run(static_best),
        oracle=_by_run(oracle),
        warnings=tuple(_warnings(found)),
        savings=dict(savings or {}),
    )


def _by_run(baselines: Baselines) -> Mapping[str, RunMetrics]:
    if baselines is None:
        return {}
    return {"": baselines} if isinstance(baselines, RunMetrics) else dict(baselines)


def numbered(runs: Sequence[AnyRun]) -> list[AnyRun]:
    """The runs, those that share a name with a number: what tables and yardsticks go by."""
    count = Counter(run.name for run in runs)
    seen: Counter[str] = Counter()
    unique = []
    for run in runs:
        seen[run.name] += 1
        named = f"{run.name} ({seen[run.name]})" if count[run.name] > 1 else run.name
        unique.append(run.called(named))
    return unique


def _warnings(runs: Sequence[RunMetrics]) -> list[str]:
    first = runs[0]
    found = []
    checks: tuple[tuple[Callable[[RunMetrics], Any], str], ...] = (
        (lambda run: run.latency_sla_s, "a different latency SLA"),
        (lambda run: run.workload or None, "a different workload"),
        (lambda run: run.profile or None, "a different profile"),
        (lambda run: run.hardware or None, "a profile of different hardware"),
        (lambda run: run.backend or None, "a different backend"),
        (lambda run: run.meter, "a different energy meter"),
        (lambda run: run.quality, "joules of another quality"),
    )
    for run in runs[1:]:
        for name in COPIED:
            if not _both_known(run, first, name):
                without = run if name in run.not_copied else first
                found.append(
                    f"{without.name} has no copy of its {name} ({name}.csv): it cannot be told"
                    f" whether {run.name} and {first.name} had the same"
                )
        for value, what in checks:
            if any(
                f"different {name}" in what and not _both_known(run, first, name) for name in COPIED
            ):
                continue
            mine, theirs = value(run), value(first)
            unknown = mine is None or theirs is None
            if mine != theirs and not (unknown and "SLA" not in what):
                found.append(
                    f"{run.name} has {what} than {first.name}{_both(what, mine, theirs)}:"
                    " their difference is not the settings' alone"
                )
        if run.requests != first.requests and not any(
            "different workload" in text for text in found
        ):
            found.append(
                f"{run.name} has {run.requests} requests and {first.name} {first.requests}:"
                " totals and means are not over the same load"
            )
    found += [
        f"{run.name} is {run.status}: its figures are those of the first {run.duration_s:g} s"
        for run in runs
        if run.status not in ("complete", "ipa")
    ]
    found += [
        f"{run.name} has no joules: its log has no energy"
        for run in runs
        if math.isnan(run.energy_j)
    ]
    return found


def _both_known(run: RunMetrics, first: RunMetrics, name: str) -> bool:
    """False if one has a copy of its workload or profile and the other its name alone."""
    return (name in run.not_copied) == (name in first.not_copied)


def _both(what: str, mine: Any, theirs: Any) -> str:
    if "SLA" in what:
        return f" ({_seconds(mine)}, not {_seconds(theirs)})"
    if any(word in what for word in ("workload", "profile")) and "hardware" not in what:
        return ""  # digests tell a reader nothing
    return f" ({mine}, not {theirs})"


def _seconds(value: float | None) -> str:
    return "none" if value is None else f"{value:g} s"


def headline(comparison: Comparison) -> str:
    """What the last run saved against the first and what it cost, as a few sentences.

    What each run saved against the best weights without energy comes before anything else.
    """
    savings = [
        f"{run.name}: {comparison.savings[run.name].sentence()}."
        for run in comparison.runs
        if run.name in comparison.savings
    ]
    return " ".join([*savings, _against_first(comparison)])


def _against_first(comparison: Comparison) -> str:
    first, last = comparison.runs[0], comparison.runs[-1]
    if len(comparison.runs) == 1:
        return _alone(first)
    known = last.workload and first.workload and _both_known(last, first, "workload")
    if known and last.workload != first.workload:
        return f"{last.name} and {first.name} served different loads: their figures do not compare."
    if math.isnan(relative(last.joules_per_request, first.joules_per_request)):
        return _without_joules(last, first)
    return f"{last.name} {_energy(last, first)}{_sla(last, first)}; {_accuracy(last, first)}."


def _without_joules(last: RunMetrics, first: RunMetrics) -> str:
    why = [
        f"{run.name} answered nothing"
        if _burnt_in_vain(run)
        else f"for want of energy in the log of {run.name}"
        for run in (first, last)
        if not run.joules_per_request > 0
    ]
    text = f"The joules of {last.name} and {first.name} cannot be compared: {' and '.join(why)}."
    text += f" {last.name} answered {100 * last.sla_attainment:.1f} % of the requests in time"
    gap = abs(last.sla_attainment - first.sla_attainment)
    same = "as many as" if gap < SAME_SHARE else f"{100 * first.sla_attainment:.1f} % in"
    return f"{text}, {same} {first.name}; {_accuracy(last, first)}."


def _burnt_in_vain(run: RunMetrics) -> bool:
    """True if its joules are known, and no request was answered that they could be charged to."""
    return run.served == 0 and not math.isnan(run.energy_j)


def _alone(run: RunMetrics) -> str:
    if _burnt_in_vain(run):
        return (
            f"{run.name} used {run.energy_j:.4g} joules ({run.quality}) and answered none of"
            f" {run.requests} requests."
        )
    if math.isnan(run.joules_per_request):
        return (
            f"{run.name} answered {run.served} of {run.requests} requests; its log has no energy."
        )
    return (
        f"{run.name} used {run.joules_per_request:.3g} joules per request ({run.quality}) and"
        f" answered {100 * run.sla_attainment:.1f} % of the requests in time."
    )


def _energy(run: RunMetrics, first: RunMetrics) -> str:
    change = relative(run.joules_per_request, first.joules_per_request)
    if abs(change) < SAME_SHARE:
        return f"used the same joules per request ({_quality(run, first)}) as {first.name}"
    word = "fewer" if change < 0 else "more"
    amount = f"{abs(100 * change):.1f} % {word} joules per request"
    return f"used {amount} ({_quality(run, first)}) than {first.name}"


def _quality(run: RunMetrics, first: RunMetrics) -> str:
    if run.quality == first.quality:
        return str(run.quality)
    return f"{run.quality}, against {first.quality}"


def _sla(run: RunMetrics, first: RunMetrics) -> str:
    gap = run.sla_attainment - first.sla_attainment
    if math.isnan(gap):
        return ""
    if abs(gap) < SAME_SHARE:
        return f" at the same SLA attainment ({100 * run.sla_attainment:.1f} %)"
    return (
        f", with {100 * run.sla_attainment:.1f} % of the requests answered in time instead of"
        f" {100 * first.sla_attainment:.1f} %"
    )


def _accuracy(run: RunMetrics, first: RunMetrics) -> str:
    gap = run.accuracy_mean - first.accuracy_mean
    if math.isnan(gap):
        return "its accuracy is not known"
    if abs(gap) < SAME_SHARE:
        return "it cost no accuracy"
    summed = ", summed over the stages" if run.settings.get("accuracy_method") == "sum" else ""
    verb = "cost" if gap < 0 else "gained"
    return f"it {verb} {abs(100 * gap):.1f} points of accuracy{summed}"
