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

import inspect
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ipa_energy.as_json import or_none
from ipa_energy.optimizer.plan import Plan, StagePlan
from ipa_energy.plugin.hooks.pipeline_energy import (
    EXACT_METHODS,
    GRAMS,
    Configuration,
    PipelineEnergy,
    energy_of,
)
from ipa_energy.records import joined_meters

logger = logging.getLogger(__name__)

NODE_PLAN_KEYS = ("joules_per_request", "power_w", "energy_quality", "energy_meter")
NODE_STEP_KEYS = ("idle_joules", "dynamic_joules")
NODE_KEYS = (*NODE_PLAN_KEYS, *NODE_STEP_KEYS)
"""What a node's ``config`` has beside IPA's seven keys."""

Method = Callable[..., Any]
Log = Mapping[str, Any]


def _saving_config_builder(inner: Method) -> Method:
    def saving_config_builder(self: Any, *args: Any, **kwargs: Any) -> dict[str, Any]:
        config: dict[str, Any] = inner(self, *args, **kwargs)
        energy = energy_of(self.pipeline)
        if energy is not None and energy.has_joules:
            for index, node in enumerate(self.node_names):
                stage = energy.stage_plan(index, _configuration(config[node]))
                config[node].update(_node_plan(stage))
        return config

    return saving_config_builder


def _configuration(node: Mapping[str, Any]) -> Configuration:
    """What a node of the log runs; its numbers may be texts, from environment variables of pods."""
    return str(node["variant"]), float(node["cpu"]), int(node["batch"]), int(node["replicas"])


def _node_plan(stage: StagePlan | None) -> dict[str, Any]:
    if stage is None or stage.option.provenance is None:
        return dict.fromkeys(NODE_KEYS)
    return {
        "joules_per_request": stage.joules_per_request,
        "power_w": stage.power_w,
        "energy_quality": stage.quality,
        "energy_meter": stage.option.provenance.meter,
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


ADAPTER: dict[str, Callable[[Method], Method]] = {
    "saving_config_builder": _saving_config_builder,
    "start_adaptation": _start_adaptation,
}
"""Methods of IPA's ``Adapter`` and ``SimAdapter`` → what wraps them."""


class EnergyLog:
    """Adds energy to the steps that IPA's monitoring reports.

    Args:
        adapter: IPA's, about to adapt.
        energy: of its pipeline.
    """

    def __init__(self, adapter: Any, energy: PipelineEnergy) -> None:
        self._adapter = adapter
        self._energy = energy
        self._open: dict[str, Any] | None = None
        self._running: Plan | None = None
        energy.interval_s, energy.reported_s = float(adapter.adaptation_interval), 0.0
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
            **self._carbon(),
            "ipa_energy": __version__,
        }

    def _carbon(self) -> dict[str, Any]:
        said, carbon = self._energy.settings.carbon, self._energy.carbon
        if said is None or carbon is None:
            return {}
        weights = {"weight": said.weight, "sla_grams": said.sla_grams}
        return {"carbon": {**carbon.to_json(), **weights}}

    def reporting(self, inner: Method) -> Method:
        """``adaptation_step_report`` that adds to what it reports."""
        signature = inspect.signature(inner)

        def report(*args: Any, **kwargs: Any) -> None:
            inner(*args, **kwargs)
            given = signature.bind(*args, **kwargs).arguments
            self._complete(given["time_interval"], given["monitored_load"])
            steps = self._adapter.monitoring.adaptation_report["timesteps"]
            self._begin(steps[int(given["timestep"])], given["objective"] is not None)
            self._energy.reported_s = float(given["time_interval"])

        return report

    def _begin(self, entry: dict[str, Any], decided: bool) -> None:
        """Add what is known of a step as it begins."""
        answer = self._energy.last_answer
        self._open = entry
        config = entry["config"]
        plan = None
        if config is not None:  # a step without a plan leaves the configuration before it running
            nodes = self._adapter.node_names
            plan = self._running = self._energy.plan(_configuration(config[node]) for node in nodes)
        entry["status"] = "optimal" if decided else "infeasible" if answer else "initial"
        if answer is not None:
            entry.setdefault("duration", answer.decision_s)
            entry["method"] = answer.method
            entry["planned_load"] = self._energy.load_rps
            entry["conflict"] = answer.conflict
            if decided and answer.energy_objective is not None:
                entry["energy_objective"] = answer.energy_objective
            signals = self._energy.moment.signals
            if signals and config is not None:
                entry["signals"] = dict(signals)
        entry["strict_latency"] = self._is_strict()
        if plan is None:
            return
        if decided and GRAMS in plan.terms:
            entry["terms"] = {GRAMS: plan.terms[GRAMS]}
        entry["planned_latency_s"] = plan.latency_s
        # IPA's own figure counts two stages with variants of one name once.
        entry["accuracy"] = plan.accuracy
        entry["accuracy_raw"] = plan.accuracy_raw
        if self._energy.has_joules:
            entry["joules_per_request"] = or_none(plan.joules_per_request)

    def _is_strict(self) -> bool:
        exact = self._adapter.optimization_method in EXACT_METHODS
        return bool(exact or self._energy.settings.strict_latency)

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
        plan = self._running
        if plan is None or plan.quality is None:
            entry["energy_joules"] = None
            return
        nodes = [
            {
                "idle_joules": stage.replicas * stage.option.idle_power_w * duration_s,
                "dynamic_joules": (
                    stage.option.dynamic_energy_j * stage.requests_per_input * requests
                ),
            }
            for stage in plan.stages
        ]
        totals = {key: sum(node[key] for node in nodes) for key in NODE_STEP_KEYS}
        entry |= totals
        entry["energy_joules"] = sum(totals.values())
        carbon, begin_s = self._energy.carbon, float(entry["time_interval"])
        if carbon is not None:
            # Joules are spread evenly over a step: IPA's simulation only decides.
            evenly = np.full(math.ceil(duration_s), entry["energy_joules"] / duration_s)
            end_s = begin_s + duration_s
            entry["grams"] = carbon.grams(begin_s, end_s, entry["energy_joules"], evenly)
        entry["energy_quality"] = "estimated"
        provenances = [stage.option.provenance for stage in plan.stages]
        entry["energy_meter"] = joined_meters(sorted({p.meter for p in provenances if p}))
        if entry["config"] is not None:
            for name, node in zip(self._adapter.node_names, nodes, strict=True):
                entry["config"][name].update(node)

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


def _series_changes(inner: Method) -> Method:
    def series_changes(self: Any, adaptation_log: Log) -> dict[str, Any]:
        nodes = self.loader.node_orders
        changes: dict[str, Any] = inner(self, _readable(adaptation_log, nodes))
        steps = list(adaptation_log["timesteps"].values())
        if len(changes["time_interval"]) != len(steps):
            return changes  # of an older format, of which IPA reads no steps
        for position, step in enumerate(steps):
            if step["config"] is None:
                for metrics in changes["nodes"].values():
                    for key in IPA_NODE_KEYS:
                        metrics[key].insert(position, None)
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


PARSER: dict[str, Callable[[Method], Method]] = {
    "series_changes": _series_changes,
    "points_with_change": _points_with_change,
}
"""Methods of IPA's ``AdaptationParser`` → what wraps them."""


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
