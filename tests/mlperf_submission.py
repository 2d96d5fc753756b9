"""A submission to MLPerf Inference of our own making, as its folders and logs are laid out."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from pathlib import Path

BEGIN = datetime(2021, 3, 6, 23, 53, 12)  # noqa: DTZ001 - whose zone is part of what is tested
LENGTH_S = 600
_TIME = "%m-%d-%Y %H:%M:%S.%f"

SUMMARY = """\
================================================
MLPerf Results Summary
================================================
SUT name : SUT
Scenario : {scenario}
Mode     : PerformanceOnly
Result is : {result}

QPS w/o loadgen overhead        : {qps:.2f}
Mean latency (ns)               : {mean_ns}
99.00 percentile latency (ns)   : {p99_ns}
"""


def stamp(time: datetime) -> str:
    return time.strftime(_TIME)[:-3]


def write_run(
    folder: Path,
    *,
    watts: float = 10.0,
    idle_w: float = 2.0,
    qps: float = 4.0,
    scenario: str = "SingleStream",
    result: str = "VALID",
    hours: float = 0.0,
    every_s: int = 1,
    rest_s: int = 12,
) -> Path:
    """A run of ten minutes at ``watts``; the analyser's clock is ``hours`` ahead of the run's."""
    folder.mkdir(parents=True)
    end = BEGIN + timedelta(seconds=LENGTH_S)
    (folder / "mlperf_log_summary.txt").write_text(
        SUMMARY.format(
            scenario=scenario,
            result=result,
            qps=qps,
            mean_ns=int(1e9 / qps),
            p99_ns=int(2e9 / qps),
        )
    )
    values = {
        "test_datetime": "2021-03-06T23:53:11Z",
        "power_begin": stamp(BEGIN),
        "power_end": stamp(end),
        "result_qps_without_loadgen_overhead": qps,
    }
    lines = [f":::MLLOG {json.dumps({'key': k, 'value': v})}" for k, v in values.items()]
    (folder / "mlperf_log_detail.txt").write_text("\n".join(lines) + "\n")
    samples = []
    for second in range(-20, LENGTH_S + rest_s, every_s):
        # The analyser samples between the seconds of the run; it falls to rest within 3 s.
        time = BEGIN + timedelta(seconds=second + 0.5)
        busy = BEGIN < time < end + timedelta(seconds=3)
        mark = "2021-03-06_23-52-21_testing"
        samples.append(
            f"Time,{stamp(time + timedelta(hours=hours))},Watts,{watts if busy else idle_w:.6f},"
            f"Volts,250.05,Amps,0.03,PF,0.43,Mark,{mark}"
        )
    (folder / "spl.txt").write_text("\n".join(samples) + "\n")
    return folder


def write_model(
    results: Path,
    *,
    system: str = "board",
    model: str = "net",
    scenario: str = "singlestream",
    watts: tuple[float, float] = (10.0, 12.0),
    accuracy: str | None = "accuracy=71.254%, good=35627, total=50000\nhash=20\n",
    cores: int | None = 4,
    zones_s: tuple[int, int] | None = (0, 0),
    **run: float | str,
) -> Path:
    """A ranging and a testing run of one model; returns the folder of the scenario."""
    folder = results / system / model / scenario
    for name, power in zip(("ranging", "run_1"), watts, strict=True):
        write_run(folder / "performance" / name, watts=power, **run)  # type: ignore[arg-type]
    if zones_s is not None:
        (folder / "performance" / "power").mkdir()
        for name, zone_s in zip(("client", "server"), zones_s, strict=True):
            path = folder / "performance" / "power" / f"{name}.json"
            path.write_text(json.dumps({"version": "1.0", "timezone": zone_s}))
    if accuracy is not None:
        (folder / "accuracy").mkdir()
        (folder / "accuracy" / "accuracy.txt").write_text(accuracy)
    if cores is not None:
        systems = results.parent / "systems"
        systems.mkdir(exist_ok=True)
        about = {
            "number_of_nodes": "1",
            "host_processors_per_node": "1",
            "host_processor_core_count": str(cores),
        }
        (systems / f"{system}.json").write_text(json.dumps(about))
    return folder
