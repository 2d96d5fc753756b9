r"""The replicas of one stage: how they change under way, and how long a batch takes on one.

::

    deploy(new variant or allocation)     + time to start
    │ old replicas serve ─────────────────│─ finish their batch ─┤ stop
    │ new replicas start ─────────────────│─ serve ──────────────────────────▶

More replicas of the same server join when they are ready; fewer stop at once if they wait and after
their batch if they work; another batch size holds from the next batch on. A change that arrives
while new replicas start replaces what they were started for: those that still fit go on, the others
stop. Replicas that start, serve or drain all hold their cores and idle watts. Those that start
spend the joules of loading besides, evenly until they are ready; one that is stopped before has
spent its share. The time to start is the YAML's ``reconfiguration_s``, or the profile's.

Cores and clocks of the same variant may be changed *in place*, if ``reconfiguration_s`` names them:
after their time the replicas are the new ones, loading nothing and held once. Those that work
then finish their batch as they began it. Replicas beyond those that there were start as ever.

Replicas of one server are alike, so a :class:`Fleet` counts them.

**Batches.** A profile has a few batch sizes; a time-out makes batches of any size up to them.
Between two profiled sizes the mean, the 99th percentile and the dynamic joules *of a batch* are
linear in its size; a batch below the smallest profiled size costs as much as that one.

Times are random: lognormal with the measured mean :math:`m` and 99th percentile :math:`q`. With
:math:`z = \Phi^{-1}(0.99)`, :math:`\ln(q/m) = z\sigma - \sigma^2/2`, hence::

    σ = z − √(z² − 2·ln(q/m)),    μ = ln m − σ²/2

No lognormal has a 99th percentile above e^(z²/2) ≈ 15 times its mean: beyond, the widest one with
that mean (σ = z) stands in. A p99 at or below the mean means a fixed time.

These are the *measured* latencies: margins and the choice of p99 belong to planning. The profile's
throughput is not used: it carries the ``throughput_margin``, and where it was measured at a given
load (IPA's profiling) it says what was offered, not what a replica can do. A replica is thus busy
for the service time of its batch and free right after, and n replicas sustain n·b/l.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from ipa_energy.errors import ConfigError
from ipa_energy.records import EVERY_CLASS, Allocation, Option
from ipa_energy.serving.deployment import DeployedStage, Told, is_in_place, ready_after_s

Z99 = 2.3263478740408408
"""99th percentile of the standard normal distribution."""

NORMALS_AT_ONCE = 1024

Server = tuple[str, Allocation]
"""(variant, allocation): what cannot change without starting a new replica."""


def server_of(option: Option) -> Server:
    """What a replica must be to run ``option`` at any batch size."""
    return (option.variant, option.allocation)


def lognormal_parameters(mean: float, p99: float) -> tuple[float, float]:
    """(μ, σ) of the lognormal distribution with this mean and 99th percentile; see the module."""
    if p99 <= mean:
        return math.log(mean), 0.0
    sigma = Z99 - math.sqrt(max(0.0, Z99**2 - 2 * math.log(p99 / mean)))
    return math.log(mean) - sigma**2 / 2, sigma


class NormalStream:
    """Standard normal numbers, one at a time, drawn in blocks because single draws are slow."""

    __slots__ = ("_block", "_rng")

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng
        self._block: list[float] = []

    def next(self) -> float:
        """The next number."""
        if not self._block:
            self._block = self._rng.standard_normal(NORMALS_AT_ONCE).tolist()
            self._block.reverse()
        return self._block.pop()


@dataclass(frozen=True, slots=True)
class BatchProfile:
    """One server's batches; every list is indexed by batch size, entry 0 is never used.

    Attributes:
        mean_s: mean service time.
        log_mean, log_deviation: μ and σ of the service time's logarithm; σ = 0 means a fixed time.
        energy_j: dynamic joules of the whole batch, k·e(k); NaN if the profile has none.
    """

    mean_s: Sequence[float]
    log_mean: Sequence[float]
    log_deviation: Sequence[float]
    energy_j: Sequence[float]

    def draw_s(self, size: int, normals: NormalStream) -> float:
        """A service time of a batch of ``size``; takes one number from ``normals`` if random."""
        return self.time_s(size, 0.0 if self.log_deviation[size] == 0.0 else normals.next())

    def time_s(self, size: int, normal: float) -> float:
        """The service time of a batch of ``size`` at a value of the normal distribution."""
        deviation = self.log_deviation[size]
        if deviation == 0.0:
            return self.mean_s[size]
        return math.exp(self.log_mean[size] + deviation * normal)


def batch_profile(options: Iterable[Option]) -> BatchProfile:
    """The batches of one server.

    Args:
        options: every profiled batch size of one server, in any order, each once.

    Raises:
        ConfigError: a batch size appears twice.
    """
    by_batch: dict[int, Option] = {}
    for option in options:
        if option.batch in by_batch:
            raise ConfigError(
                f"{option.label} is profiled twice", allowed="one entry a variant, cores and batch"
            )
        by_batch[option.batch] = option
    batches = sorted(by_batch)
    sizes = np.arange(batches[-1] + 1)

    def interpolated(values: Iterable[float]) -> list[float]:
        return [float(value) for value in np.interp(sizes, batches, list(values))]

    mean_s = interpolated(by_batch[b].latency_avg_s for b in batches)
    p99_s = interpolated(by_batch[b].latency_p99_s for b in batches)
    logs = [lognormal_parameters(mean, p99) for mean, p99 in zip(mean_s, p99_s, strict=True)]
    return BatchProfile(
        mean_s=mean_s,
        log_mean=[log_mean for log_mean, _ in logs],
        log_deviation=[deviation for _, deviation in logs],
        energy_j=interpolated(b * by_batch[b].dynamic_energy_j for b in batches),
    )


class BatchProfiles:
    """The batches of every server among a stage's options, by how many replicas work at once."""

    def __init__(self, options: Iterable[Option]) -> None:
        self._options: dict[Server, list[Option]] = {}
        for option in options:
            self._options.setdefault(server_of(option), []).append(option)
        self._known: dict[tuple[Server, int, str], BatchProfile] = {}
        for server in self._options:  # a profile that cannot be simulated is refused at once
            self.of(server, 1)

    def of(self, server: Server, replicas: int, kind: str = EVERY_CLASS) -> BatchProfile:
        """The batches of one server with ``replicas`` at work, all of one class of requests.

        Of a class that it has no figures for it has those of the others.
        """
        options = self._options[server]
        replicas = min(replicas, max(option.most_measured for option in options))
        key = (server, replicas, kind)
        if key not in self._known:
            at_work = [option.at(replicas) for option in options]
            known = [own for option in at_work if kind and (own := option.of_class(kind))]
            self._known[key] = batch_profile(known or at_work)
        return self._known[key]


@dataclass(slots=True, eq=False)
class Cohort:
    """Replicas that were started together and are not ready yet.

    Attributes:
        replicas: how many.
        ready_after_s: time from their start until they serve.
        power_w: watts above idle of each meanwhile, what loading spends over that time.
        in_place: they are the old replicas, which still hold what they hold.
        began_s: when they were started.
    """

    replicas: int
    ready_after_s: float = 0.0
    power_w: float = 0.0
    in_place: bool = False
    began_s: float = 0.0


def started(replicas: int, option: Option, told_s: Told, before: Option | None = None) -> Cohort:
    """Replicas that begin to start now, in the place of those of ``before`` if they are.

    Joules of loading that the profile has not measured count as none, and so do those of replicas
    that are told to be ready at once.
    """
    seconds = ready_after_s(option, told_s, before)
    if is_in_place(option, told_s, before):
        return Cohort(replicas, seconds, in_place=True)
    is_free = math.isnan(option.load_energy_j) or seconds == 0
    return Cohort(replicas, seconds, 0.0 if is_free else option.load_energy_j / seconds)


@dataclass(slots=True, eq=False)
class Fleet:
    """Replicas of one server.

    Attributes:
        option: what they run; its batch and idle watts hold now.
        wait_s: planned wait to fill a batch.
        profile: times and joules of their batches, of as many replicas as are meant to run.
        by_class: the same of each class of requests; empty where nobody tells them apart.
        free: ready and waiting.
        busy: serving a batch, those that will stop after it included.
        stopping: how many of the busy ones stop after their batch (the first to finish).
        starting: not ready yet, oldest first.
        site: where they are; empty where there is but one place.
    """

    option: Option
    wait_s: float
    profile: BatchProfile
    free: int = 0
    busy: int = 0
    stopping: int = 0
    starting: list[Cohort] = field(default_factory=list)
    site: str = ""
    by_class: Sequence[BatchProfile] = ()

    @property
    def existing(self) -> int:
        """Replicas that there are, or will be when they have started."""
        return self.free + self.busy + sum(cohort.replicas for cohort in self.starting)

    @property
    def holding(self) -> int:
        """Those that hold cores and idle watts, which old replicas hold for those in place."""
        return self.existing - sum(each.replicas for each in self.starting if each.in_place)

    @property
    def loading_w(self) -> float:
        """Watts above idle of those that start."""
        return sum(cohort.replicas * cohort.power_w for cohort in self.starting)

    @property
    def staying(self) -> int:
        """Replicas that are meant to go on."""
        return self.existing - self.stopping

    def stop(self, count: int) -> None:
        """Stop ``count`` replicas: the latest starting first, then waiting ones, then busy ones."""
        while count > 0 and self.starting:
            cohort = self.starting[-1]
            taken = min(count, cohort.replicas)
            cohort.replicas -= taken
            count -= taken
            if cohort.replicas == 0:
                self.starting.pop()
        waiting = min(count, self.free)
        self.free -= waiting
        self.stopping += count - waiting

    def release(self) -> bool:
        """One busy replica finished its batch; True if it stops."""
        self.busy -= 1
        if self.stopping:
            self.stopping -= 1
            return True
        self.free += 1
        return False


class Replicas:
    """All replicas of one stage.

    Args:
        deployed: what runs from the beginning, ready at once.
        profiles: the stage's batches by server.
        reconfiguration_s: time to start; None: see
            :func:`~ipa_energy.serving.deployment.ready_after_s`.
        kinds: names of the classes of requests; empty where nobody tells them apart.
        is_running: False for an option that does not run yet: :meth:`retarget` starts it.

    Attributes:
        serving: the fleet that takes batches now.
    """

    def __init__(
        self,
        deployed: DeployedStage,
        profiles: BatchProfiles,
        reconfiguration_s: Told = None,
        kinds: Sequence[str] = (),
        *,
        is_running: bool = True,
    ) -> None:
        self._profiles, self._kinds = profiles, kinds
        self._reconfiguration_s = reconfiguration_s
        self.serving = self._new_fleet(deployed)
        self.serving.free = deployed.replicas if is_running else 0
        self._upcoming: Fleet | None = None
        self._draining: list[Fleet] = []

    @property
    def target(self) -> Option:
        """What they run, or will once it is ready."""
        return (self._upcoming or self.serving).option

    @property
    def are_changing(self) -> bool:
        """True while some are starting."""
        return self._upcoming is not None or bool(self.serving.starting)

    @property
    def staying(self) -> int:
        """Replicas that are meant to go on."""
        return (self._upcoming or self.serving).staying

    def let_go(self) -> None:
        """Stop all of them, each after the batch that it works on."""
        self.serving.stop(self.serving.staying)
        self._upcoming = None

    def __iter__(self) -> Iterator[Fleet]:
        """Every fleet with replicas that exist."""
        yield self.serving
        if self._upcoming is not None:
            yield self._upcoming
        yield from self._draining

    def retarget(self, deployed: DeployedStage) -> list[tuple[Fleet, Cohort]]:
        """Start moving to ``deployed``.

        Returns:
            the replicas that have to start, to be handed to :meth:`become_ready` when they are
            ready.
        """
        fleet = self._fleet_for(deployed)
        fleet.option, fleet.wait_s = deployed.option, deployed.wait_s
        fleet.profile, *fleet.by_class = self._batches(deployed)
        missing = deployed.replicas - fleet.staying
        if missing <= 0:
            fleet.stop(-missing)
            return []
        told_s = self._reconfiguration_s
        before = None if fleet is self.serving else self.serving.option
        cohort = started(missing, deployed.option, told_s, before)
        cohorts = [cohort]
        more = missing - self.serving.staying
        if cohort.in_place and more > 0:
            cohort.replicas -= more
            cohorts.append(started(more, deployed.option, told_s))
        cohorts = [each for each in cohorts if each.replicas]
        fleet.starting += cohorts
        return [(fleet, each) for each in cohorts]

    def become_ready(self, fleet: Fleet, cohort: Cohort) -> bool:
        """Replicas have started; False if they were stopped meanwhile.

        The first ones of a new server take over from the old one's.
        """
        if cohort not in fleet.starting or (
            fleet is not self.serving and fleet is not self._upcoming
        ):
            return False
        fleet.starting.remove(cohort)
        fleet.free += cohort.replicas
        if fleet is self._upcoming:
            self.serving.stop(self.serving.staying)
            self._draining.append(self.serving)
            self.serving, self._upcoming = fleet, None
            self._forget_drained()
        return True

    def release(self, fleet: Fleet) -> bool:
        """One replica of ``fleet`` finished its batch; True if it stops."""
        stopped = fleet.release()
        if stopped:
            self._forget_drained()
        return stopped

    def _fleet_for(self, deployed: DeployedStage) -> Fleet:
        server = server_of(deployed.option)
        if server == server_of(self.serving.option):
            self._upcoming = None
            return self.serving
        self.serving.starting.clear()
        if self._upcoming is None or server_of(self._upcoming.option) != server:
            self._upcoming = self._new_fleet(deployed)
        return self._upcoming

    def _new_fleet(self, deployed: DeployedStage) -> Fleet:
        profile, *by_class = self._batches(deployed)
        option, wait_s = deployed.option, deployed.wait_s
        return Fleet(option, wait_s, profile, by_class=by_class, site=option.allocation.site)

    def _batches(self, deployed: DeployedStage) -> list[BatchProfile]:
        """Of all requests, then of each class."""
        server, replicas = server_of(deployed.option), deployed.replicas
        return [self._profiles.of(server, replicas, kind) for kind in (EVERY_CLASS, *self._kinds)]

    def _forget_drained(self) -> None:
        self._draining = [fleet for fleet in self._draining if fleet.existing]
