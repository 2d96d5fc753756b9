"""Checkouts of IPA to try the patches on: copies of the one in ``IPA_HOME``, which stays as it is.

A copy has what the simulation runs on, a repository of its own so that ``git status`` can speak,
and a profiling folder made from a profile of ours.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ipa_energy.plugin.checkout import open_checkout
from ipa_energy.plugin.patch_set import bundled_patches, load_patch_set
from ipa_energy.plugin.patching import apply
from ipa_energy.profile_table.ipa_export import SeriesTarget, export_profile
from ipa_energy.profile_table.profile_csv import read_profile

PROFILE = Path(__file__).parents[3] / "configs" / "profiles" / "video-epyc-9004-2vcpu.csv"
"""The one place that names the profile: its joules are estimates, its times measured."""

COPIED = ("optimizer", "experiments", "data/configs", "load_tester")
SERIES = {"crop": ("yolo", 71), "classification": ("resnet-human", 72)}
DRIVER = Path(__file__).parent / "ipa_driver.py"

BURSTY = {"start": "1301160", "end": "1302360", "damping_factor": 8}

CONFIG: dict[str, Any] = {
    "pipeline_name": "video",
    "metaseries": 90,
    "series": 1,
    "nodes": [
        {
            "node_name": node,
            "model_variants": variant,
            "max_batch_size": "1",
            "cpu_request": "1",
            "memory_request": "1Gi",
            "replicas": 1,
        }
        for node, variant in (("yolo", "yolov5n"), ("resnet-human", "resnet18"))
    ],
    "number_tasks": 2,
    "profiling_series": [71, 72],
    "profiling_load": 20,
    "model_name": ["yolo", "resnet-human"],
    "task_name": ["crop", "classification"],
    "initial_active_model": ["yolov5n", "resnet18"],
    "initial_cpu_allocation": [1, 1],
    "initial_replica": [1, 1],
    "initial_batch": [1, 1],
    "only_measured_profiles": True,
    "reference_latency": "p99",
    "reference_throughput": "max",
    "latency_margin": 0,
    "throughput_margin": 0,
    "optimization_method": "gurobi",
    "allocation_mode": "base",
    "baseline_mode": None,
    "accuracy_method": "sum",
    "normalize_accuracy": True,
    "threshold": 0.5,
    "sla_factor": 5,
    "alpha": 10,
    "beta": 0.5,
    "gamma": 1e-6,
    "scaling_cap": 100,
    "batching_cap": 8,
    "num_state_limit": 1,
    "adaptation_interval": 10,
    "monitoring_duration": 2,
    "predictor_type": "max",
    "backup_predictor_type": "max",
    "backup_predictor_duration": 2,
    "predictor_margin": 0,
    "workload_type": "twitter",
    "workload_config": [BURSTY],
    "simulation_mode": True,
    "teleport_mode": False,
    "teleport_interval": 0,
}
"""A pipeline YAML with every key that IPA's simulation runner reads."""


class IpaFailedError(Exception):
    """A task inside IPA did not end well; ``status`` and ``output`` are the process's."""

    def __init__(self, status: int, output: str) -> None:
        super().__init__(f"exit status {status}\n{output[-4000:]}")
        self.status, self.output = status, output


@dataclass(frozen=True, slots=True)
class Ipa:
    """A copy of a checkout.

    Attributes:
        home: its root.
        output: what the last task wrote on stdout and stderr.
    """

    home: Path
    output: list[str]

    def run(self, task: str, **arguments: Any) -> Any:
        """A task of the driver, in a process of its own; its answer.

        Raises:
            IpaFailedError: it did not end well.
        """
        files = [self.home.parent / f"{self.home.name}-{name}.json" for name in ("ask", "answer")]
        files[0].write_text(json.dumps(arguments))
        done = subprocess.run(
            [sys.executable, str(DRIVER), str(self.home), task, *map(str, files)],
            cwd=self.home,
            capture_output=True,
            text=True,
            # IPA's order of variants is that of a set of texts.
            env={**os.environ, "PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1"},
            check=False,
        )
        self.output[:] = [done.stdout + done.stderr]
        if done.returncode != 0:
            raise IpaFailedError(done.returncode, self.output[0])
        return json.loads(files[1].read_text())

    def simulate(self, series: int, **keys: Any) -> Path:
        """IPA's simulation runner under ``CONFIG`` with other keys; the folder it wrote."""
        name = f"energy-{series}"
        config = {**CONFIG, **keys, "series": series}
        path = self.home / "data" / "configs" / "final" / f"{name}.yaml"
        path.write_text(yaml.safe_dump(config, sort_keys=False))
        self.run("simulate", name=name)
        folder = self.home / "data/results/final/metaseries/90/series" / str(series)
        assert (folder / "adaptation_log.json").exists()
        return folder


def git(home: Path, *arguments: str) -> str:
    """What git says in a copy."""
    identity = ["-c", "user.name=test", "-c", "user.email=test@localhost"]
    done = subprocess.run(
        ["git", *identity, *arguments], cwd=home, capture_output=True, text=True, check=True
    )
    return done.stdout


def steps_of(folder: Path) -> dict[str, dict[str, Any]]:
    """The timesteps of an adaptation log."""
    log = json.loads((folder / "adaptation_log.json").read_text())
    steps: dict[str, dict[str, Any]] = log["timesteps"]
    return steps


def copy_checkout(ipa_home: Path, home: Path) -> Path:
    """Make a copy at ``home``."""
    for part in COPIED:
        ignored = shutil.ignore_patterns("__pycache__", "*.ipynb")
        shutil.copytree(ipa_home / part, home / part, ignore=ignored)
    targets = [
        SeriesTarget(stage=stage, node=node, series=series)
        for stage, (node, series) in SERIES.items()
    ]
    profiling = home / "data/results/profiling/nodes"
    export_profile(read_profile(PROFILE), profiling, targets, pipeline="video", load=20)
    (home / ".gitignore").write_text("data/results/\n*.pyc\n")
    git(home, "init", "--quiet")
    git(home, "add", "--all", "--force", "--", ".", ":!data/results")
    git(home, "commit", "--quiet", "--message", "as it is")
    return home


def patch_checkout(home: Path) -> None:
    """Apply the patches to a copy."""
    patches = load_patch_set(bundled_patches())
    apply(open_checkout(home, patches), patches)


def whole(**keys: Any) -> dict[str, Any]:
    """``CONFIG`` with other keys."""
    return {**CONFIG, **keys}
