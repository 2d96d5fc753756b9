"""The comparison in one sentence."""

from __future__ import annotations

import math

from ipa_energy.compare.comparison import Comparison, relative
from ipa_energy.compare.metrics import RunMetrics

SAME_SHARE = 0.0005
"""Shares that print alike in percent with one decimal are called the same."""


def headline(comparison: Comparison) -> str:
    """What the last run saved against the first and what it cost, as one or two sentences."""
    first, last = comparison.runs[0], comparison.runs[-1]
    if len(comparison.runs) == 1:
        return _alone(first)
    if last.workload != first.workload and last.workload and first.workload:
        return f"{last.name} and {first.name} served different loads: their figures do not compare."
    return f"{last.name} {_energy(last, first)}{_sla(last, first)}; {_accuracy(last, first)}."


def _alone(run: RunMetrics) -> str:
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
    if math.isnan(change):
        return f"cannot be held against {first.name} in joules, for want of energy in the logs,"
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
