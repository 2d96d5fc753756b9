"""Does energy expand the space on measured joules? Writes measured.md beside itself.

    python experiments/tradeoff/measured.py

Three questions of the shipped profiles with measured joules: what energy saves at equal accuracy
and SLA against every other weight (at constant loads, exactly; over a trace, simulated); in what
the plans that save differ; and how wrong joules by busy time would have been, themselves and in the
plans chosen by them.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from ipa_energy.arrays import Floats
from ipa_energy.comparing.hull import Hull, Outcome, hull_of
from ipa_energy.experiment import load_experiment
from ipa_energy.files import whole_file
from ipa_energy.frontier.frontier import frontier_of
from ipa_energy.optimizer.plan import Plan
from ipa_energy.optimizer.problem import Candidates, Problem
from ipa_energy.optimizer.quantities import Moment
from ipa_energy.planning.planner import Planner, load_planner
from ipa_energy.records import Option
from ipa_energy.tables import Head, Row, Table, Value, percent, share, table_text
from ipa_energy.tradeoff.energy_added import PLACES, Yardstick, corners, yardstick_of
from ipa_energy.tradeoff.plan_map import map_row

HERE = Path(__file__).resolve().parent
CONFIGS = HERE.parents[1] / "configs"
BOARDS = ("rpi4", "firefly", "odroid", "vim4", "xavier", "orin")
ALL = "all boards"
ENOUGH = 100
"""Boards or GPUs of a kind: as many as it takes."""

BOARD_LOADS_RPS = (1.0, 5.0, 20.0, 100.0)
LLM_LOADS_RPS = (0.2, 1.0, 5.0)
NOTICE = (
    "Derived from MLPerf Inference v1.0 to v3.0, open division (submissions by Krai, Apache-2.0);"
    " result not verified by MLCommons Association. The MLPerf name is a registered trademark of"
    " MLCommons Association. Notices: `configs/profiles/mlperf-*.meta.json`."
)


def overrides_of(board: str) -> dict[str, object]:
    """As many boards of one kind as it takes, or of every kind; each costs 1, as in boards.yaml."""
    if board == ALL:
        return {"capacity": dict.fromkeys(BOARDS, ENOUGH)}
    profile = str(CONFIGS / "profiles" / f"mlperf-{board}.csv")
    return {"capacity": {board: ENOUGH}, "prices": {board: 1}, "profile": profile}


def problem_of(planner: Planner, load_rps: float) -> Problem:
    """The program at a load; its weight on energy is 0."""
    return planner.program.at(Moment.at(load_rps))


def yardstick_at(planner: Planner, load_rps: float) -> Yardstick | None:
    """What energy saves at a load; None if nothing carries it."""
    row = map_row(problem_of(planner, load_rps), {})
    return yardstick_of(planner, Moment.at(load_rps), row) if row.segments else None


def saving_rows(name: str, planner: Planner, loads_rps: Sequence[float]) -> Iterator[Row]:
    """What energy saves at each load, how idle its plans are, and in what they differ."""
    for load_rps in loads_rps:
        found = yardstick_at(planner, load_rps)
        if found is None or not found.savings:
            yield Row(name, [f"{load_rps:g}", "no plan"])
            continue
        problem = problem_of(planner, load_rps)
        idle = [idle_share(plan, load_rps) for plan in corners(problem, joules_of(problem))]
        differing = differences(planner, found)
        yield Row(
            name,
            [
                f"{load_rps:g}",
                share(found.mean_saving),
                f"{share(min(found.savings))} to {share(max(found.savings))}",
                share(float(np.mean(idle))),
                *(f"{count} of {PLACES}" for count in differing),
            ],
        )


SAVING_HEADS = [
    Head("load", "rps"),
    Head("saving", "mean"),
    Head("range"),
    Head("idle", "of joules"),
    Head("differ in", "hardware"),
    Head("only in", "runtime"),
    Head("only in", "the rest"),
]


def joules_of(problem: Problem) -> list[Floats]:
    """Measured joules of every candidate, a column a stage."""
    return [stage.energy_j for stage in problem.stages]


def idle_share(plan: Plan, load_rps: float) -> float:
    """Of a plan's joules."""
    idle_w = sum(stage.replicas * stage.option.idle_power_w for stage in plan.stages)
    return idle_w / load_rps / plan.joules_per_request


def differences(planner: Planner, found: Yardstick) -> tuple[int, int, int]:
    """At how many accuracies the frugal plan has other hardware, another runtime, or other rest."""
    low = max(hull.corners[0].accuracy for hull in (found.without, found.added))
    high = min(hull.corners[-1].accuracy for hull in (found.without, found.added))
    options = {option.label: option for option in planner.stages[0].options}
    counts = [0, 0, 0]
    for accuracy in np.linspace(low, high, PLACES).tolist():
        mine, other = (options[at_least(accuracy, h)] for h in (found.added, found.without))
        if resource(mine) != resource(other):
            counts[0] += 1
        elif mine.hardware != other.hardware:
            counts[1] += 1
        elif mine != other:
            counts[2] += 1
    return counts[0], counts[1], counts[2]


def at_least(accuracy: float, hull: Hull) -> str:
    """Label of what the first corner runs that is as accurate."""
    found = next((c for c in hull.corners if c.accuracy >= accuracy - 1e-9), hull.corners[-1])
    return found.label.partition(" (")[0].rpartition(" x")[0]


def resource(option: Option) -> str:
    """The kind of board or GPU."""
    return next(name for name, _ in option.allocation.resources if name != "core")


def trace_row(board: str) -> Row:
    """Energy over 20 minutes of bursty load, simulated, the boards counted as in boards.yaml."""
    overrides = {} if board == ALL else overrides_of(board)
    experiment = load_experiment(CONFIGS / "boards.yaml", overrides)
    found = frontier_of(experiment, attainment=0.97, seeds=[0])
    savings = [value for at in found.accuracies() for value in found.savings_at(at)]
    if not savings:
        return Row(board, ["–", found.sentence()])
    return Row(
        board,
        [
            share(found.mean_saving),
            f"{share(min(savings))} to {share(max(savings))}",
            f"{len(found.without) + len(found.added)}",
        ],
    )


def busy_j(options: Sequence[Option], *, by_core: bool) -> Floats:
    """Dynamic joules of a request by busy time: constant watts a board or GPU, or a core.

    The watts are those that fit best: the median over the entries of each kind of hardware, or, of
    a core, over all entries. Idle joules stay as measured.
    """
    cores = [option.cpu_cores for option in options]
    units = [option.units(resource(option)) for option in options]
    busy_s = np.array(cores if by_core else units) / [option.throughput_rps for option in options]
    measured = np.array([option.dynamic_energy_j for option in options])
    kinds = np.array(["core" if by_core else resource(option) for option in options])
    watts = {kind: np.median((measured / busy_s)[kinds == kind]) for kind in set(kinds.tolist())}
    return np.asarray(busy_s * [watts[kind] for kind in kinds.tolist()])


def error_row(name: str, planner: Planner, *, by_core: bool) -> Row:
    """How far joules by busy time are from those measured, idle included, at full load."""
    options = planner.stages[0].options
    measured = np.array([option.dynamic_energy_j for option in options])
    idle = np.array([option.idle_power_w / option.throughput_rps for option in options])
    ratio = (busy_j(options, by_core=by_core) + idle) / (measured + idle) - 1
    low, high = np.quantile(ratio, [0.05, 0.95])
    cells: list[Value] = [
        len(options),
        share(float(np.median(np.abs(ratio)))),
        f"{percent(float(low))} to {percent(float(high))}",
        f"{percent(float(ratio.min()))} to {percent(float(ratio.max()))}",
    ]
    return Row(name, cells)


ERROR_HEADS = [
    Head("entries"),
    Head("off by", "median"),
    Head("5 % to 95 %"),
    Head("least to most"),
]


def choice_rows(
    name: str, planner: Planner, loads_rps: Sequence[float], *, by_core: bool
) -> Iterator[Row]:
    """Measured joules of the plans that a planner with joules by busy time would choose."""
    for load_rps in loads_rps:
        found = yardstick_at(planner, load_rps)
        if found is None or not found.savings:
            continue
        problem = problem_of(planner, load_rps)
        columns = [modelled(stage, by_core=by_core) for stage in problem.stages]
        believed = hull_of(map(outcome, corners(problem, columns)), 1.0)
        low = max(hull.corners[0].accuracy for hull in (believed, found.without, found.added))
        high = min(hull.corners[-1].accuracy for hull in (believed, found.without, found.added))
        places = np.linspace(low, high, PLACES).tolist()

        def at(hull: Hull, places: Sequence[float] = places) -> Floats:
            return np.asarray([hull.joules_at(place) for place in places], dtype=np.float64)

        chosen, least, without = at(believed), at(found.added), at(found.without)
        more = chosen / least - 1
        yield Row(
            name,
            [
                f"{load_rps:g}",
                share(float(more.mean())),
                share(float(more.max())),
                share(float((1 - least / without).mean())),
                percent(float((chosen / without - 1).mean())),
            ],
        )


CHOICE_HEADS = [
    Head("load", "rps"),
    Head("more joules", "mean"),
    Head("more joules", "at most"),
    Head("saving", "measured joules"),
    Head("difference", "busy time"),
]


def modelled(stage: Candidates, *, by_core: bool) -> Floats:
    """Joules of every candidate with dynamic joules by busy time."""
    options = [stage.stage.options[index] for index in stage.option_index]
    of_profile = busy_j(stage.stage.options, by_core=by_core)[stage.option_index]
    measured = np.array([option.dynamic_energy_j for option in options])
    return np.asarray(stage.energy_j + stage.stage.requests_per_input * (of_profile - measured))


def outcome(plan: Plan) -> Outcome:
    """A plan on a hull, with its measured joules."""
    return Outcome(
        label=plan.label,
        accuracy=plan.accuracy_raw,
        joules_per_request=plan.joules_per_request,
        sla_attainment=1.0,
    )


def section(title: str, corner: str, heads: Sequence[Head], rows: Sequence[Row]) -> str:
    """A table under its title."""
    return f"{title}\n\n```\n{table_text(Table(title, corner, list(heads), list(rows)))}\n```\n"


def text() -> str:
    """The whole answer."""
    boards = {
        name: load_planner(CONFIGS / "boards.yaml", overrides_of(name)) for name in (*BOARDS, ALL)
    }
    llm = load_planner(CONFIGS / "llm.yaml", {"capacity": dict.fromkeys(("H100", "B200"), 1000)})
    savings = [r for name, p in boards.items() for r in saving_rows(name, p, BOARD_LOADS_RPS)]
    choices = [
        row
        for name, planner in boards.items()
        for row in choice_rows(name, planner, BOARD_LOADS_RPS, by_core=name == ALL)
    ]
    errors = [error_row(name, planner, by_core=False) for name, planner in boards.items()]
    errors.append(error_row(f"{ALL}, watts a core", boards[ALL], by_core=True))
    parts = [
        "# On measured joules\n\nGenerated by `python experiments/tradeoff/measured.py`; how to"
        " read it: [README.md](README.md).\n",
        f"## Image classification on edge boards\n\n{NOTICE}\n",
        section("### At constant loads, by the profile", "boards", SAVING_HEADS, savings),
        section(
            "### Over 20 minutes of bursty load, simulated",
            "boards",
            [Head("saving", "mean"), Head("range"), Head("runs")],
            [trace_row(name) for name in (*BOARDS, ALL)],
        ),
        section("### Joules by busy time, at constant watts", "boards", ERROR_HEADS, errors),
        section("### Plans chosen by busy time", "boards", CHOICE_HEADS, choices),
        "## Language models on GPUs\n\nDerived from the ML.ENERGY benchmark v3 (Apache-2.0);"
        " idle watts are a reading of other machines (`configs/profiles/README.md`).\n",
        section(
            "### At constant loads, by the profile",
            "GPUs",
            SAVING_HEADS,
            list(saving_rows("H100, B200", llm, LLM_LOADS_RPS)),
        ),
        section(
            "### Joules by busy time, at constant watts",
            "GPUs",
            ERROR_HEADS,
            [error_row("H100, B200", llm, by_core=False)],
        ),
        section(
            "### Plans chosen by busy time",
            "GPUs",
            CHOICE_HEADS,
            list(choice_rows("H100, B200", llm, LLM_LOADS_RPS, by_core=False)),
        ),
    ]
    return "\n".join(parts)


def main() -> None:
    """Print the study and write it beside this file."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.parse_args()
    os.chdir(HERE.parents[1])
    logging.getLogger("ipa_energy").setLevel(logging.ERROR)
    answer = text()
    with whole_file(HERE / "measured.md") as file:
        file.write(answer)
    sys.stdout.write(answer)


if __name__ == "__main__":
    main()
