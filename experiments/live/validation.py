"""The simulation held against the live system: same arrivals, same decisions, same profile.

    python experiments/live/validation.py                          3 × 10 minutes
    python experiments/live/validation.py --measure                the profile measured just before
    python experiments/live/validation.py --measure quick --seconds 20 --repeats 1    a rehearsal

Each repeat serves a trace live on this machine, adaptation and all, and then simulates the same
sending times with the decisions that the live run logged, so that what differs is what the
simulation gets wrong about serving, not about deciding. A replica's start takes in the simulation
what it was seen to take live; the profile's figure stands beside it. Everything else is the
profile's. That is of replicas alone on their CPUs: batches that were served while a replica started
or went, which shares those CPUs, are told apart from the others. Writes ``validation.md``, ``.csv``
and ``.png`` into ``experiments/live/results``.

Let nothing else run meanwhile: the live side feels every neighbour, the simulated one feels none.
"""

from __future__ import annotations

import argparse
import csv
import math
import os
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ipa_energy.arrays import Floats
from ipa_energy.cli import main as ipa_energy
from ipa_energy.comparing import metrics
from ipa_energy.config import load_config
from ipa_energy.errors import ConfigError, IpaEnergyError
from ipa_energy.experiment import (
    Experiment,
    experiment_of,
    load_experiment,
    run_experiment,
)
from ipa_energy.meters.power_model import PowerModel, power_model_beside
from ipa_energy.profile_table.profile_csv import meta_path, read_profile
from ipa_energy.records import Stage
from ipa_energy.runlog import Run
from ipa_energy.serving.base import LiveOptions
from ipa_energy.workloads.shapes import named_workload

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
RESULTS = HERE / "results"
GOALS = {"J per request": 0.10, "p99 (s)": 0.20}
"""How far the simulation may be off, relative."""


@dataclass(frozen=True, slots=True)
class Pair:
    """One run, live and simulated with its decisions."""

    live: Run
    simulated: Run
    profiled_start_s: dict[str, float]
    changing_s: tuple[tuple[float, float], ...]


def trace(seconds: int, mean_rps: float, seed: int) -> list[int]:
    """Requests of each second: the shape ``fluctuating``, at another level."""
    counts = named_workload("fluctuating", seed=seed, duration_s=seconds).counts
    rate_rps = counts * (mean_rps / counts.mean())
    drawn: list[int] = np.random.default_rng([seed, 7]).poisson(rate_rps).tolist()
    return drawn


def measured(told: argparse.Namespace, folder: Path) -> Path:
    """The entries of the pipeline's profile measured now, as its replicas serve them."""
    old = load_config(told.pipeline).profile
    if old is None:
        raise ConfigError("the pipeline has no profile whose entries could be measured")
    entries = read_profile(old)
    path = folder / old.name
    words = ["profile", str(told.pipeline), "--serving", "--out", str(path)]
    for option, values in (
        ("--variant", {entry.variant for entry in entries}),
        ("--batch", {entry.batch for entry in entries}),
        ("--cores", {int(entry.cpu_cores) for entry in entries}),
    ):
        words += [word for value in sorted(values) for word in (option, str(value))]
    if told.measure == "quick":
        words += ["--quick", "--window", "0.3"]
    if status := ipa_energy(words):
        raise SystemExit(status)
    return path


def lived(told: argparse.Namespace, folder: Path, repeat: int) -> Run:
    """Serve a trace live; the run is left in ``folder``."""
    path = folder / f"trace-{repeat}.csv"
    counts = trace(told.seconds, told.rps, repeat)
    rows = "\n".join(f"{second},{count}" for second, count in enumerate(counts))
    path.write_text(f"second,requests\n{rows}\n")
    overrides: dict[str, object] = {
        "workload": str(path),
        "seed": repeat,
        "energy_weight": told.energy_weight,
    }
    if told.profile is not None:
        overrides["profile"] = told.profile
    if told.set:
        overrides["set"] = told.set
    experiment = load_experiment(told.pipeline, overrides)
    return run_experiment(
        experiment,
        folder / f"live-{repeat}",
        backend=told.backend,
        live=LiveOptions(meter=told.meter, corrects_drift=False, stubs_work=not told.stubs_sleep),
        show_progress=True,
    )


def power_of(told: argparse.Namespace) -> PowerModel:
    """The power model that the live side estimates joules with."""
    overrides = {"profile": told.profile} if told.profile is not None else {}
    profile = load_config(told.pipeline, overrides).profile
    return power_model_beside(meta_path(profile) if profile else None)


def starts_s(run: Run) -> dict[str, list[float]]:
    """Stage → how long each replica took from its start until it was ready, within the run."""
    begun: dict[str, float] = {}
    found: dict[str, list[float]] = {}
    events = [event for step in run.steps if step.live for event in step.live.events]
    for event in sorted(events, key=lambda event: event.at_s):
        if event.phase in ("asked", "starting"):
            begun.setdefault(event.replica, event.at_s)
        if event.phase == "ready" and event.replica in begun:
            found.setdefault(event.stage, []).append(event.at_s - begun[event.replica])
    return found


def changes_of(run: Run) -> tuple[tuple[float, float], ...]:
    """When some replica was starting or going: spans of the run's time."""
    spans: dict[str, tuple[float, float]] = {}
    events = [event for step in run.steps if step.live for event in step.live.events]
    found = []
    for event in sorted(events, key=lambda event: event.at_s):
        if event.phase in ("asked", "draining"):
            spans.setdefault(event.replica, (event.at_s, math.inf))
        elif event.phase in ("ready", "stopped", "died") and event.replica in spans:
            found.append((spans.pop(event.replica)[0], event.at_s))
    return (*found, *spans.values())


def simulated(told: argparse.Namespace, live: Run, experiment: Experiment) -> Run:
    """The same arrivals and decisions, a replica's start as it was seen to be."""
    seen = starts_s(live)
    watts = power_of(told).dynamic_w_per_core
    planner = experiment.planner
    stages = tuple(_with_start(stage, seen.get(stage.name, []), watts) for stage in planner.stages)
    config = planner.config.model_copy(update={"reconfiguration_s": None})
    changed = replace(experiment, planner=replace(planner, stages=stages, config=config))
    return run_experiment(changed, name=f"{live.name}, simulated", decisions=live.steps)


def _with_start(stage: Stage, seen_s: Sequence[float], watts: float) -> Stage:
    """A load keeps one core busy for as long as it takes."""
    if not seen_s:
        return stage
    load_s = float(np.mean(seen_s))
    options = tuple(
        replace(option, load_s=load_s, load_energy_j=load_s * watts) for option in stage.options
    )
    return replace(stage, options=options)


def figures(run: Run, changing_s: Sequence[tuple[float, float]] = ()) -> dict[str, float]:
    """What live and simulated runs are compared by; also what explains a difference.

    Args:
        run: either.
        changing_s: spans in which replicas started or went, of the live one.
    """
    found = metrics(run)
    answered = run.requests.dropped_at < 0
    requests = run.requests
    table = {
        "requests": float(found.requests),
        "lost": float(found.dropped + found.failed),
        "J per request": found.joules_per_request,
        "idle J per request": found.idle_j / max(1, found.served),
        "dynamic J per request": found.dynamic_j / max(1, found.served),
        "cores": found.cores_mean,
        "p50 (s)": found.latency_p50_s,
        "p99 (s)": found.latency_p99_s,
        "in SLA (%)": 100 * found.sla_attainment,
    }
    for index, stage in enumerate(run.info.stages):
        queued_s = requests.queued_s[answered, index]
        started_s = requests.started_s[answered, index]
        served_s = requests.served_s[answered, index]
        batches = len(np.unique(np.round(np.stack([started_s, served_s]), 4), axis=1).T)
        table[f"{stage}: batch"] = len(started_s) / max(1, batches)
        table[f"{stage}: queueing, mean (s)"] = float(np.mean(started_s - queued_s))
        table[f"{stage}: service, mean (s)"] = float(np.mean(served_s - started_s))
        table[f"{stage}: service, p99 (s)"] = float(np.quantile(served_s - started_s, 0.99))
        beside = np.zeros(len(started_s), dtype=bool)
        for begin_s, end_s in changing_s:
            beside |= (started_s < end_s) & (served_s > begin_s)
        alone_s = (served_s - started_s)[~beside]
        table[f"{stage}: beside a start or an end (%)"] = 100 * float(beside.mean())
        if len(alone_s):
            table[f"{stage}: service beside none, mean (s)"] = float(alone_s.mean())
            table[f"{stage}: service beside none, p99 (s)"] = float(np.quantile(alone_s, 0.99))
    inside_s = np.nansum(requests.served_s[answered] - requests.queued_s[answered], axis=1)
    whole_s = requests.done_s[answered] - requests.sending_s[answered]
    table["outside the stages, mean (s)"] = float(np.mean(whole_s - inside_s))
    return table


def pair_of(told: argparse.Namespace, folder: Path, repeat: int) -> Pair:
    """Serve, then simulate."""
    live = lived(told, folder, repeat)
    experiment = experiment_of(live)
    if experiment is None:
        raise SystemExit("the run folder lacks its copies")
    profiled_s = {
        stage.name: float(np.nanmean([option.load_s for option in stage.options]))
        for stage in experiment.planner.stages
        if not all(math.isnan(option.load_s) for option in stage.options)
    }
    return Pair(live, simulated(told, live, experiment), profiled_s, changes_of(live))


def table_of(pairs: Sequence[Pair]) -> list[tuple[str, float, float, float]]:
    """(figure, live, simulated, largest difference of a repeat), means over the repeats."""
    live = [figures(pair.live, pair.changing_s) for pair in pairs]
    other = [figures(pair.simulated, pair.changing_s) for pair in pairs]
    rows = []
    for name in live[0]:
        if not all(name in found for found in (*live, *other)):
            continue  # in some repeat nothing was served away from changes
        ours = np.array([found[name] for found in live])
        theirs = np.array([found[name] for found in other])
        with np.errstate(divide="ignore", invalid="ignore"):
            off = np.where(ours == theirs, 0.0, np.abs(theirs / ours - 1))
        rows.append((name, float(ours.mean()), float(theirs.mean()), float(off.max())))
    return rows


def watts_told(told: argparse.Namespace, live: Run) -> str:
    """Idle watts of a core: a profile with another power model is off by their ratio."""
    machine_w = power_of(told).idle_w_per_core
    experiment = experiment_of(live)
    stages = experiment.planner.stages if experiment else ()
    profile_w = [o.idle_power_w / o.cpu_cores for s in stages for o in s.options if o.cpu_cores]
    return f"Idle watts a core: {machine_w:.3f} live, {np.mean(profile_w):.3f} in the profile."


def starts_of(pairs: Sequence[Pair]) -> list[str]:
    """A line a stage: replicas started, how long that took, and what the profile says."""
    lines = []
    for stage in pairs[0].live.info.stages:
        seen = [second for pair in pairs for second in starts_s(pair.live).get(stage, [])]
        profiled = pairs[0].profiled_start_s.get(stage, math.nan)
        if seen:
            lines.append(
                f"| {stage} | {len(seen)} | {np.median(seen):.2f} | {max(seen):.2f} |"
                f" {profiled:.2f} |"
            )
    return lines


def written(
    told: argparse.Namespace, pairs: Sequence[Pair], loads: Iterable[float], took_s: float
) -> str:
    """The page."""
    rows = table_of(pairs)
    info = pairs[0].live.info
    loads = list(loads)
    lines = [
        "# Simulated against live",
        "",
        f"`python experiments/live/validation.py --pipeline {told.pipeline.name} --backend"
        f" {told.backend} --seconds {told.seconds} --repeats {told.repeats} --rps {told.rps:g}"
        f"{f' --measure {told.measure}' if told.measure else ''}`,"
        f" {time.strftime('%Y-%m-%d')}, {os.cpu_count()} CPUs, load average before each repeat"
        f" {', '.join(f'{load:.1f}' for load in loads)}; took {took_s / 60:.0f} minutes.",
        "",
        f"Profile {info.profile}{', measured just before' if told.measure else ''}, meter"
        f" {info.meter}, {told.backend}"
        f"{' asleep' if told.stubs_sleep else ''}. Means over the repeats; the last column is the"
        " largest difference of one repeat.",
        "",
        watts_told(told, pairs[0].live),
        "",
        "| | live | simulated | simulated / live | largest |",
        "|---|---|---|---|---|",
    ]
    for name, live, other, off in rows:
        ratio = "" if live == 0 else f"{other / live:.3f}"
        lines.append(f"| {name} | {live:.4g} | {other:.4g} | {ratio} | {off:.1%} |")
    lines += [
        "",
        "| stage | replicas started | median (s) | most (s) | profile (s) |",
        "|---|---|---|---|---|",
        *starts_of(pairs),
        "",
    ]
    found = {name: (live, other) for name, live, other, _ in rows}
    for name, goal in GOALS.items():
        live, other = found[name]
        off = abs(other / live - 1)
        word = "reached" if off <= goal else "missed"
        lines.append(f"- {name}: {off:.1%} off, goal {goal:.0%}: {word}.")
    return "\n".join([*lines, ""])


def write_csv(path: Path, pairs: Sequence[Pair]) -> None:
    """Every figure of every repeat."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["repeat", "figure", "live", "simulated"])
        for repeat, pair in enumerate(pairs):
            live = figures(pair.live, pair.changing_s)
            other = figures(pair.simulated, pair.changing_s)
            writer.writerows([repeat, name, live[name], other.get(name)] for name in live)


def draw(path: Path, pairs: Sequence[Pair]) -> None:
    """Latencies as curves, joules per request of each stage as bars."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    for index, pair in enumerate(pairs):
        for run, style, label in ((pair.live, "-", "live"), (pair.simulated, "--", "simulated")):
            latency_s = np.sort(_latencies_s(run))
            share = np.arange(1, len(latency_s) + 1) / len(latency_s)
            left.plot(
                latency_s, share, style, color=f"C{index}", label=f"{label}, repeat {index + 1}"
            )
    left.set(xlabel="latency (s)", ylabel="share of requests", ylim=(0, 1))
    left.legend()
    names = ["idle J per request", "dynamic J per request"]
    rows = {name: (live, other) for name, live, other, _ in table_of(pairs)}
    bottom = np.zeros(2)
    for name in names:
        height = np.array(rows[name])
        right.bar(["live", "simulated"], height, bottom=bottom, label=name.split()[0])
        bottom += height
    right.set(ylabel="J per request")
    right.set_ylim(0.0, 1.25 * float(bottom.max()))
    right.legend(ncols=2)
    figure.savefig(path, dpi=120)


def _latencies_s(run: Run) -> Floats:
    answered = run.requests.dropped_at < 0
    return run.requests.done_s[answered] - run.requests.sending_s[answered]


def main() -> None:
    """Serve, simulate, write."""
    live_yaml = ROOT / "configs" / "video-live.yaml"
    default = live_yaml if live_yaml.exists() else ROOT / "configs" / "video.yaml"
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pipeline", type=Path, default=default, help="pipeline YAML")
    parser.add_argument("--backend", default="local", help="local or local-stub (default: local)")
    parser.add_argument("--profile", help="profile to plan, stub and simulate with")
    parser.add_argument(
        "--measure",
        nargs="?",
        const="full",
        choices=("full", "quick"),
        help="measure the profile's entries anew before the first repeat: 8 minutes, or quick",
    )
    parser.add_argument("--seconds", type=int, default=600, help="of each repeat (default: 600)")
    parser.add_argument("--repeats", type=int, default=3, help="(default: 3)")
    parser.add_argument("--rps", type=float, default=3.0, help="mean load (default: 3)")
    parser.add_argument("--energy-weight", type=float, default=2.0, help="(default: 2)")
    parser.add_argument("--set", action="append", metavar="KEY=VALUE", help="other YAML keys")
    parser.add_argument("--meter", default="cpu-time", help="as for ipa-energy run")
    parser.add_argument(
        "--stubs-sleep",
        action="store_true",
        help="stubs sleep for the profile's times: on a busy machine times compare, joules do not",
    )
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder to write to")
    told = parser.parse_args()
    began_s = time.monotonic()
    pairs, loads = [], []
    with tempfile.TemporaryDirectory() as folder:
        if told.measure:
            told.profile = str(measured(told, Path(folder)))
        for repeat in range(told.repeats):
            loads.append(os.getloadavg()[0])
            pairs.append(pair_of(told, Path(folder), repeat))
        page = written(told, pairs, loads, time.monotonic() - began_s)
        told.out.mkdir(parents=True, exist_ok=True)
        (told.out / "validation.md").write_text(page, encoding="utf-8")
        write_csv(told.out / "validation.csv", pairs)
        draw(told.out / "validation.png", pairs)
    print(page)


if __name__ == "__main__":
    try:
        main()
    except IpaEnergyError as error:
        raise SystemExit(f"validation: {error}") from error
