"""What fits a machine, and what is said of what does not."""

from __future__ import annotations

import math
import os
from pathlib import Path

import pytest
from small_pipeline import write_small_pipeline

from ipa_energy import experiment as experiments
from ipa_energy.cli import main
from ipa_energy.errors import ConfigError
from ipa_energy.experiment import load_experiment
from ipa_energy.serving.deployment import DeployedStage
from ipa_energy.serving.local import cpu_groups as fit
from ipa_energy.testing import fake_stages

STAGES = fake_stages()
START = tuple(DeployedStage(stage.name, stage.options[0], 3) for stage in STAGES)
NEEDED = sum(3 * stage.options[0].cpu_cores for stage in STAGES)


def test_cores_are_those_allowed_or_the_quota_of_a_cgroup_above(tmp_path: Path) -> None:
    allowed = len(os.sched_getaffinity(0))
    assert fit.machine_cores(tmp_path) == allowed
    (tmp_path / "cpu.max").write_text("max 100000\n")
    assert fit.machine_cores(tmp_path) == allowed
    (tmp_path / "cpu.max").write_text("50000 100000\n")
    assert fit.machine_cores(tmp_path) == 0.5


def test_memory_is_what_is_free_or_left_of_the_cgroup(tmp_path: Path) -> None:
    meminfo = tmp_path / "meminfo"
    assert fit.free_bytes(tmp_path, meminfo) == math.inf
    meminfo.write_text("MemTotal: 100 kB\nMemAvailable: 50 kB\n")
    assert fit.free_bytes(tmp_path, meminfo) == 50 * 1024
    (tmp_path / "memory.max").write_text("2000\n")
    (tmp_path / "memory.current").write_text("500\n")
    assert fit.free_bytes(tmp_path, meminfo) == 1500
    (tmp_path / "memory.max").write_text("max\n")
    assert fit.free_bytes(tmp_path, meminfo) == 50 * 1024


def test_what_fits_exactly_is_fine_and_a_core_more_is_not() -> None:
    fit.check_fits(START, cores=NEEDED, memory_bytes=math.inf, what="x")
    with pytest.raises(ConfigError, match=rf"holds {NEEDED:g} cores, and this machine has 1"):
        fit.check_fits(START, cores=1, memory_bytes=math.inf, what="x", instead="a small one")


def test_memory_is_held_against_what_every_replica_takes() -> None:
    replicas = sum(stage.replicas for stage in START)
    enough = replicas * fit.LEAST_REPLICA_BYTES
    fit.check_fits(START, cores=NEEDED, memory_bytes=enough, what="x")
    with pytest.raises(ConfigError, match=rf"{replicas} replicas need .* MiB and more"):
        fit.check_fits(START, cores=NEEDED, memory_bytes=enough - 1, what="x")


def refused(tmp_path: Path, *more: str) -> Path:
    """A live run that is refused; its folder."""
    pytest.importorskip("grpc")
    out = tmp_path / "run"
    words = ["run", str(tmp_path / "small.yaml"), "--backend", "local-stub", "--out", str(out)]
    assert main([*words, "--workload", "steady-low", "--quiet", *more]) == 2
    return out


def test_a_start_that_does_not_fit_is_refused_before_anything_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("ipa_energy.experiment.machine_cores", lambda: 4.0)
    pipeline = write_small_pipeline(tmp_path)
    pipeline.write_text(pipeline.read_text() + "initial_replica: [20, 1]\n")
    assert not refused(tmp_path).exists()
    said = capsys.readouterr().err
    assert "find-s 1c b1 x20 | name-s 1c b1 x1 holds 21 cores, and this machine has 4" in said
    assert "which fits; or --overcommit" in said


def test_the_cores_of_the_machine_are_a_capacity_of_live_plans(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(experiments, "machine_cores", lambda: 4.0)
    write_small_pipeline(tmp_path)
    live = load_experiment(tmp_path / "small.yaml", {"capacity": {"core": 9, "gpu": 1}})
    fitted = experiments._fitted(live, None)
    assert fitted.planner.config.capacity == {"core": 4, "gpu": 1}
    assert fitted.planner.program.settings.capacity == {"core": 4, "gpu": 1}
    small = load_experiment(tmp_path / "small.yaml", {"capacity": {"core": 3}})
    assert experiments._fitted(small, None).planner.config.capacity == {"core": 3}
