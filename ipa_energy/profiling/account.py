"""What the replicas of one trial are charged: :mod:`.metering` has the formulas."""

from __future__ import annotations

import math
import os
from statistics import fmean

from ipa_energy.meters.base import Energy, Meter
from ipa_energy.profiling.group import ReplicaGroup
from ipa_energy.profiling.metering import MeterFactory, SumMeter, empty_power_w
from ipa_energy.profiling.replica import Replica


class Account:
    """The meters of a group of replicas, and what each replica is charged.

    Args:
        group: the replicas, not loaded yet.
        meter_for: makes a replica's meter, or the machine's.
        idle_s: how long the empty machine is looked at, at least; used with a machine's meter only.
        machine_cores: cores that share what the meter shows; None for a replica's meter.

    Raises:
        MeterUnavailableError: the machine's meter cannot be read.
    """

    def __init__(
        self,
        group: ReplicaGroup,
        meter_for: MeterFactory,
        idle_s: float,
        machine_cores: int | None,
    ) -> None:
        self._group = group
        self._meter_for = meter_for
        self._machine_cores = machine_cores
        self._meters: list[Meter] = []
        self._empty_w = 0.0
        self.loads: list[Energy] = []
        if machine_cores is not None:
            self._meters.append(meter_for(os.getpid(), float(machine_cores)))
            self._empty_w = empty_power_w(self._meters[0], idle_s)

    @property
    def of_machine(self) -> bool:
        """True if the meter shows whatever the machine does."""
        return self._machine_cores is not None

    def load(self) -> Meter:
        """Load every replica; the meter of all of them together.

        Raises:
            ServingError: a replica could not be built, died or hung.
            MeterUnavailableError: a meter cannot be read.
        """
        self._group.load(self._load)
        return self._meters[0] if len(self._meters) == 1 else SumMeter(self._meters)

    def _load(self, replica: Replica) -> None:
        if self._machine_cores is None:
            cores = float(len(replica.spec.core_ids))
            self._meters.append(self._meter_for(replica.pid, cores))
        meter = self._meters[-1]
        start = meter.read()
        replica.load()
        self.loads.append(meter.energy_between(start, meter.read()))

    def idle_power_w(self, waiting_w: float) -> float:
        """Watts of one waiting replica, of what the meter shows while all wait."""
        count = len(self.loads)
        if self._machine_cores is None:
            return waiting_w / count
        share = len(self._group.core_ids) / self._machine_cores
        return (self._empty_w * share + waiting_w - self._empty_w) / count

    def load_energy_j(self, waiting_w: float) -> float:
        """Joules above idle of loading one replica, mean; NaN where the meter is too coarse."""
        meter = self._meters[-1]
        if any(load.duration_s < meter.min_window_s for load in self.loads):
            return math.nan
        count = len(self.loads)
        if self._machine_cores is None:
            above = [load.energy_j - waiting_w / count * load.duration_s for load in self.loads]
        else:
            added_w = (waiting_w - self._empty_w) / count  # by each replica that is loaded already
            above = [
                load.energy_j - (self._empty_w + number * added_w) * load.duration_s
                for number, load in enumerate(self.loads)
            ]
        return fmean(above)
