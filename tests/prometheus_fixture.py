"""A real Prometheus server on loopback, and an exporter whose every joule is known.

``/scenario`` gives the whole of a past minute at once, a sample a second with its timestamp, so
that what is stored does not depend on how fast this machine is. ``/live`` is a counter of 40 W that
a test can restart or take down.
"""

from __future__ import annotations

import contextlib
import http.server
import json
import shutil
import socket
import subprocess
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

SECONDS = 61
AGE_S = 120
LIVE_W = 40.0

CONFIG = """\
global: {scrape_interval: 1s, scrape_timeout: 1s}
scrape_configs:
  - job_name: scenario
    metrics_path: /scenario
    honor_labels: true
    static_configs: [{targets: ['TARGET']}]
  - {job_name: live, metrics_path: /live, static_configs: [{targets: ['TARGET']}]}
"""

Curve = Callable[[int], float | None]


def steady(power_w: float, *, offset_j: float = 0.0) -> Curve:
    """A counter of constant power."""
    return lambda second: offset_j + power_w * second


def between(first: int, last: int, curve: Curve) -> Curve:
    """A counter that is scraped from one second to another only."""
    return lambda second: curve(second) if first <= second <= last else None


def without(missing: range, curve: Curve) -> Curve:
    """A counter with scrapes missing."""
    return lambda second: None if second in missing else curve(second)


def restarted(second_of_restart: float, power_w: float, back_at_j: float = 0.0) -> Curve:
    """A counter that restarts, by default at zero."""

    def curve(second: int) -> float:
        if second < second_of_restart:
            return 100_000 + power_w * second
        return back_at_j + power_w * (second - second_of_restart)

    return curve


def kepler_010() -> dict[str, Curve]:
    """Kepler 0.10 and newer: two nodes, three pods, a container that ended."""
    series: dict[str, Curve] = {}
    for node, scale in (("node1", 1.0), ("node2", 2.0)):
        for zone, power_w in (("package", 50), ("dram", 10), ("core", 30), ("psys", 90)):
            labels = f'node_name="{node}",zone="{zone}",path="/sys/class/powercap/{zone}"'
            series[f"kepler_node_cpu_joules_total{{{labels}}}"] = steady(scale * power_w)
    series['kepler_node_cpu_joules_total{node_name="laptop",zone="psys",path="p"}'] = steady(7)
    for pod, name, power_w in (("id-1", "yolo-1", 20), ("id-2", "yolo-2", 5), ("id-3", "rest", 0)):
        for zone, share in (("package", 1.0), ("dram", 0.1), ("core", 0.5)):
            where = f'node_name="node1",zone="{zone}",pod_id="{pod}",state="running"'
            series[
                f'kepler_pod_cpu_joules_total{{{where},pod_name="{name}",pod_namespace="vision"}}'
            ] = steady(share * power_w)
            series[
                f'kepler_container_cpu_joules_total{{{where},container_name="server",'
                f'container_id="c-{pod}",runtime="containerd"}}'
            ] = steady(share * power_w)
    ended = 'node_name="node1",zone="package",pod_id="id-0",state="terminated"'
    series[f'kepler_pod_cpu_joules_total{{{ended},pod_name="yolo-0",pod_namespace="vision"}}'] = (
        between(30, 60, lambda _: 777.0)
    )
    for zone, curve in (("package", steady(50)), ("dram", lambda _: 5.0)):
        labels = f'node_name="worn",zone="{zone}",path="p"'
        series[f"kepler_node_cpu_joules_total{{{labels}}}"] = curve
    return series


def kepler_09() -> dict[str, Curve]:
    """Kepler up to 0.9: a node read by RAPL and a container; a container fed by a model."""
    series: dict[str, Curve] = {
        'kepler_node_info{instance="old1",components_power_source="rapl-sysfs"}': lambda _: 1.0
    }
    for part, dynamic_w, idle_w in (("package", 30, 20), ("dram", 4, 0), ("core", 9, 9)):
        for mode, power_w in (("dynamic", dynamic_w), ("idle", idle_w)):
            series[
                f'kepler_node_{part}_joules_total{{instance="old1",mode="{mode}",source="intel_rapl"}}'
            ] = steady(power_w)
            series[
                f'kepler_container_{part}_joules_total{{instance="old1",container_name="server",'
                f'pod_name="yolo-1",container_namespace="vision",mode="{mode}"}}'
            ] = steady(power_w / 10)
    return series


def dcgm() -> dict[str, Curve]:
    """Two GPUs in mJ: one changes hands between pods, one is repeated for two slices."""
    name = "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION"
    one = 'gpu="0",UUID="GPU-a",device="nvidia0",Hostname="node1"'
    two = 'gpu="1",UUID="GPU-b",device="nvidia1",Hostname="node1"'
    return {
        f'{name}{{{one},pod="yolo-1"}}': between(0, 24, steady(300_000)),
        f'{name}{{{one},pod="yolo-2"}}': between(25, 60, steady(300_000)),
        f'{name}{{{two},GPU_I_ID="1"}}': steady(100_000),
        f'{name}{{{two},GPU_I_ID="2"}}': steady(100_000),
    }


def troubles() -> dict[str, Curve]:
    """Counters with something wrong, all of 10 W where they run."""
    return {
        'trouble_joules_total{kind="none"}': steady(10),
        'trouble_joules_total{kind="restart"}': restarted(20.5, 10),
        'trouble_joules_total{kind="not-at-zero"}': restarted(20.5, 10, back_at_j=50_000),
        'trouble_joules_total{kind="gap"}': without(range(20, 30), steady(10)),
        'trouble_joules_total{kind="one-missed"}': without(range(20, 21), steady(10)),
        'trouble_joules_total{kind="born"}': between(20, 60, steady(10)),
        'trouble_joules_total{kind="gone"}': between(0, 40, steady(10)),
        'trouble_joules_total{kind="dead"}': lambda _: 4321.0,
        'trouble_joules_total{kind="slow"}': lambda second: 50.0 * (second // 5),
        'trouble_joules_total{kind="model",source="trained_power_model"}': steady(10),
        'trouble_joules_total{kind="nan"}': lambda second: float("nan") if second == 25 else 10.0,
        'trouble_watts{kind="none"}': lambda _: 10.0,
        'trouble_watts{kind="gap"}': without(range(20, 30), lambda _: 10.0),
    }


@dataclass
class Exporter:
    """What the exporter serves; ``live`` can be restarted or taken down by a test."""

    begin_ms: int = field(default_factory=lambda: int(time.time() - AGE_S) * 1000)
    live_since_s: float = field(default_factory=time.time)
    live_is_down: bool = False

    def second(self, number: float) -> float:
        """Unix seconds of a second of the scenario."""
        return self.begin_ms / 1000 + number

    def restart_live(self) -> None:
        """The live counter begins again at zero."""
        self.live_since_s = time.time()

    def page(self, path: str) -> str | None:
        """The metrics page; None where there is none now."""
        if path == "/live":
            now_ms = int(time.time() * 1000)
            joules = LIVE_W * (now_ms / 1000 - self.live_since_s)
            return None if self.live_is_down else f"live_joules_total {joules!r} {now_ms}\n"
        lines = []
        for name, curve in (kepler_010() | kepler_09() | dcgm() | troubles()).items():
            for second in range(SECONDS):
                value = curve(second)
                if value is not None:
                    lines.append(f"{name} {value!r} {self.begin_ms + 1000 * second}")
        return "\n".join([*lines, ""])


@contextmanager
def serving(page: Callable[[str], str | None]) -> Iterator[str]:
    """Serve pages of text on loopback; yields HOST:PORT."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            text = page(self.path)
            self.send_response(200 if text is not None else 503)
            self.send_header("Content-Type", "text/plain; version=0.0.4")
            self.end_headers()
            self.wfile.write((text or "").encode())

        def log_message(self, *_: Any) -> None:
            """Keep quiet."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def prometheus(folder: Path, target: str) -> Iterator[str]:
    """A Prometheus that scrapes ``target`` and has all of the scenario; yields its URL."""
    binary = shutil.which("prometheus")
    if binary is None:
        pytest.skip("needs the prometheus server (Debian package prometheus)")
    (folder / "prometheus.yml").write_text(CONFIG.replace("TARGET", target))
    process, url = _started(binary, folder)
    try:
        _await_scenario(url, process, folder / "log")
        yield url
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _started(binary: str, folder: Path) -> tuple[subprocess.Popen[bytes], str]:
    """The server, and its URL once it answers; another port where one was taken meanwhile."""
    for _ in range(5):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{free.getsockname()[1]}"
        words = (
            f"--config.file={folder / 'prometheus.yml'}",
            f"--storage.tsdb.path={folder / 'data'}",
            f"--web.listen-address={address}",
        )
        with (folder / "log").open("w") as log:
            process = subprocess.Popen([binary, *words], stdout=log, stderr=log)
        while process.poll() is None:
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"http://{address}/-/ready", timeout=5).close()
                return process, f"http://{address}"
            time.sleep(0.05)
        if "address already in use" not in (folder / "log").read_text():
            break
    raise AssertionError((folder / "log").read_text())


def _await_scenario(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    question = f"{url}/api/v1/query?query=count(last_over_time(live_joules_total[1m]))%2B"
    question += "count(last_over_time(trouble_watts[5m]))"
    end_s = time.monotonic() + 90
    while time.monotonic() < end_s:
        assert process.poll() is None, log.read_text()
        try:
            with urllib.request.urlopen(question, timeout=5) as answer:
                if json.load(answer)["data"]["result"]:
                    return
        except OSError:
            pass  # not up yet
        time.sleep(0.1)
    raise AssertionError(f"Prometheus scraped nothing:\n{log.read_text()}")
