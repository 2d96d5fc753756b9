"""Series of intensities by hand, and every provider's format by a small file of our own."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ipa_energy.carbon.intensity import (
    DAILY,
    NOISE,
    PERSISTENCE,
    WEEKEND,
    IntensitySeries,
    synthetic_intensity,
)
from ipa_energy.carbon.published import Reading, read_intensity
from ipa_energy.errors import ConfigError

MIDNIGHT_S = 1_681_689_600.0  # 2023-04-17 00:00 UTC
HOUR_S = 3600.0


def written(folder: Path, content: Any, name: str = "file.json") -> Path:
    path = folder / name
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def hours(*values: float) -> IntensitySeries:
    times_s = MIDNIGHT_S + HOUR_S * np.arange(len(values))
    return IntensitySeries(
        time_s=times_s, g_per_kwh=np.array(values), end_s=float(times_s[-1] + HOUR_S)
    )


def test_a_value_holds_from_its_time_to_the_next() -> None:
    series = hours(100.0, 300.0)
    assert series.at(MIDNIGHT_S) == 100
    assert series.at(MIDNIGHT_S + HOUR_S - 1e-3) == 100
    assert series.at(MIDNIGHT_S + HOUR_S) == 300


def test_means_over_a_step_are_weighted_by_time() -> None:
    series = hours(100.0, 300.0)
    quarter_s = HOUR_S / 4
    assert series.mean(MIDNIGHT_S + 3 * quarter_s, MIDNIGHT_S + 5 * quarter_s) == pytest.approx(200)
    assert series.mean(MIDNIGHT_S + 3 * quarter_s, MIDNIGHT_S + 7 * quarter_s) == pytest.approx(250)
    assert series.mean(MIDNIGHT_S, MIDNIGHT_S + 2 * HOUR_S) == pytest.approx(200)


@pytest.mark.parametrize("seconds", [(-1.0, 10.0), (7195.0, 7205.0), (8000.0, 8000.0)])
def test_what_the_series_does_not_reach_is_refused(seconds: tuple[float, float]) -> None:
    series = hours(100.0, 300.0)
    with pytest.raises(ConfigError, match="2023-04-17 00:00 UTC to 2023-04-17 02:00 UTC"):
        series.mean(MIDNIGHT_S + seconds[0], MIDNIGHT_S + seconds[1])


def test_a_constant_holds_for_ever() -> None:
    series = IntensitySeries.constant(350)
    assert series.mean(0, 1e12) == 350
    assert series.means(np.array([0.0, 1.0, 5.0])).tolist() == [350, 350]


ELECTRICITY_MAPS = [
    {
        "zone": "DE",
        "carbonIntensity": value,
        "datetime": f"2023-04-17T{hour:02}:00:00.000Z",
        "emissionFactorType": "lifecycle",
        "isEstimated": hour == 1,
        "estimationMethod": None,
    }
    for hour, value in enumerate((413, 420, 399))
]


@pytest.mark.parametrize("key", ["history", "data"])
def test_electricity_maps(tmp_path: Path, key: str) -> None:
    path = written(tmp_path, {"zone": "DE", key: ELECTRICITY_MAPS})
    series = read_intensity(path)
    assert series.g_per_kwh.tolist() == [413, 420, 399]
    assert (series.start_s, series.end_s) == (MIDNIGHT_S, MIDNIGHT_S + 3 * HOUR_S)
    assert (series.kind, series.scope, series.zone) == ("average", "life cycle", "DE")
    assert series.estimated_share == pytest.approx(1 / 3)
    assert not series.is_forecast


def test_a_forecast_says_so(tmp_path: Path) -> None:
    entries = [
        {"carbonIntensity": 300, "datetime": "2023-04-17T00:00:00.000Z"},
        {"carbonIntensity": 310, "datetime": "2023-04-17T01:00:00.000Z"},
    ]
    series = read_intensity(written(tmp_path, {"zone": "DE", "forecast": entries}))
    assert series.is_forecast
    assert math.isnan(series.estimated_share)


def test_the_portal_has_both_scopes(tmp_path: Path) -> None:
    text = (
        "Datetime (UTC),Country,Zone name,Zone id,Carbon intensity gCO₂eq/kWh (direct),"
        "Carbon intensity gCO₂eq/kWh (Life cycle),Carbon-free energy percentage (CFE%),"
        "Data source,Data estimated,Data estimation method\n"
        "2023-04-17 00:00:00,Germany,Germany,DE,350.1,413.2,40,x.org,false,\n"
        "2023-04-17 01:00:00,Germany,Germany,DE,360.1,423.2,40,x.org,true,guess\n"
    )
    path = written(tmp_path, text, "DE_2023_hourly.csv")
    assert read_intensity(path).g_per_kwh.tolist() == [413.2, 423.2]
    direct = read_intensity(path, Reading(scope="direct"))
    assert direct.g_per_kwh.tolist() == [350.1, 360.1]
    assert (direct.scope, direct.zone, direct.estimated_share) == ("direct", "DE", 0.5)


def watttime(signal: str = "co2_moer", units: str = "lbs_co2_per_mwh") -> dict[str, Any]:
    return {
        "data": [
            {"point_time": "2023-04-17T00:00:00+00:00", "value": 1000.0},
            {"point_time": "2023-04-17T00:05:00+00:00", "value": 870.0},
        ],
        "meta": {
            "data_point_period_seconds": 300,
            "region": "CAISO_NORTH",
            "signal_type": signal,
            "units": units,
        },
    }


def test_watttime_is_marginal_and_in_pounds(tmp_path: Path) -> None:
    series = read_intensity(written(tmp_path, watttime()))
    assert series.g_per_kwh == pytest.approx([453.59237, 394.6253619])
    assert (series.kind, series.zone) == ("marginal", "CAISO_NORTH")
    assert series.end_s == MIDNIGHT_S + 600


def test_what_is_no_carbon_of_watttime_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="health_damage"):
        read_intensity(written(tmp_path, watttime("health_damage")))
    with pytest.raises(ConfigError, match="kg_per_mwh"):
        read_intensity(written(tmp_path, watttime(units="kg_per_mwh")))


def test_kinds_are_never_mixed(tmp_path: Path) -> None:
    path = written(tmp_path, watttime())
    with pytest.raises(ConfigError, match="these intensities are marginal"):
        read_intensity(path, Reading(kind="average"))


def test_the_uk_has_half_hours_and_what_did_not_happen_yet(tmp_path: Path) -> None:
    entries = [
        {
            "from": "2023-04-17T00:00Z",
            "to": "2023-04-17T00:30Z",
            "intensity": {"forecast": 200, "actual": 212, "index": "moderate"},
        },
        {
            "from": "2023-04-17T00:30Z",
            "to": "2023-04-17T01:00Z",
            "intensity": {"forecast": 198, "actual": None, "index": "moderate"},
        },
    ]
    series = read_intensity(written(tmp_path, {"data": entries}))
    assert series.g_per_kwh.tolist() == [212, 198]
    assert (series.zone, series.estimated_share) == ("GB", 0.5)
    assert series.end_s - series.start_s == 3600


def test_the_carbon_aware_sdk_says_no_kind(tmp_path: Path) -> None:
    entries = [
        {"location": "eastus", "time": f"2023-04-17T0{hour}:00:00+00:00", "rating": 482.5 + hour}
        for hour in range(2)
    ]
    path = written(tmp_path, entries)
    assert read_intensity(path).kind == "unknown"
    assert read_intensity(path, Reading(kind="marginal")).kind == "marginal"
    assert read_intensity(path).g_per_kwh.tolist() == [482.5, 483.5]


def test_energinet_has_two_areas(tmp_path: Path) -> None:
    records = [
        {"Minutes5UTC": f"2023-04-17T00:{minute:02}:00", "PriceArea": area, "CO2Emission": value}
        for minute, value in ((5, 90.0), (0, 80.0))
        for area in ("DK1", "DK2")
    ]
    path = written(tmp_path, {"dataset": "CO2Emis", "records": records})
    with pytest.raises(ConfigError, match="several zones: DK1, DK2"):
        read_intensity(path)
    series = read_intensity(path, Reading(zone="DK2"))
    assert series.g_per_kwh.tolist() == [80, 90]
    assert series.end_s - series.start_s == 600


def test_the_eia_gives_fuels(tmp_path: Path) -> None:
    entries = [
        {"period": "2023-04-17T01", "respondent": "CISO", "fueltype": fuel, "value": value}
        for fuel, value in (("NG", "5000"), ("SUN", "4000"), ("COL", "1000"), ("WAT", "-50"))
    ]
    series = read_intensity(written(tmp_path, {"response": {"data": entries}}))
    pounds = 5000 * 0.96 + 1000 * 2.31
    assert series.g_per_kwh == pytest.approx([pounds / 10000 * 453.59237])
    assert series.start_s == MIDNIGHT_S  # the hour that ends at one


PLAIN = "time,intensity\n2023-04-17T00:00Z,0.4\n2023-04-17T01:00Z,0.5\n"


@pytest.mark.parametrize(
    "stamps", [("2025-01-01 08:00", "2025-01-01 09:00"), ("1/1/2025 8:00", "1/1/2025 9:00:00 AM")]
)
def test_the_eias_own_intensity_is_of_the_hour_before_and_in_pounds(
    tmp_path: Path, stamps: tuple[str, str]
) -> None:
    path = tmp_path / "CISO.csv"
    head = "BA,UTC time,Local time,CO2 Emissions Intensity for Consumed Electricity\n"
    path.write_text(
        head + "".join(f"CISO,{t},x,{v}\n" for t, v in zip(stamps, (0.5, 0.7), strict=True))
    )
    series = read_intensity(path)
    assert series.g_per_kwh.tolist() == pytest.approx([226.796185, 317.514659])
    assert series.start_s == datetime(2025, 1, 1, 7, tzinfo=UTC).timestamp()
    assert (series.kind, series.scope, series.zone) == ("average", "direct", "CISO")
    assert series.estimated_share == 1
    with pytest.raises(ConfigError, match="it is of CISO"):
        read_intensity(path, Reading(zone="ERCO"))


def test_a_plain_csv_needs_its_unit(tmp_path: Path) -> None:
    path = written(tmp_path, PLAIN, "own.csv")
    with pytest.raises(ConfigError, match="unit of its intensities is not declared"):
        read_intensity(path)
    assert read_intensity(path, Reading(unit="kg/kWh")).g_per_kwh == pytest.approx([400, 500])


def test_a_unit_that_cannot_be_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path, PLAIN.replace("0.4", "400"), "own.csv")
    with pytest.raises(ConfigError, match=r"own.csv:2: 400000 g/kWh .* is the unit right"):
        read_intensity(path, Reading(unit="kg/kWh"))


@pytest.mark.parametrize(
    ("lines", "problem"),
    [
        ("2023-04-17T00:00Z,-1\n2023-04-17T01:00Z,2", "-1 g/kWh"),
        (
            "2023-04-17T00:00Z,1\n2023-04-17T01:00Z,2\n2023-04-17T03:00Z,2",
            "no intensity at 2023-04-17 02:00",
        ),
        (
            "2023-04-17T00:00Z,1\n2023-04-17T01:00Z,\n2023-04-17T02:00Z,2",
            "no intensity at 2023-04-17 01:00",
        ),
        (
            "2023-04-17T00:00Z,1\n2023-04-17T00:00Z,2\n2023-04-17T01:00Z,2",
            "there twice, with 1 and 2",
        ),
        (
            "2023-04-17T00:00Z,1\n2023-04-17T01:00Z,1\n2023-04-17T02:00Z,2\n2023-04-17T02:30Z,2",
            "not a whole number of steps of 3600 s",
        ),
        ("2023-04-17T00:00Z,1\nyesterday,2", "'yesterday' is no time"),
        ("2023-04-17T00:00,1\n2023-04-17T01:00,2", "has no time zone"),
        ("2023-04-17T00:00Z,much\n2023-04-17T01:00Z,2", "'much' is no intensity"),
    ],
)
def test_what_is_no_series_is_refused(tmp_path: Path, lines: str, problem: str) -> None:
    path = written(tmp_path, "time,intensity\n" + lines + "\n", "own.csv")
    with pytest.raises(ConfigError, match=problem):
        read_intensity(path, Reading(unit="g/kWh"))


def test_gaps_can_be_held_over_and_count_as_estimated(tmp_path: Path) -> None:
    lines = "time,i\n2023-04-17T00:00Z,10\n2023-04-17T01:00Z,20\n2023-04-17T03:00Z,40\n"
    path = written(tmp_path, lines, "own.csv")
    series = read_intensity(path, Reading(unit="g/kWh", gaps="hold"))
    assert series.g_per_kwh.tolist() == [10, 20, 20, 40]
    assert series.estimated_share == 0.25


def test_clocks_put_back_give_an_hour_twice(tmp_path: Path) -> None:
    local = ["01:00", "02:00", "02:00", "03:00"]
    lines = "".join(f"2023-10-29T{time},{10 * i}\n" for i, time in enumerate(local))
    path = written(tmp_path, "time,i\n" + lines, "own.csv")
    series = read_intensity(path, Reading(unit="g/kWh", time_zone="Europe/Berlin"))
    assert series.g_per_kwh.tolist() == [0, 10, 20, 30]
    assert series.end_s - series.start_s == 4 * HOUR_S


def test_an_hour_that_did_not_happen_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path, "time,i\n2023-03-26T01:00,1\n2023-03-26T02:00,1\n", "own.csv")
    with pytest.raises(ConfigError, match="did not happen in Europe/Berlin"):
        read_intensity(path, Reading(unit="g/kWh", time_zone="Europe/Berlin"))


@pytest.mark.parametrize("content", ["{}", "[]", '{"a": 1', "only\none\n", '[{"rating": 3}]'])
def test_files_of_no_known_format_are_refused(tmp_path: Path, content: str) -> None:
    with pytest.raises(ConfigError):
        read_intensity(written(tmp_path, content))


def test_made_up_intensities_have_their_mean_their_shape_and_their_label() -> None:
    series = synthetic_intensity(300.0, 364, seed=1)
    assert series.g_per_kwh.mean() == pytest.approx(300)
    assert series.g_per_kwh.min() > 0
    assert series.is_synthetic
    by_hour = series.g_per_kwh.reshape(-1, 24).mean(axis=0)
    assert by_hour[11:14].mean() < 0.9 * by_hour[[0, 1, 23]].mean()
    by_day = series.g_per_kwh.reshape(-1, 7, 24).mean(axis=(0, 2))
    assert by_day[5:].mean() < by_day[:5].mean()
    rest = series.g_per_kwh - np.tile(by_hour, 364)
    assert np.corrcoef(rest[1:], rest[:-1])[0, 1] == pytest.approx(0.9, abs=0.03)
    assert (synthetic_intensity(300.0, 364, seed=2).g_per_kwh != series.g_per_kwh).any()


def test_the_fit_is_that_of_the_shipped_weeks() -> None:
    script = Path(__file__).parents[2] / "experiments" / "carbon" / "fit_synthetic.py"
    output = subprocess.run(
        [sys.executable, script], check=True, capture_output=True, text=True
    ).stdout
    fitted = [float(word) for word in output.splitlines()[-1].split()[1:]]
    shape = [*DAILY[0], *DAILY[1], WEEKEND, PERSISTENCE, NOISE]
    assert fitted == pytest.approx(shape, abs=1e-3)
