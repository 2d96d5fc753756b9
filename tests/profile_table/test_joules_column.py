"""The column joules_per_request of a profile is held against e + n·p/λ."""

from __future__ import annotations

import dataclasses
import logging
import math
from pathlib import Path

import pytest

from ipa_energy.errors import ConfigError
from ipa_energy.planning.planner import load_planner
from ipa_energy.profile_table.profile_csv import check_joules, read_profile, write_profile
from ipa_energy.profile_table.profile_row import ProfileRow

WHERE = Path("p.csv")
ROOT = Path(__file__).parents[2]

# 1.5 J + 2 replicas × 2.25 W / 5 rps = 2.4 J
ROW = ProfileRow(
    "crop", "yolov5n", "cpu", 1.0, 0.0, 1, 2, 5.0, 0.1, 0.118, 8.5, 0.28, 1.5, 2.25, 2.4, 0.05, 3,
    "rapl", "measured",
)  # fmt: skip


def row(joules: float, **cells: object) -> ProfileRow:
    return dataclasses.replace(ROW, joules_per_request=joules, **cells)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "good",
    [
        row(2.4),
        row(2.4 * 1.019),  # rounding, and joules met in another way
        row(math.nan),
        row(99.0, load_rps=0.0),  # no request has a share of what waits
        row(0.0, dynamic_energy_j=0.0, idle_power_w=0.0),
    ],
)
def test_what_agrees_is_passed_over(good: ProfileRow, caplog: pytest.LogCaptureFixture) -> None:
    check_joules([good], WHERE)
    assert not caplog.records


def test_a_difference_is_a_warning_that_names_rows_and_figures(
    caplog: pytest.LogCaptureFixture,
) -> None:
    rows = [row(2.4), row(3.0, batch=2), row(4.8, batch=4), row(2.3, batch=8), row(2.0, batch=16)]
    with caplog.at_level(logging.WARNING):
        check_joules(rows, WHERE)
    (record,) = caplog.records
    text = record.getMessage()
    assert text.startswith("p.csv: joules_per_request of 4 rows is not e + n·p/load: crop yolov5n")
    assert "batch 4, x2 at 5 rps: 4.8 J, not 2.4 J; crop yolov5n" in text  # the largest first
    assert "batch 8" not in text
    assert "; …; plans count with dynamic_energy_j and idle_power_w alone" in text


@pytest.mark.parametrize("joules", [24.0, 23.99, 0.24, 0.0, 1e308])
def test_an_order_of_magnitude_is_refused(joules: float) -> None:
    with pytest.raises(ConfigError, match=r"joules_per_request of 1 row is not.*not 2\.4 J"):
        check_joules([row(2.4), row(joules)], WHERE)


def test_a_profile_times_ten_cannot_be_planned_with(small_pipeline: Path) -> None:
    path = small_pipeline.parent / "profile.csv"
    load_planner(small_pipeline)
    rows = read_profile(path)
    path.unlink()
    write_profile(
        path,
        [dataclasses.replace(r, joules_per_request=10 * r.joules_per_request) for r in rows],
    )
    with pytest.raises(ConfigError, match=f"joules_per_request of {len(rows)} rows"):
        load_planner(small_pipeline)


@pytest.mark.parametrize(
    "path", sorted((ROOT / "configs" / "profiles").glob("*.csv")), ids=lambda path: path.stem
)
def test_shipped_profiles_agree(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    check_joules(read_profile(path), path)
    assert not caplog.records
