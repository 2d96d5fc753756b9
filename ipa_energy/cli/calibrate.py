"""``ipa-energy calibrate``: the cpu-time model fitted to this machine's energy counter."""

from __future__ import annotations

import argparse
import math
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from ipa_energy.cli.meters import add_powercap_option
from ipa_energy.cli.options import Verbs, check, named_path, print_json, text_table
from ipa_energy.errors import EXIT_DONE
from ipa_energy.files import check_output

if TYPE_CHECKING:
    from ipa_energy.meters.calibration import Calibration


def add_to(verbs: Verbs) -> None:
    """Add the verb to the command line."""
    add = verbs.add(
        "calibrate",
        calibrate,
        help="fit the cpu-time model to a real energy counter",
        description="Load the machine step by step from idle to every core, read a real energy "
        "counter, and fit the power model of the cpu-time meter to it. The model is kept for this "
        "machine and used from then on, with its leave-one-out error in place of ±50 %. Let "
        "nothing else run meanwhile.",
        epilog="exit status: 0 done, 2 bad input, 4 no counter that follows the load",
    )
    add("--meter M", "the counter: rapl, perf, or auto (default)", default="auto")
    add_powercap_option(add)
    add("--window S", "seconds of a window (default: 3)", float, default=3.0)
    add("--rounds N", "windows of each load (default: 2)", int, default=2)
    add(
        "--out JSON",
        "write the model here, for --power-model, and not where this machine's is kept",
        named_path,
    )


def calibrate(args: argparse.Namespace) -> int:
    """Load, measure, fit, store; say how good the model is."""
    from ipa_energy.measuring import graded_load
    from ipa_energy.meters.calibration import calibrate as fit
    from ipa_energy.meters.calibration import store_calibration
    from ipa_energy.meters.power_model import machine_key, stored_model_path
    from ipa_energy.meters.sources import POWERCAP, Places

    check(0 < args.window < math.inf, f"{args.window:g} s", "--window", "more than 0")
    check(args.rounds >= 1, str(args.rounds), "--rounds", "1 or more")
    if args.out is not None:
        check_output(args.out, where="--out", begins="{", makes_folder=True)
        is_file = args.out.is_file() or not args.out.exists()
        allowed = "a file: its evidence goes beside"
        check(is_file, f"{args.out}: is no file", "--out", allowed)
    path = args.out or stored_model_path()
    cores = os.cpu_count() or 1
    places = Places(powercap=args.powercap or POWERCAP)
    with graded_load.processor_counter(args.meter, places) as meter:
        points = graded_load.record_power(
            meter,
            graded_load.graded_loads(len(os.sched_getaffinity(0))),
            graded_load.LoadSettings(
                window_s=args.window, settle_s=min(1.0, args.window), rounds=args.rounds
            ),
        )
        found = fit(
            points,
            cores=cores,
            meter=meter.name,
            when=datetime.now(UTC).date().isoformat(),
            machine=machine_key(),
        )
    evidence = store_calibration(found, path)
    if args.json:
        print_json({"path": str(path), "evidence": str(evidence), **found.to_json()})
    else:
        print(_text(found, path))
    return EXIT_DONE


WORSE = (
    "this machine's power is no straight line over its load: measure with the counter itself "
    "where you can"
)


def _text(found: Calibration, path: Path) -> str:
    from ipa_energy.meters.power_model import UNCALIBRATED_RELATIVE_ERROR
    from ipa_energy.tables import percent

    rows = [
        [
            p.load,
            f"{p.utilisation:.1%}",
            f"{p.power_w:.2f}",
            f"{p.predicted_w:.2f}",
            percent(p.error_w / p.power_w),
        ]
        for p in sorted(found.predictions, key=lambda p: p.utilisation)
    ]
    table = text_table(["load", "busy", f"{found.meter} W", "predicted W", "error"], rows)
    model = found.model
    worse = model.relative_error > UNCALIBRATED_RELATIVE_ERROR
    return "\n".join(
        [
            table,
            f"model: {model.idle_w:.2f} W idle, {model.max_w:.2f} W with {model.cores} CPUs busy; "
            f"good to ±{model.relative_error:.0%} (each load predicted from the others: power "
            f"{found.total.mean:.1%} mean, {found.total.worst:.1%} worst; power above idle "
            f"{found.dynamic.mean:.1%} mean, {found.dynamic.worst:.1%} worst)",
            *([WORSE] if worse else []),
            f"kept: {path}",
        ]
    )
