"""Every query through a real Prometheus server, against joules that are known."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

import pytest
from prometheus_fixture import LIVE_W, Exporter, prometheus, serving

from ipa_energy.errors import ConfigError, MeterUnavailableError
from ipa_energy.meters.base import Meter
from ipa_energy.meters.prometheus.exporters import Generation, dcgm_meter, kepler_meter
from ipa_energy.meters.prometheus.prometheus_meter import SERVER_TIME, PrometheusMeter
from ipa_energy.meters.prometheus.query import CounterQuery, PromqlQuery
from ipa_energy.meters.prometheus.server import PrometheusServer
from ipa_energy.meters.sources import KeplerTarget

pytestmark = pytest.mark.measures


@dataclass(frozen=True)
class World:
    """A running server and what it scrapes."""

    server: PrometheusServer
    exporter: Exporter

    def meter(self, selector: str) -> PrometheusMeter:
        """With a clock of its own: what is not there yet never comes, and nobody waits for it."""
        now_s = [0.0]

        def sleep(seconds_s: float) -> None:
            now_s[0] += seconds_s

        query = CounterQuery(selector, quality="measured")
        return PrometheusMeter(self.server, query, clock=lambda: now_s[0], sleep=sleep)

    def joules(self, meter: PrometheusMeter, first: float, last: float) -> dict[str, float]:
        """By domain, over seconds of the scenario."""
        energy = meter.energy_over(self.exporter.second(first), self.exporter.second(last))
        assert energy.energy_j == pytest.approx(sum(energy.domains.values()))
        return energy.domains


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    exporter = Exporter()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("no_proxy", "127.0.0.1")
        with (
            serving(exporter.page) as target,
            prometheus(tmp_path_factory.mktemp("prometheus"), target) as url,
        ):
            yield World(PrometheusServer(url), exporter)


# ------------------------------------------------------------------ Kepler


@pytest.mark.parametrize(
    ("target", "generation", "expected_w"),
    [
        (
            KeplerTarget(node="node1"),
            None,
            {"node1/package": 50, "node1/dram": 10},  # core is in the package, psys is all of it
        ),
        (
            KeplerTarget(node="node*"),
            "0.10",
            {"node1/package": 50, "node1/dram": 10, "node2/package": 100, "node2/dram": 20},
        ),
        (KeplerTarget(node="laptop"), None, {"laptop/psys": 7}),  # where there is nothing else
        (KeplerTarget(node="node1", memory=False), None, {"node1/package": 50}),
        (
            KeplerTarget(pod="yolo-1", namespace="vision"),
            None,
            {"vision/yolo-1/package": 20, "vision/yolo-1/dram": 2},
        ),
        (
            KeplerTarget(pod="yolo-*"),
            None,
            {
                "vision/yolo-1/package": 20,
                "vision/yolo-1/dram": 2,
                "vision/yolo-2/package": 5,
                "vision/yolo-2/dram": 0.5,
            },
        ),
        (
            KeplerTarget(container="server", pod="yolo-1"),
            None,
            {"server/package": 20, "server/dram": 2},
        ),
        (
            KeplerTarget(container="server"),
            None,
            {"server/package": 25, "server/dram": 2.5},
        ),
        (
            KeplerTarget(),
            "0.9",
            {
                "old1/kepler_node_package_joules_total/dynamic": 30,
                "old1/kepler_node_package_joules_total/idle": 20,
                "old1/kepler_node_dram_joules_total/dynamic": 4,
                "old1/kepler_node_dram_joules_total/idle": 0,
            },
        ),
    ],
)
def test_kepler_counts_packages_and_memory_once(
    world: World,
    target: KeplerTarget,
    generation: Generation | None,
    expected_w: dict[str, float],
) -> None:
    meter = kepler_meter(world.server, target, generation=generation)
    found = world.joules(meter, 10.25, 30.75)
    assert found == pytest.approx({name: 20.5 * watts for name, watts in expected_w.items()})
    assert meter.name == "kepler"


@pytest.mark.parametrize("generation", ["0.10", "0.9"])
def test_only_a_node_is_measured(world: World, generation: Generation) -> None:
    name = "node1" if generation == "0.10" else "old1"
    node = kepler_meter(world.server, KeplerTarget(node=name), generation=generation)
    pod = kepler_meter(world.server, KeplerTarget(pod="yolo-1"), generation=generation)
    assert (node.quality, pod.quality) == ("measured", "estimated")
    assert (node.probe().state, pod.probe().state) == ("measured", "estimated")


def test_idle_and_dynamic_stay_apart_in_old_kepler(world: World) -> None:
    meter = kepler_meter(
        world.server, KeplerTarget(pod="yolo-1", container="server"), generation="0.9"
    )
    found = world.joules(meter, 10, 20)
    name = "vision/yolo-1/server/kepler_container_package_joules_total"
    assert found[f"{name}/dynamic"] == pytest.approx(30)
    assert found[f"{name}/idle"] == pytest.approx(20)


def test_a_dead_part_is_not_0_joules_in_a_sum(world: World) -> None:
    meter = kepler_meter(world.server, KeplerTarget(node="worn"))
    with pytest.raises(MeterUnavailableError, match="worn/dram did not move"):
        world.joules(meter, 10, 20)
    status = meter.probe()
    assert status.domains == ("worn/package",)
    assert "still: worn/dram" in status.reason
    without = kepler_meter(world.server, KeplerTarget(node="worn", memory=False))
    assert world.joules(without, 10, 20) == pytest.approx({"worn/package": 500})


def test_a_window_between_two_scrapes_has_its_share(world: World) -> None:
    meter = kepler_meter(world.server, KeplerTarget(node="node1"))
    assert sum(world.joules(meter, 10.25, 10.5).values()) == pytest.approx(15)


def test_nodes_that_count_differently_are_not_mixed(world: World) -> None:
    status = kepler_meter(world.server).probe()
    assert status.state == "absent"
    assert "laptop" in status.reason


def test_an_idle_pod_has_a_share_of_nothing(world: World) -> None:
    meter = kepler_meter(world.server, KeplerTarget(pod="rest"))
    assert sum(world.joules(meter, 10, 20).values()) == 0
    assert meter.quality == "estimated"


@pytest.mark.parametrize(
    "target",
    [
        KeplerTarget(pod="nobody"),
        KeplerTarget(pod="yolo."),
        KeplerTarget(container="server", namespace="elsewhere"),
        KeplerTarget(node='node1"'),
    ],
)
def test_a_target_that_is_not_there_is_absent(world: World, target: KeplerTarget) -> None:
    status = kepler_meter(world.server, target).probe()
    assert status.state == "absent"
    assert "has no kepler_" in status.reason


def test_probe_tells_periods_and_domains(world: World) -> None:
    status = kepler_meter(world.server, KeplerTarget(node="node1")).probe()
    assert status.update_period_s == pytest.approx(1.0)
    assert status.min_window_s == pytest.approx(100.0)
    assert set(status.domains) == {"node1/package", "node1/dram"}


# ------------------------------------------------------------------ DCGM


def test_a_gpu_is_counted_once_whoever_holds_it(world: World) -> None:
    found = world.joules(dcgm_meter(world.server), 20, 30)
    assert found == pytest.approx({"node1/nvidia0": 3000, "node1/nvidia1": 1000})
    one = world.joules(dcgm_meter(world.server, host="node1", uuid="GPU-b"), 20, 30)
    assert one == pytest.approx({"node1/nvidia1": 1000})


# ------------------------------------------------------------------ restarts, gaps, dead counters


def test_a_restart_is_followed_as_increase_does(world: World) -> None:
    meter = world.meter('trouble_joules_total{kind="restart"}')
    # Seconds 10 to 20, then from the restart at 20.5 to 30: the half second before it is lost.
    assert sum(world.joules(meter, 10, 30).values()) == pytest.approx(100 + 95)
    assert sum(world.joules(meter, 30, 40).values()) == pytest.approx(100)
    increase = PromqlQuery(
        'increase(trouble_joules_total{kind="restart"}[$window])', quality="measured"
    )
    asked = world.joules(PrometheusMeter(world.server, increase), 10, 30)
    assert sum(asked.values()) == pytest.approx(195, rel=0.06)  # one scrape of extrapolation


@pytest.mark.parametrize(
    ("kind", "first", "last", "words"),
    [
        ("not-at-zero", 10, 30, "not at 0"),
        ("gap", 15, 35, "no sample for 11 s"),
        ("gap", 25, 35, "do not cover"),
        ("born", 10, 30, "begins after the window"),
        ("gone", 35, 50, "ends before the window"),
        ("nan", 20, 30, "no counter's"),
        ("dead", 10, 30, "did not move"),
        ("none", 30, 20, "no length"),
        ("none", 30, 30, "no length"),
        ("nobody", 10, 20, "no samples"),
    ],
)
def test_no_figure_where_none_is_due(
    world: World, kind: str, first: float, last: float, words: str
) -> None:
    meter = world.meter(f'trouble_joules_total{{kind="{kind}"}}')
    with pytest.raises(MeterUnavailableError, match=words):
        world.joules(meter, first, last)


@pytest.mark.parametrize(
    ("kind", "first", "last"),
    [("gap", 5, 15), ("gap", 35, 55), ("one-missed", 10, 30), ("born", 21, 50), ("gone", 1, 39)],
)
def test_trouble_outside_the_window_does_no_harm(
    world: World, kind: str, first: float, last: float
) -> None:
    meter = world.meter(f'trouble_joules_total{{kind="{kind}"}}')
    assert sum(world.joules(meter, first, last).values()) == pytest.approx(10 * (last - first))


def test_one_bad_series_spoils_the_sum(world: World) -> None:
    meter = world.meter('trouble_joules_total{kind=~"none|gap"}')
    with pytest.raises(MeterUnavailableError, match='kind="gap"'):
        world.joules(meter, 15, 35)


def test_a_model_is_never_called_measured(world: World) -> None:
    meter = world.meter('trouble_joules_total{kind="model"}')
    begin_s = world.exporter.begin_ms / 1000
    assert meter.quality == "measured"  # as the user said
    assert meter.energy_over(begin_s + 10, begin_s + 20).quality == "estimated"
    assert meter.probe().state == "estimated"


def test_a_counter_at_rest_is_dead_and_a_slow_one_slow(world: World) -> None:
    dead = world.meter('trouble_joules_total{kind="dead"}').probe()
    assert (dead.state, dead.update_period_s) == ("dead", None)
    slow = world.meter('trouble_joules_total{kind="slow"}').probe()
    assert slow.update_period_s == pytest.approx(5.0)
    assert slow.min_window_s == pytest.approx(500.0)


# ------------------------------------------------------------------ any PromQL


def test_power_averaged_over_a_window_makes_joules(world: World) -> None:
    query = PromqlQuery(
        'avg_over_time(trouble_watts{kind="none"}[$window]) * $window_s',
        quality="estimated",
        domain_labels=("kind",),
    )
    meter = PrometheusMeter(world.server, query)
    assert world.joules(meter, 10.5, 30) == pytest.approx({"none": 195.0})
    gap = replace(query, expression=query.expression.replace("none", "gap"))
    with pytest.raises(MeterUnavailableError, match="no sample for"):
        world.joules(PrometheusMeter(world.server, gap), 15, 35)


@pytest.mark.parametrize(
    "expression",
    ["", "x", "sum(x)", "increase(x[5m])", "avg_over_time((x + y)[$window])", "[$window]"],
)
def test_an_expression_without_a_window_is_refused(expression: str) -> None:
    with pytest.raises(ConfigError, match="over which samples"):
        PromqlQuery(expression, quality="measured")


def test_an_expression_that_does_not_parse_is_the_users_error(world: World) -> None:
    query = PromqlQuery('sum(increase(trouble_watts{kind="none"}[$window])', quality="measured")
    with pytest.raises(ConfigError, match="parse error"):
        world.joules(PrometheusMeter(world.server, query), 10, 20)


@pytest.mark.parametrize("sign", ["-", "0/0 *"])
def test_an_expression_that_is_no_energy_has_no_figure(world: World, sign: str) -> None:
    text = f'{sign} sum(increase(trouble_joules_total{{kind="none"}}[$window]))'
    meter = PrometheusMeter(world.server, PromqlQuery(text, quality="measured"))
    with pytest.raises(MeterUnavailableError, match="no energy"):
        world.joules(meter, 10, 20)


@pytest.mark.parametrize("factor", [0.0, -1.0, float("nan")])
def test_an_impossible_unit_is_refused(factor: float) -> None:
    with pytest.raises(ConfigError, match="joules_per_unit"):
        CounterQuery("x", quality="measured", joules_per_unit=factor)


# ------------------------------------------------------------------ live


def test_live_windows_a_restart_and_an_outage(world: World) -> None:
    query = CounterQuery("live_joules_total", quality="measured")
    meter: Meter = PrometheusMeter(world.server, query)
    while world.server.vector("count_over_time(live_joules_total[1m])")[0].values[0] < 3:
        time.sleep(0.1)
    start = meter.read()
    time.sleep(1.5)
    clean = meter.energy_between(start, meter.read())  # waits for the scrape that closes it
    assert clean.power_w == pytest.approx(LIVE_W, rel=0.02)

    start = meter.read()
    world.exporter.restart_live()
    time.sleep(1.5)
    restart = meter.energy_between(start, meter.read())
    # What it gained since the last scrape before the restart is lost to everybody.
    assert LIVE_W * (restart.duration_s - 1.5) <= restart.energy_j <= LIVE_W * restart.duration_s

    start = meter.read()
    world.exporter.live_is_down = True
    time.sleep(3.2)  # longer than two and a half scrapes
    world.exporter.live_is_down = False
    with pytest.raises(MeterUnavailableError, match="no sample for"):
        meter.energy_between(start, meter.read())


def test_a_clock_that_jumps_gives_no_figure(world: World) -> None:
    meter = world.meter("live_joules_total")
    start = meter.read()
    end = replace(start, time_s=start.time_s + 2)
    with pytest.raises(MeterUnavailableError, match="clock jumped"):
        meter.energy_between(start, end)
    counters = start.counters | {SERVER_TIME: start.counters[SERVER_TIME] - 1}
    with pytest.raises(MeterUnavailableError, match="clock jumped"):
        meter.energy_between(start, replace(start, counters=counters))


def test_a_window_whose_last_scrape_never_comes_is_given_up(world: World) -> None:
    waits_s: list[float] = []
    query = CounterQuery('trouble_joules_total{kind="none"}', quality="measured")
    meter = PrometheusMeter(world.server, query, clock=lambda: sum(waits_s), sleep=waits_s.append)
    with pytest.raises(MeterUnavailableError, match="ends before the window"):
        world.joules(meter, 50, 61)
    assert 3.0 <= sum(waits_s) <= 4.0
