"""Logs as users have them, whose true joules are known: perf's, etrace2's, FrameView's."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from ipa_energy.cli import main
from ipa_energy.errors import ConfigError
from ipa_energy.meters.imports.energy_log import import_energy

CASES = Path(__file__).with_name("cases")


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "log"
    path.write_text(text)
    return path


# ------------------------------------------------------------------ several runs in one file


@pytest.mark.parametrize("name", ["perf-appended.txt", "perf-training-runs.txt", "perf-loop.csv"])
def test_many_runs_are_never_summed_over_the_seconds_of_one(name: str) -> None:
    with pytest.raises(ConfigError, match="more than one run") as caught:
        import_energy(CASES / name, duration_s=10.0 if name.endswith("csv") else None)
    assert name in str(caught.value)
    assert "one run a file" in str(caught.value)


def test_json_lines_of_two_runs_are_refused_too(tmp_path: Path) -> None:
    line = (CASES / "perf-summary.json").read_text().splitlines(keepends=True)[-1]
    assert import_energy(written(tmp_path, line)).energy_j == pytest.approx(122.27)
    with pytest.raises(ConfigError, match="second time"):
        import_energy(written(tmp_path, line * 2))


def test_an_event_that_was_named_twice_is_not_added_twice(tmp_path: Path) -> None:
    text = "10.00,Joules,power/energy-pkg/,1,100.00,,\n10.01,Joules,power/energy-pkg/u,1,100.00,,\n"
    with pytest.raises(ConfigError, match="counted twice"):
        import_energy(written(tmp_path, text))


def test_two_runs_by_intervals_are_told_by_their_time(tmp_path: Path) -> None:
    rows = "     1.000000001,5.00,Joules,power/energy-pkg/,1,100.00,,\n"
    rows += "     2.000000001,5.00,Joules,power/energy-pkg/,1,100.00,,\n"
    assert import_energy(written(tmp_path, rows)).duration_s == pytest.approx(2.0)
    with pytest.raises(ConfigError, match="second time"):
        import_energy(written(tmp_path, rows + rows.replace("000001", "000007")))


# ------------------------------------------------------------------ intervals and their summary


@pytest.mark.parametrize(
    ("name", "joules", "seconds"),
    [
        ("perf-interval.json", 150.0, 3.0003),
        ("perf-interval-by-socket.txt", 180.0, 2.003517973),
        ("perf-summary.txt", 152.48, 2.501872431),
        ("perf-summary.json", 122.27, 2.001173399),
        ("perf-summary.csv", 122.27, 2.001131789),
    ],
)
def test_intervals_add_up_in_joules_and_in_seconds(
    name: str, joules: float, seconds: float
) -> None:
    found = import_energy(CASES / name)
    assert found.energy_j == pytest.approx(joules)
    assert found.duration_s == pytest.approx(seconds)


@pytest.mark.parametrize("form", ["json", "csv"])
def test_the_users_own_seconds_stand_where_the_intervals_bear_them_out(form: str) -> None:
    log = CASES / f"perf-summary.{form}"
    assert import_energy(log, duration_s=2.001).power_w == pytest.approx(61.1, abs=0.05)
    with pytest.raises(ConfigError, match="intervals end at 2"):
        import_energy(log, duration_s=20.0)


def test_a_summary_that_is_not_the_sum_is_another_run(tmp_path: Path) -> None:
    text = (CASES / "perf-summary.csv").read_text().replace("122.27", "90.00")
    with pytest.raises(ConfigError, match="more than one run"):
        import_energy(written(tmp_path, text))


def test_idle_power_is_taken_off_over_all_the_intervals(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["import", str(CASES / "perf-interval.json"), "--idle-power", "30", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)["logs"]
    assert row["dynamic_energy_j"] == pytest.approx(150 - 30 * 3.0003)


@pytest.mark.parametrize("joules", ["18446744073.71", "262144.00"])
def test_joules_that_no_power_explains_are_refused(tmp_path: Path, joules: str) -> None:
    text = f"  {joules} Joules power/energy-pkg/\n\n  10.000000000 seconds time elapsed\n"
    with pytest.raises(ConfigError, match="no power explains"):
        import_energy(written(tmp_path, text))


def test_a_run_of_no_length_is_refused(tmp_path: Path) -> None:
    text = "  0.01 Joules power/energy-pkg/\n\n  0.0 seconds time elapsed\n"
    with pytest.raises(ConfigError, match="took 0 s"):
        import_energy(written(tmp_path, text))


# ------------------------------------------------------------------ places without a counter


@pytest.mark.parametrize(("form", "seconds"), [("txt", 1.00221731), ("csv", None), ("json", None)])
def test_a_core_without_a_counter_is_not_one_that_failed(form: str, seconds: float | None) -> None:
    found = import_energy(CASES / f"perf-per-core.{form}")
    assert found.domains == {"package": pytest.approx(41.2)}
    assert math.isnan(found.duration_s) if seconds is None else found.duration_s == seconds


@pytest.mark.parametrize(
    "text",
    [
        "CPU0  41.20 Joules power/energy-pkg/\nCPU1  <not counted> Joules power/energy-pkg/\n",
        "CPU0,41.20,Joules,power/energy-pkg/,1,100.00,,\n"
        "CPU1,<not counted>,Joules,power/energy-pkg/,0,100.00,,\n",
        '{"cpu" : "0", "counter-value" : "41.2", "unit" : "Joules", "event" : "power/energy-pkg/"}'
        '\n{"cpu" : "1", "counter-value" : "<not counted>", "unit" : "Joules", '
        '"event" : "power/energy-pkg/"}\n',
    ],
)
def test_nor_is_a_cpu(tmp_path: Path, text: str) -> None:
    assert import_energy(written(tmp_path, text)).energy_j == pytest.approx(41.2)


def test_cores_that_all_failed_stay_a_failure(tmp_path: Path) -> None:
    text = (CASES / "perf-per-core.csv").read_text().replace("1,41.20", "1,<not counted>")
    with pytest.raises(ConfigError, match="not counted"):
        import_energy(written(tmp_path, text))


# ------------------------------------------------------------------ etrace2


def test_an_hour_between_two_reads_of_a_counter_is_doubted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = CASES / "etrace2-one-hour.txt"
    assert main(["import", str(log), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["logs"][0]["notes"] == [found["warnings"][0].removeprefix(f"{log}: ")]
    assert "3600 s apart" in found["warnings"][0]
    assert "-i 60" in found["warnings"][0]
    short = log.read_text().replace("3600.12", "500.12")
    assert import_energy(written(tmp_path, short)).notes == ()


def test_an_hour_that_was_read_every_minute_is_believed(tmp_path: Path) -> None:
    text = (CASES / "etrace2-one-hour.txt").read_text()
    rows = [f"{60 * i:.3f}  11.000  660.000  \n" for i in range(1, 60)]
    text = text.replace("epoch 90 done\n", "# Time [S]   Power [W]   Energy [J]\n" + "".join(rows))
    found = import_energy(written(tmp_path, text.replace("ENERGY=39428", "ENERGY=660")))
    assert (found.energy_j, found.notes) == (pytest.approx(39428), ())


# ------------------------------------------------------------------ FrameView

COLUMNS = (
    "TimeInSeconds", "PCAT Power Total(W)", "GPUOnlyPwr(W) (API)", "NV Pwr(W) (API)",
    "AMDPwr(W) (API)", "CPU Package Power(W)", "CPU TDP (W)", "Battery Drain Rate(W)",
)  # fmt: skip


def frameview(tmp_path: Path, **powers: object) -> Path:
    """Ten seconds of constant powers; NA where none is given."""
    names = {
        "PCAT Power Total(W)": "pcat", "NV Pwr(W) (API)": "nv", "AMDPwr(W) (API)": "amd",
        "GPUOnlyPwr(W) (API)": "part", "CPU Package Power(W)": "cpu", "CPU TDP (W)": "tdp",
        "Other Pwr(W)": "other",
    }  # fmt: skip
    header = [*COLUMNS, *(["Other Pwr(W)"] if "other" in powers else [])]
    rows = [
        ",".join([f"{i / 10:.1f}", *(str(powers.get(names.get(h, ""), "NA")) for h in header[1:])])
        for i in range(101)
    ]
    return written(tmp_path, "\n".join([",".join(header), *rows, ""]))


def test_an_amd_gpu_is_counted(tmp_path: Path) -> None:
    found = import_energy(frameview(tmp_path, amd=210.5, cpu=64.0, tdp=105))
    assert found.domains == pytest.approx({"gpu-board": 2105.0, "cpu-package": 640.0})
    assert found.notes == ()


@pytest.mark.parametrize(
    ("powers", "joules", "left_out"),
    [
        ({"nv": 90, "part": 50, "cpu": 20}, 1100, None),
        ({"pcat": 100, "nv": 90, "cpu": 20}, 1200, None),
        ({"pcat": 100, "nv": 90, "amd": 30}, 1000, "NV Pwr(W) (API), AMDPwr(W) (API)"),
        ({"nv": 90, "amd": 30, "cpu": 20}, 1100, "AMDPwr(W) (API)"),
        ({"cpu": 20, "other": 70}, 200, "Other Pwr(W)"),
    ],
)
def test_a_power_that_is_not_counted_is_named(
    tmp_path: Path, powers: dict[str, int], joules: float, left_out: str | None
) -> None:
    found = import_energy(frameview(tmp_path, **powers))
    assert found.energy_j == pytest.approx(joules)
    assert len(found.notes) == (left_out is not None)
    assert left_out is None or f"not counted: {left_out}" in found.notes[0]
