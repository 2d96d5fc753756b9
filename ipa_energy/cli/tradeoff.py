"""``ipa-energy tradeoff``: does energy add anything to accuracy, cost and latency, and what?"""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from ipa_energy.as_json import as_json
from ipa_energy.cli.options import (
    Arguments,
    Verbs,
    add_pipeline,
    add_planning_options,
    check,
    check_asked,
    chosen_overrides,
    inputs_of,
    ipa_home,
    named_path,
    print_json,
    say_where,
    terminal_width,
    write_as_asked,
    write_beside,
)
from ipa_energy.errors import ConfigError
from ipa_energy.records import NOTATION
from ipa_energy.registries import BACKENDS

if TYPE_CHECKING:
    from ipa_energy.planning.planner import Planner
    from ipa_energy.tradeoff.named_configurations import NamedConfiguration
    from ipa_energy.tradeoff.study import Study
    from ipa_energy.tradeoff.trials import StudyLoad

HIGHEST_LOAD_RPS = 1e6
"""A load is served request by request here: beyond it a trial would not end."""

MOST_TRIALS = 1000
MOST_CONFIGURATIONS = 1000


def add_to(verbs: Verbs) -> None:
    """Add the verb to the command line."""
    add = verbs.add(
        "tradeoff",
        tradeoff,
        help="what energy adds to accuracy, cost and latency",
        description="Run configurations that cover the trade-off space several times each, and"
        " say what energy adds to it: correlations, fronts, the optimal plan over energy weight"
        " and load, and several profiles side by side. Plans are written as in yolov5s 1c b1 x6:"
        f" {NOTATION}.",
    )
    add_pipeline(add)
    _add_loads(add)
    _add_configurations(add)
    add.flag("--sensitivity", "add exchange rates, shadow prices and how robust the best plan is")
    out = add.group("output")
    out("--html FILE", "write an interactive report", named_path)
    out("--png DIR", "write the figures", named_path)
    out("--csv FILE", "write the points as a table", named_path)
    out("--out DIR", "keep the run folders of all trials (a new folder)", named_path)
    add_planning_options(add, several_profiles=True)
    add("--seed N", "of everything random (key: seed)", int)


def _add_loads(add: Arguments) -> None:
    add = add.group("load")
    add(
        "--load RPS",
        "constant load, pipeline requests per second; several make a study of each",
        float,
        nargs="+",
        action="extend",
        default=[],
    )
    add("--duration S", "length of a constant load (default: 120)", int)
    add(
        "--workload NAME|FILE",
        "a trace that every configuration has to last through: bursty, steady-low,"
        " steady-high, fluctuating, diurnal, or a CSV of requests per second",
    )
    add(
        "--map-loads RPS",
        "loads of the map of optimal plans (default: 1 to 1.5 times the largest load)",
        float,
        nargs="+",
    )
    add(
        "--ipa-home DIR",
        "checkout of IPA, for workload_type: twitter (default: $IPA_HOME)",
        named_path,
    )


def _add_configurations(add: Arguments) -> None:
    group = add.group("configurations")
    add = group.exclusive()
    add("--configurations N", "choose N that cover the space (default: 10)", int)
    add("--list FILE", "your own, a YAML or CSV", named_path)
    add("--from RUN_DIR", "those of a run's log", named_path, dest="from_run")
    group("--trials N", "of each (default: 3)", int, default=3)
    group(
        "--backend", "what serves (default: simulate)", choices=tuple(BACKENDS), default="simulate"
    )


def tradeoff(args: argparse.Namespace) -> int:
    """Conduct the study, write what was asked for, print the answer."""
    from ipa_energy.report import require_packages
    from ipa_energy.tradeoff.conduct import DEFAULT_CONFIGURATIONS, Question, conduct

    _check_numbers(args)
    planners = _planners(args)
    _check_places(args, planners)
    require_packages(html=args.html, png=args.png)
    for planner in planners:
        planner.warn_of_excluded()
    study = conduct(
        Question(
            planners=planners,
            loads=_loads(args, planners[0]),
            count=args.configurations or DEFAULT_CONFIGURATIONS,
            named=_named(args, planners[0]),
            trials=args.trials,
            mapped_loads_rps=args.map_loads,
            sensitivity=args.sensitivity,
            folder=args.out,
            backend=args.backend,
        ),
        show_progress=not (args.quiet or args.json),
    )
    status = write_beside(lambda: _write(study, args))
    if args.json:
        print_json(as_json(study))
        return status
    from ipa_energy.tradeoff.study_tables import study_text

    print(study_text(study, width=terminal_width()))
    say_where(status, report=args.html, figures=args.png, table=args.csv, run_folders=args.out)
    return status


def _check_numbers(args: argparse.Namespace) -> None:
    checks = (
        ("--trials", args.trials, 1, MOST_TRIALS),
        ("--configurations", args.configurations, 1, MOST_CONFIGURATIONS),
    )
    for option, value, low, high in checks:
        if value is not None and not low <= value <= high:
            raise ConfigError(str(value), where=option, allowed=f"an integer, {low} to {high}")
    allowed = f"a number above 0, at most {HIGHEST_LOAD_RPS:g}"
    for option, values in (("--load", args.load), ("--map-loads", args.map_loads or ())):
        for value in values:
            check(0 < value <= HIGHEST_LOAD_RPS, f"{value:g} rps", option, allowed)
    if not args.load and args.workload is None:
        raise ConfigError(
            "there is no load to judge configurations under",
            where="--load, --workload",
            allowed="--load RPS, once or more, or --workload NAME|FILE, or both",
        )
    if args.duration is not None and not args.load:
        raise ConfigError("it is the length of a constant load", where="--duration", fix="--load")


def _check_places(args: argparse.Namespace, planners: Sequence[Planner]) -> None:
    """A study takes a while: a place that will not do should not be found out at its end."""
    from ipa_energy.runlog.folder import RUN_FILES
    from ipa_energy.tradeoff.study_tables import CSV_COLUMNS

    inputs = inputs_of(args.pipeline, planners)
    inputs += [args.list] if args.list is not None else []
    if args.from_run is not None:
        inputs += [args.from_run / name for name in RUN_FILES]
    folders = [] if args.from_run is None else [args.from_run]
    check_asked(args, inputs, folders=folders, csv_begins=",".join(CSV_COLUMNS[:3]))


def _planners(args: argparse.Namespace) -> list[Planner]:
    from ipa_energy.planning.planner import load_planner

    overrides = chosen_overrides(args)
    profiles = overrides.pop("profile", None)

    def planner(further: Mapping[str, object]) -> Planner:
        return load_planner(args.pipeline, {**overrides, **further}, policy=args.policy)

    if not isinstance(profiles, list):
        return [planner({})]
    distinct: dict[str, str] = {}
    for profile in profiles:
        distinct.setdefault(os.path.realpath(profile), profile)
    return [planner({"profile": profile}) for profile in distinct.values()]


def _loads(args: argparse.Namespace, planner: Planner) -> list[StudyLoad]:
    from ipa_energy.tradeoff.trials import DEFAULT_DURATION_S, constant_load, trace_load
    from ipa_energy.workloads import workload_from

    duration_s = DEFAULT_DURATION_S if args.duration is None else args.duration
    found = [constant_load(load_rps, duration_s) for load_rps in dict.fromkeys(args.load)]
    if args.workload is not None:
        workload = workload_from(planner.config, ipa_home(args))
        found.append(trace_load(workload, planner.config.adaptation_interval))
    return found


def _named(args: argparse.Namespace, planner: Planner) -> tuple[NamedConfiguration, ...] | None:
    if args.list is not None:
        from ipa_energy.tradeoff.named_configurations import read_configurations

        return read_configurations(args.list, planner.stages)
    if args.from_run is not None:
        from ipa_energy.runlog import read_run
        from ipa_energy.tradeoff.named_configurations import configurations_of_run

        return configurations_of_run(read_run(args.from_run), planner.stages)
    return None


def _write(study: Study, args: argparse.Namespace) -> None:
    if args.csv is not None:
        from ipa_energy.tradeoff.study_tables import write_points

        write_points(study, args.csv)
    if args.html is None and args.png is None:
        return
    from ipa_energy.report.tradeoff_page import tradeoff_page

    write_as_asked(tradeoff_page(study), args)
