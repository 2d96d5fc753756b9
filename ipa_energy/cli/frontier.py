"""``ipa-energy frontier``: the best a pipeline does without energy, and with it."""

from __future__ import annotations

import argparse
import os
import sys
from typing import TYPE_CHECKING, Any

from ipa_energy.cli.output import print_json, terminal_width, write_as_asked, write_beside
from ipa_energy.cli.overrides import add_planning_options, chosen_overrides
from ipa_energy.cli.path import add_pipeline, inputs_of, named_path
from ipa_energy.errors import EXIT_DONE, ConfigError
from ipa_energy.records import notice_of

if TYPE_CHECKING:
    from ipa_energy.frontier.frontier import Frontier


def add_to(verbs: argparse._SubParsersAction[Any], common: argparse.ArgumentParser) -> None:
    """Add the verb to the command line."""
    parser = verbs.add_parser(
        "frontier",
        parents=[common],
        allow_abbrev=False,
        help="least joules at each accuracy, without energy in the objective and with it",
        description="Simulate a pipeline over a trace at many weights, first without energy (alpha,"
        " predictor_margin, IPA's baselines, HPA, InferLine), then with it, and hold the two hulls"
        " of accuracy and joules against each other: what energy adds that no other weight"
        " reaches.",
    )
    add_pipeline(parser)
    parser.add_argument(
        "--attainment",
        type=float,
        default=0.97,
        metavar="SHARE",
        help="requests in time that a run must have to count, 0 to 1 (default: 0.97)",
    )
    parser.add_argument(
        "--seeds", type=int, default=1, metavar="N", help="runs of each setting (default: 1)"
    )
    parser.add_argument(
        "--html", type=named_path, metavar="FILE", help="write both hulls as an interactive page"
    )
    parser.add_argument(
        "--png", type=named_path, metavar="DIR", help="write the figure as PNG, SVG, CSV"
    )
    parser.add_argument("--csv", type=named_path, metavar="FILE", help="write every run as a line")
    parser.add_argument("--workload", metavar="NAME|FILE", help="load trace (key: workload_type)")
    parser.add_argument("--ipa-home", type=named_path, metavar="DIR", help="checkout of IPA")
    parser.add_argument(
        "--no-cache", action="store_true", help="simulate again what was simulated before"
    )
    add_planning_options(parser)
    parser.set_defaults(verb_function=frontier)


def frontier(args: argparse.Namespace) -> int:
    """Sweep, then print both hulls."""
    import tempfile
    from pathlib import Path

    from tqdm import tqdm

    from ipa_energy.as_json import as_json
    from ipa_energy.experiment import load_experiment
    from ipa_energy.files import PAGE_BEGINS, check_output, check_output_folder, whole_file
    from ipa_energy.frontier.frontier import (
        OUTCOME_COLUMNS,
        frontier_of,
        outcomes_table,
        runs_of_frontier,
    )
    from ipa_energy.report import require_packages
    from ipa_energy.runlog.folder import writing
    from ipa_energy.tables import table_csv, table_text, wrapped

    if not 0 <= args.attainment <= 1:
        raise ConfigError(
            f"{args.attainment:g}", where="--attainment", allowed="a share from 0 to 1"
        )
    if args.seeds < 1:
        raise ConfigError(f"{args.seeds}", where="--seeds", allowed="1 or more")
    require_packages(html=args.html, png=args.png)
    home = args.ipa_home or os.environ.get("IPA_HOME")
    experiment = load_experiment(
        args.pipeline,
        chosen_overrides(args),
        policy=args.policy,
        ipa_home=Path(home) if home else None,
    )
    inputs = inputs_of(args.pipeline, [experiment.planner])
    for option, path, begins in (
        ("--csv", args.csv, ",".join(OUTCOME_COLUMNS[:4])),
        ("--html", args.html, PAGE_BEGINS),
    ):
        if path is not None:
            check_output(
                path, where=option, inputs=inputs, begins=begins, makes_folder=option == "--html"
            )
    if args.png is not None:
        check_output_folder(args.png, where="--png")
    first = experiment.planner.config.seed
    seeds = range(first, first + args.seeds)
    total = runs_of_frontier(experiment, seeds)
    hidden = args.quiet or args.json or not sys.stderr.isatty()
    with (
        tempfile.TemporaryDirectory() as fresh,
        tqdm(total=total, desc="frontier", unit="run", leave=False, disable=hidden) as bar,
    ):
        found = frontier_of(
            experiment,
            attainment=args.attainment,
            seeds=seeds,
            cache=Path(fresh) if args.no_cache else None,
            ran=bar.update,
        )

    def write() -> None:
        if args.csv is not None:
            with writing(args.csv), whole_file(args.csv) as file:
                file.write(table_csv(outcomes_table(found)))
        _draw(found, args)

    status = write_beside(write)
    if args.json:
        print_json(as_json(found))
        return status
    width = terminal_width()
    print(wrapped(found.sentence(), width))
    if found.accuracies():
        print()
        print(table_text(found.table(), width=width))
    if notice := notice_of(found.meter):
        print(f"\n{wrapped(f'The joules of the profile are {notice}.', width)}")
    for label, path in (("report", args.html), ("figures", args.png), ("runs", args.csv)):
        if path is not None and status == EXIT_DONE:
            print(f"{label}: {path}")
    return status


def _draw(found: Frontier, args: argparse.Namespace) -> None:
    if args.html is None and args.png is None:
        return
    from ipa_energy.report.frontier_page import frontier_page

    write_as_asked(frontier_page(found), args)
