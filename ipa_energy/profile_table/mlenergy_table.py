"""Rows of a profile from the table of the ML.ENERGY benchmark, version 3.

The table has one line a measured (task, model, GPUs, ``max_num_seqs``) of a language model under
vLLM with its queue full, so that ``max_num_seqs`` requests run at once. A line becomes a row of one
stage::

    variant          the model's name; precision: of its weights
    hardware         how many of which GPU: H100, 2xH100
    resource         the GPU, of which one replica holds resource_units = num_gpus
    batch            max_num_seqs
    throughput_rps   output tokens a second / mean output tokens of a request
    latency_avg_s    mean output tokens × median time between two tokens
    latency_p99_s    mean output tokens × 99th percentile of the time between two tokens: as if each
                     token of a request of mean length came that late. How the lengths of outputs
                     spread is in neither of the two.
    joules           of all GPUs, by NVML's counter (Zeus): GPUs only, no host, no cooling;
                     above idle: J − idle watts of a GPU × num_gpus / throughput_rps

Neither accuracies nor idle watts are in the table; whoever imports it gives them. A model without
accuracy is left out by name, and so is a GPU without idle watts. Lines that repeat an entry are its
trials: figures are their means, the interval is Student's.

A table of images or videos has no tokens, and no row is made of it.
"""

from __future__ import annotations

import csv
import io
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ipa_energy.config.source import read_text
from ipa_energy.errors import ConfigError
from ipa_energy.interval import half_width_95
from ipa_energy.profile_table.profile_row import ProfileRow, as_number, rounded

METER = "zeus-nvml"
NOTICE = (
    "ML.ENERGY Benchmark v3 (dataset ml-energy/benchmark-v3, Apache-2.0); J.-W. Chung et al., The"
    " ML.ENERGY Benchmark, NeurIPS Datasets and Benchmarks 2025. Joules of the GPUs alone."
)
METHOD = (
    "Joules of all GPUs by NVML's counter over requests. Throughput: output tokens per second over"
    " mean output length. Latency: mean output length × inter-token latency, the median's for the"
    " mean and the 99th percentile's for p99. Joules above idle: less idle watts × GPUs over"
    " throughput; idle watts and accuracies are not of this benchmark."
)

_FIGURES = (
    "energy_per_request_joules",
    "output_throughput_tokens_per_sec",
    "avg_output_len",
    "median_itl_ms",
    "p99_itl_ms",
)
_KEY = ("model_id", "weight_precision", "gpu_model", "num_gpus", "max_num_seqs")
NEEDED = ("task", *_KEY, *_FIGURES)
"""Columns that a row is made of; by them the table is told from others."""


@dataclass(frozen=True, slots=True)
class Cited:
    """A figure that somebody else published.

    Attributes:
        value: the figure.
        source: where; empty if whoever gave it did not say.
    """

    value: float
    source: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class MlEnergyChoice:
    """What is to be taken of the table, and what is not in it.

    Attributes:
        task: of the table, such as ``gpqa``.
        accuracies: by model, ``Qwen3-14B`` or ``Qwen/Qwen3-14B``.
        idle_power_w: watts of one GPU that waits with a model loaded, by ``gpu_model``.
        stage: of the rows; None for the task's name.
    """

    task: str
    accuracies: Mapping[str, Cited]
    idle_power_w: Mapping[str, Cited]
    stage: str | None = None


def is_mlenergy_table(path: Path) -> bool:
    """True for a CSV whose header has the columns that a row needs."""
    if path.suffix.lower() != ".csv" or not path.is_file():
        return False
    with path.open(encoding="utf-8", errors="replace", newline="") as file:
        header = next(csv.reader(file), [])
    return set(NEEDED) <= {name.strip() for name in header}


def read_entries(path: Path) -> list[dict[str, str]]:
    """Every line of the table as it stands.

    Raises:
        ConfigError: it cannot be read, or lacks a column.
    """
    reader = csv.DictReader(io.StringIO(read_text(path), newline=""))
    missing = [name for name in NEEDED if name not in (reader.fieldnames or ())]
    if missing:
        raise ConfigError(f"no column {', '.join(missing)}", where=path, allowed=", ".join(NEEDED))
    return list(reader)


def profile_rows(
    entries: Sequence[Mapping[str, str]], choice: MlEnergyChoice, where: Path
) -> tuple[list[ProfileRow], list[str]]:
    """Rows of one task, and a sentence for each model or GPU that is left out.

    Raises:
        ConfigError: no such task, a task without tokens, a figure that is none, or no row is left.
    """
    tasks = sorted({entry["task"] for entry in entries})
    if choice.task not in tasks:
        raise ConfigError(f"no task {choice.task!r}", where=where, allowed=", ".join(tasks))
    grouped: dict[tuple[str, ...], list[Mapping[str, str]]] = {}
    for entry in entries:
        if entry["task"] == choice.task:
            grouped.setdefault(tuple(entry[name] for name in _KEY), []).append(entry)
    rows: list[ProfileRow] = []
    left_out: dict[str, None] = {}
    for trials in grouped.values():
        reason = _left_out(trials[0], choice)
        if reason:
            left_out[reason] = None
        else:
            rows.append(_row(trials, choice, where))
    if not rows:
        raise ConfigError(
            f"no row of {choice.task}: {'; '.join(left_out)}",
            where=where,
            fix="give accuracies (--accuracies FILE) and idle watts (--idle-watts GPU=W)",
        )
    return rows, list(left_out)


def _left_out(entry: Mapping[str, str], choice: MlEnergyChoice) -> str:
    if _accuracy(entry, choice) is None:
        return f"no accuracy of {entry['model_id']}"
    if entry["gpu_model"] not in choice.idle_power_w:
        return f"no idle watts of {entry['gpu_model']}"
    return ""


def _accuracy(entry: Mapping[str, str], choice: MlEnergyChoice) -> Cited | None:
    model = entry["model_id"]
    return choice.accuracies.get(model, choice.accuracies.get(_name(model)))


def _name(model_id: str) -> str:
    return model_id.rpartition("/")[2]


def _row(trials: Sequence[Mapping[str, str]], choice: MlEnergyChoice, where: Path) -> ProfileRow:
    first = trials[0]
    accuracy = _accuracy(first, choice)
    if accuracy is None:
        raise ConfigError(f"no accuracy of {first['model_id']}", where=where)
    figures = [{name: _number(trial, name, where) for name in _FIGURES} for trial in trials]
    gpus, batch = _number(first, "num_gpus", where), _number(first, "max_num_seqs", where)
    tokens = statistics.fmean(f["avg_output_len"] for f in figures)
    throughput_rps = statistics.fmean(
        f["output_throughput_tokens_per_sec"] / f["avg_output_len"] for f in figures
    )
    joules = [f["energy_per_request_joules"] for f in figures]
    median_s = statistics.fmean(f["median_itl_ms"] for f in figures) / 1e3
    p99_s = statistics.fmean(f["p99_itl_ms"] for f in figures) / 1e3
    energy_j = statistics.fmean(joules)
    idle_power_w = choice.idle_power_w[first["gpu_model"]].value * gpus
    dynamic_energy_j = energy_j - idle_power_w / throughput_rps
    if dynamic_energy_j < 0:
        raise ConfigError(
            f"{first['model_id']} drew {energy_j * throughput_rps:.4g} W on {gpus:g}"
            f" {first['gpu_model']}, less than {idle_power_w:.4g} W at rest",
            where=where,
            fix="give the idle watts of one GPU as --idle-watts GPU=W",
        )
    return ProfileRow(
        stage=choice.stage or choice.task,
        variant=_name(first["model_id"]),
        hardware=first["gpu_model"] if gpus == 1 else f"{gpus:g}x{first['gpu_model']}",
        cpu_cores=0.0,
        gpu_share=0.0,
        batch=int(batch),
        replicas=1,
        load_rps=rounded(throughput_rps),
        latency_avg_s=rounded(tokens * median_s),
        latency_p99_s=rounded(tokens * p99_s),
        throughput_rps=rounded(throughput_rps),
        accuracy=accuracy.value,
        dynamic_energy_j=rounded(dynamic_energy_j),
        idle_power_w=rounded(idle_power_w),
        joules_per_request=rounded(energy_j),
        energy_ci95_j=half_width_95(joules),
        trials=len(joules),
        meter=METER,
        quality="imported",
        resource=first["gpu_model"],
        resource_units=gpus,
        precision=first["weight_precision"],
        tokens_per_request=rounded(tokens),
        source="ML.ENERGY Benchmark v3",
    )


def _number(entry: Mapping[str, str], name: str, where: Path) -> float:
    value = as_number(entry[name])
    if not 0 < value < math.inf:
        raise ConfigError(
            f"{name} of {entry['model_id']} ({entry['task']}) is {entry[name]!r}",
            where=where,
            allowed="a number above 0; only tasks of language models have tokens",
        )
    return value


def read_accuracies(path: Path) -> dict[str, Cited]:
    """Accuracies by model, from a CSV of ``model,accuracy`` and, if it cares, ``source``.

    Raises:
        ConfigError: another header, a model twice, or an accuracy that is no ratio.
    """
    reader = csv.DictReader(io.StringIO(read_text(path), newline=""))
    columns = reader.fieldnames or ()
    if not {"model", "accuracy"} <= set(columns) <= {"model", "accuracy", "source"}:
        raise ConfigError(
            f"columns {', '.join(columns)}", where=f"{path}:1", allowed="model, accuracy[, source]"
        )
    found: dict[str, Cited] = {}
    for entry in reader:
        where = f"{path}:{reader.line_num}"
        model, text = (entry["model"] or "").strip(), (entry["accuracy"] or "").strip()
        value = as_number(text)
        if not 0 <= value <= 1:
            raise ConfigError(
                f"accuracy of {model} is {text!r}", where=where, allowed="a ratio from 0 to 1"
            )
        if not model or model in found:
            raise ConfigError(f"model {model!r}", where=where, allowed="a name, each once")
        found[model] = Cited(value, (entry.get("source") or "").strip())
    return found


def meta(choice: MlEnergyChoice) -> dict[str, Any]:
    """What a profile's meta file says of rows made with ``choice``."""
    return {
        "meter": {
            "name": METER,
            "quality": "imported",
            "of": "all GPUs of a replica",
        },
        "method": METHOD,
        "notice": NOTICE,
        "accuracies": {model: asdict(cited) for model, cited in choice.accuracies.items()},
        "idle_power_w": {gpu: asdict(cited) for gpu, cited in choice.idle_power_w.items()},
    }
