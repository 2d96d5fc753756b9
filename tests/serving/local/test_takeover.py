"""An adapter that dies and comes back, one that does not, and a plane that dies."""

from __future__ import annotations

import os
import signal
import socket
import stat
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("grpc")

from live_runs import (
    data_path,
    lines_of,
    of_module,
    running,
    runs,
    send,
    until,
    words_of,
    write_pipeline,
)

from ipa_energy.cli import main
from ipa_energy.errors import GiveUpError
from ipa_energy.runlog import read_run
from ipa_energy.serving.local import control
from ipa_energy.serving.local.plane import ASKS

pytestmark = [pytest.mark.slow, pytest.mark.measures]


def test_an_adapter_that_is_killed_takes_its_pipeline_over_and_nothing_is_lost(
    tmp_path: Path,
) -> None:
    pipeline, out = write_pipeline(tmp_path, [5] * 16, interval_s=1), tmp_path / "run"
    with running(words_of(pipeline, out, "--lease", "100")) as adapter:
        until(lambda: lines_of(out) >= 2)
        before = data_path(adapter.pid)
        (plane,) = of_module(adapter.pid, "plane_process")
        send(adapter.pid)
    assert set(before.values()) == {"plane_process", "generator", "stub_model"}
    mode = (out / control.SOCKET_FILE).stat().st_mode
    assert stat.S_ISSOCK(mode)
    assert stat.S_IMODE(mode) == 0o600
    time.sleep(2.5)
    assert {name for pid, name in before.items() if runs(pid)} == set(before.values())

    with running(words_of(pipeline, out, "--resume")) as back:
        assert back.wait(120) == 0
    run = read_run(out)
    (gap_s,) = [step.gap_s for step in run.steps if step.gap_s]
    assert gap_s >= 2
    assert run.requests.request_id.tolist() == list(range(80))
    assert (run.requests.dropped_at < 0).all()
    away = (run.requests.done_s - run.requests.sending_s)[run.requests.sending_s > 3]
    assert np.median(away) < 1.0  # answered while nobody asked, not after
    assert np.isfinite(run.power_w).all()
    until(lambda: not any(runs(pid) for pid in [plane, *before]))
    assert not (out / control.SOCKET_FILE).exists()


def test_a_pipeline_that_nobody_comes_back_to_ends_with_its_lease(tmp_path: Path) -> None:
    pipeline, out = write_pipeline(tmp_path, [5] * 60, interval_s=1), tmp_path / "run"
    with running(words_of(pipeline, out, "--lease", "4")) as adapter:
        until(lambda: lines_of(out) >= 1)
        pids = list(data_path(adapter.pid))
        send(adapter.pid)
    killed_s = time.perf_counter()
    until(lambda: not any(runs(pid) for pid in pids))
    assert time.perf_counter() - killed_s > 1.0
    assert not (out / control.SOCKET_FILE).exists()
    with running(words_of(pipeline, out, "--resume", "--lease", "4")) as back:
        until(lambda: lines_of(out) >= 3)
        assert back.poll() is None
        back.send_signal(signal.SIGINT)
        back.wait(60)
    assert any(step.gap_s for step in read_run(out).steps)


def test_nothing_survives_kill_9_of_the_plane_and_the_run_says_what_happened(
    tmp_path: Path,
) -> None:
    pipeline, out = write_pipeline(tmp_path, [5] * 60, interval_s=1), tmp_path / "run"
    with running(words_of(pipeline, out), stderr=subprocess.PIPE) as adapter:
        until(lambda: lines_of(out) >= 1)
        pids = list(data_path(adapter.pid))
        (plane,) = of_module(adapter.pid, "plane_process")
        (stub, *_) = of_module(adapter.pid, "stub_model")
        send(stub, signal.SIGSTOP)  # who is stopped finds out nothing by itself
        send(plane)
        until(lambda: not any(runs(pid) for pid in pids), patience_s=20)
        assert adapter.wait(60) == 4
        said = adapter.stderr.read()
    assert "the process that serves the pipeline has died" in said
    assert "--resume" in said
    assert read_run(out).status == "failed"
    assert not (out / control.SOCKET_FILE).exists()


def test_a_run_is_refused_to_anybody_else_and_ctrl_c_twice_leaves_no_process(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pipeline, out = write_pipeline(tmp_path, [5] * 60, interval_s=1), tmp_path / "run"
    with running(words_of(pipeline, out), stderr=subprocess.PIPE) as adapter:
        until(lambda: lines_of(out) >= 1)
        assert main(words_of(pipeline, out)) == 2
        assert "the folder exists and is not empty" in capsys.readouterr().err
        assert main(words_of(pipeline, out, "--resume")) == 2
        assert "another process is writing to this run" in capsys.readouterr().err
        stranger = control.connected(out)
        assert stranger is not None
        with stranger, pytest.raises(GiveUpError, match="another process decides"):
            control.Line(stranger).ask({"ask": "states", "with": None}, 60)

        pids = list(data_path(adapter.pid))
        (stub, *_) = of_module(adapter.pid, "stub_model")
        send(stub, signal.SIGSTOP)  # it does not end when it is asked to
        while adapter.poll() is None:  # again and again: two at once are one
            adapter.send_signal(signal.SIGINT)
            with suppress(subprocess.TimeoutExpired):
                adapter.wait(0.2)
        assert adapter.returncode != 0
    until(lambda: not any(runs(pid) for pid in pids), patience_s=20)
    assert not (out / control.SOCKET_FILE).exists()
    assert read_run(out).status == "running"


def test_a_socket_that_somebody_else_has_by_now_is_left_to_him(tmp_path: Path) -> None:
    mine = control.listening(tmp_path)
    assert mine is not None
    control.clear_away(tmp_path)
    assert (tmp_path / control.SOCKET_FILE).exists()
    with mine:
        mine.shutdown(socket.SHUT_RDWR)
        control.clear_away(tmp_path)
        assert not (tmp_path / control.SOCKET_FILE).exists()
        other = control.listening(tmp_path)
        assert other is not None
        with other:
            control.clear_away(tmp_path)
            assert (tmp_path / control.SOCKET_FILE).exists()
    control.clear_away(tmp_path)
    control.clear_away(tmp_path / "gone")
    assert list(tmp_path.iterdir()) == []


def test_a_socket_lies_in_a_folder_of_any_name(tmp_path: Path) -> None:
    folder = tmp_path / ("deep" * 20) / ("er" * 60)
    folder.mkdir(parents=True)
    assert control.connected(folder) is None
    listening = control.listening(folder)
    assert listening is not None
    with listening:
        assert stat.S_IMODE((folder / control.SOCKET_FILE).stat().st_mode) == 0o600
        with pytest.raises(GiveUpError, match="served by another process"):
            control.listening(folder)
    again = control.listening(folder)  # the file of one that is dead is in nobody's way
    assert again is not None
    again.close()


@pytest.mark.parametrize(
    ("what", "value"),
    [
        ("want", "everything"),
        ("want", [{"option": {"variant": "x"}, "replicas": 1}]),
        ("collect", "soon"),
        ("received", [1]),
        ("wait", None),
    ],
)
def test_what_is_no_message_is_refused(what: str, value: object) -> None:
    with pytest.raises(GiveUpError, match="none of its messages"):
        control.loaded(ASKS[what][0], value)


def test_only_objects_of_json_are_taken() -> None:
    for data in (b"\x80\x04N.", b"[1]", b"{", b"[" * 100_000):
        with pytest.raises(GiveUpError):
            control.parsed(data)


def test_the_other_end_is_ours() -> None:
    one, other = socket.socketpair()
    with one, other:
        assert control.is_ours(one)
    assert os.geteuid() >= 0
