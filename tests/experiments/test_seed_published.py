"""The seed's published experiments: their figures against the numbers read off them."""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from experiment_scripts import script
from scipy import stats

from ipa_energy.errors import ConfigError

SEED = Path(__file__).parents[2] / "experiments" / "seed"
MODULES = (
    "seed_data",
    "seed_answers",
    "seed_words",
    "seed_figures",
    "seed_markdown",
    "seed_published",
    "seed_sweep",
    "analyse",
)


@pytest.fixture(scope="module")
def seed() -> SimpleNamespace:
    """The scripts of experiments/seed."""
    return SimpleNamespace(**{name: script(f"seed/{name}") for name in MODULES})


def at(points: list[Any], weights: str, batch: int) -> Any:
    return next(point for point in points if (point.weights, point.batch) == (weights, batch))


# ------------------------------------------------------------------ known numbers


def test_joules_per_image_rise_by_28_percent(seed: Any) -> None:
    """255.8 kJ and 328.8 kJ over 5000 images."""
    two = seed.seed_data.experiment_2()
    assert at(two, "yolov7-e6e", 5).joules_per_image == pytest.approx(51.16)
    assert at(two, "yolov7-e6e", 1000).joules_per_image == pytest.approx(65.76)
    change = seed.seed_answers.batch_change(two)
    assert (change.first.batch, change.last.batch) == (5, 1000)
    assert change.energy == pytest.approx(328.8 / 255.8)
    assert change.latency == pytest.approx(345.2 / 222.6)
    # The reading error is 3.288 kJ, at its worst up for one and down for the other.
    assert change.energy_low == pytest.approx((328.8 - 3.288) / (255.8 + 3.288))
    assert change.energy_high == pytest.approx((328.8 + 3.288) / (255.8 - 3.288))


def test_published_per_input_is_the_run_over_the_batch(seed: Any) -> None:
    two = seed.seed_data.experiment_2()
    assert at(two, "yolov7-e6e", 5).published_per_input_j == pytest.approx(51_160)
    assert at(two, "yolov7-e6e", 1000).published_per_input_j == pytest.approx(328.8)
    published = [point.published_per_input_j for point in two]
    assert published == sorted(published, reverse=True)


def test_e6e_takes_30_percent_more_than_x_at_a_lower_f1(seed: Any) -> None:
    one = seed.seed_data.experiment_1()
    e6e, x = at(one, "yolov7-e6e", 32), at(one, "yolov7-x", 32)
    assert e6e.run_energy_j / x.run_energy_j == pytest.approx(39910 / 30600)
    assert e6e.accuracy < x.accuracy
    assert e6e.joules_per_image == pytest.approx(39910 / 496)


def test_x_and_e6_are_equally_fast_and_x_takes_6_percent_more(seed: Any) -> None:
    (pair,) = seed.seed_answers.equally_fast(seed.seed_data.experiment_1())
    assert (pair.dearer.label, pair.cheaper.label) == ("yolov7-x, batch 10", "yolov7-e6, batch 32")
    assert pair.ratio == pytest.approx(27810 / 26270)
    assert pair.low == pytest.approx((27810 - 399.1) / (26270 + 399.1))
    assert pair.low > 1


def test_faster_and_yet_dearer_pairs(seed: Any) -> None:
    """By hand: E6 at batch 10 against v7 at 32, D6 at 32 against X at 32."""
    found = seed.seed_answers.reversals(seed.seed_data.experiment_1())
    assert [(pair.dearer.label, pair.cheaper.label) for pair in found] == [
        ("yolov7-e6, batch 10", "yolov7, batch 32"),
        ("yolov7-d6, batch 32", "yolov7-x, batch 32"),
    ]
    assert found[0].ratio == pytest.approx(24170 / 22270)


def test_energy_makes_no_published_configuration_optimal(seed: Any) -> None:
    """By hand: at batch 32 all but D6 and E6E lose to themselves at 10; D6 and E6E to X at 10."""
    answers, one = seed.seed_answers, seed.seed_data.experiment_1()
    found = answers.fronts(one, answers.reading_error(one))
    expected = {f"{name}, batch 10" for name in ("yolov7-tiny", "yolov7-w6", "yolov7")}
    expected |= {"yolov7-e6, batch 10", "yolov7-x, batch 10"}
    assert {each.point.label for each in found if each.without} == expected
    assert {each.point.label for each in found if each.with_energy} == expected
    shares = {each.point.label: each.share_only for each in found}
    assert 0 < shares["yolov7, batch 32"] < 0.5
    two = seed.seed_data.experiment_2()
    on_front = [each for each in answers.fronts(two, answers.Errors()) if each.with_energy]
    assert [each.point.batch for each in on_front] == [5]


def test_start_of_the_process_by_a_line_through_two_runs(seed: Any) -> None:
    data = seed.seed_data
    costs = seed.seed_answers.fixed_costs(data.experiment_1(), data.experiment_2())
    assert [cost.batch for cost in costs] == [10, 32]
    slope_j = (287_300 - 35_020) / (5000 - 496)
    assert costs[0].slope_j == pytest.approx(slope_j)
    assert costs[0].fixed_j == pytest.approx(35_020 - 496 * slope_j)
    assert costs[0].share == pytest.approx(1 - 496 * slope_j / 35_020)


def test_correlations_are_those_of_scipy(seed: Any) -> None:
    one = seed.seed_data.experiment_1()
    found = {
        (each.method, each.x, each.y): each.value
        for each in seed.seed_answers.correlated(one)
        if each.given is None
    }
    energy = [point.joules_per_image for point in one]
    for column in ("accuracy", "latency_s"):
        values = [getattr(point, column) for point in one]
        pearson, spearman = stats.pearsonr(values, energy), stats.spearmanr(values, energy)
        assert found["pearson", column, "joules_per_request"] == pytest.approx(pearson.statistic)
        assert found["spearman", column, "joules_per_request"] == pytest.approx(spearman.statistic)


# ------------------------------------------------------------------ the arithmetic itself


def test_undominated_agrees_with_brute_force(seed: Any) -> None:
    generator = np.random.default_rng(7)
    for _ in range(20):
        losses = generator.integers(0, 4, (3, 5, 9)).astype(float)
        found = seed.seed_answers.undominated(losses)
        for draw in range(5):
            columns = losses[:, draw, :].T
            for index, own in enumerate(columns):
                beaten = any(np.all(other <= own) and np.any(other < own) for other in columns)
                assert found[draw, index] == (not beaten)


def test_line_through_points_on_a_line(seed: Any) -> None:
    points = [
        seed.seed_data.SeedPoint(
            weights="a", batch=1, images=1, latency_s=x, run_energy_j=2 + 3 * x, meter="m",
            quality="measured",
        )
        for x in (0.1, 0.2, 0.4)
    ]  # fmt: skip
    fit = seed.seed_answers.line(points)
    assert (fit.offset_j, fit.power_w, fit.r2) == pytest.approx((2, 3, 1))


def test_reading_error_is_a_share_of_each_axis(seed: Any) -> None:
    error = seed.seed_answers.reading_error(seed.seed_data.experiment_1())
    assert error.latency_s == pytest.approx(0.003928)
    assert error.energy_j == pytest.approx(399.1)
    assert error.accuracy == pytest.approx(0.01 * 1.1 * (0.6205 - 0.4761))


# ------------------------------------------------------------------ what is written


def test_figures_show_the_published_numbers(seed: Any) -> None:
    two = seed.seed_data.experiment_2()
    first, second = seed.seed_figures.figures_1(seed.seed_data.experiment_1())
    assert {figure.key for figure in (first, second)} == {"figure-1", "figure-2"}
    by_name = {mark.name: mark for mark in first.marks}
    assert by_name["batch 32, imported"].y[-1] == pytest.approx(39.91)
    assert by_name["batch 32, imported"].x[-1] == pytest.approx(0.6168)
    published, corrected = seed.seed_figures.figures_2(two)[1].marks
    assert (published.y[0], corrected.y[0]) == pytest.approx((51.16, 51.16))  # kJ, and J
    assert (published.y[-1], corrected.y[-1]) == pytest.approx((0.3288, 65.76))
    assert not published.hollow


def test_analysis_prints_and_writes_the_answer(
    seed: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "seed.html"
    assert seed.analyse.main(["--html", str(page)]) == 0
    printed = capsys.readouterr().out
    assert "51.2 J at batch 5 and 65.8 J at batch 1000: 28.5 % more" in printed
    assert "E6E takes 30.4 % more energy than X" in printed
    assert "| 1000 | 345.2 | 328.8 | 329 | 65.8 | +28.5 |" in printed
    assert "none is optimal only because energy counts" in printed
    assert "nan" not in printed.lower()
    assert "51.2 J at batch 5" in page.read_text()


def test_words_follow_the_numbers(seed: Any) -> None:
    """With a frugal slow network that nothing beats in energy, the answer turns round."""
    one = seed.seed_data.experiment_1()
    frugal = seed.seed_data.SeedPoint(
        weights="yolov7-new", batch=10, images=496, latency_s=0.3, run_energy_j=9000,
        accuracy=0.6, meter="perf", quality="imported",
    )  # fmt: skip
    two = seed.seed_data.experiment_2()
    text = seed.seed_published.published_sections([*one, frugal], two)[0].text[0]
    assert text.startswith(
        "Yes, in these data: 1 configuration is optimal only because energy counts"
    )
    assert "yolov7-new, batch 10" in text


# ------------------------------------------------------------------ a sweep's points


def points_csv(folder: Path, rows: list[str], quality: str = "estimated") -> Path:
    header = (
        "weights,batch,trials,failed,run_energy_j,joules_per_image,images,latency_s,load_s,"
        "steady_joules_per_image,joules_per_image_ci95,latency_s_ci95,"
        "steady_joules_per_image_ci95,meter,quality"
    )
    folder.mkdir(exist_ok=True)
    lines = [f"{row},cpu-time,{quality}" for row in rows]
    (folder / "points.csv").write_text("\n".join([header, *lines]) + "\n")
    meta = {"machine": {"cpu": "X", "cores": 2}, "versions": {}, "command": ["a"], "runs": 6}
    (folder / "meta.json").write_text(json.dumps(meta))
    return folder


ROWS = [
    "yolov5n,1,3,0,40,10,4,0.1,3,2,0.5,0.01,0.1",
    "yolov5n,4,3,0,36,9,4,0.08,3,1.5,0.5,0.01,0.1",
    "yolov5x,1,3,0,80,20,4,0.9,5,12,0.5,0.01,0.1",
    "yolov5x,4,0,3,,,,,,,,,",
]


def test_sweep_of_ones_own_stands_beside_the_published(
    seed: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = points_csv(tmp_path / "sweep", ROWS)
    figures = tmp_path / "figures"
    status = seed.analyse.main(["--sweep", str(folder), "--figures", str(figures)])
    printed = capsys.readouterr().out
    assert status == 0
    assert "40 to 83 % of the joules are those of starting and loading" in printed
    assert "All joules of this section are estimated" in printed
    assert "yolov5n is cheapest at batch 4 (1.50 J per image)" in printed
    names = {path.name for path in figures.iterdir()}
    assert {"figure-1.png", "figure-4.svg", "live-batch.csv", "live-accuracy.png"} <= names


def test_estimated_points_are_hollow_and_measured_ones_filled(seed: Any, tmp_path: Path) -> None:
    for quality, hollow in (("estimated", True), ("measured", False)):
        points = seed.seed_data.read_points(points_csv(tmp_path / quality, ROWS, quality))
        figure = seed.seed_figures.sweep_figures(points)[0]
        assert all(mark.hollow is hollow for mark in figure.marks)
        assert quality in figure.title


def test_sweep_without_figures_is_refused(seed: Any, tmp_path: Path) -> None:
    folder = points_csv(tmp_path / "sweep", ROWS[3:])
    with pytest.raises(ConfigError, match="no point of this sweep has figures"):
        seed.seed_data.read_points(folder)
    with pytest.raises(ConfigError, match="no such file"):
        seed.seed_data.read_points(tmp_path)


def test_missing_steady_state_is_nan_and_has_no_figure(seed: Any, tmp_path: Path) -> None:
    rows = ["yolov5n,1,1,0,40,10,4,0.1,,,,,", "yolov5n,4,1,0,36,9,4,0.08,,,,,"]
    points = seed.seed_data.read_points(points_csv(tmp_path / "sweep", rows))
    assert math.isnan(points[0].steady_joules_per_image)
    assert [figure.key for figure in seed.seed_figures.sweep_figures(points)] == ["live-batch"]
    sections = seed.seed_sweep.sweep_sections(points, {}, "yolov5n")
    assert "starting and loading" not in " ".join(sections[0].text)
