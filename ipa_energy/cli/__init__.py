"""The command line: ``ipa-energy VERB …``, one module a verb.

Exit status: 0 done, 2 bad input, 3 infeasible, 4 a required meter, server or licence is missing,
130 interrupted; ``measure`` passes on the exit status of its command. Results go to stdout,
everything else to stderr; with ``--json`` stdout holds one JSON object and nothing else. A verb's
module imports what it needs when it runs, so that ``--help`` answers at once.
"""

from __future__ import annotations

import argparse
import io
import logging
import os
import sys
from collections.abc import Callable, Sequence

import ipa_energy
from ipa_energy.cli import (
    calibrate,
    compare,
    convert,
    frontier,
    import_logs,
    measure,
    meters,
    optimize,
    patch,
    profile,
    run,
    schema,
    tradeoff,
)
from ipa_energy.cli.output import print_json
from ipa_energy.errors import EXIT_BAD_INPUT, EXIT_DONE, IpaEnergyError

EXIT_INTERRUPTED = 130


class _Parser(argparse.ArgumentParser):
    """Argparse whose message for bad usage looks like every other message of this program."""

    def error(self, message: str) -> None:  # type: ignore[override]
        if "--json" in sys.argv:
            print_json({"error": {"kind": "UsageError", "message": message}})
        self.exit(EXIT_BAD_INPUT, f"ipa-energy: error: {message} (see {self.prog} --help)\n")


def build_parser() -> argparse.ArgumentParser:
    """The whole command line."""
    parser = _Parser(
        prog="ipa-energy",
        description="Energy for inference pipelines: profile it, plan with it, compare with it.",
        epilog="exit status: 0 done, 2 bad input, 3 infeasible, 4 something required is missing",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--version", action="version", version=f"ipa-energy {ipa_energy.__version__}"
    )
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument(
        "--json", action="store_true", help="print one JSON object on stdout, nothing else"
    )
    common.add_argument("--quiet", action="store_true", help="no warnings and no progress bar")
    common.add_argument("--verbose", action="store_true", help="say what is going on")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    for verb in (
        meters,
        measure,
        calibrate,
        profile,
        convert,
        import_logs,
        optimize,
        run,
        compare,
        frontier,
        tradeoff,
        patch,
        schema,
    ):
        verb.add_to(verbs, common)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb; returns the exit status."""
    args = build_parser().parse_args(argv)
    for number, name in ((logging.WARNING, "warning"), (logging.ERROR, "error")):
        logging.addLevelName(number, name)
    level = logging.ERROR if args.quiet else logging.DEBUG if args.verbose else logging.WARNING
    logging.basicConfig(level=logging.WARNING, format="ipa-energy: %(levelname)s: %(message)s")
    logging.getLogger("ipa_energy").setLevel(level)
    logging.captureWarnings(capture=True)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal without "─" gets a "?" for it
    verb: Callable[[argparse.Namespace], int] = args.verb_function
    try:
        status = verb(args)
        sys.stdout.flush()
        return status
    except IpaEnergyError as error:
        print(f"ipa-energy: error: {error}", file=sys.stderr)
        if args.json:
            print_json({"error": {"kind": type(error).__name__, "message": str(error)}})
        return error.exit_status
    except BrokenPipeError:
        # The reader went away (a pager, head): not an error of ours. Keep the exit silent.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_DONE
    except OSError as error:
        # Files of ours are written and read elsewhere, with messages of their own.
        print(f"ipa-energy: error: cannot write the output: {error.strerror}", file=sys.stderr)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_BAD_INPUT
    except KeyboardInterrupt:
        print("ipa-energy: interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED
