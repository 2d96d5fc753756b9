r"""The best course of plans over the next minute, every change paid for: a dynamic program.

::

    what runs ──change──> plan 0 ──change──> plan 1 ── … ──> plan H − 1
                          load 0             load 1          load H − 1

With f_t the objective (6) of :mod:`ipa_energy.optimizer.problem` at step *t*, less what weighs
what is expected to be late of it, and :math:`c_t` what a change weighs, the course maximises

.. math::  Σ_t f_t(plan_t) − price·Σ_t c_t(plan_{t-1}, plan_t)

and its first plan is what runs next; the rest is decided again with the next forecast. A change at
step *t*, of T seconds with λ requests each, weighs in the objective's unit::

    joules     w·(loading + held)/(λ·T)          w: what one more joule a request weighs
    cores …    what replicas hold that wait for their successors, for that share of the step
    lateness   lateness·(seconds in which requests would be late)/T

A step has several loads, each as likely as it is (:class:`.lateness.Loads`). Replicas carry the
middle one; of each of the others what would be late weighs, with a plan as it stands
(:func:`.lateness.late_share`), whose queues may take what its latency leaves of the SLA, and while
a change is under way (:func:`.lateness.late_seconds`). So a plan stays that is a little too small
for a load that hardly ever comes, a fast plan may be fuller than a slow one, and a start that takes
long is begun for a load that is likely enough.

A run's objective has the mean accuracy and cores over *time* and the joules over all *requests*. So
what counts by request, and lateness, weighs by the requests that a step has beside a usual one: a
quiet minute's joules are few, whatever they are by request.

:mod:`.switching` counts the joules. Requests are late while those before them in the queue take
longer than they have patience: the queue grows while what exists carries less than arrives, until
the new replicas serve, and then shrinks by what they carry more. So replicas are started before a
load that is seen coming, and those that exist stay through a short lull: a few joules and cores are
weighed against lateness. Requests that wait already are the queue's beginning.

Exact over all plans whose replicas carry the load of one of the steps, or are those that run: the
change of a pipeline is the sum of its stages' changes, so a step of the dynamic program maximises
over one stage after the other. Candidates that no better course than a known one can have are left
out first. A pipeline with more plans than :data:`MOST_PLANS` chooses among what runs and what the
best plans of single steps are made of.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, replace
from functools import partial, reduce

import numpy as np

from ipa_energy.arrays import Floats, Ints, Mask
from ipa_energy.optimizer.plan import Choice, Plan
from ipa_energy.optimizer.plan_building import build_plan
from ipa_energy.optimizer.problem import (
    CONSTRAINT_RTOL,
    Candidates,
    Problem,
    Program,
)
from ipa_energy.optimizer.quantities import UNITS, Moment, amount_of, is_latency
from ipa_energy.optimizer.solve import DEFAULT_METHOD, decide
from ipa_energy.planning.lateness import (
    PATIENCES,
    Loads,
    carrying_rps,
    late_seconds,
    late_share,
)
from ipa_energy.planning.switching import switches
from ipa_energy.records import Option, Stage
from ipa_energy.serving.deployment import DeployedStage, StageState, Told, ready_after_s
from ipa_energy.serving.simulated.replicas import server_of

LATE = 0.02
"""Most late arrivals at a load that replicas are meant for; what is late weighs besides."""

MOST_PLANS = 200_000
"""Plans of a step that are looked at one by one."""

MOST_OF_THE_BEST = 10_000
"""The same where they are put together from the best plans of the steps."""

PLANS_A_STEP = 1
"""Best plans of a step whose options are candidates where there are too many plans."""

PER_REQUEST = ("joules_per_request", "grams_per_request", "priced_grams")
"""Quantities of one request, which weigh more the more requests there are."""

Picks = list[tuple[int, int]]
"""Candidates of a stage: (index of the option, replicas)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prices:
    """What changes weigh.

    Attributes:
        interval_s: T, length of a step.
        switching: factor on all that a change costs; infinity: only what cannot go on changes.
        lateness: what a step weighs in which every request is late.
        patience_s: half the latency SLA: the longest wait in a queue that makes nobody late while a
            change is under way, and that candidates are sized by.
        reconfiguration_s: until a replica serves; None: as profiled.
        in_time_first: True if requests that are late are passed by the others. What a change makes
            late is counted as if they were not: a rise that shows goes on further than forecast.
    """

    interval_s: float
    switching: float
    lateness: float
    patience_s: float
    reconfiguration_s: Told
    in_time_first: bool = False


@dataclass(frozen=True, slots=True)
class Start:
    """What a course starts from.

    Attributes:
        states: of each stage what is observed, at least one state with a replica.
        waiting: requests in the pipeline's queues.
        usual_rps: mean load of the time that the objective is meant for; None: every step's own.
    """

    states: Sequence[Sequence[StageState]]
    waiting: float = 0.0
    usual_rps: float | None = None


@dataclass(frozen=True, slots=True)
class Course:
    """The best plans of the steps.

    Attributes:
        plans: one a step; those of the steps from the first on that nothing can carry are missing.
        value: what it is worth, changes paid.
        loading_j: joules of loading replicas that its first change takes.
        held_j: idle joules of replicas that wait for their successors in its first change.
        late_s: seconds of requests that its first change, and what waits already, make late.
        penalty: what its first change weighs, price included.
    """

    plans: tuple[Plan, ...]
    value: float
    loading_j: float
    held_j: float
    late_s: float
    penalty: float


def best_course(
    program: Program,
    moments: Sequence[Moment],
    start: Start,
    prices: Prices,
    *,
    loads: Sequence[Loads] = (),
    method: str = DEFAULT_METHOD,
    limit_s: float | None = None,
) -> Course | None:
    """The best course from what runs; None if nothing carries the load of the first step.

    Args:
        program: the pipeline's.
        moments: one a step, each with the mean load that joules are counted at and the peak that
            has to be carried.
        start: what is there.
        prices: of changes, and of lateness.
        loads: one a step, the mean loads that it may have: the moment's mean has to be carried, and
            what is late of the others weighs. Empty: the moments are certain.
        method: finds the best plans of single steps, where there are too many plans.
        limit_s: for all of these; None: as long as it takes.
    """
    needed = _moments(moments, start, prices, loads)
    picks = _candidates(program, needed, start)
    if math.prod(len(stage) for stage in picks) > MOST_PLANS:
        picks = _of_best_plans(program, needed, start, method, limit_s)
    if not all(picks):
        return None
    steps = _Steps(program, moments, start, prices, picks, loads=loads)
    if not steps.values:
        return None
    return steps.kept(steps.contenders()).course()


def _moments(
    moments: Sequence[Moment], start: Start, prices: Prices, loads: Sequence[Loads]
) -> list[Moment]:
    """What replicas may be needed for, in one step or another."""
    first = moments[0]
    ahead = list({moment.peak_rps: moment for moment in moments}.values())
    if loads:  # each load of the first step, and the largest of all steps
        rps = np.array([each.rps for each in loads])
        wanted = np.unique(np.concatenate([rps[0], rps.max(axis=0)]))
        peaks_rps = [carrying_rps(float(each), prices.patience_s, LATE) for each in wanted]
        peaks_rps += {float(rps[0, 0]), float(rps[:, 0].max())}  # and no more than the middle ones
        ahead = [replace(first, peak_rps=max(first.mean_rps, peak_rps)) for peak_rps in peaks_rps]
    if start.waiting:  # what also works off the queue, in an interval or in half of one
        more_rps = [
            start.waiting / seconds for seconds in (prices.interval_s, prices.interval_s / 2)
        ]
        ahead += [replace(first, peak_rps=first.peak_rps + more) for more in more_rps]
    return ahead


def _candidates(program: Program, moments: Sequence[Moment], start: Start) -> list[Picks]:
    """Options and replicas of each stage that a course may choose."""
    found = [dict.fromkeys(_running(program, at, each)) for at, each in enumerate(start.states)]
    for moment in moments:
        for stage, candidates in zip(found, program.at(moment).stages, strict=True):
            pairs = zip(candidates.option_index.tolist(), candidates.replicas.tolist(), strict=True)
            stage.update(dict.fromkeys(pairs))
    return [list(stage) for stage in found]


def _running(program: Program, index: int, states: Sequence[StageState]) -> Picks:
    """What a stage runs, with any of its batches, where the rules allow it."""
    stage, rule, settings = program.stages[index], program.rules[index], program.settings
    picks = []
    for state in states:
        count = state.ready + state.starting
        fits = count <= settings.scaling_cap if rule.replicas is None else count == rule.replicas
        for at, option in enumerate(stage.options):
            is_same = server_of(option) == server_of(state.option)
            allowed = option.batch <= settings.batching_cap and rule.allows(option)
            if count and fits and is_same and allowed:
                picks.append((at, count))
    return picks


def _of_best_plans(
    program: Program,
    moments: Sequence[Moment],
    start: Start,
    method: str,
    limit_s: float | None,
) -> list[Picks]:
    """What the best plans of single moments are made of, and what runs, as many as can be held."""
    share_s = None if limit_s is None else limit_s / len(moments)
    found = [decide(program, moment, method, PLANS_A_STEP, share_s).plans for moment in moments]
    ranked: list[dict[tuple[int, int], None]] = [{} for _ in program.stages]
    for rank in range(PLANS_A_STEP):
        for plans in found:
            for at, stage in enumerate(plans[rank].stages if rank < len(plans) else ()):
                ranked[at][_index_of(program.stages[at], stage.option), stage.replicas] = None
        if rank == 0:
            for at, states in enumerate(start.states):
                ranked[at].update(dict.fromkeys(_running(program, at, states)))
    picks = [list(stage) for stage in ranked]
    while math.prod(len(stage) for stage in picks) > MOST_OF_THE_BEST:
        max(picks, key=len).pop()
    return picks


def _index_of(stage: Stage, option: Option) -> int:
    key = (option.variant, option.allocation, option.batch)
    return [(each.variant, each.allocation, each.batch) for each in stage.options].index(key)


@dataclass(frozen=True, slots=True)
class _Change:
    """What changes of one stage cost, from B configurations to A others: arrays (B, A)."""

    loading_j: Floats
    held_j: Floats
    late_s: Floats
    weighs: Floats


class _Steps:
    """The steps over some candidates of each stage.

    Attributes:
        picks: each stage's candidates.
        problems: the program of each step, with these candidates.
        values: f of each step as an array with an axis a stage; −inf where a plan breaks a limit or
            does not carry the load. They end before the first step that nothing carries.
    """

    def __init__(
        self,
        program: Program,
        moments: Sequence[Moment],
        start: Start,
        prices: Prices,
        picks: Sequence[Picks],
        *,
        loads: Sequence[Loads],
    ) -> None:
        self._program, self._start, self._prices, self._loads = program, start, prices, loads
        self._between: dict[tuple[int, bool], _Between] = {}
        self._costs: dict[int, list[_Change]] = {}
        self.picks = list(picks)
        self._mine = [
            [DeployedStage(stage.name, stage.options[at].at(n), n) for at, n in chosen]
            for stage, chosen in zip(program.stages, picks, strict=True)
        ]
        self._capacities_rps = [_capacities_rps(mine) for mine in self._mine]
        arrays = [np.array(chosen, dtype=np.intp).T for chosen in picks]
        at = program.with_replicas([(options, counts) for options, counts in arrays])
        self.problems: list[Problem] = []
        self.values: list[Floats] = []
        for step, moment in enumerate(moments):
            problem = at(moment)
            values = self._values_of(problem, step)
            if not np.isfinite(values).any():
                break
            self.problems.append(problem)
            self.values.append(values)

    def _values_of(self, problem: Problem, step: int) -> Floats:
        settings = problem.settings
        combine = np.multiply if settings.accuracy_method == "multiply" else np.add
        accuracy = reduce(combine.outer, [each.accuracy for each in problem.stages])
        if settings.accuracy_method == "average":
            accuracy = accuracy / len(problem.stages)
        penalties = []
        for at, candidates in enumerate(problem.stages):
            carries = self._carries(problem.moment, at)
            penalties.append(np.where(carries, self._penalty(problem, candidates), np.inf))
        values: Floats = settings.alpha * accuracy - reduce(np.add.outer, penalties)
        if self._loads:
            late = self._requests(problem.moment) * self._prices.lateness
            values -= late * self._late_share(problem, step)
        for cap in problem.caps:
            total = reduce(np.add.outer, problem.columns(cap.quantity))
            values[total > cap.limit + CONSTRAINT_RTOL * abs(cap.limit)] = -np.inf
        return values

    def _penalty(self, problem: Problem, candidates: Candidates) -> Floats:
        """A stage's part of (6) but A, with what counts by request counted by usual requests."""
        busier = self._requests(problem.moment) - 1
        if not busier:
            return candidates.penalty
        more = [
            term.weight * busier * candidates.amounts[term.quantity]
            for term in problem.terms
            if term.quantity in PER_REQUEST
        ]
        return reduce(np.add, more, candidates.penalty)

    def _requests(self, moment: Moment) -> float:
        """How many requests come in a step for each of a usual one."""
        usual_rps = self._start.usual_rps
        return 1.0 if usual_rps is None else moment.mean_rps / usual_rps

    def _carries(self, moment: Moment, at: int) -> Mask:
        """Which candidates of a stage carry a step's load."""
        share = self._program.stages[at].requests_per_input
        least_rps = share * (moment.mean_rps if self._loads else moment.peak_rps)
        found: Mask = least_rps <= self._capacities_rps[at] * (1 + CONSTRAINT_RTOL)
        return found

    def _late_share(self, problem: Problem, step: int) -> Floats:
        """Share of a step's requests that are late by each plan as it stands.

        In each stage they may wait for all that the plan's latency leaves of the SLA: of the class
        that it leaves least, where classes have their own.
        """
        prices, loads = self._prices, self._loads[step]
        limits = [(cap.quantity, cap.limit) for cap in problem.caps if is_latency(cap.quantity)]
        limits = limits or [("latency_s", 2 * prices.patience_s)]
        sla_s = min(limit_s for _, limit_s in limits)
        left_s: Floats = reduce(
            np.minimum,
            [limit_s - reduce(np.add.outer, problem.columns(name)) for name, limit_s in limits],
        )
        left = np.searchsorted(PATIENCES, left_s / sla_s, side="right") - 1
        met, left = np.unique(np.maximum(left, 0), return_inverse=True)
        found = np.zeros(left_s.shape)
        for at, index in enumerate(np.ix_(*(np.arange(n) for n in left_s.shape))):
            share = self._program.stages[at].requests_per_input
            late = late_share(
                replace(loads, rps=share * loads.rps),
                self._capacities_rps[at],
                patience_s=sla_s * PATIENCES[met],
                step_s=prices.interval_s,
                in_time_first=prices.in_time_first,
            )
            found += late[left.reshape(found.shape), index]
        return np.minimum(found, 1.0)

    def kept(self, index: Sequence[Ints]) -> _Steps:
        """The same steps with some of the candidates."""
        found = copy(self)
        found._between, found._costs = {}, {}
        found.picks = [[p[i] for i in few] for p, few in zip(self.picks, index, strict=True)]
        found._mine = [[m[i] for i in few] for m, few in zip(self._mine, index, strict=True)]
        found._capacities_rps = [
            capacities[few] for capacities, few in zip(self._capacities_rps, index, strict=True)
        ]
        found.values = [values[np.ix_(*index)] for values in self.values]
        found.problems = []
        for problem in self.problems:
            stages = [each.select(i) for each, i in zip(problem.stages, index, strict=True)]
            found.problems.append(replace(problem, stages=tuple(stages)))
        return found

    def contenders(self) -> list[Ints]:
        """Candidates that may be in the best course, of each stage.

        A course is worth no more than the best plans of all steps without any change. What does not
        even so come up to a known course, that among a few candidates (of the best plan of each
        step, of the best for all of them, and what runs), is out.
        """
        axes = range(len(self.picks))
        best = [_highest(values) for values in (*self.values, reduce(np.add, self.values))]
        few = []
        for axis in axes:
            runs = _running(self._program, axis, self._start.states[axis])
            mine = {choice[axis] for choice in best}
            mine |= {i for i, pick in enumerate(self.picks[axis]) if pick in runs}
            few.append(np.array(sorted(mine), dtype=np.intp))
        reached = self.kept(few).worth()
        tops = [float(values.max()) for values in self.values]
        least = reached - 1e-9 * max(1.0, abs(reached)) - math.fsum(tops)
        found = []
        for axis in axes:
            others = tuple(other for other in axes if other != axis)
            gains = [v.max(axis=others) - top for v, top in zip(self.values, tops, strict=True)]
            found.append(np.flatnonzero(np.max(gains, axis=0) >= least))
        return found

    def worth(self) -> float:
        """Of the best course."""
        return float(self._first(self._onward(), self._changes(0)).max())

    def course(self) -> Course:
        """The best course."""
        onward, starts = self._onward(), self._changes(0)
        first = self._first(onward, starts)
        choices = [_highest(first)]
        for step, ahead in enumerate(onward[1:], 1):
            paid = [c.weighs[i] for c, i in zip(self._changes(step), choices[-1], strict=True)]
            choices.append(_highest(ahead - reduce(np.add.outer, paid)))
        taken = list(zip(starts, choices[0], strict=True))
        plans = zip(self.problems, choices, strict=True)
        return Course(
            plans=tuple(build_plan(problem, choice) for problem, choice in plans),
            value=float(first[choices[0]]),
            loading_j=math.fsum(float(change.loading_j[0, i]) for change, i in taken),
            held_j=math.fsum(float(change.held_j[0, i]) for change, i in taken),
            late_s=math.fsum(float(change.late_s[0, i]) for change, i in taken),
            penalty=math.fsum(float(change.weighs[0, i]) for change, i in taken),
        )

    def _onward(self) -> list[Floats]:
        """What each plan of each step is worth from there on."""
        onward = [self.values[-1]]
        for step in range(len(self.values) - 1, 0, -1):
            ahead = onward[0]
            for axis, change in enumerate(self._changes(step)):
                ahead = _best_after(ahead, change.weighs, axis)
            onward.insert(0, self.values[step - 1] + ahead)
        return onward

    def _first(self, onward: Sequence[Floats], starts: Sequence[_Change]) -> Floats:
        """What each plan of the first step is worth, the change to it paid."""
        paid = onward[0] - reduce(np.add.outer, [change.weighs[0] for change in starts])
        stays = not math.isinf(self._prices.switching) or bool(np.isfinite(paid).any())
        return paid if stays else onward[0]  # what cannot go on may become the best

    def _changes(self, step: int) -> list[_Change]:
        """Of each stage what its changes at a step cost: from what runs, or from candidates."""
        if step not in self._costs:
            self._costs[step] = [self._changes_of(step, at) for at in range(len(self.picks))]
        return self._costs[step]

    def _changes_of(self, step: int, at: int) -> _Change:
        prices, problem = self._prices, self.problems[step]
        between = self._between_of(at, is_start=not step)
        moment, late_s = problem.moment, self._late_s(step, at, between)
        requests = self._requests(moment)
        joule = weight_of_a_joule(problem, at) / (moment.mean_rps * prices.interval_s)
        weighs = (
            requests * joule * (between.loading_j + between.held_j)
            + self._held(step, at)[:, None] * (between.overlap_s / prices.interval_s)
            + requests * prices.lateness * late_s / prices.interval_s
        )
        if math.isinf(prices.switching):
            priced = np.where(between.is_change, np.inf, 0.0)
        else:
            priced = prices.switching * weighs
        return _Change(between.loading_j, between.held_j, late_s, priced)

    def _late_s(self, step: int, at: int, between: _Between) -> Floats:
        """Seconds of requests that changes make late, beside what is late without any."""
        share, prices = self._program.stages[at].requests_per_input, self._prices
        waiting = 0.0 if step else share * self._start.waiting
        most_s = prices.interval_s * (len(self.problems) - step)
        late_s = partial(late_seconds, patience_s=prices.patience_s, most_s=most_s)
        shape = (between.meanwhile_rps, between.capacity_rps, between.ready_s)
        if not self._loads:
            return late_s(share * self.problems[step].moment.peak_rps, *shape, waiting=waiting)
        loads = self._loads[step]
        load_rps = share * loads.rps[:, None, None]
        at_once = (between.capacity_rps[None], between.capacity_rps, np.zeros((1, 1)))
        changed_s = late_s(load_rps, *shape, waiting=waiting)
        more_s = np.maximum(0.0, changed_s - late_s(load_rps, *at_once, waiting=0.0))
        found: Floats = np.tensordot(loads.weights, more_s, axes=1)
        return found

    def _held(self, step: int, at: int) -> Floats:
        """What cores and other resources weigh of those that run before a change, a whole step."""
        problem = self.problems[step]
        terms = [each for each in problem.terms if each.quantity.startswith(("cost", UNITS))]
        if step:
            amounts = problem.stages[at].amounts
            return sum((each.weight * amounts[each.quantity] for each in terms), np.zeros(1))
        stage, held = self._program.stages[at], self._between_of(at, is_start=True).before[0]
        found = [
            each.weight
            * amount_of(each.quantity)(held.option, held.replicas, stage, problem.moment)
            for each in terms
        ]
        return np.array([sum(found)], dtype=np.float64)

    def _between_of(self, at: int, *, is_start: bool) -> _Between:
        """What changes of a stage take, whatever the load."""
        if (at, is_start) not in self._between:
            stage, mine = self._program.stages[at], self._mine[at]
            told_s = self._prices.reconfiguration_s
            if is_start:
                found = _from_states(stage, self._start.states[at], mine, told_s)
            else:
                found = _between(stage, mine, mine, told_s)
            self._between[at, is_start] = found
        return self._between[at, is_start]


@dataclass(frozen=True, slots=True)
class _Between:
    """What changes of one stage from B configurations to A others take: arrays (B, A).

    Attributes:
        before: the B configurations.
        is_change: True where they are not the same.
        loading_j, held_j: joules; what nobody measured counts as none.
        ready_s: until the new replicas serve.
        overlap_s: for how long all of the old ones are there beside all of the new ones.
        meanwhile_rps: what is served until then.
        capacity_rps: (A,) what is served from then on.
    """

    before: Sequence[DeployedStage]
    is_change: Mask
    loading_j: Floats
    held_j: Floats
    ready_s: Floats
    overlap_s: Floats
    meanwhile_rps: Floats
    capacity_rps: Floats


def _between(
    stage: Stage,
    before: Sequence[DeployedStage],
    after: Sequence[DeployedStage],
    told_s: Told,
) -> _Between:
    found = switches(
        [stage],
        [(each,) for each in before],
        [(each,) for each in after],
        reconfiguration_s=told_s,
    )
    servers = [[server_of(each.option) for each in side] for side in (before, after)]
    runs = [[(each.option.batch, each.replicas) for each in side] for side in (before, after)]
    is_other = np.array([[one != other for other in servers[1]] for one in servers[0]])
    differs = np.array([[one != other for other in runs[1]] for one in runs[0]])
    return _Between(
        before,
        is_other | differs,
        np.nan_to_num(found.load_j),
        np.nan_to_num(found.held_j),
        found.ready_after_s,
        np.where(is_other & (found.held_j != 0), found.ready_after_s, 0.0),
        found.meanwhile_rps * stage.requests_per_input,
        _capacities_rps(after),
    )


def _capacities_rps(runs: Sequence[DeployedStage]) -> Floats:
    """What each of some configurations of a stage serves."""
    return np.array([each.replicas * each.option.throughput_rps for each in runs])


def _from_states(
    stage: Stage, states: Sequence[StageState], after: Sequence[DeployedStage], told_s: Told
) -> _Between:
    """What changes from what is observed take, in one row.

    Replicas of the server that is wanted are there already if any state has them: those that start
    are paid for, and serve when they have started. What serves now does until then, and is held if
    it is of another server; what else starts is let go of.
    """
    now = max(states, key=lambda each: (each.ready, each.starting))
    serving = DeployedStage(stage.name, now.option, now.ready or now.starting)
    found = _between(stage, [serving], after, told_s)
    servers = [server_of(each.option) for each in states]
    meanwhile_rps, overlap_s = found.meanwhile_rps, found.overlap_s
    if not now.ready:
        overlap_s, found.held_j[:] = np.zeros_like(overlap_s), 0.0
        meanwhile_rps = np.zeros_like(meanwhile_rps)
    for at, wanted in enumerate(after):
        server = server_of(wanted.option)
        if server not in servers:
            continue
        own = [each for each in states if server_of(each.option) == server]
        there = sum(each.ready + each.starting for each in own)
        runs = any(each.option.batch == wanted.option.batch for each in own)
        full_s = ready_after_s(wanted.option, told_s, now.option)
        ready_s = _serving_after_s(own, wanted.replicas, full_s)
        until_s = ready_s[-1]
        rate_rps, is_held = wanted.option.throughput_rps, server != server_of(now.option)
        before_rps = now.ready * now.option.throughput_rps if is_held else 0.0
        served = rate_rps * math.fsum(until_s - each for each in ready_s)
        own_rps = served / until_s if until_s else rate_rps * wanted.replicas
        load_j, missing = wanted.option.load_energy_j, max(0, wanted.replicas - there)
        is_free = math.isnan(load_j) or full_s == 0
        found.is_change[0, at] = not runs or there != wanted.replicas
        found.loading_j[0, at] = 0.0 if is_free else missing * load_j
        found.held_j[0, at] = is_held * now.ready * now.option.idle_power_w * until_s
        found.ready_s[0, at] = until_s
        overlap_s[0, at] = until_s if is_held and now.ready else 0.0
        meanwhile_rps[0, at] = max(before_rps, own_rps)
    return replace(found, overlap_s=overlap_s, meanwhile_rps=meanwhile_rps)


def _serving_after_s(own: Sequence[StageState], replicas: int, full_s: float) -> list[float]:
    """After how long each of some replicas of one server serves, given those that exist."""
    left_s = [0.0] * sum(each.ready for each in own)
    for each in own:
        known_s = each.starting_for_s[: each.starting]
        left_s += [max(0.0, full_s - age_s) for age_s in known_s]
        left_s += [full_s] * (each.starting - len(known_s))
    return (sorted(left_s) + [full_s] * replicas)[:replicas]


def _highest(values: Floats) -> Choice:
    return tuple(int(i) for i in np.unravel_index(int(values.argmax()), values.shape))


def _best_after(ahead: Floats, weighs: Floats, axis: int) -> Floats:
    """Along one axis, from (…, A, …) what the best of A is worth after a change from each of B."""
    moved = np.moveaxis(ahead, axis, -1)
    best = np.stack([(moved - row).max(axis=-1) for row in weighs], axis=-1)
    return np.moveaxis(best, -1, axis)


def weight_of_a_joule(problem: Problem, at: int) -> float:
    """What one joule more a pipeline request weighs in the objective, of all its terms.

    Every quantity that depends on joules is proportional to them.
    """
    stage = problem.stages[at].stage
    option = replace(stage.options[0], at_once=())
    more = replace(option, dynamic_energy_j=option.dynamic_energy_j + 1.0)
    found = 0.0
    for term in problem.terms:
        amount = amount_of(term.quantity)
        with_it, without = (amount(o, 1, stage, problem.moment) for o in (more, option))
        found += term.weight * (with_it - without) / stage.requests_per_input
    return float(found)
