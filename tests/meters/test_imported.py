"""Logs of other tools: what they say, and what is not believed."""

from __future__ import annotations

import logging
import math
from pathlib import Path

import pytest

from ipa_energy.errors import ConfigError
from ipa_energy.meters.imports.energy_log import LogFormat, import_energy
from ipa_energy.meters.imports.power_log import PowerLogChoice

# The example of Chameleon's documentation, its child's output shortened: total and parts differ.
ETRACE2 = """\
# ETRACE2_VERSION=0.1
Generating RSA private key, 4096 bit long modulus
.............++
e is 65537 (0x10001)
# ELAPSED=2.579472
# ENERGY=365.788208
# ENERGY_SOCKET0=99.037841
# ENERGY_DRAM0=78.577698
# ENERGY_SOCKET1=109.230103
# ENERGY_DRAM1=80.336548
"""

ETRACE2_ROWS = """\
# ETRACE2_VERSION=0.1
# START_TIME=1700000000.000000
# Time [S]   Power [W]   Energy [J]
0.500  100.000  50.000  \n\
hello1.000  120.000  60.000  \n\
no newline at its end# ELAPSED=1.250000
# ENERGY=30.000000
# ENERGY_SOCKET0=110.000000
# ENERGY_DRAM0=30.000000
"""

FRAMEVIEW = """\
Application,TimeInSeconds,PCAT Power Total(W),GPUOnlyPwr(W) (API),NV Pwr(W) (API),\
CPU Package Power(W)
game.exe,10.0,100,50,90,20
game.exe,10.1,200,50,90,20
game.exe,10.2,NA,50,90,20
game.exe,10.3,200,50,90,20
game.exe,10.3,200,50,90,20
game.exe,10.4,100,50,90,20
"""

PERF = """\
some output of the command

 Performance counter stats for 'system wide':

             12.50 Joules power/energy-pkg/
              2.25 Joules power/energy-ram/

       3.001234567 seconds time elapsed

"""

PERF_JSON = (
    '{"counter-value" : "12.500000", "unit" : "Joules", "event" : "power/energy-pkg/", '
    '"event-runtime" : 202515718, "pcnt-running" : 100.00, "metric-value" : 0.000000, '
    '"metric-unit" : "(null)"}\n'
)


def log(tmp_path: Path, text: str, coding: str = "utf-8") -> Path:
    path = tmp_path / "log"
    path.write_bytes(text.encode(coding))
    return path


# ------------------------------------------------------------------ etrace2


def test_etrace2_is_the_sum_of_sockets_and_memories(tmp_path: Path) -> None:
    path = log(tmp_path, ETRACE2)
    energy = import_energy(path)
    assert energy.domains == {
        "package-0": 99.037841,
        "dram-0": 78.577698,
        "package-1": 109.230103,
        "dram-1": 80.336548,
    }
    assert energy.energy_j == pytest.approx(367.18219)
    assert energy.duration_s == 2.579472
    assert (energy.meter, energy.quality, energy.format) == ("imported", "imported", "etrace2")
    assert energy.source == f"etrace2 0.1: {path}"


def test_etrace2_with_intervals_is_not_taken_for_its_last_interval(tmp_path: Path) -> None:
    energy = import_energy(log(tmp_path, ETRACE2_ROWS))
    assert energy.energy_j == pytest.approx(140.0)
    assert energy.duration_s == 1.25


def test_etrace2_memory_that_stood_still_is_left_out_and_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    text = ETRACE2_ROWS.replace("DRAM0=30.000000", "DRAM0=0.000000")
    with caplog.at_level(logging.WARNING):
        energy = import_energy(log(tmp_path, text))
    assert energy.domains == {"package-0": 110.0}
    assert "dram-0 stood at 0 J" in caplog.text


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("# ELAPSED=2.579472\n", "", "has no ELAPSED"),
        ("# ENERGY=365.788208\n", "", "has no ENERGY"),
        ("# ETRACE2_VERSION=0.1", "# ETRACE2_VERSION=0.2", r"log:1: etrace2 version '0\.2'"),
        ("# ENERGY_DRAM1=80.336548\n", "", "a line is missing"),
        ("80.336548\n", "80.3365", r"log:10: ENERGY_DRAM1='80\.3365'"),
        ("80.336548\n", "", "log:10: ENERGY_DRAM1=''"),
        ("99.037841", "99,037841", r"log:7: ENERGY_SOCKET0='99,037841'.*point"),
        ("99.037841", "-9.037841", r"log:7: ENERGY_SOCKET0='-9\.037841'"),
        ("99.037841", "nan", "log:7"),
        ("99.037841", "99.037841 Wh", "log:7"),
        ("99.037841", "299.037841", "was changed"),
        ("=365.788208", "=375.788208", "was changed"),
        ("SOCKET1", "SOCKET2", "a line is missing"),
        ("2.579472", "0.000000", "ELAPSED is 0 s"),
        ("e is 65537", "# ELAPSED=1.000000\ne is", "second time"),
    ],
)
def test_etrace2_output_that_is_not_whole_is_refused(
    tmp_path: Path, old: str, new: str, words: str
) -> None:
    assert old in ETRACE2
    with pytest.raises(ConfigError, match=words):
        import_energy(log(tmp_path, ETRACE2.replace(old, new)))


def test_etrace2_that_failed_measured_nothing(tmp_path: Path) -> None:
    text = "# ETRACE2_VERSION=0.1\nError: raplreader_init() failed\n"
    with pytest.raises(ConfigError, match="raplreader_init"):
        import_energy(log(tmp_path, text))


def test_etrace2_counter_that_stood_still_is_dead(tmp_path: Path) -> None:
    text = ETRACE2_ROWS.replace("ENERGY=30.000000", "ENERGY=0.000000")
    text = text.replace("110.000000", "0.000000")
    with pytest.raises(ConfigError, match="package-0 stood at 0 J"):
        import_energy(log(tmp_path, text))


def test_etrace2_rows_in_other_units_are_refused(tmp_path: Path) -> None:
    text = ETRACE2_ROWS.replace("Energy [J]", "Energy [Wh]")
    with pytest.raises(ConfigError, match="log:3: columns"):
        import_energy(log(tmp_path, text))


# ------------------------------------------------------------------ logs of power


def test_frameview_board_and_processor_by_trapezoids(tmp_path: Path) -> None:
    energy = import_energy(log(tmp_path, FRAMEVIEW))
    # Board 100→200 W in 0.1 s, 200 W for 0.2 s over the missing sample, 200→100 W in 0.1 s.
    assert energy.domains == pytest.approx({"gpu-board": 15 + 40 + 15, "cpu-package": 8.0})
    assert energy.duration_s == pytest.approx(0.4)
    assert energy.quality == "imported"
    assert "PCAT Power Total(W)" in energy.source


@pytest.mark.parametrize(
    ("start_s", "end_s", "expected_j"),
    [(10.05, 10.35, 8.75 + 40 + 8.75), (10.15, 10.25, 20.0), (10.02, 10.04, 2.6)],
)
def test_a_window_of_a_log_is_cut_between_samples(
    tmp_path: Path, start_s: float, end_s: float, expected_j: float
) -> None:
    choice = PowerLogChoice(start_s=start_s, end_s=end_s)
    energy = import_energy(log(tmp_path, FRAMEVIEW), choice=choice)
    assert energy.domains["gpu-board"] == pytest.approx(expected_j)
    assert energy.duration_s == pytest.approx(end_s - start_s)


def test_without_pcat_the_boards_own_sensor_is_taken(tmp_path: Path) -> None:
    rows = [line.split(",") for line in FRAMEVIEW.splitlines()]
    for row in rows[1:]:
        row[2] = "NA"
    energy = import_energy(log(tmp_path, "\n".join(",".join(row) for row in rows)))
    assert energy.domains["gpu-board"] == pytest.approx(36.0)


def test_columns_are_summed_over_the_time_they_share(tmp_path: Path) -> None:
    text = "TimeInSeconds,A(W),B(W)\n0,10,NA\n1,10,5\n2,10,5\n3,NA,5\n"
    choice = PowerLogChoice(power_columns=["A(W)", "B(W)"])
    energy = import_energy(log(tmp_path, text), choice=choice)
    assert energy.domains == pytest.approx({"A(W)": 10.0, "B(W)": 5.0})
    assert energy.duration_s == 1.0
    beyond = PowerLogChoice(power_columns=["A(W)", "B(W)"], start_s=0)
    with pytest.raises(ConfigError, match="within 1 to 2 s"):
        import_energy(log(tmp_path, text), choice=beyond)


@pytest.mark.parametrize("coding", ["utf-8", "utf-8-sig", "utf-16"])
def test_users_name_the_columns_of_other_logs(tmp_path: Path, coding: str) -> None:
    text = "Elapsed Time (ms),GPU Board Power (mW),Load (%)\r\n0,1000,5\r\n500,3000,5\r\n"
    path = log(tmp_path, text, coding)
    choice = PowerLogChoice(time_column="Elapsed Time (ms)", power_columns=["GPU Board Power (mW)"])
    energy = import_energy(path, "frameview", choice=choice)
    assert energy.energy_j == pytest.approx(1.0)
    assert energy.duration_s == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("10.1,200", "10.1,two", r"log:3: PCAT Power Total\(W\) is 'two'"),
        ("10.1,200", "10.1,nan", "log:3"),
        ("10.1,200", "10.1,-200", "log:3: .* is -200 W"),
        ("10.1,200", '"10,1",200', "log:3: TimeInSeconds is '10,1'"),
        ("10.1,200", "10,1,200", "log:3: 7 fields"),
        ("10.1,200", "9.1,200", "log:3: time runs backwards"),
        ("game.exe,10.4,100,50,90,20\n", "game.exe,10.4,1", "log:7: 3 fields"),
        ("game.exe,10.4", "game.exe,99", r"no sample from 10\.3 to 99 s"),
        ("PCAT Power Total(W)", "NV Pwr(W) (API)", "log:1: 2 columns"),
    ],
)
def test_a_log_of_power_that_cannot_be_read_is_refused(
    tmp_path: Path, old: str, new: str, words: str
) -> None:
    assert old in FRAMEVIEW
    with pytest.raises(ConfigError, match=words):
        import_energy(log(tmp_path, FRAMEVIEW.replace(old, new)))


@pytest.mark.parametrize(
    ("text", "choice", "words"),
    [
        ("t;p\n0;1\n1;1\n", PowerLogChoice(), "separated by ';'"),
        ("a,b\n", PowerLogChoice(), "no rows"),
        ("a,b\n1,2\n2,3\n", PowerLogChoice(), "no column 'TimeInSeconds'.*allowed: a, b"),
        ("TimeInSeconds,b\n1,2\n2,3\n", PowerLogChoice(), "name the power columns"),
        (FRAMEVIEW, PowerLogChoice(power_columns=["Power"]), "no column 'Power'"),
        ("TimeInSeconds,P(J)\n1,2\n2,3\n", PowerLogChoice(power_columns=["P(J)"]), "is in J"),
        ("T (h),P\n1,2\n2,3\n", PowerLogChoice(time_column="T (h)", power_columns=["P"]), "in h"),
        (FRAMEVIEW, PowerLogChoice(power_columns=["NV Pwr(W) (API)"] * 2), "one twice"),
        (FRAMEVIEW, PowerLogChoice(start_s=9.9), r"within 10 to 10\.4 s"),
        (FRAMEVIEW, PowerLogChoice(end_s=10.5), "not within"),
        (FRAMEVIEW, PowerLogChoice(start_s=10.2, end_s=10.2), "not within"),
        ("TimeInSeconds,P\n1,0\n2,0\n", PowerLogChoice(power_columns=["P"]), "stays at 0 W"),
        ("TimeInSeconds,P\n1,5\n", PowerLogChoice(power_columns=["P"]), "fewer than two"),
    ],
)
def test_a_log_of_power_without_a_figure_is_refused(
    tmp_path: Path, text: str, choice: PowerLogChoice, words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        import_energy(log(tmp_path, text), "frameview", choice=choice)


# ------------------------------------------------------------------ perf


def test_perf_text_tells_joules_and_length(tmp_path: Path) -> None:
    energy = import_energy(log(tmp_path, PERF))
    assert energy.domains == {"package": 12.5, "dram": 2.25}
    assert energy.duration_s == pytest.approx(3.001234567)
    assert energy.source.startswith("perf stat (text): ")


def test_perf_json_does_not_tell_its_length(tmp_path: Path) -> None:
    path = log(tmp_path, PERF_JSON)
    assert math.isnan(import_energy(path).duration_s)
    assert import_energy(path, duration_s=2.5).power_w == pytest.approx(5.0)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("<not supported>,Joules,power/energy-psys/u,0,100.00,,\n", "not supported"),
        ("0.00,Joules,power/energy-psys/,202367408,100.00,,\n", "did not count"),
        (PERF.replace("12.50", "0.00"), "package stood at 0"),
        (PERF.replace("Joules", "Watts"), "Watts"),
        (PERF_JSON[:60], "log:1"),
    ],
)
def test_perf_logs_without_a_figure_are_refused(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        import_energy(log(tmp_path, text), "perf")


def test_perf_memory_that_was_not_counted_is_left_out_and_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        energy = import_energy(log(tmp_path, PERF.replace("2.25", "0.00")))
    assert energy.domains == {"package": 12.5}
    assert "dram stood at 0.00 J" in caplog.text


# ------------------------------------------------------------------ which format


@pytest.mark.parametrize(
    ("text", "expected"),
    [(ETRACE2, "etrace2"), (ETRACE2_ROWS, "etrace2"), (FRAMEVIEW, "frameview"), (PERF, "perf")],
)
def test_the_format_is_told_from_the_text(tmp_path: Path, text: str, expected: LogFormat) -> None:
    assert import_energy(log(tmp_path, text)).format == expected


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "empty"),
        (" \n", "empty"),
        ("hello\n", "no known log"),
        (ETRACE2 + PERF, "may be etrace2, perf"),
        ("\x00\x81\xff", "no known log|cannot read"),
    ],
)
def test_a_log_of_no_known_format_is_refused(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        import_energy(log(tmp_path, text, "latin-1"))


def test_a_log_that_cannot_be_read_is_refused_with_its_path(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.log"):
        import_energy(tmp_path / "none.log")
    with pytest.raises(ConfigError, match="cannot read"):
        import_energy(tmp_path)


def test_options_of_another_format_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="do not go with etrace2"):
        import_energy(log(tmp_path, ETRACE2), choice=PowerLogChoice())
    with pytest.raises(ConfigError, match="duration"):
        import_energy(log(tmp_path, ETRACE2), duration_s=1.0)
    with pytest.raises(ConfigError, match="tells its duration"):
        import_energy(log(tmp_path, PERF), duration_s=1.0)
    with pytest.raises(ConfigError, match="more than 0"):
        import_energy(log(tmp_path, PERF_JSON), duration_s=0.0)
