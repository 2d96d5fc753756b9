"""Rows of a profile from a folder of results as MLPerf Inference publishes them.

::

    …/DIVISION/SUBMITTER/results/SYSTEM/MODEL/SCENARIO/
        performance/{ranging,run_1,…}/mlperf_log_summary.txt   latencies, whether the run is valid
        performance/{ranging,run_1,…}/mlperf_log_detail.txt    power_begin, power_end, throughput
        performance/{ranging,run_1,…}/spl.txt                  the power analyser, a line a sample
        performance/power/{client,server}.json                 time zones of the two machines
        accuracy/accuracy.txt                                  accuracy=71.254%, …
    …/DIVISION/SUBMITTER/systems/SYSTEM.json                   cores of the system

    joules per request    J = mean of the watts between power_begin and power_end
                              / queries a second without the load generator's overhead
    idle watts            p = median over the testing runs of a SYSTEM of each run's median of the
                              samples later than 4 s after power_end
    above idle            e = J − p / queries a second

J is the mean over ranging and testing runs, with Student's interval over them; latencies and
throughput are those of the testing runs. Only SingleStream says how long one request takes alone,
so no other scenario makes a row.

**Clocks.** The run's log and the analyser's may be written on two machines. Submissions to v1.0
wrote local times and put the seconds west of UTC in ``client.json`` and ``server.json``; later ones
write UTC on both sides and keep the zones in the files nevertheless. So both readings are tried,
and the one in which the samples cover the run is taken; if none does, the run is refused.
"""

from __future__ import annotations

import json
import math
import os
import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

from ipa_energy.errors import ConfigError, in_words
from ipa_energy.interval import half_width_95
from ipa_energy.profile_table.profile_row import ProfileRow, as_number, rounded
from ipa_energy.records import MLPERF_METER
from ipa_energy.tables import signed

SCENARIO = "SingleStream"
METER = MLPERF_METER
NOTICE = (
    "MLPerf Inference; joules per request computed from the power logs of the submission; result"
    " not verified by MLCommons Association. The MLPerf name and logo are registered trademarks of"
    " MLCommons Association. Never put these figures beside those of other benchmarks in one table."
)
METHOD = (
    "Mean of the watts between power_begin and power_end of the log, over queries per second"
    " without the load generator's overhead. Idle watts: the median over the testing runs of a"
    " system of each run's median of the samples later than 4 s after power_end. SingleStream,"
    " batch 1, the whole system."
)
IDLE_AFTER_S = 4.0
"""The machine has come to rest this long after a run."""
MAX_GAP_S = 10.0
"""Of readings that come every second; published logs lack up to 6 s where the analyser failed."""

_SUMMARY, _DETAIL, _POWER = "mlperf_log_summary.txt", "mlperf_log_detail.txt", "spl.txt"
_TIME = "%m-%d-%Y %H:%M:%S.%f"
_THROUGHPUT = "result_qps_without_loadgen_overhead"
_DETAILS = ("power_begin", "power_end", _THROUGHPUT)
_ACCURACY = re.compile(r"\baccuracy=([0-9.]+)%")
_ROUND = re.compile(r"inference_results_(v[0-9.]+)")


@dataclass(frozen=True, slots=True)
class MlperfRun:
    """One run of ten minutes, from its own log and the analyser's.

    Attributes:
        name: of its folder: ``ranging``, ``run_1`` …
        power_w: mean over the run.
        throughput_rps: queries a second without the load generator's overhead.
        latency_avg_s: of a query.
        latency_p99_s: of a query.
        idle_w: every sample of the machine at rest, after the run.
    """

    name: str
    power_w: float
    throughput_rps: float
    latency_avg_s: float
    latency_p99_s: float
    idle_w: tuple[float, ...]

    @property
    def joules_per_request(self) -> float:
        """Idle share included."""
        return self.power_w / self.throughput_rps


@dataclass(frozen=True, slots=True)
class MlperfResult:
    """What one model did on one system.

    Attributes:
        folder: of the scenario.
        runs: ranging first, then the testing runs.
        accuracy: 0 to 1; NaN if accuracy.txt is not there or says it in another way.
    """

    folder: Path
    runs: tuple[MlperfRun, ...]
    accuracy: float

    @property
    def system(self) -> str:
        """Name of the system's folder."""
        return self.folder.parts[-3]

    @property
    def model(self) -> str:
        """Name of the model's folder."""
        return self.folder.parts[-2]

    @property
    def testing(self) -> tuple[MlperfRun, ...]:
        """The runs whose latencies and throughput count."""
        return tuple(run for run in self.runs if run.name != "ranging")


@dataclass(frozen=True, slots=True, kw_only=True)
class MlperfChoice:
    """What the folder does not say, or what is to be taken instead.

    Attributes:
        stage: of the rows.
        idle_power_w: instead of the samples after each run; NaN to take these.
        cpu_cores: of the system; NaN to take them from ``systems/SYSTEM.json``.
        resource: what a replica holds one unit of; None for the system's name.
        accuracies: by model, instead of accuracy.txt.
    """

    stage: str = "classification"
    idle_power_w: float = math.nan
    cpu_cores: float = math.nan
    resource: str | None = None
    accuracies: Mapping[str, float] | None = None


def is_mlperf_folder(path: Path) -> bool:
    """True if there is the summary of a run in it or below, or the path is that of one."""
    if path.is_dir():
        return any(_real(path).rglob(_SUMMARY))
    return path.name == _SUMMARY


def _real(path: Path) -> Path:
    """Where it is; a link that leads to itself stays one, which ``Path.resolve`` raises for."""
    return Path(os.path.realpath(path))


def model_folders(paths: Sequence[Path]) -> list[tuple[Path, ...]]:
    """The scenario folders of each model of each system, in the order of their names.

    Raises:
        ConfigError: there is no run in any of the folders.
    """
    folders = {
        summary.parents[2]
        for path in paths
        for summary in _real(path).rglob(f"performance/*/{_SUMMARY}")
    }
    models: dict[Path, list[Path]] = {}
    for folder in sorted(folders):
        models.setdefault(folder.parent, []).append(folder)
    if not models:
        raise ConfigError(
            "no run of MLPerf in it",
            where=paths[0],
            allowed=f"a folder with SYSTEM/MODEL/SCENARIO/performance/run_1/{_SUMMARY} below",
        )
    return [tuple(found) for found in models.values()]


def read_result(scenarios: Sequence[Path], scenario: str | None = None) -> MlperfResult:
    """What one model did, from the one of its scenario folders that is chosen.

    Raises:
        ConfigError: several scenarios and none chosen, or a run without power log, that is not
            valid, or whose clock does not overlap with the analyser's.
    """
    folder = _chosen(scenarios, scenario)
    runs = sorted(path.parent for path in folder.glob(f"performance/*/{_SUMMARY}"))
    if all(run.name == "ranging" for run in runs):
        raise ConfigError(
            "a ranging run without a testing run", where=folder, allowed="performance/run_1"
        )
    return MlperfResult(folder, tuple(_run(run) for run in runs), _accuracy(folder))


def profile_rows(results: Sequence[MlperfResult], choice: MlperfChoice) -> list[ProfileRow]:
    """A row a result.

    Raises:
        ConfigError: accuracy, cores or idle watts are neither in the folders nor in ``choice``, or
            the idle watts are more than a run drew.
    """
    systems: dict[str, list[MlperfResult]] = {}
    for result in results:
        systems.setdefault(result.system, []).append(result)
    idle = {name: _idle_power_w(found, choice) for name, found in systems.items()}
    return [_row(result, choice, idle[result.system]) for result in results]


def _chosen(found: Sequence[Path], scenario: str | None) -> Path:
    names = ", ".join(folder.name for folder in found)
    if scenario is not None:
        matching = [folder for folder in found if folder.name.lower() == scenario.lower()]
        if not matching:
            what = f"scenario {scenario!r} of this model"
            raise ConfigError(what, where=found[0].parent, allowed=names)
        return matching[0]
    if len(found) > 1:
        raise ConfigError(
            f"several scenarios of one model: {names}",
            where=found[0].parent,
            allowed="one a table",
            fix=f"choose with --scenario {SCENARIO.lower()}",
        )
    return found[0]


def _run(folder: Path) -> MlperfRun:
    summary = _summary(folder)
    details = _details(folder)
    samples = _power_samples(folder)
    begin, end = _time(details["power_begin"], folder), _time(details["power_end"], folder)
    shift = _clock_shift(folder, samples, begin, end)
    during = [watts for time, watts in samples if begin < time + shift < end]
    rest = end + timedelta(seconds=IDLE_AFTER_S)
    return MlperfRun(
        name=folder.name,
        power_w=statistics.fmean(during),
        throughput_rps=_positive(details[_THROUGHPUT], folder / _DETAIL, "queries per second"),
        latency_avg_s=_latency_s(summary, "Mean latency (ns)", folder),
        latency_p99_s=_latency_s(summary, "99.00 percentile latency (ns)", folder),
        idle_w=tuple(watts for time, watts in samples if time + shift > rest),
    )


def _summary(folder: Path) -> dict[str, str]:
    """The summary's ``name : value`` lines, of a valid run of the scenario that we know."""
    lines = _text(folder / _SUMMARY).splitlines()
    pairs = (line.split(":", 1) for line in lines if ":" in line)
    found = {name.strip(): value.strip() for name, value in pairs}
    if "Result is" not in found:
        raise ConfigError("no result in it", where=folder / _SUMMARY, allowed="a finished run")
    if found["Result is"] != "VALID":
        raise ConfigError(f"the run is {found['Result is']}", where=folder, allowed="a VALID run")
    scenario = found.get("Scenario", "")
    if scenario != SCENARIO:
        raise ConfigError(
            f"scenario {scenario or 'unknown'}: it does not tell how long one request takes alone",
            where=folder,
            allowed=SCENARIO,
        )
    return found


def _details(folder: Path) -> dict[str, Any]:
    """What we need of the detailed log, which is a JSON object a line."""
    if not (folder / _DETAIL).is_file():
        raise ConfigError(f"no {_DETAIL}", where=folder, allowed="power_begin and power_end in it")
    found: dict[str, Any] = {}
    for line in _text(folder / _DETAIL).splitlines():
        if any(f'"{key}"' in line for key in _DETAILS):
            entry = json.loads(line.partition("{")[1] + line.partition("{")[2])
            found[entry["key"]] = entry["value"]
    missing = [key for key in _DETAILS if key not in found]
    if missing:
        raise ConfigError(
            f"without {', '.join(missing)}",
            where=folder / _DETAIL,
            allowed="the log of a run that was measured with a power analyser",
        )
    return found


def _power_samples(folder: Path) -> list[tuple[datetime, float]]:
    """(time of the analyser's machine, watts) in the order of the log."""
    path = folder / _POWER
    if not path.is_file():
        raise ConfigError(
            f"no power log: {_POWER} is not there", where=folder, allowed="a run that was measured"
        )
    samples = []
    for number, line in enumerate(_text(path).splitlines(), 1):
        cells = line.split(",")
        if cells[0] != "Time":
            continue
        where = f"{path}:{number}"
        try:
            time, label, watts = datetime.strptime(cells[1], _TIME), cells[2], float(cells[3])  # noqa: DTZ007
        except (ValueError, IndexError) as error:
            raise ConfigError(
                f"not a sample: {line[:60]}", where=where, allowed="Time,…,Watts,…"
            ) from error
        if label != "Watts" or not math.isfinite(watts):
            raise ConfigError(f"{label} {watts:g}", where=where, allowed="a finite number of watts")
        if watts >= 0:  # −1 is the analyser's word for no reading
            samples.append((time, watts))
    if not samples:
        raise ConfigError("the power log has no reading", where=path, allowed="Time,…,Watts,…")
    return samples


def _clock_shift(
    folder: Path, samples: Sequence[tuple[datetime, float]], begin: datetime, end: datetime
) -> timedelta:
    """What the analyser's times lack of the run's, so that the samples cover the run."""
    power = folder.parent / "power"
    zones = [_zone(power / "server.json"), _zone(power / "client.json")]
    shifts = {timedelta(0), zones[0] - zones[1]}
    covering = [
        shift for shift in shifts if _longest_gap_s(samples, shift, begin, end) <= MAX_GAP_S
    ]
    if len(covering) == 1:
        return covering[0]
    hours = ", ".join(f"{signed(s.total_seconds() / 3600, '+g')} h" for s in sorted(shifts))
    what = "do not overlap" if not covering else "overlap in two ways"
    raise ConfigError(
        f"the clocks {what}: the run went from {begin} to {end}, the power log from"
        f" {samples[0][0]} to {samples[-1][0]}, with {hours} for the time zones of power/*.json",
        where=folder,
        allowed=f"samples over the whole run, never more than {MAX_GAP_S:g} s apart",
    )


def _zone(path: Path) -> timedelta:
    """Seconds west of UTC that a machine of the submission wrote down; 0 without the file."""
    if not path.is_file():
        return timedelta(0)
    try:
        return timedelta(seconds=float(json.loads(_text(path))["timezone"]))
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError("no time zone", where=path, allowed='"timezone": seconds') from error


def _longest_gap_s(
    samples: Sequence[tuple[datetime, float]], shift: timedelta, begin: datetime, end: datetime
) -> float:
    """Longest time of the run without a sample."""
    inside = sorted(time + shift for time, _ in samples if begin < time + shift < end)
    if not inside:
        return math.inf
    edges = [begin, *inside, end]
    return max((b - a).total_seconds() for a, b in pairwise(edges))


def _accuracy(folder: Path) -> float:
    path = folder / "accuracy" / "accuracy.txt"
    found = _ACCURACY.search(_text(path)) if path.is_file() else None
    return float(found[1]) / 100 if found else math.nan


def _idle_power_w(results: Sequence[MlperfResult], choice: MlperfChoice) -> float:
    if not math.isnan(choice.idle_power_w):
        return choice.idle_power_w
    rests = [run.idle_w for result in results for run in result.testing if run.idle_w]
    if rests:
        return statistics.median(statistics.median(watts) for watts in rests)
    raise ConfigError(
        f"no power log of {results[0].system} goes on for {IDLE_AFTER_S:g} s after its run, so its"
        " idle watts are not known",
        where=results[0].folder,
        fix="give them as --idle-power",
    )


def _row(result: MlperfResult, choice: MlperfChoice, idle_power_w: float) -> ProfileRow:
    accuracy = (choice.accuracies or {}).get(result.model, result.accuracy)
    if math.isnan(accuracy):
        raise ConfigError(
            f"no accuracy of {result.model}",
            where=result.folder,
            allowed="accuracy=71.254% in accuracy/accuracy.txt",
            fix="give it in a file to --accuracies",
        )
    joules = [run.joules_per_request for run in result.runs]
    throughput_rps = statistics.fmean(run.throughput_rps for run in result.testing)
    energy_j = statistics.fmean(joules)
    dynamic_energy_j = energy_j - idle_power_w / throughput_rps
    if dynamic_energy_j < 0:
        raise ConfigError(
            f"{energy_j * throughput_rps:.4g} W under load, {idle_power_w:.4g} W at rest",
            where=result.folder,
            allowed="idle watts below those of the run",
            fix="give them as --idle-power",
        )
    return ProfileRow(
        stage=choice.stage,
        variant=result.model,
        hardware=result.system,
        cpu_cores=_cores(result, choice),
        gpu_share=0.0,
        batch=1,
        replicas=1,
        load_rps=rounded(throughput_rps),
        latency_avg_s=rounded(statistics.fmean(run.latency_avg_s for run in result.testing), 9),
        latency_p99_s=rounded(statistics.fmean(run.latency_p99_s for run in result.testing), 9),
        throughput_rps=rounded(throughput_rps),
        accuracy=round(accuracy, 5),
        dynamic_energy_j=rounded(dynamic_energy_j),
        idle_power_w=rounded(idle_power_w),
        joules_per_request=rounded(energy_j),
        energy_ci95_j=rounded(half_width_95(joules)),
        trials=len(joules),
        meter=METER,
        quality="measured",
        resource=choice.resource or result.system,
        resource_units=1.0,
        source=_source(result.folder),
    )


def _cores(result: MlperfResult, choice: MlperfChoice) -> float:
    if not math.isnan(choice.cpu_cores):
        return choice.cpu_cores
    path = result.folder.parents[3] / "systems" / f"{result.system}.json"
    try:
        system = json.loads(_text(path))
        cores = float(system["host_processor_core_count"])
        cores *= float(system["host_processors_per_node"]) * float(system["number_of_nodes"])
    except (ConfigError, ValueError, KeyError, TypeError):
        cores = math.nan
    if not 0 < cores < math.inf:
        raise ConfigError(
            "the cores of the system are not known",
            where=path,
            allowed="host_processor_core_count and host_processors_per_node in it",
            fix="give them as --cores",
        )
    return cores


def _source(folder: Path) -> str:
    """Round, division and submitter as far as the path tells them."""
    above = folder.parts[:-3]
    found = _ROUND.search(str(folder))
    words = ["MLPerf Inference", *([found[1]] if found else [])]
    if len(above) > 2 and above[-1] == "results":
        words += [f"{above[-3]},", above[-2]]
    return " ".join(words)


def _latency_s(summary: Mapping[str, str], name: str, folder: Path) -> float:
    if name not in summary:
        raise ConfigError(f"no {name!r}", where=folder / _SUMMARY, allowed="a summary with it")
    return _positive(summary[name], folder / _SUMMARY, name) / 1e9


def _positive(value: Any, where: Path, name: str) -> float:
    number = as_number(value)
    if not 0 < number < math.inf:
        raise ConfigError(f"{name} is {value!r}", where=where, allowed="a number above 0")
    return number


def _time(value: Any, folder: Path) -> datetime:
    try:
        return datetime.strptime(str(value), _TIME)  # noqa: DTZ007 - whose zone is another file's
    except ValueError as error:
        raise ConfigError(
            f"time {value!r}", where=folder / _DETAIL, allowed="03-06-2021 23:53:12.203"
        ) from error


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeError) as error:
        raise ConfigError(f"cannot be read: {in_words(error)}", where=path) from error
