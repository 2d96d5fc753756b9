"""A :class:`~.plan.Plan` from the profile alone: what some options mean at a load, good or bad.

Plain scalar arithmetic that shares no code with the solvers' tables (:mod:`.problem`): the formulas
of :mod:`ipa_energy.energy` are here a second time on purpose, so that a plan's certificate is a
second opinion on every constraint.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

from ipa_energy.optimizer.plan import (
    SHARE_RTOL,
    Certificate,
    Check,
    Choice,
    Plan,
    StagePlan,
    latency_of,
    of_site,
    planned_joules,
)
from ipa_energy.optimizer.pools import Cut, cuts_of, gpus_used
from ipa_energy.optimizer.problem import Problem, combine_accuracy, within
from ipa_energy.optimizer.quantities import (
    CAPPED_JOULES,
    LATENCY_OF,
    UNITS,
    Moment,
    amount_of,
)
from ipa_energy.optimizer.queue_wait import planned_wait_s
from ipa_energy.optimizer.settings import Cap, Settings, Term, caps_at, caps_of, terms_of
from ipa_energy.optimizer.stage_columns import StageRules, accuracy_ranks
from ipa_energy.records import Option, Part, Stage

_JOULES = "joules_per_request"


def build_plan(problem: Problem, choice: Choice) -> Plan:
    """The plan of ``choice``, everything recomputed from the chosen options' profile."""
    picks = []
    for candidates, candidate in zip(problem.stages, choice, strict=True):
        option = candidates.option(candidate)
        picks.append((option, int(candidates.replicas[candidate])))
    return build_mix(problem, [(one_part(*pick, problem.settings),) for pick in picks])


def build_mix(problem: Problem, parts: Sequence[Sequence[Part]]) -> Plan:
    """The plan of what runs in each stage, everything recomputed from the options' profile."""
    stages = [candidates.stage for candidates in problem.stages]
    picks = list(zip(stages, parts, strict=True))
    counted = problem.terms, problem.caps
    return _plan(picks, problem.settings, problem.rules, problem.moment, counted)


def one_part(option: Option, replicas: int, settings: Settings) -> Part:
    """A stage that runs one option for all of its requests."""
    if not settings.request_classes:
        return Part(option, replicas)
    shares = [(each.name, each.share) for each in settings.request_classes]
    return Part(option, replicas, tuple(shares))


def plan_of(
    picks: Sequence[tuple[Stage, Option, int]],
    settings: Settings,
    rules: Sequence[StageRules],
    moment: Moment | float,
) -> Plan:
    """:func:`plan_of_parts` with one option a stage: (stage, option, replicas)."""
    parts = [(stage, [one_part(option, n, settings)]) for stage, option, n in picks]
    return plan_of_parts(parts, settings, rules, moment)


def plan_of_parts(
    picks: Sequence[tuple[Stage, Sequence[Part]]],
    settings: Settings,
    rules: Sequence[StageRules],
    moment: Moment | float,
) -> Plan:
    """What running these options with these replicas means at a load, good or bad.

    The way to describe a configuration no solver chose, e.g. the one a pipeline starts with; its
    certificate says which constraints it breaks.

    Args:
        picks: (stage, what it runs), first stage first.
        settings: weights, caps and SLAs.
        rules: one a stage.
        moment: what it is for, or λ; of changing loads the mean counts.
    """
    moment = moment if isinstance(moment, Moment) else Moment.at(moment)
    moment = moment.knowing(settings.signals)
    caps = caps_at(caps_of(settings, len(picks)), moment)
    return _plan(picks, settings, rules, moment, (terms_of(settings), caps))


def _plan(
    picks: Sequence[tuple[Stage, Sequence[Part]]],
    settings: Settings,
    rules: Sequence[StageRules],
    moment: Moment,
    counted: tuple[Sequence[Term], Sequence[Cap]],
) -> Plan:
    """:func:`plan_of` with the terms and caps of its settings, which a problem has at hand."""
    moment = moment.on_average
    filled = [(stage, _filled(stage, parts, moment.mean_rps)) for stage, parts in picks]
    penalties, caps = counted
    stages = tuple(_stage_plan(*pick, settings, moment.mean_rps) for pick in filled)
    accuracy = combine_accuracy([stage.accuracy for stage in stages], settings.accuracy_method)
    raw = combine_accuracy([stage.accuracy_raw for stage in stages], settings.accuracy_method)
    totals = _known_totals(stages, moment)
    amounts: dict[str, float] = {}
    for quantity in [*(term.quantity for term in penalties), *(cap.quantity for cap in caps)]:
        if quantity not in totals:
            amounts[quantity] = _total(quantity, stages, filled, settings, moment)
    totals.update(amounts)
    running = [(part.option, part.replicas) for _, parts in filled for part in parts]
    cuts = cuts_of(settings.gpus, running)
    terms = {"accuracy": settings.alpha * accuracy, "cost": 0.0, "batch": 0.0, "energy": 0.0}
    for term in penalties:
        terms[term.name] = term.weight * totals[term.quantity]
    return Plan(
        stages=stages,
        moment=moment,
        accuracy=accuracy,
        accuracy_raw=raw,
        energy_risk=settings.energy_risk,
        terms=terms,
        amounts=amounts,
        certificate=Certificate(
            (
                *_stage_checks(stages, settings, rules),
                *_cap_checks(caps, totals, wide=any(stage.is_wide for stage in stages)),
                *_pool_checks(settings, running, cuts),
                *_site_checks(stages),
            )
        ),
        cuts=cuts,
    )


def _pool_checks(
    settings: Settings, running: Sequence[tuple[Option, int]], cuts: Mapping[str, Cut | None]
) -> Iterator[Check]:
    for pool in settings.gpus:
        used = gpus_used(pool, running, cuts[pool.name])
        yield Check(f"gpus:{pool.name}", used, pool.gpus, used <= pool.gpus)


def _kept(cap: Cap, totals: Mapping[str, float], *, wide: bool) -> Check:
    total = totals[cap.quantity]
    holds = _holds(total, cap.limit, wide=wide)
    return Check(cap.name, cap.shown(total), cap.shown(cap.limit), holds)


def _holds(total: float, limit: float, *, wide: bool) -> bool:
    """Whether a total is within a limit; shares of a mix are known to so many digits only."""
    return within(total, limit) or (
        wide and total <= limit + SHARE_RTOL * max(abs(limit), abs(total))
    )


def _known_totals(stages: Sequence[StagePlan], moment: Moment) -> dict[str, float]:
    """The built-in quantities of a plan."""
    joules = planned_joules(stages)
    totals = {
        "cost": sum(stage.cost_cores for stage in stages),
        "batch": sum(part.option.batch for stage in stages for part in stage.parts),
        "latency_s": latency_of(stages),
        "joules_per_request": joules,
        "watts": moment.mean_rps * joules,
    }
    if moment.capped_rps is not None:
        totals[CAPPED_JOULES] = joules + sum(_more_idle_j(stage, moment) for stage in stages)
    return totals


def _more_idle_j(stage: StagePlan, moment: Moment) -> float:
    """Joules a pipeline request waits for more at the low end of the load than at its mean."""
    held_w = _idle_w(stage.parts)
    return held_w / moment.energy_cap_rps - held_w / moment.mean_rps


def _total(
    quantity: str,
    stages: Sequence[StagePlan],
    picks: Sequence[tuple[Stage, tuple[Part, ...]]],
    settings: Settings,
    moment: Moment,
) -> float:
    """A further quantity of a plan, part by part: its amount is the truth about itself."""
    held = [part for _, parts in picks for part in parts]
    if quantity.startswith(UNITS):
        resource = quantity.removeprefix(UNITS)
        return sum(part.replicas * part.option.allocation.units(resource) for part in held)
    if quantity.startswith(LATENCY_OF):
        return latency_of(stages, quantity.removeprefix(LATENCY_OF))
    amount = amount_of(quantity)
    return sum(
        _amount_of_part(amount, replace(part, option=part.option.planned(risk)), stage, moment)
        for risk in [settings.energy_risk]
        for stage, parts in picks
        for part in parts
    )


def _amount_of_part(
    amount: Callable[..., float], part: Part, stage: Stage, moment: Moment
) -> float:
    """What a part has of a quantity: by its share of the requests, and by its replicas."""
    count = part.replicas
    if part.shares == Part(part.option, count).shares:
        return amount(part.option, count, stage, moment)
    by_option = getattr(amount, "per_option", False)
    total = 0.0
    for option, share in part.of_classes():
        here = amount(option, count, stage, moment)
        of_replica = amount(option, count + 1, stage, moment) - here
        of_request = here - count * of_replica
        if by_option:
            return of_request + count * of_replica
        total += share * of_request + count * of_replica * share / part.share
    return total


def _filled(stage: Stage, parts: Sequence[Part], load_rps: float) -> tuple[Part, ...]:
    """Parts with the figures of so many replicas, and with the waits that this load makes."""
    stage_load_rps = stage.requests_per_input * load_rps
    return tuple(
        replace(
            part,
            option=part.option.at(part.replicas),
            wait_s=(part.option.batch - 1) / (part.share * stage_load_rps),
        )
        for part in sorted(parts, key=lambda part: part.share, reverse=True)
    )


def _idle_w(parts: Sequence[Part]) -> float:
    return sum(part.replicas * part.option.idle_power_w for part in parts)


def _site_checks(stages: Sequence[StagePlan]) -> Iterator[Check]:
    """That each site serves the same share of the load in every stage."""
    sites = dict.fromkeys(part.option.allocation.site for each in stages for part in each.parts)
    for site in sites if any(sites) else ():
        shares = [sum(part.share for part in each.parts) for each in of_site(stages, site)]
        apart = max(shares) - min(shares)
        yield Check(f"site:{site}", apart, 0.0, apart <= SHARE_RTOL)


def _queue_s(part: Part, stage_load_rps: float) -> float:
    """The wait for a replica of a part."""
    return planned_wait_s(part.option, part.replicas, part.share * stage_load_rps)


def _stage_plan(
    stage: Stage, parts: tuple[Part, ...], settings: Settings, load_rps: float
) -> StagePlan:
    stage_load_rps = stage.requests_per_input * load_rps
    served = [each for part in parts for each in part.of_classes()]
    dynamic_j = sum(share * option.dynamic_energy_j for option, share in served)
    joules = dynamic_j + _idle_w(parts) / stage_load_rps
    upper = settings.energy_risk == "upper"
    more_j = sum(share * option.energy_ci95_j for option, share in served) if upper else 0.0
    raw = sum(share * option.accuracy for option, share in served)
    ranks = accuracy_ranks(stage) if settings.normalize_accuracy else {}
    queued = settings.latency_model == "queue"
    if queued:
        parts = tuple(replace(part, queue_s=_queue_s(part, stage_load_rps)) for part in parts)
    return StagePlan(
        stage=stage.name,
        node_name=stage.node_name,
        parts=parts,
        accuracy=sum(share * ranks[o.variant] for o, share in served) if ranks else raw,
        accuracy_raw=raw,
        load_rps=stage_load_rps,
        joules_per_request=joules,
        planned_joules_per_request=joules + more_j if upper else joules,
        requests_per_input=stage.requests_per_input,
        queue_s=max(part.queue_s for part in parts) if queued else None,
    )


def _stage_checks(
    stages: Sequence[StagePlan], settings: Settings, rules: Sequence[StageRules]
) -> Iterator[Check]:
    for plan, rule in zip(stages, rules, strict=True):
        capacity = plan.capacity_rps
        name, load_rps = plan.stage, plan.load_rps
        carries = _holds(load_rps, capacity, wide=plan.is_wide)
        yield Check(f"throughput:{name}", capacity, load_rps, carries)
        if len(plan.parts) > 1:
            share = sum(part.share for part in plan.parts)
            yield Check(f"shares:{name}", share, 1.0, abs(share - 1) <= SHARE_RTOL)
        most = settings.scaling_cap if rule.replicas is None else rule.replicas
        yield Check(f"scaling_cap:{name}", plan.replicas, most, 1 <= plan.replicas <= most)
        batch, largest = max(part.option.batch for part in plan.parts), settings.batching_cap
        yield Check(f"batching_cap:{name}", batch, largest, batch <= largest)


def _cap_checks(caps: Sequence[Cap], totals: Mapping[str, float], *, wide: bool) -> Iterator[Check]:
    """The two SLAs, with no limit too, then the other caps."""
    left = {cap.name: cap for cap in caps}
    for name, quantity in (("latency_sla_s", "latency_s"), ("energy_sla_joules", _JOULES)):
        cap = left.pop(name, None)
        if cap is None:
            yield Check(name, totals[quantity], None, holds=True)
        else:
            yield _kept(cap, totals, wide=wide)
    for cap in left.values():
        yield _kept(cap, totals, wide=wide)
