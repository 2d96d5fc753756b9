"""A pipeline simulated batch by batch: queues, time-outs, replicas, drops, changes, joules.

::

    sent ─▶ queue ─▶ batch ─▶ replica ─▶ queue ─▶ batch ─▶ replica ─▶ done
            └ stage 1 ────────────────┘  └ stage 2 ────────────────┘

Each stage has one queue, first come, first served, as IPA's central queue. A batch starts as soon
as a replica is free and b requests wait, or the oldest one has waited the stage's time-out. The
batch takes a random time from the profile (:mod:`.replicas`) and spends k·e(k) joules above
idle; every replica that exists holds its idle watts, and one that starts spends the joules of
loading it (:mod:`.energy_ledger`). Another batch size takes no time and no joules.

A request that was sent longer ago than the drop limit when its batch is formed is dropped there.
(First come, first served with such drops wastes work under lasting overload, as in IPA: the first
stage serves what is just young enough, and the next one drops it.)

The time-out decides whether the wait a plan counts with, q = (b − 1)/λ, comes true. A longer one
lets the oldest request of a lull wait longer than planned; a shorter one starts batches before they
are full, which is faster and costs more joules a request than planned. Give None for a stage to use
each plan's own q there.

``serving: ipa`` serves as IPA does instead (:mod:`.ipa_dispatch`).

The events are in :mod:`.simulation`. A run replays exactly: nothing is random but through the seed.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Literal

import numpy as np

from ipa_energy.arrays import Counts, Floats
from ipa_energy.errors import ConfigError
from ipa_energy.records import Stage, joined_meters
from ipa_energy.serving.base import LoadSource, Resumes, Serving, Setting, VirtualClock
from ipa_energy.serving.deployment import DeployedStage, Deployment, StageState, Told, replica_start
from ipa_energy.serving.load import ClassesOfRequests
from ipa_energy.serving.queue_order import slas_of
from ipa_energy.serving.served import Served, SiteSpent
from ipa_energy.serving.simulated.energy_ledger import in_all
from ipa_energy.serving.simulated.ipa_dispatch import IpaSimulation
from ipa_energy.serving.simulated.replicas import server_of
from ipa_energy.serving.simulated.simulation import Simulation

logger = logging.getLogger(__name__)

ServingMode = Literal["central", "ipa", "ipa-random"]

BATCH_TIMEOUT_S = 1.0
"""IPA's ``max_batch_time`` in every shipped configuration."""


def simulated(setting: Setting) -> Serving:
    """A simulation of ``setting``, its load, and its virtual clock."""
    logger.info("a replica's start: %s", replica_start(setting.stages, setting.config.told_s))
    backend = SimulatedBackend.of(setting, clock=(clock := VirtualClock()))
    return Serving(backend, setting.load, clock)


class SimulatedBackend:
    """:class:`.base.Backend` as a discrete-event simulation; its time is that of the last window.

    Args:
        stages: the pipeline with its whole profile, first stage first.
        initial: what runs, ready, at time 0.
        load: what :meth:`collect` offers; None if all is offered by :meth:`serve`.
        seed: of service times and of the rounding of a fractional ``requests_per_input``.
        drop_limit_s: requests older than this are dropped when their batch is formed; None: never.
        reconfiguration_s: time from :meth:`deploy` until new replicas are ready; None: what the
            profile measured, or IPA's 8 s (:func:`.deployment.ready_after_s`).
        batch_timeout_s: one a stage: longest time the oldest request waits for its batch to fill
            while a replica is free; None: the wait that the running plan counts with. Default 1 s
            everywhere.
        serving: how batches come to replicas.
        classes: of the requests of ``load``; None where nobody tells them apart.
        delays_s: site → what the network adds to a request that goes there; there and back, all
            of it on the way.
        slas_s: latency SLA of each class, one for all without classes: then requests that can still
            be in time are served first (:mod:`.queue_order`); empty: first come, first served.
        clock: the run's, which may be ahead of the last window; None: nobody looks ahead of it.
        moments: False to leave out when requests came to the stages, began and were served there.

    Raises:
        ConfigError: a time or the seed is negative, the numbers of stages differ, or ``initial`` is
            not in the profile.
    """

    name = "simulate"
    resumes: Resumes = "replay"

    def __init__(
        self,
        stages: Sequence[Stage],
        initial: Deployment,
        *,
        load: LoadSource | None = None,
        seed: int,
        drop_limit_s: float | None = None,
        reconfiguration_s: Told = None,
        batch_timeout_s: Sequence[float | None] | None = None,
        serving: ServingMode = "central",
        classes: ClassesOfRequests | None = None,
        delays_s: Mapping[str, float] | None = None,
        slas_s: Sequence[float] = (),
        clock: VirtualClock | None = None,
        moments: bool = True,
    ) -> None:
        timeouts = [BATCH_TIMEOUT_S] * len(stages) if batch_timeout_s is None else batch_timeout_s
        _check_settings(len(stages), seed, drop_limit_s, reconfiguration_s, timeouts)
        self._stages = tuple(stages)
        self._load, self._classes, self._clock = load, classes, clock
        self._now_s = self._closed_s = 0.0
        self._sent_rps: list[int] = []
        self._wanted = self._checked(initial)
        make: Callable[..., Simulation] = Simulation
        if serving != "central":
            make = partial(IpaSimulation, at_random=serving == "ipa-random")
        self._simulation = make(
            self._stages,
            self._wanted,
            seed=seed,
            drop_limit_s=math.inf if drop_limit_s is None else drop_limit_s,
            reconfiguration_s=reconfiguration_s,
            batch_timeout_s=timeouts,
            classes=classes,
            delays_s=delays_s,
            slas_s=slas_s,
            moments=moments,
        )

    @classmethod
    def of(
        cls, setting: Setting, *, clock: VirtualClock | None = None, moments: bool = True
    ) -> SimulatedBackend:
        """The simulation of a setting."""
        config = setting.config
        return cls(
            setting.stages,
            setting.start,
            load=setting.load,
            seed=config.seed,
            drop_limit_s=config.drop_limit,
            reconfiguration_s=config.told_s,
            batch_timeout_s=[stage.batch_timeout_s for stage in config.stages],
            serving=config.serving,
            classes=setting.classes,
            delays_s={name: site.network_delay_s for name, site in config.sites.items()},
            slas_s=slas_of(config, setting.latency_sla_s),
            clock=clock,
            moments=moments,
        )

    @property
    def now_s(self) -> float:
        """Simulated seconds since the start of the run."""
        return self._now_s

    def deploy(self, wanted: Deployment) -> None:
        """Start moving to ``wanted`` now (see :mod:`.replicas`); returns at once.

        Raises:
            ConfigError: it is for another pipeline, or not in the profile.
        """
        self._wanted = self._checked(wanted)
        self._simulation.retarget(wanted, self._now_s)

    def wanted(self) -> Deployment:
        """What it moves to."""
        return self._wanted

    def deployed(self) -> tuple[StageState, ...]:
        """What runs now; nothing ever fails."""
        return self._simulation.states(self._now_s)

    def received_rps(self, window_s: int) -> Counts:
        """What was sent in each of the last ``window_s`` seconds, by the clock's time."""
        sent_rps = self._sent_rps[-window_s:]
        now_s = int(self._clock.now_s) if self._clock else 0
        if self._load is not None and now_s > self._now_s:
            since = self._load.sending_s(self._now_s, now_s).astype(np.int64) - int(self._now_s)
            more = np.bincount(since, minlength=now_s - int(self._now_s))
            sent_rps = [*sent_rps, *more.tolist()][-window_s:]
        return np.array(sent_rps, dtype=np.int64)

    def collect(self, until_s: float) -> Served:
        """Offer the load and run the clock; see :meth:`.base.Backend.collect`."""
        if until_s == math.inf:
            return self.finish()
        self.advance(until_s)
        return self._close(until_s)

    def advance(self, until_s: float) -> None:
        """Offer the load and run the clock; the window goes on."""
        sending_s = (
            np.empty(0) if self._load is None else self._load.sending_s(self._now_s, until_s)
        )
        self._run(sending_s, until_s)

    def serve(self, sending_s: Floats, until_s: float) -> Served:
        """Offer requests sent at ``sending_s`` and run the clock up to ``until_s``.

        Args:
            sending_s: (R,) ascending, now ≤ each < ``until_s``.
            until_s: end of the window.

        Raises:
            ConfigError: the window ends before it begins, or a request is sent outside it.
        """
        self._run(sending_s, until_s)
        return self._close(until_s)

    def _run(self, sending_s: Floats, until_s: float) -> None:
        if not self._now_s <= until_s < math.inf:
            raise ConfigError(
                f"window from {self._now_s:g} s to {until_s:g} s", allowed="a later, finite end"
            )
        sending_s = np.asarray(sending_s, dtype=np.float64)
        if len(sending_s):
            self._check_sending(sending_s, until_s)
            self._simulation.send(sending_s, self._now_s)
        self._count(sending_s, until_s)
        self._simulation.run_before(until_s)
        self._now_s = until_s

    def finish(self) -> Served:
        """Run until the last request has left; the window ends then."""
        return self._close(self._simulation.drain(self._now_s))

    def close(self) -> None:
        """Nothing to release."""

    def _count(self, sending_s: Floats, until_s: float) -> None:
        """Note what arrives in each second up to ``until_s``."""
        self._sent_rps += [0] * (math.ceil(until_s) - len(self._sent_rps))
        first = int(self._now_s)
        for second, count in enumerate(np.bincount(sending_s.astype(np.int64) - first), first):
            self._sent_rps[second] += int(count)

    def _close(self, until_s: float) -> Served:
        """Everything about the window from the last close to ``until_s``."""
        start_s, self._closed_s, self._now_s = self._closed_s, until_s, until_s
        by_site = {
            site: ledger.close(start_s, until_s)
            for site, ledger in self._simulation.ledgers.items()
        }
        spent = in_all(list(by_site.values()))
        requests = self._simulation.log.close()
        if self._classes is not None:
            kind = self._classes.of_request[requests.request_id]
            requests = replace(requests, kind=kind)
        return Served(
            start_s=start_s,
            end_s=until_s,
            requests=requests,
            idle_j=spent.idle_j,
            dynamic_j=spent.dynamic_j,
            power_w=spent.power_w,
            cores=spent.cores,
            in_flight=self._simulation.log.in_flight,
            meter=joined_meters(sorted(spent.meters or ())) or None,
            quality="estimated" if spent.meters else None,
            loading_j=spent.loading_j if spent.meters else None,
            embodied_g=None if math.isnan(spent.embodied_g) else spent.embodied_g,
            work=spent.work,
            sites=tuple(
                SiteSpent(site, float((one.idle_j + one.dynamic_j).sum()), one.power_w)
                for site, one in by_site.items()
                if site
            ),
        )

    def _check_sending(self, sending_s: Floats, until_s: float) -> None:
        inside = sending_s[0] >= self._now_s and sending_s[-1] < until_s
        if not (inside and bool((np.diff(sending_s) >= 0).all())):
            raise ConfigError(
                f"sending times from {sending_s[0]:g} s to {sending_s[-1]:g} s",
                allowed=f"ascending times from {self._now_s:g} s to below {until_s:g} s",
            )

    def _checked(self, deployment: Deployment) -> Deployment:
        """``deployment``, if it is one of this pipeline."""
        names = [deployed.stage for deployed in deployment]
        if names != [stage.name for stage in self._stages]:
            raise ConfigError(
                f"a plan for the stages {', '.join(names)}",
                allowed=", ".join(stage.name for stage in self._stages),
            )
        for stage, deployed in zip(self._stages, deployment, strict=True):
            for lane in deployed.lanes:
                _check_deployed(stage, lane)
        return deployment


def _check_deployed(stage: Stage, deployed: DeployedStage) -> None:
    option = deployed.option
    batches = sorted(o.batch for o in stage.options if server_of(o) == server_of(option))
    if option.batch not in batches:
        raise ConfigError(
            f"stage {stage.name} is to run {option.label}, which is not in the profile",
            allowed=", ".join(sorted(o.label for o in stage.options)),
        )
    if deployed.replicas < 1:
        raise ConfigError(
            f"stage {stage.name} is to run on {deployed.replicas} replicas", allowed="at least 1"
        )


def _check_settings(
    stages: int,
    seed: int,
    drop_limit_s: float | None,
    reconfiguration_s: Told,
    batch_timeout_s: Sequence[float | None],
) -> None:
    if len(batch_timeout_s) != stages:
        raise ConfigError(
            f"{len(batch_timeout_s)} batch time-outs", allowed=f"one a stage, {stages}"
        )
    if seed < 0:
        raise ConfigError(f"seed of {seed}", allowed="a whole number from 0")
    if drop_limit_s is not None and not drop_limit_s > 0:
        raise ConfigError(f"drop limit of {drop_limit_s:g} s", allowed="above 0 s, or none")
    told = (
        reconfiguration_s.values()
        if isinstance(reconfiguration_s, Mapping)
        else [reconfiguration_s]
    )
    for seconds in told:
        if seconds is not None and not (math.isfinite(seconds) and seconds >= 0):
            raise ConfigError(f"reconfiguration of {seconds:g} s", allowed="0 s or more")
    for timeout_s in batch_timeout_s:
        if timeout_s is not None and not (math.isfinite(timeout_s) and timeout_s >= 0):
            raise ConfigError(f"batch time-out of {timeout_s:g} s", allowed="0 s or more, or none")
