"""A meter read around a load test, on a scripted machine."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ipa_energy.errors import ConfigError, MeterUnavailableError
from ipa_energy.meters.base import Energy, Reading
from ipa_energy.plugin.hooks import profiler
from ipa_energy.plugin.hooks.profiler import Profiling, open_profiling
from ipa_energy.testing import FakeMeter

pytestmark = pytest.mark.measures

LOAD_S = 100.0


class Machine:
    """Seconds that pass when slept; its watts add up."""

    def __init__(self) -> None:
        self.now_s, self.watts, self.total_j = 0.0, 40.0, 0.0

    def __call__(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds
        self.total_j += seconds * self.watts

    def meter(self, min_window_s: float = 0.1) -> FakeMeter:
        return FakeMeter(lambda _: self.total_j, clock=self, min_window_s=min_window_s)

    def load_test(self, requests: int, watts: float = 62.0) -> Any:
        def run() -> tuple[float, float, list[list[dict[str, Any]]]]:
            before, self.watts = self.watts, watts
            self.sleep(LOAD_S)
            self.watts = before
            models = {"yolo": {"arrival": 1.0, "serving": 1.1}}
            request = {"times": {"request": {"sending": 1.0, "arrival": 1.2}, "models": models}}
            return 0.0, LOAD_S, [[request] * requests]

        return run


def report_of(profiling: Profiling, folder: Path) -> dict[str, Any]:
    results: dict[str, Any] = {}
    profiling.add_to(results, folder / "7.json")
    return results


@pytest.fixture
def machine() -> Machine:
    return Machine()


def test_a_meter_of_the_machine(machine: Machine, tmp_path: Path) -> None:
    profiling = Profiling(machine.meter(), None, cores=8, idle_s=None, sleep=machine.sleep)
    profiling.before_setup("2", 2)
    machine.watts = 46.0
    profiling.around(machine.load_test(400), "yolo")
    found = report_of(profiling, tmp_path)
    # (62 − 46)·100 / 400 J; (40·2·2/8 + 46 − 40)/2 W; 4 requests a second.
    assert found["dynamic_joules_per_request"] == [pytest.approx(4.0)]
    assert found["idle_power_w"] == [pytest.approx(13.0)]
    assert found["joules_per_request"] == [pytest.approx(4.0 + 2 * 13 / 4)]
    note = json.loads((tmp_path / "ipa-energy.jsonl").read_text())
    assert note == {
        "experiment_id": 7,
        "meter": "fake",
        "quality": "measured",
        "trials": 1,
        "load_rps": pytest.approx(4.0),
    }


def test_meters_of_the_pods(machine: Machine, tmp_path: Path) -> None:
    pods = Machine()
    pods.watts = 3.0

    def sleep(seconds: float) -> None:
        machine.sleep(seconds)
        pods.sleep(seconds)

    profiling = Profiling(
        machine.meter(), lambda node: pods.meter(), cores=8, idle_s=5.0, sleep=sleep
    )
    profiling.before_setup("1", 2)
    profiling.around(pods.load_test(200, watts=9.0), "yolo")
    found = report_of(profiling, tmp_path)
    # (9 − 3)·100 / 200 J; (40·2·1/8 + 3)/2 W.
    assert found["dynamic_joules_per_request"] == [pytest.approx(3.0)]
    assert found["idle_power_w"] == [pytest.approx(6.5)]


class OldKepler(FakeMeter):
    """Counters of pods with their share of the idle machine in them."""

    query = type("Query", (), {"domain_labels": ("pod_name", "mode")})


def test_an_idle_share_in_the_counter_is_not_charged_twice(
    machine: Machine, tmp_path: Path
) -> None:
    old = OldKepler(lambda _: machine.total_j, clock=machine)
    profiling = Profiling(old, lambda node: old, cores=8, idle_s=5.0, sleep=machine.sleep)
    profiling.before_setup("1", 2)
    profiling.around(machine.load_test(100), "yolo")
    assert report_of(profiling, tmp_path)["idle_power_w"] == [pytest.approx(20.0)]


@pytest.mark.parametrize(
    ("load", "min_window_s", "why"),
    [
        ((0, 62.0), 0.1, "0 requests came back"),
        ((100, 40.0), 0.1, "others used the machine"),
        ((100, 62.0), 3000.0, "too short for fake"),
    ],
)
def test_figures_that_mean_nothing_are_left_out(
    machine: Machine,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    *,
    load: tuple[int, float],
    min_window_s: float,
    why: str,
) -> None:
    meter = machine.meter(min_window_s)
    profiling = Profiling(meter, None, cores=8, idle_s=5.0, sleep=machine.sleep)
    profiling.before_setup("1", 1)
    answer = profiling.around(machine.load_test(*load), "yolo")
    assert answer[1] == LOAD_S
    assert report_of(profiling, tmp_path) == {}
    assert not list(tmp_path.iterdir())
    assert why in caplog.text


class Broken(FakeMeter):
    """Fails from the third reading on."""

    reads = 0

    def read(self) -> Reading:
        self.reads += 1
        if self.reads > 3:
            raise MeterUnavailableError("gone")
        return super().read()

    def energy_between(self, start: Reading, end: Reading) -> Energy:
        return super().energy_between(start, end)


def test_a_meter_that_fails_costs_no_experiment(
    machine: Machine, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    meter = Broken(lambda _: machine.total_j, clock=machine)
    profiling = Profiling(meter, None, cores=8, idle_s=5.0, sleep=machine.sleep)
    profiling.before_setup("1", 1)
    assert profiling.around(machine.load_test(5), "yolo")[1] == LOAD_S
    assert report_of(profiling, tmp_path) == {}
    assert "no joules of this experiment: gone" in caplog.text


@pytest.fixture
def opened(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    names: list[str] = []

    def open_(name: str, config: Any, idle_s: float | None) -> Profiling:
        names.append(name)
        if name != "perf":
            raise MeterUnavailableError(f"no {name} here")
        return Profiling(machine.meter(), None, cores=1, idle_s=idle_s, sleep=machine.sleep)

    monkeypatch.setattr(profiler, "_open", open_)
    yield names


def test_without_a_name_the_first_that_works_is_taken(opened: list[str]) -> None:
    assert open_profiling({}) is not None
    assert opened == ["kepler", "rapl", "perf"]


def test_a_meter_that_is_named_must_work(opened: list[str]) -> None:
    with pytest.raises(MeterUnavailableError, match="no rapl here"):
        open_profiling({"energy_meter": "rapl"})


def test_none_measures_nothing(opened: list[str]) -> None:
    assert open_profiling({"energy_meter": "none"}) is None
    assert opened == []


@pytest.mark.parametrize(
    "config", [{"energy_meter": 3}, {"energy_meter": "cpu-time"}, {"energy_idle_s": -1}]
)
def test_wrong_keys_are_refused(opened: list[str], config: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        open_profiling(config)


def test_functions_pass_through_while_nothing_is_profiled() -> None:
    def setup_node(cpu_request: str, replica: int) -> str:
        return f"{cpu_request} {replica}"

    def load_test(model: str) -> str:
        return model

    setup, load = profiler.around(setup_node, load_test)
    assert setup(cpu_request="1", replica=2) == "1 2"
    assert load(model="yolo") == "yolo"
    results: dict[str, Any] = {}
    profiler.add_to_report(results, Path("1.json"))
    assert results == {}
