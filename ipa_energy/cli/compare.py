"""``ipa-energy compare``: runs side by side, against the first and against hindsight."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ipa_energy.as_json import as_json
from ipa_energy.cli.options import (
    Verbs,
    check_asked,
    named_path,
    print_json,
    say_where,
    terminal_width,
    write_beside,
)
from ipa_energy.records import NOTATION

if TYPE_CHECKING:
    from ipa_energy.comparing.hull import Saving
    from ipa_energy.frontier.sweep import SavingStudy

logger = logging.getLogger(__name__)

MOST_REQUESTS = 60_000_000
"""That are simulated without being asked to: about half an hour. More is left out."""

HINDSIGHTS = 60
"""Simulations of a run to find its hindsight: dozens."""


def add_to(verbs: Verbs) -> None:
    """Add the verb to the command line."""
    add = verbs.add(
        "compare",
        compare,
        help="what runs saved, and what it cost",
        description="Compare run folders, ours or IPA's own, with the first one as the base."
        f" Plans are written as in yolov5s 1c b1 x6: {NOTATION}.",
    )
    add("run_dirs", None, named_path, nargs="+", metavar="RUN_DIR")
    add("--html FILE", "write an interactive report", named_path)
    add("--png DIR", "write figures as PNG, SVG, CSV", named_path)
    add(
        "--hindsight",
        "what a plan that knew the load would have done, for which the pipeline is"
        " simulated (what was found is kept for the next time; left out by itself of runs of days)",
        action=argparse.BooleanOptionalAction,
    )
    add(
        "--yardstick",
        "what energy saves against the best weights without it, for which the"
        " pipeline is simulated at many weights (kept for the next time; left out by itself of runs"
        " of days)",
        action=argparse.BooleanOptionalAction,
    )
    add.flag(
        "--equivalences",
        "say what a year of the runs' carbon is as well: miles driven and the like",
    )


def compare(args: argparse.Namespace) -> int:
    """Read the folders, simulate the yardsticks, print and write the comparison."""
    from ipa_energy.comparing import comparison_table, headline, metrics, numbered
    from ipa_energy.comparing.saving_tables import by_site, equivalences
    from ipa_energy.experiment import experiment_of
    from ipa_energy.frontier.sweep import saving_study
    from ipa_energy.frontier.yardsticks import held_against, yardsticks
    from ipa_energy.report import require_packages, write_figures, write_html
    from ipa_energy.runlog import read_run
    from ipa_energy.runlog.folder import RUN_FILES
    from ipa_energy.tables import wrapped

    inputs = [folder / name for folder in args.run_dirs for name in RUN_FILES]
    check_asked(args, inputs, folders=args.run_dirs)
    require_packages(html=args.html, png=args.png)
    runs = numbered([read_run(path) for path in args.run_dirs])
    figures = [metrics(run) for run in runs]
    show_progress = not (args.quiet or args.json)
    made_from = {}
    if args.hindsight is not False or args.yardstick is not False:
        made_from = {run.name: experiment_of(run) for run in runs}
    found = {}
    if args.hindsight is not False:
        with _bar("hindsight", "simulation", shown=show_progress) as bar:
            found = {
                run.name: yardsticks(experiment, run, runs[0] if index else None, ran=bar.update)
                for index, run in enumerate(runs)
                if (experiment := made_from[run.name]) is not None
                if args.hindsight
                or _is_quick(run.name, HINDSIGHTS * figures[index].requests, "hindsight")
            }
    savings = {}
    if args.yardstick is not False:
        asked = [saving_study(made_from[run.name], run) for run in figures]
        studies = [
            study
            for study in asked
            if study is not None
            if args.yardstick or _is_quick(study.figures.name, study.requests, "yardstick")
        ]
        savings = _savings(studies, show_progress=show_progress)
    comparison = held_against(figures, found, savings)

    def write() -> None:
        if args.html is not None:
            write_html(comparison, runs, args.html)
        if args.png is not None:
            write_figures(comparison, runs, args.png)

    status = write_beside(write)
    if args.json:
        print_json(as_json(comparison))
        return status
    width = terminal_width()
    print(wrapped(headline(comparison), width))
    for told in comparison.shares.values():
        print(wrapped(f"{told.sentence()}.", width))
    print()
    print(comparison_table(comparison, width=width))
    sentences = by_site(comparison.runs)
    sentences += equivalences(comparison.runs) if args.equivalences else []
    for sentence in sentences:
        print(f"\n{wrapped(sentence, width)}")
    say_where(status, report=args.html, figures=args.png)
    return status


def _is_quick(name: str, requests: int, what: str) -> bool:
    """True if so many requests are simulated in minutes; else says what is left out."""
    if requests <= MOST_REQUESTS:
        return True
    logger.warning(
        "%s: no %s, which would simulate %s million requests, for hours: ask for it with --%s",
        name,
        what,
        f"{requests / 1e6:,.0f}",
        what,
    )
    return False


def _savings(studies: Sequence[SavingStudy], *, show_progress: bool) -> dict[str, Saving]:
    """Run name → what its energy saves, for those that have energy in their objective."""
    total = sum(study.runs for study in studies)
    with _bar("yardstick", "run", shown=show_progress, total=total) as bar:
        return {study.figures.name: study.conduct(ran=bar.update) for study in studies}


def _bar(name: str, unit: str, *, shown: bool, total: int | None = None) -> Any:
    """A progress bar on stderr, if that is a terminal."""
    from tqdm import tqdm

    hidden = not (shown and sys.stderr.isatty())
    return tqdm(total=total, desc=name, unit=f" {unit}", leave=False, disable=hidden)
