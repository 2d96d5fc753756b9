"""``run --backend kubernetes`` end to end: a cluster on this machine, real processes, requests."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("kubernetes")
pytest.importorskip("grpc")

from clusters import local_tests
from installed import require_installed
from seeds import LONG_RUN
from test_request_classes import pipeline as classes_pipeline

from ipa_energy.comparing import compare, comparison_table, metrics
from ipa_energy.report import write_html
from ipa_energy.runlog import read_run
from ipa_energy.serving.kubernetes.cluster_api import ClusterApi
from ipa_energy.serving.observed import added

with local_tests():
    from live_runs import totals_of, until, write_pipeline

pytestmark = [pytest.mark.slow, pytest.mark.measures, pytest.mark.timeout(400)]

ROOT = Path(__file__).parents[3]
STUBS = ("--mlserver", str(Path(__file__).with_name("pod_stub.py").relative_to(ROOT)))
"""Light stubs in the place of MLServer, for a cluster that begins in ROOT; its pods do not."""

COUNTS = [4, 4, 12, 12, 12, 12]
"""Requests of each second: at the first interval's end more replicas are needed."""


@contextmanager
def cluster(folder: Path, *words: str) -> Iterator[Path]:
    """A cluster whose pods are processes of this machine; its kubeconfig."""
    path = folder / "kubeconfig"
    module = [sys.executable, "-m", "tests.standin_cluster"]
    command = [*module, "--kubeconfig", str(path), *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("http")
        try:
            yield path
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(timeout=60)


def run(pipeline: Path, kubeconfig: Path, backend: str, *words: str) -> Path:
    """A run to its end; its folder."""
    out = pipeline.parent / "run"
    told = ["run", str(pipeline), "--backend", backend, "--kubeconfig", str(kubeconfig)]
    done = subprocess.run(
        [sys.executable, "-m", "ipa_energy", *told, "--out", str(out), "--quiet", *words],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr
    return out


def pods_of(kubeconfig: Path) -> Sequence[str]:
    """Names of the pods that are left."""
    api = ClusterApi(kubeconfig)
    try:
        return [pod["metadata"]["name"] for pod in api.list(("v1", "Pod"), "default", "")]
    finally:
        api.close()


def assert_all_served(out: Path, backend: str, counts: Sequence[int]) -> None:
    """Every request answered, with a reconfiguration on the way."""
    found = read_run(out)
    assert found.info.backend == backend
    assert found.offered_rps.sum() == sum(counts) == len(found.requests)
    assert np.isfinite(found.requests.done_s).all()
    assert (found.requests.dropped_at == -1).all()
    assert any(step.reconfigured for step in found.steps)
    totals = totals_of(out)
    assert totals["failed"] == 0
    assert totals["requests"] == sum(counts)


def test_a_run_serves_every_request_changes_on_the_way_and_leaves_nothing_behind(
    tmp_path: Path,
) -> None:
    """Adapter, API server, controllers, router and stubs, each a process of its own."""
    pipeline = write_pipeline(tmp_path / "small", COUNTS)
    with cluster(tmp_path, *STUBS) as kubeconfig:
        out = run(pipeline, kubeconfig, "kubernetes-stub")
        until(lambda: not pods_of(kubeconfig))
    assert_all_served(out, "kubernetes-stub", COUNTS)


def test_a_program_that_is_not_there_is_refused_at_the_door(tmp_path: Path) -> None:
    words = ("--kubeconfig", str(tmp_path / "k"), "--mlserver", "no/such.py")
    module = (sys.executable, "-m", "tests.standin_cluster")
    done = subprocess.run((*module, *words), cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "--mlserver: no/such.py: no such file" in done.stderr
    assert not (tmp_path / "k").exists()


@pytest.mark.skipif(not os.environ.get(LONG_RUN), reason=f"takes a minute: needs {LONG_RUN}")
def test_a_run_is_served_by_mlserver_in_pods(tmp_path: Path) -> None:
    """The same with MLServer as it is, and the pipeline's own models in it."""
    require_installed("mlserver")
    with local_tests():
        from test_served_models import served_pipeline
    counts = [4] * 4 + [20] * 30  # long enough for new servers to start
    pipeline = served_pipeline(tmp_path / "small", counts)
    place = tmp_path / "small" / "pipelines" / "small"
    pipeline.write_text(pipeline.read_text() + f"\npipeline_folder_name: {place}\n")
    with cluster(tmp_path) as kubeconfig:
        out = run(pipeline, kubeconfig, "kubernetes")
        until(lambda: not pods_of(kubeconfig))
    assert_all_served(out, "kubernetes", counts)


def test_a_run_with_classes_deals_each_out_to_pods_by_its_shares(tmp_path: Path) -> None:
    """A Deployment an option, shares by class in the router; log, comparison and page tell."""
    pipeline = classes_pipeline(tmp_path)
    (tmp_path / "trace.csv").write_text("requests:easy,requests:hard\n" + "8,2\n" * 12)
    changes = ("adaptation_interval=2", "drop_limit=null", "scaling_cap=6")
    with cluster(tmp_path, *STUBS) as kubeconfig:
        words = [word for key in changes for word in ("--set", key)]
        out = run(pipeline, kubeconfig, "kubernetes-stub", *words)
        until(lambda: not pods_of(kubeconfig))
    assert_all_served(out, "kubernetes-stub", [10] * 12)
    found = read_run(out)
    figures = metrics(found)
    easy, hard = figures.classes
    assert (easy.requests, hard.requests) == (96, 24)
    assert easy.energy_j + hard.energy_j == pytest.approx(figures.energy_j, rel=1e-6)
    work = added(part for step in found.steps for part in step.work)
    assert {part.request_class: part.requests for part in work} == {"easy": 96, "hard": 24}
    # Once both options serve, hard ones go to large and to it alone, easy ones to small.
    changes_at = [each.ready_s for step in found.steps if step.live for each in step.live.changes]
    mixed = [step for step in found.steps if changes_at and step.start_s >= changes_at[0]]
    assert mixed
    (stage,) = mixed[-1].stages
    shares = {part.variant: dict(part.shares) for part in stage.parts}
    assert shares["small"].get("hard", 0.0) == shares["large"].get("easy", 0.0) == 0.0
    late = {one.request_class: one for one in added(part for step in mixed for part in step.work)}
    answered = Counter[str]()
    for step in mixed:
        for spent in step.live.replicas if step.live else ():
            answered[spent.option.split()[0]] += spent.requests
    assert answered == {"small": late["easy"].requests, "large": late["hard"].requests}
    assert late["hard"].accuracy_sum / late["hard"].requests == pytest.approx(0.9)
    assert "run: hard" in comparison_table(compare([figures]))
    page = write_html(compare([figures]), [found], tmp_path / "page.html").read_text()
    assert "By class of requests" in page
