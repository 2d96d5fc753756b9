"""The shipped profiles of edge boards against the figures that MLPerf publishes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from experiment_scripts import script

from ipa_energy.profile_table.profile_csv import read_profile

ROOT = Path(__file__).parent.parent.parent
PROFILES = ROOT / "configs" / "profiles"
mlperf = script("profiles/mlperf/make_profiles")


def test_a_published_run_by_hand() -> None:
    """v2.0, rpi4-tflite: 0.455491 and 0.454812 J in two runs, 12.89 a second, 2.89 W idle."""
    rows = read_profile(PROFILES / "mlperf-rpi4.csv")
    (row,) = (
        row
        for row in rows
        if (row.hardware, row.variant)
        == ("rpi4-tflite-v2.7.1-ruy", "efficientnet-lite0-non-quantized")
    )
    assert row.joules_per_request == pytest.approx((0.455491 + 0.454812) / 2, rel=1e-5)
    assert row.dynamic_energy_j == pytest.approx(row.joules_per_request - 2.89 / 12.89, rel=1e-5)
    assert row.energy_ci95_j == pytest.approx(12.7062 * (0.455491 - 0.454812) / 2, rel=1e-3)
    assert (row.throughput_rps, row.idle_power_w, row.accuracy) == (12.89, 2.89, 0.75068)
    assert (row.resource, row.resource_units, row.quality) == ("rpi4", 1, "measured")


def test_failed_readings_of_the_analyser_are_not_in_the_joules() -> None:
    """v3.0, firefly-armnn-v22.11-neon, efficientnet-lite1: 214 of 600 readings of the ranging run
    are −1 W; the others' mean is 5.6782 W at 29.36 a second. With them it was 0.1123 J.
    """
    rows = read_profile(PROFILES / "mlperf-firefly.csv")
    (row,) = (
        row
        for row in rows
        if (row.hardware, row.variant)
        == ("firefly-armnn-v22.11-neon", "efficientnet-lite1-non-quantized")
    )
    ranging, testing = 5.6782 / 29.36, 5.7487 / 29.12
    assert row.joules_per_request == pytest.approx((ranging + testing) / 2, rel=1e-3)
    assert row.energy_ci95_j == pytest.approx(12.7062 * (testing - ranging) / 2, rel=0.05)


def test_the_shipped_profiles_are_what_the_script_makes(tmp_path: Path) -> None:
    rows = mlperf.read_table()
    for board in mlperf.CORES_OF_BOARD:
        name = f"mlperf-{board}.csv"
        mlperf.write_files(tmp_path / name, [row for row in rows if row.resource == board])
        assert (tmp_path / name).read_bytes() == (PROFILES / name).read_bytes()
    mlperf.write_files(tmp_path / "mlperf-boards.csv", rows)
    shipped = (PROFILES / "mlperf-boards.csv").read_bytes()
    assert (tmp_path / "mlperf-boards.csv").read_bytes() == shipped
    assert len(rows) == 2444


@pytest.mark.parametrize("path", sorted(PROFILES.glob("mlperf-*.meta.json")), ids=lambda p: p.stem)
def test_the_notice_travels_with_every_profile(path: Path) -> None:
    meta = json.loads(path.read_text())
    assert "not verified by MLCommons Association" in meta["notice"]
    assert "registered trademarks" in meta["notice"]
    assert meta["licence"].startswith("Apache-2.0")
    assert meta["meter"]["quality"] == "measured"
