"""One classifier measured on two boards: the profile's rows are two options of one stage."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ipa_energy.cli import main

PROFILE = """\
stage,variant,hardware,cpu_cores,gpu_share,batch,replicas,load_rps,latency_avg_s,latency_p99_s,\
throughput_rps,accuracy,dynamic_energy_j,idle_power_w,joules_per_request,energy_ci95_j,trials,\
meter,quality,resource,resource_units,precision,source
classify,resnet18,nano,1,0,1,1,20,0.05,0.05,20,0.69,0.5,1,0.55,0.01,3,usb,imported,board,1,fp16,a
classify,resnet18,xavier,1,0,1,1,100,0.01,0.01,100,0.69,0.1,4,0.14,0.01,3,usb,imported,board,1,fp16,b
"""
PIPELINE = """\
pipeline_name: classifier
nodes: [{node_name: resnet}]
task_name: [classify]
profile: boards.csv
alpha: 1
beta: 0
energy_weight: 1
latency_sla_s: 0.2
"""


@pytest.fixture
def pipeline(tmp_path: Path) -> Path:
    (tmp_path / "boards.csv").write_text(PROFILE, encoding="utf-8")
    path = tmp_path / "classifier.yaml"
    path.write_text(PIPELINE, encoding="utf-8")
    return path


def best(pipeline: Path, load_rps: int, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    assert main(["optimize", str(pipeline), "--load", str(load_rps), "--json"]) == 0
    stage: dict[str, Any] = json.loads(capsys.readouterr().out)["plans"][0]["stages"][0]
    return stage


@pytest.mark.parametrize(
    ("load_rps", "hardware", "joules"),
    [
        (5, "nano", 0.5 + 1 / 5),  # xavier: 0.1 + 4 / 5 = 0.9
        (80, "xavier", 0.1 + 4 / 80),  # nano, of which 4 are needed: 0.5 + 4 · 1 / 80 = 0.55
    ],
)
def test_each_board_is_an_option_of_its_own(
    load_rps: int,
    hardware: str,
    joules: float,
    pipeline: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    stage = best(pipeline, load_rps, capsys)
    assert stage["hardware"] == hardware
    assert stage["joules_per_request"] == pytest.approx(joules)


def test_the_plan_names_board_and_precision(
    pipeline: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["optimize", str(pipeline), "--load", "80"]) == 0
    assert "resnet18 1c+1×board on xavier fp16 b1 x1" in capsys.readouterr().out
