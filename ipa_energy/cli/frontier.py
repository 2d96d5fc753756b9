"""``ipa-energy frontier``: the best a pipeline does without energy, and with it."""

from __future__ import annotations

import argparse
import os
from typing import Any

from ipa_energy.cli.output import print_json, write_beside
from ipa_energy.cli.overrides import add_planning_options, chosen_overrides
from ipa_energy.cli.path import add_pipeline, inputs_of, named_path
from ipa_energy.errors import EXIT_DONE, ConfigError


def add_to(verbs: argparse._SubParsersAction[Any], common: argparse.ArgumentParser) -> None:
    """Add the verb to the command line."""
    parser = verbs.add_parser(
        "frontier",
        parents=[common],
        allow_abbrev=False,
        help="least joules at each accuracy, without energy in the objective and with it",
        description="Simulate a pipeline over a trace at many weights, first without energy (alpha,"
        " predictor_margin and IPA's baselines), then with it, and hold the two hulls of accuracy"
        " and joules against each other: what energy adds that no other weight reaches.",
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

    from ipa_energy.as_json import as_json
    from ipa_energy.experiment import load_experiment
    from ipa_energy.files import check_output, whole_file
    from ipa_energy.frontier.frontier import OUTCOME_COLUMNS, frontier_of, outcomes_csv
    from ipa_energy.runlog.folder import writing
    from ipa_energy.tables import table_text

    if not 0 <= args.attainment <= 1:
        raise ConfigError(
            f"{args.attainment:g}", where="--attainment", allowed="a share from 0 to 1"
        )
    if args.seeds < 1:
        raise ConfigError(f"{args.seeds}", where="--seeds", allowed="1 or more")
    home = args.ipa_home or os.environ.get("IPA_HOME")
    experiment = load_experiment(
        args.pipeline,
        chosen_overrides(args),
        policy=args.policy,
        ipa_home=Path(home) if home else None,
    )
    if args.csv is not None:
        check_output(
            args.csv,
            where="--csv",
            inputs=inputs_of(args.pipeline, [experiment.planner]),
            begins=OUTCOME_COLUMNS,
        )
    first = experiment.planner.config.seed
    with tempfile.TemporaryDirectory() as fresh:
        found = frontier_of(
            experiment,
            attainment=args.attainment,
            seeds=range(first, first + args.seeds),
            cache=Path(fresh) if args.no_cache else None,
        )

    def write() -> None:
        if args.csv is not None:
            with writing(args.csv), whole_file(args.csv) as file:
                file.write(outcomes_csv(found))

    status = write_beside(write)
    if args.json:
        print_json(as_json(found))
        return status
    print(found.sentence())
    if found.accuracies():
        print()
        print(table_text(found.table()))
    if args.csv is not None and status == EXIT_DONE:
        print(f"runs: {args.csv}")
    return status
