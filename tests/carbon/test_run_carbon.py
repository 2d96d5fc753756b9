"""Grams by hand: over a step of the intensity, as a term, as a cap, in a run and its log."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ipa_energy.carbon.intensity import IntensitySeries
from ipa_energy.carbon.run_carbon import RunCarbon
from ipa_energy.comparing import metrics
from ipa_energy.errors import ConfigError
from ipa_energy.experiment import load_experiment, run_experiment
from ipa_energy.optimizer.solve import decide
from ipa_energy.planning.planner import load_planner
from ipa_energy.runlog import read_run
from ipa_energy.tradeoff.sensitivity import analyse

CONFIG = Path(__file__).parents[2] / "configs" / "video.yaml"
KWH_J = 3.6e6


def written(folder: Path, carbon: str) -> Path:
    profile = CONFIG.parent / "profiles" / "video-epyc-9005-2vcpu.csv"
    lines = [line for line in CONFIG.read_text().splitlines() if not line.startswith("profile:")]
    path = folder / "video.yaml"
    path.write_text("\n".join([*lines, f"profile: {profile}", "carbon:", carbon, ""]))
    return path


def step_at(second: float, before: float, after: float, pue: float = 1.0) -> RunCarbon:
    series = IntensitySeries(
        time_s=np.array([0.0, second]), g_per_kwh=np.array([before, after]), end_s=1e6
    )
    return RunCarbon(series, None, 0.0, pue)


def test_a_step_in_the_middle_of_a_window() -> None:
    carbon = step_at(4.5, 100.0, 400.0)
    power_w = np.array([10.0] * 4 + [20.0] + [10.0] * 5)  # 110 J in ten seconds
    by_hand = (4 * 10 * 100 + 20 * (0.5 * 100 + 0.5 * 400) + 5 * 10 * 400) / KWH_J
    assert carbon.grams(0.0, 10.0, 110.0, power_w) == pytest.approx(by_hand)
    # Joules are those of the meter, the watts only say when they were spent.
    assert carbon.grams(0.0, 10.0, 220.0, power_w) == pytest.approx(2 * by_hand)


def test_the_last_second_may_be_shorter_and_the_site_takes_more() -> None:
    carbon = step_at(1.0, 100.0, 400.0, pue=1.5)
    power_w = np.array([10.0, 10.0])
    by_hand = (10 * 100 + 0.5 * 10 * 400) / KWH_J * 1.5
    assert carbon.grams(0.0, 1.5, 15.0, power_w) == pytest.approx(by_hand)


def test_decisions_see_what_is_in_force_or_the_forecast() -> None:
    carbon = step_at(15.0, 100.0, 400.0)
    assert carbon.signals(10.0, 10.0)["g_per_kwh"] == 100
    knowing = RunCarbon(carbon.series, carbon.series, 0.0, 1.0)
    assert knowing.signals(10.0, 10.0)["g_per_kwh"] == pytest.approx(250)


def test_a_weight_of_grams_is_one_of_joules(tmp_path: Path) -> None:
    by_grams = load_planner(written(tmp_path, "  intensity: 360\n  pue: 1.25\n  weight: 16000"))
    moment = by_grams.moment(20.0)
    plan = decide(by_grams.program, moment).best
    # 16000 per gram × 360 × 1.25 / 3.6e6 = 2 per joule
    by_joules = load_planner(CONFIG, {"energy_weight": 2.0})
    assert plan.label == decide(by_joules.program, 20.0).best.label
    grams = plan.joules_per_request * 360 * 1.25 / KWH_J
    assert plan.amounts["grams_per_request"] == pytest.approx(grams)
    assert plan.terms["grams_per_request"] == pytest.approx(16000 * grams)


@pytest.mark.parametrize("method", ["pareto", "highs", "brute-force"])
def test_a_cap_on_grams_is_one_on_joules(tmp_path: Path, method: str) -> None:
    carbon = f"  intensity: 360\n  sla_grams: {0.9 * 360 / KWH_J!r}"
    capped = load_planner(written(tmp_path, carbon))
    free = load_planner(CONFIG)
    joules = load_planner(CONFIG, {"energy_sla_joules": 0.9})
    plan = decide(capped.program, capped.moment(10.0), method).best
    assert plan.label == decide(joules.program, 10.0, method).best.label
    assert plan.joules_per_request <= 0.9 < decide(free.program, 10.0).best.joules_per_request
    check = next(c for c in plan.certificate.checks if c.constraint == "carbon.sla_grams")
    assert check.holds


@pytest.mark.parametrize("seed", range(6))
def test_scaling_the_intensity_scales_grams_and_changes_no_plan(tmp_path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    intensity, load_rps = rng.uniform(20, 400), rng.uniform(4, 20)
    weight = rng.uniform(0.5, 20) * KWH_J / intensity
    plans = []
    for factor in (1, 7):
        carbon = f"  intensity: {float(intensity * factor)!r}\n  weight: {float(weight / factor)!r}"
        planner = load_planner(written(tmp_path, carbon))
        plans.append(decide(planner.program, planner.moment(load_rps)).best)
    assert plans[0].label == plans[1].label
    grams = [plan.amounts["grams_per_request"] for plan in plans]
    assert grams[1] == pytest.approx(7 * grams[0])


@pytest.mark.parametrize(
    ("carbon", "message"),
    [
        ("  intensity: 300000", r"300000 g/kWh: is the unit right\?"),
        ("  intensity: {path: x.csv, unit: g/MWh}", r"unit is the text 'g/MWh'; allowed: g/kWh \|"),
        ("  intensity: {mean_g_per_kwh: 300, sed: 1}", "unknown key carbon.intensity.sed"),
    ],
)
def test_a_mistake_is_told_once_and_as_what_it_is(
    tmp_path: Path, carbon: str, message: str
) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        load_planner(written(tmp_path, carbon))
    assert "problems" not in str(caught.value)


def test_what_nobody_says_cannot_be_weighed() -> None:
    planner = load_planner(CONFIG, {"energy_weight": 1.0, "energy_metric": "grams_per_request"})
    with pytest.raises(ConfigError, match=r"how many grams a kilowatt-hour is"):
        decide(planner.program, planner.moment(5.0))


HOURS = "time,g\n2023-04-17T00:00Z,100\n2023-04-17T01:00Z,400\n2023-04-17T02:00Z,50\n"


def test_a_run_counts_its_grams_and_its_folder_runs_again(tmp_path: Path) -> None:
    (tmp_path / "hours.csv").write_text(HOURS)
    carbon = (
        "  intensity: {path: hours.csv, unit: g/kWh, kind: average, zone: here}\n"
        "  start: 2023-04-17T00:59:30Z\n  weight: 90000"
    )
    path = written(tmp_path, carbon)
    (tmp_path / "load.csv").write_text("second,requests\n" + "".join(f"{s},6\n" for s in range(60)))
    load = {"workload": str(tmp_path / "load.csv")}
    run = run_experiment(load_experiment(path, load), tmp_path / "run")
    seen = [step.signals["g_per_kwh"] for step in run.steps]
    assert seen == [100, 100, 100, 400, 400, 400]
    for step, intensity in zip(run.steps[:5], seen, strict=False):
        assert step.grams == pytest.approx(step.energy_j * intensity / KWH_J, abs=1e-9)
    assert run.info.settings["carbon"]["kind"] == "average"
    assert metrics(run).grams == pytest.approx(sum(step.grams for step in run.steps))
    again = run_experiment(load_experiment(tmp_path / "run" / "0.yaml"))
    assert [step.grams for step in again.steps] == [step.grams for step in run.steps]
    # What is in force changes what runs.
    assert run.steps[2].label != run.steps[5].label
    read = read_run(tmp_path / "run")
    assert [step.grams for step in read.steps] == [step.grams for step in run.steps]


def test_a_run_longer_than_its_intensities_is_refused_before_it_begins(tmp_path: Path) -> None:
    (tmp_path / "hours.csv").write_text(HOURS)
    carbon = "  intensity: {path: hours.csv, unit: g/kWh}\n  start: 2023-04-17T02:50Z"
    with pytest.raises(ConfigError, match=r"2023-04-17 02:50 UTC to 2023-04-17 03:10 UTC"):
        load_experiment(written(tmp_path, carbon))


def test_the_study_weighs_grams_at_the_intensity_of_the_start(tmp_path: Path) -> None:
    """Whoever plans without a clock knows what a joule emits as well."""
    path = written(tmp_path, "  intensity: 360\n  weight: 20000")
    planner = load_planner(path)
    plan = decide(planner.program, 10.0).best
    assert (
        plan.label == decide(load_planner(CONFIG, {"energy_weight": 2.0}).program, 10.0).best.label
    )
    found = analyse(planner, 10.0)
    assert found.plan.joules_per_request == pytest.approx(plan.joules_per_request)


def test_a_run_as_long_as_its_intensities_ends_after_them() -> None:
    """What the last requests spend after the series' end is counted at its last value."""
    series = IntensitySeries(
        time_s=np.array([0.0, 3600.0]), g_per_kwh=np.array([100.0, 400.0]), end_s=7200.0
    )
    carbon = RunCarbon(series, None, 0.0, 1.0)
    carbon.check_covers(7200.0)
    with pytest.raises(ConfigError):
        carbon.check_covers(7201.0)
    watts = np.array([10.0, 10.0])
    assert carbon.grams(7200.0, 7201.5, 15.0, watts) == pytest.approx(15 * 400 / KWH_J)
    assert carbon.grams(7199.0, 7201.0, 20.0, watts) == pytest.approx(20 * 400 / KWH_J)
