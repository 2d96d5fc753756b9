"""The block that a live run shows on a terminal, and nothing where there is none."""

from __future__ import annotations

import io
import logging
import os
import pty
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ipa_energy.cli.live_view import ClearsBefore, LiveView, Piece, fitted, wrapped
from ipa_energy.runlog.record import Interval
from ipa_energy.serving.deployment import StageState
from ipa_energy.serving.observed import Correction, StageJoules
from ipa_energy.testing import fake_intervals, fake_stages


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def view(stream: io.StringIO | None = None, **environment: str) -> LiveView:
    known = {"TERM": "xterm", **environment}
    return LiveView(
        ("crop", "classification"), 120.0, 10.0, 1.0, "local", stream or Terminal(), known
    )


def states() -> tuple[StageState, ...]:
    crop, classification = fake_stages()
    return (
        StageState("crop", crop.options[0], ready=2, starting=1),
        StageState("crop", crop.options[3], draining=1),
        StageState("classification", classification.options[0], ready=1),
    )


def live_interval() -> Interval:
    interval = list(fake_intervals())[4]
    joules = tuple(
        StageJoules(
            stage=stage,
            variant="v",
            allocation="1c",
            requests=10,
            load_rps=1.0,
            batch_fill=1.0,
            live_j=1.25,
            profile_j=1.0,
            is_clean=True,
        )
        for stage in ("crop", "classification")
    )
    correction = Correction(
        stage="crop", variant="v", allocation="1c", found_s=50, windows=4, factor=1.25, scale=1.25,
        dynamic=1.3, idle=1.0,
    )  # fmt: skip
    return replace(
        interval,
        joules=joules,
        corrections=(correction,),
        reconfigured=("crop",),
        served=replace(interval.served, overhead_j={"router": 2.0}, notes=("rapl is gone",)),
    )


def text_of(shown: LiveView, received_rps: float | None = 11.0) -> list[str]:
    return ["".join(p.text for p in line) for line in shown.lines(42.0, states(), received_rps)]


def test_the_block_says_load_plan_joules_power_sla_and_what_changed_and_why() -> None:
    shown = view()
    before = text_of(shown)
    assert before[0] == "second 42 of 120   interval 10 s   local"
    assert before[1] == "load            asked 11/s"
    replicas = "yolov5n 1c b1 x3 (2 ready, 1 starting); yolov5s 1c b1 x0 (1 draining)"
    assert before[2] == f"crop            {replicas}"
    assert before[3] == "classification  resnet18 1c b1 x1"
    interval = live_interval()
    shown.interval(interval)
    after = text_of(shown, None)
    assert interval.decision is not None
    planned = f"{interval.decision.planned_load_rps:.3g}/s"
    assert re.match(rf"load  +served [\d.]+/s, predicted [\d.]+/s, planned for {planned}", after[1])
    assert after[2].endswith("   1.25 J, profile 1 J")
    assert "J per request (estimated, fake)   beside 0.2 W" in after[4]
    assert re.match(r"SLA  +[\d.]+% within 1 s, [\d.]+% so far   \d+ dropped, 0 failed", after[5])
    assert re.match(rf"last  +second 40: crop to yolov5\w \dc b\d x\d+, for {planned}", after[6])
    assert after[7] == "drift           second 50: crop v 1c: 1.25 x its profile, decided with"
    assert after[8] == "note            rapl is gone"
    assert after[9] == "                1c = cores of a replica, b = batch, x = replicas"


def test_it_is_written_over_itself_within_80_columns_and_cleared_before_a_message() -> None:
    stream = Terminal()
    shown = view(stream)
    shown.interval(live_interval())
    shown.tick(42.0, states(), 11.0)
    first = stream.getvalue()
    assert "\x1b[J" not in first
    plain = re.sub(r"\x1b\[\d*m", "", first)
    assert all(len(line) < 80 for line in plain.splitlines())
    assert "\x1b[31m" in first
    shown.tick(43.0, states(), 11.0)
    assert f"\x1b[{len(plain.splitlines())}A\x1b[J" in stream.getvalue()[len(first) :]
    record = logging.LogRecord("x", logging.WARNING, "", 0, "told", None, None)
    assert ClearsBefore(shown).filter(record)
    assert stream.getvalue().endswith("\x1b[J")
    ClearsBefore(shown).filter(record)
    assert stream.getvalue().count("\x1b[J") == 2


def test_no_color_and_no_terminal_are_respected() -> None:
    stream = Terminal()
    shown = view(stream, NO_COLOR="1")
    shown.interval(live_interval())
    shown.tick(42.0, states(), 11.0)
    assert "\x1b[" not in stream.getvalue()
    for silent in (view(io.StringIO()), view(TERM="dumb"), view(TERM="")):
        silent.tick(1.0, states(), 1.0)
        assert silent.stream.getvalue() == ""  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("width", "expected"), [(20, "abc defgh"), (9, "abc defgh"), (8, "abc def…"), (3, "ab…")]
)
def test_lines_are_cut_where_the_terminal_ends(width: int, expected: str) -> None:
    assert fitted([Piece("abc "), Piece("defgh", "bad")], width, colors=False) == expected


def test_what_does_not_fit_goes_on_in_a_second_row() -> None:
    line = [Piece("crop  "), Piece("yolov5n 1c b1 x2"), Piece("   0.42 J, profile 0.40 J", "quiet")]
    rows = ["".join(piece.text for piece in row) for row in wrapped(line, 34, 6)]
    assert rows == ["crop  yolov5n 1c b1 x2   0.42 J,", "      profile 0.40 J"]
    assert [piece.hand for piece in wrapped(line, 34, 6)[1]] == ["", "quiet"]
    assert len(wrapped(line, 90, 6)) == 1
    long = [Piece("load  "), Piece("word " * 40)]
    assert len(wrapped(long, 34, 6)) == 2  # the rest is cut


def test_what_a_name_would_do_to_a_terminal_is_not_done() -> None:
    assert "\x1b" not in fitted([Piece("\x1b[2Jname")], 40, colors=True)


@pytest.mark.slow
def test_a_live_run_on_a_terminal_shows_it_and_takes_it_away(
    small_pipeline: Path, tmp_path: Path
) -> None:
    pytest.importorskip("grpc")
    text = small_pipeline.read_text()
    load = "workload_type: static\nworkload_config: {loads_to_test: 4, load_duration: 8}\n"
    small_pipeline.write_text(
        text[: text.index("workload_type")] + load + "adaptation_interval: 2\n"
    )
    words = ["run", small_pipeline, "--backend", "local-stub", "--out", tmp_path / "run"]
    master, slave = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "NO_COLOR": "1"}
    done: Any = subprocess.Popen(
        [sys.executable, "-m", "ipa_energy", *map(str, words)],
        stdout=subprocess.PIPE, stderr=slave, text=True, env=environment,
    )  # fmt: skip
    os.close(slave)
    written = b""
    try:
        while chunk := os.read(master, 4096):
            written += chunk
    except OSError:
        pass  # the other end is closed
    finally:
        os.close(master)
    out, _ = done.communicate(timeout=60)
    assert done.returncode == 0
    shown = written.decode()
    assert re.search(r"second \d of 8   interval 2 s   local-stub", shown)
    assert re.search(r"power  +[\d.]+ W", shown)
    assert shown.rstrip().endswith("\x1b[J")
    assert "beside the stages: " in out
