"""A sensitivity analysis in sentences, each of them true whatever the figures are."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

from ipa_energy.tradeoff.exchange import ACCURACY_SHARE, Exchange, Given, Offer

if TYPE_CHECKING:
    from ipa_energy.tradeoff.robustness import Robustness
    from ipa_energy.tradeoff.sensitivity import Sensitivity
    from ipa_energy.tradeoff.shadow_price import Move, ShadowPrice

SLA_NAMES = {"latency_sla_s": ("latency SLA", "s"), "energy_sla_joules": ("energy SLA", "J")}


def sentences(found: Sensitivity) -> list[str]:
    """The analysis in words, one finding a line."""
    return [
        *_front(found),
        *_exchanges(found),
        *(line for price in found.shadow_prices for line in _price(price)),
        *_robustness(found),
    ]


def _front(found: Sensitivity) -> Iterator[str]:
    plan = found.plan
    joules = "joules unknown"
    if not math.isnan(plan.joules_per_request):
        joules = f"{_j(plan.joules_per_request)} per request"
        upper = ", upper ends of the intervals" if found.energy_risk == "upper" else ""
        joules += f" ({found.quality}{upper})" if found.quality else ""
    yield (
        f"chosen: {plan.label}: accuracy {plan.accuracy:.4g}, {plan.cost_cores:g} cores,"
        f" {plan.latency_s:.3g} s, {joules}"
    )
    if not found.accuracy_is_raw:
        yield (
            "accuracies are ranks here: some raw ones are negative, and their product means nothing"
        )
    front = found.front
    if front is None:
        yield f"no Pareto front: {found.reasons['front']}"
        return
    named = "accuracy, cores, latency and joules"
    if not front.has_energy:
        named = "accuracy, cores and latency (no joules)"
    ends = "; ".join(
        f"{_OBJECTIVES[name]} {low:.4g} to {high:.4g}" for name, (low, high) in front.ranges.items()
    )
    yield (
        f"Pareto front of {named}: {front.size:,} of {front.combinations:,} plans, {ends};"
        f" the chosen plan is {'on' if front.holds_plan else 'not on'} it"
    )


_OBJECTIVES = {
    "accuracy": "accuracy",
    "cost_cores": "cores",
    "latency_s": "latency s",
    "joules_per_request": "J per request",
}


def _exchanges(found: Sensitivity) -> Iterator[str]:
    exchanges = found.exchanges
    if exchanges is None:
        yield f"no exchange rates: {found.reasons['exchanges']}"
        return
    spent = found.plan.joules_per_request
    if exchanges.free is not None:
        yield (
            f"give up nothing, save {_saved(exchanges.free, spent)} with {exchanges.free.label},"
            " which the weights as they are rank no higher"
        )
    for exchange in exchanges.at_plan:
        yield _exchange(exchange, found, "more " if exchanges.free else "")
    for summary in exchanges.along_front:
        amount = _AMOUNTS[summary.given]
        text = f"along the front, {amount} less saves"
        if summary.given != "accuracy":
            text = f"along the front, {amount} more saves"
        if summary.with_saving == 0:
            yield f"{text} nothing at any of {summary.points} points"
        else:
            yield (
                f"{text} joules at {summary.with_saving} of {summary.points} points, there"
                f" {_j(summary.median_j)} per request in the median and at most"
                f" {_j(summary.most_j)} (from {summary.most_from})"
            )


_AMOUNTS: dict[Given, str] = {
    "accuracy": f"{100 * ACCURACY_SHARE:g} % accuracy",
    "latency_s": "50 ms",
    "cost_cores": "one core",
}


def _exchange(exchange: Exchange, found: Sensitivity, more: str) -> str:
    spent = found.plan.joules_per_request
    text = f"give up {_AMOUNTS[exchange.given]}, save"
    if exchange.bought is not None:
        text += f" {_saved(exchange.bought, spent)} with {exchange.bought.label}"
        sla_s = found.shadow_prices[0].limit
        if sla_s is not None and exchange.bought.latency_s > sla_s * (1 + 1e-9):
            text += f" (it needs a latency SLA of {exchange.bought.latency_s:.4g} s)"
    else:
        text += f" nothing{more and ' more'}"
        if exchange.first is None:
            return f"{text}; no amount of it alone does"
        first = exchange.first
        text += f"; the least that saves anything is {_given(exchange, first.given_up, found)},"
        text += f" for {_saved(first, spent)}"
    most = exchange.most
    if most is not None and most not in (exchange.bought, exchange.first):
        text += f"; at most {_saved(most, spent)}, for {_given(exchange, most.given_up, found)}"
    return text


def _given(exchange: Exchange, amount: float, found: Sensitivity) -> str:
    if exchange.given == "accuracy":
        whole = abs(found.plan.accuracy)
        return f"{100 * amount / whole:.3g} % accuracy" if whole else f"{amount:.3g} accuracy"
    if exchange.given == "latency_s":
        return f"{1e3 * amount:.3g} ms"
    return f"{amount:g} cores" if amount != 1 else "one core"


def _saved(offer: Offer, spent: float) -> str:
    share = f" ({100 * offer.saved_j / spent:.3g} %)" if spent > 0 else ""
    return f"{_j(offer.saved_j)} per request{share}"


def _price(price: ShadowPrice) -> Iterator[str]:
    name, unit = SLA_NAMES[price.sla]
    if price.reason is not None:
        yield f"{name}: no price: {price.reason}"
        return
    if price.limit is None:
        text = f"{name}: not set, so not binding; the chosen plan has {price.used:.4g} {unit}"
    elif price.relaxed is None:
        text = (
            f"{name} of {price.limit:.4g} {unit}: not binding, no looser one buys a better plan;"
            f" the chosen plan has {price.used:.4g} {unit}"
        )
    else:
        text = (
            f"{name} of {price.limit:.4g} {unit}: binding; from {price.relaxed.limit:.4g} {unit} on"
            f" the plan is {_step(price.relaxed, unit)}"
        )
    yield text
    down = price.tightened
    if down is None:
        return
    below = f"{name} below {down.limit:.4g} {unit}"
    if down.plan is None:
        yield f"{below}: nothing is feasible"
    else:
        yield f"{below}: the plan is {_step(down, unit)}"


def _step(move: Move, unit: str) -> str:
    label = move.plan.label if move.plan else ""
    text = f"{label}, objective {move.objective_change:+.4g}"
    if move.distance > 0:
        text += f" ({move.objective_change / move.distance:+.4g} per {unit})"
    if not math.isnan(move.joules_change):
        text += f", {move.joules_change:+.4g} J per request"
        if move.distance > 0:
            text += f" ({move.joules_change / move.distance:+.4g} per {unit})"
    return text


def _robustness(found: Sensitivity) -> Iterator[str]:
    robust = found.robustness
    if robust is None:
        yield f"no resampling: {found.reasons['robustness']}"
        return
    if robust.unknown_intervals == robust.options:
        yield "robustness: the profile has no interval for any joule figure; nothing to resample"
        return
    yield _stays(robust)
    if robust.unknown_intervals:
        yield (
            f"{robust.unknown_intervals} of {robust.options} options have no interval and were held"
            " at their mean: the plan may be less certain than this"
        )
    for other in robust.replacements:
        yield f"in {_share(other.draws / robust.draws)} of the draws {other.label} is better"
    if robust.regret_j is not None and robust.regret_j.most > 0:
        yield (
            f"what the chosen plan loses to the best, in joules' worth: {_j(robust.regret_j.mean)}"
            f" per request in the mean, at most {_j(robust.regret_j.p95)} in 95 % of the draws,"
            f" {_j(robust.regret_j.most)} in the worst one"
        )
    yield _upper(robust)


def _stays(robust: Robustness) -> str:
    text = (
        f"robustness: with the profile's joules drawn within their 95 % intervals {robust.draws}"
        f" times (seed {robust.seed}), the chosen plan is optimal in"
        f" {_share(robust.stays_optimal)} of the draws"
    )
    if not robust.counts_energy:
        text += "; joules do not enter the decision (no energy weight, no energy SLA)"
    if robust.breaks_energy_sla:
        text += f"; it breaks the energy SLA in {_share(robust.breaks_energy_sla)}"
    if robust.draws_without_plan:
        text += f"; no plan is feasible in {_share(robust.draws_without_plan)}"
    return text


def _upper(robust: Robustness) -> str:
    if robust.upper is None:
        return "with every joule figure at the upper end of its interval nothing is feasible"
    if robust.upper_is_same:
        return "with every joule figure at the upper end of its interval the same plan is optimal"
    return (
        "with every joule figure at the upper end of its interval the plan would be"
        f" {robust.upper.label}, at {_j(robust.upper.joules_per_request)} per request there"
    )


def _share(value: float) -> str:
    return f"{100 * value:.1f} %"


def _j(value: float) -> str:
    return f"{value:.3g} J"
