"""Drift of joules: found, dated, corrected, and not seen where there is none."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from seeds import seeds

from ipa_energy.adaptation.drift import (
    HIGHEST_SCALE,
    LOWEST_SCALE,
    Change,
    Cusum,
    DriftWatch,
    scaled,
)
from ipa_energy.experiment import load_experiment, run_experiment
from ipa_energy.registries import BACKENDS, Named
from ipa_energy.runlog import Run, read_run
from ipa_energy.serving.base import LiveOptions, Setting
from ipa_energy.serving.observed import Scale, StageJoules
from ipa_energy.testing import FakeBackend, fake_stages


def first_change(values: Any, prior_sigma: float = 0.08) -> tuple[int, Change] | None:
    """(windows until a change was found, what); None if none was."""
    chart = Cusum(prior_sigma)
    for index, r in enumerate(values):
        change = chart.add(float(r))
        if change is not None:
            return index + 1, change
    return None


# ------------------------------------------------------------------ the chart


def test_a_profile_that_was_wrong_from_the_first_window_is_found_in_a_few() -> None:
    found = first_change([math.log(1.2)] * 10)
    assert found is not None
    windows, change = found
    assert windows == 4
    assert change == Change(pytest.approx(1.2), 4)
    assert first_change([math.log(1.2)] * 3) is None


def test_a_change_is_dated_by_the_sums_last_zero_and_the_windows_before_it_do_not_count() -> None:
    found = first_change([0.0] * 200 + [-math.log(1.5)] * 10)
    assert found is not None
    windows, change = found
    assert windows <= 204
    assert change.windows == windows - 200
    assert change.factor == pytest.approx(1 / 1.5)


def test_nothing_small_is_a_change_however_long_it_lasts() -> None:
    assert first_change([math.log(1.04)] * 5_000) is None
    assert first_change([math.log(1.08)] * 5_000) is not None


def test_one_window_far_off_is_no_change() -> None:
    """It is clipped at three sigmas, and alone has no interval."""
    assert first_change([0.0] * 5 + [2.0] + [0.0] * 50) is None


@pytest.mark.parametrize("seed", seeds(6))
def test_the_delay_is_that_of_the_table(seed: int) -> None:
    """Median delay at σ = 8 %: 10 % off in about 9 windows, 20 % in 4, 50 % in 2 to 3."""
    rng = np.random.default_rng(seed)
    for change, most in ((1.1, 20), (1.2, 8), (1.5, 4), (0.8, 8)):
        delays = []
        for _ in range(30):
            found = first_change(math.log(change) + rng.normal(0, 0.08, 400))
            delays.append(401 if found is None else found[0])
        assert np.median(delays) <= most


@pytest.mark.parametrize("seed", seeds(2))
@pytest.mark.parametrize(("rho", "most"), [(0.0, 2.5), (0.5, 7.0)])
def test_false_alarms_in_five_hours_are_few_also_where_windows_resemble_each_other(
    seed: int, rho: float, most: float
) -> None:
    """About 1, and 3 at ρ = 0.5, where a chart that knows nothing of ρ has 15 and more."""
    rng = np.random.default_rng(seed)
    windows, alarms, runs = 1800, 0, 6
    for _ in range(runs):
        noise = rng.normal(0, 0.08 * math.sqrt(1 - rho**2), windows)
        last, chart = 0.0, Cusum(0.08)
        for step in noise:
            last = rho * last + step
            alarms += chart.add(float(last)) is not None
    assert alarms <= runs * most


def test_a_noisier_pipeline_than_its_profile_says_is_learned() -> None:
    rng = np.random.default_rng(3)
    chart = Cusum(0.01)
    for r in rng.normal(0, 0.2, 40):
        chart.add(float(r))
    assert 0.13 < chart.sigma < 0.3


# ------------------------------------------------------------------ scales


def seen(variant: str, ratio: float, **further: Any) -> StageJoules:
    known = {
        "stage": "crop",
        "variant": variant,
        "allocation": "1c",
        "requests": 50,
        "load_rps": 5.0,
        "batch_fill": 1.0,
        "live_j": 2.0 * ratio,
        "profile_j": 2.0,
        "live_idle_j": 0.5 * ratio,
        "profile_idle_j": 0.5,
        "is_clean": True,
    }
    return StageJoules(**{**known, **further})


def test_what_ran_gets_its_own_scale_and_what_never_ran_the_common_one() -> None:
    watch = DriftWatch(fake_stages())
    for window in range(6):
        watch.watch([seen("yolov5n", 1.2)], 10.0 * window)
    for window in range(6):
        watch.watch([seen("yolov5s", 1.5)], 60 + 10.0 * window)
    factors = {scale.variant: scale.factor for scale in watch.scales}
    assert factors == pytest.approx({"yolov5n": 1.2, "yolov5s": 1.5})
    crop, classification = watch.scaled_stages()
    before = fake_stages()[0]
    ratios = {
        new.variant: new.dynamic_energy_j / old.dynamic_energy_j
        for new, old in zip(crop.options, before.options, strict=True)
    }
    common = math.sqrt(1.2 * 1.5)
    assert ratios == pytest.approx({"yolov5n": 1.2, "yolov5s": 1.5, "yolov5m": common})
    assert crop.options[0].idle_power_w == pytest.approx(1.2 * before.options[0].idle_power_w)
    assert crop.options[0].energy_ci95_j == pytest.approx(1.2 * before.options[0].energy_ci95_j)
    assert classification == fake_stages()[1]


def test_another_kind_of_hardware_keeps_its_own_joules() -> None:
    (stage, _) = fake_stages()
    gpu = [
        replace(o, allocation=type(o.allocation).of(1, 0.5, "gpu"))
        for o in stage.options
        if o.variant == "yolov5m"
    ]
    mixed = replace(stage, options=(*stage.options, *gpu))
    (found,) = scaled([mixed], [Scale("crop", "yolov5n", "1c", 2.0, 2.0, 2.0)])
    factors = [
        new.dynamic_energy_j / old.dynamic_energy_j
        for new, old in zip(found.options, mixed.options, strict=True)
    ]
    assert factors == pytest.approx([2.0] * 9 + [1.0] * 3)


def test_scales_stay_within_their_bounds() -> None:
    watch = DriftWatch(fake_stages())
    found = [
        one
        for window in range(40)
        for one in watch.watch([seen("yolov5n", 50.0), seen("yolov5s", 0.01)], window)
    ]
    assert len(found) == 2  # said once, not whenever the chart finds it again
    assert {s.variant: s.dynamic for s in watch.scales} == {
        "yolov5n": HIGHEST_SCALE,
        "yolov5s": LOWEST_SCALE,
    }


def test_work_that_costs_more_is_told_from_waiting_so_that_another_load_is_no_new_drift() -> None:
    """Twice the dynamic joules, idle as profiled: 1.75 times as much now, 1.25 at a low load."""
    watch = DriftWatch(fake_stages())
    high = {"live_idle_j": 0.5, "profile_idle_j": 0.5, "live_j": 3.5, "profile_j": 2.0}
    low = {"live_idle_j": 4.5, "profile_idle_j": 4.5, "live_j": 7.5, "profile_j": 6.0}
    found = [c for w in range(6) for c in watch.watch([seen("yolov5n", 1.0, **high)], w)]
    assert [(c.scale, c.dynamic, c.idle) for c in found] == [pytest.approx((1.75, 2.0, 1.0))]
    for window in range(100):
        assert watch.watch([seen("yolov5n", 1.0, **low)], window) == ()


def test_windows_in_which_something_changed_or_was_served_too_little_are_passed_over() -> None:
    watch = DriftWatch(fake_stages())
    for window in range(50):
        unclean = seen("yolov5n", 2.0, is_clean=False)
        unknown = seen("yolov5s", math.nan)
        assert watch.watch([unclean, unknown], window) == ()


def test_estimates_correct_no_profile_that_was_measured(caplog: pytest.LogCaptureFixture) -> None:
    measured = [
        replace(
            stage,
            options=tuple(
                replace(o, provenance=o.provenance and replace(o.provenance, quality="measured"))
                for o in stage.options
            ),
        )
        for stage in fake_stages()
    ]
    watch = DriftWatch(measured)
    for window in range(20):
        assert watch.watch([seen("yolov5n", 2.0)], window, "estimated") == ()
    assert caplog.messages == ["live joules are estimated, the profile's measured: no drift"]
    assert any(watch.watch([seen("yolov5n", 2.0)], w, "measured") for w in range(20))


# ------------------------------------------------------------------ a run


def off(ratio: float, noise: float = 0.0, seed: int = 1) -> Any:
    rng = np.random.default_rng(seed)
    return lambda _stage, _variant, _end_s: ratio * math.exp(rng.normal(0, noise))


def run(
    pipeline: Path,
    monkeypatch: pytest.MonkeyPatch,
    ratio: Any,
    out: Path | None = None,
    **live: Any,
) -> Run:
    def make(setting: Setting) -> Any:
        return FakeBackend(setting, resumes="adopt", joules_ratio=ratio).serving

    monkeypatch.setitem(BACKENDS, "fake", Named("a scripted world", make))
    overrides = {"energy_weight": 5.0}
    experiment = load_experiment(pipeline, overrides)
    return run_experiment(experiment, out, backend="fake", live=LiveOptions(**live))


@pytest.fixture
def steady(small_pipeline: Path) -> Path:
    text = small_pipeline.read_text()
    load = "workload_type: static\nworkload_config: {loads_to_test: 4, load_duration: 120}\n"
    small_pipeline.write_text(text[: text.index("workload_type")] + load)
    return small_pipeline


def test_a_pipeline_that_costs_a_fifth_more_than_its_profile_is_rescaled_within_a_minute(
    steady: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    finished = run(steady, monkeypatch, off(1.2, 0.03))
    found = [c for step in finished.steps if step.live for c in step.live.corrections]
    assert {one.stage for one in found} == {"find", "name"}
    for one in found[:2]:
        assert one.found_s <= 60
        assert one.scale == pytest.approx(1.2, rel=0.07)
    assert any("times the joules of its profile" in text for text in caplog.messages)
    # The decisions after it count with it: planned and served joules agree again.
    last = finished.steps[-1]
    assert last.live is not None
    for stage, live in zip(last.stages, last.live.joules, strict=True):
        assert live.ratio == pytest.approx(1.2, rel=0.12)
        assert stage.joules_per_request == pytest.approx(live.live_j, rel=0.35)


def test_a_pipeline_that_costs_what_its_profile_says_is_left_alone(
    steady: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    finished = run(steady, monkeypatch, off(1.0, 0.05))
    for step in finished.steps:
        assert step.live is not None
        assert (step.live.corrections, step.live.scales) == ((), ())
    clean = [
        one for step in finished.steps if step.live for one in step.live.joules if one.is_clean
    ]
    assert clean
    assert [one.ratio for one in clean] == pytest.approx([1.0] * len(clean), abs=0.2)


def test_no_drift_correction_says_what_drifted_and_decides_by_the_profile(
    steady: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    finished = run(steady, monkeypatch, off(1.5), corrects_drift=False)
    plain = run(steady, monkeypatch, off(1.0))
    assert [step.label for step in finished.steps] == [step.label for step in plain.steps]
    found = [c for step in finished.steps if step.live for c in step.live.corrections]
    assert found
    assert not any(one.is_applied for one in found)
    assert all(step.live and step.live.scales == () for step in finished.steps)
    assert any("not corrected" in text for text in caplog.messages)
    assert len(found) == len({(one.stage, one.variant) for one in found})


def test_what_the_log_says_is_read_back_and_a_resumed_run_goes_on_with_its_scales(
    steady: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from ipa_energy.runlog import RunLog

    append, appended = RunLog.append_interval, []

    def stop_after_eight(self: RunLog, interval: Any) -> None:
        append(self, interval)
        appended.append(interval)
        if len(appended) == 8:
            raise KeyboardInterrupt

    out = tmp_path / "run"
    monkeypatch.setattr(RunLog, "append_interval", stop_after_eight)
    with pytest.raises(KeyboardInterrupt):
        run(steady, monkeypatch, off(1.2), out)
    logged = read_run(out).steps[7].live
    assert logged is not None
    assert (logged.joules, logged.scales) == (appended[7].joules, appended[7].scales)
    assert [scale.factor for scale in logged.scales] == pytest.approx([1.2, 1.2])
    monkeypatch.setattr(RunLog, "append_interval", append)
    # The clock of a resumed run is the wall's: a moment after the eight intervals' start.
    monkeypatch.setattr(RunLog, "elapsed_s", property(lambda self: self.end_s))

    def make(setting: Setting) -> Any:
        return FakeBackend(setting, resumes="adopt", joules_ratio=off(1.2)).serving

    monkeypatch.setitem(BACKENDS, "fake", Named("a scripted world", make))
    again = run_experiment(
        load_experiment(steady, {"energy_weight": 5.0}), out, backend="fake", resume=True
    )
    later = again.steps[-1].live
    assert later is not None
    assert [scale.factor for scale in later.scales] == pytest.approx([1.2, 1.2])
    assert all(not step.live.corrections for step in again.steps[8:] if step.live)


def test_a_simulation_logs_none_of_it(steady: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    finished = run_experiment(load_experiment(steady), out)
    assert all(step.live is None for step in finished.steps)
    assert '"live"' not in (out / "adaptation_log.json").read_text()
