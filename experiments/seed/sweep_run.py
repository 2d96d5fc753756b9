"""One run of a sweep: the command as a child of ``ipa-energy measure``, and what came of it.

``measure`` is called as a program, once a run: idle window, command, idle window. With ``--json``
its standard output is its own, and all that the command prints comes out of its standard error, in
the order in which it was printed.
"""

from __future__ import annotations

import ctypes
import json
import shlex
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sweep_file import Point, Reading
from sweep_journal import Run
from sweep_output import TAIL_CHARACTERS, parse_output, read_output

from ipa_energy.errors import (
    ConfigError,
    IpaEnergyError,
    MeterUnavailableError,
)
from ipa_energy.measuring.command_tree import STOP_TIMEOUT_S

PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None)
LONGEST_SHOWN = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """What all runs of a sweep have in common.

    Attributes:
        meter: by name, not ``auto``: all runs must have the same.
        power_model: of the cpu-time meter; None for this machine's.
        idle_s: None for ``measure``'s own choice.
        working_dir, environment: of the command.
        timeout_s: for the command; a run that takes longer is stopped.
        readings: how its output is read.
        lock_fd: a descriptor that the run holds open.
    """

    meter: str
    power_model: Path | None
    idle_s: float | None
    working_dir: Path
    environment: Mapping[str, str]
    timeout_s: float
    readings: Mapping[str, Reading]
    lock_fd: int

    def run(self, point: Point, trial: int, command: Sequence[str]) -> Run:
        """Run the command once and measure it.

        Raises:
            MeterUnavailableError: the meter does not work (any more).
            KeyboardInterrupt: as it came, after the command was stopped.
        """
        started_utc = datetime.now(UTC).isoformat(timespec="seconds")
        with tempfile.TemporaryDirectory(prefix="ipa-energy-sweep-") as scratch:
            printed = Path(scratch) / "printed"
            status, document = self._measure(command, printed)
            output = read_output(printed)
        base = Run(point=point, trial=trial, outcome="failed", started_utc=started_utc)
        return self._judged(base, shlex.join(command), status, document, output)

    def _measure(self, command: Sequence[str], printed: Path) -> tuple[int | None, str]:
        """``measure``'s exit status (None: stopped for its time) and standard output."""
        with printed.open("wb") as file:
            process = subprocess.Popen(
                self._arguments(command),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=file,
                cwd=self.working_dir,
                env=dict(self.environment),
                pass_fds=[self.lock_fd],
                start_new_session=True,  # Ctrl-C comes here first, and goes on from here
                preexec_fn=_die_with_parent,  # noqa: PLW1509 - one system call
                text=True,
            )
            idle_s = 2 * (self.idle_s or 1.0)
            try:
                return self._wait(process, self.timeout_s + idle_s)
            except BaseException:
                _stop(process)
                raise

    @staticmethod
    def _wait(process: subprocess.Popen[str], timeout_s: float) -> tuple[int | None, str]:
        try:
            output, _ = process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            _stop(process)
            return None, ""
        return process.returncode, output

    def _arguments(self, command: Sequence[str]) -> list[str]:
        # -P: a file of the working folder must not pass for a module of ours.
        arguments = [sys.executable, "-P", "-m", "ipa_energy", "measure", "--json", "--quiet"]
        arguments += ["--meter", self.meter]
        if self.idle_s is not None:
            arguments += ["--idle", str(self.idle_s)]
        if self.power_model is not None:
            arguments += ["--power-model", str(self.power_model)]
        return [*arguments, "--", *command]

    def _judged(
        self, run: Run, command: str, status: int | None, document: str, output: str
    ) -> Run:
        """The run with its figures, or with the reason why it has none."""
        shown = command if len(command) <= LONGEST_SHOWN else command[: LONGEST_SHOWN - 1] + "…"
        tail = output[-TAIL_CHARACTERS:]
        if status is None:
            reason = f"{shown}: stopped after {self.timeout_s:g} s"
            return replace(run, outcome="timeout", reason=reason, output=tail)
        found = _document(document, shown, status)
        if "error" in found:
            if found["error"]["kind"] == MeterUnavailableError.__name__:
                raise MeterUnavailableError(found["error"]["message"])
            reason = f"{shown}: {found['error']['message']}"
            return replace(run, reason=reason, exit_status=status, output=tail)
        run = _with_figures(run, found)
        if found["interrupted"]:
            raise KeyboardInterrupt
        if run.exit_status:
            reason = f"{shown}: exit status {run.exit_status}{_last_words(output)}"
            return replace(run, reason=reason, output=tail)
        if found["fault"] is not None:
            raise MeterUnavailableError(found["fault"])
        if run.energy_j is None:
            reason = (
                f"{shown}: took {run.duration_s:.3g} s, too short for {run.meter}, which needs "
                f"{found['min_window_s']:g} s"
            )
            return replace(run, outcome="too-short", reason=reason, output=tail)
        try:
            return replace(run, outcome="done", fields=parse_output(output, self.readings))
        except ConfigError as error:
            return replace(run, outcome="unread", reason=f"{shown}: {error}", output=tail)


def _last_words(output: str) -> str:
    """The last line that was printed, which is where programs say why they fail."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    return f" ({lines[-1][:LONGEST_SHOWN]})" if lines else ""


def _with_figures(run: Run, document: Mapping[str, Any]) -> Run:
    trial = document["trials"][0] if document["trials"] else {}
    return replace(
        run,
        exit_status=document["exit_status"],
        energy_j=trial.get("energy_j"),
        dynamic_energy_j=trial.get("dynamic_energy_j"),
        duration_s=trial.get("duration_s"),
        cpu_s=trial.get("cpu_s"),
        foreign_load=trial.get("foreign_load"),
        meter=document["meter"],
        quality=document["quality"],
    )


def _document(text: str, command: str, status: int) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise IpaEnergyError(f"{command}: measure ended with exit status {status} and no figures")
    return found


def _stop(process: subprocess.Popen[str]) -> None:
    """Interrupt ``measure``, which stops the command; in the end kill it."""
    process.send_signal(signal.SIGINT)
    try:
        process.communicate(timeout=STOP_TIMEOUT_S + 1)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()


def _die_with_parent() -> None:
    """In the child: end when the sweep is killed; ``measure``'s end stops the command."""
    _LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
