r"""Run any detector over weights × batches, each run whole under ``ipa-energy measure``.

    python experiments/seed/run_sweep.py experiments/seed/sweep.yaml --out FOLDER

A trial of every point, in random order, then the next trial of every point: what drifts during the
sweep touches all points alike. FOLDER gets ``journal.jsonl`` (every run, the moment it ends),
``points.csv`` (a row a point) and ``meta.json``. A run that fails is named, and the others go on;
after a kill ``--resume`` does what is missing.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.metadata
import logging
import os
import random
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sweep_file import BUILT_IN, Point, Sweep, fill, read_sweep
from sweep_journal import NAME, Run, SweepJournal, label, locked
from sweep_run import Bench
from sweep_table import summarise, write_table
from tqdm import tqdm

import ipa_energy
from ipa_energy.errors import EXIT_DONE, ConfigError, IpaEnergyError
from ipa_energy.files import write_json
from ipa_energy.profiling.machine import describe_machine
from ipa_energy.records import meters_in

EXIT_SOME_FAILED = 1
EXIT_INTERRUPTED = 130
MOST_HASHED_BYTES = 1 << 20

logger = logging.getLogger("ipa_energy.experiments.seed")


def main(argv: Sequence[str] | None = None) -> int:
    """Sweep. 0 done, 1 some runs failed, 2 bad input, 4 no meter, 130 interrupted."""
    args = _parser().parse_args(argv)
    logging.basicConfig(format="run_sweep.py: %(levelname)s: %(message)s")
    try:
        return run_sweep(args)
    except IpaEnergyError as error:
        print(f"run_sweep.py: error: {error}", file=sys.stderr)
        return error.exit_status
    except KeyboardInterrupt:
        print("run_sweep.py: interrupted; --resume goes on", file=sys.stderr)
        return EXIT_INTERRUPTED


def run_sweep(args: argparse.Namespace) -> int:
    """One sweep, or what is missing of it.

    Raises:
        IpaEnergyError: bad input, no meter, or the output cannot be written.
    """
    sweep = _with_options(read_sweep(args.sweep), args)
    points = _selected(sweep.points, args.only)
    folder = _folder(args.out)
    with locked(folder) as lock_fd:
        journal = SweepJournal(folder / NAME)
        if journal.runs and not args.resume:
            raise ConfigError(
                f"{len(journal.runs)} runs are there already",
                where=folder,
                fix="--resume, or choose another output",
            )
        bench = _bench(sweep, args.sweep, lock_fd)
        context = _context(sweep, args.sweep, bench)
        journal.begin(context, {"started_utc": datetime.now(UTC).isoformat(timespec="seconds")})
        try:
            _measure_all(sweep, args, points, journal, bench)
        finally:
            _write_results(folder, journal, sweep.points)
    return _report(journal, points)


def _measure_all(
    sweep: Sweep,
    args: argparse.Namespace,
    points: Sequence[Point],
    journal: SweepJournal,
    bench: Bench,
) -> None:
    finished = journal.finished(retry_failed=args.retry_failed)
    runs = [run for run in ordered(points, sweep.trials, sweep.seed) if run not in finished]
    for point, trial in tqdm(runs, unit="run", disable=True if args.quiet else None):
        built_in = _built_in(args.sweep, bench)
        run = bench.run(point, trial, fill(sweep.command, {**built_in, **dict(point)}))
        journal.add(run)
        if run.outcome != "done":
            logger.warning("%s, trial %d: %s", label(point), trial + 1, run.reason)


def ordered(points: Sequence[Point], trials: int, seed: int) -> list[tuple[Point, int]]:
    """Every (point, trial): trial by trial, the points of each in an order drawn anew."""
    order = []
    for trial in range(trials):
        shuffled = list(points)
        random.Random(f"{seed}:{trial}").shuffle(shuffled)
        order += [(point, trial) for point in shuffled]
    return order


def _with_options(sweep: Sweep, args: argparse.Namespace) -> Sweep:
    if args.trials is not None and args.trials < 1:
        raise ConfigError(f"{args.trials} trials", where="--trials", allowed="1 or more")
    given = {
        "trials": args.trials,
        "meter": args.meter,
        "power_model": str(args.power_model.absolute()) if args.power_model else None,
    }
    return sweep.model_copy(update={k: value for k, value in given.items() if value is not None})


def _bench(sweep: Sweep, path: Path, lock_fd: int) -> Bench:
    from ipa_energy.meters.discovery import AUTO, CPU_ESTIMATE, discover

    working_dir = (path.absolute().parent / sweep.working_dir).resolve()
    if not working_dir.is_dir():
        raise ConfigError(f"no working folder {sweep.working_dir}", where=path)
    model = None
    if sweep.power_model is not None:
        model = (path.absolute().parent / sweep.power_model).resolve()
        if not model.is_file():
            raise ConfigError(f"no power model {sweep.power_model}", where=path)
    return Bench(
        meter=sweep.meter if sweep.meter != AUTO else discover().auto or CPU_ESTIMATE,
        power_model=model,
        idle_s=sweep.idle_s,
        working_dir=working_dir,
        environment={**os.environ, **sweep.environment},
        timeout_s=sweep.timeout_s,
        readings=sweep.parse,
        lock_fd=lock_fd,
    )


def _context(sweep: Sweep, path: Path, bench: Bench) -> dict[str, Any]:
    """What every figure depends on; more trials, and values of parameters, may be added."""
    return {
        "versions": {
            "ipa-energy": ipa_energy.__version__,
            **{name: _version(name) for name in ("torch", "ultralytics")},
        },
        "machine": describe_machine(),
        "meter": bench.meter,
        "power_model": _power_model(bench),
        "command": sweep.command,
        "parameters": list(sweep.parameters),
        "files": _files(sweep, path, bench),
        "environment": sweep.environment,
        "idle_s": sweep.idle_s,
        "parse": {
            name: reading.model_dump(by_alias=True, exclude_defaults=True)
            for name, reading in sweep.parse.items()
        },
    }


def _power_model(bench: Bench) -> dict[str, Any] | None:
    from ipa_energy.meters.discovery import CPU_ESTIMATE
    from ipa_energy.meters.power_model import power_model_for_this_machine, power_model_in

    if CPU_ESTIMATE not in meters_in(bench.meter):
        return None
    if bench.power_model is None:
        return power_model_for_this_machine().to_json()
    return power_model_in(bench.power_model).to_json()


def _files(sweep: Sweep, path: Path, bench: Bench) -> dict[str, str]:
    """Files that the command names outright, such as the script: their first 16 hex of SHA-256."""
    if isinstance(sweep.command, str):
        return {}
    found = {}
    values = {**{name: f"{{{name}}}" for name in sweep.parameters}, **_built_in(path, bench)}
    for template, argument in zip(sweep.command, fill(sweep.command, values), strict=True):
        file = bench.working_dir / argument
        if "{python}" in template or not argument:
            continue
        if file.is_file() and file.stat().st_size <= MOST_HASHED_BYTES:
            found[template] = hashlib.sha256(file.read_bytes()).hexdigest()[:16]
    return found


def _built_in(path: Path, bench: Bench) -> Mapping[str, str]:
    model = "" if bench.power_model is None else str(bench.power_model)
    values = (sys.executable, str(path.absolute().parent), bench.meter, model)
    return dict(zip(BUILT_IN, values, strict=True))


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _selected(points: Sequence[Point], only: Sequence[str]) -> list[Point]:
    """Points whose parameters have one of the values asked for by ``NAME=VALUE``."""
    wanted: dict[str, set[str]] = {}
    for text in only:
        name, sign, value = text.partition("=")
        values = {str(dict(point).get(name)) for point in points}
        if not sign or value not in values or name not in dict(points[0]):
            raise ConfigError(
                f"nothing has {text}",
                where="--only",
                allowed=", ".join(f"{name}={value}" for name, value in points[0]) + ", …",
            )
        wanted.setdefault(name, set()).add(value)
    return [
        point
        for point in points
        if all(str(dict(point)[name]) in values for name, values in wanted.items())
    ]


def _folder(path: Path) -> Path:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"cannot make the folder: {error.strerror}", where=path) from error
    return path


def _write_results(folder: Path, journal: SweepJournal, points: Sequence[Point]) -> None:
    """The table in the file's order; points that it no longer has come last."""
    place = {point: number for number, point in enumerate(points)}
    runs = sorted(journal.latest(), key=lambda run: place.get(run.point, len(place)))
    try:
        write_table(folder / "points.csv", summarise(runs))
    except OSError as error:
        raise IpaEnergyError(f"{folder}: cannot write: {error.strerror}") from error
    facts = {**journal.context, "sessions": journal.sessions, "runs": len(runs)}
    facts["without_figures"] = [
        {"point": label(run.point), "trial": run.trial, "outcome": run.outcome}
        for run in runs
        if run.outcome != "done"
    ]
    write_json(folder / "meta.json", facts)


def _report(journal: SweepJournal, points: Sequence[Point]) -> int:
    runs: list[Run] = [run for run in journal.latest() if run.point in points]
    failed: dict[Point, list[Run]] = {}
    for run in runs:
        if run.outcome != "done":
            failed.setdefault(run.point, []).append(run)
    count = sum(map(len, failed.values()))
    print(f"{len(runs) - count} of {len(runs)} runs have figures: {journal.path.parent}")
    for point, found in failed.items():
        print(f"  {label(point)}: {len(found)} × {found[-1].outcome}: {found[-1].reason}")
    return EXIT_SOME_FAILED if failed else EXIT_DONE


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").split("\n\n", maxsplit=1)[0],
        epilog="exit status: 0 done, 1 some runs failed, 2 bad input, 4 no meter, 130 interrupted",
    )
    parser.add_argument("sweep", type=Path, metavar="SWEEP.yaml")
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--trials", type=int, metavar="N", help="instead of the file's")
    parser.add_argument("--meter", metavar="M", help="instead of the file's")
    parser.add_argument(
        "--power-model", type=Path, metavar="JSON", help="of cpu-time, instead of the file's"
    )
    parser.add_argument(
        "--only",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="only points with this value of a parameter; repeat it for more",
    )
    parser.add_argument("--resume", action="store_true", help="do what is missing in FOLDER")
    parser.add_argument(
        "--retry-failed", action="store_true", help="with --resume: failed runs once more"
    )
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    return parser


if __name__ == "__main__":
    sys.exit(main())
