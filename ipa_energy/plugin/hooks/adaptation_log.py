"""Energy in IPA's adaptation log: written by its adapters, read back by its parser.

A node's planned joules go into its ``config``, beside IPA's keys; what concerns the whole step goes
beside ``config``. Joules of a step are known when the step is over: its requests are in the load
that the next decision looks back at, so each report completes the one before it ::

    dynamic = e · m · requests of the step        idle = n · p · seconds of the step

They are worked out from the profile, so they are called estimated however the profile was measured.
A step without a plan goes on with the configuration before it, as a cluster does.

IPA's ``AdaptationParser`` knows the seven keys of a node and swallows the rest of a log at the
first other one, and stumbles over the null configuration of an infeasible step. Here it gets the
log without what it does not know, and the energy is added to what it made of it, a value a step,
None where a step has none: :data:`STEP_KEYS`, and :data:`NODE_KEYS` of each node. A log without
energy gives what it always gave.
"""

from __future__ import annotations

import functools
import inspect
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ipa_energy.energy import power_w
from ipa_energy.optimizer.problem import combine_accuracy
from ipa_energy.plugin.hooks.pipeline_energy import (
    Chosen,
    PipelineEnergy,
    energy_of,
    find,
    quality_of,
)

logger = logging.getLogger(__name__)

NODE_PLAN_KEYS = ("joules_per_request", "power_w", "energy_quality", "energy_meter")
NODE_STEP_KEYS = ("idle_joules", "dynamic_joules")
NODE_KEYS = (*NODE_PLAN_KEYS, *NODE_STEP_KEYS)
"""What a node's ``config`` has beside IPA's seven keys."""

Method = Callable[..., Any]
Log = Mapping[str, Any]


def decorate_adapter(cls: type) -> type:
    """Wrap the methods of IPA's ``Adapter`` or ``SimAdapter``; answers the same class."""
    for name, wrap in (
        ("saving_config_builder", _saving_config_builder),
        ("start_adaptation", _start_adaptation),
    ):
        setattr(cls, name, functools.wraps(getattr(cls, name))(wrap(getattr(cls, name))))
    return cls


def _saving_config_builder(inner: Method) -> Method:
    def saving_config_builder(self: Any, *args: Any, **kwargs: Any) -> dict[str, Any]:
        config: dict[str, Any] = inner(self, *args, **kwargs)
        energy = energy_of(self.pipeline)
        if energy is not None and energy.has_joules:
            for index, node in enumerate(self.node_names):
                chosen = _chosen(self.pipeline, index, config[node])
                config[node].update(_node_plan(energy, index, chosen))
        return config

    return saving_config_builder


def _chosen(pipeline: Any, index: int, node: Mapping[str, Any]) -> Chosen | None:
    """What a node's configuration means; None if the profile has no such entry.

    Numbers may be texts: a cluster's batch comes from an environment variable.
    """
    task = pipeline.inference_graph[index]
    return find(
        task,
        str(node["variant"]),
        float(node["cpu"]),
        int(node["batch"]),
        int(node["replicas"]),
        gpu=task.gpu_mode,
    )


def _node_plan(energy: PipelineEnergy, index: int, chosen: Chosen | None) -> dict[str, Any]:
    joules = None if chosen is None else energy.stage_joules(index, chosen)
    if chosen is None or joules is None or chosen.energy is None:
        return dict.fromkeys(NODE_KEYS)
    provenance = chosen.energy.provenance
    return {
        "joules_per_request": joules,
        "power_w": power_w(joules, energy.share(index) * energy.load_rps),
        "energy_quality": provenance.quality,
        "energy_meter": provenance.meter,
        **dict.fromkeys(NODE_STEP_KEYS),
    }


def _start_adaptation(inner: Method) -> Method:
    signature = inspect.signature(inner)

    def start_adaptation(self: Any, *args: Any, **kwargs: Any) -> Any:
        energy = energy_of(self.pipeline)
        if energy is None:
            return inner(self, *args, **kwargs)
        log = EnergyLog(self, energy)
        self.monitoring.adaptation_step_report = log.reporting(
            self.monitoring.adaptation_step_report
        )
        try:
            return inner(self, *args, **kwargs)
        finally:
            del self.monitoring.adaptation_step_report
            log.finish(signature.bind(self, *args, **kwargs).arguments.get("workload"))

    return start_adaptation


class EnergyLog:
    """Adds energy to the steps that IPA's monitoring reports.

    Args:
        adapter: IPA's, about to adapt.
        energy: of its pipeline.
    """

    def __init__(self, adapter: Any, energy: PipelineEnergy) -> None:
        self._adapter = adapter
        self._energy = energy
        self._pipeline = adapter.pipeline
        self._open: dict[str, Any] | None = None
        self._running: list[Chosen] | None = None
        metadata = adapter.monitoring.adaptation_report["metadata"]
        metadata["energy"] = self._metadata()

    def _metadata(self) -> dict[str, Any]:
        from ipa_energy import __version__

        settings = self._energy.settings
        return {
            "energy_weight": settings.energy_weight,
            "energy_metric": settings.energy_metric,
            "energy_risk": settings.energy_risk,
            "energy_sla_joules": settings.energy_sla_joules,
            "energy_estimate": settings.energy_estimate,
            "strict_latency": settings.strict_latency,
            "has_joules": self._energy.has_joules,
            "ipa_energy": __version__,
        }

    def reporting(self, inner: Method) -> Method:
        """``adaptation_step_report`` that adds to what it reports."""
        signature = inspect.signature(inner)

        def report(*args: Any, **kwargs: Any) -> None:
            inner(*args, **kwargs)
            given = signature.bind(*args, **kwargs).arguments
            self._complete(given["time_interval"], given["monitored_load"])
            steps = self._adapter.monitoring.adaptation_report["timesteps"]
            self._begin(steps[int(given["timestep"])], given["objective"] is not None)

        return report

    def _begin(self, entry: dict[str, Any], decided: bool) -> None:
        """Add what is known of a step as it begins."""
        decision = self._energy.decision
        self._open = entry
        config = entry["config"]
        plan = self._plan(config) if config is not None else None
        # A step without a plan leaves the configuration before it running.
        self._running = plan if config is not None else self._running
        entry["status"] = "optimal" if decided else "infeasible" if decision else "initial"
        if decision is not None:
            entry.setdefault("duration", decision.decision_s)
            entry["method"] = decision.method
            entry["planned_load"] = self._energy.load_rps
            entry["conflict"] = decision.conflict
            if decided and decision.energy_objective is not None:
                entry["energy_objective"] = decision.energy_objective
        entry["strict_latency"] = self._is_strict()
        if plan is None:
            return
        entry["planned_latency_s"] = self._energy.latency_s(plan)
        entry["accuracy"] = self._accuracy(plan, normalized=self._pipeline.normalize_accuracy)
        entry["accuracy_raw"] = self._accuracy(plan, normalized=False)
        if self._energy.has_joules:
            entry["joules_per_request"] = self._energy.joules_per_request(plan)

    def _is_strict(self) -> bool:
        from ipa_energy.plugin.hooks.settings import EXACT_METHODS

        exact = self._adapter.optimization_method in EXACT_METHODS
        return bool(exact or self._energy.settings.strict_latency)

    def _plan(self, config: Mapping[str, Any]) -> list[Chosen] | None:
        found = [
            _chosen(self._pipeline, index, config[node])
            for index, node in enumerate(self._adapter.node_names)
        ]
        known = [chosen for chosen in found if chosen is not None]
        return known if len(known) == len(found) else None

    def _accuracy(self, plan: Sequence[Chosen], *, normalized: bool) -> float:
        """IPA's own figure counts two stages with variants of one name once."""
        scores = [
            (
                chosen.task.variants_accuracies_normalized
                if normalized
                else chosen.task.variants_accuracies
            )[chosen.model.name]
            for chosen in plan
        ]
        return float(combine_accuracy(scores, self._pipeline.accuracy_method))

    def _complete(self, now_s: float, monitored: Sequence[float] | None) -> None:
        """Add the joules of the step that ends now, ``monitored`` being the load up to now."""
        entry = self._open
        if entry is None:
            return
        duration_s = now_s - entry["time_interval"]
        self._close(entry, list(monitored or [])[-round(duration_s) :], duration_s)

    def _close(self, entry: dict[str, Any], loads: Sequence[float], duration_s: float) -> None:
        self._open = None
        requests = sum(loads)
        entry["requests"] = requests
        entry["end_s"] = entry["time_interval"] + duration_s
        if not self._energy.has_joules:
            return
        nodes = self._joules_of_nodes(requests, duration_s)
        if nodes is None:
            entry["energy_joules"] = None
            return
        totals = {key: sum(node[key] for node in nodes) for key in NODE_STEP_KEYS}
        entry |= totals
        entry["energy_joules"] = sum(totals.values())
        entry["energy_quality"] = "estimated"
        entry["energy_meter"] = quality_of(self._running or [])[1]
        if entry["config"] is not None:
            for name, node in zip(self._adapter.node_names, nodes, strict=True):
                entry["config"][name].update(node)

    def _joules_of_nodes(self, requests: float, duration_s: float) -> list[dict[str, float]] | None:
        if self._running is None or any(chosen.energy is None for chosen in self._running):
            return None
        return [
            {
                "idle_joules": chosen.replicas * chosen.energy.idle_power_w * duration_s,
                "dynamic_joules": (
                    chosen.energy.dynamic_energy_j * self._energy.share(index) * requests
                ),
            }
            for index, chosen in enumerate(self._running)
            if chosen.energy is not None
        ]

    def finish(self, workload: Sequence[float] | None) -> None:
        """Complete the last step, by the workload that was simulated or the load that was seen."""
        entry = self._open
        if entry is None:
            return
        start = int(entry["time_interval"])
        interval_s = int(self._adapter.adaptation_interval)
        received = self._adapter.monitoring.adaptation_report["metadata"].get("recieved_load")
        is_simulated = workload is not None and not hasattr(self._adapter, "teleport_mode")
        if is_simulated and workload is not None:
            loads = list(workload[start : start + interval_s])
            self._close(entry, loads, len(loads))
        else:
            self._close(entry, list(received or [])[-interval_s:], interval_s)


# ------------------------------------------------------------------ reading

STEP_KEYS = (
    "energy_objective",
    "energy_joules",
    "idle_joules",
    "dynamic_joules",
    "joules_per_request",
    "requests",
    "status",
)
IPA_NODE_KEYS = ("cpu", "replicas", "batch", "variant", "latency", "accuracy", "throughput")


def decorate_parser(cls: type) -> type:
    """Wrap the methods of IPA's ``AdaptationParser``; answers the same class."""
    for name, wrap in (
        ("series_changes", _series_changes),
        ("points_with_change", _points_with_change),
    ):
        setattr(cls, name, functools.wraps(getattr(cls, name))(wrap(getattr(cls, name))))
    return cls


def _series_changes(inner: Method) -> Method:
    def series_changes(self: Any, adaptation_log: Log) -> dict[str, Any]:
        nodes = self.loader.node_orders
        changes: dict[str, Any] = inner(self, _readable(adaptation_log, nodes))
        steps = list(adaptation_log["timesteps"].values())
        if len(changes["time_interval"]) != len(steps):
            return changes  # of an older format, of which IPA reads no steps
        for position, step in enumerate(steps):
            if step["config"] is None:
                _insert_absent(changes["nodes"], position)
        if not any(_has_energy(step) for step in steps):
            return changes
        for key in STEP_KEYS:
            changes[key] = [step.get(key) for step in steps]
        for node in nodes:
            for key in NODE_KEYS:
                changes["nodes"][node][key] = [
                    (step["config"] or {}).get(node, {}).get(key) for step in steps
                ]
        return changes

    return series_changes


def _points_with_change(inner: Method) -> Method:
    def points_with_change(self: Any, adaptation_log: Log) -> dict[str, list[bool]]:
        readable = _readable(adaptation_log, self.loader.node_orders)
        applied = {
            key: step
            for key, step in readable["timesteps"].items()
            if adaptation_log["timesteps"][key]["config"] is not None
        }
        changes: dict[str, list[bool]] = inner(self, {**readable, "timesteps": applied})
        return changes

    return points_with_change


def _has_energy(step: Mapping[str, Any]) -> bool:
    nodes = (step["config"] or {}).values()
    return "energy_joules" in step or any(key in node for node in nodes for key in NODE_KEYS)


def _readable(log: Log, nodes: list[str]) -> dict[str, Any]:
    """The log with IPA's node keys alone, and empty nodes where there is no configuration."""
    steps = {}
    for key, step in log["timesteps"].items():
        config = step["config"]
        if config is None:
            config = {node: {} for node in nodes}
        elif any(name in node for node in config.values() for name in NODE_KEYS):
            config = {
                name: {key: value for key, value in node.items() if key not in NODE_KEYS}
                for name, node in config.items()
            }
        steps[key] = step if config is step["config"] else {**step, "config": config}
    return {**log, "timesteps": steps}


def _insert_absent(nodes: dict[str, dict[str, list[Any]]], position: int) -> None:
    for metrics in nodes.values():
        for key in IPA_NODE_KEYS:
            metrics[key].insert(position, None)
