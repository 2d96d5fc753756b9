"""``ipa-energy tradeoff``: does energy add anything to accuracy, cost and latency, and what?"""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ipa_energy.as_json import as_json
from ipa_energy.cli.output import print_json, terminal_width, write_as_asked, write_beside
from ipa_energy.cli.overrides import add_planning_options, chosen_overrides
from ipa_energy.cli.path import add_pipeline, inputs_of, named_path
from ipa_energy.errors import EXIT_DONE, ConfigError
from ipa_energy.files import PAGE_BEGINS, check_output, check_output_folder
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


def add_to(verbs: argparse._SubParsersAction[Any], common: argparse.ArgumentParser) -> None:
    """Add the verb to the command line."""
    parser = verbs.add_parser(
        "tradeoff",
        parents=[common],
        allow_abbrev=False,
        help="what energy adds to accuracy, cost and latency",
        description="Run configurations that cover the trade-off space several times each, and"
        " say what energy adds to it: correlations, fronts, the optimal plan over energy weight"
        " and load, and several profiles side by side. Plans are written as in yolov5s 1c b1 x6:"
        f" {NOTATION}.",
    )
    add_pipeline(parser)
    _add_loads(parser)
    _add_configurations(parser)
    parser.add_argument(
        "--sensitivity",
        action="store_true",
        help="add exchange rates, shadow prices and how robust the best plan is",
    )
    out = parser.add_argument_group("output")
    out.add_argument("--html", type=named_path, metavar="FILE", help="write an interactive report")
    out.add_argument("--png", type=named_path, metavar="DIR", help="write the figures")
    out.add_argument("--csv", type=named_path, metavar="FILE", help="write the points as a table")
    out.add_argument(
        "--out",
        type=named_path,
        metavar="DIR",
        help="keep the run folders of all trials (a new folder)",
    )
    add_planning_options(parser, several_profiles=True)
    parser.add_argument("--seed", type=int, metavar="N", help="of everything random (key: seed)")
    parser.set_defaults(verb_function=tradeoff)


def _add_loads(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("load")
    group.add_argument(
        "--load",
        type=float,
        nargs="+",
        action="extend",
        default=[],
        metavar="RPS",
        help="constant load, pipeline requests per second; several make a study of each",
    )
    group.add_argument(
        "--duration", type=int, metavar="S", help="length of a constant load (default: 120)"
    )
    group.add_argument(
        "--workload",
        metavar="NAME|FILE",
        help="a trace that every configuration has to last through: bursty, steady-low,"
        " steady-high, fluctuating, diurnal, or a CSV of requests per second",
    )
    group.add_argument(
        "--map-loads",
        type=float,
        nargs="+",
        metavar="RPS",
        help="loads of the map of optimal plans (default: 1 to 1.5 times the largest load)",
    )
    group.add_argument(
        "--ipa-home",
        type=named_path,
        metavar="DIR",
        help="checkout of IPA, for workload_type: twitter (default: $IPA_HOME)",
    )


def _add_configurations(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("configurations")
    which = group.add_mutually_exclusive_group()
    which.add_argument(
        "--configurations",
        type=int,
        metavar="N",
        help="choose N that cover the space (default: 10)",
    )
    which.add_argument("--list", type=named_path, metavar="FILE", help="your own, a YAML or CSV")
    which.add_argument(
        "--from", type=named_path, dest="from_run", metavar="RUN_DIR", help="those of a run's log"
    )
    group.add_argument("--trials", type=int, default=3, metavar="N", help="of each (default: 3)")
    group.add_argument(
        "--backend",
        choices=tuple(BACKENDS),
        default="simulate",
        help="what serves (default: simulate)",
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
    for label, path in (
        ("report", args.html),
        ("figures", args.png),
        ("table", args.csv),
        ("run folders", args.out),
    ):
        if path is not None and status == EXIT_DONE:
            print(f"{label}: {path}")
    return status


def _check_numbers(args: argparse.Namespace) -> None:
    checks = (
        ("--trials", args.trials, 1, MOST_TRIALS),
        ("--configurations", args.configurations, 1, MOST_CONFIGURATIONS),
    )
    for option, value, low, high in checks:
        if value is not None and not low <= value <= high:
            raise ConfigError(str(value), where=option, allowed=f"an integer, {low} to {high}")
    for option, values in (("--load", args.load), ("--map-loads", args.map_loads or ())):
        for value in values:
            if not 0 < value <= HIGHEST_LOAD_RPS:
                raise ConfigError(
                    f"{value:g} rps",
                    where=option,
                    allowed=f"a number above 0, at most {HIGHEST_LOAD_RPS:g}",
                )
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
    for option, path, begins in (
        ("--html", args.html, PAGE_BEGINS),
        ("--csv", args.csv, ",".join(CSV_COLUMNS[:3])),
    ):
        if path is not None:
            check_output(path, where=option, inputs=inputs, begins=begins)
    if args.html and args.csv and os.path.realpath(args.html) == os.path.realpath(args.csv):
        raise ConfigError(f"{args.csv}: both go there", where="--html, --csv", allowed="two files")
    if args.png is not None:
        folders = [] if args.from_run is None else [args.from_run]
        check_output_folder(args.png, where="--png", inputs=folders)


def _planners(args: argparse.Namespace) -> list[Planner]:
    from ipa_energy.planning.planner import load_planner

    overrides = chosen_overrides(args)
    profiles = overrides.pop("profile", None)

    def planner(further: Mapping[str, object]) -> Planner:
        return load_planner(args.pipeline, {**overrides, **further}, policy=args.policy)

    if not isinstance(profiles, list):
        return [planner({})]
    distinct: dict[Path, str] = {}
    for profile in profiles:
        distinct.setdefault(Path(profile).resolve(), profile)
    return [planner({"profile": profile}) for profile in distinct.values()]


def _loads(args: argparse.Namespace, planner: Planner) -> list[StudyLoad]:
    from ipa_energy.tradeoff.trials import DEFAULT_DURATION_S, constant_load, trace_load
    from ipa_energy.workloads import workload_from

    duration_s = DEFAULT_DURATION_S if args.duration is None else args.duration
    found = [constant_load(load_rps, duration_s) for load_rps in dict.fromkeys(args.load)]
    if args.workload is not None:
        home = args.ipa_home or os.environ.get("IPA_HOME")
        workload = workload_from(planner.config, Path(home) if home else None)
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
