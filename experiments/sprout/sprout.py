"""Sprout's generation directives on its own data: hourly, per class of requests, static, bound.

    python experiments/sprout/sprout.py                    five weeks, writes result.md
    python experiments/sprout/sprout.py --checkout DIR     30 days as in the paper's code besides

A directive is an option of one stage, a task a class of requests, a mix of directives a plan with
``mix: true``, and Sprout's bound on quality an ``accuracy_floor``. DIR is a checkout of
github.com/boringlee24/EMNLP24_Sprout, of which its hourly intensities, the trace that its shares of
tasks are drawn from and its published results are read; they are not shipped here, the five weeks
are (configs/carbon).
"""

from __future__ import annotations

import argparse
import csv
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from scipy.optimize import linprog
from scipy.sparse import csr_array, kron

from ipa_energy.arrays import Floats
from ipa_energy.energy import JOULES_PER_KWH, grams
from ipa_energy.optimizer.problem import Program
from ipa_energy.optimizer.settings import Settings
from ipa_energy.optimizer.solve import solve
from ipa_energy.planning.stages import mixture
from ipa_energy.records import Allocation, Option, Provenance, RequestClass, Stage

HERE = Path(__file__).resolve().parent
WEEKS = HERE.parents[1] / "configs" / "carbon"
MODEL = "llama2-13b-chat"
TOLERANCE = 0.1
"""Share of the preference for L0 that Sprout gives up where the intensity is highest."""

EMBODIED_G_PER_S = 26356.568 / (5 * 365 * 24 * 3600)
"""Of the paper's code: one A100 server part over five years."""

MONTH = slice(800, 800 + 30 * 24)
"""Hours of the year that the paper's code takes."""


@dataclass(frozen=True)
class Directives:
    """What one task costs and is worth at each directive, arrays of L0, L1, L2."""

    joules: Floats
    seconds: Floats
    preferred: Floats


def read_directives() -> dict[str, Directives]:
    """Task → its directives."""
    with (HERE / "data" / "directives-a100.csv").open(encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["model"] == MODEL]
    tasks = dict.fromkeys(row["task"] for row in rows)

    def column(task: str, name: str) -> Floats:
        return np.array([float(row[name]) for row in rows if row["task"] == task])

    return {
        task: Directives(
            column(task, "joules_mean"),
            column(task, "seconds_mean"),
            column(task, "preferred_share"),
        )
        for task in tasks
    }


def pooled(tasks: Mapping[str, Directives], shares: Floats) -> Directives:
    """All tasks as one.

    Args:
        tasks: what each costs and is worth.
        shares: (..., tasks) of each, for one hour or for many.
    """
    means = [
        shares @ np.array([getattr(each, name) for each in tasks.values()])
        for name in ("joules", "seconds", "preferred")
    ]
    return Directives(*means)


PAPER_ORDER = ("alpaca", "math", "mmlu", "naturalqa", "triviaqa", "scienceqa")
"""Tasks in the order in which the paper's code draws their shares."""

REDRAWN_H = 24
"""Mean hours after which it draws them anew."""


def drawn_shares(trace: Sequence[float], tasks: Sequence[str], seed: int, hours: int) -> Floats:
    """(hours, tasks) shares of the tasks as the paper's code draws them from a cluster's trace.

    Each task follows the trace from a place of its own, drawn; about every day the next entry of
    each is its weight. NumPy's legacy generator, as there, so that the shares are the same.
    """
    legacy = np.random.RandomState(seed)
    last = len(trace) - hours / REDRAWN_H
    starts = {name: int(legacy.randint(0, last)) for name in PAPER_ORDER}  # type: ignore[call-overload]
    found, following, now = np.zeros((hours, len(tasks))), 0, np.zeros(len(tasks))
    for hour in range(hours):
        if hour == following:
            weights = {name: trace[starts[name]] for name in PAPER_ORDER}
            starts = {name: at + 1 for name, at in starts.items()}
            total = sum(weights.values())
            now = np.array([weights[name.replace("-", "")] / total for name in tasks])
            following += round(legacy.normal(REDRAWN_H, 0.2 * REDRAWN_H))
        found[hour] = now
    return found


def cost_g(task: Directives, intensity: Floats) -> Floats:
    """(hours, directives) grams of a request."""
    of_joules = np.asarray(grams(task.joules, 1.0))
    return np.asarray(of_joules * intensity[:, None] + EMBODIED_G_PER_S * task.seconds)


def floors(preferred: Floats | float, intensity: Floats, ends: tuple[float, float]) -> Floats:
    """(hours,) Sprout's bound on the preference that a mix of directives has to have.

    Args:
        preferred: that for L0.
        intensity: (hours,) g/kWh.
        ends: the least and the most intensity.
    """
    low, high = ends
    given_up = TOLERANCE * (intensity - low) / (high - low)
    return np.asarray(preferred * (1 - given_up))


def cheapest(cost: Floats, quality: Floats, floor: Floats, shares: Floats) -> float:
    """Mean grams of the best mixes, hour by hour.

    Args:
        cost: (hours, classes, directives) grams of a request.
        quality: (hours, classes, directives) preference.
        floor: (hours,) of the mean preference over the classes; one value for all hours together
            where the mixes may make up for each other over time.
        shares: (hours, classes) of the classes.
    """
    hours, classes, width = cost.shape
    one = kron(csr_array(np.eye(hours * classes)), csr_array(np.ones((1, width))))
    values = (-quality * shares[:, :, None]).ravel()
    places = (np.repeat(np.arange(hours), classes * width), np.arange(len(values)))
    rows = csr_array((values, places))
    if len(floor) == 1:
        rows = csr_array(np.ones((1, hours)) / hours) @ rows
    solved = linprog(
        (cost * shares[:, :, None]).ravel() / hours,
        A_eq=one,
        b_eq=np.ones(hours * classes),
        A_ub=rows,
        b_ub=-floor,
        bounds=(0, 1),
        method="highs",
    )
    return float(solved.fun)


@dataclass(frozen=True)
class Row:
    """Grams saved in one zone, as shares of those of L0 for everyone.

    Attributes:
        theirs: one mix for all tasks, chosen every hour, as Sprout does.
        ours: a mix for each class of requests, chosen every hour, under the same bound.
        static: one mix for all tasks and hours; its bound is the mean one.
        static_by_class: a mix for each class, for all hours.
        bound: mixes by class and hour that keep the bound on the mean: nothing can save more.
        own: as ours, but every class keeps a bound of its own.
        seconds: a month (or week) of one class took, for ``ours``.
    """

    zone: str
    hours: int
    theirs: float
    ours: float
    static: float
    static_by_class: float
    bound: float
    own: float
    seconds: float


def judged(
    zone: str,
    tasks: Mapping[str, Directives],
    intensity: Floats,
    ends: tuple[float, float],
    shares: Floats | None = None,
) -> Row:
    """One zone's row of the table; equal shares of the tasks where none are given."""
    hours, count = len(intensity), len(tasks)
    shares = np.full((hours, count), 1 / count) if shares is None else shares
    cost = np.stack([cost_g(task, intensity) for task in tasks.values()], axis=1)
    preferred = np.array([task.preferred for task in tasks.values()])
    quality = np.broadcast_to(preferred, cost.shape)
    mean_quality = shares @ preferred
    alone = (shares[:, :, None] * cost).sum(axis=1)
    floor = floors(mean_quality[:, 0], intensity, ends)
    mean_floor, whole, mean_shares = np.array([floor.mean()]), np.ones((hours, 1)), shares.mean(0)
    begin = time.perf_counter()
    ours = cheapest(cost, quality, floor, shares)
    seconds = (time.perf_counter() - begin) / count
    own = [
        cheapest(
            cost[:, [k]],
            quality[:, [k]],
            floors(task.preferred[0], intensity, ends),
            whole,
        )
        for k, task in enumerate(tasks.values())
    ]
    by_class = (shares[:, :, None] * cost).mean(axis=0) / mean_shares[:, None]
    emitted = {
        "theirs": cheapest(alone[:, None], mean_quality[:, None], floor, whole),
        "ours": ours,
        "static": cheapest(
            alone.mean(0)[None, None], mean_quality.mean(0)[None, None], mean_floor, whole[:1]
        ),
        "static_by_class": cheapest(by_class[None], quality[:1], mean_floor, mean_shares[None]),
        "bound": cheapest(cost, quality, mean_floor, shares),
        "own": float(mean_shares @ np.array(own)),
    }
    base = float(alone[:, 0].mean())
    saved = {name: 1 - each / base for name, each in emitted.items()}
    return Row(zone=zone, hours=hours, seconds=seconds, **saved)


def problem_of(tasks: Mapping[str, Directives], g_per_kwh: float, floor: float) -> Program:
    """An hour as a pipeline: one stage, directives as variants, tasks as classes.

    The objective is grams of a request: joules at the hour's intensity, and the embodied grams of
    the seconds, which stand for joules here that emit as much.
    """
    classes = tuple(RequestClass(name, 1 / len(tasks)) for name in tasks)
    embodied_j = EMBODIED_G_PER_S * JOULES_PER_KWH / g_per_kwh
    options = [
        mixture(
            {
                name: directive(level, task, embodied_j * float(task.seconds[level]))
                for name, task in tasks.items()
            },
            classes,
        )
        for level in range(3)
    ]
    settings = Settings(
        alpha=0.0,
        beta=0.0,
        gamma=0.0,
        energy_weight=g_per_kwh / JOULES_PER_KWH,
        accuracy_method="average",
        accuracy_floor=floor,
        mix=True,
        request_classes=classes,
        scaling_cap=100,
        batching_cap=1,
    )
    return Program([Stage("llm", "llm", tuple(options))], settings)


def directive(level: int, task: Directives, embodied_j: float) -> Option:
    """One directive for one task; the replicas of a model are shared, so they cost nothing more."""
    seconds = float(task.seconds[level])
    return Option(
        variant=f"L{level}",
        allocation=Allocation.of(gpu_share=1.0),
        batch=1,
        latency_s=seconds,
        latency_avg_s=seconds,
        latency_p99_s=seconds,
        throughput_rps=1 / seconds,
        accuracy=float(task.preferred[level]),
        dynamic_energy_j=float(task.joules[level]) + embodied_j,
        idle_power_w=0.0,
        provenance=Provenance("nvml", "imported", 1, float("nan")),
    )


def program_agrees(
    tasks: Mapping[str, Directives], intensity: Floats, ends: tuple[float, float], every: int = 24
) -> tuple[int, float]:
    """(hours tried, largest relative difference) of the program's plans and the linear program."""
    equal = np.full((1, len(tasks)), 1 / len(tasks))
    one = pooled(tasks, equal[0])
    quality = np.array([[task.preferred for task in tasks.values()]])
    worst, hours = 0.0, range(0, len(intensity), every)
    for hour in hours:
        here = intensity[hour : hour + 1]
        floor = floors(float(one.preferred[0]), here, ends)
        cost = np.stack([cost_g(task, here) for task in tasks.values()], axis=1)
        plan = solve(problem_of(tasks, float(here[0]), float(floor[0])).at(1.0), "highs").best
        expected = cheapest(cost, quality, floor, equal)
        worst = max(worst, abs(-plan.objective - expected) / expected)
    return len(hours), worst


def weeks() -> Iterator[tuple[str, Floats]]:
    """Zone → direct intensities of the shipped weeks."""
    for path in sorted(WEEKS.glob("electricitymaps-*-2023-week16.csv")):
        zone = path.name.removeprefix("electricitymaps-").removesuffix("-2023-week16.csv")
        with path.open(encoding="utf-8") as file:
            found = [float(row["g_per_kwh_direct"]) for row in csv.DictReader(file)]
        yield zone, np.array(found)


def years(checkout: Path) -> Iterator[tuple[str, Floats]]:
    """Zone → direct intensities of a year, from Sprout's own files."""
    for path in sorted((checkout / "sprout/carbon_intensity").glob("*_2023_hourly.csv")):
        with path.open(encoding="utf-8") as file:
            rows = list(csv.reader(file))
        at = next(n for n, name in enumerate(rows[0]) if "(direct)" in name)
        yield path.name.removesuffix("_2023_hourly.csv"), np.array([float(r[at]) for r in rows[1:]])


def trace_of(checkout: Path) -> list[float]:
    """Jobs an hour of the cluster whose trace the shares of tasks follow."""
    with (checkout / "sprout/system/pai.csv").open(encoding="utf-8") as file:
        return [float(row["job_name"]) for row in csv.DictReader(file)]


def published(checkout: Path, zone: str) -> dict[str, float]:
    """Grams saved by its own result files: ``lp`` and ``oracle``, against its baseline."""
    (folder,) = [
        one for one in (checkout / "sprout/system/results").iterdir() if zone.startswith(one.name)
    ]
    found = {}
    for name in ("baseline", "lp", "oracle"):
        text = (folder / f"torelance_0.1/{name}_opt_pai_gen.json").read_text()
        found[name] = float(np.mean(json.loads(text)["carbon_per_req"]))
    return {name: 1 - found[name] / found["baseline"] for name in ("lp", "oracle")}


SEEDS = 10
"""Of the draw of shares: the published month is one of them."""


def months(checkout: Path, tasks: Mapping[str, Directives]) -> str:
    """The paper's month with shares of tasks as it draws them, beside what it published."""
    trace, count = trace_of(checkout), MONTH.stop - MONTH.start
    told = [published(checkout, zone) for zone, _ in years(checkout)]
    text = MONTHS.format(
        lp=100 * np.mean([each["lp"] for each in told]),
        oracle=100 * np.mean([each["oracle"] for each in told]),
    )
    rows: dict[int, Row] = {}
    for seed in range(SEEDS):
        shares = drawn_shares(trace, list(tasks), seed, count)
        each = [
            judged(zone, tasks, year[MONTH], (year.min(), year.max()), shares)
            for zone, year in years(checkout)
        ]
        rows[seed] = mean(each)
    text += line(replace(rows[0], zone="their draw (seed 0)"))
    for name, pick in (("least of ten draws", min), ("most of ten draws", max)):
        ends = {key: pick(getattr(row, key) for row in rows.values()) for key in SHOWN}
        text += line(Row(zone=name, hours=count, seconds=rows[0].seconds, **ends))
    return text


MONTHS = """
With shares of tasks as the paper's code draws them (its generator, its trace, 720 hours, mean of
the five grids). Its own result files say {lp:.1f} % for the linear program and {oracle:.1f} % for
its oracle, which sorts requests one by one; the program there knows quality from samples now and
then.

| shares of tasks | hours | theirs | ours | static | static by class | bound | own | s |
|---|---|---|---|---|---|---|---|---|
"""

HEAD = """\
# Sprout's directives, on its own data

`python experiments/sprout/sprout.py --checkout DIR`. Grams of CO2 saved, as a share of those of
directive L0 for every request: Llama 2 13B on an A100, six tasks with equal shares, joules and
seconds of Sprout's own measurements, direct intensities (Electricity Maps 2023), embodied grams as
in its code. Quality is the share of judged prompts for which a directive was preferred; Sprout's
bound gives up at most {tolerance:.0%} of L0's, in proportion to where the hour's intensity lies
between the least and the most of the file: of the week, or of the year.

*theirs*: one mix of directives an hour for all tasks: Sprout's linear program, recomputed. *ours*:
`mix` with `request_classes` and `accuracy_floor`: a mix for each task, every hour, under the same
bound on the mean over the tasks. *static*, *static by class*: one mix for good, for all tasks and
for each; their bound is the mean one. *bound*: a mix for each task and hour, the bound kept on the
mean over the hours too; nothing saves more.
*own*: as ours, but each task keeps a bound of its own, so that none pays for another. *s*: seconds
for one class.

| zone | hours | theirs | ours | static | static by class | bound | own | s |
|---|---|---|---|---|---|---|---|---|
"""
TAIL = """
Telling the tasks apart is worth more than telling the hours apart: one *static* mix for each task
saves more than Sprout's hourly mix for all, and nearly what can be saved at all. It does so by
answering easily shortened tasks in short and spending the preference that this gains on others.
Where every task has to keep its own bound (*own*), less is left, and the classes still add about
twice what the hours do.

The program's own plans (`mix: true`, HiGHS) agree with the table's linear program in the {hours}
hours tried, to {worst:.1e} relative.

The shares of tasks decide how much is saved: *theirs* with equal shares is well below what the
paper has with its own, and differs by tens of points between draws of its generator; that classes
are worth more than hours holds in all of them. Figures of a prototype before this (theirs 47.7 %,
ours 76.4 %, static by class 77.9 %, bound 79.9 %) lie within these draws; its shares were not kept.

What cannot be said from this: the paper's code estimates quality now and then, where this knows it;
quality is what a judge model preferred among three answers; joules are those of the GPU alone, of
requests one by one.
"""


def main() -> None:
    """Print the tables and write them."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--checkout", type=Path, metavar="DIR", help="of Sprout's repository")
    args = parser.parse_args()
    tasks = read_directives()
    rows = [judged(zone, tasks, each, (each.min(), each.max())) for zone, each in weeks()]
    if args.checkout:
        rows += [
            judged(zone, tasks, each[MONTH], (each.min(), each.max()))
            for zone, each in years(args.checkout)
        ]
    agreement = [program_agrees(tasks, each, (each.min(), each.max())) for _, each in weeks()]
    text = HEAD.format(tolerance=TOLERANCE) + "".join(map(line, rows))
    for hours in dict.fromkeys(row.hours for row in rows):
        text += line(mean([row for row in rows if row.hours == hours]))
    if args.checkout:
        text += months(args.checkout, tasks)
    text += TAIL.format(
        hours=sum(hours for hours, _ in agreement), worst=max(worst for _, worst in agreement)
    )
    (HERE / "result.md").write_text(text, encoding="utf-8")
    print(text)


SHOWN = ("theirs", "ours", "static", "static_by_class", "bound", "own")


def line(row: Row) -> str:
    """A row of the table."""
    cells = " | ".join(f"{100 * getattr(row, name):.1f} %" for name in SHOWN)
    return f"| {row.zone} | {row.hours} | {cells} | {row.seconds:.2f} |\n"


def mean(rows: Sequence[Row]) -> Row:
    """Of several zones."""
    names = (*SHOWN, "seconds")
    means = {name: float(np.mean([getattr(row, name) for row in rows])) for name in names}
    return Row(zone="**mean**", hours=rows[0].hours, **means)


if __name__ == "__main__":
    main()
