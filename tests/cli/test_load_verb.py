"""``ipa-energy load``: a load on somebody else's server."""

from __future__ import annotations

import json
import math
import socket
from pathlib import Path

import pytest
from stub_server import stub_server

pytest.importorskip("grpc")

from ipa_energy.cli import build_parser, main
from ipa_energy.serving.load import MODES
from ipa_energy.serving.local.generator import Sent
from ipa_energy.serving.local.sender import summed

pytestmark = [pytest.mark.slow, pytest.mark.measures]


def load(address: str, *words: str, model: str = "m") -> int:
    return main(["load", "--target", address, "--model", model, *words])


def test_a_load_is_answered_and_its_latencies_reported(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    for name in ("a.jpg", "b.png", "notes.txt"):
        (tmp_path / name).write_bytes(b"x" * 1000)
    words = ["--rps", "20", "--seconds", "3", "--mode", "equal", "--latency-sla", "5"]
    with stub_server(0.05) as (_, address):
        assert load(address, *words, "--images", str(tmp_path), "--json") == 0
        found = json.loads(capsys.readouterr().out)
        short = ["--rps", "20", "--seconds", "1", "--latency-sla", "5"]
        assert load(address, *short) == 0
        text = capsys.readouterr().out
    assert (found["requests"], found["answered"], found["failed"]) == (60, 60, 0)
    assert found["first_failure"] is None
    assert 0.05 <= found["latency_p50_s"] <= found["latency_p95_s"] <= found["latency_p99_s"]
    assert found["latency_p99_s"] <= found["latency_max_s"]
    assert found["sla_attainment"] == 1.0
    assert 0 <= found["late_p50_s"] <= found["late_p99_s"]
    assert 0 < found["generator_cores"] < 1
    assert "20 requests in 1 s, 20 answered, 0 failed" in text
    assert "100.00% inside the SLA of 5 s" in text
    assert "load generator: late by" in text


def test_what_is_late_or_not_answered_is_out_of_the_sla() -> None:
    """By hand: latencies count from the intended times, percentiles those of answers."""
    sent = [
        Sent(1, 1.0, 1.5, 3.0, "UNAVAILABLE: later"),
        Sent(0, 0.0, 0.0, 0.5, "UNAVAILABLE: first"),
        Sent(2, 2.0, 2.125, 2.25),
        Sent(3, 3.0, 3.0, 4.5),
    ]
    found = summed(sent, ("h:1", "m"), 4.0, 0.5, latency_sla_s=0.25)
    assert (found.requests, found.answered, found.failed) == (4, 2, 2)
    assert found.first_failure == "UNAVAILABLE: first"
    assert (found.latency_p50_s, found.latency_mean_s, found.latency_max_s) == (0.875, 0.875, 1.5)
    assert found.sla_attainment == 0.25
    assert (found.late_p50_s, found.generator_cores) == (0.0625, 0.125)
    nothing = summed(sent[:2], ("h:1", "m"), 4.0, 0.5, latency_sla_s=None)
    assert math.isnan(nothing.latency_p50_s) and math.isnan(nothing.sla_attainment)


def test_a_trace_file_is_sent_as_far_as_the_seconds_go(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = tmp_path / "trace.csv"
    path.write_text("second,requests\n0,3\n1,0\n2,4\n3,50\n")
    with stub_server(0.0) as (_, address):
        assert load(address, "--workload", str(path), "--seconds", "3", "--json") == 0
    assert json.loads(capsys.readouterr().out)["requests"] == 7


def test_nobody_listening_is_said_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"  # ours, and nobody listens at it
        assert load(address, "--rps", "1") == 4
    assert f"{address} cannot be reached: " in capsys.readouterr().err


def test_another_model_is_refused(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with stub_server(0.0) as (_, address):
        assert load(address, "--rps", "1", model="other") == 4
    error = capsys.readouterr().err
    assert "does not say over gRPC that its model other is ready; fix: name the model" in error


@pytest.mark.parametrize(("words", "says"), [
    (["--target", "here"], "'here' is no address; allowed: HOST:PORT"),
    (["--target", "h:99999"], "is no address"),
    (["--target", "h:1", "--workload", "bursty"], "one of --workload and --rps"),
    (["--target", "h:1", "--bytes", "-1"], "--bytes -1"),
    (["--target", "h:1", "--images", "/nowhere"], "/nowhere"),
])  # fmt: skip
def test_what_cannot_be_sent_is_refused(
    words: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["load", "--model", "m", "--rps", "1", *words]) == 2
    assert says in capsys.readouterr().err


def test_every_mode_can_be_asked_for() -> None:
    for mode in MODES:
        words = ["load", "--target", "h:1", "--model", "m", "--rps", "1", "--mode", mode]
        assert build_parser().parse_args(words).mode == mode
