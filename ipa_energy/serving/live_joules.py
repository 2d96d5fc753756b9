"""Joules per request as a window really had them, beside what the profile says of the same window.

A profile's joules are of full batches and of a load; a live window has batches as full as they came
and the load that came. So they are compared at the window's own batch fill and load, by the formula
of :mod:`ipa_energy.energy`::

    live     (idle + dynamic joules of the stage) / requests it served
    profile  e(fill) + n·p / λ          e between two profiled batches b as a line over 1/b

since a batch costs about a fixed part and a part for each request.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence

import numpy as np

from ipa_energy.energy import joules_per_request
from ipa_energy.records import Allocation, Option, Stage
from ipa_energy.serving.deployment import DeployedStage, Deployment, StageState
from ipa_energy.serving.observed import StageJoules, option_name
from ipa_energy.serving.served import Served

LEAST_REQUESTS = 5
"""A window with fewer says nothing."""


def stage_joules(
    served: Served,
    running: Deployment,
    stages: Sequence[Stage],
    *,
    unsettled: Collection[str] = (),
) -> tuple[StageJoules, ...]:
    """Every stage of a window.

    Args:
        served: the window.
        running: what ran in it.
        stages: the pipeline with its profile as it is.
        unsettled: stages that were being changed at its beginning.
    """
    changing = {*unsettled, *(event.stage for event in served.events)}
    length_s = served.end_s - served.start_s
    found = []
    for index, (stage, runs) in enumerate(zip(stages, running, strict=True)):
        is_settled = stage.name not in changing
        if not runs.parts:
            requests, fill = _served_and_fill(served, index, stage.requests_per_input)
            joules = float(served.idle_j[index]), float(served.dynamic_j[index])
            found.append(
                _of_window(
                    stage,
                    runs,
                    joules,
                    requests=requests,
                    batch_fill=fill,
                    length_s=length_s,
                    is_clear=is_settled,
                )
            )
            continue
        servers = [option_name(lane.option) for lane in runs.lanes]
        for lane, server in zip(runs.lanes, servers, strict=True):
            mine = [s for s in served.replicas if (s.stage, s.option) == (stage.name, server)]
            count, batches = sum(s.requests for s in mine), sum(s.batches for s in mine)
            fill = count / batches if batches else math.nan
            joules = sum(s.idle_j for s in mine), sum(s.dynamic_j for s in mine)
            # Options that differ by their batch alone share what is charged.
            is_clear = is_settled and servers.count(server) == 1
            found.append(
                _of_window(
                    stage,
                    lane,
                    joules,
                    requests=float(count),
                    batch_fill=fill,
                    length_s=length_s,
                    is_clear=is_clear,
                )
            )
    return tuple(found)


def _of_window(
    stage: Stage,
    runs: DeployedStage,
    joules: tuple[float, float],
    *,
    requests: float,
    batch_fill: float,
    length_s: float,
    is_clear: bool,
) -> StageJoules:
    """What an option of a stage took, by what its replicas were charged with, idle and dynamic."""
    load_rps = requests / length_s if length_s > 0 else 0.0
    profiled_j = profiled_idle_j = live_j = live_idle_j = math.nan
    if requests:
        live_j, live_idle_j = sum(joules) / requests, joules[0] / requests
        if length_s > 0:
            profiled_j, profiled_idle_j = profile_joules(
                stage, runs, batch_fill=batch_fill, load_rps=load_rps
            )
    return StageJoules(
        stage=stage.name,
        variant=runs.option.variant,
        allocation=runs.option.allocation.label,
        requests=requests,
        load_rps=load_rps,
        batch_fill=batch_fill,
        live_j=live_j,
        profile_j=profiled_j,
        live_idle_j=live_idle_j,
        profile_idle_j=profiled_idle_j,
        is_clean=requests >= LEAST_REQUESTS and is_clear,
    )


def profile_joules(
    stage: Stage, runs: DeployedStage, *, batch_fill: float, load_rps: float
) -> tuple[float, float]:
    """Joules per request by the profile, at a batch fill and a load of the stage; NaN without.

    Returns:
        all of them, and the idle ones.
    """
    options = [
        option.at(runs.replicas)
        for option in options_of(stage, runs.option.variant, runs.option.allocation)
    ]
    if not options or not all(option.has_energy for option in options):
        return math.nan, math.nan
    dynamic_j = dynamic_joules_at(options, batch_fill)
    idle_w = min(options, key=lambda option: abs(option.batch - batch_fill)).idle_power_w
    idle_j = joules_per_request(0.0, idle_w, runs.replicas, load_rps)
    return dynamic_j + idle_j, idle_j


def dynamic_joules_at(options: Sequence[Option], batch_fill: float) -> float:
    """Dynamic joules e of batches that full on average; beyond the profiled ones the nearest's."""
    per_batch = sorted((1.0 / option.batch, option.dynamic_energy_j) for option in options)
    inverse, joules = zip(*per_batch, strict=True)
    return float(np.interp(1.0 / batch_fill, inverse, joules))


def options_of(stage: Stage, variant: str, allocation: Allocation) -> list[Option]:
    """The profiled batch sizes of a variant on an allocation."""
    mine = (variant, allocation)
    return [option for option in stage.options if (option.variant, option.allocation) == mine]


def unsettled_stages(states: Sequence[StageState]) -> set[str]:
    """Stages of which something starts, drains or is missing."""
    return {state.stage for state in states if state.starting or state.draining or state.failed}


def _served_and_fill(served: Served, stage: int, requests_per_input: float) -> tuple[float, float]:
    """Requests of its own that a stage served in the window, and how full its batches were."""
    if requests_per_input != 1 and served.batches is not None:
        count, batches = (int(number) for number in served.batches[stage])
        return count, count / batches if batches else 1.0
    requests = served.requests
    was_served = ~np.isnan(requests.served_s[:, stage])
    times = np.stack([requests.started_s[:, stage], requests.served_s[:, stage]], axis=1)
    batches = len(np.unique(times[was_served], axis=0))
    count = int(was_served.sum())
    return count * requests_per_input, count / batches if batches else 1.0
