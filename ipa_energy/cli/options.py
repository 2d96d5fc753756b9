"""What verbs have in common: how options are added and read, and how answers are given."""

from __future__ import annotations

import argparse
import json
import logging
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO, get_args

from ipa_energy.errors import EXIT_DONE, ConfigError, in_words
from ipa_energy.files import PAGE_BEGINS, check_output, check_output_folder
from ipa_energy.records import EnergyRisk
from ipa_energy.registries import POLICIES, SOLVERS, Named, energy_metrics
from ipa_energy.shipped import find_config

if TYPE_CHECKING:
    from ipa_energy.planning.planner import Planner
    from ipa_energy.report.page import Page


Kind = Callable[[str], Any]


class Arguments:
    """Adds arguments to a parser, or to a group of one.

    ::

        add = verbs.add("load", load, help="…", description="…")
        add("--seconds N", "length of the load (default: 60)", int, default=60)
        add.flag("--quick", "short trials, one an entry")

    Args:
        container: the parser or group.
    """

    def __init__(self, container: argparse._ActionsContainer) -> None:
        self._container = container

    def __call__(
        self, spec: str, words: str | None = None, kind: Kind | None = None, **further: Any
    ) -> None:
        """Add an argument.

        Args:
            spec: its name, or names with commas between, and after a blank its placeholder.
            words: help.
            kind: what makes a value of its text; None: the text itself.
            further: as ``add_argument`` takes it.
        """
        names, _, placeholder = spec.partition(" ")
        further |= {"help": words, "type": kind} | ({"metavar": placeholder} if placeholder else {})
        self._container.add_argument(*names.split(","), **further)

    def flag(self, name: str, words: str, **further: Any) -> None:
        """Add an option without a value."""
        self._container.add_argument(name, help=words, action="store_true", **further)

    def group(self, title: str) -> Arguments:
        """A group with a title in the help."""
        return Arguments(self._container.add_argument_group(title))

    def exclusive(self, *, required: bool = False) -> Arguments:
        """Arguments of which one may be given, or must be."""
        return Arguments(self._container.add_mutually_exclusive_group(required=required))


@dataclass(frozen=True, slots=True)
class Verbs:
    """The verbs of the command line, and the options that all have."""

    subparsers: argparse._SubParsersAction[Any]
    common: argparse.ArgumentParser

    def add(self, name: str, run: Callable[[argparse.Namespace], int], **texts: Any) -> Arguments:
        """A verb, what it runs, and its texts; what takes its arguments comes back."""
        parser = self.subparsers.add_parser(
            name, parents=[self.common], allow_abbrev=False, **texts
        )
        parser.set_defaults(verb_function=run)
        return Arguments(parser)


def option_of(name: str) -> str:
    """``--latency-sla`` of ``latency_sla``."""
    return "--" + name.replace("_", "-")


def check(holds: bool, what: str, option: str, allowed: str) -> None:
    """Refuse what an option says.

    Raises:
        ConfigError: it does not hold.
    """
    if not holds:
        raise ConfigError(what, where=option, allowed=allowed)


def ipa_home(args: argparse.Namespace) -> Path | None:
    """The checkout of IPA: ``--ipa-home``, else ``$IPA_HOME``."""
    home = args.ipa_home or os.environ.get("IPA_HOME")
    return Path(home) if home else None


KEY_OF_OPTION = {
    "profile": "profile",
    "energy_weight": "energy_weight",
    "energy_metric": "energy_metric",
    "energy_risk": "energy_risk",
    "energy_sla_joules": "energy_sla_joules",
    "latency_sla": "latency_sla_s",
    "method": "optimization_method",
    "predictor": "predictor_type",
    "seed": "seed",
    "images": "images",
    "workload": "workload",
    "set": "set",
}
"""Option of the command line → key of the YAML, or one that ``load_config`` takes beside them."""


def add_planning_options(add: Arguments, *, several_profiles: bool = False) -> None:
    """The options that bear on every decision; with several profiles ``profile`` is a list."""
    add = add.group("overrides of the YAML's keys")
    several: dict[str, Any] = {"nargs": "+", "action": "extend"} if several_profiles else {}
    add(
        "--profile CSV",
        "profile table (key: profile)"
        + ("; several are compared, the first is the study's" if several_profiles else ""),
        **several,
    )
    add("--energy-weight W", "weight of the energy term; 0 is IPA", float)
    add("--energy-metric", "what the energy term counts", choices=energy_metrics())
    add(
        "--energy-risk",
        "which joules count: the mean of the trials, or the upper end of its 95%% interval",
        choices=get_args(EnergyRisk),
    )
    add("--energy-sla-joules J", "hard cap on joules per pipeline request", float)
    add("--latency-sla S", "end-to-end latency SLA in seconds", float)
    add("--method", f"solver (key: optimization_method): {explained(SOLVERS)}", choices=[*SOLVERS])
    add("--policy", f"{explained(POLICIES)} (default: what the YAML says)", choices=[*POLICIES])
    add(
        "--set KEY=VALUE",
        "any other key of the YAML, its value written as there, e.g. --set scaling_cap=20 or"
        " --set 'initial_batch=[1, 4]'; repeatable",
        action="append",
    )


def explained(registry: Mapping[str, Named]) -> str:
    """The names of a registry with what each is, for a help text."""
    text = ", ".join(f"{name} ({entry.help})" for name, entry in registry.items())
    return text.replace("%", "%%")


def chosen_weights(given: Sequence[str]) -> dict[str, str]:
    """Variant → weights file of the options ``--weights VARIANT=FILE``.

    Raises:
        ConfigError: one is not written so, or there is no such file.
    """
    weights = {}
    for item in given:
        variant, equals, file = item.partition("=")
        if not (variant and equals and Path(file).is_file()):
            raise ConfigError(
                f"{item!r}", where="--weights", allowed="VARIANT=FILE with a file that exists"
            )
        weights[variant] = str(Path(file).resolve())
    return weights


def add_weights(add: Arguments) -> None:
    """The option ``--weights``."""
    add(
        "--weights VARIANT=FILE",
        "trained weights (key: weights); random ones cost the same; repeatable",
        action="append",
        default=[],
    )


def chosen_overrides(args: argparse.Namespace) -> dict[str, Any]:
    """YAML key → the value given on the command line, for the options that were given."""
    given = {key: getattr(args, option, None) for option, key in KEY_OF_OPTION.items()}
    given["weights"] = chosen_weights(getattr(args, "weights", ())) or None
    return {key: value for key, value in given.items() if value is not None}


def named_path(text: str) -> Path:
    """For ``type=`` of an option; the empty text, which ``Path`` takes for ``.``, is refused.

    Raises:
        argparse.ArgumentTypeError: it is empty.
    """
    if not text.strip():
        raise argparse.ArgumentTypeError("an empty path; name a file or folder")
    return Path(text)


def named_server(text: str) -> str:
    """For ``type=`` of an option: the URL of a server; a password in it is not shown.

    Raises:
        argparse.ArgumentTypeError: it is none.
    """
    from ipa_energy.config.fields import AN_HTTP_URL, HTTP_URL

    if re.fullmatch(HTTP_URL, text) is None:
        shown = text.rpartition("@")[2]
        raise argparse.ArgumentTypeError(f"{shown!r}; allowed: {AN_HTTP_URL}")
    return text


def named_pipeline(text: str) -> Path:
    """For ``type=`` of a pipeline: the path of its YAML, or the name of one that is shipped.

    Raises:
        argparse.ArgumentTypeError: it is empty, or a name that is not shipped.
    """
    try:
        return find_config(named_path(text))
    except ConfigError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    except OSError as error:
        raise argparse.ArgumentTypeError(f"{text}: {in_words(error)}") from error


def add_pipeline(add: Arguments, *, several: str = "") -> None:
    """Add the pipeline that a verb works on; a list of them where several may be named.

    Args:
        add: of the verb.
        several: what several are for, at the end of the help; "" where there is one.
    """
    add(
        "pipeline",
        "a pipeline YAML, or the name of one that comes with the program, such as video" + several,
        named_pipeline,
        nargs="+" if several else None,
        metavar="PIPELINE.yaml",
    )


def inputs_of(pipeline: Path, planners: Iterable[Planner]) -> list[Path]:
    """The files that a pipeline was loaded from: YAML, profiles, traces."""
    found = [pipeline]
    for planner in planners:
        trace = getattr(planner.config.workload_config, "path", None)
        found += [planner.profile_path, *([Path(trace)] if trace else [])]
    return found


class LastingStream:
    """Standard error whose reader may go away, or whose disk may be full.

    What is said then is lost; what is being done is not.

    Args:
        stream: the real one, which has every other attribute.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write, or lose it."""
        try:
            return self._stream.write(text)
        except OSError:
            self._lose()
            return len(text)

    def flush(self) -> None:
        """Flush, or lose it."""
        try:
            self._stream.flush()
        except OSError:
            self._lose()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def _lose(self) -> None:
        with suppress(OSError, ValueError):  # a stream of a test has no descriptor
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)


def write_beside(write: Callable[[], object]) -> int:
    """Write files of an answer that is printed as well, whatever becomes of them.

    Returns:
        The exit status.
    """
    try:
        write()
    except ConfigError as error:
        print(f"ipa-energy: error: {error}; the answer itself is printed", file=sys.stderr)
        return error.exit_status
    return EXIT_DONE


@contextmanager
def filtered(passes: logging.Filter | Callable[[logging.LogRecord], bool]) -> Iterator[None]:
    """Every message that is logged meanwhile goes through a filter."""
    handlers = list(logging.getLogger().handlers)
    for handler in handlers:
        handler.addFilter(passes)
    try:
        yield
    finally:
        for handler in handlers:
            handler.removeFilter(passes)


def say_where(status: int, **places: Path | None) -> None:
    """Say where what was asked for was written, if it was."""
    for label, path in places.items():
        if path is not None and status == EXIT_DONE:
            print(f"{label.replace('_', ' ')}: {path}")


def print_json(document: Mapping[str, Any]) -> None:
    """One JSON object on stdout; a NaN in it is a defect and raises."""
    print(json.dumps(document, allow_nan=False, indent=2))


def terminal_width() -> int | None:
    """Characters of a line where standard output is a terminal; None elsewhere: no limit."""
    try:
        is_terminal = sys.stdout.isatty()
    except ValueError:  # closed
        return None
    return shutil.get_terminal_size().columns if is_terminal else None


def text_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Texts in columns, as wide as the terminal at most."""
    from ipa_energy.tables import columns, table_text

    return table_text(columns(header, rows), width=terminal_width())


def check_asked(
    args: argparse.Namespace,
    inputs: Sequence[Path],
    *,
    folders: Sequence[Path] = (),
    csv_begins: str | None = None,
) -> None:
    """Refuse places of ``--html``, ``--csv`` and ``--png`` that will not do, before work is done.

    ``inputs`` and ``folders`` are read; ``csv_begins`` is how tables of a verb with ``--csv`` do.
    """
    if args.html is not None:
        check_output(args.html, where="--html", inputs=inputs, begins=PAGE_BEGINS)
    if csv_begins is not None and args.csv is not None:
        check_output(args.csv, where="--csv", inputs=inputs, begins=csv_begins)
    if args.png is not None:
        check_output_folder(args.png, where="--png", inputs=folders)
    taken: dict[str, str] = {}
    for option in ("html", "csv", "png"):
        place = getattr(args, option, None)
        if place is not None:
            first = taken.setdefault(os.path.realpath(place), option_of(option))
            what, where = f"{place}: both go there", f"{first}, {option_of(option)}"
            if first != option_of(option):
                raise ConfigError(what, where=where, allowed="a place for each")


def write_as_asked(page: Page, args: argparse.Namespace) -> None:
    """A page as ``--html`` and its figures as ``--png``, whichever was given."""
    from ipa_energy.report.image import write_images
    from ipa_energy.report.page import write_page

    if args.html is not None:
        write_page(page, args.html)
    if args.png is not None:
        write_images(page.figures, args.png)
