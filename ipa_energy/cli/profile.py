"""``ipa-energy profile``: measure a pipeline's variants into a profile table."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ipa_energy.cli.meters import add_place_options, chosen_meter, places_of, require_used
from ipa_energy.cli.options import (
    Arguments,
    Verbs,
    add_pipeline,
    add_weights,
    chosen_weights,
    named_path,
    print_json,
)
from ipa_energy.errors import EXIT_DONE, EXIT_UNAVAILABLE, ConfigError
from ipa_energy.registries import METERS

if TYPE_CHECKING:
    from ipa_energy.profiling.profile_sweep import Sweep


def add_to(verbs: Verbs) -> None:
    """Add the verb to the command line."""
    add = verbs.add(
        "profile",
        profile,
        help="measure latency, throughput and joules of every entry",
        description="Run a pipeline's real models and measure every (variant, cores, batch).",
    )
    add_pipeline(add)
    add("--out PROFILE.csv", None, named_path, required=True)
    add.flag("--resume", "go on with an unfinished profile")
    add.flag(
        "--only-changed",
        "measure anew what was measured with other variants, weights, versions or settings",
    )
    add.flag("--redo-contended", "measure anew the trials during which others used the cores")
    _add_repeatable(add)
    add("--trials N", "of an entry (default: 3; 1 with --quick)", int)
    add.flag("--quick", "short trials, one an entry")
    add("--window S", "shortest window; some meters need long ones", float)
    add("--time-limit S", "begin no trial that would end later, 540 or 9min; --resume goes on")
    add(
        "--budget SHARE",
        "measure this share of the entries (40%%) and predict the rest, marked as estimated",
    )
    add.flag(
        "--serving", "measure what live replicas do: from the bytes of requests to those of answers"
    )
    add("--models DIR", "folder of the pipeline's models (default: pipelines/NAME)", named_path)
    add_weights(add)
    add(
        "--meter M",
        f"one of {', '.join(METERS)}; with --gpu one of the processors and one of the GPUs "
        "joined by +; or auto: the best of each that works here (default)",
        default="auto",
    )
    add(
        "--power-model JSON",
        "of the cpu-time meter (default: this machine's calibration, else a prior, ±50 %%)",
        named_path,
    )
    add("--seed N", "of the order of trials", int, default=0)
    add_place_options(add)


def _add_repeatable(add: Arguments) -> None:
    at_once = "that work at once, each on cores of its own; repeatable (default: 1)"
    for option, kind, metavar, words in (
        ("--stage", str, "S", "only this stage; repeatable"),
        ("--variant", str, "V", "only this variant; repeatable"),
        ("--batch", int, "B", "repeatable (default: 1 2 4 8)"),
        ("--cores", int, "C", "of a replica; repeatable"),
        ("--replicas", int, "N", at_once),
        ("--load", float, "RPS", "measure at this load too, below saturation; repeatable"),
        ("--precision", str, "P", "of the models' numbers, such as float16; repeatable"),
    ):
        add(option, words, kind, action="append", metavar=metavar)
    add(
        "--gpu SHARE",
        "of one GPU for a replica: 1 is a whole one (default if given), less needs NVIDIA's "
        "MPS, 0 is none; repeatable (default: 0)",
        float,
        action="append",
        nargs="?",
        const=1.0,
    )


def profile(args: argparse.Namespace) -> int:
    """Measure; entries that fail are named and do not stop the others."""
    from ipa_energy.api import profile as measured
    from ipa_energy.profiling.grid import parse_share

    budget = parse_share(args.budget) if args.budget is not None else None
    limit_s = _seconds(args.time_limit) if args.time_limit is not None else None
    name, places = chosen_meter(args), places_of(args)
    require_used(args)
    if places.cgroup is not None:
        raise ConfigError(
            "replicas are charged by their own processes", where="--cgroup", fix="leave it out"
        )
    given = {
        "gpu_shares": args.gpu,
        "replicas": args.replicas,
        "batches": args.batch,
        "allocations": args.cores,
        "loads_rps": args.load,
        "precisions": args.precision,
        "trials": args.trials,
    }
    sweep = measured(
        args.pipeline,
        args.out,
        models=args.models,
        meter=name,
        window_s=args.window,
        quick=args.quick,
        power_model=args.power_model,
        places=places,
        stages=args.stage,
        variants=args.variant,
        weights=chosen_weights(args.weights),
        resume=args.resume,
        only_changed=args.only_changed,
        redo_contended=args.redo_contended,
        budget=budget,
        time_limit_s=limit_s,
        seed=args.seed,
        serving=args.serving,
        **{name: value for name, value in given.items() if value is not None},
    )
    if args.json:
        print_json(_document(sweep, args.out))
    else:
        print("\n".join(_summary(sweep, args.out)))
    return EXIT_UNAVAILABLE if sweep.failures else EXIT_DONE


def _seconds(text: str) -> float:
    """Seconds of ``540``, ``540s``, ``9min`` or ``2h``."""
    number = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)\s*(s|min|h|)", text.strip())
    if number is None or not float(number[1]) > 0:
        raise ConfigError(f"{text!r}", where="--time-limit", allowed="540, 540s, 9min or 2h")
    return float(number[1]) * {"": 1, "s": 1, "min": 60, "h": 3600}[number[2]]


def _summary(sweep: Sweep, out: Path) -> list[str]:
    """What it came to, a line each for the figures, their steadiness, and the replicas."""
    from ipa_energy.tables import counted

    counts = f"{counted(len(sweep.rows), 'entry')} measured, {len(sweep.kept)} kept"
    if sweep.predicted:
        counts += f", {len(sweep.predicted)} predicted (estimated, in the meta file)"
    place = str(out) if out.exists() else f"no {out.name} is written"
    lines = [f"{counts}: {place}", sweep.stability.summary]
    if sweep.remaining:
        lines.append(
            f"time is up, still to do: {counted(sweep.remaining, 'trial')}; the same with --resume"
        )
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
        "profile": str(out) if out.exists() else None,
        "measured": len(sweep.rows),
        "kept": len(sweep.kept),
        "predicted": len(sweep.predicted),
        "remaining": sweep.remaining,
        "stability": sweep.stability.to_json(),
        "fit": sweep.fit,
        "replica_check": sweep.replica_check,
        "failures": [{"entry": each.entry.label, "reason": each.reason} for each in sweep.failures],
    }
