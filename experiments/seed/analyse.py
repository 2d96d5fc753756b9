r"""The seed's two experiments again, and those of a sweep of one's own.

    python experiments/seed/analyse.py --html seed.html --figures figures
    python experiments/seed/analyse.py --sweep FOLDER --markdown RESULTS.md --figures figures

Prints the answers as Markdown; ``--sweep`` adds what ``run_sweep.py`` wrote into FOLDER.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from seed_data import experiment_1, experiment_2, read_points, sweep_facts
from seed_markdown import markdown
from seed_published import published_sections
from seed_sweep import sweep_sections

from ipa_energy.errors import EXIT_DONE, IpaEnergyError
from ipa_energy.files import whole_file
from ipa_energy.report.image import write_images
from ipa_energy.report.page import Page, Section, write_page

TITLE = "The seed's two experiments, and what follows from them"


def main(argv: Sequence[str] | None = None) -> int:
    """Analyse, write what was asked for, print the rest."""
    args = _parser().parse_args(argv)
    try:
        return analyse(args)
    except IpaEnergyError as error:
        print(f"analyse.py: error: {error}", file=sys.stderr)
        return error.exit_status


def analyse(args: argparse.Namespace) -> int:
    """Everything in one go.

    Raises:
        IpaEnergyError: a file cannot be read or written.
    """
    sections = published_sections(experiment_1(), experiment_2())
    for folder in args.sweep:
        points = read_points(folder)
        networks = ", ".join(dict.fromkeys(point.weights for point in points))
        sections += sweep_sections(points, sweep_facts(folder), networks)
    page = Page(title=TITLE, sections=sections)
    if args.figures is not None:
        write_images(page.figures, args.figures)
    if args.html is not None:
        write_page(page, args.html)
    if args.markdown is None:
        print(markdown(TITLE, sections, None), end="")
    else:
        _write_markdown(args, sections)
    return EXIT_DONE


def _write_markdown(args: argparse.Namespace, sections: Sequence[Section]) -> None:
    figures = None
    if args.figures is not None:
        figures = Path(os.path.relpath(args.figures, args.markdown.parent)).as_posix()
    try:
        with whole_file(args.markdown) as file:
            file.write(markdown(TITLE, sections, figures))
    except OSError as error:
        raise IpaEnergyError(f"{args.markdown}: cannot write: {error.strerror}") from error


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n", maxsplit=1)[0])
    parser.add_argument(
        "--sweep", action="append", default=[], type=Path, metavar="FOLDER", help="of run_sweep.py"
    )
    parser.add_argument("--html", type=Path, metavar="FILE", help="a report in one file")
    parser.add_argument("--figures", type=Path, metavar="DIR", help="PNG, SVG and CSV of each")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="instead of printing it")
    return parser


if __name__ == "__main__":
    sys.exit(main())
