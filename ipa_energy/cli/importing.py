"""``ipa-energy import``: joules from the logs of other tools, a run each, and published results."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from ipa_energy.as_json import as_json
from ipa_energy.cli.options import Arguments, Verbs, named_path, option_of, print_json, text_table
from ipa_energy.errors import EXIT_DONE, ConfigError
from ipa_energy.files import check_output

if TYPE_CHECKING:
    from pathlib import Path

    from ipa_energy.meters.imports.energy_log import LogFormat, LoggedRun
    from ipa_energy.meters.imports.power_log import PowerLogChoice
    from ipa_energy.profile_table.mlenergy_table import Cited
    from ipa_energy.profile_table.profile_row import ProfileRow


AUTO = "auto"
FORMATS: dict[str, LogFormat] = {
    "etrace2": "etrace2",
    "frameview": "frameview",
    "pcat": "frameview",
    "perf": "perf",
}
"""What users call a format → the reader; FrameView's and PCAT's are one CSV of powers."""


SHOWN_REFUSALS = 10

FORMS = ("mlenergy", "mlperf")
"""What ``--format`` may say besides the formats of logs."""

_OF_FORM: Mapping[str, tuple[str, ...]] = {
    "mlperf": ("stage", "accuracies", "scenario", "cores", "resource", "idle_power"),
    "mlenergy": ("stage", "accuracies", "task", "idle_watts"),
}
_PUBLISHED = ("stage", "accuracies", "scenario", "cores", "resource", "task", "idle_watts")
_LOGS = ("requests", "idle_power", "duration", "time_column", "power_column", "window", "max_gap")

S = TypeVar("S")
T = TypeVar("T")


def add_to(verbs: Verbs) -> None:
    """Add the verb to the command line."""
    add = verbs.add(
        "import",
        import_any,
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
    add(
        "logs",
        "a log or a folder of logs; a result folder of MLPerf; the table of ML.ENERGY",
        named_path,
        nargs="+",
        metavar="LOG",
    )
    add(
        "--format",
        "of the logs (default: auto, told from their text)",
        choices=(AUTO, *FORMATS, *FORMS),
        default=AUTO,
    )
    add("--requests N", "requests (images …) that each run served", int)
    add(
        "--idle-power W",
        "of the idle machine, for joules above idle; of the domains that are in the logs",
        float,
    )
    add("--duration S", "length of the run, for perf logs that do not tell it (-j and -x)", float)
    add("--out TABLE.csv", "write a table", named_path)
    add.flag(
        "--skip-refused", "leave out logs that are refused, and name them, instead of stopping"
    )
    _add_columns(add.group("logs of power (frameview, pcat)"))
    _add_published(add.group("published results (mlperf, mlenergy)"))


def _add_columns(add: Arguments) -> None:
    add("--time-column NAME", "header of the time (default: TimeInSeconds)")
    add(
        "--power-column NAME",
        "header of a power; repeatable, they are added up (default: FrameView's own)",
        action="append",
    )
    add(
        "--window",
        "seconds of the log's own time (default: all of it)",
        float,
        nargs=2,
        metavar=("START", "END"),
    )
    add("--max-gap S", "longest time without a sample (default: 1)", float)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Imported:
    """What was read, and what is to be said of it.

    Attributes:
        head, tail: of the JSON object, before and after what every import has.
        text: for people.
        refused: why logs or results were left out.
        warnings: for people; those of the JSON object have ``notes`` before them.
        write: writes the table.
        called: what it is.
    """

    head: dict[str, Any]
    text: str
    write: Callable[[Path], None]
    called: str
    refused: list[ConfigError] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    tail: dict[str, Any] = field(default_factory=dict)


def import_any(args: argparse.Namespace) -> int:
    """Read published results or logs, whichever was given, then write and show a table of them."""
    if args.out is not None:
        check_output(args.out, where="--out", inputs=args.logs)
        if args.out.is_file():
            raise ConfigError("there is a file already", where=args.out, fix="choose another name")
    found = {"mlperf": _mlperf, "mlenergy": _mlenergy, None: _logs}[_form_of(args)](args)
    if args.out is not None:
        found.write(args.out)
    if args.json:
        said = {
            "refused": [str(refusal) for refusal in found.refused],
            "warnings": [*found.notes, *found.warnings],
            "table": None if args.out is None else str(args.out),
        }
        print_json({**found.head, **said, **found.tail})
        return EXIT_DONE
    print(found.text)
    for warning in (*found.warnings, *(f"left out: {refusal}" for refusal in found.refused)):
        print(f"ipa-energy: warning: {warning}", file=sys.stderr)
    if args.out is not None:
        print(f"{found.called}: {args.out}")
    return EXIT_DONE


def _accepted(
    args: argparse.Namespace, sources: Iterable[S], read: Callable[[S], T]
) -> tuple[list[T], list[ConfigError]]:
    """What can be read, and why the rest cannot, which only ``--skip-refused`` leaves out."""
    found, refusals = [], []
    for source in sources:
        try:
            found.append(read(source))
        except ConfigError as error:
            if error.where in ("--requests", "--idle-power"):
                raise
            refusals.append(error)
    if refusals and not (args.skip_refused and found):
        raise _refused(refusals, len(found))
    return found, refusals


def _refused(refusals: list[ConfigError], good: int) -> ConfigError:
    """All refusals in one, with the way to take the rest."""
    if len(refusals) == 1 and not good:
        return refusals[0]
    shown = [f"\n  {refusal}" for refusal in refusals[:SHOWN_REFUSALS]]
    more = len(refusals) - len(shown)
    rest = f"\n  and {more} more" if more else ""
    fix = "\nfix: mend or move them, or --skip-refused takes the others" if good else ""
    return ConfigError(
        f"{len(refusals)} of {len(refusals) + good} logs are refused:{''.join(shown)}{rest}{fix}"
    )


def _logs(args: argparse.Namespace) -> _Imported:
    from ipa_energy.meters.imports.energy_log import import_run, logs_in, write_table

    choice = _choice(args)
    idle_power_w = math.nan if args.idle_power is None else _finite(args.idle_power, "--idle-power")

    def read(log: Path) -> LoggedRun:
        return import_run(
            log,
            None if args.format == AUTO else FORMATS[args.format],
            choice=choice,
            duration_s=args.duration,
            requests=args.requests,
            idle_power_w=idle_power_w,
        )

    runs, refused = _accepted(args, logs_in(args.logs), read)
    return _Imported(
        head={"logs": [run.to_json() for run in runs]},
        text=_text_of_logs(runs),
        write=lambda path: write_table(path, runs),
        called="table",
        refused=refused,
        warnings=_warnings(runs),
        notes=[f"{run.log}: {note}" for run in runs for note in run.energy.notes],
    )


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


def _warnings(runs: list[LoggedRun]) -> list[str]:
    counted = {tuple(sorted(run.energy.domains)) for run in runs}
    if len(counted) < 2:
        return []
    listed = "; ".join(", ".join(domains) for domains in sorted(counted))
    return [f"the logs count different things and their joules do not compare: {listed}"]


def _text_of_logs(runs: list[LoggedRun]) -> str:
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


def _add_published(add: Arguments) -> None:
    add("--stage NAME", "stage of the rows")
    add(
        "--accuracies FILE.csv",
        "model,accuracy[,source]: where the results do not tell it",
        named_path,
    )
    add("--scenario NAME", "mlperf: of several, such as singlestream")
    add("--cores N", "mlperf: of the system's processors", float)
    add("--resource NAME", "mlperf: what a replica holds one of (default: the system)")
    add("--task NAME", "mlenergy: task of the table, such as gpqa")
    add(
        "--idle-watts GPU=W",
        "mlenergy: watts of one GPU that waits with a model loaded; repeatable",
        action="append",
    )


def _form_of(args: argparse.Namespace) -> str | None:
    """The published form that the arguments name or are; None for logs."""
    from ipa_energy.profile_table.mlenergy_table import is_mlenergy_table
    from ipa_energy.profile_table.mlperf_folder import is_mlperf_folder

    form = args.format if args.format in FORMS else None
    if args.format == "auto":
        told = {
            "mlperf" if is_mlperf_folder(path) else "mlenergy" if is_mlenergy_table(path) else None
            for path in args.logs
        }
        if len(told) > 1:
            raise ConfigError(
                "published results beside something else",
                where=", ".join(map(str, args.logs)),
                allowed="results of one benchmark in one table",
            )
        form = told.pop()
    allowed = ("idle_power", *_LOGS) if form is None else _OF_FORM[form]
    for name in dict.fromkeys((*_PUBLISHED, *_LOGS)):
        if name not in allowed and getattr(args, name) is not None:
            raise ConfigError(f"{option_of(name)} means nothing with {form or 'logs'}")
    return form


def _published(
    form: str, rows: list[ProfileRow], meta: Mapping[str, Any], **further: Any
) -> _Imported:
    """Rows of a profile; the meta file is ``meta`` and how many they are."""
    from ipa_energy.files import write_json
    from ipa_energy.profile_table.profile_csv import meta_path, write_profile

    def write(path: Path) -> None:
        for each in (path, meta_path(path)):
            if each.is_file() or each.is_dir():  # a pipe or a device is written to
                raise ConfigError("there is a file already", where=each, fix="choose another name")
        write_profile(path, rows)
        if path.is_file():
            write_json(meta_path(path), {"entries": len(rows), **meta})

    return _Imported(
        head={"format": form, "rows": as_json(rows)},
        tail=as_json(meta),
        text=f"{_text_of_rows(rows)}\nquality: {rows[0].quality}\n{meta['notice']}",
        write=write,
        called="profile",
        **further,
    )


def _mlperf(args: argparse.Namespace) -> _Imported:
    from ipa_energy.profile_table import mlperf_folder as mlperf

    folders = mlperf.model_folders(args.logs)
    results, refused = _accepted(args, folders, lambda one: mlperf.read_result(one, args.scenario))
    choice = mlperf.MlperfChoice(
        stage=args.stage or "classification",
        idle_power_w=_above_zero(args.idle_power, "--idle-power"),
        cpu_cores=_above_zero(args.cores, "--cores"),
        resource=args.resource,
        accuracies={name: cited.value for name, cited in _accuracies(args).items()},
    )
    meter = {"name": mlperf.METER, "quality": "measured", "of": "the whole system, at the wall"}
    meta = {"meter": meter, "method": mlperf.METHOD, "notice": mlperf.NOTICE}
    return _published("mlperf", mlperf.profile_rows(results, choice), meta, refused=refused)


def _mlenergy(args: argparse.Namespace) -> _Imported:
    from ipa_energy.profile_table import mlenergy_table as mlenergy

    if len(args.logs) != 1:
        raise ConfigError(f"{len(args.logs)} tables of ML.ENERGY", allowed="one")
    (table,) = args.logs
    entries = mlenergy.read_entries(table)
    if args.task is None:
        tasks = ", ".join(sorted({entry["task"] for entry in entries}))
        raise ConfigError("no task chosen", where="--task", allowed=tasks)
    choice = mlenergy.MlEnergyChoice(
        task=args.task,
        accuracies=_accuracies(args),
        idle_power_w=_idle_watts(args.idle_watts or []),
        stage=args.stage,
    )
    rows, left_out = mlenergy.profile_rows(entries, choice, table)
    told = [f"left out: {reason}" for reason in left_out]
    return _published("mlenergy", rows, mlenergy.meta(choice), warnings=told)


def _accuracies(args: argparse.Namespace) -> dict[str, Cited]:
    from ipa_energy.profile_table.mlenergy_table import read_accuracies

    return {} if args.accuracies is None else read_accuracies(args.accuracies)


def _idle_watts(texts: Sequence[str]) -> dict[str, Cited]:
    from ipa_energy.profile_table.mlenergy_table import Cited
    from ipa_energy.profile_table.profile_row import as_number

    found: dict[str, Cited] = {}
    for text in texts:
        gpu, _, watts = text.partition("=")
        value = as_number(watts)
        if not gpu or gpu in found or not 0 <= value < math.inf:
            raise ConfigError(
                repr(text), where="--idle-watts", allowed="GPU=W such as H100=116, each GPU once"
            )
        found[gpu] = Cited(value, "given by whoever imported it")
    return found


def _above_zero(value: float | None, option: str) -> float:
    if value is None:
        return math.nan
    if not 0 < value < math.inf:
        raise ConfigError(f"{value:g}", where=option, allowed="a finite number above 0")
    return value


def _text_of_rows(rows: Sequence[ProfileRow]) -> str:
    header = ["model", "on", "batch", "rps", "mean s", "p99 s", "accuracy"]
    header += ["J/request", "±", "above idle", "idle W", "trials"]
    body = [
        [
            *(row.variant, row.hardware, str(row.batch)),
            *(f"{figure:.4g}" for figure in (row.throughput_rps, row.latency_avg_s)),
            *(f"{figure:.4g}" for figure in (row.latency_p99_s, row.accuracy)),
            f"{row.joules_per_request:.4g}",
            "–" if math.isnan(row.energy_ci95_j) else f"{row.energy_ci95_j:.2g}",
            f"{row.dynamic_energy_j:.4g}",
            f"{row.idle_power_w:.4g}",
            str(row.trials),
        ]
        for row in rows
    ]
    return text_table(header, body)
