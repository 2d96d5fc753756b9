"""Small pipelines with round numbers, and ways to run and to sum them."""

import itertools
import math
from collections.abc import Sequence

import numpy as np

from ipa_energy.arrays import Floats
from ipa_energy.records import Allocation, Option, Provenance, Stage
from ipa_energy.serving.deployment import DeployedStage, Deployment
from ipa_energy.serving.served import Requests, Served
from ipa_energy.serving.simulated.backend import SimulatedBackend

PROVENANCE = Provenance("rapl", "measured", 5, 0.01)


def option(
    batch: int = 1,
    latency_s: float = 0.5,
    *,
    p99_s: float | None = None,
    variant: str = "small",
    cores: float = 1.0,
    energy_j: float = 2.0,
    idle_w: float = 3.0,
    provenance: Provenance | None = PROVENANCE,
    load_s: float = math.nan,
    load_energy_j: float = math.nan,
) -> Option:
    """An option whose planning latency is not the measured one, so that mixing them up shows."""
    return Option(
        variant=variant,
        allocation=Allocation.of(cores),
        batch=batch,
        latency_s=latency_s * 7,
        latency_avg_s=latency_s,
        latency_p99_s=latency_s if p99_s is None else p99_s,
        throughput_rps=0.1,
        accuracy=0.5,
        dynamic_energy_j=energy_j,
        idle_power_w=idle_w,
        provenance=provenance,
        load_s=load_s,
        load_energy_j=load_energy_j,
    )


def stage(*options: Option, name: str = "crop", per_input: float = 1.0) -> Stage:
    return Stage(name, name + "-node", options, per_input)


def deployed(stages: Sequence[Stage], *choices: tuple[int, int]) -> Deployment:
    """(index of the option, replicas) a stage."""
    return tuple(
        DeployedStage(one.name, one.options[index], replicas)
        for one, (index, replicas) in zip(stages, choices, strict=True)
    )


def single(
    *options: Option,
    chosen: int = 0,
    replicas: int = 1,
    timeout_s: float | None = 1.0,
    drop_limit_s: float | None = None,
    reconfiguration_s: float | None = 8.0,
    per_input: float = 1.0,
    seed: int = 0,
) -> SimulatedBackend:
    """A backend with one stage."""
    stages = [stage(*options, per_input=per_input)]
    return SimulatedBackend(
        stages,
        deployed(stages, (chosen, replicas)),
        seed=seed,
        drop_limit_s=drop_limit_s,
        reconfiguration_s=reconfiguration_s,
        batch_timeout_s=[timeout_s],
    )


def run(
    backend: SimulatedBackend,
    sending_s: Sequence[float] | Floats,
    edges_s: Sequence[float],
    plans: dict[float, Deployment] | None = None,
) -> list[Served]:
    """Serve the windows between ``edges_s``, applying ``plans`` where one begins, and finish."""
    sending = np.asarray(sending_s, dtype=np.float64)
    windows = []
    for start_s, until_s in itertools.pairwise(edges_s):
        if plans and start_s in plans:
            backend.deploy(plans[start_s])
        mine = sending[(sending >= start_s) & (sending < until_s)]
        windows.append(backend.serve(mine, until_s))
    windows.append(backend.finish())
    return windows


def joined(windows: Sequence[Served]) -> Requests:
    """All requests of a run in the order of leaving."""
    columns = {
        name: np.concatenate([getattr(window.requests, name) for window in windows])
        for name in Requests.__slots__
    }
    return Requests(**columns)


def by_id(windows: Sequence[Served]) -> Requests:
    """All requests of a run in the order of sending."""
    requests = joined(windows)
    order = np.argsort(requests.request_id, kind="stable")
    return Requests(**{name: getattr(requests, name)[order] for name in Requests.__slots__})


def simulate(backend: SimulatedBackend, sending_s: Sequence[float] | Floats) -> Requests:
    """All requests in the order of sending, served in one window."""
    until_s = float(np.max(sending_s, initial=0.0)) + 1
    return by_id(run(backend, sending_s, [0.0, until_s]))


def total_j(windows: Sequence[Served]) -> float:
    return math.fsum(float((w.idle_j + w.dynamic_j).sum()) for w in windows)
