"""``ipa-energy import`` of what benchmarks publish: MLPerf's result folders, ML.ENERGY's table.

Both make rows of a profile, each in a table of its own.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ipa_energy.as_json import as_json
from ipa_energy.cli.output import print_json, text_table
from ipa_energy.cli.path import named_path
from ipa_energy.errors import EXIT_DONE, ConfigError

if TYPE_CHECKING:
    from ipa_energy.profile_table.mlenergy_table import Cited
    from ipa_energy.profile_table.profile_row import ProfileRow

SHOWN_REFUSALS = 10

FORMS = ("mlenergy", "mlperf")
"""What ``--format`` may say besides the formats of logs."""

_OF_FORM: Mapping[str, tuple[str, ...]] = {
    "mlperf": ("stage", "accuracies", "scenario", "cores", "resource", "idle_power"),
    "mlenergy": ("stage", "accuracies", "task", "idle_watts"),
}
_PUBLISHED = ("stage", "accuracies", "scenario", "cores", "resource", "task", "idle_watts")
_LOGS = (
    "requests",
    "idle_power",
    "duration",
    "time_column",
    "power_column",
    "window",
    "max_gap",
)


@dataclass(frozen=True, slots=True)
class _Imported:
    """Rows and what is to be said of them; the meta file is ``meta`` and what every form has."""

    rows: list[ProfileRow]
    refused: list[ConfigError]
    warnings: list[str]
    meta: dict[str, Any]


def add_options(group: argparse._ArgumentGroup) -> None:
    """Add the options of published results to the verb."""
    group.add_argument("--stage", metavar="NAME", help="stage of the rows")
    group.add_argument(
        "--accuracies",
        type=named_path,
        metavar="FILE.csv",
        help="model,accuracy[,source]: where the results do not tell it",
    )
    group.add_argument(
        "--scenario", metavar="NAME", help="mlperf: of several, such as singlestream"
    )
    group.add_argument(
        "--cores", type=float, metavar="N", help="mlperf: of the system's processors"
    )
    group.add_argument(
        "--resource",
        metavar="NAME",
        help="mlperf: what a replica holds one of (default: the system)",
    )
    group.add_argument("--task", metavar="NAME", help="mlenergy: task of the table, such as gpqa")
    group.add_argument(
        "--idle-watts",
        action="append",
        metavar="GPU=W",
        help="mlenergy: watts of one GPU that waits with a model loaded; repeatable",
    )


def form_of(args: argparse.Namespace) -> str | None:
    """The published form that the arguments name or are; None for logs.

    Raises:
        ConfigError: published results beside something else, or options of another form.
    """
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
            option = "--" + name.replace("_", "-")
            raise ConfigError(f"{option} means nothing with {form or 'logs'}")
    return form


def import_published(args: argparse.Namespace, form: str) -> int:
    """Make rows of a profile, then write and show them."""
    from ipa_energy.files import write_json
    from ipa_energy.profile_table.profile_csv import meta_path, write_profile

    found = _mlperf(args) if form == "mlperf" else _mlenergy(args)
    meta = {"entries": len(found.rows), **found.meta}
    if args.out is not None:
        for path in (args.out, meta_path(args.out)):
            if path.is_file() or path.is_dir():  # a pipe or a device is written to
                raise ConfigError("there is a file already", where=path, fix="choose another name")
        write_profile(args.out, found.rows)
        if args.out.is_file():
            write_json(meta_path(args.out), meta)
    if args.json:
        document = {
            "format": form,
            "rows": as_json(found.rows),
            "refused": [str(refusal) for refusal in found.refused],
            "warnings": found.warnings,
            "table": None if args.out is None else str(args.out),
            **as_json(found.meta),
        }
        print_json(document)
        return EXIT_DONE
    print(_text(found.rows))
    print(f"quality: {found.rows[0].quality}\n{found.meta['notice']}")
    for warning in (*found.warnings, *(f"left out: {refusal}" for refusal in found.refused)):
        print(f"ipa-energy: warning: {warning}", file=sys.stderr)
    if args.out is not None:
        print(f"profile: {args.out}")
    return EXIT_DONE


def _mlperf(args: argparse.Namespace) -> _Imported:
    from ipa_energy.profile_table import mlperf_folder as mlperf

    results, refusals = [], []
    for scenarios in mlperf.model_folders(args.logs):
        try:
            results.append(mlperf.read_result(scenarios, args.scenario))
        except ConfigError as error:
            refusals.append(error)
    if refusals and not (args.skip_refused and results):
        raise refused_logs(refusals, len(results))
    choice = mlperf.MlperfChoice(
        stage=args.stage or "classification",
        idle_power_w=_above_zero(args.idle_power, "--idle-power"),
        cpu_cores=_above_zero(args.cores, "--cores"),
        resource=args.resource,
        accuracies={name: cited.value for name, cited in _accuracies(args).items()},
    )
    rows = mlperf.profile_rows(results, choice)
    meter = {"name": mlperf.METER, "quality": "measured", "of": "the whole system, at the wall"}
    meta = {"meter": meter, "method": mlperf.METHOD, "notice": mlperf.NOTICE}
    return _Imported(rows, refusals, [], meta)


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
    return _Imported(
        rows, [], [f"left out: {reason}" for reason in left_out], mlenergy.meta(choice)
    )


def _accuracies(args: argparse.Namespace) -> dict[str, Cited]:
    from ipa_energy.profile_table.mlenergy_table import read_accuracies

    return {} if args.accuracies is None else read_accuracies(args.accuracies)


def _idle_watts(texts: Sequence[str]) -> dict[str, Cited]:
    from ipa_energy.profile_table.mlenergy_table import Cited

    found: dict[str, Cited] = {}
    for text in texts:
        gpu, _, watts = text.partition("=")
        try:
            value = float(watts)
        except ValueError:
            value = math.nan
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


def _text(rows: Sequence[ProfileRow]) -> str:
    header = ["model", "on", "batch", "rps", "mean s", "p99 s", "accuracy"]
    header += ["J/request", "±", "above idle", "idle W", "trials"]
    body = [
        [
            row.variant,
            row.hardware,
            str(row.batch),
            *(
                f"{value:.4g}"
                for value in (
                    row.throughput_rps,
                    row.latency_avg_s,
                    row.latency_p99_s,
                    row.accuracy,
                    row.joules_per_request,
                )
            ),
            "–" if math.isnan(row.energy_ci95_j) else f"{row.energy_ci95_j:.2g}",
            f"{row.dynamic_energy_j:.4g}",
            f"{row.idle_power_w:.4g}",
            str(row.trials),
        ]
        for row in rows
    ]
    return text_table(header, body)


def refused_logs(refusals: list[ConfigError], good: int) -> ConfigError:
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
