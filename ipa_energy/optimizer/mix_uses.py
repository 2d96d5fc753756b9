"""The ways in which a stage may run its options under ``mix: true``: the columns of :mod:`.mixing`.

Under ``latency_model: queue`` a part waits for its replicas as a stage of its own does
(:mod:`.queue_wait`), and what it waits depends on how busy they are, which is no linear matter. So
an option is a use for each of a few grades of business u (:data:`BUSY`) and least numbers of
replicas n (:data:`LEAST`): its replicas carry at most u of what they can, and the wait counted is
that of n replicas at u. Requests that are dealt out in turn come more evenly than at random, and
more replicas or less work wait less, so a part waits no longer than was planned. An option that
runs alone is a use for each number of replicas that it may have without mixing, with its own wait:
a mix is never worse than one option a stage.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from types import SimpleNamespace

import numpy as np

from ipa_energy.energy import replicas_needed
from ipa_energy.optimizer.problem import CONSTRAINT_RTOL, Problem
from ipa_energy.optimizer.queue_wait import EXTRA_REPLICAS, wait_s
from ipa_energy.optimizer.stage_columns import throughputs
from ipa_energy.records import Option

FILL = (1, 2, 4, 8)
"""How many times the wait of a part that gets all requests a batch may take to fill; the part then
gets at least so small a share."""

FEW_FILLS = (1, 4)
"""The same for programs with more than :data:`MANY_USES` uses: four stages are then decided in less
than half the time, and save about a fifth less by mixing."""

MANY_USES = 150

BUSY = (0.7, 0.9)
"""How busy the replicas of a part may be where the wait for one is planned."""

FEW_BUSY = (0.85,)
"""The same for programs with more than :data:`MANY_USES` uses."""

LEAST = (1, 2, 4, 8)
"""Least numbers of replicas whose wait is counted for a part."""

_Grid = tuple[Sequence[int], Sequence[float]]
"""Times that batches may take to fill, and how busy replicas may be."""

MOST_REPLICAS = 10_000
"""Stands for as many as one likes."""


@dataclass(frozen=True, slots=True)
class Use:
    """A way of a stage to run one of its options.

    Attributes:
        stage: its position in the pipeline.
        option_index: position in ``stage.options``.
        option: with the figures of its replicas at once, and of no other number.
        least, most: replicas.
        wait_s: longest wait for a batch to fill, and for a replica where that is planned.
        least_share: of the stage's requests, so that a batch fills within it; 1: all or nothing.
        site: where; empty where there is but one place.
        busiest: share of what its replicas can carry that they get at most.
    """

    stage: int
    option_index: int
    option: Option
    least: int
    most: int
    wait_s: float
    least_share: float
    site: str
    busiest: float = 1.0


_Way = tuple[Use, tuple[float, float] | None]
"""A use, and the load of its replicas and the lowest, in requests a second; None: no wait for a
replica is planned."""


def uses_of(problem: Problem, enforced: Callable[[str], bool], *, bounded: bool) -> list[Use]:
    """Everything that the stages may run, stage by stage.

    Args:
        problem: with ``mix`` in its settings.
        enforced: whether a limit of this name holds.
        bounded: False if no latency is too long.
    """

    def found(grid: _Grid) -> list[Use]:
        stages = range(len(problem.stages))
        ways = [w for s in stages for w in _of_stage(problem, s, grid, enforced, bounded=bounded)]
        return _with_queues(ways)

    uses = found((FILL, BUSY))
    return uses if len(uses) <= MANY_USES else found((FEW_FILLS, FEW_BUSY))


def _of_stage(
    problem: Problem,
    s: int,
    grid: _Grid,
    enforced: Callable[[str], bool],
    *,
    bounded: bool,
) -> Iterator[_Way]:
    fill, busy = grid
    stage, rules = problem.stages[s].stage, problem.rules[s]
    most = problem.settings.scaling_cap if rules.replicas is None else rules.replicas
    if not enforced(f"scaling_cap:{stage.name}") and rules.replicas is None:
        most = MOST_REPLICAS
    load_rps = stage.requests_per_input * problem.moment.lowest_rps
    queued = bounded and problem.settings.latency_model == "queue"
    for index in _allowed(problem, s, enforced):
        option = stage.options[index]
        fills = fill if option.batch > 1 else (1,)
        if option.batch > 1 and not bounded:
            fills = fill[-1:]  # a longer wait costs nothing
        site = option.allocation.site
        for low, high in _bands(option, most):
            figures = _of_one_number(option, low)
            for times in fills:
                fill_s = times * (option.batch - 1) / load_rps
                share = 1 / times if option.batch > 1 else 0.0
                use = Use(s, index, figures, low, high, fill_s, share, site)
                if queued and rules.replicas is None:
                    yield from _parts(problem, use, busy, load_rps / times)
                elif not queued:
                    yield use, None
            if queued:
                fill_s = (option.batch - 1) / load_rps
                use = Use(s, index, figures, low, high, fill_s, 1.0, site)
                yield from _alone(problem, use, rules.replicas)


def _allowed(problem: Problem, s: int, enforced: Callable[[str], bool]) -> Iterator[int]:
    stage, rules = problem.stages[s].stage, problem.rules[s]
    narrowed = enforced(f"variants:{stage.name}") and rules.variants is not None
    for index, option in enumerate(stage.options):
        if enforced(f"batching_cap:{stage.name}") and option.batch > problem.settings.batching_cap:
            continue
        if narrowed and option.variant not in (rules.variants or ()):
            continue
        if enforced(f"allocations:{stage.name}") and not rules.allows_allocation(option):
            continue
        yield index


def _parts(problem: Problem, use: Use, busy: Sequence[float], lowest_rps: float) -> Iterator[_Way]:
    """A use for a part of the load, by how busy its replicas may be and how few they are."""
    stage = problem.stages[use.stage].stage
    whole_rps = stage.requests_per_input * problem.moment.peak_rps
    for fewest in sorted({max(use.least, least) for least in LEAST}):
        if fewest > use.most:
            return
        for busiest in busy:
            carried_rps = busiest * fewest * use.option.throughput_rps
            yield replace(use, least=fewest, busiest=busiest), (carried_rps, lowest_rps)
        if busy[0] * fewest * use.option.throughput_rps >= whole_rps:
            return  # more replicas are idle ones


def _alone(problem: Problem, use: Use, fixed: int | None) -> Iterator[_Way]:
    """A use for the whole load, on as many replicas as without mixing."""
    stage = problem.stages[use.stage].stage
    moment = problem.moment
    peak_rps, lowest_rps = (
        stage.requests_per_input * rps for rps in (moment.peak_rps, moment.lowest_rps)
    )
    if fixed is None:
        option = stage.options[use.option_index]
        least = int(replicas_needed(peak_rps, throughputs([option]))[0])
        counts = range(least, least + EXTRA_REPLICAS + 1)
    else:
        counts = range(fixed, fixed + 1)
    for count in counts:
        carries = peak_rps <= count * use.option.throughput_rps * (1 + CONSTRAINT_RTOL)
        if use.least <= count <= use.most and carries:
            yield replace(use, least=count, most=count), (peak_rps, lowest_rps)


def _with_queues(ways: Sequence[_Way]) -> list[Use]:
    """The uses, with what those wait for a replica of which the load is given."""
    queued = [(use, *load) for use, load in ways if load is not None]
    if not queued:
        return [use for use, _ in ways]
    names = ("batch", "throughput_rps", "latency_avg_s", "latency_p99_s")
    columns = SimpleNamespace(
        **{name: np.array([getattr(use.option, name) for use, *_ in queued]) for name in names}
    )
    replicas = np.array([float(use.least) for use, *_ in queued])
    load_rps, lowest_rps = (np.array([each[at] for each in queued]) for at in (1, 2))
    waits = iter(wait_s(columns, replicas, load_rps, lowest_rps).tolist())
    return [
        use if load is None else replace(use, wait_s=use.wait_s + next(waits)) for use, load in ways
    ]


def _bands(option: Option, most: int) -> Iterator[tuple[int, int]]:
    """Numbers of replicas of which the figures are the same: (fewest, most)."""
    last = option.most_measured
    for count in range(1, min(last, most + 1)):
        yield count, count
    if most >= last:
        yield last, most


def _of_one_number(option: Option, replicas: int) -> Option:
    """The option as if its figures of so many replicas were all there are."""
    classes = tuple((name, _of_one_number(each, replicas)) for name, each in option.by_class)
    return replace(option.at(replicas), at_once=(), by_class=classes)
