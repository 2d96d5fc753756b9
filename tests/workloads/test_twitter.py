import io
import os
import tarfile
from pathlib import Path

import pytest

from ipa_energy.config import TwitterWindow
from ipa_energy.errors import ConfigError, UnavailableError
from ipa_energy.workloads import twitter_workload
from ipa_energy.workloads.trace_files import ARCHIVE_NAME, TEXT_NAME, TRACE_FOLDER

TRACE = b"16 17 8 0 24 9 "


def window(start: int, end: int, damping_factor: int | None = None) -> TwitterWindow:
    return TwitterWindow(start=start, end=end, damping_factor=damping_factor)


def checkout(home: Path, *, text: bytes | None = None, archive: bytes | None = None) -> Path:
    folder = home / TRACE_FOLDER
    folder.mkdir(parents=True)
    if text is not None:
        (folder / TEXT_NAME).write_bytes(text)
    if archive is not None:
        (folder / ARCHIVE_NAME).write_bytes(archive)
    return home


def packed(name: str, content: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:bz2") as archive:
        member = tarfile.TarInfo(name)
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("start", "end", "damping_factor", "expected"),
    [(0, 6, None, [16, 17, 8, 0, 24, 9]), (1, 5, 8, [2, 1, 0, 3]), (5, 6, 1, [9])],
)
def test_a_window_includes_its_start_and_not_its_end(
    tmp_path: Path, start: int, end: int, damping_factor: int | None, expected: list[int]
) -> None:
    home = checkout(tmp_path, text=TRACE)
    workload = twitter_workload(home, [window(start, end, damping_factor)])
    assert workload.counts.tolist() == expected


def test_the_archive_is_read_without_unpacking_it(tmp_path: Path) -> None:
    home = checkout(tmp_path, archive=packed(f"../../outside/{TEXT_NAME}", TRACE))
    before = sorted(tmp_path.rglob("*"))
    assert twitter_workload(home, [window(0, 2)]).counts.tolist() == [16, 17]
    assert sorted(tmp_path.rglob("*")) == before


def test_windows_follow_one_another_each_with_its_damping(tmp_path: Path) -> None:
    home = checkout(tmp_path, text=TRACE)
    workload = twitter_workload(home, [window(4, 6, 8), window(0, 1)])
    assert workload.counts.tolist() == [3, 1, 16]
    assert "seconds 4..6 ÷ 8 + 0..1 ÷ 1" in workload.source


@pytest.mark.parametrize(("start", "end"), [(3, 3), (4, 2), (0, 7), (900, 901)])
def test_a_window_out_of_the_trace_is_refused(tmp_path: Path, start: int, end: int) -> None:
    home = checkout(tmp_path, text=TRACE)
    with pytest.raises(ConfigError, match=f"seconds {start} to {end}.*start < end <= 6"):
        twitter_workload(home, [window(start, end)])


def test_no_window_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="names no window"):
        twitter_workload(checkout(tmp_path, text=TRACE), [])


def test_without_a_checkout_the_message_says_how_to_give_one() -> None:
    with pytest.raises(UnavailableError, match=r"--ipa-home DIR or set IPA_HOME.*--workload"):
        twitter_workload(None, [window(0, 1)])


def test_another_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no load_tester/.*workload\.tbz2 below it"):
        twitter_workload(tmp_path, [window(0, 1)])


@pytest.mark.parametrize(
    ("text", "archive"),
    [
        (b"1 2 x 3", None),
        (b"1 2.5 3", None),
        (b"1 99999999999999999999999 3", None),
        (b"", None),
        (None, b"not an archive"),
        (None, packed(TEXT_NAME, TRACE * 100)[:60]),
        (None, packed("other.txt", TRACE)),
    ],
)
def test_a_damaged_trace_is_refused(
    tmp_path: Path, text: bytes | None, archive: bytes | None
) -> None:
    home = checkout(tmp_path, text=text, archive=archive)
    with pytest.raises(ConfigError, match="restore the file") as caught:
        twitter_workload(home, [window(0, 1)])
    assert Path(str(caught.value.where)).parent == home / TRACE_FOLDER


def test_a_huge_member_is_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ipa_energy.workloads.trace_files.MOST_TEXT_BYTES", 10)
    home = checkout(tmp_path, archive=packed(TEXT_NAME, TRACE))
    with pytest.raises(ConfigError, match="has 15 bytes"):
        twitter_workload(home, [window(0, 1)])


@pytest.mark.ipa
@pytest.mark.skipif("IPA_HOME" not in os.environ, reason="needs a checkout of IPA in IPA_HOME")
@pytest.mark.parametrize(
    ("windows", "requests", "low", "high", "mean"),
    [
        ([(1301160, 1302360)], 14437, 3, 34, 12.03),
        ([(1299600, 1300800)], 6067, 3, 8, 5.06),
        ([(1768800, 1769400), (1768800, 1769400)], 34606, 23, 34, 28.84),
        ([(1301400, 1302000), (1308600, 1309200)], 19837, 3, 34, 16.53),
    ],
)
def test_ipas_own_windows(
    windows: list[tuple[int, int]], requests: int, low: int, high: int, mean: float
) -> None:
    workload = twitter_workload(
        Path(os.environ["IPA_HOME"]), [window(start, end, 8) for start, end in windows]
    )
    assert workload.requests == requests
    assert (workload.counts.min(), workload.peak_rps) == (low, high)
    assert workload.mean_rps == pytest.approx(mean, abs=0.01)
