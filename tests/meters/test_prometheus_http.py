"""The HTTP client against servers that misbehave, each in its own way."""

from __future__ import annotations

import base64
import contextlib
import http.server
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from ipa_energy.errors import ConfigError, MeterUnavailableError
from ipa_energy.meters.prometheus.exporters import kepler_meter
from ipa_energy.meters.prometheus.prometheus_meter import PrometheusMeter
from ipa_energy.meters.prometheus.query import CounterQuery
from ipa_energy.meters.prometheus.server import PrometheusServer
from ipa_energy.meters.sources import KeplerTarget


@dataclass
class Stub:
    """What the server answers next, and what it was asked."""

    url: str = ""
    status: int = 200
    body: bytes = b""
    location: str | None = None
    delay_s: float = 0.0
    clock: bytes | None = None
    asked: list[tuple[str, dict[str, str]]] = field(default_factory=list)

    def knows_nothing(self) -> None:
        """A server that tells the time and has no samples."""
        self.answers("scalar", [1e9, "1000000000"])
        self.clock = self.body
        self.answers("vector", [])

    def answers(self, result_type: str, result: Any, **more: Any) -> None:
        data = {"resultType": result_type, "result": result}
        self.body = json.dumps({"status": "success", "data": data, **more}).encode()


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stub]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    found = Stub()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found.asked.append((self.path, dict(self.headers)))
            time.sleep(found.delay_s)
            self.send_response(found.status)
            if found.location is not None:
                self.send_header("Location", found.location)
            self.end_headers()
            # A client that has lost patience is gone by now.
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                asks_time = "query=time%28%29" in self.path
                self.wfile.write(found.clock if asks_time and found.clock else found.body)

        def log_message(self, *_: Any) -> None:
            """Keep quiet."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    found.url = f"http://127.0.0.1:{server.server_address[1]}"
    yield found
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_good_answer_is_read(stub: Stub) -> None:
    stub.answers("matrix", [{"metric": {"a": "b"}, "values": [[1.5, "2"], [2.5, "3"], [9, "7"]]}])
    (series,) = PrometheusServer(stub.url + "/").series('x{a="b"}', 2.0, 9.0)
    assert (dict(series.labels), series.times_s, series.values) == ({"a": "b"}, (2.5, 9), (3, 7))
    assert "query=x%7Ba%3D%22b%22%7D%5B7001ms%5D&time=9.000" in stub.asked[0][0]


@pytest.mark.parametrize(
    ("status", "body", "words"),
    [
        (401, b"", "credentials"),
        (403, b"", "may not query"),
        (404, b"<html>", "path prefix"),
        (500, b"oops", "answers 500"),
        (503, b"", "try again"),
        (200, b"<html>", "no Prometheus API"),
        (200, b"", "no Prometheus API"),
        (200, b"[]", "no Prometheus API"),
        (200, b'{"status":"success"}', "no Prometheus API"),
        (200, b'{"status":"error","data":{}}', "status 'error'"),
        (200, b'{"status":"success","data":{"result":[NaN,NaN]}}', "not its JSON"),
        (200, b'{"status":"success","data":{"result":[]}}', "gave no number"),
        (200, b'{"status":"success","data":{"result":"x"}}', "gave no number"),
    ],
)
def test_a_bad_answer_is_said_in_words(stub: Stub, status: int, body: bytes, words: str) -> None:
    stub.status, stub.body = status, body
    with pytest.raises(MeterUnavailableError, match=words):
        PrometheusServer(stub.url).now_s()


@pytest.mark.parametrize(
    "result",
    [
        {},
        [{"metric": {}}],
        [{"metric": [], "values": []}],
        [{"metric": {}, "values": [["now", "1"]]}],
        [{"metric": {}, "values": [[1, "many"]]}],
        [{"metric": {}, "histograms": [[1, {}]]}],
    ],
)
def test_samples_in_another_shape_are_refused(stub: Stub, result: Any) -> None:
    stub.answers("matrix", result)
    if result == {}:
        assert PrometheusServer(stub.url).series("x", 0, 9) == []
        return
    with pytest.raises(MeterUnavailableError, match="no plain samples"):
        PrometheusServer(stub.url).series("x", 0, 9)


def test_an_answer_that_is_not_whole_is_refused(stub: Stub) -> None:
    stub.answers("matrix", [], warnings=["store-1 is down"])
    with pytest.raises(MeterUnavailableError, match="store-1 is down"):
        PrometheusServer(stub.url).series("x", 0, 9)
    stub.answers("matrix", [], warnings=["PromQL info: might not be a counter"])
    assert PrometheusServer(stub.url).series("x", 0, 9) == []


def test_a_bad_query_is_the_users_error(stub: Stub) -> None:
    stub.status = 400
    stub.body = b'{"status":"error","errorType":"bad_data","error":"parse error"}'
    with pytest.raises(ConfigError, match="parse error"):
        PrometheusServer(stub.url).vector("sum(")


def test_credentials_are_sent_and_never_shown(stub: Stub) -> None:
    stub.status = 401
    address = stub.url.replace("http://", "http://me:p%40ss@")
    with pytest.raises(MeterUnavailableError) as error:
        PrometheusServer(address).now_s()
    sent = stub.asked[0][1]["Authorization"]
    assert sent == "Basic " + base64.b64encode(b"me:p@ss").decode()
    assert "p@ss" not in str(error.value)
    assert "p%40ss" not in str(error.value)


def test_headers_are_sent(stub: Stub) -> None:
    stub.answers("scalar", [1.0, "5.25"])
    assert PrometheusServer(stub.url, headers={"Authorization": "Bearer t"}).now_s() == 5.25
    assert stub.asked[0][1]["Authorization"] == "Bearer t"


def test_a_redirect_is_named_and_not_followed(stub: Stub) -> None:
    stub.status, stub.location = 302, "https://login.example/"
    with pytest.raises(MeterUnavailableError, match=r"redirects to https://login\.example/"):
        PrometheusServer(stub.url, headers={"Authorization": "Bearer t"}).now_s()
    assert len(stub.asked) == 1


def test_a_silent_server_is_given_up(stub: Stub) -> None:
    stub.delay_s = 1.0
    with pytest.raises(MeterUnavailableError, match=r"does not answer within 0\.1 s"):
        PrometheusServer(stub.url, timeout_s=0.1).now_s()


def test_nobody_there_is_absent(stub: Stub) -> None:
    server = PrometheusServer("http://127.0.0.1:1", timeout_s=5)
    status = PrometheusMeter(server, CounterQuery("x", quality="measured")).probe()
    assert status.state == "absent"
    assert "127.0.0.1:1" in status.reason
    assert status.fix is not None


@pytest.mark.parametrize(
    "url",
    [
        "",
        "localhost:9090",
        "ftp://host",
        "file:///etc/passwd",
        "http://",
        "http://host:port",
        "http://[::1",
        "http://host/?query=1",
    ],
)
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="address"):
        PrometheusServer(url)


@pytest.mark.parametrize("timeout_s", [0.0, -1.0, float("nan"), float("inf")])
def test_an_impossible_timeout_is_refused(timeout_s: float) -> None:
    with pytest.raises(ConfigError, match="timeout"):
        PrometheusServer("http://host", timeout_s=timeout_s)


def test_addresses_keep_their_prefix_and_brackets() -> None:
    assert PrometheusServer("https://host/prometheus/").url == "https://host/prometheus"
    assert PrometheusServer("http://[::1]:9090").url == "http://[::1]:9090"


def test_a_server_without_kepler_is_absent_under_its_name(stub: Stub) -> None:
    stub.knows_nothing()
    status = kepler_meter(PrometheusServer(stub.url), KeplerTarget(pod="yolo-1")).probe()
    assert (status.name, status.state) == ("kepler", "absent")
    assert "no Kepler metrics" in status.reason


@pytest.mark.parametrize("target", [{"pod": ""}, {"node": ""}, {"container": ""}])
def test_an_empty_name_is_refused(stub: Stub, target: dict[str, str]) -> None:
    stub.knows_nothing()
    meter = kepler_meter(PrometheusServer(stub.url), KeplerTarget(**target), generation="0.10")
    with pytest.raises(ConfigError, match="empty name"):
        _ = meter.query


def test_importing_the_meters_is_light() -> None:
    code = (
        "import sys\n"
        "import ipa_energy.meters.prometheus.exporters, ipa_energy.meters.prometheus.exporters\n"
        "import ipa_energy.meters.composite\n"
        "import ipa_energy.meters.imports.energy_log, ipa_energy.meters.nvml\n"
        "heavy = {'requests', 'urllib.request', 'ssl', 'numpy', 'pandas', 'torch', 'pynvml'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
