"""Reading a run folder: complete, running, killed, or one that IPA wrote.

Of a run that is not complete the journal is read, of a complete one IPA's files. IPA's own folder
has no ``run.json``: its energy is unknown, which is NaN, never 0.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any, Self

import numpy as np
import yaml

from ipa_energy.arrays import Floats
from ipa_energy.errors import ConfigError, in_words
from ipa_energy.runlog.folder import (
    ADAPTATION_FILE,
    CONFIG_FILE,
    JOURNAL_FILE,
    PROFILE_FILE,
    RESPONSES_FILE,
    RUN_FILE,
    WORKLOAD_FILE,
)
from ipa_energy.runlog.journal import read_lines
from ipa_energy.runlog.record import (
    Interval,
    RunInfo,
    RunStatus,
    Totals,
    as_logged,
    no_requests,
    read_run_json,
    taken,
)
from ipa_energy.runlog.responses import (
    Responses,
    add_seconds,
    joined,
    read_responses,
)
from ipa_energy.runlog.step import (
    Finished,
    Step,
    log_entry,
    number,
    parse_entry,
    start_of,
    with_window,
)
from ipa_energy.runlog.writer import LAST_LINE, TIMESTEPS_LINE
from ipa_energy.serving.served import Requests, Served
from ipa_energy.serving.tally import Tally, merged


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A run as it was logged.

    Attributes:
        path: the folder; None if nobody asked for one.
        info: who ran; for IPA's own folders as far as its files say.
        status: ``running``, ``complete`` or ``failed``; ``ipa`` for IPA's own folders.
        config: ``0.yaml``.
        steps: the initial configuration and every decision, in time.
        requests: those that left the pipeline, in the order of sending; none if the log has only
            counts of them (``tally``).
        tally: what its requests came to, where the log has no more; else None.
        power_w: (seconds,) mean watts; empty if not logged.
        cores: (seconds,) mean cores; empty if not logged.
        workload_digest, profile_digest: SHA-256 of the copies in the folder; None without one.
    """

    path: Path | None
    info: RunInfo
    status: str
    config: Mapping[str, Any]
    steps: tuple[Step, ...]
    requests: Requests
    power_w: Floats
    cores: Floats
    workload_digest: str | None
    profile_digest: str | None
    tally: Tally | None = None

    @property
    def name(self) -> str:
        """What tables and plots call it."""
        return self.info.name

    def called(self, name: str) -> Run:
        """The same run under another name."""
        return replace(self, info=replace(self.info, name=name))

    @property
    def decisions(self) -> tuple[Step, ...]:
        """The steps that were decided, which the initial configuration was not."""
        return tuple(step for step in self.steps if step.start_s > 0)

    @property
    def duration_s(self) -> float:
        """Length of the workload that was offered, up to where the run got."""
        if self.status in ("complete", "ipa"):
            return self.info.duration_s
        reached = self.steps[-1].end_s if self.steps else 0.0
        return min(self.info.duration_s, reached)

    @property
    def offered_rps(self) -> Floats:
        """(seconds,) requests sent in each second, of those that left the pipeline."""
        length = int(np.ceil(self.duration_s))
        if self.tally is not None:
            first_s, sent = self.tally.first_s, self.tally.sent
            offered = np.zeros(max(length, first_s + len(sent)))
            offered[first_s : first_s + len(sent)] = sent
            return offered
        seconds = np.floor(self.requests.sending_s).astype(np.int64)
        return np.bincount(seconds, minlength=length).astype(np.float64)


def read_run(path: Path) -> Run:
    """Read a run folder of any state.

    Raises:
        ConfigError: it is no run folder, or a file in it is damaged.
    """
    if not path.is_dir():
        raise ConfigError("no such folder", where=path, allowed="a run folder")
    if not (path / RUN_FILE).exists():
        return _read_ipa(path)
    info, status = read_run_json(path)
    if status != "complete":
        try:
            return _read_journal(path, info, status)
        except FileNotFoundError as error:
            if read_run_json(path)[1] != "complete":
                raise ConfigError(
                    "the run is not complete and its journal is gone", where=path / JOURNAL_FILE
                ) from error
            status = "complete"  # it was completed while we looked
    steps = list(_steps(_timesteps(path / ADAPTATION_FILE), info))
    responses = read_responses(path / RESPONSES_FILE, info.nodes, info.classes)
    return _folder_run(path, info, status, steps, responses)


class RunInMemory:
    """A run that nobody asked a folder for: takes its intervals as :class:`.writer.RunLog` does.

    Args:
        info: who runs.
    """

    finished: tuple[Finished, ...] = ()
    next_request_id = 0

    def __init__(self, info: RunInfo) -> None:
        self.totals = Totals()
        self.elapsed_s = 0.0
        self._info = replace(info, start_time_s=round(info.start_time_s, 3))
        self._status: RunStatus = "running"
        self._windows = _Windows(info)

    def append_interval(self, interval: Interval) -> None:
        """Take one more interval."""
        continues = not self._windows.is_empty and interval.decision is None
        interval = self._info.counted(interval)
        entry = None if continues else log_entry(interval)
        self._windows.add(interval.timestep_s, entry, interval.served)

    def complete(self, _: Mapping[str, Any]) -> None:
        """There is nothing more to come."""
        self._status = "complete"

    def fail(self, _: str) -> None:
        """The run failed."""
        self._status = "failed"

    def run(self, config_yaml: str, workload: bytes, profile: bytes) -> Run:
        """The run; when it is complete, equal to the one read from a folder of it.

        Args:
            config_yaml: what would stand in ``0.yaml``.
            workload: the same in ``workload.csv``.
            profile: the same in ``profile.csv``.
        """
        found = self._windows
        return _run(
            self._info,
            self._status,
            found.steps(),
            found.responses(),
            config=yaml.safe_load(config_yaml),
            workload_digest=_digest(workload),
            profile_digest=_digest(profile),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing to let go of."""


class _Windows:
    """The windows of a run, gathered into what its final files hold."""

    def __init__(self, info: RunInfo) -> None:
        self._info = info
        self._steps: list[Step] = []
        self._last: tuple[str, dict[str, Any]] | None = None
        self._requests = [no_requests(len(info.nodes))]
        self._power_w: list[float] = []
        self._cores: list[float] = []
        self._end_s = 0.0

    def add(self, timestep_s: float, entry: dict[str, Any] | None, served: Served) -> None:
        """One window more; without an entry it continues the step before it."""
        if entry is not None:
            self._steps = self.steps()
            self._last = (f"{timestep_s:g}", entry)
        elif self._last is not None:
            timestep, before = self._last
            self._last = (timestep, with_window(before, served))
        add_seconds(self._power_w, self._cores, served)
        self._requests.append(as_logged(served.requests))
        self._end_s = served.end_s

    @property
    def is_empty(self) -> bool:
        """True before the first window."""
        return self._last is None

    def steps(self) -> list[Step]:
        """What the adaptation log would hold."""
        if self._last is not None:
            self._steps.append(parse_entry(*self._last, self._info.nodes, self._end_s))
            self._last = None
        return self._steps

    def responses(self) -> Responses:
        """What ``0.json`` would hold."""
        requests = joined(self._requests)
        return Responses(
            requests=taken(requests, np.argsort(requests.request_id, kind="stable")),
            power_w=np.array(self._power_w),
            cores=np.array(self._cores),
            seconds=int(np.ceil(self._end_s)),
        )


def _read_journal(path: Path, info: RunInfo, status: str) -> Run:
    windows = _Windows(info)
    for line, _ in read_lines(path / JOURNAL_FILE):
        windows.add(line.timestep_s, line.entry, line.served)
    return _folder_run(path, info, status, windows.steps(), windows.responses())


def _read_ipa(path: Path) -> Run:
    missing = [name for name in (CONFIG_FILE, ADAPTATION_FILE) if not (path / name).exists()]
    if missing:
        raise ConfigError(
            f"is not a run folder: it has no {RUN_FILE} and no {', no '.join(missing)}",
            where=path,
            allowed="a folder that ipa-energy run --out made, or a series folder of IPA's results",
        )
    config = _read_yaml(path / CONFIG_FILE)
    log = _read_json(path / ADAPTATION_FILE)
    metadata = log.get("metadata") or {}
    nodes = tuple(str(node["node_name"]) for node in config.get("nodes") or ())
    timesteps = log.get("timesteps") or {}
    interval_s = number(config.get("adaptation_interval"))
    responses = Responses(
        requests=no_requests(len(nodes)), power_w=np.empty(0), cores=np.empty(0), seconds=0
    )
    if (path / RESPONSES_FILE).exists():
        responses = read_responses(path / RESPONSES_FILE, nodes)
    starts = [start_of(key, entry) for key, entry in timesteps.items()]
    info = RunInfo(
        name=path.name,
        stages=tuple(config.get("task_name") or nodes),
        nodes=nodes,
        start_time_s=0.0,
        duration_s=float(max([responses.seconds, *(start + interval_s for start in starts)])),
        interval_s=interval_s,
        latency_sla_s=metadata.get("sla"),
        stage_slas_s=metadata.get("stage_wise_slas") or {},
        base_allocations=metadata.get("base_allocations") or {},
        backend="ipa",
        settings={
            key: config[key] for key in ("alpha", "beta", "gamma", "energy_weight") if key in config
        },
    )
    steps = list(_steps(iter(timesteps.items()), info))
    return _folder_run(path, info, "ipa", steps, responses)


def _folder_run(
    path: Path,
    info: RunInfo,
    status: str,
    steps: Sequence[Step],
    responses: Responses,
) -> Run:
    files = [path / WORKLOAD_FILE, path / PROFILE_FILE]
    workload, profile = (_digest(file.read_bytes()) if file.exists() else None for file in files)
    if not steps:
        raise ConfigError(
            "no interval is finished",
            where=path,
            fix="go on with ipa-energy run --resume, or run again",
        )
    return _run(
        info,
        status,
        steps,
        responses,
        path=path,
        config=_read_yaml(path / CONFIG_FILE),
        workload_digest=workload,
        profile_digest=profile,
    )


def _run(
    info: RunInfo,
    status: str,
    steps: Sequence[Step],
    responses: Responses,
    *,
    path: Path | None = None,
    config: Mapping[str, Any],
    workload_digest: str | None,
    profile_digest: str | None,
) -> Run:
    tallies = [step.tally for step in steps if step.tally is not None]
    return Run(
        path=path,
        info=info,
        status=status,
        config=config,
        steps=tuple(steps),
        requests=responses.requests,
        power_w=responses.power_w,
        cores=responses.cores,
        workload_digest=workload_digest,
        profile_digest=profile_digest,
        tally=merged(tallies) if tallies else None,
    )


def _steps(timesteps: Iterator[tuple[str, Mapping[str, Any]]], info: RunInfo) -> Iterator[Step]:
    """The steps of a log; each ends where it says, or where the next one begins."""
    entries = chain(timesteps, [None])
    last = next(entries)
    for following in entries:
        if last is None:
            return
        end_s = info.duration_s if following is None else start_of(*following)
        yield parse_entry(*last, info.nodes, end_s)
        last = following


def _timesteps(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The entries of a log: where it has one a line, as ours have, one at a time.

    A log of days fits no memory at once.
    """
    try:
        with path.open(encoding="utf-8") as file:
            file.readline()
            if file.readline() == TIMESTEPS_LINE:
                for line in iter(file.readline, LAST_LINE):
                    yield from json.loads("{" + line.rstrip().removesuffix(",") + "}").items()
                return
        yield from (_read_json(path).get("timesteps") or {}).items()
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot be read ({in_words(error)})", where=path) from error


def _read_json(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot be read ({in_words(error)})", where=path) from error
    if not isinstance(data, dict):
        raise ConfigError("is not a JSON object", where=path)
    return data


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise ConfigError(f"cannot be read ({in_words(error)})", where=path) from error
    return data if isinstance(data, dict) else {}


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
