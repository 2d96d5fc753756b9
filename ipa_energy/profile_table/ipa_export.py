"""A profile as IPA's profiling folders, one series a stage, for IPA's own ``load_profile``.

::

    DIR/accuracies.yaml                    variants in percent: goes into IPA's accuracies.yaml
    DIR/series/N/key_config_mapper.csv     one line an entry
    DIR/series/N/ID.json                   its throughput, its joules, and requests
    DIR/series/N/ipa-energy.jsonl          meter, quality, true load: what IPA has no place for
    DIR/series/N/0.yaml                    the profiling configuration IPA keeps with a series

The requests are synthesised: a profile keeps two figures of a distribution, so they are the
plainest set whose mean and 99th percentile are those two. Nothing else about it (variance, median,
order, waiting) means anything, and ``mode`` and ``series_meta`` say so. Its clock starts at 0,
where doubles resolve latencies fully. No CPU, memory or throttling figures are invented: these
lists are empty.

IPA picks experiments by one ``load``, a whole number, and plans with every one of them. So the row
that planning would take of an option (fewest replicas, lowest load) carries the chosen label, and
further rows of that option the numbers after it; the load that was really served is in the notes.
"""

from __future__ import annotations

import csv
import io
import json
import logging
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ipa_energy.config.source import dump_yaml
from ipa_energy.errors import ConfigError
from ipa_energy.files import whole_file, whole_folder
from ipa_energy.profile_table.ipa_results import CPU_COUNT, DYNAMIC_JOULES, IDLE_POWER, JOULES
from ipa_energy.profile_table.ipa_tables import COLUMNS, MAPPER_FILE, NOTES_FILE, Note
from ipa_energy.profile_table.profile_row import ProfileRow, rounded

logger = logging.getLogger(__name__)

ACCURACIES_FILE = "accuracies.yaml"
MODE = "synthesised"
NOT_RECORDED = "unknown"
RECORDED_LISTS = (
    CPU_COUNT,
    "cpu_usage_rate",
    "cpu_throttled_count",
    "cpu_throttled_rate",
    "memory_usage",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class SeriesTarget:
    """Where a stage goes.

    Attributes:
        stage: of the profile.
        node: what IPA calls its server, its ``model_name``.
        series: number of the folder, its ``profiling_series``.
    """

    stage: str
    node: str
    series: int


def export_profile(
    rows: Sequence[ProfileRow],
    into: Path,
    targets: Sequence[SeriesTarget],
    *,
    pipeline: str,
    load: int,
    hardware: str | None = None,
) -> dict[str, int]:
    """Write one series a target and the accuracies; answers stage → experiments.

    Args:
        rows: of a profile; those on a GPU are left out, as IPA plans CPU cores only.
        into: IPA's ``data/results/profiling/nodes``, or any folder.
        targets: the stages to write.
        pipeline: IPA's name of the pipeline.
        load: the ``profiling_load`` that shall pick the rows to plan with.
        hardware: the only one to write; None if the profile knows one.

    Raises:
        ConfigError: a stage has no rows or is on several machines, latencies that no requests can
            have, or something is there already; nothing is written then.
    """
    wanted = [row for row in rows if hardware in (None, row.hardware)]
    kept = {target.stage: _rows_of(wanted, target.stage) for target in targets}
    accuracies = into / ACCURACIES_FILE
    places = [into / "series" / str(target.series) for target in targets]
    for place in places:
        if place.exists():
            raise ConfigError(
                "it exists already", where=place, fix="choose another folder or another series"
            )
    text = accuracies_yaml(pipeline, [row for stage_rows in kept.values() for row in stage_rows])
    if accuracies.exists() and not _holds(accuracies, text):
        raise ConfigError(
            "it exists already, with other accuracies",
            where=accuracies,
            fix="choose another folder, whatever the series, or move the file away",
        )
    files = [
        _series_files(kept[target.stage], target, pipeline=pipeline, load=load)
        for target in targets
    ]
    for place, content in zip(places, files, strict=True):
        _write_folder(place, content)
    try:
        if not accuracies.exists():
            with whole_file(accuracies) as file:
                file.write(text)
    except OSError as error:
        raise ConfigError(f"cannot be written: {error.strerror}", where=accuracies) from error
    return {stage: len(stage_rows) for stage, stage_rows in kept.items()}


def _holds(path: Path, text: str) -> bool:
    try:
        return path.read_bytes() == text.encode()
    except OSError:
        return False


def _rows_of(rows: Sequence[ProfileRow], stage: str) -> list[ProfileRow]:
    of_stage = [row for row in rows if row.stage == stage]
    kept = [row for row in of_stage if row.gpu_share == 0]
    if len(kept) < len(of_stage):
        logger.warning(
            "stage %s: %d rows on a GPU are left out: IPA's folder has CPU cores only",
            stage,
            len(of_stage) - len(kept),
        )
    if not kept:
        stages = ", ".join(dict.fromkeys(row.stage for row in rows if row.gpu_share == 0))
        raise ConfigError(
            f"no rows on a CPU for stage {stage}", where="--stage", allowed=stages or "nothing"
        )
    machines = sorted({" ".join((row.hardware, *(c for _, c in row.labels))) for row in kept})
    if len(machines) > 1:
        raise ConfigError(
            f"stage {stage} was profiled on {', '.join(machines)}",
            allowed="one hardware in a series: IPA does not tell them apart",
            fix="choose one with --hardware",
        )
    return kept


def _series_files(
    rows: Sequence[ProfileRow], target: SeriesTarget, *, pipeline: str, load: int
) -> dict[str, str]:
    """File name → content."""
    files: dict[str, str] = {}
    lines, notes = [], []
    for number, (row, label) in enumerate(_labelled(rows, load), 1):
        result = _result(row, target.node)
        files[f"{number}.json"] = json.dumps(result, allow_nan=False)
        line = _mapper_line(row, number, label, target, pipeline)
        lines.append(line | {"load_duration": len(result["responses"])})
        notes.append(_note(row, number).to_line())
    files[NOTES_FILE] = "".join(notes)
    files["0.yaml"] = dump_yaml(_configuration(lines, target, pipeline))
    files[MAPPER_FILE] = mapper_csv(lines)
    return files


def _labelled(rows: Sequence[ProfileRow], load: int) -> Iterator[tuple[ProfileRow, int]]:
    """Rows in the order of the profile, each with its label as a load."""
    groups: dict[tuple[object, ...], list[ProfileRow]] = {}
    for row in rows:
        groups.setdefault(row.option_key, []).append(row)
    for group in groups.values():
        group.sort(key=lambda row: (row.replicas, row.load_rps))
    for row in rows:
        yield row, load + groups[row.option_key].index(row)


def _result(row: ProfileRow, node: str) -> dict[str, Any]:
    responses = responses_for(row.latency_avg_s, row.latency_p99_s, max(1.0, row.load_rps), node)
    last = responses[-1][-1]["times"]["request"]["arrival"]
    result: dict[str, Any] = {}
    for key in RECORDED_LISTS:
        result |= {key: [], f"time_{key}": []}
    result |= {"throughput": [row.throughput_rps], "time_throughput": [last]}
    joules = {
        JOULES: row.joules_per_request,
        DYNAMIC_JOULES: row.dynamic_energy_j,
        IDLE_POWER: row.idle_power_w,
    }
    if row.has_energy:
        result |= {key: [value] for key, value in joules.items() if not math.isnan(value)}
    return result | {
        "responses": responses,
        "start_time_experiment": 0.0,
        "end_time_experiment": last,
    }


def _mapper_line(
    row: ProfileRow, number: int, label: int, target: SeriesTarget, pipeline: str
) -> dict[str, object]:
    return {
        "experiment_id": number,
        "pipeline_name": pipeline,
        "node_name": target.node,
        "model_variant": row.variant,
        "cpu_request": _whole(row.cpu_cores),
        "memory_request": NOT_RECORDED,
        "max_batch_size": row.batch,
        "max_batch_time": 1,
        "load": label,
        "series": target.series,
        "series_meta": f"ipa-energy: made from a profile; hardware {row.hardware}",
        "replicas": row.replicas,
        "no_engine": True,
        "mode": MODE,
        "data_type": NOT_RECORDED,
        "benchmark_duration": 1,
    }


def _note(row: ProfileRow, number: int) -> Note:
    return Note(
        experiment_id=number,
        meter=row.meter or None,
        quality=row.quality,
        trials=row.trials,
        energy_ci95_j=None if math.isnan(row.energy_ci95_j) else row.energy_ci95_j,
        load_rps=row.load_rps,
        hardware=row.hardware,
    )


def _configuration(
    lines: Sequence[Mapping[str, Any]], target: SeriesTarget, pipeline: str
) -> dict[str, Any]:
    """What IPA's profiler would have been started with."""

    def seen(column: str) -> list[Any]:
        return sorted({line[column] for line in lines})

    return {
        "series": target.series,
        "series_meta": lines[0]["series_meta"],
        "pipeline_name": pipeline,
        "node_name": target.node,
        "mode": MODE,
        "model_variants": seen("model_variant"),
        "max_batch_size": [str(batch) for batch in seen("max_batch_size")],
        "cpu_request": [str(cores) for cores in seen("cpu_request")],
        "replicas": seen("replicas"),
        "workload_type": "static",
        "workload_config": {"loads_to_test": seen("load")},
    }


def _write_folder(place: Path, files: Mapping[str, str]) -> None:
    try:
        whole_folder(place, files)
    except OSError as error:
        raise ConfigError(f"cannot be written: {error.strerror}", where=place) from error


def _whole(value: float) -> float | int:
    return int(value) if value == int(value) else value


def mapper_csv(lines: Iterable[Mapping[str, object]]) -> str:
    """The whole file: header and one line for each mapping, which has every column."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return text.getvalue()


def accuracies_yaml(pipeline: str, rows: Iterable[ProfileRow]) -> str:
    """The accuracies of these rows as IPA's file has them."""
    stages: dict[str, dict[str, float]] = {}
    for row in rows:
        # Twelve digits: 0.457 is 45.7 percent, not 45.699999999999996.
        stages.setdefault(row.stage, {})[row.variant] = rounded(100 * row.accuracy, 12)
    return dump_yaml({pipeline: stages})


MOST_HUNDREDS = 50
"""Hundreds of requests a synthesised experiment may have."""


LEAST_SHARE = 1e-3
"""Least latency of a synthesised request over the mean: less could vanish beside its send time."""


def responses_for(
    latency_avg_s: float, latency_p99_s: float, pace_rps: float, node: str
) -> list[list[dict[str, Any]]]:
    """Requests by second, sent at an even pace, with this mean and this 99th percentile.

    Raises:
        ConfigError: no latencies have them: at least one request in a hundred takes the 99th
            percentile, so the mean cannot be under a hundredth of it.
    """
    seconds: list[list[dict[str, Any]]] = []
    for index, latency_s in enumerate(_latencies_for(latency_avg_s, latency_p99_s)):
        sent_s = index / pace_rps
        while len(seconds) <= int(sent_s):
            seconds.append([])
        end_s = sent_s + latency_s
        times = {
            "request": {"sending": sent_s, "arrival": end_s},
            "models": {node: {"arrival": sent_s, "serving": end_s}},
        }
        seconds[int(sent_s)].append({"times": times})
    return seconds


def _latencies_for(avg_s: float, p99_s: float) -> list[float]:
    """99k requests alike and k + 1 at the 99th percentile, for the smallest k that can do it.

    Of 100k + 1 sorted values the percentile is the one at index 99k, without interpolation.
    """
    p99_s = max(p99_s, avg_s)
    for hundreds in range(1, MOST_HUNDREDS + 1):
        usual, slow = 99 * hundreds, hundreds + 1
        usual_s = ((usual + slow) * avg_s - slow * p99_s) / usual
        if usual_s > LEAST_SHARE * avg_s:
            return [min(usual_s, p99_s)] * usual + [p99_s] * slow
    raise ConfigError(
        f"no {100 * MOST_HUNDREDS} latencies have a mean of {avg_s:g} s and a p99 of {p99_s:g} s",
        allowed="a p99 under 98 times the mean",
    )
