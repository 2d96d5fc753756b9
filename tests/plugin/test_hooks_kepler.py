"""IPA's profiler measured through a real Prometheus, by an exporter that is Kepler's double."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_fixture import prometheus, serving

from ipa_energy.errors import MeterUnavailableError
from ipa_energy.plugin.hooks.profiler import open_profiling

pytestmark = pytest.mark.measures

LOAD_S, IDLE_S = 8.0, 3.0
EMPTY_W, WAITING_W, BUSY_W = 40.0, 4.0, 24.0


class Kepler:
    """A node and, once they are set up, two pods; their counters climb with the watts set."""

    def __init__(self) -> None:
        self.pods_w: float | None = None
        self._joules = {"node": 0.0, "pods": 0.0}
        self._since_s = time.time()

    def set_pods(self, power_w: float) -> None:
        self._advance()
        self.pods_w = power_w

    def _advance(self) -> None:
        now_s = time.time()
        pods_w = self.pods_w or 0.0
        self._joules["node"] += (EMPTY_W + pods_w) * (now_s - self._since_s)
        self._joules["pods"] += pods_w * (now_s - self._since_s)
        self._since_s = now_s

    def page(self, path: str) -> str:
        if path == "/live":
            return f"live_joules_total {time.time()!r}\n"
        self._advance()
        node, pods = self._joules["node"], self._joules["pods"]
        zone = 'node_name="n",zone="package"'
        lines = ["trouble_watts 1", f'kepler_node_cpu_joules_total{{{zone},path="p"}} {node!r}']
        if self.pods_w is not None:
            for pod, namespace in (("yolo-0", "default"), ("yolo-1", "default"), ("yolo-0", "x")):
                labels = f'{zone},pod_id="{namespace}{pod}",state="running",pod_name="{pod}"'
                name = f'kepler_pod_cpu_joules_total{{{labels},pod_namespace="{namespace}"}}'
                lines.append(f"{name} {pods / 2!r}")
        return "\n".join([*lines, ""])


@pytest.fixture
def kepler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Kepler, str]]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    double = Kepler()
    with serving(double.page) as target, prometheus(tmp_path, target) as url:
        yield double, url


def answers(count: int) -> list[list[dict[str, Any]]]:
    models = {"yolo": {"arrival": 1.0, "serving": 1.1}}
    return [[{"times": {"request": {"sending": 1.0, "arrival": 1.2}, "models": models}}] * count]


def test_joules_per_pod(kepler: tuple[Kepler, str], tmp_path: Path) -> None:
    double, url = kepler
    time.sleep(2)  # two scrapes, to know how often there are any
    profiling = open_profiling(
        {"energy_meter": "kepler", "energy_prometheus_url": url, "energy_idle_s": IDLE_S}
    )
    assert profiling is not None
    profiling._cores = 8
    profiling.before_setup("2", 2)
    double.set_pods(WAITING_W)
    time.sleep(2)

    def load_test() -> tuple[float, float, list[list[dict[str, Any]]]]:
        double.set_pods(BUSY_W)
        time.sleep(LOAD_S)
        double.set_pods(WAITING_W)
        return 0.0, LOAD_S, answers(80)

    profiling.around(load_test, "yolo")
    results: dict[str, Any] = {}
    profiling.add_to(results, tmp_path / "1.json")
    # 20 W above waiting for 8 s, 80 requests; the machine's 40 W empty, 2·2 of 8 cores, and 4 W.
    # The watts change between two scrapes, so each edge is good to a second.
    assert results["dynamic_joules_per_request"] == [pytest.approx(2.0, rel=0.2)]
    assert results["idle_power_w"] == [pytest.approx((20 + 4) / 2, rel=0.2)]
    assert (
        '"meter": "kepler", "quality": "estimated"' in (tmp_path / "ipa-energy.jsonl").read_text()
    )


def test_a_prometheus_without_kepler_is_told() -> None:
    with pytest.raises(MeterUnavailableError, match="kepler is absent"):
        open_profiling({"energy_meter": "kepler", "energy_prometheus_url": "http://127.0.0.1:9"})
