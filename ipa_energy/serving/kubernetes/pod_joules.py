"""Joules of a pipeline's pods from what Kepler and DCGM count and a Prometheus scrapes.

==========================  =====================================================================
a stage's dynamic joules    Kepler's of its pods, either generation; pods that began or ended
                            within the window included, by :mod:`ipa_energy.meters.prometheus`
its idle joules             each node's idle counter × (cores that the stage's pods reserved there
                            × time) / (cores of the node × time)
its GPUs                    DCGM's of each GPU, to the pods that held it; shared equally among
                            several. No counter tells idle from the rest: all counts as dynamic
==========================  =====================================================================

A pod so short that no scrape saw it has no counter: it is named, and its joules are missing. A
window without all of these figures has none of them: then the estimate by busy time stays, and the
log says why.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from ipa_energy.meters.base import MeterFault
from ipa_energy.meters.prometheus.counters import EXPORTED, own_labels
from ipa_energy.meters.prometheus.exporters import (
    DCGM,
    KEPLER,
    METRIC,
    OLD_NODES,
    dcgm_meter,
    kepler_meter,
)
from ipa_energy.meters.prometheus.prometheus_meter import PrometheusMeter
from ipa_energy.meters.prometheus.query import CounterQuery
from ipa_energy.meters.prometheus.server import PrometheusServer
from ipa_energy.meters.sources import KeplerTarget
from ipa_energy.records import Quality, joined_meters, weakest_quality
from ipa_energy.serving.served import Served

ZONES = 'zone=~"(package|dram)(-[0-9]+)?"'
IDLE = "kepler_node_cpu_idle_joules_total"
OLD_IDLE = '{__name__=~"kepler_node_(package|dram)_joules_total",mode="idle"}'
CORES_OF_NODES = (
    ("count by (node_name) (kepler_node_cpu_info)", "node_name"),
    ("max by (node) (machine_cpu_cores)", "node"),
    ('max by (node) (kube_node_status_allocatable{resource="cpu"})', "node"),
)
"""How many cores each node has, by whoever says so."""

NOT_DYNAMIC = re.compile(r"(^|/)idle(/|$)")


@dataclass(slots=True)
class Held:
    """What a stage's pods reserved in a window.

    Attributes:
        core_s: node → cores × seconds.
        pods: names of those that were ready at some time.
        workloads: names of what makes them, which theirs begin with; empty if nobody looked.
        has_gpus: True if they hold any.
    """

    core_s: dict[str, float] = field(default_factory=dict)
    pods: set[str] = field(default_factory=set)
    has_gpus: bool = False
    workloads: set[str] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class StageJoules:
    """Of one stage in one window."""

    idle_j: float
    dynamic_j: float
    meters: tuple[str, ...]
    quality: Quality
    notes: tuple[str, ...] = ()


class PodJoules:
    """What a Prometheus knows of the pods of one namespace.

    Args:
        server: to be asked.
        namespace: of the pods.
        prefixes: stage → what its pods' names begin with.
    """

    def __init__(
        self, server: PrometheusServer, namespace: str, prefixes: Mapping[str, str]
    ) -> None:
        self.server = server
        self._namespace, self._prefixes = namespace, prefixes
        self._cores: dict[str, float] = {}

    def window(
        self, start_s: float, end_s: float, held: Mapping[str, Held]
    ) -> dict[str, StageJoules]:
        """Joules of every stage; waits until the last scrape of the window is in.

        Args:
            start_s: Unix seconds on the server's clock.
            end_s: likewise, later.
            held: stage → what its pods reserved.

        Raises:
            MeterUnavailableError: some are not known.
        """
        nodes = sorted({node for one in held.values() for node in one.core_s})
        idle_j = {node: self._node_idle_j(node, start_s, end_s) for node in nodes}
        length_s = end_s - start_s
        found = {}
        for stage, one in held.items():
            dynamic = self._dynamic(stage, start_s, end_s, one)
            share_j = math.fsum(
                idle_j[node] * min(1.0, core_s / (self._cores_of(node) * length_s))
                for node, core_s in one.core_s.items()
            )
            found[stage] = replace(dynamic, idle_j=share_j)
        return found

    def _dynamic(self, stage: str, start_s: float, end_s: float, held: Held) -> StageJoules:
        prefixes = sorted(held.workloads) or [self._prefixes[stage]]
        found = []
        for at, prefix in enumerate(prefixes, start=1):
            target = KeplerTarget(namespace=self._namespace, pod=f"{prefix}-*")
            try:
                found.append(kepler_meter(self.server, target).energy_over(start_s, end_s))
            except MeterFault as fault:  # of an option that has just come nothing is scraped yet
                if fault.state != "absent" or (at == len(prefixes) and not found):
                    raise
        notes = [f"stage {stage}: {note}" for energy in found for note in energy.notes]
        dynamic_j = math.fsum(
            joules
            for energy in found
            for domain, joules in energy.domains.items()
            if not NOT_DYNAMIC.search(domain)
        )
        seen = {part for energy in found for domain in energy.domains for part in domain.split("/")}
        unseen = sorted(held.pods - seen)
        if unseen:
            notes.append(
                f"stage {stage}: {len(unseen)} pods lived too short to be scraped, their joules"
                f" are missing: {', '.join(unseen[:3])}"
            )
        meters, quality = [KEPLER], found[0].quality
        if held.has_gpus:
            gpus_j, is_shared = self._gpus_j(prefixes, start_s, end_s)
            dynamic_j += gpus_j
            meters.append(DCGM)
            if is_shared:
                notes.append(f"stage {stage}: GPUs that other pods hold as well, shared equally")
        return StageJoules(math.nan, dynamic_j, tuple(meters), quality, tuple(notes))

    def _node_idle_j(self, node: str, start_s: float, end_s: float) -> float:
        """What a node drew only because it was on."""
        pattern = node.replace(".", "[.]")
        queries = (
            CounterQuery(
                f'{IDLE}{{node_name="{node}",{ZONES}}}',
                quality="estimated",
                domain_labels=("node_name", "zone"),
                identity=("node_name", "zone", "path"),
                may_rest=True,
            ),
            CounterQuery(
                f'{OLD_IDLE[:-1]},instance=~"{pattern}(:[0-9]+)?"}}',
                quality="estimated",
                domain_labels=("instance", "__name__"),
                identity=OLD_NODES,
                may_rest=True,
            ),
        )
        for query in queries:
            try:
                meter = PrometheusMeter(self.server, query, name=KEPLER)
                return meter.energy_over(start_s, end_s).energy_j
            except MeterFault as fault:
                if fault.state != "absent":
                    raise
        raise MeterFault(KEPLER, "absent", f"node {node} has no counter of idle joules", None)

    def _cores_of(self, node: str) -> float:
        if node not in self._cores:
            for expression, label in CORES_OF_NODES:
                for one in self.server.vector(expression):
                    name = own_labels(one.labels).get(label, "").partition(":")[0]
                    self._cores.setdefault(name, one.values[-1])
        if not self._cores.get(node):
            raise MeterFault(
                KEPLER,
                "absent",
                f"nobody says how many cores node {node} has",
                "have kube-state-metrics, cAdvisor or Kepler 0.10 scraped",
            )
        return self._cores[node]

    def _gpus_j(self, prefixes: Sequence[str], start_s: float, end_s: float) -> tuple[float, bool]:
        """Joules of the GPUs that a stage's pods held, and whether others held them too."""
        span_s = math.ceil(end_s - start_s)
        names = [name for one in ("pod", "UUID", "namespace") for name in (one, EXPORTED + one)]
        counted = f"count by ({', '.join(names)}) (last_over_time({METRIC}[{span_s}s]))"
        holders: dict[str, set[str]] = {}
        for one in self.server.vector(counted, end_s):
            labels = own_labels(one.labels)
            if pod := labels.get("pod"):
                where = f"{labels.get('namespace', '')}/{pod}"
                holders.setdefault(labels["UUID"], set()).add(where)
        mine = tuple(f"{self._namespace}/{prefix}-" for prefix in prefixes)
        total_j, is_shared = 0.0, False
        for uuid, pods in holders.items():
            ours = sum(pod.startswith(mine) for pod in pods)
            if ours:
                energy = dcgm_meter(self.server, uuid=uuid).energy_over(start_s, end_s)
                total_j += energy.energy_j * ours / len(pods)
                is_shared = is_shared or ours < len(pods)
        return total_j, is_shared


def with_joules(served: Served, stages: Sequence[str], found: Mapping[str, StageJoules]) -> Served:
    """A window with these joules in the place of its estimates.

    The watts of each second keep their shape, and replicas their shares of their stage.
    """
    idle_j = np.array([found[stage].idle_j for stage in stages])
    dynamic_j = np.array([found[stage].dynamic_j for stage in stages])
    before_j = float(served.idle_j.sum() + served.dynamic_j.sum())
    after_j = float(idle_j.sum() + dynamic_j.sum())
    lengths_s = np.minimum(1.0, served.end_s - served.start_s - np.arange(len(served.power_w)))
    flat_w = np.full_like(served.power_w, after_j / max(lengths_s.sum(), 1e-9))
    power_w = served.power_w * (after_j / before_j) if before_j > 0 else flat_w
    scale = {
        stage: (_ratio(idle_j[i], served.idle_j[i]), _ratio(dynamic_j[i], served.dynamic_j[i]))
        for i, stage in enumerate(stages)
    }
    replicas = tuple(
        replace(
            one,
            idle_j=one.idle_j * scale[one.stage][0],
            dynamic_j=one.dynamic_j * scale[one.stage][1],
        )
        for one in served.replicas
    )
    ones = [found[stage] for stage in stages]
    return replace(
        served,
        idle_j=idle_j,
        dynamic_j=dynamic_j,
        power_w=np.asarray(power_w, dtype=np.float64),
        meter=joined_meters(meter for one in ones for meter in one.meters),
        quality=weakest_quality([one.quality for one in ones]),
        replicas=replicas,
        notes=(*served.notes, *(note for one in ones for note in one.notes)),
    )


def _ratio(after_j: float, before_j: float) -> float:
    return after_j / before_j if before_j > 0 else 0.0
