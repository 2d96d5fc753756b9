"""The profile CSV: read strictly, written whole, appended line by line."""

from __future__ import annotations

import dataclasses
import logging
import math
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ipa_energy.errors import ConfigError
from ipa_energy.profile_table.profile_csv import append_rows, meta_path, read_profile, write_profile
from ipa_energy.profile_table.profile_row import COLUMNS, ProfileRow
from ipa_energy.records import QUALITIES

HEADER = (
    "stage,variant,hardware,cpu_cores,gpu_share,batch,replicas,load_rps,latency_avg_s,"
    "latency_p99_s,throughput_rps,accuracy,dynamic_energy_j,idle_power_w,joules_per_request,"
    "energy_ci95_j,trials,meter,quality"
)
LINE = "crop,yolov5n,cpu,1,0,1,1,5,0.1,0.118,8.5,0.28,1.5,2.25,1.95,0.05,3,rapl,measured"
ROW = ProfileRow(
    "crop", "yolov5n", "cpu", 1.0, 0.0, 1, 1, 5.0, 0.1, 0.118, 8.5, 0.28, 1.5, 2.25, 1.95, 0.05, 3,
    "rapl", "measured",
)  # fmt: skip
BARE = dataclasses.replace(
    ROW,
    batch=2,
    dynamic_energy_j=math.nan,
    idle_power_w=math.nan,
    joules_per_request=math.nan,
    energy_ci95_j=math.nan,
    meter="",
    quality=None,
)


def line(**cells: str) -> str:
    values = dict(zip(COLUMNS, LINE.split(","), strict=True)) | cells
    return ",".join(values[column] for column in COLUMNS)


def same(first: ProfileRow, second: ProfileRow) -> bool:
    """Equality with NaN equal to NaN."""
    return repr(first) == repr(second)


@pytest.fixture
def profile(tmp_path: Path) -> Callable[..., Path]:
    def write(*lines: str, end: str = "\n") -> Path:
        path = tmp_path / "profile.csv"
        path.write_text("\n".join(lines) + end, encoding="utf-8")
        return path

    return write


def message(path: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        read_profile(path)
    return str(caught.value)


def test_columns_are_the_contract() -> None:
    assert ",".join(COLUMNS) == HEADER


def test_a_line_is_read_as_it_stands(profile: Callable[..., Path]) -> None:
    assert read_profile(profile(HEADER, LINE)) == [ROW]


def test_absent_energy_is_nan_and_none(profile: Callable[..., Path]) -> None:
    empty = dict.fromkeys(COLUMNS[12:16], "") | {"meter": "", "quality": "", "batch": "2"}
    (row,) = read_profile(profile(HEADER, line(**empty)))
    assert same(row, BARE)
    assert not row.has_energy


def test_column_order_bom_crlf_and_blank_lines_do_not_matter(tmp_path: Path) -> None:
    path = tmp_path / "profile.csv"
    names, cells = HEADER.split(","), LINE.split(",")
    text = "\r\n".join([",".join(reversed(names)), "", ",".join(reversed(cells)), ""])
    path.write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert read_profile(path) == [ROW]


def test_idle_row_without_load_needs_no_joules_per_request(profile: Callable[..., Path]) -> None:
    (row,) = read_profile(profile(HEADER, line(load_rps="0", joules_per_request="")))
    assert math.isnan(row.joules_per_request)


def test_mixed_hardware_in_one_allocation_is_fine(profile: Callable[..., Path]) -> None:
    assert len(read_profile(profile(HEADER, LINE, line(hardware="cpu-avx512")))) == 2


@pytest.mark.parametrize(
    ("cells", "parts"),
    [
        ({"stage": ""}, ["stage is empty"]),
        ({"variant": " "}, ["variant is empty"]),
        ({"variant": "a\x07"}, ["variant is", "printable"]),
        ({"cpu_cores": ""}, ["cpu_cores is empty", "cores"]),
        ({"cpu_cores": "-1"}, ["cpu_cores is -1", "≥ 0"]),
        ({"cpu_cores": "0"}, ["cpu_cores and gpu_share are both 0"]),
        ({"gpu_share": "1.5"}, ["gpu_share is 1.5", "0 to 1"]),
        ({"batch": "0"}, ["batch is 0", "an integer ≥ 1"]),
        ({"batch": "-2"}, ["batch is -2", "an integer ≥ 1"]),
        ({"batch": "1.5"}, ["batch is 1.5", "an integer ≥ 1"]),
        ({"batch": "four"}, ["batch is 'four'", "an integer ≥ 1"]),
        ({"replicas": ""}, ["replicas is empty", "an integer ≥ 1"]),
        ({"trials": "0"}, ["trials is 0", "an integer ≥ 1"]),
        ({"load_rps": "-5"}, ["load_rps is -5", "≥ 0"]),
        ({"load_rps": ""}, ["load_rps is empty"]),
        ({"latency_avg_s": "0"}, ["latency_avg_s is 0", "seconds", "> 0"]),
        ({"latency_p99_s": "-0.1"}, ["latency_p99_s is -0.1", "> 0"]),
        ({"latency_p99_s": "nan"}, ["latency_p99_s is 'nan'", "finite"]),
        ({"latency_p99_s": "inf"}, ["latency_p99_s is 'inf'", "finite"]),
        ({"latency_p99_s": "1e999"}, ["latency_p99_s is 1e999", "finite"]),
        ({"latency_p99_s": ""}, ["latency_p99_s is empty"]),
        ({"latency_p99_s": "1_0"}, ["latency_p99_s is '1_0'"]),
        ({"latency_p99_s": "0.09"}, ["latency_p99_s is 0.09 s, below latency_avg_s of 0.1 s"]),
        ({"latency_p99_s": '"0,118"'}, ["'0,118'", "write 0.118"]),
        ({"throughput_rps": "0"}, ["throughput_rps is 0", "requests per second", "> 0"]),
        ({"throughput_rps": "fast"}, ["throughput_rps is 'fast'"]),
        ({"accuracy": "28"}, ["accuracy is 28", "-1 to 1", "percent, write 0.28"]),
        ({"accuracy": "-1.5"}, ["accuracy is -1.5", "-1 to 1"]),
        ({"accuracy": ""}, ["accuracy is empty"]),
        ({"dynamic_energy_j": "-1"}, ["dynamic_energy_j is -1", "joules", "≥ 0"]),
        ({"idle_power_w": "nan"}, ["idle_power_w is 'nan'", "watts"]),
        ({"joules_per_request": "-0.1"}, ["joules_per_request is -0.1", "≥ 0"]),
        ({"energy_ci95_j": "x"}, ["energy_ci95_j is 'x'"]),
        ({"quality": "guessed"}, ["quality is 'guessed'", "measured | estimated | imported"]),
        ({"quality": "Measured"}, ["quality is 'Measured'"]),
        ({"meter": ""}, ["half-filled", "without meter"]),
        ({"quality": ""}, ["half-filled", "without quality"]),
        ({"idle_power_w": ""}, ["half-filled", "without idle_power_w"]),
        ({"joules_per_request": ""}, ["half-filled", "without joules_per_request"]),
        (
            dict.fromkeys(
                ("dynamic_energy_j", "idle_power_w", "joules_per_request", "meter", "quality"), ""
            ),
            ["half-filled", "energy_ci95_j without"],
        ),
    ],
)
def test_bad_cell_is_refused_with_line_column_and_what_is_allowed(
    profile: Callable[..., Path], cells: dict[str, str], parts: list[str]
) -> None:
    path = profile(HEADER, line(variant="fine"), line(**cells))
    told = message(path)
    assert told.startswith(f"{path}:3: ")
    for part in parts:
        assert part in told
    assert "\n" not in told


@pytest.mark.parametrize(
    ("lines", "number", "parts"),
    [
        ([HEADER.replace(",accuracy", ""), LINE], 1, ["missing column accuracy"]),
        ([HEADER.replace("stage,variant,", ""), LINE], 1, ["missing columns stage, variant"]),
        ([HEADER + ",colour", LINE + ",red"], 1, ["unknown column colour"]),
        ([HEADER + ",batch", LINE + ",1"], 1, ["repeated column batch"]),
        ([HEADER, LINE + ",1"], 2, ["20 cells", "19"]),
        ([HEADER, LINE.rpartition(",")[0]], 2, ["18 cells", "19"]),
        ([HEADER, LINE, "", LINE], 4, ["yolov5n", "repeats line 2", "remove"]),
        ([HEADER, LINE, line(batch="1.0", load_rps="5.00")], 3, ["repeats line 2"]),
    ],
)
def test_bad_table_is_refused(
    profile: Callable[..., Path], lines: list[str], number: int, parts: list[str]
) -> None:
    path = profile(*lines)
    told = message(path)
    assert told.startswith(f"{path}:{number}: ")
    for part in parts:
        assert part in told


def test_one_variant_has_one_accuracy(profile: Callable[..., Path]) -> None:
    told = message(profile(HEADER, LINE, line(batch="2", accuracy="0.3")))
    assert "crop yolov5n has accuracy 0.28 and 0.3" in told


def test_all_mistakes_are_told_together(profile: Callable[..., Path]) -> None:
    path = profile(HEADER, line(batch="0", accuracy="28"), line(quality="x"))
    lines = message(path).splitlines()
    assert lines[0] == f"{path}: 3 problems"
    assert [text.split(":")[1] for text in lines[1:]] == ["2", "2", "3"]


def test_files_that_are_no_profile(tmp_path: Path, profile: Callable[..., Path]) -> None:
    assert "no such file" in message(tmp_path / "none.csv")
    assert "this is a folder" in message(tmp_path)
    assert "is empty" in message(profile("", end=""))
    assert "no rows" in message(profile(HEADER))
    assert "not CSV" in message(profile(HEADER, '"a"b,'))
    path = tmp_path / "binary.csv"
    path.write_bytes(b"\xff\xfe\x00")
    assert "not UTF-8" in message(path)


def test_torn_last_line_is_skipped_with_a_warning(
    profile: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    path = profile(HEADER, LINE, line(batch="2")[:-3], end="")
    with caplog.at_level(logging.WARNING):
        assert read_profile(path) == [ROW]
    assert f"{path}:3: a torn last line is skipped" in caplog.text
    whole = profile(HEADER, LINE, end="")
    assert read_profile(whole) == [ROW]


def test_write_then_read(tmp_path: Path) -> None:
    path = tmp_path / "out.csv"
    write_profile(path, [ROW, BARE])
    assert path.read_bytes().startswith(f"{HEADER}\n{LINE}\n".encode())
    assert [same(a, b) for a, b in zip(read_profile(path), [ROW, BARE], strict=True)] == [True] * 2
    assert list(tmp_path.iterdir()) == [path]


def test_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "out.csv"
    write_profile(path, [ROW])

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(ConfigError, match=r"No space left.*free some space"):
        write_profile(path, [BARE])
    assert path.read_text() == f"{HEADER}\n{LINE}\n"
    assert list(tmp_path.iterdir()) == [path]


def test_failed_append_leaves_the_old_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "out.csv"
    append_rows(path, [ROW])

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(ConfigError, match="No space left"):
        append_rows(path, [BARE])
    assert path.read_text() == f"{HEADER}\n{LINE}\n"


@pytest.mark.parametrize("write", [write_profile, append_rows])
def test_the_folder_of_a_profile_is_made(tmp_path: Path, write: Callable[..., None]) -> None:
    write(tmp_path / "none" / "such" / "out.csv", [ROW])
    assert read_profile(tmp_path / "none" / "such" / "out.csv") == [ROW]
    (tmp_path / "file").touch()
    for name in ("file/out.csv", "file/new/out.csv"):
        with pytest.raises(ConfigError, match="cannot be written: Not a directory"):
            write(tmp_path / name, [ROW])


@pytest.mark.parametrize("write", [write_profile, append_rows])
def test_a_row_that_could_not_be_read_is_not_written(
    tmp_path: Path, write: Callable[..., None]
) -> None:
    path = tmp_path / "out.csv"
    with pytest.raises(ConfigError, match=r"row 2 to be written: latency_p99_s is empty"):
        write(path, [ROW, dataclasses.replace(ROW, latency_p99_s=math.nan)])
    assert not path.exists()


def test_numpy_figures_are_written_as_numbers(tmp_path: Path) -> None:
    path = tmp_path / "out.csv"
    figures = dataclasses.replace(
        ROW, latency_avg_s=np.float64(0.1), dynamic_energy_j=np.float64(1.5)
    )
    write_profile(path, [figures])
    assert path.read_text() == f"{HEADER}\n{LINE}\n"


def test_append_writes_the_header_once(tmp_path: Path) -> None:
    path = tmp_path / "out.csv"
    append_rows(path, [ROW])
    append_rows(path, [BARE])
    lines = path.read_text().splitlines()
    assert lines[:2] == [HEADER, LINE]
    assert len(lines) == 3
    assert same(read_profile(path)[1], BARE)


def test_append_refuses_another_header(tmp_path: Path) -> None:
    path = tmp_path / "out.csv"
    path.write_text("a,b\n1,2\n")
    with pytest.raises(ConfigError, match="another header"):
        append_rows(path, [ROW])
    assert path.read_text() == "a,b\n1,2\n"


@pytest.mark.parametrize("kept", range(0, len(HEADER) + len(LINE) + 2, 7))
def test_append_goes_on_after_a_kill_at_any_byte(
    tmp_path: Path, kept: int, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "out.csv"
    whole = f"{HEADER}\n{LINE}\n"
    path.write_text(whole[:kept])
    before = [ROW] if kept >= len(whole) - 1 else []
    assert read_profile(path, partial=True) == before
    caplog.clear()
    append_rows(path, [dataclasses.replace(ROW, batch=4)])
    assert read_profile(path) == [*before, dataclasses.replace(ROW, batch=4)]
    torn = whole[:kept].rpartition("\n")[2]
    assert bool(caplog.text) == (torn not in ("", LINE))


def test_append_keeps_a_whole_last_line_that_only_lacks_its_newline(
    profile: Callable[..., Path],
) -> None:
    path = profile(HEADER, LINE, end="")
    append_rows(path, [BARE])
    assert len(read_profile(path)) == 2


def test_meta_is_beside_the_profile() -> None:
    assert meta_path("configs/profiles/video.csv") == Path("configs/profiles/video.meta.json")


names = st.text(
    st.characters(codec="utf-8", exclude_categories=["C", "Z"]), min_size=1, max_size=12
)
positive = st.floats(min_value=1e-300, max_value=1e300)
at_least_0 = st.floats(min_value=0, max_value=1e300)


@st.composite
def profile_rows(draw: st.DrawFn) -> ProfileRow:
    energy = draw(st.booleans())
    average = draw(positive)
    joules = at_least_0 if energy else st.just(math.nan)
    return ProfileRow(
        stage=draw(names),
        variant=draw(names),
        hardware=draw(names),
        cpu_cores=draw(positive),
        gpu_share=draw(st.floats(min_value=0, max_value=1)),
        batch=draw(st.integers(1, 10**6)),
        replicas=draw(st.integers(1, 100)),
        load_rps=draw(at_least_0),
        latency_avg_s=average,
        latency_p99_s=average * draw(st.floats(min_value=1, max_value=10)),
        throughput_rps=draw(positive),
        accuracy=draw(st.floats(min_value=-1, max_value=1)),
        dynamic_energy_j=draw(joules),
        idle_power_w=draw(joules),
        joules_per_request=draw(joules),
        energy_ci95_j=draw(st.one_of(joules, st.just(math.nan))),
        trials=draw(st.integers(1, 1000)),
        meter=draw(names) if energy else "",
        quality=draw(st.sampled_from(QUALITIES)) if energy else None,
    )


@settings(max_examples=100, deadline=None)
@given(row=profile_rows())
def test_every_row_reads_back_to_the_last_bit(
    row: ProfileRow, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("round") / "profile.csv"
    write_profile(path, [row])
    (again,) = read_profile(path)
    assert same(again, row)


def test_any_damage_ends_in_a_config_error(tmp_path: Path) -> None:
    rng = random.Random(5)
    path = tmp_path / "profile.csv"
    whole = f"{HEADER}\n{LINE}\n{line(batch='2')}\n"
    refused = 0
    for _ in range(300):
        text = list(whole)
        for _ in range(rng.randint(1, 4)):
            text[rng.randrange(len(text))] = rng.choice('\x00\t\n\r ,"-.e9é\u2028')
        path.write_text("".join(text), encoding="utf-8", newline="")
        try:
            assert len(read_profile(path)) <= 2
        except ConfigError as error:
            refused += 1
            assert str(path) in str(error)
    assert refused > 100


@pytest.mark.parametrize(("sign", "name"), [(";", "semicolons"), ("\t", "tabs"), ("|", "bars")])
def test_another_separator_is_called_that(tmp_path: Path, sign: str, name: str) -> None:
    path = tmp_path / "profile.csv"
    path.write_text(sign.join(COLUMNS) + "\n")
    words = f"{path}:1: columns separated by {name}; fix: separate by commas"
    assert message(path) == words


@pytest.mark.parametrize("mode", [0o600, 0o640])
def test_a_profile_written_anew_keeps_its_mode(profile: Callable[..., Path], mode: int) -> None:
    path = profile(",".join(COLUMNS), line())
    path.chmod(mode)
    write_profile(path, read_profile(path))
    assert path.stat().st_mode & 0o777 == mode


def test_what_is_allowed_as_a_header_is_said_once(profile: Callable[..., Path]) -> None:
    text = message(profile("stage,stage,mine", "a,b,c"))
    assert all(word in text for word in ("repeated column stage", "missing", "unknown column mine"))
    assert text.count(",".join(COLUMNS)) == 1
