"""``adaptation_log.json``, kept rendered in memory but for its last step, which may still grow."""

from __future__ import annotations

import json
from typing import Any, TextIO

from ipa_energy.runlog.journal import Line
from ipa_energy.runlog.record import RunInfo
from ipa_energy.runlog.step import with_window


class AdaptationLog:
    """The log of one run, fed line by line, written whenever asked.

    Attributes:
        size: characters of the finished steps.
    """

    def __init__(self, info: RunInfo) -> None:
        self.size = 0
        self._info = info
        self._rendered: list[str] = []
        self._last: tuple[str, dict[str, Any]] | None = None
        self._received_rps: list[float] = []

    @property
    def is_empty(self) -> bool:
        """True before the first step."""
        return self._last is None

    def add(self, line: Line) -> None:
        """Take a line: a new step, or more of the last one."""
        if line.entry is not None:
            if self._last is not None:
                self._rendered.append(_render(*self._last))
                self.size += len(self._rendered[-1])
            self._last = (f"{line.timestep_s:g}", line.entry)
            self._receive(line.entry)
        elif self._last is not None:
            timestep, entry = self._last
            self._last = (timestep, with_window(entry, line.served))

    def _receive(self, entry: dict[str, Any]) -> None:
        """Add the seconds that this decision saw and none before it did."""
        seen = entry["monitored_load"] if entry["status"] != "initial" else []
        new = int(entry["time_interval"]) - len(self._received_rps)
        if 0 < new <= len(seen):
            self._received_rps += seen[-new:]

    def write(self, file: TextIO) -> None:
        """Write the whole log, one step a line.

        ``recieved_load`` is IPA's spelling: the requests of every second up to the last decision.
        IPA's simulation keeps only the last window there, its cluster runs keep all, as here.
        """
        info = self._info
        metadata = {
            "sla": info.latency_sla_s,
            "base_allocations": info.base_allocations,
            "stage_wise_slas": info.stage_slas_s,
            "recieved_load": self._received_rps,
        }
        file.write(f'{{"metadata": {json.dumps(metadata)},\n"timesteps": {{\n')
        for text in self._rendered:
            file.write(f"{text},\n")
        file.write(f"{_render(*self._last) if self._last else ''}\n}}}}\n")


def _render(timestep: str, entry: dict[str, Any]) -> str:
    return f"{json.dumps(timestep)}: {json.dumps(entry, allow_nan=False)}"
