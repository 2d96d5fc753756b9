"""Many logs as one table: per request, above idle, and what is refused."""

from __future__ import annotations

import csv
import errno
import math
import os
from pathlib import Path
from typing import Any

import pytest

from ipa_energy.errors import ConfigError
from ipa_energy.meters.imports.energy_log import COLUMNS, import_run, logs_in, write_table

PERF = """\
 Performance counter stats for 'system wide':

             {package_j:.2f} Joules power/energy-pkg/
              2.00 Joules power/energy-ram/

      10.000000000 seconds time elapsed
"""


def perf_log(path: Path, package_j: float = 98.0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(PERF.format(package_j=package_j))
    return path


def test_joules_per_request_with_and_without_the_idle_share(tmp_path: Path) -> None:
    # 100 J in 10 s, 4 W of them idle: 60 J above idle; 20 requests
    run = import_run(perf_log(tmp_path / "log"), requests=20, idle_power_w=4.0)
    assert run.power_w == pytest.approx(10.0)
    row = run.to_json()
    assert row["joules_per_request"] == pytest.approx(5.0)
    assert row["dynamic_energy_j"] == pytest.approx(60.0)
    assert row["dynamic_joules_per_request"] == pytest.approx(3.0)
    assert (row["quality"], row["format"]) == ("imported", "perf")


def test_what_is_not_known_is_none_and_never_0(tmp_path: Path) -> None:
    row = import_run(perf_log(tmp_path / "log")).to_json()
    absent = ("requests", "joules_per_request", "idle_power_w", "dynamic_energy_j")
    assert all(row[name] is None for name in (*absent, "dynamic_joules_per_request"))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"requests": 0}, "0 requests"),
        ({"idle_power_w": -1.0}, "-1 W"),
        ({"idle_power_w": math.inf}, "inf W"),
        ({"idle_power_w": 10.5}, "less than the idle power of 10.5 W"),
    ],
)
def test_impossible_figures_beside_a_log_are_refused(
    tmp_path: Path, arguments: dict[str, float], says: str
) -> None:
    with pytest.raises(ConfigError, match=says):
        import_run(perf_log(tmp_path / "log"), **arguments)  # type: ignore[arg-type]


def test_joules_above_idle_need_a_duration(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("12.50,Joules,power/energy-pkg/,202367408,100.00,,\n")
    with pytest.raises(ConfigError, match="give it as --duration"):
        import_run(log, idle_power_w=1.0)
    assert import_run(log, idle_power_w=1.0, duration_s=2.5).dynamic_energy_j == pytest.approx(10.0)


def test_folders_are_searched_and_each_log_is_taken_once(tmp_path: Path) -> None:
    one, two = perf_log(tmp_path / "b.txt"), perf_log(tmp_path / "a/c.txt")
    perf_log(tmp_path / ".hidden")
    perf_log(tmp_path / ".git/log")
    assert logs_in([tmp_path]) == [two, one]
    assert logs_in([one, tmp_path]) == [one, two]
    hidden = tmp_path / ".hidden"
    assert logs_in([hidden]) == [hidden]  # named, so it is meant


@pytest.mark.parametrize("name", ["nowhere", "empty"])
def test_a_place_without_logs_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match=name):
        logs_in([tmp_path / name])


@pytest.mark.parametrize("closed", [".", "a", ".git"])
def test_a_folder_that_may_not_be_read_is_not_taken_for_an_empty_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, closed: str
) -> None:
    """Nor is one further down, whose logs would be missing; a hidden one is not looked into."""
    logs = [perf_log(tmp_path / name) for name in ("a/c.txt", "b.txt")]
    perf_log(tmp_path / ".git/log")
    scan = os.scandir

    def refusing(path: str) -> Any:
        if Path(path) == tmp_path / closed:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", refusing)
    if closed == ".git":
        assert logs_in([tmp_path]) == logs
        return
    with pytest.raises(ConfigError, match="may not be read: permission denied") as refused:
        logs_in([tmp_path])
    assert str(tmp_path / closed) in str(refused.value)


def test_a_table_has_a_column_for_each_domain_and_empty_cells(tmp_path: Path) -> None:
    etrace2 = tmp_path / "e"
    etrace2.write_text(
        "# ETRACE2_VERSION=0.1\n# ELAPSED=2.000000\n# ENERGY=30.000000\n"
        "# ENERGY_SOCKET0=20.000000\n# ENERGY_DRAM0=10.000000\n"
    )
    logs = [perf_log(tmp_path / "p"), etrace2]
    out = tmp_path / "table.csv"
    write_table(out, [import_run(log, requests=10) for log in logs])
    with out.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0])[: len(COLUMNS)] == list(COLUMNS)
    assert [row["joules_per_request"] for row in rows] == ["10", "3"]
    assert [row["package_energy_j"] for row in rows] == ["98", ""]
    assert [row["package-0_energy_j"] for row in rows] == ["", "20"]
    assert [row["idle_power_w"] for row in rows] == ["", ""]
    with pytest.raises(ConfigError, match="a file already"):
        write_table(out, [])


def test_a_table_that_cannot_be_written_is_bad_input() -> None:
    with pytest.raises(ConfigError, match="cannot be written"):
        write_table(Path("/dev/null/table.csv"), [])
