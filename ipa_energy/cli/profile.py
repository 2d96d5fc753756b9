"""``ipa-energy profile``: measure a pipeline's variants into a profile table."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ipa_energy.cli.output import print_json
from ipa_energy.errors import EXIT_DONE, EXIT_UNAVAILABLE, ConfigError

if TYPE_CHECKING:
    from ipa_energy.config import PipelineConfig
    from ipa_energy.profiling.sweep import Sweep

PIPELINES_FOLDER = "pipelines"


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
    parser.add_argument("--trials", type=int, default=3, metavar="N", help="of an entry")
    parser.add_argument("--quick", action="store_true", help="one short trial an entry")
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
        "--power-model",
        type=Path,
        metavar="JSON",
        help="of the cpu-time meter (default: a stated prior per core, good to ±50 %%)",
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the order of trials")
    parser.set_defaults(verb_function=profile)


def profile(args: argparse.Namespace) -> int:
    """Measure; entries that fail are named and do not stop the others."""
    from ipa_energy.config import load_config
    from ipa_energy.meters.cpu_time import PowerModel, stated_prior
    from ipa_energy.profiling.sweep import cpu_time_choice, profile_pipeline

    config = load_config(args.pipeline)
    usable = len(os.sched_getaffinity(0))
    model = (
        PowerModel.load(args.power_model)
        if args.power_model is not None
        else stated_prior(os.cpu_count() or usable)
    )
    sweep = profile_pipeline(
        str(args.models or _models_folder(config, args.pipeline)),
        out=args.out,
        meter=cpu_time_choice(model),
        stages=args.stage,
        variants=args.variant,
        batches=args.batch or (1, 2, 4, 8),
        allocations=args.cores or (1,),
        weights=_weights(args.weights),
        trials=args.trials,
        quick=args.quick,
        resume=args.resume,
        seed=args.seed,
    )
    if args.json:
        print_json(_document(sweep, args.out))
    else:
        print(f"{len(sweep.rows)} entries measured, {len(sweep.kept)} kept: {args.out}")
    return EXIT_UNAVAILABLE if sweep.failures else EXIT_DONE


def _document(sweep: Sweep, out: Path) -> dict[str, Any]:
    return {
        "profile": str(out),
        "measured": len(sweep.rows),
        "kept": len(sweep.kept),
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
