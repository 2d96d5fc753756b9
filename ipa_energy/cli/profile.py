"""``ipa-energy profile`` and ``profile-endpoint``: variants measured into a profile table."""

from __future__ import annotations

import argparse
import math
import os
import re
import sys
from contextlib import closing
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
from ipa_energy.cli.options import (
    Arguments,
    Verbs,
    add_pipeline,
    add_weights,
    check,
    chosen_weights,
    named_path,
    option_of,
    print_json,
    text_table,
)
from ipa_energy.errors import EXIT_DONE, EXIT_UNAVAILABLE, ConfigError
from ipa_energy.registries import METERS

if TYPE_CHECKING:
    from ipa_energy.profile_table.profile_row import ProfileRow
    from ipa_energy.profiling.endpoint import LlmEntry
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


KEY = "OPENAI_API_KEY"
"""Environment variable with the endpoint's bearer token, if it wants one."""


def add_endpoint_to(verbs: Verbs) -> None:
    """Add the verb for a language model that an OpenAI-compatible server serves."""
    add = verbs.add(
        "profile-endpoint",
        profile_endpoint,
        help="joules per request and token of a served language model",
        description="Send requests to an OpenAI-compatible endpoint, so many at once, and add a "
        "row to a profile for each such number: joules from the meter, tokens from the answers. "
        "The endpoint has to run on what the meter measures, and nothing else meanwhile. One call "
        f"a variant: a model, or a directive of one. A bearer token is read from {KEY}.",
    )
    add("url", "of the API, e.g. http://127.0.0.1:8000/v1", metavar="URL")
    add("--model", "its name at the endpoint", required=True)
    add("--stage NAME", "stage of the rows", required=True)
    add("--variant NAME", "name of the rows (default: the model)")
    add("--accuracy A", "its accuracy, a ratio", float, required=True)
    add("--directive TEXT", "system message: how to answer", default="")
    add("--at-once N,N", "requests under way at once: batches", default="1")
    add("--requests N", "of each window", int, default=32)
    add("--trials N", "windows a row", int, default=3)
    add("--prompt-words N", None, int, default=100)
    add("--tokens N", "longest answer", int, default=128)
    add.flag("--natural-length", "let answers end where the model ends them")
    add.flag("--stream", "answers token by token")
    add("--idle S", "idle windows", float, default=2.0)
    add("--hardware NAME", "what it runs on", default="gpu")
    add("--cores N", "of a replica", float, default=0.0)
    add("--resource NAME", "what a replica holds: gpu, mig-1g.10gb …", default="gpu")
    add("--units N", "how many of it", float, default=1.0)
    add("--precision NAME", "of the weights", default="")
    add("--out PROFILE.csv", None, named_path, required=True)
    add_meter_option(add)
    add_place_options(add)


def profile_endpoint(args: argparse.Namespace) -> int:
    """Measure and append; what was measured stays if a later number fails."""
    from ipa_energy.meters.discovery import close_meter, open_meter
    from ipa_energy.profile_table.profile_csv import append_rows
    from ipa_energy.profiling.endpoint import (
        Client,
        Endpoint,
        llm_entry,
        measure_window,
        require_counter,
    )
    from ipa_energy.profiling.trial_windows import TrialSettings

    endpoint = Endpoint(
        args.url,
        args.model,
        args.directive,
        prompt_words=args.prompt_words,
        max_tokens=args.tokens,
        forced=not args.natural_length,
        stream=args.stream,
        key=os.environ.get(KEY, ""),
    )
    empty = [_empty_row(args, at_once) for at_once in _numbers(args)]
    _require_new(args, empty)
    require_used(args)
    meter = open_meter(chosen_meter(args), places_of(args))
    entries = []
    try:
        require_counter(meter)
        with closing(Client(endpoint)) as client:
            client.ask(0)  # loads what is loaded with the first request
            endpoint = client.endpoint  # with what was learned of it
        settings = TrialSettings(idle_s=args.idle)
        for row in empty:
            windows = [
                measure_window(
                    endpoint, meter, at_once=row.batch, requests=args.requests, settings=settings
                )
                for _ in range(args.trials)
            ]
            entries.append(llm_entry(row, windows, meter))
            append_rows(args.out, [entries[-1].row])
    finally:
        close_meter(meter)
    _show(args, entries)
    return EXIT_DONE


def _numbers(args: argparse.Namespace) -> list[int]:
    try:
        found = [int(word) for word in args.at_once.split(",")]
    except ValueError:
        found = []
    is_fine = bool(found) and min(found) >= 1
    check(is_fine, args.at_once, "--at-once", "numbers from 1: 1,4,16")
    for name in ("requests", "trials", "prompt_words", "tokens"):
        value = getattr(args, name)
        check(value >= 1, f"{value}", option_of(name), "1 or more")
    told = f"{args.requests} requests a window, {max(found)} of them at once"
    allowed = "at least as many as are under way at once"
    check(args.requests >= max(found), told, "--requests", allowed)
    return found


def _empty_row(args: argparse.Namespace, at_once: int) -> ProfileRow:
    from ipa_energy.profile_table.profile_row import ProfileRow

    nan = math.nan
    is_share = args.resource == "gpu" and args.units <= 1
    return ProfileRow(
        stage=args.stage,
        variant=args.variant or args.model,
        hardware=args.hardware,
        cpu_cores=args.cores,
        gpu_share=args.units if is_share else 0.0,
        batch=at_once,
        replicas=1,
        load_rps=nan,
        latency_avg_s=nan,
        latency_p99_s=nan,
        throughput_rps=nan,
        accuracy=args.accuracy,
        dynamic_energy_j=nan,
        idle_power_w=nan,
        joules_per_request=nan,
        energy_ci95_j=nan,
        trials=1,
        meter="",
        quality=None,
        resource="" if is_share else "gpus" if args.resource == "gpu" else args.resource,
        resource_units=nan if is_share else args.units,
        precision=args.precision,
    )


def _require_new(args: argparse.Namespace, rows: list[ProfileRow]) -> None:
    """Refuse to measure what the profile has already, or for a place that will not do."""
    from ipa_energy.files import check_output
    from ipa_energy.profile_table.profile_csv import read_profile

    check_output(args.out, where="--out")
    if not args.out.exists():
        return
    known = {row.option_key for row in read_profile(args.out, partial=True)}
    for row in rows:
        if row.option_key in known:
            raise ConfigError(
                f"{row.label} is in it already",
                where=args.out,
                fix="another --variant, or another --out",
            )


def _show(args: argparse.Namespace, entries: list[LlmEntry]) -> None:
    if args.json:
        print_json({"entries": [as_json(entry) for entry in entries]})
        return
    head = ["at once", "J a request", "± J", "J a token", "tokens", "tokens/s", "p99 s", "first s"]
    table = [
        [
            str(entry.row.batch),
            f"{entry.row.joules_per_request:.4g}",
            f"{entry.row.energy_ci95_j:.2g}",
            f"{entry.joules_per_token:.4g}",
            f"{entry.tokens:.1f}",
            f"{entry.tokens_per_s:.4g}",
            f"{entry.row.latency_p99_s:.4g}",
            f"{entry.first_token_s:.3g}",
        ]
        for entry in entries
    ]
    print(text_table(head, table))
    quality = entries[0].row.quality
    print(f"{quality} by {entries[0].row.meter}; added to {args.out}", file=sys.stderr)
