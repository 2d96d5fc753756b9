"""The command line: ``ipa-energy VERB …``, a module for a verb or a few.

Exit status: 0 done, 2 bad input, 3 infeasible, 4 a required meter, server or licence is missing,
130 interrupted, 143 terminated; ``measure`` passes on the exit status of its command. Results go to
stdout, everything else to stderr; with ``--json`` stdout holds one JSON object and nothing else. A
verb's module imports what it needs when it runs, so that ``--help`` answers at once.
"""

from __future__ import annotations

import argparse
import io
import logging
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, TextIO, cast

import ipa_energy
from ipa_energy.cli import (
    compare,
    convert,
    doctor,
    frontier,
    importing,
    load,
    measure,
    meters,
    optimize,
    patch,
    profile,
    run,
    tradeoff,
)
from ipa_energy.cli.options import Arguments, LastingStream, Verbs, print_json
from ipa_energy.errors import EXIT_BAD_INPUT, EXIT_DONE, IpaEnergyError

EXIT_INTERRUPTED = 130
EXIT_TERMINATED = 143


class _Terminated(KeyboardInterrupt):
    """SIGTERM: everything is left as Ctrl-C leaves it."""


class _Parser(argparse.ArgumentParser):
    """Argparse whose message for bad usage looks like every other message of this program.

    Numbers are read as in the YAML: Python takes ``1_0`` and the digits of other scripts besides.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        for kind in (float, int):
            self.register("type", kind, _number(kind))

    def error(self, message: str) -> None:  # type: ignore[override]
        if "--json" in sys.argv:
            print_json({"error": {"kind": "UsageError", "message": message}})
        self.exit(EXIT_BAD_INPUT, f"ipa-energy: error: {message} (see {self.prog} --help)\n")


def build_parser() -> argparse.ArgumentParser:
    """The whole command line."""
    parser = _Parser(
        prog="ipa-energy",
        description="Energy for inference pipelines: profile it, plan with it, compare with it.",
        epilog="exit status: 0 done, 1 a defect of ours, 2 bad input, 3 infeasible,"
        " 4 something required is missing, 130 interrupted, 143 terminated",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--version", action="version", version=f"ipa-energy {ipa_energy.__version__}"
    )
    common = argparse.ArgumentParser(add_help=False)
    add = Arguments(common)
    add.flag("--json", "print one JSON object on stdout, nothing else")
    add.flag("--quiet", "no warnings and no progress bar")
    add.flag("--verbose", "say what is going on")
    verbs = Verbs(parser.add_subparsers(dest="verb", metavar="VERB", required=True), common)
    for add_to in (
        meters.add_to,
        measure.add_to,
        meters.add_calibrate_to,
        profile.add_to,
        profile.add_endpoint_to,
        convert.add_to,
        importing.add_to,
        optimize.add_to,
        run.add_to,
        load.add_to,
        compare.add_to,
        frontier.add_to,
        tradeoff.add_to,
        patch.add_to,
        doctor.add_to,
        _add_schema_to,
    ):
        add_to(verbs)
    return parser


def _add_schema_to(verbs: Verbs) -> None:
    verbs.add(
        "schema",
        _schema,
        help="every key of a pipeline YAML, as a JSON schema",
        description="Print the JSON schema of a pipeline YAML: every key with its type, default "
        "and meaning. Editors complete and check keys by it.",
    )


def _schema(args: argparse.Namespace) -> int:
    """Print it; with and without ``--json`` it is one JSON object."""
    from ipa_energy.config import schema_text

    sys.stdout.write(schema_text())
    return EXIT_DONE


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb; returns the exit status."""
    _replace_closed_streams()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal without "─" gets a "?" for it
    args = build_parser().parse_args(argv)
    for number, name in ((logging.WARNING, "warning"), (logging.ERROR, "error")):
        logging.addLevelName(number, name)
    level = logging.ERROR if args.quiet else logging.DEBUG if args.verbose else logging.WARNING
    logging.basicConfig(level=logging.WARNING, format="ipa-energy: %(levelname)s: %(message)s")
    logging.getLogger("ipa_energy").setLevel(level)
    logging.captureWarnings(capture=True)
    told = sys.stderr
    sys.stderr = cast(TextIO, LastingStream(told))
    try:
        return _exit_status(args)
    finally:
        sys.stderr = told


def _exit_status(args: argparse.Namespace) -> int:
    try:
        with _terminable():
            status = _answer(args)
        sys.stdout.flush()
        return status
    except BrokenPipeError:
        # The reader went away (a pager, head): not an error of ours. Keep the exit silent.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_DONE
    except OSError as error:
        print(f"ipa-energy: error: cannot write the output: {error.strerror}", file=sys.stderr)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_BAD_INPUT
    except _Terminated:
        print(f"ipa-energy: terminated{_way_on(args)}", file=sys.stderr)
        return EXIT_TERMINATED
    except KeyboardInterrupt:
        print(f"ipa-energy: interrupted{_way_on(args)}", file=sys.stderr)
        return EXIT_INTERRUPTED


def _answer(args: argparse.Namespace) -> int:
    """What the verb answers, a refusal told as one message."""
    verb: Callable[[argparse.Namespace], int] = args.verb_function
    try:
        return verb(args)
    except IpaEnergyError as error:
        found: Exception = error
        message, status = str(error), error.exit_status
    except OSError as error:
        if error.filename is None:  # standard output
            raise
        found, status = error, EXIT_BAD_INPUT
        message = f"{os.fspath(error.filename)}: cannot be read or written: {error.strerror}"
    shown = "".join(c if c.isprintable() or c == "\n" else f"\\x{ord(c):02x}" for c in message)
    print(f"ipa-energy: error: {shown}", file=sys.stderr)
    if args.json:
        print_json({"error": {"kind": type(found).__name__, "message": message}})
    return status


def _way_on(args: argparse.Namespace) -> str:
    """How to go on with what was begun, for verbs that can."""
    if getattr(args, "resume", None) is None:
        return ""
    out: Path = args.out
    if not (out.exists() or out.with_suffix(".trials.jsonl").exists()):
        return ""
    return f"; what was finished is kept: the same call with --resume goes on with {out}"


def _number(kind: Callable[[str], float]) -> Callable[[str], float]:
    def read(text: str) -> float:
        if "_" in text or not text.isascii():
            raise ValueError(text)
        return kind(text)

    read.__name__ = getattr(kind, "__name__", "number")
    return read


def _replace_closed_streams() -> None:
    """Put nothing in the place of standard streams that the caller closed, as daemons' callers do.

    Otherwise the next file that is opened becomes standard output.
    """
    for descriptor, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(descriptor)
        except OSError:
            nowhere = os.open(os.devnull, os.O_RDWR)
            if nowhere != descriptor:
                os.dup2(nowhere, descriptor)
                os.close(nowhere)
            os.set_inheritable(descriptor, True)
        if getattr(sys, name) is None:
            mode = "r" if descriptor == 0 else "w"
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: PTH123, SIM115


@contextmanager
def _terminable() -> Iterator[None]:
    """SIGTERM ends the verb as Ctrl-C does, if nobody else minds it."""

    def terminate(number: int, frame: FrameType | None) -> None:
        raise _Terminated

    try:
        taken = signal.getsignal(signal.SIGTERM) != signal.SIG_DFL
        if not taken:
            signal.signal(signal.SIGTERM, terminate)
    except ValueError:  # not the main thread
        taken = True
    try:
        yield
    finally:
        if not taken:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
