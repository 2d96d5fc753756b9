"""Writing a run folder so that a kill at any moment leaves every finished interval.

While the run goes on, ``journal.jsonl`` is the truth: a line an interval, handed to the system at
once (a killed process loses nothing) and forced to disk at most every quarter of a second (a power
cut loses no more than that). ``adaptation_log.json`` is renewed beside it, for IPA's tools to look
at, whenever it has grown by a quarter or renewing costs less than a hundredth of the time since, so
that the total stays linear in the length of the run.

Completion, in this order; a kill between two of them only repeats what is left::

    0.json → adaptation_log.json → run.json says complete → journal.jsonl goes
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from io import FileIO
from pathlib import Path
from typing import Any, Self, TextIO

from ipa_energy.errors import ConfigError
from ipa_energy.files import append_whole
from ipa_energy.runlog.folder import (
    ADAPTATION_FILE,
    CONFIG_FILE,
    JOURNAL_FILE,
    RESPONSES_FILE,
    RUN_FILE,
    create_folder,
    write_atomically,
    writing,
)
from ipa_energy.runlog.journal import Line, encode, read_lines
from ipa_energy.runlog.record import Interval, RunInfo, RunStatus, Totals, read_run_json, run_json
from ipa_energy.runlog.responses import write_responses
from ipa_energy.runlog.step import Finished, further_terms, parse_entry, with_window
from ipa_energy.serving.served import Served

GROWTH = 1.25
WORTH_RENEWING = 100.0
SYNC_INTERVAL_S = 0.25

TIMESTEPS_LINE, LAST_LINE = '"timesteps": {\n', "}}\n"


class AdaptationLog:
    """``adaptation_log.json``, kept rendered but for its last step, which may still grow.

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
        file.write(f'{{"metadata": {json.dumps(metadata)},\n{TIMESTEPS_LINE}')
        for text in self._rendered:
            file.write(f"{text},\n")
        file.write(f"{_render(*self._last) if self._last else ''}\n{LAST_LINE}")


def _render(timestep: str, entry: dict[str, Any]) -> str:
    return f"{json.dumps(timestep)}: {json.dumps(entry, allow_nan=False)}"


class RunLog:
    """An open run folder; get one from :meth:`create` or :meth:`resume`.

    Attributes:
        path: the folder.
        info: what ``run.json`` says.
        finished: what was there when it was opened; empty for a new run.
        totals: sums over these, as far as the journal's digits go.
        next_request_id: above the id of every request in them.
        is_complete: True if nothing is left to do.
    """

    def __init__(self, path: Path, info: RunInfo, *, is_complete: bool = False) -> None:
        self.path = path
        self.info = info
        self.is_complete = is_complete
        self.finished: tuple[Finished, ...] = ()
        self.totals = Totals()
        self.next_request_id = 0
        self._further: dict[str, float] = {}
        self._journal: FileIO | None = None
        self._lines = 0
        self._log = AdaptationLog(info)
        self._renewed_size = 0
        self._renewed_at = self._synced_at = time.perf_counter()
        self._renewing_s = 0.0

    @classmethod
    def create(
        cls,
        path: Path,
        *,
        config_yaml: str,
        info: RunInfo,
        attachments: Mapping[str, str | bytes] | None = None,
    ) -> RunLog:
        """Start a run in a new folder.

        Args:
            path: the folder; its parents are made.
            config_yaml: the resolved configuration, becomes ``0.yaml``.
            info: who runs; becomes ``run.json``.
            attachments: further files by name (``profile.csv``, ``workload.csv``).

        Raises:
            ConfigError: the folder holds something already, or cannot be written.
        """
        info = replace(info, start_time_s=round(info.start_time_s, 3))
        files = {
            **(attachments or {}),
            CONFIG_FILE: config_yaml,
            RUN_FILE: run_json(info, "running"),
            JOURNAL_FILE: b"",
        }
        create_folder(path, files)
        log = cls(path, info)
        log._open_journal(0)
        log._renew()
        return log

    @classmethod
    def resume(cls, path: Path) -> RunLog:
        """Open a folder that an earlier run left, whatever it died of.

        Raises:
            ConfigError: it is no run folder, is being written to right now, or cannot be written.
        """
        info, status = read_run_json(path)
        journal = path / JOURNAL_FILE
        if status == "complete":
            with suppress(OSError):  # a read-only folder; nobody reads it any more
                journal.unlink(missing_ok=True)
            return cls(path, info, is_complete=True)
        if not journal.exists():
            raise ConfigError(
                "the run is not complete and its journal is gone",
                where=journal,
                fix="run again with another --out",
            )
        log = cls(path, info)
        log._open_journal(None)
        end, finished = 0, []
        try:
            for line, line_end in read_lines(journal):
                finished.append(log._finished(line))
                log._log.add(line)
                end = line_end
        except ConfigError:
            log.close()
            raise
        log._lines = len(finished)
        log._truncate(end)
        log.finished = tuple(finished)
        log._write_run("running")
        return log

    @property
    def end_s(self) -> float:
        """Where the finished intervals end, seconds since the start; 0 for a new run."""
        return self.finished[-1].end_s if self.finished else 0.0

    @property
    def elapsed_s(self) -> float:
        """Seconds since the start of the run, by the wall clock."""
        return max(0.0, time.time() - self.info.start_time_s)

    def append_interval(self, interval: Interval) -> None:
        """Record an interval; when this returns, a kill no longer loses it.

        Raises:
            ConfigError: it cannot be written; the intervals before it are unharmed.
        """
        continues = not self._log.is_empty and interval.decision is None
        logged = self.info.counted(interval)
        line, data = encode(logged, continues=continues, number=self._lines + 1)
        self._append(data)
        self._lines += 1
        self._log.add(line)
        now = time.perf_counter()
        grown = self._log.size >= GROWTH * self._renewed_size
        if grown or now - self._renewed_at >= WORTH_RENEWING * self._renewing_s:
            self._renew()

    def complete(self, totals: Mapping[str, Any]) -> None:
        """Write the final files and say that the run is complete.

        Args:
            totals: sums over the run, for ``run.json``; any JSON.

        Raises:
            ConfigError: they cannot be written; the journal stays, and this can be called again.
        """
        if self.is_complete:
            return
        self._write_responses()
        self._write_adaptation_log()
        self._write_run("complete", totals=dict(totals))
        self.close()
        journal = self.path / JOURNAL_FILE
        with writing(journal):
            journal.unlink(missing_ok=True)
        self.is_complete = True
        self._log = AdaptationLog(self.info)  # of days it is large

    def fail(self, reason: str) -> None:
        """Say in ``run.json`` that the run failed and why; it can still be resumed."""
        self._write_run("failed", error=reason)
        self._write_adaptation_log()
        self.close()

    def close(self) -> None:
        """Let go of the folder, which stays resumable; safe to call twice."""
        if self._journal is not None:
            journal, self._journal = self._journal, None
            journal.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _open_journal(self, expected_size: int | None) -> None:
        path = self.path / JOURNAL_FILE
        with writing(path):
            journal = path.open("ab", buffering=0)
        try:
            fcntl.flock(journal, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            journal.close()
            raise ConfigError(
                "another process is writing to this run",
                where=self.path,
                fix="wait for it to end, or stop it",
            ) from error
        if expected_size is not None and journal.tell() != expected_size:
            journal.close()
            raise ConfigError("another run began here", where=self.path, fix="another --out")
        self._journal = journal

    def _append(self, data: bytes) -> None:
        if self._journal is None:
            raise ValueError("this run log is closed")
        start = self._journal.seek(0, os.SEEK_END)
        sync = time.perf_counter() - self._synced_at >= SYNC_INTERVAL_S
        with writing(self.path / JOURNAL_FILE):
            append_whole(self._journal, start, data, sync=sync)
        if sync:
            self._synced_at = time.perf_counter()

    def _truncate(self, size: int) -> None:
        if self._journal is not None:
            with writing(self.path / JOURNAL_FILE):
                self._journal.truncate(size)

    def _finished(self, line: Line) -> Finished:
        served = line.served
        step = None
        if line.entry is not None:
            timestep = f"{line.timestep_s:g}"
            step = parse_entry(timestep, line.entry, self.info.nodes, served.end_s)
        ids = served.requests.request_id
        self.next_request_id = max(self.next_request_id, int(ids.max(initial=-1)) + 1)
        if step is None:
            self.totals.add(served, None, (), self._further)
        else:
            self._further = further_terms(step.terms)
            self.totals.add(served, step.status, step.reconfigured, self._further)
        return Finished(
            start_s=served.start_s,
            end_s=served.end_s,
            requests=served.left,
            step=step,
        )

    def _renew(self) -> None:
        start = time.perf_counter()
        self._write_adaptation_log(sync=False)
        self._renewed_at = time.perf_counter()
        self._renewing_s = self._renewed_at - start
        self._renewed_size = self._log.size

    def _write_adaptation_log(self, *, sync: bool = True) -> None:
        write_atomically(self.path / ADAPTATION_FILE, self._log.write, sync=sync)

    def _write_responses(self) -> None:
        info = self.info

        def windows() -> Iterator[Served]:
            for line, _ in read_lines(self.path / JOURNAL_FILE):
                yield line.served

        def write(file: TextIO) -> None:
            write_responses(
                file,
                windows(),
                nodes=info.nodes,
                start_s=info.start_time_s,
                end_s=round(info.start_time_s + info.duration_s, 6),
                classes=info.classes,
            )

        write_atomically(self.path / RESPONSES_FILE, write)

    def _write_run(self, status: RunStatus, **further: Any) -> None:
        text = run_json(self.info, status, **further)
        write_atomically(self.path / RUN_FILE, lambda file: file.write(text))
