"""A Prometheus beside a run: started, mended, ended; or somebody's own, only looked at."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("grpc")
pytest.importorskip("prometheus_client")

from small_pipeline import write_small_pipeline

from ipa_energy.errors import UnavailableError
from ipa_energy.runlog import read_run
from ipa_energy.serving.local import prometheus_process
from ipa_energy.serving.local.prometheus_process import PrometheusProcess, look_at, rule_files

pytestmark = pytest.mark.measures

needs_prometheus = pytest.mark.skipif(
    shutil.which("prometheus") is None, reason="needs prometheus (Debian: prometheus)"
)


@contextmanager
def answering(status: int, body: str) -> Iterator[str]:
    """A server that answers everything alike."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def targets(*active: dict[str, str]) -> str:
    return json.dumps({"status": "success", "data": {"activeTargets": list(active)}})


def test_a_prometheus_of_somebodys_is_looked_at_and_nothing_more() -> None:
    mine = {"scrapeUrl": "http://127.0.0.1:9/metrics", "health": "up", "lastError": ""}
    with answering(200, targets(mine)) as url:
        assert look_at(url, "127.0.0.1:9") == f"{url} scrapes http://127.0.0.1:9/metrics: up"
        assert "fix: add under scrape_configs" in look_at(url, "127.0.0.1:10")
    ill = {**mine, "health": "down", "lastError": "refused"}
    with answering(200, targets(ill)) as url:
        assert look_at(url + "/", "127.0.0.1:9").endswith("down (refused)")


@pytest.mark.parametrize(("status", "body"), [(500, ""), (200, "<html>"), (200, "{}")])
def test_what_is_no_prometheus_is_said_and_the_run_goes_on(status: int, body: str) -> None:
    with answering(status, body) as url:
        assert "does not answer as a Prometheus" in look_at(url, "127.0.0.1:9")
    assert "the run goes on without it" in look_at(url, "127.0.0.1:9")


def test_without_a_prometheus_on_the_path_it_is_said_how_to_get_one(tmp_path: Path) -> None:
    with pytest.raises(UnavailableError, match=r"no nonesuch on the path; fix: install it"):
        PrometheusProcess(tmp_path, exporter="x:1", pipeline="p", program="nonesuch")


def test_one_that_does_not_start_is_tried_again_and_holds_nothing_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(prometheus_process, "FIRST_RESTART_S", 0.05)
    process = PrometheusProcess(tmp_path, exporter="x:1", pipeline="p", program="false")
    eventually(lambda: process.starts >= 3)
    assert process.pid is None or process.starts
    process.close()
    assert process.pid is None
    assert any("Prometheus has ended (see" in message for message in caplog.messages)


def eventually(look: Callable[[], Any], *, seconds: float = 90) -> Any:
    end_s = time.perf_counter() + seconds
    while time.perf_counter() < end_s:
        try:
            found = look()
        except OSError:
            found = None
        if found:
            return found
        time.sleep(0.1)
    raise AssertionError("it did not come")


def samples(url: str, query: str) -> list[Any]:
    with urllib.request.urlopen(f"{url}/api/v1/query?query={query}", timeout=5) as answer:
        return list(json.load(answer)["data"]["result"])


def alive(folder: Path) -> list[str]:
    """Command lines of processes that name a folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().decode().split("\0")
        except (FileNotFoundError, ProcessLookupError):
            continue
        if any(f"={folder}" in word for word in words):
            found.append(path.parent.name)
    return found


@pytest.mark.slow
@needs_prometheus
def test_a_live_run_brings_its_prometheus_mends_it_and_leaves_its_data(tmp_path: Path) -> None:
    pipeline = write_small_pipeline(tmp_path)
    text = pipeline.read_text()
    load = "workload_type: static\nworkload_config: {loads_to_test: 5, load_duration: 300}\n"
    pipeline.write_text(text[: text.index("workload_type")] + load + "adaptation_interval: 2\n")
    out = tmp_path / "run"
    words = [
        "run",
        pipeline,
        "--backend",
        "local-stub",
        "--out",
        out,
        "--prometheus",
        "--seed",
        "1",
    ]
    command = [sys.executable, "-m", "ipa_energy", *map(str, words)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        told: list[str] = []
        reading = threading.Thread(target=lambda: told.extend(process.stderr or ()))
        reading.start()

        def prometheus() -> str | None:
            found = [line for line in told if "Prometheus: http" in line and "metrics" not in line]
            return found[0].split()[-1] if found else None

        url = eventually(prometheus)
        figure = "ipa_energy_requests_total"
        assert eventually(lambda: samples(url, figure))
        first = alive(out / "prometheus")
        assert len(first) == 1
        os.kill(int(first[0]), signal.SIGKILL)
        assert eventually(lambda: alive(out / "prometheus") not in ([], first))
        assert eventually(lambda: samples(url, figure))
        assert eventually(lambda: samples(url, "ipa_energy:joules_per_request:rate1m"))
        process.send_signal(signal.SIGINT)
        process.wait(60)
        reading.join()
    assert process.returncode == 130
    assert alive(out) == []
    assert [line for line in told if "Prometheus has ended" in line]
    answered = read_run(out).requests.request_id.tolist()
    assert answered == list(range(len(answered))) != []
    kept = {path.name for path in (out / "prometheus").iterdir()}
    assert {"prometheus.yml", "data", *(path.name for path in rule_files())} <= kept
