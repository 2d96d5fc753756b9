"""Options whose figures depend on the class of a request, and their means."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from option_maker import make_option

from ipa_energy.cli import main
from ipa_energy.config import load_config
from ipa_energy.errors import ConfigError
from ipa_energy.planning.stages import mixture
from ipa_energy.records import RequestClass

EASY = make_option(latency_s=0.1, throughput_rps=10.0, accuracy=0.9, dynamic_energy_j=1.0)
HARD = dataclasses.replace(EASY, latency_s=0.4, throughput_rps=2.5, accuracy=0.5,
                           dynamic_energy_j=5.0)  # fmt: skip


def test_a_mixture_keeps_a_replica_busy_for_the_mean_time() -> None:
    both = mixture({"easy": EASY, "hard": HARD}, [RequestClass("easy", 0.75),
                                                  RequestClass("hard", 0.25)])  # fmt: skip
    assert both.throughput_rps == pytest.approx(1 / (0.75 / 10 + 0.25 / 2.5))
    assert both.dynamic_energy_j == pytest.approx(2.0)
    assert both.accuracy == pytest.approx(0.8)
    assert both.latency_s == pytest.approx(0.4)
    assert both.of_class("hard") is HARD


def written(tmp_path: Path, more: str) -> Path:
    profile = tmp_path / "profile.csv"
    header = (
        "stage,variant,hardware,cpu_cores,gpu_share,batch,replicas,load_rps,latency_avg_s,"
        "latency_p99_s,throughput_rps,accuracy,dynamic_energy_j,idle_power_w,joules_per_request,"
        "energy_ci95_j,trials,meter,quality,request_class\n"
    )
    rows = [
        f"s,{variant},cpu,1,0,1,1,{h},{1 / h},{1 / h},{h},{a},{e},0,{e},,1,fake,imported,{name}\n"
        for variant, name, h, a, e in (
            ("small", "easy", 10, 0.9, 1),
            ("small", "hard", 10, 0.4, 1),
            ("large", "", 2.5, 0.9, 5),
        )
    ]
    profile.write_text(header + "".join(rows))
    path = tmp_path / "pipeline.yaml"
    path.write_text(
        "pipeline_name: p\nnodes: [{node_name: s}]\nalpha: 0\nbeta: 0\nenergy_weight: 1\n"
        "accuracy_method: average\nprofile: profile.csv\nallocation_mode: variable\n"
        f"latency_sla_s: 5\n{more}"
    )
    return path


def test_rows_by_class_become_one_option_and_a_mix_sends_each_class_where_it_is_cheap(
    tmp_path: Path,
) -> None:
    from ipa_energy.optimizer.solve import decide
    from ipa_energy.planning.planner import load_planner

    path = written(
        tmp_path,
        "request_classes: {easy: 0.8, hard: {share: 0.2, latency_sla_s: 1}}\n"
        "accuracy_floor: 0.9\nmix: true\n",
    )
    planner = load_planner(path)
    small, large = planner.stages[0].options
    assert [name for name, _ in small.by_class] == ["easy", "hard"]
    assert large.of_class("hard").dynamic_energy_j == 5  # type: ignore[union-attr]
    plan = decide(planner.program, 4.0, method="highs").best
    assert {part.option.variant: dict(part.shares) for part in plan.stages[0].parts} == {
        "small": pytest.approx({"easy": 0.8}),
        "large": pytest.approx({"hard": 0.2}),
    }
    assert plan.joules_per_request == pytest.approx(0.8 + 0.2 * 5)
    alone = load_planner(path, {"mix": False})
    assert decide(alone.program, 4.0).best.label == "large 1c b1 x2"
    names = {check.constraint for check in plan.certificate.checks}
    assert {"latency_sla_s:easy", "latency_sla_s:hard"} <= names


def test_the_table_of_a_plan_tells_the_latency_of_each_class_and_what_serves_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = written(
        tmp_path,
        "request_classes: {easy: 0.8, hard: {share: 0.2, latency_sla_s: 1}}\n"
        "accuracy_floor: 0.9\nmix: true\n",
    )
    assert main(["optimize", str(path), "--load", "4", "--method", "highs"]) == 0
    told = capsys.readouterr().out
    assert "class easy: latency 0.100 s of 5.000 s, by small" in told
    assert "class hard: latency 0.400 s of 1.000 s, by large" in told


def test_an_option_that_serves_no_class_alone_needs_a_mix(tmp_path: Path) -> None:
    from ipa_energy.optimizer.solve import decide
    from ipa_energy.planning.planner import load_planner

    path = written(tmp_path, "request_classes: {easy: 0.5, other: 0.5}\n")
    profile = path.with_name("profile.csv")
    profile.write_text("".join(profile.read_text().splitlines(keepends=True)[:2]))
    conflict = decide(load_planner(path).program, 1.0).conflict
    assert conflict is not None
    assert conflict.constraints == ("request_classes:s",)
    assert [way.text for way in conflict.relaxations] == [
        "an option that is profiled for other, or a share of 0 for class other instead of 0.5"
    ]


def test_classes_that_no_option_serves_alone_are_told_of_mixes(tmp_path: Path) -> None:
    from ipa_energy.optimizer.solve import decide
    from ipa_energy.planning.planner import load_planner

    path = written(tmp_path, "request_classes: {easy: 0.5, hard: 0.5}\n")
    header, easy, hard, _ = path.with_name("profile.csv").read_text().splitlines()
    hard = hard.replace("s,small,", "s,other,")
    path.with_name("profile.csv").write_text(f"{header}\n{easy}\n{hard}\n")
    conflict = decide(load_planner(path).program, 1.0).conflict
    assert conflict is not None
    ways = {way.constraint: way.text for way in conflict.relaxations}
    assert set(ways) == {"request_classes:easy", "request_classes:hard", "mix"}
    assert ways["mix"].startswith("mix: true, with method highs")
    mixed = load_planner(path, {"mix": True})
    assert decide(mixed.program, 1.0, method="highs").status == "optimal"


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ("request_classes: {easy: 0.8, hard: 0.1}\n", "add up to 0.9"),
        ("mix: true\naccuracy_method: multiply\n", "multiply with mix: true"),
    ],
)
def test_contradictions_are_refused(tmp_path: Path, more: str, message: str) -> None:
    path = written(tmp_path, "")
    path.write_text(path.read_text().replace("accuracy_method: average\n", "") + more)
    with pytest.raises(ConfigError, match=message):
        load_config(path)
