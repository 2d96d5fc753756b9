"""``ipa-energy profile``: measure a pipeline's variants into a profile table."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ipa_energy.cli.output import print_json
from ipa_energy.errors import EXIT_DONE, EXIT_UNAVAILABLE, ConfigError

if TYPE_CHECKING:
    from ipa_energy.config import PipelineConfig
    from ipa_energy.profiling.metering import MeterChoice
    from ipa_energy.profiling.sweep import Sweep

PIPELINES_FOLDER = "pipelines"
METERS = ("auto", "rapl", "perf", "cpu-time")


def add_to(verbs: argparse._SubParsersAction[Any], common: argparse.ArgumentParser) -> None:
    """Add the verb to the command line."""
    parser = verbs.add_parser(
        "profile",
        parents=[common],
        allow_abbrev=False,
        help="measure latency, throughput and joules of every entry",
        description="Run a pipeline's real models and measure every (variant, cores, batch).",
    )
    parser.add_argument("pipeline", type=Path, metavar="PIPELINE.yaml")
    parser.add_argument("--out", type=Path, required=True, metavar="PROFILE.csv")
    parser.add_argument("--resume", action="store_true", help="go on with an unfinished profile")
    parser.add_argument(
        "--only-changed",
        action="store_true",
        help="measure anew what was measured with other variants, weights, versions or settings",
    )
    parser.add_argument("--stage", action="append", metavar="S", help="only this stage; repeatable")
    parser.add_argument(
        "--variant", action="append", metavar="V", help="only this variant; repeatable"
    )
    parser.add_argument(
        "--batch", type=int, action="append", metavar="B", help="repeatable (default: 1 2 4 8)"
    )
    parser.add_argument(
        "--cores", type=int, action="append", metavar="C", help="of a replica; repeatable"
    )
    parser.add_argument(
        "--replicas",
        type=int,
        action="append",
        metavar="N",
        help="that work at once, each on cores of its own; repeatable (default: 1)",
    )
    parser.add_argument(
        "--load",
        type=float,
        action="append",
        metavar="RPS",
        help="measure at this load too, below saturation; repeatable",
    )
    parser.add_argument("--trials", type=int, default=3, metavar="N", help="of an entry")
    parser.add_argument("--quick", action="store_true", help="one short trial an entry")
    parser.add_argument(
        "--window", type=float, metavar="S", help="shortest window; some meters need long ones"
    )
    parser.add_argument(
        "--budget",
        metavar="SHARE",
        help="measure this share of the entries (40%%) and predict the rest, marked as estimated",
    )
    parser.add_argument(
        "--models",
        type=Path,
        metavar="DIR",
        help=f"folder of the pipeline's models (default: {PIPELINES_FOLDER}/NAME)",
    )
    parser.add_argument(
        "--weights",
        action="append",
        default=[],
        metavar="VARIANT=FILE",
        help="trained weights; random ones take the same time and energy; repeatable",
    )
    parser.add_argument(
        "--meter",
        choices=METERS,
        default="auto",
        help="auto: a counter of the processor that moves under load, else cpu-time (default)",
    )
    parser.add_argument(
        "--power-model",
        type=Path,
        metavar="JSON",
        help="of the cpu-time meter (default: this machine's calibration, else a prior, ±50 %%)",
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the order of trials")
    parser.set_defaults(verb_function=profile)


def profile(args: argparse.Namespace) -> int:
    """Measure; entries that fail are named and do not stop the others."""
    from ipa_energy.config import load_config
    from ipa_energy.profiling.fit.budget import parse_share
    from ipa_energy.profiling.settings import TrialSettings
    from ipa_energy.profiling.sweep import profile_pipeline

    budget = parse_share(args.budget) if args.budget is not None else None
    config = load_config(args.pipeline)
    settings = TrialSettings().quick() if args.quick else TrialSettings()
    if args.window is not None:
        settings = settings.with_window(args.window)
    with _meter(args.meter, args.power_model) as meter:
        sweep = profile_pipeline(
            str(args.models or _models_folder(config, args.pipeline)),
            out=args.out,
            meter=meter,
            stages=args.stage,
            variants=args.variant,
            batches=args.batch or (1, 2, 4, 8),
            allocations=args.cores or (1,),
            replicas=args.replicas or (1,),
            loads_rps=args.load or (),
            weights=_weights(args.weights),
            trials=1 if args.quick else args.trials,
            settings=settings,
            resume=args.resume,
            only_changed=args.only_changed,
            budget=budget,
            seed=args.seed,
        )
    if args.json:
        print_json(_document(sweep, args.out))
    else:
        print("\n".join(_summary(sweep, args.out)))
    return EXIT_UNAVAILABLE if sweep.failures else EXIT_DONE


@contextmanager
def _meter(name: str, power_model: Path | None) -> Iterator[MeterChoice]:
    """The meter for replicas; a counter is tried under load, and closed with the block."""
    from ipa_energy.meters.cpu_time import PowerModel
    from ipa_energy.meters.discovery.discover import CPU_COUNTERS, close_meter, discover, open_meter
    from ipa_energy.meters.stored_model import power_model_for_this_machine
    from ipa_energy.profiling.metering import cpu_time_choice, machine_choice

    if name not in ("auto", "cpu-time") and power_model is not None:
        raise ConfigError(f"a power model for {name}", where="--power-model", allowed="cpu-time")
    if name == "auto":
        states = {s.name: s.state for s in discover().statuses} if power_model is None else {}
        name = next((n for n in CPU_COUNTERS if states.get(n) == "measured"), "cpu-time")
    if name == "cpu-time":
        yield cpu_time_choice(
            power_model_for_this_machine() if power_model is None else PowerModel.load(power_model)
        )
        return
    meter = open_meter(name)
    try:
        yield machine_choice(meter)
    finally:
        close_meter(meter)


def _summary(sweep: Sweep, out: Path) -> list[str]:
    """What it came to, a line each for the figures, their steadiness, and the replicas."""
    counts = f"{len(sweep.rows)} entries measured, {len(sweep.kept)} kept"
    if sweep.predicted:
        counts += f", {len(sweep.predicted)} predicted (estimated, in the meta file)"
    lines = [f"{counts}: {out}", sweep.stability.summary]
    for stage, fits in sweep.fit.items():
        errors = [
            f"{name} {fit['held_out']['relative_mae']:.1%}"
            for name, fit in fits.items()
            if fit.get("held_out", {}).get("relative_mae") is not None
        ]
        lines.append(f"{stage}: mean error of the fits at held-out points: {', '.join(errors)}")
    check = sweep.replica_check
    if check is not None and check["relative_error_mean_abs"] is not None:
        lines.append(
            "e + n p / load against measured replicas and loads: "
            f"{check['relative_error_mean_abs']:.1%} off on average, "
            f"{check['relative_error_max_abs']:.1%} at most"
        )
    elif check is not None:
        lines.append("nothing to check the replicas against; profile --replicas 1 as well")
    return lines


def _document(sweep: Sweep, out: Path) -> dict[str, Any]:
    return {
        "profile": str(out),
        "measured": len(sweep.rows),
        "kept": len(sweep.kept),
        "predicted": len(sweep.predicted),
        "stability": sweep.stability.to_json(),
        "fit": sweep.fit,
        "replica_check": sweep.replica_check,
        "failures": [
            {"entry": failure.entry.label, "reason": failure.reason} for failure in sweep.failures
        ],
    }


def _models_folder(config: PipelineConfig, path: Path) -> Path:
    name = config.pipeline_folder_name or config.pipeline_name
    places = [Path.cwd(), path.resolve().parent, path.resolve().parent.parent]
    places.append(Path(__file__).resolve().parents[2])
    for place in places:
        folder = place / PIPELINES_FOLDER / name
        if (folder / "pipeline.py").is_file():
            return folder
    raise ConfigError(
        f"no models for the pipeline {name}: no folder {PIPELINES_FOLDER}/{name}",
        where=path,
        fix="give the folder with its pipeline.py as --models DIR",
    )


def _weights(given: list[str]) -> dict[str, str]:
    weights = {}
    for item in given:
        variant, equals, file = item.partition("=")
        if not (variant and equals and Path(file).is_file()):
            raise ConfigError(
                f"{item!r}", where="--weights", allowed="VARIANT=FILE with a file that exists"
            )
        weights[variant] = str(Path(file).resolve())
    return weights
