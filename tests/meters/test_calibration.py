"""The power model held against a counter: known truths, and the errors they must show."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from ipa_energy.errors import ConfigError, MeterUnavailableError
from ipa_energy.meters import power_model
from ipa_energy.meters.calibration import (
    Calibration,
    PowerPoint,
    calibrate,
    fit_affine,
    store_calibration,
)
from ipa_energy.meters.power_model import (
    PowerModel,
    machine_key,
    power_model_beside,
    power_model_for_this_machine,
    power_model_in,
    stated_prior,
    stored_model_path,
)

LEVELS = (0.0, 0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875, 1.0)


def points(
    watts: Callable[[float], float], levels: tuple[float, ...] = LEVELS, repeats: int = 1
) -> list[PowerPoint]:
    return [
        PowerPoint(f"load {level:g}", level, watts(level))
        for _ in range(repeats)
        for level in levels
    ]


def fitted(
    watts: Callable[[float], float], levels: tuple[float, ...] = LEVELS, repeats: int = 1
) -> Calibration:
    return calibrate(points(watts, levels, repeats), cores=16, meter="rapl", when="2026-01-02")


# ------------------------------------------------------------------ known truths


def test_affine_truth_is_found_and_has_no_error() -> None:
    found = fitted(lambda used: 40 + 160 * used)
    assert found.model.idle_w == pytest.approx(40)
    assert found.model.max_w == pytest.approx(200)
    assert found.model.cores == 16
    assert found.total.worst < 1e-9
    assert found.dynamic.worst < 1e-9
    assert found.model.relative_error < 1e-9


def test_source_says_what_it_was_held_against() -> None:
    source = fitted(lambda used: 40 + 160 * used, repeats=2).model.source
    for part in ("rapl", "2026-01-02", "9 loads", "18 windows", "0% to 100%", "16 CPUs"):
        assert part in source


def test_error_is_that_of_a_load_the_fit_has_not_seen() -> None:
    # Three points on a line and one off it. Leaving out the one off the line gives the line, so its
    # error is known by hand: (50 − 60) / 60.
    truth = {0.0: 40.0, 0.1: 60.0, 0.5: 90.0, 1.0: 140.0}
    found = fitted(truth.__getitem__, tuple(truth))
    assert found.predictions[1].predicted_w == pytest.approx(50)
    assert found.predictions[1].error_w == pytest.approx(-10)
    errors = [abs(p.error_w) / p.power_w for p in found.predictions]
    assert errors[1] == pytest.approx(1 / 6)
    assert found.total.worst == pytest.approx(max(errors))
    assert found.total.mean == pytest.approx(sum(errors) / 4)


def test_a_bent_curve_shows_in_the_error() -> None:
    found = fitted(lambda used: 40 + 160 * used**0.5)
    assert found.total.worst > 0.2
    assert found.dynamic.worst > 0.5
    assert found.model.relative_error == found.total.worst > found.dynamic.worst


def test_a_curve_a_little_bent_is_close_in_total_and_less_so_above_idle() -> None:
    found = fitted(lambda used: 40 + 160 * used**0.9, LEVELS)
    assert found.dynamic.worst > found.total.worst > 0
    assert found.dynamic.mean > found.total.mean
    assert found.model.relative_error == found.dynamic.worst


def test_the_more_bent_the_larger_the_error() -> None:
    errors = [
        fitted(lambda used, e=exponent: 40 + 160 * used**e).model.relative_error
        for exponent in (1.0, 0.9, 0.7, 0.5)
    ]
    assert errors == sorted(errors)


def test_two_kinds_of_work_with_different_watts_show_in_the_error() -> None:
    both = [
        PowerPoint(f"{kind} {level:g}", level, 40 + full_w * level)
        for kind, full_w in (("integers", 100), ("matrices", 160))
        for level in LEVELS
    ]
    found = calibrate(both, cores=4, meter="rapl", when="2026-01-02")
    # Half-way between, 130 W above idle, is 30 % too much for the one and 19 % too little for the
    # other.
    assert 0.25 < found.dynamic.worst < 0.4
    assert 160 < found.model.max_w < 180


@pytest.mark.parametrize("seed", range(5))
def test_noise_moves_the_model_a_little_and_is_in_the_error(seed: int) -> None:
    noise = random.Random(seed)
    found = fitted(lambda used: (40 + 160 * used) * noise.gauss(1, 0.02), repeats=3)
    assert found.model.idle_w == pytest.approx(40, rel=0.05)
    assert found.model.max_w == pytest.approx(200, rel=0.05)
    assert 0.001 < found.total.mean < 0.04


def test_coefficients_are_never_negative() -> None:
    # The best line through these would cross zero watts above idle.
    idle_w, max_w = fit_affine(points(lambda used: 0.5 + 200 * used**3))
    assert idle_w == 0
    assert max_w > 0


# ------------------------------------------------------------------ refused


@pytest.mark.parametrize("watts", [0.0, 35.0])
def test_constant_power_is_a_dead_counter(watts: float) -> None:
    with pytest.raises(MeterUnavailableError, match="dead"):
        fitted(lambda _: watts)


@pytest.mark.parametrize("seed", range(5))
def test_noise_alone_is_a_dead_counter(seed: int) -> None:
    noise = random.Random(seed)
    with pytest.raises(MeterUnavailableError, match="does not follow the load"):
        fitted(lambda _: noise.gauss(35, 2))


def test_power_that_falls_with_load_is_refused() -> None:
    with pytest.raises(MeterUnavailableError, match="does not follow the load"):
        fitted(lambda used: 100 - 50 * used)


@pytest.mark.parametrize("levels", [(), (0.0, 0.5, 1.0), (0.0, 0.1, 0.2, 0.3, 0.4)])
def test_too_few_loads_or_too_alike_are_refused(levels: tuple[float, ...]) -> None:
    with pytest.raises(MeterUnavailableError, match="power model"):
        fitted(lambda used: 40 + 160 * used, levels)


def test_repeats_of_one_load_are_no_further_loads() -> None:
    with pytest.raises(MeterUnavailableError, match="2 loads"):
        fitted(lambda used: 40 + 160 * used, (0.0, 1.0), repeats=10)


@pytest.mark.parametrize(
    ("used", "watts"), [(-0.1, 50.0), (1.1, 50.0), (0.5, float("nan")), (0.5, float("inf"))]
)
def test_impossible_point_is_refused(used: float, watts: float) -> None:
    with pytest.raises(MeterUnavailableError, match="no point"):
        calibrate(
            [*points(lambda u: 40 + u), PowerPoint("odd", used, watts)],
            cores=1,
            meter="rapl",
            when="2026-01-02",
        )


# ------------------------------------------------------------------ kept for this machine


@pytest.fixture
def data_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    monkeypatch.setattr(power_model.os, "cpu_count", lambda: 16)
    return tmp_path


@pytest.mark.usefixtures("data_home")
def test_without_a_calibration_the_prior_is_used_at_50_percent() -> None:
    assert power_model_for_this_machine() == stated_prior(16)
    assert power_model_for_this_machine().relative_error == 0.5


def test_a_stored_calibration_is_used_from_then_on(data_home: Path) -> None:
    found = fitted(lambda used: 40 + 160 * used)
    path = stored_model_path()
    evidence = store_calibration(found, path)
    assert path.parent == data_home / "ipa-energy"
    assert power_model_for_this_machine() == found.model
    assert PowerModel.load(path) == found.model
    kept = json.loads(evidence.read_text())
    assert len(kept["points"]) == len(LEVELS)
    assert kept["total"]["worst"] == found.total.worst
    assert sorted(data_home.rglob("*.json")) == sorted([path, evidence])


@pytest.mark.usefixtures("data_home")
def test_a_stored_model_that_is_broken_or_of_another_machine_is_refused() -> None:
    path = stored_model_path()
    path.parent.mkdir(parents=True)
    path.write_text("{")
    with pytest.raises(ConfigError, match="power-model"):
        power_model_for_this_machine()
    path.write_text(json.dumps(stated_prior(8).to_json()))
    with pytest.raises(ConfigError, match="8 cores"):
        power_model_for_this_machine()


@pytest.mark.usefixtures("data_home")
def test_a_model_calibrated_on_another_kind_of_machine_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.json"
    here = replace(stated_prior(16), machine=machine_key())
    path.write_text(json.dumps(here.to_json()))
    assert power_model_in(path) == here
    path.write_text(json.dumps(here.to_json() | {"machine": "vax-780-16cpu"}))
    with pytest.raises(ConfigError, match=r"another machine \(vax-780-16cpu; this is .*-16cpu\)"):
        power_model_in(path)
    stored_model_path().parent.mkdir(parents=True)
    stored_model_path().write_text(path.read_text())  # as in a copied home directory
    with pytest.raises(ConfigError, match="another machine"):
        power_model_for_this_machine()


@pytest.mark.parametrize(("told", "is_used"), [
    ({"idle_w": 8.0, "max_w": 40.0, "cores": 16, "source": "a prior"}, True),
    ({"idle_w": 8.0, "max_w": 40.0, "cores": 8, "source": "a prior"}, False),
    ({"idle_w": 8.0, "max_w": 40.0, "cores": 16, "source": "x", "machine": "vax-16cpu"}, False),
    ({"idle_w": 8.0}, False),
    (None, False),
])  # fmt: skip
def test_what_is_held_against_a_profile_is_in_the_profiles_watts(
    data_home: Path, told: dict[str, object] | None, is_used: bool
) -> None:
    meta = data_home / "p.meta.json"
    meta.write_text(json.dumps({"meter": {"name": "cpu-time", "power_model": told}}))
    found = power_model_beside(meta)
    assert found == (PowerModel.from_json(told) if is_used else stated_prior(16))
    assert power_model_beside(None) == power_model_beside(data_home / "none") == stated_prior(16)
    calibrated = fitted(lambda used: 40 + 160 * used)
    store_calibration(calibrated, stored_model_path())
    assert power_model_beside(meta) == calibrated.model


def test_a_model_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot write"):
        store_calibration(fitted(lambda used: 1 + used), tmp_path / "file" / "model.json")


def test_relative_data_home_is_ignored_as_its_specification_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", "somewhere")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert stored_model_path().is_relative_to(tmp_path / ".local" / "share" / "ipa-energy")


@pytest.mark.parametrize(
    ("cpuinfo", "key"),
    [
        (
            "processor\t: 0\ncpu family\t: 6\nmodel\t\t: 85\n"
            "model name\t: Intel(R) Xeon(R) Gold 6240R CPU @ 2.40GHz\nstepping\t: 7\n"
            "\nprocessor\t: 1\nmodel name\t: another\n",
            "intel-r-xeon-r-gold-6240r-cpu-2-40ghz-6-85-7-16cpu",
        ),
        ("processor\t: 0\nBogoMIPS\t: 50.00\n", "aarch64-16cpu"),
    ],
)
def test_key_of_a_machine(
    cpuinfo: str, key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(power_model.os, "cpu_count", lambda: 16)
    monkeypatch.setattr(power_model.platform, "machine", lambda: "aarch64")
    path = tmp_path / "cpuinfo"
    path.write_text(cpuinfo)
    assert machine_key(path) == key
