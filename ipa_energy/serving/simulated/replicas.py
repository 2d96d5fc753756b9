"""The replicas of one stage, and how they change under way.

::

    apply(new variant or allocation)      + reconfiguration_s
    │ old replicas serve ─────────────────│─ finish their batch ─┤ stop
    │ new replicas start ─────────────────│─ serve ──────────────────────────▶

More replicas of the same server join when they are ready; fewer stop at once if they wait and after
their batch if they work; another batch size holds from the next batch on. A change that arrives
while new replicas start replaces what they were started for: those that still fit go on, the others
stop. Replicas that start, serve or drain all hold their cores and idle watts.

Replicas of one server are alike, so a :class:`Fleet` counts them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from ipa_energy.records import Option
from ipa_energy.serving.base import DeployedStage
from ipa_energy.serving.simulated.service_time import BatchProfile, Server, server_of


@dataclass(slots=True, eq=False)
class Cohort:
    """Replicas that were started together and are not ready yet."""

    replicas: int


@dataclass(slots=True, eq=False)
class Fleet:
    """Replicas of one server.

    Attributes:
        option: what they run; its batch and idle watts hold now.
        wait_s: planned wait to fill a batch.
        profile: times and joules of their batches.
        free: ready and waiting.
        busy: serving a batch, those that will stop after it included.
        stopping: how many of the busy ones stop after their batch (the first to finish).
        starting: not ready yet, oldest first.
    """

    option: Option
    wait_s: float
    profile: BatchProfile
    free: int = 0
    busy: int = 0
    stopping: int = 0
    starting: list[Cohort] = field(default_factory=list)

    @property
    def existing(self) -> int:
        """Replicas that hold cores and idle watts."""
        return self.free + self.busy + sum(cohort.replicas for cohort in self.starting)

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

    Attributes:
        serving: the fleet that takes batches now.
    """

    def __init__(self, deployed: DeployedStage, profiles: Mapping[Server, BatchProfile]) -> None:
        self._profiles = profiles
        self.serving = self._new_fleet(deployed)
        self.serving.free = deployed.replicas
        self._upcoming: Fleet | None = None
        self._draining: list[Fleet] = []

    def __iter__(self) -> Iterator[Fleet]:
        """Every fleet with replicas that exist."""
        yield self.serving
        if self._upcoming is not None:
            yield self._upcoming
        yield from self._draining

    def retarget(self, deployed: DeployedStage) -> tuple[Fleet, Cohort] | None:
        """Start moving to ``deployed``.

        Returns:
            the replicas that have to start, to be handed to :meth:`become_ready` when they are
            ready; None if none has to.
        """
        fleet = self._fleet_for(deployed)
        fleet.option, fleet.wait_s = deployed.option, deployed.wait_s
        missing = deployed.replicas - fleet.staying
        if missing <= 0:
            fleet.stop(-missing)
            return None
        cohort = Cohort(missing)
        fleet.starting.append(cohort)
        return fleet, cohort

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
        profile = self._profiles[server_of(deployed.option)]
        return Fleet(deployed.option, deployed.wait_s, profile)

    def _forget_drained(self) -> None:
        self._draining = [fleet for fleet in self._draining if fleet.existing]
