"""Runs side by side, what keeps them from being comparable, and the difference in a sentence."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from ipa_energy.comparing.hull import HindsightShare, Saving
from ipa_energy.comparing.metrics import RunMetrics, metrics
from ipa_energy.errors import ConfigError
from ipa_energy.runlog.reader import Run
from ipa_energy.tables import percent, points, share

COPIED = ("workload", "profile")
"""What a run folder holds a copy of, and comparable runs have in common."""

AnyRun = TypeVar("AnyRun", Run, RunMetrics)

SAME_SHARE = 0.0005
"""Shares that print alike in percent with one decimal are called the same."""

IN_GRAMS = ("grams", "the best other weights, a constant one of energy among them")
"""What a saving in grams is of, and against whom."""

MOST_TOLD = 4
"""More runs than this are told by their ends in a headline; the tables have them all."""

Baselines = RunMetrics | Mapping[str, RunMetrics] | None
"""One for all runs, or one a run by its name: the best static plan depends on the weights."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """What ``compare`` found.

    Attributes:
        runs: one a run, the first is what the others are held against; names are unique.
        static_best: the best plan that never changes, in hindsight; run name → metrics, or ``""``
            for one that stands for all.
        hindsight: the same for the best course of plans that knew the load.
        warnings: why these runs do not tell what their difference seems to tell.
        savings: run name → what its energy saves at equal accuracy and SLA attainment against the
            best weights without; runs without energy in the objective are not in it.
        shares: run name → how much of what was possible it got.
    """

    runs: tuple[RunMetrics, ...]
    static_best: Mapping[str, RunMetrics]
    hindsight: Mapping[str, RunMetrics]
    warnings: tuple[str, ...]
    savings: Mapping[str, Saving] = field(default_factory=dict)
    shares: Mapping[str, HindsightShare] = field(default_factory=dict)

    @property
    def baselines(self) -> tuple[RunMetrics, ...]:
        """Every static best, then every hindsight plan."""
        return (*self.static_best.values(), *self.hindsight.values())

    def to_json(self) -> dict[str, Any]:
        """The comparison as ``compare --json`` shows it.

        With baselines by run, ``static_best`` is that of the last run that has one, and
        ``static_best_per_run`` has all of them; likewise ``hindsight``.
        """
        return {
            "runs": self.runs,
            **_baseline_json("static_best", self.static_best),
            **_baseline_json("hindsight", self.hindsight),
            "hindsight_share": self.shares,
            "difference": [self.difference(run) for run in self.runs[1:]],
            "warnings": self.warnings,
            "yardstick": {
                name: {
                    "joules_per_request": [one.joules_per_request for one in saving.outcomes],
                    "least_joules_without_energy": saving.least_joules,
                    "saving_mean": saving.mean,
                    "saving_least": saving.least,
                    "saving_most": saving.most,
                    "savings": saving.savings,
                    **({"grams": _in_grams(saving.grams)} if saving.grams else {}),
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


def _baseline_json(name: str, baselines: Mapping[str, RunMetrics]) -> dict[str, Any]:
    last = list(baselines.values())[-1] if baselines else None
    by_run = {} if "" in baselines else dict(baselines)
    return {name: last, f"{name}_per_run": by_run}


def compare(
    runs: Sequence[Run | RunMetrics],
    *,
    static_best: Baselines = None,
    hindsight: Baselines = None,
    savings: Mapping[str, Saving] | None = None,
    shares: Mapping[str, HindsightShare] | None = None,
) -> Comparison:
    """Runs side by side.

    Args:
        runs: at least one; the others are held against the first. Runs of one name get a number.
        static_best: the best static plan in hindsight, as metrics of having run it.
        hindsight: the best course that knew the load, as metrics of having run it.
        savings: run name → against the best weights without energy
            (:func:`ipa_energy.frontier.sweep.saving_study`).
        shares: run name → what it got of what was possible
            (:func:`ipa_energy.frontier.yardsticks.yardsticks_of`).

    Raises:
        ConfigError: there are no runs.
    """
    if not runs:
        raise ConfigError("nothing to compare", allowed="one run or more")
    found = numbered([run if isinstance(run, RunMetrics) else metrics(run) for run in runs])
    return Comparison(
        runs=tuple(found),
        static_best=_by_run(static_best),
        hindsight=_by_run(hindsight),
        warnings=tuple(_warnings(found)),
        savings=dict(savings or {}),
        shares=dict(shares or {}),
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


def _kind_of_grams(run: RunMetrics, key: str) -> str | None:
    """``average`` or ``marginal``, ``direct`` or ``life cycle``; None if nobody says."""
    said = (run.settings.get("carbon") or {}).get(key)
    return None if said == "unknown" else said


def _warnings(runs: Sequence[RunMetrics]) -> list[str]:
    first = runs[0]
    found = []
    checks: tuple[tuple[Callable[[RunMetrics], Any], str], ...] = (
        (
            lambda run: run.settings.get("latency_sla_s") or run.latency_sla_s,
            "a different latency SLA",
        ),
        (lambda run: run.workload or None, "a different workload"),
        (lambda run: run.profile or None, "a different profile"),
        (lambda run: run.hardware or None, "a profile of different hardware"),
        (lambda run: run.backend or None, "a different backend"),
        (lambda run: run.meter, "a different energy meter"),
        (lambda run: run.quality, "joules of another quality"),
        (lambda run: _kind_of_grams(run, "kind"), "grams of another kind"),
        (lambda run: _kind_of_grams(run, "scope"), "grams of another scope"),
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
        f"{run.unproven} of {run.decisions} decisions of {run.name} were not proven the best in the"
        f" time they had: others may be up to {100 * run.largest_gap:.2g} % better"
        for run in runs
        if run.unproven
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


def headline(comparison: Comparison, *, with_rivals: bool = True) -> str:
    """What the runs saved against the first and what it cost, as a few sentences.

    What a run saved against the best weights without energy comes before anything else, grams of
    runs with carbon in their objective before joules.

    Args:
        comparison: of the runs.
        with_rivals: False leaves out what carbon saves against each rival, which tables have.
    """
    saved = _saved(comparison, with_rivals=with_rivals)
    return " ".join([*saved, _against_first(comparison)])


def _in_grams(saving: Saving) -> dict[str, Any]:
    against = {name: _in_grams(one) for name, one in saving.rivals.items()}
    return {
        "saving_mean": saving.mean,
        "savings": saving.savings,
        "least_g_per_million_requests": saving.least_joules,
        **({"sentence": _grams_sentence(saving), "against": against} if against else {}),
    }


def _grams_sentence(saving: Saving, *, with_rivals: bool = True) -> str:
    """What carbon saves, and what it saves against each of its rivals."""
    told = []
    for name, one in saving.rivals.items() if with_rivals else ():
        if not math.isnan(one.mean):
            told.append(f"{one.change} than {name}")
    rest = f"; {', '.join(told)}" if told else ""
    return saving.sentence(*IN_GRAMS) + rest


def _saved(comparison: Comparison, *, with_rivals: bool) -> list[str]:
    """A sentence a run, or one for all of more than :data:`MOST_TOLD`."""
    found = [
        (run.name, comparison.savings[run.name])
        for run in comparison.runs
        if run.name in comparison.savings
    ]
    known = [(name, saving) for name, saving in found if not math.isnan(saving.mean)]
    if len(found) <= MOST_TOLD or not known:
        return [
            *(
                f"{name}: {_grams_sentence(one.grams, with_rivals=with_rivals)}."
                for name, one in found
                if one.grams
            ),
            *(f"{name}: {saving.sentence()}." for name, saving in found),
        ]
    in_grams = [(name, saving.grams) for name, saving in found if saving.grams]
    return [
        *(_ends(in_grams, "carbon", *IN_GRAMS) if in_grams else []),
        *_ends(found, "energy", "joules", "IPA with its best other weights"),
    ]


def _ends(found: Sequence[tuple[str, Saving]], term: str, what: str, rivals: str) -> Iterator[str]:
    """The least and the most that a term of the objective saves, of many runs."""
    known = sorted(
        ((saving.mean, name) for name, saving in found if not math.isnan(saving.mean)),
    )
    if not known:
        return
    (least_saved, least), (most_saved, most) = known[0], known[-1]
    rest = len(found) - len(known)
    yield (
        f"At equal accuracy and SLA attainment, against {rivals}, {term}"
        f" saves {share(least_saved)} ({least}) to {share(most_saved)} ({most}) of the"
        f" {what} of {len(known)} runs"
        f"{f'; {rest} more have nothing to be held against' if rest else ''}."
    )


def _against_first(comparison: Comparison) -> str:
    first, *others = comparison.runs
    if not others:
        return _alone(first)
    if len(others) == 1:
        return _one_against(others[0], first)
    same = [run for run in others if not _has_other_load(run, first)]
    known = [run for run in same if not math.isnan(_change(run, first))]
    parts = [_all_against(known, first)] if known else []
    for why, runs in (
        ("had another load than", [run for run in others if run not in same]),
        ("cannot be held in joules against", [run for run in same if run not in known]),
    ):
        if runs:
            parts.append(f"{_listed([run.name for run in runs])} {why} {first.name}.")
    return " ".join(parts)


def _all_against(runs: Sequence[RunMetrics], first: RunMetrics) -> str:
    """Every run, or the two ends of many, against the first."""
    qualities = dict.fromkeys(str(run.quality) for run in (first, *runs))
    begin = f"Joules per request ({' and '.join(qualities)}) against {first.name}: "
    if len(runs) <= MOST_TOLD:
        return begin + "; ".join(f"{run.name} {_gaps(run, first)}" for run in runs) + "."
    ordered = sorted(runs, key=lambda run: run.joules_per_request)
    low, high = ordered[0], ordered[-1]
    ends = f"from {low.name} {_gaps(low, first)} to {high.name} {_gaps(high, first)}"
    return f"{begin}{len(runs)} runs, {ends}."


def _gaps(run: RunMetrics, first: RunMetrics) -> str:
    accuracy = run.accuracy_mean - first.accuracy_mean
    gaps = [
        f"{points(run.sla_attainment - first.sla_attainment)} in SLA",
        "accuracy not known" if math.isnan(accuracy) else f"{points(accuracy)} accuracy",
    ]
    return f"{percent(_change(run, first))} ({', '.join(gaps)})"


def _listed(names: Sequence[str]) -> str:
    if len(names) > MOST_TOLD:
        return f"{names[0]} and {len(names) - 1} others"
    *before, last = names
    return f"{', '.join(before)} and {last}" if before else last


def _change(run: RunMetrics, first: RunMetrics) -> float:
    return relative(run.joules_per_request, first.joules_per_request)


def _has_other_load(run: RunMetrics, first: RunMetrics) -> bool:
    known = run.workload and first.workload and _both_known(run, first, "workload")
    return bool(known) and run.workload != first.workload


def _one_against(last: RunMetrics, first: RunMetrics) -> str:
    if _has_other_load(last, first):
        return f"{last.name} and {first.name} served different loads: their figures do not compare."
    if math.isnan(_change(last, first)):
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
    if math.isnan(last.sla_attainment) or math.isnan(first.sla_attainment):
        return f"{text[:-1]}; {_accuracy(last, first)}."
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
    change = _change(run, first)
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
    summed = ", summed over the stages" if run.is_summed else ""
    verb = "cost" if gap < 0 else "gained"
    return f"it {verb} {abs(100 * gap):.1f} points of accuracy{summed}"
