"""``ipa-energy frontier``: the best a pipeline does without energy, and with it."""

from __future__ import annotations

import argparse
import sys

from ipa_energy.cli.options import (
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
from ipa_energy.records import notice_of


def add_to(verbs: Verbs) -> None:
    """Add the verb to the command line."""
    add = verbs.add(
        "frontier",
        frontier,
        help="least joules at each accuracy, without energy in the objective and with it",
        description="Simulate a pipeline over a trace at many weights, first without energy (alpha,"
        " predictor_margin, IPA's baselines, HPA, InferLine), then with it, and hold the two hulls"
        " of accuracy and joules against each other: what energy adds that no other weight"
        " reaches.",
    )
    add_pipeline(add)
    add(
        "--attainment SHARE",
        "requests in time that a run must have to count, 0 to 1 (default: 0.97)",
        float,
        default=0.97,
    )
    add("--seeds N", "runs of each setting (default: 1)", int, default=1)
    add("--html FILE", "write both hulls as an interactive page", named_path)
    add("--png DIR", "write the figure as PNG, SVG, CSV", named_path)
    add("--csv FILE", "write every run as a line", named_path)
    add("--workload NAME|FILE", "load trace (key: workload_type)")
    add("--ipa-home DIR", "checkout of IPA", named_path)
    add.flag("--no-cache", "simulate again what was simulated before")
    add_planning_options(add)


def frontier(args: argparse.Namespace) -> int:
    """Sweep, then print both hulls."""
    import tempfile
    from pathlib import Path

    from tqdm import tqdm

    from ipa_energy.as_json import as_json
    from ipa_energy.experiment import load_experiment
    from ipa_energy.files import whole_file
    from ipa_energy.frontier.frontier import (
        OUTCOME_COLUMNS,
        frontier_of,
        outcomes_table,
        runs_of_frontier,
    )
    from ipa_energy.report import require_packages
    from ipa_energy.runlog.folder import writing
    from ipa_energy.tables import table_csv, table_text, wrapped

    said = f"{args.attainment:g}"
    check(0 <= args.attainment <= 1, said, "--attainment", "a share from 0 to 1")
    check(args.seeds >= 1, f"{args.seeds}", "--seeds", "1 or more")
    require_packages(html=args.html, png=args.png)
    overrides, home = chosen_overrides(args), ipa_home(args)
    experiment = load_experiment(args.pipeline, overrides, policy=args.policy, ipa_home=home)
    inputs = inputs_of(args.pipeline, [experiment.planner])
    csv_begins = ",".join(OUTCOME_COLUMNS[:4])
    check_asked(args, inputs, csv_begins=csv_begins)
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
        if args.html is not None or args.png is not None:
            from ipa_energy.report.frontier_page import frontier_page

            write_as_asked(frontier_page(found), args)

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
    say_where(status, report=args.html, figures=args.png, runs=args.csv)
    return status
