"""``ipa-energy measure``: joules of any command."""

from __future__ import annotations

import argparse
import json
import math
import os
import shlex
import stat
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ipa_energy.as_json import as_json
from ipa_energy.cli.meters import (
    add_meter_option,
    add_place_options,
    chosen_meter,
    places_of,
    require_used,
)
from ipa_energy.cli.options import Verbs, named_path, print_json
from ipa_energy.errors import EXIT_BAD_INPUT, EXIT_UNAVAILABLE
from ipa_energy.files import check_output, whole_file

if TYPE_CHECKING:
    from ipa_energy.measuring.command import CommandEnergy, CommandTrial
    from ipa_energy.measuring.command_tree import CommandMeter

EXIT_INTERRUPTED = 130

DOCUMENT_BEGINS = '{\n  "command":'
"""Of the file that ``--out`` writes, and replaces."""

BUSY_GROUP_RATIO = 1.1
"""Power of a control group in the idle windows over its idle share, above which it is named."""


def add_to(verbs: Verbs) -> None:
    """Add the verb to the command line."""
    add = verbs.add(
        "measure",
        measure,
        help="joules of any command",
        usage="ipa-energy measure [options] -- CMD ...",
        description="Run a command and measure its joules: in total, and above idle. Its standard "
        "input, output and error are its own; the figures go to standard error. With --json the "
        "figures go to standard output and the command's standard output goes to standard error. "
        "A counter covers the whole machine, cpu-time the command and what it starts, or a control "
        "group (--cgroup) while the command runs: a service, say, with its load as the command.",
        epilog="exit status: the command's, the last that is not 0 (128 + n if signal n killed "
        "it); 2 if it cannot be started or is too short for the meter, 4 without a meter, 130 "
        "interrupted",
    )
    add_meter_option(add)
    add("--trials N", "measured runs (default: 1)", int, default=1)
    add(
        "--idle S",
        "seconds of the idle windows before and after each trial; 0 for none, and then no "
        "joules above idle (default: 1, or what the meter needs)",
        float,
    )
    add("--warm-up K", "runs before that are not measured", int, default=0)
    add(
        "--power-model JSON",
        "of the cpu-time meter (default: this machine's calibration, else a stated prior "
        "good to ±50 %%)",
        named_path,
    )
    add("--out FILE.json", "also write the --json object to a file", named_path)
    add(
        "command",
        "with its arguments. A standard input that is a file is read anew by each run, one "
        "that is a pipe by the first run only",
        nargs=argparse.REMAINDER,
        metavar="CMD",
    )
    add_place_options(add)


def measure(args: argparse.Namespace) -> int:
    """Measure; the command's exit status passes through."""
    from ipa_energy.measuring.command import measure_command
    from ipa_energy.measuring.command_tree import command_meter

    command = args.command[1:] if args.command[:1] == ["--"] else args.command
    if args.out is not None:
        inputs = [Path(word) for word in (*command, args.power_model) if word]
        check_output(args.out, where="--out", inputs=inputs, begins=DOCUMENT_BEGINS)
    places = places_of(args)
    require_used(args)
    with command_meter(chosen_meter(args), places, args.power_model) as meter:
        found = measure_command(
            command,
            meter.meter_for,
            trials=args.trials,
            idle_s=args.idle,
            warm_up=args.warm_up,
            stdout_to_stderr=args.json,
            before_run=_rewinder(),
            own_cpu_s=meter.own_cpu_s,
            on_trial=_reporter(silent=args.json or args.quiet or args.trials == 1),
        )
    document = _document(found, command, meter)
    if args.json:
        print_json(document)
    elif not found.too_short:
        print(_text(found, command, meter), file=sys.stderr)
    for warning in document["warnings"]:
        if not args.quiet:
            print(f"ipa-energy: warning: {warning}", file=sys.stderr)
    if args.out is not None and not _written(document, args.out, shown=args.json):
        return found.exit_status or EXIT_BAD_INPUT
    if found.interrupted:
        return EXIT_INTERRUPTED
    if found.fault is not None:
        print(f"ipa-energy: error: {found.fault}", file=sys.stderr)
        return found.exit_status or EXIT_UNAVAILABLE
    if found.too_short:
        print(f"ipa-energy: error: {_too_short(found)}", file=sys.stderr)
        return found.exit_status or EXIT_BAD_INPUT
    return found.exit_status


def _written(document: dict[str, Any], path: Path, *, shown: bool) -> bool:
    """Write the file; where a disk refuses, the figures go to standard output if not shown yet."""
    try:
        with whole_file(path) as file:
            file.write(json.dumps(document, allow_nan=False, indent=2) + "\n")
    except OSError as error:
        if not shown:
            print_json(document)
        print(
            f"ipa-energy: error: {path}: cannot write the output: {error.strerror};"
            " the figures are on standard output",
            file=sys.stderr,
        )
        return False
    return True


def _rewinder() -> Callable[[], None]:
    """Rewinds a standard input that is a file, so that every run reads the same."""
    try:
        if not stat.S_ISREG(os.fstat(0).st_mode):
            return lambda: None
        start = os.lseek(0, 0, os.SEEK_CUR)
    except OSError:  # closed
        return lambda: None

    def rewind() -> None:
        os.lseek(0, start, os.SEEK_SET)

    return rewind


def _reporter(*, silent: bool) -> Callable[[CommandTrial], None]:
    number = 0

    def report(trial: CommandTrial) -> None:
        nonlocal number
        number += 1
        if not silent:
            energy = "too short" if trial.energy is None else f"{_figure(trial.energy_j)} J"
            failed = f", exit status {trial.exit_status}" if trial.exit_status else ""
            line = f"trial {number}: {energy} in {trial.duration_s:.3f} s{failed}"
            print(f"ipa-energy: {line}", file=sys.stderr)

    return report


def _document(found: CommandEnergy, command: list[str], meter: CommandMeter) -> dict[str, Any]:
    document: dict[str, Any] = as_json(
        {
            "command": command,
            "meter": found.meter,
            "quality": found.quality,
            "min_window_s": found.min_window_s,
            **meter.meta,
            "trials": [_trial_document(trial) for trial in found.trials],
            "trials_in_mean": len(found.counted),
            "energy_j": found.energy_j,
            "ci95_j": found.energy_ci95_j,
            "dynamic_energy_j": found.dynamic_energy_j,
            "dynamic_ci95_j": found.dynamic_ci95_j,
            "idle_power_w": found.idle_power_w,
            "power_w": found.power_w,
            "duration_s": found.duration_s,
            "exit_status": found.exit_status,
            "interrupted": found.interrupted,
            "fault": found.fault,
            "warnings": [*meter.warnings, *_warnings(found), *_busy_group(found, meter)],
        }
    )
    return document


def _trial_document(trial: CommandTrial) -> dict[str, Any]:
    return {
        "energy_j": trial.energy_j,
        "dynamic_energy_j": trial.dynamic_energy_j,
        "duration_s": trial.duration_s,
        "exit_status": trial.exit_status,
        "cpu_s": trial.cpu_s,
        "idle_power_w": trial.idle_power_w,
        "idle_drift_w": trial.idle_drift_w,
        "domains": None if trial.energy is None else trial.energy.domains,
        "foreign_load": trial.foreign_load,
        "left_running": trial.left_running,
    }


def _text(found: CommandEnergy, command: list[str], meter: CommandMeter) -> str:
    counted = len(found.counted)
    if not counted:
        return "ipa-energy: interrupted before the first trial ended: no figures"
    label = f"{found.quality}, {found.meter}{meter.note}"
    per_run = f"{counted} trial" + ("s, mean" if counted > 1 else ", no interval")
    lines = [
        f"energy    {_joules(found.energy_j, found.energy_ci95_j)}  ({label})",
        _dynamic_text(found, label),
        f"power     {_figure(found.power_w)} W over {found.duration_s:.4g} s  ({label})",
    ]
    name = " ".join(shlex.join(command).split())
    head = f"ipa-energy: {name if len(name) <= 60 else name[:57] + '...'}: {per_run}"
    return "\n".join([head, *(f"  {line}" for line in lines)])


def _dynamic_text(found: CommandEnergy, label: str) -> str:
    if math.isnan(found.idle_power_w):
        return "dynamic   unknown: there were no idle windows (--idle 0)"
    joules = _joules(found.dynamic_energy_j, found.dynamic_ci95_j)
    return f"dynamic   {joules}  above {_figure(found.idle_power_w)} W idle  ({label})"


def _joules(value: float, half_width: float) -> str:
    if math.isnan(value):
        return "unknown"
    interval = "" if math.isnan(half_width) else f" ± {half_width:.2g}"
    return f"{_figure(value)}{interval} J"


def _figure(value: float) -> str:
    from ipa_energy.tables import signed

    return "unknown" if math.isnan(value) else signed(value, ".4g")


def _too_short(found: CommandEnergy) -> str:
    shortest_s = min(trial.duration_s for trial in found.counted)
    times = math.ceil(found.min_window_s / shortest_s) + 1
    return (
        f"the command took {shortest_s:.3g} s, and {found.meter} means nothing in windows under "
        f"{found.min_window_s:g} s; fix: give it more work, or repeat it in a loop, at least "
        f"{times} times: sh -c 'for i in $(seq {times}); do CMD; done'"
        + (", or choose a part of the meter with --meter" if "+" in found.meter else "")
    )


def _warnings(found: CommandEnergy) -> list[str]:
    from ipa_energy.measuring.command import FOREIGN_LOAD_LIMIT
    from ipa_energy.tables import signed

    warnings = []
    failed = [trial for trial in found.trials if trial.exit_status]
    if failed:
        statuses = ", ".join(sorted({str(trial.exit_status) for trial in failed}))
        others = "; the means are over the others" if len(failed) < len(found.trials) else ""
        share = f"{len(failed)} of {len(found.trials)}"
        warnings.append(f"{share} trials failed with exit status {statuses}{others}")
    left_running = sorted({name for trial in found.trials for name in trial.left_running})
    if left_running:
        warnings.append(
            f"the command left {', '.join(left_running)} running: what it does from now on is in "
            "no figure, and it disturbs later trials"
        )
    disturbed = [
        f"{index + 1} ({signed(100 * trial.foreign_load, '+.0f')} %)"
        for index, trial in enumerate(found.trials)
        if abs(trial.foreign_load) > FOREIGN_LOAD_LIMIT
    ]
    if disturbed and found.quality == "measured":
        warnings.append(
            f"others used the cores more, or less, than in the idle windows in trial "
            f"{', '.join(disturbed)}: {found.meter} charges the command with it"
        )
    noted = [note for trial in found.trials if trial.energy for note in trial.energy.notes]
    warnings += dict.fromkeys(noted)
    if found.interrupted and found.trials:
        warnings.append(f"interrupted after {len(found.trials)} finished trials")
    return warnings


def _busy_group(found: CommandEnergy, meter: CommandMeter) -> list[str]:
    """A control group may work all the time; then its idle windows are not idle."""
    group = meter.meta.get("cgroup")
    if group is None or not found.idle_power_w > BUSY_GROUP_RATIO * group["idle_power_w"]:
        return []
    return [
        f"the cgroup was at work in the idle windows too: it drew {found.idle_power_w:.3g} W, and "
        f"its share of the idle machine is {group['idle_power_w']:.3g} W; its dynamic joules are "
        "those above its work in the idle windows, its energy is the whole of it"
    ]
