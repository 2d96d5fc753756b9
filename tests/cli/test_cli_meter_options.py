"""Options that say whose joules are meant: a control group, Kepler's or DCGM's targets, a query."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_fixture import LIVE_W, Exporter, prometheus, serving

from ipa_energy.cli import build_parser, main
from ipa_energy.cli.meters import TARGETS, chosen_meter, places_of
from ipa_energy.meters.prometheus.prometheus_meter import PrometheusMeter
from ipa_energy.meters.prometheus.query import CounterQuery, PromqlQuery
from ipa_energy.meters.sources import source
from ipa_energy.registries import METERS

pytestmark = pytest.mark.measures

URL = ("--prometheus-url", "http://127.0.0.1:9")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of a real Prometheus that scrapes both Kepler generations, DCGM and a live counter."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("no_proxy", "127.0.0.1")
        with (
            serving(Exporter().page) as target,
            prometheus(tmp_path_factory.mktemp("prometheus"), target) as url,
        ):
            yield url


Row = Callable[..., dict[str, Any]]


@pytest.fixture
def row(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Row:
    """A source's row of ``ipa-energy meters --json``."""

    def of(name: str, *options: str) -> dict[str, Any]:
        argv = ["meters", "--json", "--powercap", str(tmp_path), *options]
        assert main(argv) == 0
        found = json.loads(capsys.readouterr().out)
        (one,) = [meter for meter in found["meters"] if meter["name"] == name]
        return dict(one)

    return of


# ------------------------------------------------------------------ which meter, whose joules


@pytest.mark.parametrize(
    ("options", "meter"),
    [
        ([], "auto"),
        ([*URL], "auto"),  # what a server knows may be of other machines: never unasked
        (["--cgroup", "/pod"], "cpu-time"),
        ([*URL, "--kepler-pod", "yolo-*"], "kepler"),
        ([*URL, "--namespace", "vision"], "kepler"),
        ([*URL, "--kepler-node", "n", "--dcgm-host", "n"], "dcgm+kepler"),
        ([*URL, "--query", "x"], "prometheus"),
        (["--meter", "nvml+cpu-time", "--cgroup", "/pod"], "nvml+cpu-time"),
        (["--meter", "rapl"], "rapl"),
    ],
)
def test_options_choose_the_meter_that_they_are_about(options: list[str], meter: str) -> None:
    args = build_parser().parse_args(["measure", *options, "--", "true"])
    assert chosen_meter(args) == meter
    assert set(meter.split("+")) - {"auto"} <= set(METERS)


def test_every_target_is_of_a_meter_that_there_is() -> None:
    assert set(TARGETS.values()) <= set(METERS)


def test_targets_reach_the_meters() -> None:
    words = [*URL, "--kepler-node", "n1", "--namespace", "vision", "--kepler-pod", "yolo-1"]
    words += ["--kepler-container", "server", "--kepler-without-memory"]
    words += ["--dcgm-host", "h", "--dcgm-gpu", "GPU-a", "--cgroup", "/p", "--cgroup-cores", "2"]
    places = places_of(build_parser().parse_args(["measure", *words, "--", "true"]))
    target = places.kepler
    assert target is not None
    assert (target.node, target.namespace, target.pod, target.container, target.memory) == (
        "n1", "vision", "yolo-1", "server", False,
    )  # fmt: skip
    assert (places.dcgm_host, places.dcgm_gpu) == ("h", "GPU-a")
    assert (places.cgroup, places.reserved_cores) == ("/p", 2.0)


def test_a_query_is_a_counter_or_an_expression_over_the_window() -> None:
    def query(*words: str) -> Any:
        return places_of(build_parser().parse_args(["meters", *URL, "--query", *words])).query

    counter = query('energy{a="b"}', "--query-unit", "Wh", "--query-by", "a", "--query-by", "c")
    assert counter == CounterQuery(
        'energy{a="b"}', quality="estimated", joules_per_unit=3600.0, domain_labels=("a", "c")
    )
    power = "sum(avg_over_time(watts[$window])) * $window_s"
    assert query(power, "--query-quality", "measured") == PromqlQuery(power, quality="measured")


def test_the_token_is_read_from_its_file(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("abc\n")
    args = build_parser().parse_args(["meters", *URL, "--prometheus-token", str(file)])
    assert places_of(args).prometheus_headers == {"Authorization": "Bearer abc"}


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--cgroup-cores", "1"], "--cgroup-cores: means nothing without --cgroup"),
        (["--kepler-pod", "x"], "--kepler-pod: means nothing without --prometheus-url"),
        (["--prometheus-token", "f"], "--prometheus-token: means nothing without"),
        ([*URL, "--prometheus-token", "nowhere"], "cannot read the token"),
        ([*URL, "--prometheus-token", "/dev/null"], "holds no token"),
        ([*URL, "--query-unit", "Wh"], "--query-unit: means nothing without --query"),
        ([*URL, "--query", "x", "--query-unit", "cal"], "--query-unit"),
        ([*URL, "--query", ""], "--query: is empty"),
        ([*URL, "--query", "sum(x)[$window]"], "over which samples"),
        (["--cgroup", ""], "--cgroup: is empty"),
        (["--cgroup", "/no/such/group"], "no cgroup"),
        (["--prometheus-url", ""], "--prometheus-url: is empty"),
        (["--prometheus-url", "gopher://x", "--kepler-pod", "y"], "no address"),
        ([*URL, "--kepler-pod", "x", "--meter", "rapl"], "means nothing with --meter rapl"),
        (["--cgroup", "/", "--meter", "nvml"], "give --meter cpu-time"),
        ([*URL], "--prometheus-url: means nothing with --meter auto"),
        ([*URL], "--meter kepler, --meter dcgm, or --query"),
        ([*URL, "--meter", "rapl"], "--prometheus-url: means nothing with --meter rapl"),
        (["--powercap", "/nope", "--meter", "cpu-time"], "--powercap: means nothing with"),
        ([*URL, "--kepler-node", "n", "--cgroup", "/"], "counts the joules of CPU twice"),
    ],
)
def test_options_that_do_not_go_together_are_refused(
    options: list[str],
    says: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    try:
        status = main(["measure", *options, "--", "true"])
    except SystemExit as stop:
        status = int(stop.code or 0)
    err = capsys.readouterr().err
    assert (status, err.count("\n")) == (2, 1)
    assert says in err


def test_a_powercap_folder_without_zones_is_not_passed_over(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["measure", "--powercap", "/nope", "--", "true"]) == 4
    assert "no package zone under /nope" in capsys.readouterr().err


# ------------------------------------------------------------------ a real server


def test_meters_shows_the_state_of_each_target(server: str, row: Row) -> None:
    url = ("--prometheus-url", server)
    node = row("kepler", *url, "--kepler-node", "node1")
    assert node["state"] == "measured"
    assert node["domains"] == ["node1/dram", "node1/package"]
    assert node["update_period_s"] == pytest.approx(1.0, rel=0.2)
    pod = row("kepler", *url, "--namespace", "vision", "--kepler-pod", "yolo-1")
    assert pod["state"] == "estimated"
    worn = row("kepler", *url, "--kepler-node", "worn", "--kepler-without-memory")
    assert worn["domains"] == ["worn/package"]
    assert row("kepler", *url, "--kepler-pod", "nobody")["state"] == "absent"


def test_meters_shows_gpus_by_host_and_uuid(server: str, row: Row) -> None:
    url = ("--prometheus-url", server)
    assert row("dcgm", *url)["domains"] == ["node1/nvidia0", "node1/nvidia1"]
    assert row("dcgm", *url, "--dcgm-gpu", "GPU-b")["domains"] == ["node1/nvidia1"]
    assert row("dcgm", *url, "--dcgm-host", "node9")["state"] == "absent"


def test_a_query_is_an_estimate_unless_the_user_vouches_for_it(server: str, row: Row) -> None:
    words = ("--prometheus-url", server, "--query", "live_joules_total")
    places = places_of(build_parser().parse_args(["meters", *words]))
    for _ in range(60):  # until it has been scraped often enough
        if source("prometheus").status(places).state != "dead":
            break
        time.sleep(0.5)
    found = row("prometheus", *words)
    assert found["state"] == "estimated"
    assert "--query-quality measured" in found["fix"]
    assert row("prometheus", *words, "--query-quality", "measured")["state"] == "measured"
    assert "no query is named" in row("prometheus", *words[:2])["reason"]
    assert row("prometheus", *words[:2], "--query", "nothing_total")["state"] == "absent"


def test_measure_with_a_live_counter(
    server: str, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # A counter scraped each second is good to 1 % after 100 s; this test has less time.
    monkeypatch.setattr(PrometheusMeter, "min_window_s", 1.0)
    words = ["--prometheus-url", server, "--query", "live_joules_total", "--query-unit", "kJ"]
    assert main(["measure", *words, "--idle", "0", "--json", "--", "sleep", "3"]) == 0
    found = json.loads(capfd.readouterr().out)
    assert (found["meter"], found["quality"]) == ("prometheus", "estimated")
    assert found["power_w"] == pytest.approx(1000 * LIVE_W, rel=0.02)
    assert found["dynamic_energy_j"] is None


def test_a_command_too_short_for_the_scrapes_is_refused(
    server: str, capfd: pytest.CaptureFixture[str]
) -> None:
    words = ["--prometheus-url", server, "--query", "live_joules_total", "--idle", "0"]
    assert main(["measure", *words, "--", "sleep", "0.2"]) == 2
    assert "prometheus means nothing in windows under" in capfd.readouterr().err


# ------------------------------------------------------------------ a control group


@pytest.fixture
def group(tmp_path: Path) -> Path:
    """A group of version 2, as a folder."""
    folder = tmp_path / "pod"
    folder.mkdir()
    (folder / "cgroup.procs").write_text("")
    (folder / "cpu.stat").write_text("usage_usec 5000000\n")
    return folder


def test_measure_charges_the_group_while_the_command_runs(
    group: Path, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    model = tmp_path / "model.json"
    model.write_text('{"idle_w": 8, "max_w": 40, "cores": 4, "source": "made up"}')
    work = f"sleep 1.05; echo usage_usec 7000000 > {group}/cpu.stat"
    argv = ["measure", "--cgroup", str(group), "--cgroup-cores", "1", "--power-model", str(model)]
    assert main([*argv, "--idle", "1", "--json", "--", "sh", "-c", work]) == 0
    found = json.loads(capfd.readouterr().out)
    (trial,) = found["trials"]
    assert trial["cpu_s"] == pytest.approx(2.0)
    assert trial["dynamic_energy_j"] == pytest.approx(2.0 * 8)  # J a CPU second
    assert found["idle_power_w"] == pytest.approx(2.0)  # a quarter of 8 W
    assert found["cgroup"] == {
        "folder": str(group), "reserved_cores": 1.0, "idle_power_w": 2.0,
    }  # fmt: skip
    assert found["warnings"] == []
    assert main([*argv, "--idle", "0", "--", "sleep", "1.05"]) == 0
    err = capfd.readouterr().err
    assert "estimated, cpu-time of cgroup /" in err
    assert "dynamic   unknown: there were no idle windows" in err


def test_a_group_that_ends_gives_no_figure(group: Path, capfd: pytest.CaptureFixture[str]) -> None:
    argv = ["measure", "--cgroup", str(group), "--idle", "0", "--"]
    assert main([*argv, "sh", "-c", f"sleep 1.05; rm {group}/cpu.stat"]) == 4
    assert "cannot be read any more" in capfd.readouterr().err
