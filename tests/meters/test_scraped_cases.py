"""Kepler, DCGM and others as users have them scraped, whose true joules are known.

A server is stood in for by one that keeps curves and answers the selectors that meters ask with;
``test_prometheus_server.py`` has a real one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest

from ipa_energy.errors import ConfigError, MeterUnavailableError
from ipa_energy.meters.base import Energy, Reading
from ipa_energy.meters.composite import CompositeMeter, CompositeReading
from ipa_energy.meters.prometheus.exporters import dcgm_meter, kepler_meter
from ipa_energy.meters.prometheus.prometheus_meter import ROUND_TRIP, SERVER_TIME, PrometheusMeter
from ipa_energy.meters.prometheus.query import CounterQuery, PromqlQuery
from ipa_energy.meters.prometheus.server import CounterSeries, PrometheusServer
from ipa_energy.meters.sources import KeplerTarget

Curve = Callable[[float], float | None]
BEGIN_S, END_S, START_OF_WINDOW_S, END_OF_WINDOW_S = 0, 120, 40.0, 80.0
LABEL = re.compile(r'(\w+)(=~|!=|=)"((?:\\.|[^"\\])*)"')


class Server(PrometheusServer):
    """Series by their PromQL text, scraped each second."""

    def __init__(self, curves: dict[str, Curve], types: dict[str, str] | None = None) -> None:
        super().__init__("http://server")
        self.types = types or {}
        self.scraped = []
        for text, curve in curves.items():
            labels = {"__name__": text.partition("{")[0]} | {
                k: v for k, _, v in LABEL.findall(text)
            }
            samples = [(float(s), curve(s)) for s in range(BEGIN_S, END_S + 1)]
            known = [(s, v) for s, v in samples if v is not None]
            self.scraped.append(CounterSeries(labels, *zip(*known, strict=True)))

    def now_s(self) -> float:
        return float(END_S)

    def metric_type(self, name: str) -> str | None:
        return self.types.get(name)

    def series(self, selector: str, start_s: float, end_s: float) -> list[CounterSeries]:
        name = selector.partition("{")[0]
        matchers = [("__name__", "=", name)] * bool(name) + LABEL.findall(selector)
        found = []
        for one in self.scraped:
            if all(self._fits(one.labels.get(key, ""), op, value) for key, op, value in matchers):
                pairs = list(zip(one.times_s, one.values, strict=True))
                inside = [(t, v) for t, v in pairs if start_s <= t <= end_s]
                if inside:
                    found.append(CounterSeries(one.labels, *zip(*inside, strict=True)))
        return found

    @staticmethod
    def _fits(label: str, op: str, value: str) -> bool:
        if op == "=~":
            return re.fullmatch(value.replace("\\\\", "\\"), label) is not None
        return (label == value) == (op == "=")

    def vector(self, expression: str, time_s: float | None = None) -> list[CounterSeries]:
        asked = re.fullmatch(
            r"count by \(([^)]*)\) \(last_over_time\((.*)\[(\d+)s\]\)\)", expression
        )
        assert asked is not None, expression
        assert time_s is not None
        names = asked[1].split(", ")
        found = self.series(asked[2], time_s - int(asked[3]), time_s)
        return [
            CounterSeries({n: o.labels[n] for n in names if n in o.labels}, (time_s,), (1.0,))
            for o in found
        ]


def joules(meter: PrometheusMeter) -> Energy:
    """Over the forty seconds of the window."""
    return meter.energy_over(START_OF_WINDOW_S, END_OF_WINDOW_S)


def meter_of(server: PrometheusServer, make: Callable[..., PrometheusMeter], **target: Any):
    """A meter that does not wait for what never comes."""
    meter = make(server, **target)
    now_s = [0.0]
    meter._clock = lambda: now_s[0]
    meter._sleep = lambda seconds: now_s.__setitem__(0, now_s[0] + seconds)
    return meter


def kepler(server: PrometheusServer, **target: Any) -> Energy:
    return joules(meter_of(server, kepler_meter, target=KeplerTarget(**target)))


def steady(power_w: float, offset_j: float = 1000.0) -> Curve:
    return lambda second: offset_j + power_w * second


def between(first: float, last: float, curve: Curve) -> Curve:
    return lambda second: curve(second) if first <= second <= last else None


def node(name: str = "n1", offset_j: float = 1000.0, **labels: str) -> dict[str, Curve]:
    """Kepler 0.10 on a machine of 58 W."""
    more = "".join(
        f',{key}="{value}"' for key, value in ({"instance": "e", "job": "k"} | labels).items()
    )
    return {
        f'kepler_node_cpu_joules_total{{node_name="{name}",zone="{zone}",'
        f'path="/sys/class/powercap/intel-rapl:{at}"{more}}}': steady(power_w, offset_j)
        for at, (zone, power_w) in enumerate({"package": 50, "dram": 8, "core": 30}.items())
    }


def pod(name: str, curve: Curve, *, node: str = "n1", state: str = "running") -> dict[str, Curve]:
    return {
        f'kepler_pod_cpu_joules_total{{node_name="{node}",zone="package",pod_id="id-{name}",'
        f'pod_name="{name}",pod_namespace="vision",state="{state}"}}': curve
    }


def old_node(name: str, power_w: float, **labels: str) -> dict[str, Curve]:
    """Kepler 0.9 on a machine of two packages; ``name`` is under ``instance``."""
    more = "".join(f',{key}="{value}"' for key, value in labels.items())
    metric = "kepler_node_package_joules_total"
    return {
        f'{metric}{{{name},package="{package}",mode="{mode}"{more}}}': steady(power_w * share / 2)
        for package in "01"
        for mode, share in (("dynamic", 0.4), ("idle", 0.6))
    }


# ------------------------------------------------------------------ one counter, counted twice


def test_two_exporters_of_one_node_are_one_node() -> None:
    server = Server(node(job="dev") | node(job="latest", offset_j=1700.0))
    assert kepler(server).power_w == pytest.approx(58)
    apart = node(job="dev", instance="a:1") | node(job="latest", instance="b:1", offset_j=7.0)
    assert kepler(Server(apart)).power_w == pytest.approx(58)


def test_an_exporter_that_sees_the_hosts_files_elsewhere_is_the_same_counter() -> None:
    twice = {
        text.replace("/sys/", "/host/sys/").replace('job="k"', 'job="m"'): curve
        for text, curve in node().items()
    }
    assert kepler(Server(node() | twice)).power_w == pytest.approx(58)


def test_two_exporters_that_do_not_agree_give_no_figure() -> None:
    other = {text.replace('job="k"', 'job="m"'): steady(100) for text in node()}
    with pytest.raises(MeterUnavailableError, match="scraped 2 times, and the gains differ"):
        kepler(Server(node() | other))


def test_of_two_exporters_the_one_that_was_there_all_the_time_is_taken() -> None:
    late = {t.replace('job="k"', 'job="a"'): between(60, 120, c) for t, c in node().items()}
    assert kepler(Server(late | node())).power_w == pytest.approx(58)


def test_old_kepler_scraped_twice_is_counted_once() -> None:
    name = 'instance="n1"'
    server = Server(old_node(name, 70, job="a") | old_node(name, 70, job="b"))
    assert kepler(server).power_w == pytest.approx(70)


def test_a_pod_seen_by_two_exporters_is_counted_once() -> None:
    twice = {
        text.replace("}", f',job="{job}"}}'): curve
        for job in ("a", "b")
        for text, curve in pod("yolo-1", steady(20)).items()
    }
    assert kepler(Server(node() | twice), pod="yolo-1").power_w == pytest.approx(20)


def test_two_generations_of_kepler_on_one_node_are_counted_once() -> None:
    server = Server(node("n1") | old_node('instance="n1"', 70))
    assert kepler(server).power_w == pytest.approx(58)


def test_a_node_that_only_the_old_kepler_counts_is_not_left_out_unsaid() -> None:
    server = Server(node("n1") | old_node('exported_instance="n2",instance="10.0.0.2:9102"', 70))
    with pytest.raises(MeterUnavailableError, match="only the old one has nodes n2"):
        kepler(server)
    assert kepler(server, node="n1").power_w == pytest.approx(58)
    assert kepler(server, node="n2").power_w == pytest.approx(70)


def test_users_own_counter_scraped_under_two_jobs_is_counted_once() -> None:
    def of(job: str, power_w: float, rack: str = "1") -> dict[str, Curve]:
        return {f'pdu_joules_total{{rack="{rack}",instance="pdu",job="{job}"}}': steady(power_w)}

    def asked(server: Server, *by: str) -> Energy:
        query = CounterQuery("pdu_joules_total", quality="measured", domain_labels=by)
        return joules(PrometheusMeter(server, query))

    assert asked(Server(of("a", 300) | of("b", 300))).power_w == pytest.approx(300)
    assert asked(Server(of("a", 300) | of("b", 300, rack="2"))).power_w == pytest.approx(600)
    assert asked(Server(of("a", 300) | of("b", 300)), "job").power_w == pytest.approx(600)
    with pytest.raises(MeterUnavailableError, match="--query-by job"):
        asked(Server(of("a", 300) | of("b", 500)))


def test_a_users_query_for_a_known_counter_counts_it_once() -> None:
    def asked(server: Server, selector: str, joules_per_unit: float = 1.0) -> Energy:
        return joules(PrometheusMeter(server, CounterQuery(selector, "measured", joules_per_unit)))

    metric = "kepler_node_cpu_joules_total"
    twice = Server(node(job="a", instance="a:1") | node(job="b", instance="b:1", offset_j=7.0))
    one = asked(twice, f'{metric}{{zone=~"package|dram"}}')
    assert (one.power_w, one.notes) == (pytest.approx(58), ())
    everything = asked(twice, metric)
    assert "zones core, dram, package lie in each other" in everything.notes[0]
    sliced = asked(Server(gpus(0.04)), "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION", 1e-3)
    assert sliced.power_w == pytest.approx(210)


def test_an_expression_that_may_add_a_counter_twice_is_warned_of() -> None:
    metric = "kepler_node_cpu_joules_total"

    class Evaluating(Server):
        def vector(self, expression: str, time_s: float | None = None) -> list[CounterSeries]:
            return [CounterSeries({}, (0.0,), (100.0,))]

    def notes(server: Server, zone: str = "package") -> tuple[str, ...]:
        text = f'sum(increase({metric}{{zone=~"{zone}"}}[$window]))'
        return joules(PrometheusMeter(server, PromqlQuery(text, "measured"))).notes

    assert notes(Evaluating(node())) == ()
    assert "in each other" in notes(Evaluating(node()), "package|core")[0]
    (note,) = notes(Evaluating(node(job="a") | node(job="b", offset_j=7.0)))
    assert "one counter in several series" in note


def gpus(late_s: float, slices: str = "3456") -> dict[str, Curve]:
    """Two GPUs of 120 and 90 W in slices; one slice of each is read later."""
    return {
        f'DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION{{UUID="GPU-{gpu}",device="nvidia{gpu}",'
        f'Hostname="h",GPU_I_ID="{each}",job="dcgm"}}': (
            lambda s, w=power_w, late=late_s if each == "5" else 0.0: 126e9 + 1000 * w * (s + late)
        )
        for gpu, power_w in ((0, 120), (1, 90))
        for each in slices
    }


def test_a_gpu_in_slices_that_are_read_milliseconds_apart_is_one_gpu() -> None:
    found = joules(meter_of(Server(gpus(0.04)), dcgm_meter))
    assert found.domains == pytest.approx({"h/nvidia0": 4800.0, "h/nvidia1": 3600.0})


def test_slices_that_are_seconds_apart_are_no_one_counter() -> None:
    with pytest.raises(MeterUnavailableError, match="same counter") as caught:
        joules(meter_of(Server(gpus(2.0)), dcgm_meter))
    shown = re.findall(r"(\d{12})", str(caught.value))
    assert len(set(shown)) == 2  # not the same figure twice, as few digits would make of it


def test_a_gpu_of_two_exporters_is_one_gpu() -> None:
    twice = {text.replace('job="dcgm"', 'job="b"'): curve for text, curve in gpus(0).items()}
    assert joules(meter_of(Server(gpus(0) | twice), dcgm_meter)).power_w == pytest.approx(210)


@pytest.mark.parametrize(("power_w", "said"), [(300.0, True), (0.0, False)])
def test_gpus_that_kepler_counts_and_we_do_not_are_named(power_w: float, said: bool) -> None:
    gpu = {'kepler_node_gpu_joules_total{node_name="n1",gpu="0"}': steady(power_w)}
    found = kepler(Server(node() | gpu))
    assert found.power_w == pytest.approx(58)
    assert bool(found.notes) == said
    assert all("kepler_node_gpu_joules_total moved" in note for note in found.notes)


# ------------------------------------------------------------------ leaps, gauges, names


@pytest.mark.parametrize("leap_j", [262_144, 65_536])
def test_a_counter_that_leaps_gives_no_figure(leap_j: float) -> None:
    curves = node()
    name = next(iter(curves))
    curves[name] = lambda second: 1000 + 50 * second + (leap_j if second > 60.5 else 0)
    with pytest.raises(MeterUnavailableError, match="no power explains"):
        kepler(Server(curves))
    curves[name] = lambda second: 1000 + 50 * second + (leap_j if second > 100.5 else 0)
    assert kepler(Server(curves)).power_w == pytest.approx(58)  # outside of the window


def test_slow_counters_and_short_work_do_not_leap() -> None:
    slow = {text: (lambda s, c=curve: c(5 * (s // 5))) for text, curve in node().items()}
    assert kepler(Server(slow)).power_w == pytest.approx(58, rel=0.15)
    burst = node()
    burst[next(iter(burst))] = lambda s: 20 * s + 900 * min(1.0, max(0.0, s - 60))
    assert kepler(Server(burst)).energy_j == pytest.approx(40 * 28 + 900)


@pytest.mark.parametrize("kind", ["gauge", "counter", None])
def test_a_gauge_is_no_counter(kind: str | None) -> None:
    name = "DCGM_FI_DEV_POWER_USAGE"
    server = Server({f'{name}{{gpu="0"}}': steady(1, 200.0)}, {name: kind} if kind else {})
    meter = PrometheusMeter(server, CounterQuery(name, quality="measured"))
    if kind != "gauge":  # nobody knows better than the user
        assert joules(meter).energy_j == pytest.approx(40)
        return
    with pytest.raises(MeterUnavailableError, match="is a gauge") as caught:
        joules(meter)
    assert meter.probe().state == "absent"
    advice = re.findall(r"--query '([^']*)'", str(caught.value))
    assert len(advice) == 2
    assert all(PromqlQuery(each, quality="measured").selectors == (name,) for each in advice)


@pytest.mark.parametrize(("kind", "refused"), [("counter", True), ("gauge", False), (None, False)])
def test_a_counter_is_no_gauge_either(kind: str | None, refused: bool) -> None:
    server = Server({"energy_joules_total": steady(10)}, {"energy_joules_total": kind or ""})
    query = PromqlQuery("avg_over_time(energy_joules_total[$window]) * $window_s", "estimated")
    if refused:
        with pytest.raises(MeterUnavailableError, match=r"avg_over_time\(\) is no power"):
            query.check(server, [])
    else:
        query.check(server, [])
    increase = PromqlQuery("increase(energy_joules_total[$window])", "estimated")
    increase.check(server, [])


@pytest.mark.parametrize(
    ("query", "refused"),
    [
        ('node_rapl_package_joules_total{instance="n1:9100"}', True),
        ("kepler_node_cpu_joules_total", True),
        ("DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION", False),
        ("pdu_joules_total", False),
    ],
)
def test_a_query_may_be_another_door_to_a_counter(query: str, refused: bool) -> None:
    server = Server(node())
    asked = PrometheusMeter(server, CounterQuery(query, "measured"))
    with pytest.raises(ConfigError, match="CPU twice") if refused else nullcontext():
        CompositeMeter([asked, meter_of(server, kepler_meter)])


@pytest.mark.parametrize(
    "name", ['exported_instance="worker-a",instance="10.0.0.1:9102"', 'instance="worker-a"']
)
def test_a_node_is_found_where_prometheus_kept_its_name(name: str) -> None:
    server = Server(old_node(name, 90))
    for target in ({"node": "worker-a"}, {}):
        found = kepler(server, **target)
        assert found.power_w == pytest.approx(90)
        assert all(domain.startswith("worker-a/") for domain in found.domains)


# ------------------------------------------------------------------ an exporter that hangs


def hung(at_s: float, curves: dict[str, Curve]) -> dict[str, Curve]:
    return {text: (lambda s, c=curve: c(min(s, at_s))) for text, curve in curves.items()}


@pytest.mark.parametrize("target", [{}, {"pod": "yolo-1"}])
@pytest.mark.parametrize("at_s", [3.0, 60.0])
def test_a_kepler_that_hangs_gives_no_figure(target: dict[str, str], at_s: float) -> None:
    """At 60 s, in the middle of the window: half of the joules would be believed."""
    server = Server(hung(at_s, node() | pod("yolo-1", steady(20))))
    with pytest.raises(MeterUnavailableError, match=r"did not move|stood still"):
        kepler(server, **target)


def test_a_dcgm_exporter_that_hangs_gives_no_figure() -> None:
    with pytest.raises(MeterUnavailableError, match="stood still"):
        joules(meter_of(Server(hung(60.0, gpus(0))), dcgm_meter))


def test_an_idle_pod_of_a_kepler_that_runs_is_0_joules() -> None:
    server = Server(node() | pod("idle", lambda _: 3.0))
    found = kepler(server, pod="idle")
    assert (found.energy_j, found.notes) == (0.0, ())


def test_0_joules_that_nobody_vouches_for_are_no_figure() -> None:
    with pytest.raises(MeterUnavailableError, match="did not move"):
        kepler(Server(pod("yolo-1", lambda _: 3.0)), pod="yolo-1")


# ------------------------------------------------------------------ pods that come and go


def test_pods_that_come_and_go_are_measured_or_said_to_be_lost() -> None:
    """An adapting pipeline: one replica stays, one comes, one goes, one is replaced."""
    server = Server(
        node()
        | pod("yolo-stays", steady(10))
        | pod("yolo-comes", between(60, 120, lambda s: 20 * (s - 59.5)))
        | pod("yolo-goes", between(0, 70, steady(5)))
        | pod("yolo-ended", between(0, 50, steady(8)))
        | pod("yolo-ended", between(51, 90, lambda _: 1000 + 8 * 50.5), state="terminated")
        | pod("yolo-gone", between(0, 20, steady(7)))
        | pod("yolo-later", between(100, 120, steady(7, 0.0)))
    )
    found = kepler(server, pod="yolo-*")
    assert found.domains == pytest.approx(
        {
            "vision/yolo-stays/package": 400.0,
            "vision/yolo-comes/package": 20 * 20.5,  # from its birth at 59.5 s on
            "vision/yolo-goes/package": 150.0,
            "vision/yolo-ended/package": 84.0,  # Kepler tells what it drew to its end
        }
    )
    assert len(found.notes) == 1
    assert "yolo-goes/package ended in the window" in found.notes[0]
    assert "lost" in found.notes[0]


def test_a_pod_between_two_scrapes_is_said_to_be_lost() -> None:
    flash = pod("yolo-flash", between(60, 80, lambda _: 12.0), state="terminated")
    found = kepler(Server(node() | pod("yolo-1", steady(20)) | flash), pod="yolo-*")
    assert found.domains == pytest.approx({"vision/yolo-1/package": 800.0})
    assert "yolo-flash/package came and went between two scrapes" in found.notes[0]


def test_a_pod_that_begins_high_was_there_before() -> None:
    server = Server(node() | pod("yolo-1", between(60, 120, steady(20, 1e6))))
    with pytest.raises(MeterUnavailableError, match="begins in the window"):
        kepler(server, pod="yolo-1")


def test_pods_do_not_come_and_go_where_kepler_itself_does() -> None:
    curves = {t: between(60, 120, c) for t, c in (node() | pod("yolo-1", steady(20, 0.0))).items()}
    with pytest.raises(MeterUnavailableError, match="do not cover"):
        kepler(Server(curves), pod="yolo-1")


# ------------------------------------------------------------------ VictoriaMetrics


@pytest.mark.parametrize(
    ("data", "now_s"),
    [
        ({"resultType": "scalar", "result": [1795642084.5, "1795642084.5"]}, 1795642084.5),
        # half a minute ago to the millisecond, and now to the second
        (
            {"resultType": "vector", "result": [{"metric": {}, "value": [84, "54.215"]}]},
            84.215,
        ),
        ({"resultType": "vector", "result": [{"metric": {}, "value": [84, "84.215"]}]}, 84.215),
        ({"resultType": "vector", "result": [{"metric": {}, "value": [84.2, "54.2"]}]}, 84.2),
    ],
)
def test_the_time_of_a_server_that_answers_for_a_while_ago(
    monkeypatch: pytest.MonkeyPatch, data: dict[str, Any], now_s: float
) -> None:
    answer = json.dumps({"status": "success", "data": data}).encode()
    asked: list[str] = []

    def fetch(self: PrometheusServer, address: str, arguments: Any) -> bytes:
        asked.append(address)
        return answer

    monkeypatch.setattr(PrometheusServer, "_fetch", fetch)
    server = PrometheusServer("http://vm:8428")
    assert server.now_s() == pytest.approx(now_s)
    server.vector("x", 5.0)
    assert "nocache=1" in asked[1]  # else what is fresher than half a minute is not there


def test_the_processor_of_a_module_is_not_added_to_what_dcgm_counts() -> None:
    named = {t.replace("}", ',modelName="NVIDIA GH200 480GB"}'): c for t, c in gpus(0).items()}
    server = Server(node() | named)
    with pytest.raises(ConfigError, match="counts the joules of CPU twice"):
        CompositeMeter([meter_of(server, dcgm_meter), meter_of(server, kepler_meter)])


def test_notes_of_a_part_stay_in_a_sum() -> None:
    server = Server(node() | pod("yolo-1", between(0, 60, steady(20))) | gpus(0))
    part = meter_of(server, kepler_meter, target=KeplerTarget(pod="yolo-1"))
    whole = CompositeMeter([meter_of(server, dcgm_meter), part])
    start, end = (
        Reading(at_s, {SERVER_TIME: at_s, ROUND_TRIP: 0.0})
        for at_s in (START_OF_WINDOW_S, END_OF_WINDOW_S)
    )
    readings = [CompositeReading(each.time_s, {}, (each, each)) for each in (start, end)]
    found = whole.energy_between(*readings)
    assert found.energy_j == pytest.approx(40 * 210 + 20 * 20)
    assert ["ended in the window" in note for note in found.notes] == [True]
