"""What a live run looks like on a terminal: one block that is written anew every second.

::

    second 42 of 180   interval 10 s   local-stub
    load   asked 10.0/s, served 9.8/s, predicted 12.0/s, planned for 12.0/s
    find   yolov5n 1c b1 x2   0.42 J, profile 0.40 J   ready 2, starting 1
    power  8.4 W   0.81 J per request (estimated, cpu-time)   beside 0.31 W
    SLA    99.2% within 1 s, 98.9% so far   0 dropped, 0 failed
    last   second 40: find to yolov5n 1c b1 x2, for 12.0/s
           1c = cores of a replica, b = batch, x = replicas

Where standard error is no terminal nothing is written: warnings and the log say what happens. With
``NO_COLOR`` or a terminal that is ``dumb`` there are no colours; a dumb one gets no block either.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TextIO

from ipa_energy.arrays import Mask
from ipa_energy.records import NOTATION
from ipa_energy.runlog.record import Interval
from ipa_energy.serving.deployment import StageState
from ipa_energy.serving.observed import of_stage
from ipa_energy.serving.served import Requests

NARROWEST, WIDEST = 40, 100
LONGEST_NAME = 14
LOW_ATTAINMENT = 0.95
COLORS = {"good": "\x1b[32m", "bad": "\x1b[31m", "quiet": "\x1b[2m", "strong": "\x1b[1m"}
RESET = "\x1b[0m"


@dataclass(frozen=True, slots=True)
class Piece:
    """A bit of text in one hand."""

    text: str
    hand: str = ""


Line = Sequence[Piece]


@dataclass(slots=True)
class LiveView:
    """The block of one run.

    Attributes:
        stages: task names, first stage first.
        duration_s: of the load.
        interval_s: between decisions.
        sla_s: latency SLA; None without.
        backend: its name.
        stream: what it is written to.
        environment: variables that say whether and how.
    """

    stages: Sequence[str]
    duration_s: float
    interval_s: float
    sla_s: float | None
    backend: str
    stream: TextIO = field(default_factory=lambda: sys.stderr)
    environment: Mapping[str, str] = field(default_factory=lambda: os.environ)
    _requests: int = 0
    _inside: int = 0
    _dropped: int = 0
    _failed: int = 0
    _last: Interval | None = None
    _change: str = ""
    _drift: str = ""
    _note: str = ""
    _shown: int = 0

    @property
    def is_shown(self) -> bool:
        """True if there is a terminal that can move its cursor."""
        return self.stream.isatty() and self.environment.get("TERM", "") not in ("", "dumb")

    def interval(self, interval: Interval) -> None:
        """One more interval was served."""
        served = interval.served
        requests = served.requests
        answered, within = self._answered(requests)
        self._requests += len(requests)
        self._inside += int(within.sum())
        self._failed += int(requests.failed.sum())
        self._dropped += int((~answered & ~requests.failed).sum())
        self._last = interval
        decision = interval.decision
        if decision is not None and (interval.reconfigured or decision.conflict):
            self._change = self._changed(interval)
        if interval.corrections:
            one = interval.corrections[-1]
            use = "decided with" if one.is_applied else "not corrected"
            what = f"{one.stage} {one.variant} {one.allocation}: {one.scale:.2f} x its profile"
            self._drift = f"second {one.found_s:.0f}: {what}, {use}"
        if served.notes:
            self._note = served.notes[-1]

    def _answered(self, requests: Requests) -> tuple[Mask, Mask]:
        """Which were answered, and which of them in time."""
        answered = (requests.dropped_at < 0) & ~requests.failed
        latency_s = requests.done_s - requests.sending_s
        return answered, answered if self.sla_s is None else answered & (latency_s <= self.sla_s)

    def tick(self, now_s: float, states: Sequence[StageState], received_rps: float | None) -> None:
        """Write the block anew."""
        if not self.is_shown:
            return
        self.clear()
        columns, rows = shutil.get_terminal_size((80, 24))
        width = min(WIDEST, max(NARROWEST, columns - 1))
        lines = self.lines(now_s, states, received_rps)
        whole = [row for line in lines for row in wrapped(line, width, len(self._named("")))]
        lines = whole if len(whole) < rows else lines
        colors = "NO_COLOR" not in self.environment
        self.stream.writelines(f"{fitted(line, width, colors=colors)}\n" for line in lines)
        self.stream.flush()
        self._shown = len(lines)

    def clear(self) -> None:
        """Take the block away, for whatever is written next."""
        if self._shown:
            self.stream.write(f"\x1b[{self._shown}A\x1b[J")
            self.stream.flush()
            self._shown = 0

    def lines(
        self, now_s: float, states: Sequence[StageState], received_rps: float | None
    ) -> list[Line]:
        """The block, not cut to any width."""
        lines: list[Line] = [
            [
                Piece(f"second {now_s:.0f} of {self.duration_s:.0f}", "strong"),
                Piece(f"   interval {self.interval_s:g} s   {self.backend}", "quiet"),
            ],
            [Piece(self._named("load") + self._load(received_rps))],
            *([Piece(self._named(stage)), *self._stage(stage, states)] for stage in self.stages),
            *self._served(),
        ]
        for name, text, hand in (
            ("last", self._change, ""),
            ("drift", self._drift, "bad"),
            ("note", self._note, "bad"),
        ):
            if text:
                lines.append([Piece(self._named(name)), Piece(text, hand)])
        lines.append([Piece(self._named("") + NOTATION, "quiet")])
        return lines

    def _named(self, name: str) -> str:
        """What a line begins with; all of one width."""
        width = min(LONGEST_NAME, max(len("power"), *map(len, self.stages)))
        return f"{name[:width]:{width}}  "

    def _load(self, received_rps: float | None) -> str:
        parts = [] if received_rps is None else [f"asked {received_rps:.3g}/s"]
        if self._last is None:
            return ", ".join(parts)
        served, decision = self._last.served, self._last.decision
        length_s = served.end_s - served.start_s
        if length_s > 0:
            parts.append(f"served {len(served.requests) / length_s:.3g}/s")
        if decision is not None:
            parts.append(f"predicted {decision.predicted_load_rps:.3g}/s")
            parts.append(f"planned for {decision.planned_load_rps:.3g}/s")
        return ", ".join(parts)

    def _stage(self, stage: str, states: Sequence[StageState]) -> list[Piece]:
        mine = [state for state in states if state.stage == stage]
        pieces = []
        for at, state in enumerate(mine):
            counts = {
                name: getattr(state, name) for name in ("ready", "starting", "draining", "failed")
            }
            total = counts["ready"] + counts["starting"]
            busy = [f"{count} {name}" for name, count in counts.items() if count]
            share = "" if state.share is None else f" {100 * state.share:.3g}%"
            text = f"{state.option.label} x{total}{share}"
            is_settled = set(busy) == {f"{counts['ready']} ready"}
            pieces.append(Piece(("; " if at else "") + text))
            if not is_settled:
                hand = "bad" if state.failed else "quiet"
                pieces.append(Piece(f" ({', '.join(busy) or 'none'})", hand))
        return [*pieces, *self._joules(stage)]

    def _joules(self, stage: str) -> list[Piece]:
        known = self._last.joules if self._last else ()
        seen = of_stage(known, stage)
        if seen is None or not seen.live_j > 0:
            return []
        profile = f", profile {seen.profile_j:.3g} J" if seen.profile_j > 0 else ""
        return [Piece(f"   {seen.live_j:.3g} J{profile}", "" if seen.is_clean else "quiet")]

    def _served(self) -> list[Line]:
        """Watts, joules and the SLA of the last interval."""
        if self._last is None:
            return []
        served, lost = self._last.served, self._dropped + self._failed
        length_s = max(1e-9, served.end_s - served.start_s)
        energy_j = float(served.idle_j.sum() + served.dynamic_j.sum())
        requests = served.requests
        answered, within = self._answered(requests)
        each = f"   {energy_j / answered.sum():.3g} J per request" if answered.any() else ""
        beside_w = sum(served.overhead_j.values()) / length_s
        beside = f"   beside {beside_w:.2g} W" if served.overhead_j else ""
        power = f"{energy_j / length_s:.3g} W{each} ({served.quality}, {served.meter}){beside}"
        now = float(within.mean()) if len(requests) else 1.0
        limit = f" within {self.sla_s:g} s" if self.sla_s is not None else " answered"
        so_far = self._inside / self._requests if self._requests else 1.0
        return [
            [Piece(self._named("power") + power)],
            [
                Piece(self._named("SLA")),
                Piece(f"{now:.1%}{limit}", "good" if now >= LOW_ATTAINMENT else "bad"),
                Piece(f", {so_far:.1%} so far   "),
                Piece(f"{self._dropped} dropped, {self._failed} failed", "bad" if lost else ""),
            ],
        ]

    def _changed(self, interval: Interval) -> str:
        """What the last decision changed, and why."""
        decision = interval.decision
        if decision is None:
            return ""
        when = f"second {interval.timestep_s:.0f}: "
        if decision.conflict:
            return f"{when}the plan stays: {decision.conflict}"
        new = [
            f"{stage.stage} to {stage.label}"
            for stage in interval.plan.stages
            if stage.stage in interval.reconfigured
        ]
        why = f", for {decision.planned_load_rps:.3g}/s"
        return when + "; ".join(new) + why + (f"; {decision.trouble}" if decision.trouble else "")


def wrapped(line: Line, width: int, indent: int) -> list[Line]:
    """A line in as many rows as its words need, two at most, the second one indented."""
    rows: list[list[Piece]] = [[]]
    used = 0
    for piece in line:
        for word in re.findall(r"\s*\S+|\s+", piece.text):
            new = word
            if len(rows) == 1 and used > indent and used + len(word) > width:
                rows.append([Piece(" " * indent)])
                used, new = indent, word.lstrip()
            last = rows[-1][-1] if rows[-1] else None
            if last is not None and last.hand == piece.hand:
                rows[-1][-1] = Piece(last.text + new, piece.hand)
            else:
                rows[-1].append(Piece(new, piece.hand))
            used += len(new)
    return list(rows)


def fitted(line: Line, width: int, *, colors: bool) -> str:
    """A line cut to a width, in colours or not."""
    left, parts = width, []
    for piece in line:
        text = "".join(c if c.isprintable() else "\ufffd" for c in piece.text)
        if len(text) > left:
            text = text[: max(0, left - 1)] + "…" if left > 0 else ""
        left -= len(text)
        color = COLORS.get(piece.hand, "") if colors else ""
        parts.append(f"{color}{text}{RESET}" if color and text else text)
        if left <= 0:
            break
    return "".join(parts)


class ClearsBefore(logging.Filter):
    """Takes a view's block away before a handler writes a message."""

    def __init__(self, view: LiveView) -> None:
        super().__init__()
        self._view = view

    def filter(self, record: logging.LogRecord) -> bool:
        """Let everything through."""
        del record
        self._view.clear()
        return True
