"""What the exporter counts, and how it answers."""

from __future__ import annotations

import asyncio
import math
import urllib.request
from collections.abc import Awaitable, Callable
from functools import wraps
from typing import Any

import pytest

pytest.importorskip("grpc")
pytest.importorskip("prometheus_client")

from monitored import SLA_S, figures, filled_exporter

from ipa_energy.errors import ServingError
from ipa_energy.serving.local.exporter import LATENCY_BUCKETS_S, Exporter, latency_buckets_s


def asynchronous(test: Callable[[], Awaitable[None]]) -> Callable[[], None]:
    @wraps(test)
    def run() -> None:
        async def bounded() -> None:
            async with asyncio.timeout(30):
                await test()

        asyncio.run(bounded())

    return run


def value(exporter: Exporter, name: str, **labels: str) -> float | None:
    found: float | None = exporter.registry.get_sample_value(name, {"pipeline": "video", **labels})
    return found


def test_requests_are_counted_by_what_became_of_them() -> None:
    exporter = filled_exporter()
    outcomes = ("in_sla", "late", "dropped", "failed")
    counts = [value(exporter, "ipa_energy_requests_total", outcome=o) for o in outcomes]
    assert counts == [2, 1, 1, 1]
    assert value(exporter, "ipa_energy_stage_requests_total", stage="crop") == 5
    assert value(exporter, "ipa_energy_stage_requests_total", stage="classification") == 3


def test_the_histogram_has_a_bound_at_the_sla() -> None:
    exporter = filled_exporter()
    name = "ipa_energy_request_duration_seconds_bucket"
    assert value(exporter, name, le=str(SLA_S)) == 2
    assert value(exporter, name, le="+Inf") == 3
    assert latency_buckets_s(None) == LATENCY_BUCKETS_S
    bounds = latency_buckets_s(0.03)
    assert 0.03 in bounds
    assert list(bounds) == sorted(set(bounds))


def test_joules_power_and_the_meter() -> None:
    exporter = filled_exporter()
    labels = {"stage": "crop", "variant": "yolov5n", "meter": "rapl", "quality": "measured"}
    assert value(exporter, "ipa_energy_stage_joules_total", kind="dynamic", **labels) == 20.0
    power = [
        value(exporter, "ipa_energy_stage_power_watts", stage="crop", kind=kind)
        for kind in ("idle", "dynamic")
    ]
    assert power == [4.0, 8.0]
    assert value(exporter, "ipa_energy_overhead_joules_total", part="router") == 2.0
    assert value(exporter, "ipa_energy_meter_up", meter="rapl") == 1.0
    assert value(filled_exporter(meter="cpu-time"), "ipa_energy_meter_up", meter="rapl") is None


def test_what_nobody_told_is_absent_and_never_0() -> None:
    exporter = filled_exporter()
    assert value(exporter, "ipa_energy_predicted_load_rps") == 11.0
    exporter.told(figures(status=None, predicted_load_rps=math.nan, scales=(), joules=()))
    text = exporter.text().decode()
    for name in ("predicted_load_rps", "profile_scale_ratio", "stage_interval_joules"):
        assert f"ipa_energy_{name}" not in text
    assert value(exporter, "ipa_energy_decisions_total", status="optimal") == 1
    assert value(exporter, "ipa_energy_decision_duration_seconds_count") == 1
    bare = filled_exporter(latency_sla_s=None, energy_sla_j=None)
    assert value(bare, "ipa_energy_latency_sla_seconds") is None
    assert value(bare, "ipa_energy_requests_total", outcome="in_sla") == 3


def test_series_of_when_something_was_created_are_off() -> None:
    assert "_created" not in filled_exporter().text().decode()


async def asked(port: int, text: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(text)
    if not text.endswith(b"\r\n\r\n"):
        writer.write_eof()
    found = await reader.read()
    writer.close()
    return found


@asynchronous
async def test_it_answers_at_metrics_and_nowhere_else_whatever_is_asked() -> None:
    exporter = filled_exporter()
    port = await exporter.listen(0)
    try:
        found = await asked(port, b"GET /metrics HTTP/1.1\r\nHost: here\r\n\r\n")
        assert found.startswith(b"HTTP/1.1 200 OK")
        assert b"ipa_energy_build_info" in found
        head = await asked(port, b"HEAD /metrics HTTP/1.1\r\n\r\n")
        assert head.endswith(b"\r\n\r\n")
        for text in (b"GET /etc/passwd HTTP/1.1\r\n\r\n", b"POST /metrics x\r\n\r\n", b"\r\n\r\n"):
            assert (await asked(port, text)).startswith(b"HTTP/1.1 404")
        for text in (b"", b"GET /met", b"x" * 100_000):
            assert await asked(port, text) == b""
        body = await asyncio.to_thread(_fetched, f"http://127.0.0.1:{port}/metrics")
        assert body.startswith("# HELP")
        assert exporter.cpu_s > 0
        other = filled_exporter()
        with pytest.raises(ServingError, match=f"cannot listen at port {port}: .*in use"):
            await other.listen(port)
    finally:
        exporter.close()


def _fetched(url: str) -> str:
    answer: Any
    with urllib.request.urlopen(url, timeout=10) as answer:
        return str(answer.read().decode())
