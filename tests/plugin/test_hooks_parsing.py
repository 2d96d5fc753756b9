"""A log with energy in it, through a parser that knows seven keys of a node and no more."""

from __future__ import annotations

from itertools import pairwise
from types import SimpleNamespace
from typing import Any

from ipa_energy.plugin import hooks

KNOWN = ("cpu", "replicas", "batch", "variant", "latency", "accuracy", "throughput")
SCORES = ("time_interval", "objective")


class SevenKeys:
    """Stops without a word at an unknown key, as IPA's parser does."""

    def __init__(self) -> None:
        self.loader = SimpleNamespace(node_orders=["a", "b"])

    def series_changes(self, adaptation_log: dict[str, Any]) -> dict[str, Any]:
        found: dict[str, Any] = {name: [] for name in SCORES}
        found["nodes"] = {node: {key: [] for key in KNOWN} for node in self.loader.node_orders}
        for step in adaptation_log["timesteps"].values():
            for name in SCORES:
                found[name].append(step[name])
            for node, metrics in found["nodes"].items():
                for key, value in step["config"][node].items():
                    if key not in metrics:
                        return found
                    metrics[key].append(value)
        return found

    def points_with_change(self, adaptation_log: dict[str, Any]) -> dict[str, list[bool]]:
        steps = list(adaptation_log["timesteps"].values())
        return {
            node: [
                before["config"][node] != after["config"][node] for before, after in pairwise(steps)
            ]
            for node in self.loader.node_orders
        }


def log(*, energy: bool, null_at: int | None = None) -> dict[str, Any]:
    steps = {}
    for index in range(4):
        node: dict[str, Any] = {key: f"{key}{index // 2}" for key in KNOWN}
        step: dict[str, Any] = {"time_interval": index, "objective": index}
        if energy:
            node |= {"joules_per_request": index + 0.5, "power_w": 2.0 * index}
            step |= {"energy_joules": 10.0 * index, "status": "optimal"}
        step["config"] = None if index == null_at else {"a": dict(node), "b": dict(node)}
        steps[str(index)] = step
    return {"metadata": {}, "timesteps": steps}


Patched = hooks.parser(type("Patched", (SevenKeys,), dict(SevenKeys.__dict__)))


def test_the_double_swallows_what_it_does_not_know() -> None:
    assert len(SevenKeys().series_changes(log(energy=True))["objective"]) == 1


def test_energy_is_read_back() -> None:
    found = Patched().series_changes(log(energy=True))
    assert found["objective"] == [0, 1, 2, 3]
    assert found["energy_joules"] == [0.0, 10.0, 20.0, 30.0]
    assert found["requests"] == [None] * 4
    for node in ("a", "b"):
        assert found["nodes"][node]["joules_per_request"] == [0.5, 1.5, 2.5, 3.5]
        assert found["nodes"][node]["cpu"] == ["cpu0", "cpu0", "cpu1", "cpu1"]


def test_a_log_without_energy_gives_what_it_gave() -> None:
    plain = log(energy=False)
    assert Patched().series_changes(plain) == SevenKeys().series_changes(plain)
    assert Patched().points_with_change(plain) == SevenKeys().points_with_change(plain)


def test_the_log_itself_is_not_changed() -> None:
    given = log(energy=True, null_at=2)
    Patched().series_changes(given)
    assert given == log(energy=True, null_at=2)


def test_a_step_without_configuration_keeps_its_place() -> None:
    found = Patched().series_changes(log(energy=True, null_at=1))
    for node in ("a", "b"):
        for key in ("cpu", "variant", "joules_per_request"):
            values = found["nodes"][node][key]
            assert len(values) == 4
            assert values[1] is None
    assert Patched().points_with_change(log(energy=True, null_at=1)) == {
        "a": [True, False],
        "b": [True, False],
    }


def test_joules_are_no_change() -> None:
    assert Patched().points_with_change(log(energy=True)) == {
        "a": [False, True, False],
        "b": [False, True, False],
    }
