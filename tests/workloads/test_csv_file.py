from pathlib import Path

import pytest

from ipa_energy.errors import ConfigError
from ipa_energy.workloads import csv_workload


def written(folder: Path, text: str | bytes) -> Path:
    path = folder / "trace.csv"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


@pytest.mark.parametrize(
    "text",
    [
        "second,requests\n100,8\n101,0\n102,17\n",
        "requests\n8\n0\n17\n",
        "requests\n8\n0\n17",
        "second , requests\r\n0, 8\r\n1, 0\r\n\r\n2, 17\r\n\r\n",
        b"\xef\xbb\xbfrequests\n8\n0\n17\n",
    ],
)
def test_both_tables_are_read(tmp_path: Path, text: str | bytes) -> None:
    workload = csv_workload(written(tmp_path, text))
    assert workload.counts.tolist() == [8, 0, 17]
    assert workload.name == "trace"
    assert workload.source == str(tmp_path / "trace.csv")


def test_counts_are_damped(tmp_path: Path) -> None:
    workload = csv_workload(written(tmp_path, "requests\n8\n7\n17\n"), damping_factor=8)
    assert workload.counts.tolist() == [1, 0, 2]
    assert workload.source.endswith("trace.csv, damping_factor 8")


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("", None, "the trace is empty"),
        ("\n\n", None, "the trace is empty"),
        ("second,requests\n", None, "a header and no rows"),
        ("54\n41\n", 1, "the header is '54'"),
        ("time,requests\n1,2\n", 1, "the header is 'time,requests'"),
        ("requests,second\n1,2\n", 1, "the header is 'requests,second'"),
        ("requests\n5\n-4\n", 3, "requests is '-4'"),
        ("requests\n5\nfive\n", 3, "requests is 'five'"),
        ("requests\n5.5\n", 2, "requests is '5.5'"),
        ("requests\nNaN\n", 2, "requests is 'NaN'"),
        ("requests\n1e3\n", 2, "requests is '1e3'"),
        ("requests\n1_000\n", 2, "requests is '1_000'"),
        ("requests\n٣\n", 2, "requests is '٣'"),
        ("requests\n1000000001\n", 2, "requests is '1000000001'"),
        ("requests\n" + "9" * 30 + "\n", 2, "requests is '9999"),
        ("second,requests\n1,2\n2,\n", 3, "requests is ''"),
        ("second,requests\nx,2\n", 2, "second is 'x'"),
        ("second,requests\n1,2\n3,2\n", 3, "second 3 after second 1"),
        ("second,requests\n1,2\n1,2\n", 3, "second 1 after second 1"),
        ("second,requests\n2,2\n\n1,2\n", 4, "second 1 after second 2"),
        ("second,requests\n1,2\n2\n", 3, "1 cells under 2 columns"),
        ("requests\n1,2\n", 2, "2 cells under 1 columns"),
    ],
)
def test_a_bad_table_is_refused_with_file_and_line(
    tmp_path: Path, text: str, line: int | None, message: str
) -> None:
    path = written(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        csv_workload(path)
    assert message in str(caught.value)
    assert str(caught.value.where) == (str(path) if line is None else f"{path}:{line}")
    assert caught.value.allowed


def test_a_trace_without_requests_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path, "requests\n7\n3\n")
    with pytest.raises(ConfigError, match=r"damping_factor 8: all 2 seconds have 0 requests"):
        csv_workload(path, 8)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.csv: there is no such trace"):
        csv_workload(tmp_path / "none.csv")


def test_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        csv_workload(tmp_path)


@pytest.mark.parametrize("content", [b"requests\n\xff\xfe\n", b"requests\n" + b"1" * 200_000])
def test_what_is_not_a_text_table_is_refused(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(ConfigError, match="not a CSV text file"):
        csv_workload(written(tmp_path, content))
