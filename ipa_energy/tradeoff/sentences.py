"""A study in sentences, each of them true whatever the figures are.

Every sentence is made from records, names its load where there are several, and calls joules what
they are (measured, estimated, imported). None says more than its figure: counts and hypervolumes
hold for the profile, intervals for the trials.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from ipa_energy.records import Quality
from ipa_energy.tables import counted, share, signed
from ipa_energy.tradeoff.correlation import ENERGY, HELD_FIXED, Correlation
from ipa_energy.tradeoff.energy_added import NOTHING, HeldPlan
from ipa_energy.tradeoff.plan_map import MapRow
from ipa_energy.tradeoff.prices import ACCURACY_SHARE, Exchange, Given, Move, Offer, ShadowPrice
from ipa_energy.tradeoff.robustness import Robustness
from ipa_energy.tradeoff.sensitivity import Sensitivity
from ipa_energy.tradeoff.study import Case, Study

ON_TIME = 0.99
"""Share inside the SLA from which a configuration is said to keep it."""

CLOSENESS = ((0.95, "almost one to one"), (0.8, "closely"), (0.5, "in part"), (0.0, "hardly"))
"""Least size of a rank correlation for each word."""

TRADE_OFF_BOX = (
    "The trade-off box spans accuracy, cores, latency and joules per request from the best value to"
    " the worst one on the front, each side made a tenth longer beyond the worst."
)
"""Said where its share is said first."""

NAMES = {
    "accuracy": "accuracy",
    "cost_cores": "cores",
    "latency_s": "latency",
    "joules_per_request": "joules per request",
}


def answer_of(study: Study) -> tuple[str, ...]:
    """What was found, most important first."""
    found = []
    for case in study.cases:
        at = f"At {case.name}: " if len(study.cases) > 1 else ""
        found += [f"{at}{sentence}" for sentence in _case_sentences(case, study)]
    found += _hardware_sentences(study)
    caution = _caution(study.quality, study.meter)
    return (*found, caution) if caution else tuple(found)


def _case_sentences(case: Case, study: Study) -> Iterator[str]:
    if case.conflict is not None:
        yield f"no plan is feasible: {case.conflict}."
    yield from _against_other_weights(case, study)
    yield from _verdict(case)
    yield from _hypervolume(case, defines=case is study.cases[0])
    yield from _together(case)
    yield from _weights(case, study)
    yield from _runs(case)


def _against_other_weights(case: Case, study: Study) -> Iterator[str]:
    """The yardstick, before anything else is said of energy."""
    found = case.yardstick
    if found is None:
        return
    equal = "at the same accuracy and SLA"
    if not found.savings:
        yield "no accuracy is reached by plans with energy and without it, so nothing is compared."
    elif found.adds_nothing:
        yield (
            f"energy adds nothing here: {equal} the best plans of other weights without energy need"
            f" as few joules ({study.quality})."
        )
    else:
        yield (
            f"{equal} energy in the objective saves {share(found.mean_saving)} of the joules in the"
            f" mean over all accuracies, up to {share(max(found.savings))}, against the best plans"
            f" of other weights without it ({study.quality})."
        )
    if found.chosen is not None:
        yield f"{_held(found.chosen, found.energy_weight)}."


def _held(plan: HeldPlan, weight: float) -> str:
    text = f"the plan at energy weight {weight:g}, {plan.label},"
    if math.isnan(plan.saving):
        return f"{text} is more accurate than any without energy"
    if abs(plan.saving) < NOTHING:
        return f"{text} needs as many joules as the best without energy at its accuracy"
    more = "fewer" if plan.saving > 0 else "more"
    return (
        f"{text} needs {share(abs(plan.saving))} {more} joules than the best without energy at its"
        " accuracy"
    )


def _verdict(case: Case) -> Iterator[str]:
    counts = case.only_energy
    if counts is None:
        return
    company = _company(case)
    if counts.only_front == 0:
        yield (
            "energy adds no plan of its own: each of the"
            f" {counted(counts.front, 'undominated plan')} is undominated by accuracy, cores and"
            f" latency already{company and f'. It {company}'}."
        )
    else:
        yield (
            f"energy adds plans of its own: {counts.only_front} of {counts.front} undominated"
            f" plans ({share(counts.only_front / counts.front)})"
            f" {'is' if counts.only_front == 1 else 'are'} so only because energy counts"
            f"{company and f'; it {company}'}."
        )
    chosen = counted(counts.supported, "plan")
    if counts.only_supported == 0:
        yield (
            "no plan needs a weight on energy to be the best:"
            f" {chosen} {'is' if counts.supported == 1 else 'are'} optimal for some weights of the"
            " objective, and without energy as well."
        )
    else:
        yield (
            f"{counts.only_supported} of the {chosen} that some weights of the objective make"
            f" optimal {'is' if counts.only_supported == 1 else 'are'} so only with a weight on"
            " energy."
        )


def _company(case: Case) -> str:
    """With which other objective energy goes most; empty if it varies with none."""
    found = [
        c
        for c in case.correlations
        if (c.over, c.method, c.given, c.y) == ("plans", "spearman", None, ENERGY)
        and not math.isnan(c.value)
    ]
    if not found:
        return ""
    closest = max(found, key=lambda c: abs(c.value))
    strength = abs(closest.value)
    word = next(word for least, word in CLOSENESS if strength >= least)
    return (
        f"goes with {NAMES[closest.x]} {word} (Spearman {signed(closest.value, '+.2f')} over every"
        " feasible plan)"
    )


def _hypervolume(case: Case, *, defines: bool) -> Iterator[str]:
    found = case.hypervolume
    if found is None:
        return
    least = "" if found.is_exact else " (fronts thinned, so lower bounds)"
    yield (
        "the undominated plans cover"
        f" {share(found.with_energy, 2)} of the trade-off box with energy as an objective and"
        f" {share(found.without_energy, 2)} without it ({signed_share(found.gain, 2)}){least}."
        + (f" {TRADE_OFF_BOX}" if defines else "")
    )


def _together(case: Case) -> Iterator[str]:
    for over, whom in (("plans", "every feasible plan"), ("points", "the configurations run")):
        plain: list[Correlation] = []
        partial: list[Correlation] = []
        for found in case.correlations:
            if found.over != over or found.method != "spearman" or ENERGY not in (found.x, found.y):
                continue
            (partial if found.given else plain).append(found)
        if not plain:
            continue
        text = "; ".join(f"with {_other(found)} {coefficient(found)}" for found in plain)
        yield f"joules per request rank over {whom}: {text} (Spearman)."
        if partial:
            text = "; ".join(f"with {_other(found)} {coefficient(found)}" for found in partial)
            yield f"at fixed {NAMES[HELD_FIXED]}, over {whom}: {text} (partial Spearman)."


def _other(found: Correlation) -> str:
    """What energy is correlated with here."""
    other = found.y if found.x == ENERGY else found.x
    return NAMES.get(other, other)


def _weights(case: Case, study: Study) -> Iterator[str]:
    if case.optimum is not None and case.optimum.segments:
        yield _row_sentence(case.optimum, study.settings.get("accuracy_method"))


def _row_sentence(row: MapRow, method: object) -> str:
    first, last = row.segments[0].plan, row.segments[-1].plan
    if len(row.segments) == 1:
        return f"one plan is optimal at every energy weight: {first.label}."
    saved = 1 - last.joules_per_request / first.joules_per_request
    lost = 100 * (first.accuracy_raw - last.accuracy_raw)
    summed = ", summed over the stages" if method == "sum" else ""
    thresholds = ", ".join(f"{weight:.3g}" for weight in row.thresholds)
    return (
        f"the optimal plan changes at {counted(len(row.thresholds), 'energy weight')}"
        f" ({thresholds}): from {first.label} at {first.joules_per_request:.3g} J per request to"
        f" {last.label} at {last.joules_per_request:.3g} J, which is {share(saved)} less"
        f" ({last.quality}) for {_points_of_accuracy(lost)}{summed}."
    )


def _points_of_accuracy(lost: float) -> str:
    if abs(lost) < 0.05:
        return "the same accuracy"
    return f"{abs(lost):.1f} points {'less' if lost > 0 else 'more'} accuracy"


def _runs(case: Case) -> Iterator[str]:
    points = [p for p in case.points if not math.isnan(p.joules_per_request.value)]
    kept = [p for p in case.points if p.sla_attainment.value >= ON_TIME]
    if len(points) > 1:
        least = min(points, key=lambda point: point.joules_per_request.value)
        most = max(points, key=lambda point: point.joules_per_request.value)
        yield (
            f"of the {len(points)} configurations run, {least.configuration.key} needs least with"
            f" {least.joules_per_request.value:.3g} J per request and {most.configuration.key} most"
            f" with {most.joules_per_request.value:.3g} J ({least.quality})."
        )
    if case.points:
        yield (
            f"{len(kept)} of {len(case.points)} answered at least {share(ON_TIME, 0)} of the"
            f" requests inside the latency SLA of {case.latency_sla_s:.3g} s."
        )


def _hardware_sentences(study: Study) -> Iterator[str]:
    compared = study.hardware_comparison
    if compared is None:
        return
    quality = {profile.profile: profile.quality for profile in compared.profiles}
    for load_rps in sorted({pick.load_rps for pick in compared.picks}):
        weight = float(study.settings.get("energy_weight") or 0.0)
        picks = [p for p in compared.picks if (p.load_rps, p.energy_weight) == (load_rps, weight)]
        text = "; ".join(
            f"{pick.profile} picks {pick.plan.label}"
            + (
                f" at {pick.plan.joules_per_request:.3g} J per request ({quality[pick.profile]})"
                if not math.isnan(pick.plan.joules_per_request)
                else " (no energy in this profile)"
            )
            if pick.plan
            else f"{pick.profile} has no plan"
            for pick in picks
        )
        yield f"Hardware at {load_rps:g} rps, energy weight {weight:g}: {text}."


def _caution(quality: Quality | None, meter: str | None) -> str | None:
    if quality is None:
        return "The profile has no energy: nothing can be said of it here."
    if quality == "measured":
        return None
    return (
        f"The profile's joules are {quality} ({meter}): what is said of energy here is said of that"
        f" {'estimate' if quality == 'estimated' else 'import'}."
    )


def coefficient(found: Correlation) -> str:
    """``+0.53 (0.12 to 0.78)``, or why there is none."""
    if math.isnan(found.value):
        return f"undefined ({found.reason})"
    if math.isnan(found.low):
        return signed(found.value, "+.2f")
    value, low, high = (signed(one, "+.2f") for one in (found.value, found.low, found.high))
    return f"{value} ({low} to {high})"


def feasible_words(case: Case) -> str:
    """How many plans keep the SLAs."""
    about = "" if case.is_counted else "about "
    keep = "keeps" if case.feasible_plans == 1 else "keep"
    return f"{about}{case.feasible_plans:,} of {counted(case.plans, 'plan')} {keep} the SLAs"


def signed_share(value: float, digits: int = 1) -> str:
    """A change as percent, with its sign."""
    return f"{signed(100 * value, f'+.{digits}f')} %"


SLA_NAMES = {"latency_sla_s": "latency SLA", "energy_sla_joules": "energy SLA"}


def sensitivity_sentences(found: Sensitivity) -> list[str]:
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


_GIVING: dict[Given, str] = {
    "accuracy": f"give up {_AMOUNTS['accuracy']}",
    "latency_s": f"answer {_AMOUNTS['latency_s']} later",
    "cost_cores": f"use {_AMOUNTS['cost_cores']} more",
}


def _exchange(exchange: Exchange, found: Sensitivity, more: str) -> str:
    spent = found.plan.joules_per_request
    text = f"{_GIVING[exchange.given]}, save"
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
    name, unit = SLA_NAMES.get(price.sla, price.sla), price.unit

    def with_unit(value: float) -> str:
        return f"{value:.4g} {unit}".rstrip()

    wider, tighter = ("down to", "above") if price.is_floor else ("from", "below")
    on = "" if price.is_floor else " on"
    if price.reason is not None:
        yield f"{name}: no price: {price.reason}"
        return
    if price.limit is None:
        text = f"{name}: not set, so not binding; the chosen plan has {with_unit(price.used)}"
    elif price.relaxed is None:
        text = (
            f"{name} of {with_unit(price.limit)}: not binding, no looser one buys a better plan;"
            f" the chosen plan has {with_unit(price.used)}"
        )
    else:
        text = (
            f"{name} of {with_unit(price.limit)}: binding; {wider}"
            f" {with_unit(price.relaxed.limit)}{on} the plan is {_step(price.relaxed, unit)}"
        )
    yield text
    down = price.tightened
    if down is None:
        return
    below = f"{name} {tighter} {with_unit(down.limit)}"
    if down.plan is None:
        yield f"{below}: nothing is feasible"
    else:
        yield f"{below}: the plan is {_step(down, unit)}"


def _step(move: Move, unit: str) -> str:
    label = move.plan.label if move.plan else ""
    text = f"{label}, objective {signed(move.objective_change, '+.4g')}"
    if move.distance > 0:
        text += f" ({signed(move.objective_change / move.distance, '+.4g')} per {unit or 'unit'})"
    if not math.isnan(move.joules_change):
        text += f", {signed(move.joules_change, '+.4g')} J per request"
        if move.distance > 0:
            text += f" ({signed(move.joules_change / move.distance, '+.4g')} per {unit or 'unit'})"
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
        yield f"in {share(other.draws / robust.draws)} of the draws {other.label} is better"
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
        f" {share(robust.stays_optimal)} of the draws"
    )
    if not robust.counts_energy:
        text += "; joules do not enter the decision (no energy weight, no energy SLA)"
    if robust.breaks_energy_sla:
        text += f"; it breaks the energy SLA in {share(robust.breaks_energy_sla)}"
    if robust.draws_without_plan:
        text += f"; no plan is feasible in {share(robust.draws_without_plan)}"
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


def _j(value: float) -> str:
    return f"{value:.3g} J"
