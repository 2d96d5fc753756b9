"""GPUs in a profile, through YAML and command line: priced, counted, warned of."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_pipeline import VARIANTS

from ipa_energy.cli import main
from ipa_energy.config import load_config
from ipa_energy.optimizer.quantities import Moment
from ipa_energy.optimizer.solve import decide
from ipa_energy.planning.planner import load_planner
from ipa_energy.planning.policies import initial_deployment
from ipa_energy.records import Option, Stage
from ipa_energy.registries import QUANTITIES, Quantity

METHODS = ("pareto", "gurobi", "highs")


@pytest.fixture
def gpu_pipeline(small_pipeline: Path) -> Path:
    """Every variant also on one core and a quarter of a GPU, eight times as fast."""
    profile = small_pipeline.parent / "profile.csv"
    rows = [
        f"{stage},{variant},a100,1,0.25,{batch},1,{8 * batch / seconds:.6g},{seconds / 8:.6g},"
        f"{seconds / 8:.6g},{8 * batch / seconds:.6g},{accuracy},0.5,10,"
        f"{0.5 + 10 * seconds / (8 * batch):.6g},0.01,3,nvml,measured"
        for stage, variants in VARIANTS.items()
        for variant, (seconds, accuracy) in variants.items()
        for batch in (1, 2)
    ]
    profile.write_text(profile.read_text() + "\n".join(rows) + "\n")
    return small_pipeline


def optimized(
    capsys: pytest.CaptureFixture[str], path: Path, *argv: str, load: str = "60", status: int = 0
) -> Any:
    assert main(["optimize", str(path), "--load", load, "--json", *argv]) == status
    return json.loads(capsys.readouterr().out)


def gpus(plan: Any) -> float:
    return sum(stage["gpu_share"] * stage["replicas"] for stage in plan["stages"])


def test_gpus_without_a_price_are_warned_of_with_a_price_to_give(
    gpu_pipeline: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def warned(**changes: Any) -> list[str]:
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            load_planner(gpu_pipeline, changes)
        return [record.getMessage() for record in caplog.records]

    assert warned() == [
        "gpu costs nothing in the objective: give it a price, as in prices: {gpu: 0.5}"
    ]
    assert warned(prices={"gpu": 4.0}) == []
    assert warned(prices={"gpu": 0.0}) == []
    assert warned(prices={"board": 1.0}) != []
    assert warned(allocation_mode="fix") == []  # the initial allocation has no GPU


@pytest.mark.parametrize("method", METHODS)
def test_a_capacity_of_gpus_is_kept(
    gpu_pipeline: Path, capsys: pytest.CaptureFixture[str], method: str
) -> None:
    """What fits with fewer GPUs is worth less; with none it is the plan of the cores alone."""
    argv = ("--method", method)
    free = optimized(capsys, gpu_pipeline, *argv)["plans"][0]
    assert gpus(free) > 0.25
    with gpu_pipeline.open("a") as file:
        file.write("capacity: {gpu: 0.25}\n")
    (kept,) = optimized(capsys, gpu_pipeline, *argv)["plans"]
    assert gpus(kept) == 0.25
    assert kept["objective"] < free["objective"]
    checks = {check["constraint"]: check for check in kept["certificate"]["checks"]}
    assert checks["capacity:gpu"] == {
        "constraint": "capacity:gpu", "value": 0.25, "limit": 0.25, "holds": True
    }  # fmt: skip
    (best,) = optimized(capsys, gpu_pipeline, "--method", "brute-force")["plans"]
    assert kept["objective"] == pytest.approx(best["objective"], rel=1e-9)
    (none,) = optimized(capsys, gpu_pipeline, *argv, "--set", "capacity={gpu: 0.1}")["plans"]
    assert gpus(none) == 0
    assert none["objective"] < kept["objective"]


def test_a_capacity_that_nothing_fits_is_named(
    gpu_pipeline: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """600 rps are more than the cores of 20 replicas carry, so that GPUs are needed."""
    argv = ("--set", "capacity={gpu: 0.1}", "--set", "prices={gpu: 1}")
    conflict = optimized(capsys, gpu_pipeline, *argv, load="600", status=3)["conflict"]
    assert "capacity:gpu" in conflict["constraints"]
    ways = {way["constraint"]: way["needed"] for way in conflict["relaxations"]}
    argv = ("--set", f"capacity={{gpu: {ways['capacity:gpu']}}}")
    (plan,) = optimized(capsys, gpu_pipeline, *argv, load="600")["plans"]
    assert gpus(plan) == ways["capacity:gpu"]


@pytest.mark.parametrize(("price", "hardware"), [(0.1, "a100"), (9.0, "cpu")])
def test_what_a_gpu_costs_decides_which_allocation_is_the_smallest(
    gpu_pipeline: Path, price: float, hardware: str
) -> None:
    """Of one core with a quarter of a GPU, and two cores; a core costs 0.5."""
    profile = gpu_pipeline.parent / "profile.csv"
    rows = [row for row in profile.read_text().splitlines() if ",cpu,1," not in row]
    profile.write_text("\n".join(rows) + "\n")
    text = gpu_pipeline.read_text().replace("initial_cpu_allocation: [1, 1]\n", "")
    gpu_pipeline.write_text(f"{text}prices: {{gpu: {price}}}\n")
    planner = load_planner(gpu_pipeline)
    first = initial_deployment(load_config(gpu_pipeline), planner.program.stages)
    assert [option.hardware for option, _ in first] == [hardware] * 2


def rent(option: Option, replicas: int, stage: Stage, moment: Moment) -> float:
    """A GPU is dear, big models need a licence, and each request is paid for."""
    licence = 0.3 if option.variant.endswith("l") else 0.0
    hourly = replicas * (0.05 * option.cpu_cores + 2.0 * option.gpu_share)
    return hourly + licence + 0.001 * stage.requests_per_input * moment.mean_rps


@pytest.mark.parametrize("method", METHODS)
def test_every_solver_weighs_and_caps_a_made_up_quantity_of_the_yaml(
    gpu_pipeline: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    quantity = Quantity("rent", rent, "EUR/h", weight_key="rent_weight", cap_key="rent_cap")
    monkeypatch.setitem(QUANTITIES, "rent", quantity)
    rng = np.random.default_rng(7)
    text = gpu_pipeline.read_text()
    infeasible = capped = 0
    for _ in range(40):
        cap = float(rng.uniform(0.1, 2.0))
        lines = (
            f"rent_weight: {rng.choice([0.0, 0.5, 5.0])}",
            f"rent_cap: {cap}",
            f"prices: {{gpu: {rng.uniform(0, 4):.3g}}}",
            f"capacity: {{core: {rng.integers(2, 30)}, gpu: {rng.choice([0.25, 1.0, 4.0])}}}",
        )
        gpu_pipeline.write_text(text + "\n".join(lines) + "\n")
        program = load_planner(gpu_pipeline).program
        load_rps = float(rng.uniform(1, 120))
        found, best = (decide(program, load_rps, name) for name in (method, "brute-force"))
        assert len(found.plans) == len(best.plans)
        if not found.plans:
            infeasible += 1
            continue
        assert found.best.objective == pytest.approx(best.best.objective, rel=1e-9, abs=1e-9)
        assert found.best.amounts["rent"] <= cap * (1 + 1e-12)
        capped += found.best.amounts["rent"] > 0.8 * cap
    assert infeasible > 3
    assert capped > 5
