"""``ipa-energy import``: joules from the logs of other tools, a run each, and published results."""

from __future__ import annotations

import argparse
import math
import sys
from typing import TYPE_CHECKING, Any

from ipa_energy.cli.import_published import (
    FORMS,
    add_options,
    form_of,
    import_published,
    refused_logs,
)
from ipa_energy.cli.output import print_json, text_table
from ipa_energy.cli.path import named_path
from ipa_energy.errors import EXIT_DONE, ConfigError
from ipa_energy.files import check_output

if TYPE_CHECKING:
    from pathlib import Path

    from ipa_energy.meters.imports.energy_log import LogFormat, LoggedRun
    from ipa_energy.meters.imports.power_log import PowerLogChoice

AUTO = "auto"
FORMATS: dict[str, LogFormat] = {
    "etrace2": "etrace2",
    "frameview": "frameview",
    "pcat": "frameview",
    "perf": "perf",
}
"""What users call a format → the reader; FrameView's and PCAT's are one CSV of powers."""


def add_to(verbs: argparse._SubParsersAction[Any], common: argparse.ArgumentParser) -> None:
    """Add the verb to the command line."""
    parser = verbs.add_parser(
        "import",
        parents=[common],
        allow_abbrev=False,
        help="joules from logs of perf, etrace2, FrameView and PCAT; profiles from MLPerf and"
        " ML.ENERGY",
        description="Read what other tools measured and make a table of it, a row a log. Their "
        "joules are labelled imported: nothing here can know how well they were measured. A log "
        "that is torn, in another unit or locale, or of a counter that did not move is refused. "
        "A result folder of MLPerf Inference with power logs, or the table of ML.ENERGY, becomes "
        "rows of a profile.",
        epilog="Joules per request have the idle share in them; with --idle-power also those above "
        "idle. exit status: 0 done, 2 a log is refused, or bad input",
    )
    parser.add_argument(
        "logs",
        nargs="+",
        type=named_path,
        metavar="LOG",
        help="a log or a folder of logs; a result folder of MLPerf; the table of ML.ENERGY",
    )
    parser.add_argument(
        "--format",
        choices=(AUTO, *FORMATS, *FORMS),
        default=AUTO,
        help="of the logs (default: auto, told from their text)",
    )
    parser.add_argument(
        "--requests", type=int, metavar="N", help="requests (images …) that each run served"
    )
    parser.add_argument(
        "--idle-power",
        type=float,
        metavar="W",
        help="of the idle machine, for joules above idle; of the domains that are in the logs",
    )
    parser.add_argument(
        "--duration",
        type=float,
        metavar="S",
        help="length of the run, for perf logs that do not tell it (-j and -x)",
    )
    parser.add_argument("--out", type=named_path, metavar="TABLE.csv", help="write a table")
    parser.add_argument(
        "--skip-refused",
        action="store_true",
        help="leave out logs that are refused, and name them, instead of stopping",
    )
    _add_columns(parser.add_argument_group("logs of power (frameview, pcat)"))
    add_options(parser.add_argument_group("published results (mlperf, mlenergy)"))
    parser.set_defaults(verb_function=import_any)


def _add_columns(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--time-column", metavar="NAME", help="header of the time (default: TimeInSeconds)"
    )
    group.add_argument(
        "--power-column",
        action="append",
        metavar="NAME",
        help="header of a power; repeatable, they are added up (default: FrameView's own)",
    )
    group.add_argument(
        "--window",
        nargs=2,
        type=float,
        metavar=("START", "END"),
        help="seconds of the log's own time (default: all of it)",
    )
    group.add_argument(
        "--max-gap", type=float, metavar="S", help="longest time without a sample (default: 1)"
    )


def import_any(args: argparse.Namespace) -> int:
    """Published results or logs, whichever was given."""
    if args.out is not None:
        check_output(args.out, where="--out", inputs=args.logs)
        if args.out.is_file():
            raise ConfigError("there is a file already", where=args.out, fix="choose another name")
    form = form_of(args)
    return import_logs(args) if form is None else import_published(args, form)


def import_logs(args: argparse.Namespace) -> int:
    """Read every log, then write and show the table; nothing is written if a log is refused."""
    from ipa_energy.meters.imports.energy_log import import_run, logs_in, write_table

    choice, runs, refusals = _choice(args), [], []
    idle_power_w = math.nan if args.idle_power is None else _finite(args.idle_power, "--idle-power")
    for log in logs_in(args.logs):
        try:
            runs.append(
                import_run(
                    log,
                    None if args.format == AUTO else FORMATS[args.format],
                    choice=choice,
                    duration_s=args.duration,
                    requests=args.requests,
                    idle_power_w=idle_power_w,
                )
            )
        except ConfigError as error:
            if error.where in ("--requests", "--idle-power"):
                raise
            refusals.append(error)
    if refusals and not (args.skip_refused and runs):
        raise refused_logs(refusals, len(runs))
    if args.out is not None:
        write_table(args.out, runs)
    if args.json:
        print_json(_document(runs, refusals, args.out))
        return EXIT_DONE
    print(_text(runs))
    for warning in (*_warnings(runs), *(f"left out: {refusal}" for refusal in refusals)):
        print(f"ipa-energy: warning: {warning}", file=sys.stderr)
    if args.out is not None:
        print(f"table: {args.out}")
    return EXIT_DONE


def _choice(args: argparse.Namespace) -> PowerLogChoice | None:
    from ipa_energy.meters.imports.power_log import MAX_GAP_S, PowerLogChoice

    given = (args.time_column, args.power_column, args.window, args.max_gap)
    if all(one is None for one in given):
        return None
    if args.max_gap is not None and not _finite(args.max_gap, "--max-gap") > 0:
        raise ConfigError(f"{args.max_gap:g} s", where="--max-gap", allowed="more than 0")
    start_s, end_s = args.window or (None, None)
    return PowerLogChoice(
        time_column=args.time_column,
        power_columns=tuple(args.power_column or ()),
        start_s=start_s,
        end_s=end_s,
        max_gap_s=MAX_GAP_S if args.max_gap is None else args.max_gap,
    )


def _finite(value: float, option: str) -> float:
    if not math.isfinite(value):
        raise ConfigError(f"{value:g}", where=option, allowed="a finite number")
    return value


def _document(
    runs: list[LoggedRun], refusals: list[ConfigError], out: Path | None
) -> dict[str, Any]:
    return {
        "logs": [run.to_json() for run in runs],
        "refused": [str(refusal) for refusal in refusals],
        "warnings": [
            *(f"{run.log}: {note}" for run in runs for note in run.energy.notes),
            *_warnings(runs),
        ],
        "table": None if out is None else str(out),
    }


def _warnings(runs: list[LoggedRun]) -> list[str]:
    counted = {tuple(sorted(run.energy.domains)) for run in runs}
    if len(counted) < 2:
        return []
    listed = "; ".join(", ".join(domains) for domains in sorted(counted))
    return [f"the logs count different things and their joules do not compare: {listed}"]


def _text(runs: list[LoggedRun]) -> str:
    header = ["log", "format", "J", "s", "W", "J/request", "above idle", "domains"]
    rows = [
        [
            str(run.log),
            run.energy.format,
            _figure(run.energy.energy_j),
            _figure(run.energy.duration_s),
            _figure(run.power_w),
            _figure(run.per_request_j(run.energy.energy_j)),
            _figure(run.per_request_j(run.dynamic_energy_j)),
            ", ".join(run.energy.domains),
        ]
        for run in runs
    ]
    kept = [at for at in range(len(header)) if any(row[at] != "–" for row in rows)]
    table = text_table([header[at] for at in kept], [[row[at] for at in kept] for row in rows])
    return f"{table}\nquality: imported, as the tools that wrote the logs measured it"


def _figure(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.5g}"
