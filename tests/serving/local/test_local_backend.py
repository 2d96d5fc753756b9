"""``ipa-energy run PIPELINE --backend local-stub`` with stubs: served, adapted, logged."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("grpc")

from live_runs import data_path, totals_of, words_of, write_pipeline

from ipa_energy.cli import main
from ipa_energy.comparing import metrics
from ipa_energy.runlog import read_run

pytestmark = [pytest.mark.slow, pytest.mark.measures]

GRAMS_PER_CORE_HOUR = 1.5


def add_embodied(profile: Path) -> None:
    """Give every row of a profile embodied grams, by its cores."""
    head, *lines = profile.read_text().splitlines()
    cores = head.split(",").index("cpu_cores")
    grams = [f"{line},{GRAMS_PER_CORE_HOUR * float(line.split(',')[cores])}" for line in lines]
    profile.write_text("\n".join([f"{head},embodied_g_per_hour", *grams, ""]))


def test_a_run_serves_every_request_adapts_and_leaves_nothing_behind(tmp_path: Path) -> None:
    pipeline = write_pipeline(tmp_path, [4, 4, 20, 20, 20, 20], more="carbon: {intensity: 250}\n")
    add_embodied(tmp_path / "profile.csv")
    out = tmp_path / "run"
    assert main(words_of(pipeline, out)) == 0
    assert data_path(os.getpid()) == {}
    run = read_run(out)
    assert run.info.backend == "local-stub"
    assert run.info.quality == "estimated"
    assert run.offered_rps.sum() == 88
    assert len(run.requests) == 88
    assert np.isfinite(run.requests.done_s).all()
    times = np.stack([run.requests.sending_s, run.requests.done_s])
    assert (np.diff(times, axis=0) > 0.1).all()  # the profile's times of both stages
    assert 0 < run.power_w.max() < 100
    assert any(step.reconfigured for step in run.steps)
    totals = totals_of(out)
    assert totals["requests"] == 88
    late = totals["generator"]
    assert 0 <= late["late_p50_s"] <= late["late_p99_s"] < 2
    assert totals["overhead_j"]["generator"] > 0
    figures = metrics(run)
    assert figures.embodied_g == pytest.approx(GRAMS_PER_CORE_HOUR * figures.core_hours, rel=0.01)
    assert totals["embodied_g"] == pytest.approx(figures.embodied_g, rel=1e-6)
    assert totals["sci_g_per_request"] > totals["grams"] / 88
    assert sorted(path.name for path in out.iterdir()) == [
        "0.json",
        "0.yaml",
        "adaptation_log.json",
        "profile.csv",
        "run.json",
        "workload.csv",
    ]


def test_a_stage_that_sees_several_requests_an_input_is_asked_so_often(tmp_path: Path) -> None:
    pipeline = write_pipeline(tmp_path, [5] * 8, more="requests_per_input: [1, 2.5]\n")
    out = tmp_path / "run"
    assert main(words_of(pipeline, out)) == 0
    run = read_run(out)
    assert (len(run.requests), (run.requests.dropped_at == -1).all()) == (40, True)
    log = json.loads((out / "adaptation_log.json").read_text())
    live = [step["live"]["stages"] for step in log["timesteps"].values()]
    find, name = (sum(stages[at]["requests"] for stages in live) for at in range(2))
    assert 30 <= find <= 40  # the last ones leave after the last interval
    assert 2.1 * find <= name <= 2.9 * find  # half of them are rounded up


@pytest.mark.parametrize(
    ("per_input", "told"),
    [
        ("[2, 2]", "the first stage, find, sees 2 requests for each input"),
        ("[1, 0.5]", None),
    ],
)
def test_what_no_client_can_send_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], per_input: str, told: str | None
) -> None:
    pipeline = write_pipeline(tmp_path, [2], more=f"requests_per_input: {per_input}\n")
    assert main(words_of(pipeline, tmp_path / "run")) == (0 if told is None else 2)
    assert (told or "") in capsys.readouterr().err
