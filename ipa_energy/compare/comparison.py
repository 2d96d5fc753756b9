"""Runs side by side, what keeps them from being comparable, and the baselines under them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ipa_energy.as_json import or_none
from ipa_energy.compare.metrics import RunMetrics, metrics
from ipa_energy.errors import ConfigError
from ipa_energy.runlog.reader import Run

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
    """

    runs: tuple[RunMetrics, ...]
    static_best: Mapping[str, RunMetrics]
    oracle: Mapping[str, RunMetrics]
    warnings: tuple[str, ...]

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
            "runs": [run.to_json() for run in self.runs],
            "static_best": _baseline_json(self.static_best),
            "oracle": _baseline_json(self.oracle),
            "difference": [self.difference(run) for run in self.runs[1:]],
            "warnings": list(self.warnings),
        }

    def difference(self, run: RunMetrics) -> dict[str, Any]:
        """A run against the first: ratios minus one, and differences where a ratio says little."""
        first = self.runs[0]
        ratios = ("joules_per_request", "energy_j", "cores_mean", "core_hours", "power_mean_w")
        gaps = ("accuracy_mean", "sla_attainment", "latency_p50_s", "latency_p99_s")
        return {
            "name": run.name,
            "to": first.name,
            **{
                f"{key}_ratio": or_none(relative(getattr(run, key), getattr(first, key)))
                for key in ratios
            },
            **{key: or_none(getattr(run, key) - getattr(first, key)) for key in gaps},
        }


def relative(value: float, base: float) -> float:
    """``value/base − 1``; NaN if that means nothing."""
    return value / base - 1.0 if base > 0 else math.nan


def _baseline_json(baselines: Mapping[str, RunMetrics]) -> dict[str, Any] | None:
    if not baselines:
        return None
    data = list(baselines.values())[-1].to_json()
    if "" not in baselines:
        data["per_run"] = {name: found.to_json() for name, found in baselines.items()}
    return data


def compare(
    runs: Sequence[Run | RunMetrics], *, static_best: Baselines = None, oracle: Baselines = None
) -> Comparison:
    """Runs side by side.

    Args:
        runs: at least one; the others are held against the first. Runs of one name get a number.
        static_best: the best static plan in hindsight, as metrics of having run it.
        oracle: an adaptation that knows the load, as metrics of having run it.

    Raises:
        ConfigError: there are no runs.
    """
    if not runs:
        raise ConfigError("nothing to compare", allowed="one run or more")
    found = _unique([run if isinstance(run, RunMetrics) else metrics(run) for run in runs])
    return Comparison(
        runs=tuple(found),
        static_best=_by_run(static_best),
        oracle=_by_run(oracle),
        warnings=tuple(_warnings(found)),
    )


def _by_run(baselines: Baselines) -> Mapping[str, RunMetrics]:
    if baselines is None:
        return {}
    return {"": baselines} if isinstance(baselines, RunMetrics) else dict(baselines)


def _unique(runs: list[RunMetrics]) -> list[RunMetrics]:
    """Number the runs that share a name."""
    count = Counter(run.name for run in runs)
    seen: Counter[str] = Counter()
    unique = []
    for run in runs:
        seen[run.name] += 1
        named = f"{run.name} ({seen[run.name]})" if count[run.name] > 1 else run.name
        unique.append(replace(run, name=named))
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
        for value, what in checks:
            mine, theirs = value(run), value(first)
            unknown = mine is None or theirs is None
            if mine != theirs and not (unknown and "SLA" not in what):
                found.append(
                    f"{run.name} has {what} than {first.name}{_both(what, mine, theirs)}:"
                    " their difference is not the settings' alone"
                )
        if run.requests != first.requests and not any("workload" in text for text in found):
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


def _both(what: str, mine: Any, theirs: Any) -> str:
    if "SLA" in what:
        return f" ({_seconds(mine)}, not {_seconds(theirs)})"
    if any(word in what for word in ("workload", "profile")) and "hardware" not in what:
        return ""  # digests tell a reader nothing
    return f" ({mine}, not {theirs})"


def _seconds(value: float | None) -> str:
    return "none" if value is None else f"{value:g} s"
