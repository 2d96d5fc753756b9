"""``ipa-energy profile-endpoint``: a language model that an OpenAI-compatible server serves."""

from __future__ import annotations

import argparse
import os
import sys
from contextlib import closing
from typing import TYPE_CHECKING

from ipa_energy.as_json import as_json
from ipa_energy.cli.meters import (
    add_meter_option,
    add_place_options,
    chosen_meter,
    places_of,
    require_used,
)
from ipa_energy.cli.options import Verbs, check, named_path, option_of, print_json, text_table
from ipa_energy.errors import EXIT_DONE, ConfigError

if TYPE_CHECKING:
    from ipa_energy.profile_table.profile_row import ProfileRow
    from ipa_energy.profiling.endpoint import LlmEntry

KEY = "OPENAI_API_KEY"
"""Environment variable with the endpoint's bearer token, if it wants one."""


def add_to(verbs: Verbs) -> None:
    """Add the verb to the command line."""
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
    import math

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
    """Refuse to measure what the profile has already."""
    from ipa_energy.profile_table.profile_csv import read_profile

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
