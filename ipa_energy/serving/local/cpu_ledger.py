"""Joules of a live pipeline so far, stage by stage, by the CPU time of its replicas.

A replica is charged its CPU seconds (dynamic) and, for as long as its process exists, the idle
watts of the cores it holds (:mod:`ipa_energy.meters.cpu_time`): also while it starts and drains.
These are estimates, and labelled so. The router, the generator and whatever decides are not in
them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ipa_energy.meters.power_model import PowerModel
from ipa_energy.serving.local.replica_set import Member, ReplicaSet

METER = "cpu-time"


@dataclass(frozen=True, slots=True)
class Sample:
    """Sums since the ledger began, one a stage.

    Attributes:
        at_s: when, by ``perf_counter``.
        idle_j, dynamic_j: joules.
        core_s: cores reserved × seconds.
    """

    at_s: float
    idle_j: tuple[float, ...]
    dynamic_j: tuple[float, ...]
    core_s: tuple[float, ...]


class CpuLedger:
    """What the replicas of all stages have spent.

    Args:
        power: of this machine.
        sets: the stages.
        now_s: the clock.
    """

    def __init__(
        self,
        power: PowerModel,
        sets: Sequence[ReplicaSet],
        *,
        now_s: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._power, self._sets, self._now_s = power, sets, now_s
        self._last_s = now_s()
        self._seen_cpu_s: dict[str, float] = {}
        self._core_s = [0.0] * len(sets)
        self._cpu_s = [0.0] * len(sets)

    def sample(self) -> Sample:
        """The sums now."""
        now_s = self._now_s()
        for index, fleet in enumerate(self._sets):
            for member in fleet.take_ended():
                self._charge(index, member, member.process.ended_s or now_s)
                self._seen_cpu_s.pop(member.name, None)
            for member in fleet.members:
                self._charge(index, member, now_s)
        self._last_s = now_s
        idle_w, dynamic_w = self._power.idle_w_per_core, self._power.dynamic_w_per_core
        return Sample(
            now_s,
            tuple(core_s * idle_w for core_s in self._core_s),
            tuple(cpu_s * dynamic_w for cpu_s in self._cpu_s),
            tuple(self._core_s),
        )

    def _charge(self, index: int, member: Member, until_s: float) -> None:
        used_s = member.process.cpu_s()
        self._cpu_s[index] += used_s - self._seen_cpu_s.get(member.name, 0.0)
        self._seen_cpu_s[member.name] = used_s
        since_s = max(self._last_s, member.process.started_s)
        self._core_s[index] += max(0.0, until_s - since_s) * member.option.cpu_cores
