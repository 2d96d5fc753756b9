"""IPA's ``AdaptationParser`` on logs with energy in them.

As it stands it knows the seven keys of a node and swallows the rest of a log at the first other
one, and stumbles over the null configuration of an infeasible step. Here it gets the log without
what it does not know, and the energy is added to what it made of it:

* ``energy_objective``, ``energy_joules``, ``idle_joules``, ``dynamic_joules``, ``requests``,
  ``joules_per_request``, ``status``: a value a step,
* ``nodes[NODE][joules_per_request | power_w | idle_joules | dynamic_joules]``: likewise,

None where a step has none. A log without energy gives what it always gave.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

from ipa_energy.plugin.hooks.adaptation import NODE_KEYS

Method = Callable[..., Any]
Log = Mapping[str, Any]

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


def decorate(cls: type) -> type:
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
