"""Joules that two exporters count and Prometheus scrapes: Kepler's and NVIDIA's DCGM.

Kepler counts nodes, pods and containers, in either of two generations:

====================  ==========================================  ===============================
what                  Kepler 0.10 and newer                       Kepler up to 0.9
====================  ==========================================  ===============================
node                  ``kepler_node_cpu_joules_total``            ``kepler_node_package_joules…``
pod                   ``kepler_pod_cpu_joules_total``             its containers
container             ``kepler_container_cpu_joules_total``       ``kepler_container_package_…``
parts                 ``zone`` = package, dram, core, psys …      a metric for each
idle                  in the node's counter only                  ``mode`` = dynamic, idle
====================  ==========================================  ===============================

Packages and memory are summed; core and uncore are inside the package, and psys (the whole
platform) is used alone where there is no package. GPU counters are left to ``dcgm`` and ``nvml``.
Only where an old Kepler has no parts at all its ``kepler_…_joules_total`` is taken, which includes
GPUs and everything else on the board.

Where both generations are scraped, the newer counts; what only the older one has is never left out
unsaid. Two exporters of one node, or one that is scraped twice, are one counter.

A node's joules are what RAPL counted, hence measured, unless Kepler says that a model made them. A
pod's or container's are its share of the node's by CPU time: no counter tells processes apart, so
they are always estimated.

Pods come and go, and Kepler counts each from 0. One that began within a window has gained all that
it shows, and of one that ended only what it drew after its last scrape is missing (Kepler 0.10
tells that too), as long as Kepler itself ran on. Whether it did, the node's own counter tells,
which never rests: a Kepler that hangs repeats its last values, and they would make 0 J of a pod at
work.

DCGM counts NVIDIA GPUs: ``DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION`` is NVML's counter of a whole GPU,
in millijoules. The exporter labels it with the pod that holds the GPU and repeats it for every MIG
slice and every pod that shares the GPU, read milliseconds later; all of these are one counter, told
apart by the GPU's UUID and counted once. A slice's or a pod's own joules are not known, so no pod
can be selected.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from ipa_energy.errors import ConfigError
from ipa_energy.meters.base import MeterFault
from ipa_energy.meters.prometheus.counters import EXPORTED, IDENTITIES, own_labels
from ipa_energy.meters.prometheus.prometheus_meter import (
    MODEL_WORDS,
    PrometheusMeter,
    scraped_source,
)
from ipa_energy.meters.prometheus.query import CounterQuery, Watch, quoted
from ipa_energy.meters.prometheus.server import PrometheusServer
from ipa_energy.meters.sources import KeplerTarget
from ipa_energy.records import Quality

KEPLER = "kepler"

Generation = Literal["0.10", "0.9"]

PACKAGES = "package(-[0-9]+)?"
PACKAGES_AND_MEMORY = "(package|dram)(-[0-9]+)?"
PLATFORM = "psys(-[0-9]+)?"

CURRENT_NAME = "kepler_(node|pod|container)_cpu_joules_total"
OLD_NAME = "kepler_(node_package|container)_.*joules_total"
SYSTEM_POD = "system_processes"
"""What older Keplers call everything that is in no pod."""

OLD_NODES = ("instance", "__name__", "mode", "package")
OLD_CONTAINERS = (
    "instance", "container_id", "container_namespace", "pod_name", "container_name", "__name__",
    "mode",
)  # fmt: skip
NODES = "kepler_node_cpu_joules_total"
WATCH = Watch(NODES, IDENTITIES[NODES], "node_name")
OLD_WATCH = Watch("kepler_node_package_joules_total", OLD_NODES, "instance")


@dataclass(frozen=True, slots=True)
class _Past:
    """What a server had scraped by the end of a window, from its start on."""

    server: PrometheusServer
    start_s: float
    end_s: float

    def labels(self, selector: str, label: str) -> list[str]:
        """Values of a label among the series that a selector picks, sorted."""
        span_s = math.ceil(self.end_s - self.start_s)
        labels = f"{label}, {EXPORTED}{label}"
        counted = f"count by ({labels}) (last_over_time({selector}[{span_s}s]))"
        found = self.server.vector(counted, self.end_s)
        return sorted({own_labels(one.labels).get(label, "") for one in found} - {""})


def kepler_meter(
    server: PrometheusServer,
    target: KeplerTarget | None = None,
    *,
    generation: Generation | None = None,
) -> PrometheusMeter:
    """A meter of what Kepler counts; the server is first asked when it is first used.

    Args:
        server: the Prometheus that scrapes Kepler.
        target: whose joules; None for all nodes.
        generation: None to find out.
    """
    chosen = target or KeplerTarget()

    def query_over(start_s: float, end_s: float) -> CounterQuery:
        return _kepler_query(_Past(server, start_s, end_s), chosen, generation)

    return PrometheusMeter(server, query_over, name=KEPLER)


def _kepler_query(
    past: _Past, target: KeplerTarget, generation: Generation | None = None
) -> CounterQuery:
    """The counters that add up to the target's joules.

    Raises:
        MeterFault: the server scrapes no Kepler, or Kepler has nothing about the target.
    """
    found = [generation] if generation else _generations(past)
    if not found:
        raise MeterFault(
            KEPLER,
            "absent",
            f"{past.server.url} has no Kepler metrics",
            "install Kepler and have Prometheus scrape it (port 28282; 9102 up to 0.9)",
        )
    if found == ["0.9"]:
        return _old(past, target)
    try:
        query = _current(past, target)
    except _NothingFault as absent:
        if found == ["0.10"]:
            raise
        try:
            return _old(past, target)
        except MeterFault:
            raise absent from None
    if len(found) > 1:
        _require_nothing_only_in_old(past, target)
    return query


def _generations(past: _Past) -> list[Generation]:
    """Those that are scraped, newest first."""
    names = past.labels('{__name__=~"kepler_.*_joules_total"}', "__name__")
    current = [name for name in names if re.fullmatch(CURRENT_NAME, name)]
    old = [name for name in names if re.fullmatch(OLD_NAME, name) and name not in current]
    found: list[Generation] = ["0.10"] if current else []
    return [*found, "0.9"] if old else found


def _require_nothing_only_in_old(past: _Past, target: KeplerTarget) -> None:
    """Machines or pods that only an older Kepler counts would drop out of the sum unseen."""
    if target.scope == "node":
        what, fix = "nodes", "name one node after the other: --kepler-node"
        new = past.labels("kepler_node_cpu_joules_total", "node_name")
        where = _old_node(past, "kepler_node_package_joules_total", target.node)
        old = past.labels(_selector("kepler_node_package_joules_total", where), "instance")
    else:
        what, fix = "pods", "name the pod, or have Prometheus scrape one Kepler only"
        new = past.labels("kepler_pod_cpu_joules_total", "pod_name")
        pods = [("container_namespace", target.namespace), ("pod_name", target.pod)]
        pods.append(("container_name", target.container))
        names = '__name__=~"kepler_container_(package_)?joules_total"'
        old = past.labels(_selector("", [names, *_matchers(pods)]), "pod_name")
    only = sorted({name.partition(":")[0] for name in old} - {*new, SYSTEM_POD})
    if only:
        told = f"two generations of Kepler are scraped, and only the old one has {what}"
        raise MeterFault(KEPLER, "absent", f"{told} {', '.join(only)}", fix)


def _current(past: _Past, target: KeplerTarget) -> CounterQuery:
    """Kepler 0.10 and newer."""
    nodes = _matchers([("node_name", target.node)])
    matchers = list(nodes)
    names: tuple[str, ...]
    if target.scope == "node":
        metric, names = "kepler_node_cpu_joules_total", ("node_name", "zone")
    else:
        pods = _matchers([("pod_namespace", target.namespace), ("pod_name", target.pod)])
        if target.scope == "pod":
            metric, names = "kepler_pod_cpu_joules_total", ("pod_namespace", "pod_name", "zone")
            matchers += pods
        else:
            metric, names = "kepler_container_cpu_joules_total", ("container_name", "zone")
            matchers += _matchers([("container_name", target.container)])
            if pods:
                matchers.append(_of_pods(past, pods))
    zones = past.labels(_selector(metric, matchers), "zone")
    if not zones:
        raise _nothing(past, metric, matchers)
    wanted = PLATFORM
    if any(zone.startswith("package") for zone in zones):
        _require_packages_everywhere(past, metric, matchers)
        wanted = PACKAGES_AND_MEMORY if target.memory else PACKAGES
    matchers.append(f'zone=~"{wanted}"')
    return CounterQuery(
        _selector(metric, matchers),
        quality="measured" if target.scope == "node" else "estimated",
        domain_labels=names,
        identity=IDENTITIES[metric],
        may_rest=target.scope != "node",
        watch=WATCH if target.scope != "node" else None,
        beside=_gpus(nodes) if target.scope == "node" else None,
    )


def _gpus(matchers: Sequence[str]) -> str:
    """Kepler's own counters of a node's GPUs, which ``dcgm`` and ``nvml`` count."""
    return _selector("", ['__name__=~"kepler_node_gpu.*joules_total"', *matchers])


def _require_packages_everywhere(past: _Past, metric: str, matchers: Sequence[str]) -> None:
    """A node without package counters would drop out of the sum unseen."""
    nodes = past.labels(_selector(metric, matchers), "node_name")
    packages = _selector(metric, [*matchers, f'zone=~"{PACKAGES}"'])
    without = sorted(set(nodes) - set(past.labels(packages, "node_name")))
    if without:
        raise MeterFault(
            KEPLER,
            "absent",
            f"nodes {', '.join(without)} have no package counter and others have",
            "name the node, and measure such nodes one by one",
        )


def _of_pods(past: _Past, pods: Sequence[str]) -> str:
    """A matcher for containers of certain pods: containers carry the pod's id, not its name."""
    metric = "kepler_pod_cpu_joules_total"
    ids = past.labels(_selector(metric, pods), "pod_id")
    if not ids:
        raise _nothing(past, metric, pods)
    return f"pod_id=~{quoted('|'.join(_literal(one) for one in ids))}"


def _old(past: _Past, target: KeplerTarget) -> CounterQuery:
    """Kepler up to 0.9."""
    names: tuple[str, ...]
    if target.scope == "node":
        kind, names = "node", ("instance", "__name__", "mode")
    else:
        kind = "container"
        names = ("container_namespace", "pod_name", "container_name", "__name__", "mode")
    matchers = _matchers(
        [
            ("container_namespace", target.namespace),
            ("pod_name", target.pod),
            ("container_name", target.container),
        ]
    )
    nodes = _old_node(past, f'{{__name__=~"kepler_{kind}_.*joules_total"}}', target.node)
    matchers += nodes
    parts = f"kepler_{kind}_({'package|dram' if target.memory else 'package'})_joules_total"
    whole = f"kepler_{kind}_joules_total"
    for name in (parts, whole):
        selector = _selector("", [f'__name__=~"{name}"', *matchers])
        if past.labels(selector, "__name__"):
            return CounterQuery(
                selector,
                quality="estimated" if kind == "container" else _node_quality(past),
                domain_labels=names,
                identity=OLD_NODES if kind == "node" else OLD_CONTAINERS,
                may_rest=kind == "container",
                watch=OLD_WATCH if kind == "container" else None,
                beside=_gpus(nodes) if kind == "node" and name == parts else None,
            )
    raise _nothing(past, parts, matchers)


def _old_node(past: _Past, selector: str, node: str | None) -> list[str]:
    """A matcher for a node by the name that the exporter gave it, wherever Prometheus kept that."""
    if node is None:
        return []
    pattern = quoted(_literal(node) + "(:[0-9]+)?")
    renamed = f"{EXPORTED}instance=~{pattern}"
    inside = (
        selector[:-1] + f",{renamed}}}" if selector.endswith("}") else f"{selector}{{{renamed}}}"
    )
    return [renamed if past.labels(inside, "instance") else f"instance=~{pattern}"]


def _node_quality(past: _Past) -> Quality:
    """Estimated if any node says that its joules come from a model."""
    sources = past.labels("kepler_node_info", "components_power_source")
    modelled = any(word in source.lower() for source in sources for word in MODEL_WORDS)
    return "estimated" if modelled else "measured"


def _selector(metric: str, matchers: Sequence[str]) -> str:
    return f"{metric}{{{','.join(matchers)}}}"


def _matchers(pairs: Sequence[tuple[str, str | None]]) -> list[str]:
    return [f"{name}=~{quoted(_literal(value))}" for name, value in pairs if value is not None]


def _literal(value: str) -> str:
    """A pattern for ``value`` in which only ``*`` has a meaning."""
    if not value:
        raise ConfigError("an empty name of a node, namespace, pod or container")
    special = "\\.+?()[]{}|^$"
    return "".join(f"\\{c}" if c in special else ".*" if c == "*" else c for c in value)


class _NothingFault(MeterFault):
    """Kepler is there, and has nothing about the target."""


def _nothing(past: _Past, metric: str, matchers: Sequence[str]) -> _NothingFault:
    return _NothingFault(
        KEPLER,
        "absent",
        f"{past.server.url} has no {_selector(metric, matchers)}",
        "check the names: kubectl get pods -A, and Kepler's own metrics page",
    )


DCGM = "dcgm"
METRIC = "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION"
JOULES_PER_MJ = 1e-3


def dcgm_meter(
    server: PrometheusServer, *, host: str | None = None, uuid: str | None = None
) -> PrometheusMeter:
    """A meter of the GPUs that a DCGM exporter watches.

    Args:
        server: the Prometheus that scrapes the exporter.
        host: only GPUs of this host (label ``Hostname``).
        uuid: only this GPU.
    """
    query = dcgm_query(host=host, uuid=uuid)
    return PrometheusMeter(server, query, name=DCGM, model_label="modelName")


def dcgm_query(*, host: str | None = None, uuid: str | None = None) -> CounterQuery:
    """The counters of the GPUs, each once."""
    pairs = [("Hostname", host), ("UUID", uuid)]
    matchers = ",".join(f"{name}={quoted(value)}" for name, value in pairs if value is not None)
    return CounterQuery(
        f"{METRIC}{{{matchers}}}",
        quality="measured",
        joules_per_unit=JOULES_PER_MJ,
        domain_labels=("Hostname", "device"),
        identity=IDENTITIES[METRIC],
    )


KEPLER_SOURCE = scraped_source(
    lambda places, server: kepler_meter(server, places.kepler), KEPLER, "CPU"
)
DCGM_SOURCE = scraped_source(
    lambda places, server: dcgm_meter(server, host=places.dcgm_host, uuid=places.dcgm_gpu),
    DCGM,
    "GPU",
)
