"""Columns that a profile may have: resources, labels and sources, absent from all others."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from ipa_energy.config import PipelineConfig
from ipa_energy.errors import ConfigError
from ipa_energy.planning.stages import stages_from_rows
from ipa_energy.profile_table.profile_csv import append_rows, read_profile, write_profile
from ipa_energy.profile_table.profile_row import COLUMNS, ProfileRow

PLAIN = ProfileRow(
    "classify", "resnet18", "cpu", 1.0, 0.0, 1, 1, 5.0, 0.1, 0.118, 8.5, 0.69, 1.5, 2.25, 1.95,
    0.05, 3, "rapl", "measured",
)  # fmt: skip
BOARD = dataclasses.replace(
    PLAIN,
    hardware="jetson-nano",
    cpu_cores=0.0,
    resource="board",
    resource_units=1.0,
    clock_mhz=921.6,
    power_cap_w=10.0,
    precision="fp16",
    embodied_g_per_hour=1.25,
    source="MLPerf Tiny 1.0, closed",
)


def written(path: Path, *rows: ProfileRow) -> list[str]:
    write_profile(path, rows)
    return path.read_text(encoding="utf-8").splitlines()


def refused(path: Path, **changes: object) -> str:
    with pytest.raises(ConfigError) as caught:
        write_profile(path, [dataclasses.replace(BOARD, **changes)])  # type: ignore[arg-type]
    return str(caught.value)


def test_a_profile_without_them_has_todays_header(tmp_path: Path) -> None:
    assert written(tmp_path / "p.csv", PLAIN)[0] == ",".join(COLUMNS)


def test_only_columns_that_some_row_fills_are_written(tmp_path: Path) -> None:
    capped = dataclasses.replace(PLAIN, batch=2, power_cap_w=15.0)
    lines = written(tmp_path / "p.csv", PLAIN, capped)
    assert lines[0] == ",".join((*COLUMNS, "power_cap_w"))
    assert [line.rpartition(",")[2] for line in lines[1:]] == ["", "15"]


def test_they_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "p.csv"
    write_profile(path, [PLAIN, BOARD])
    assert repr(read_profile(path)) == repr([PLAIN, BOARD])
    append_rows(path, [dataclasses.replace(BOARD, batch=2)])
    assert read_profile(path)[2].source == BOARD.source
    with pytest.raises(ConfigError, match="another header"):
        append_rows(path, [dataclasses.replace(PLAIN, batch=2)])


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"clock_mhz": 0.0}, "clock_mhz is 0"),
        ({"power_cap_w": -1.0}, "power_cap_w is -1"),
        ({"resource_units": 0.0}, "resource_units is 0"),
        ({"embodied_g_per_hour": -1.0}, "embodied_g_per_hour is -1"),
        ({"precision": "fp\n16"}, "precision is"),
        ({"resource": ""}, "resource_units without resource"),
        ({"resource_units": float("nan")}, "resource without resource_units"),
        ({"resource": "gpu"}, "write its units as gpu_share"),
        ({"resource": "", "resource_units": float("nan")}, "cpu_cores and gpu_share are both 0"),
    ],
)
def test_what_they_may_hold(tmp_path: Path, changes: dict[str, object], says: str) -> None:
    assert says in refused(tmp_path / "p.csv", **changes)


def test_the_same_entry_with_another_label_is_no_repetition(tmp_path: Path) -> None:
    path = tmp_path / "p.csv"
    write_profile(path, [BOARD, dataclasses.replace(BOARD, clock_mhz=614.4)])
    assert len(read_profile(path)) == 2
    write_profile(path, [BOARD, BOARD])
    with pytest.raises(ConfigError, match=r"clock_mhz 921\.6, .* repeats line 2"):
        read_profile(path)


def test_accuracy_may_differ_by_precision_alone(tmp_path: Path) -> None:
    path = tmp_path / "p.csv"
    write_profile(path, [BOARD, dataclasses.replace(BOARD, precision="int8", accuracy=0.68)])
    assert [row.accuracy for row in read_profile(path)] == [0.69, 0.68]
    write_profile(path, [BOARD, dataclasses.replace(BOARD, clock_mhz=614.4, accuracy=0.68)])
    with pytest.raises(ConfigError, match="has accuracy"):
        read_profile(path)


def one_stage() -> PipelineConfig:
    return PipelineConfig.model_validate(
        {
            "pipeline_name": "classifier",
            "nodes": [{"node_name": "resnet"}],
            "task_name": ["classify"],
            "alpha": 1,
            "beta": 1,
        }
    )


def test_rows_that_differ_in_a_label_are_options_of_their_own() -> None:
    slow = dataclasses.replace(BOARD, clock_mhz=614.4, dynamic_energy_j=1.0)
    again = dataclasses.replace(BOARD, load_rps=10.0, dynamic_energy_j=1.7)
    (stage,) = stages_from_rows([BOARD, slow, again], one_stage())
    assert [option.dynamic_energy_j for option in stage.options] == [1.6, 1.0]


def test_figures_by_request_class_are_no_options_to_choose_between() -> None:
    rows = [dataclasses.replace(PLAIN, request_class=name) for name in ("short", "long")]
    with pytest.raises(ConfigError, match="long, short"):
        stages_from_rows(rows, one_stage())
    (stage,) = stages_from_rows(rows[:1], one_stage())
    assert len(stage.options) == 1
