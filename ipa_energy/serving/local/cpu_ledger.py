"""Joules of a live pipeline so far: by stage, by replica, and what serves beside them.

A replica is charged its CPU seconds (dynamic) and, for as long as its process exists, the idle
watts of the cores it holds: also while it starts and drains. What a CPU second and an idle core
cost is asked anew at every step (:mod:`.machine_meter`). The router, the template of the replicas,
the exporter and the meter itself hold no cores of their own; their CPU seconds are charged at the
same price, apart, and are in no stage's joules.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from ipa_energy.records import Quality
from ipa_energy.serving.local.machine_meter import ESTIMATE, Price, Prices
from ipa_energy.serving.local.replica_set import Member, ReplicaSet
from ipa_energy.serving.observed import Spent, option_name

SUMS = ("idle_j", "dynamic_j", "core_s", "embodied_g")
"""What a :class:`Sample` has of each stage."""


@dataclass(frozen=True, slots=True)
class Sample:
    """Sums since the ledger began, one a stage.

    Attributes:
        at_s: when, by ``perf_counter``.
        idle_j, dynamic_j: joules.
        core_s: cores reserved × seconds.
        overhead_j: what serves beside the stages → joules.
        meter, quality: behind the step that ends here.
        j_per_cpu_s: what a CPU second cost in that step.
        machine_j: joules of the whole machine; None before a meter showed any.
        embodied_g: grams of making the hardware that replicas held; NaN from where the profile of
            one had none.
    """

    at_s: float
    idle_j: tuple[float, ...]
    dynamic_j: tuple[float, ...]
    core_s: tuple[float, ...]
    overhead_j: Mapping[str, float] = field(default_factory=dict)
    meter: str = ESTIMATE
    quality: Quality = "estimated"
    j_per_cpu_s: float = 0.0
    machine_j: float | None = None
    embodied_g: tuple[float, ...] = ()


class CpuLedger:
    """What the replicas of all stages have spent, and what serves beside them.

    Args:
        prices: of CPU time and cores.
        sets: the stages.
        overhead: what serves beside them → its CPU seconds so far.
        now_s: the clock.

    Attributes:
        by_variant: stage, variant, meter, quality → idle and dynamic joules so far.
    """

    def __init__(
        self,
        prices: Prices,
        sets: Sequence[ReplicaSet],
        overhead: Mapping[str, Callable[[], float]] | None = None,
        *,
        now_s: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._prices, self._sets, self._now_s = prices, sets, now_s
        self._overhead = dict(overhead or {})
        self._last_s = now_s()
        self._seen_cpu_s: dict[str, float] = {}
        self._seen_served: dict[str, tuple[int, int]] = {}
        self._seen_beside_s = {name: used_s() for name, used_s in self._overhead.items()}
        self._sums = {name: [0.0] * len(sets) for name in SUMS}
        self._overhead_j = dict.fromkeys(self._overhead, 0.0)
        self._machine_j: float | None = None
        self._spent: dict[str, Spent] = {}
        self.by_variant: dict[tuple[str, str, str, str], tuple[float, float]] = {}
        self._one_at_a_time = asyncio.Lock()

    def add_overhead(self, name: str, cpu_s: Callable[[], float]) -> None:
        """Charge one thing more beside the stages, from now on."""
        self._overhead[name] = cpu_s
        self._seen_beside_s[name] = cpu_s()
        self._overhead_j[name] = 0.0

    async def sample(self) -> Sample:
        """The sums now."""
        async with self._one_at_a_time:
            ours_s = sum(self._new_s(member) for fleet in self._sets for member in fleet.members)
            price = await self._prices.price(self._now_s(), max(0.0, ours_s))
            return self._step(price)

    def take_spent(self) -> tuple[Spent, ...]:
        """What each replica was charged with since the last call."""
        spent, self._spent = self._spent, {}
        return tuple(spent.values())

    def _step(self, price: Price) -> Sample:
        """Charge what happened since the last step at its price."""
        now_s = self._now_s()
        held = sum(member.option.cpu_cores for fleet in self._sets for member in fleet.members)
        if held > price.cores:
            idle_w = price.idle_w_per_core * price.cores / held
            price = replace(price, idle_w_per_core=idle_w)
        for index, fleet in enumerate(self._sets):
            for member in fleet.take_ended():
                self._charge(index, member, member.process.ended_s or now_s, price)
                self._seen_cpu_s.pop(member.name, None)
                self._seen_served.pop(member.name, None)
            for member in fleet.members:
                self._charge(index, member, now_s, price)
        for name, cpu_s in self._overhead.items():
            used_s = cpu_s()
            new_s, self._seen_beside_s[name] = used_s - self._seen_beside_s[name], used_s
            self._overhead_j[name] += max(0.0, new_s) * price.j_per_cpu_s
        self._last_s = now_s
        if price.machine_j is not None:
            self._machine_j = (self._machine_j or 0.0) + price.machine_j
        return Sample(
            now_s,
            **{name: tuple(sums) for name, sums in self._sums.items()},
            overhead_j=dict(self._overhead_j),
            meter=price.meter,
            quality=price.quality,
            j_per_cpu_s=price.j_per_cpu_s,
            machine_j=self._machine_j,
        )

    def _new_s(self, member: Member) -> float:
        return member.process.cpu_s() - self._seen_cpu_s.get(member.name, 0.0)

    def _charge(self, index: int, member: Member, until_s: float, price: Price) -> None:
        new_s = self._new_s(member)
        self._seen_cpu_s[member.name] = self._seen_cpu_s.get(member.name, 0.0) + new_s
        since_s = max(self._last_s, member.process.started_s)
        held_s = max(0.0, until_s - since_s)
        option, stage = member.option, self._sets[index].queue.stage
        core_s = held_s * option.cpu_cores
        idle_j, dynamic_j = core_s * price.idle_w_per_core, new_s * price.j_per_cpu_s
        embodied_g = held_s / 3600 * option.embodied_g_per_hour
        for name, more in zip(SUMS, (idle_j, dynamic_j, core_s, embodied_g), strict=True):
            self._sums[name][index] += more
        key = (stage, option.variant, price.meter, price.quality)
        so_far_j = self.by_variant.get(key, (0.0, 0.0))
        self.by_variant[key] = (so_far_j[0] + idle_j, so_far_j[1] + dynamic_j)
        seen = self._seen_served.get(member.name, (0, 0))
        self._seen_served[member.name] = (member.requests, member.batches)
        answered = member.requests - seen[0], member.batches - seen[1]
        what = (stage, option_name(option), member.name)
        spent = Spent(*what, idle_j, dynamic_j, new_s, *answered)
        before = self._spent.get(member.name)
        self._spent[member.name] = spent if before is None else before + spent
