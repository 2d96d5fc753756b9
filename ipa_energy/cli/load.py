"""``ipa-energy load``: send a load to a V2 server and report what its clients waited."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ipa_energy.cli.options import Verbs, named_path, print_json
from ipa_energy.cli.run import NOT_NAMED_ALONE
from ipa_energy.errors import EXIT_DONE, ConfigError, require
from ipa_energy.registries import WORKLOADS

PAYLOAD_BYTES = 60_000
"""About a JPEG of 640 × 480."""


def add_to(verbs: Verbs) -> None:
    """Add the verb to the command line."""
    add = verbs.add(
        "load",
        load,
        help="a load sent to a V2 server, and its latencies",
        description="Send a load to a server of the Open Inference Protocol (V2 over gRPC, datatype"
        " BYTES) in an open loop: latencies count from the time at which a request was to be sent.",
    )
    add("--target HOST:PORT", "gRPC address of the server", required=True)
    add("--model NAME", "model to ask", required=True)
    add(
        "--workload NAME|FILE",
        ", ".join([name for name in WORKLOADS if name not in NOT_NAMED_ALONE])
        + ", or a CSV of requests per second",
    )
    add("--rps", "a constant load instead, requests per second", float)
    add("--seconds N", "length of the load (default: 60)", int, default=60)
    add(
        "--mode",
        "how a second's requests lie inside it; ipa as IPA's own generator (default: exponential)",
        choices=("exponential", "equal", "step", "ipa"),
        default="exponential",
    )
    add("--seed N", "of the load (default: 0)", int, default=0)
    add("--images DIR", "pictures to send in turn", named_path)
    add(
        "--bytes N",
        f"random bytes a request without --images (default: {PAYLOAD_BYTES})",
        int,
        default=PAYLOAD_BYTES,
    )
    add("--latency-sla S", "seconds within which an answer is in time", float)


def load(args: argparse.Namespace) -> int:
    """Send, wait, report."""
    require("grpc", what="load", extra="serve")
    from ipa_energy.as_json import as_json
    from ipa_energy.serving.load import TraceLoad
    from ipa_energy.serving.local.sender import load_test

    trace = TraceLoad(_counts(args), mode=args.mode, seed=args.seed)
    found = load_test(
        trace,
        target=args.target,
        model=args.model,
        payloads=_payloads(args),
        latency_sla_s=args.latency_sla,
    )
    result = as_json(found)
    if args.json:
        print_json(result)
    else:
        print(_words(result))
    return EXIT_DONE


def _counts(args: argparse.Namespace) -> Any:
    from ipa_energy.workloads.shapes import SHAPES, named_workload
    from ipa_energy.workloads.trace import static_workload
    from ipa_energy.workloads.trace_files import csv_workload

    if (args.workload is None) == (args.rps is None):
        raise ConfigError("what is to be sent", allowed="one of --workload and --rps")
    if args.rps is not None:
        return static_workload(args.rps, args.seconds).counts
    if args.workload in SHAPES:
        return named_workload(args.workload, seed=args.seed, duration_s=args.seconds).counts
    return csv_workload(Path(args.workload)).counts[: args.seconds]


def _payloads(args: argparse.Namespace) -> tuple[bytes, ...]:
    import numpy as np

    from ipa_energy.serving.local.served_models import images_in

    if args.images is not None:
        return images_in(args.images)
    if not 0 <= args.bytes < 2**26:
        raise ConfigError(f"--bytes {args.bytes}", allowed="0 up to below 64 MiB")
    return (np.random.default_rng(args.seed).bytes(args.bytes),)


def _words(found: dict[str, Any]) -> str:
    def milliseconds(name: str) -> str:
        value = found[name]
        return "–" if value is None else f"{value * 1e3:.1f} ms"

    lines = [
        f"{found['target']}, model {found['model']}: {found['requests']} requests in"
        f" {found['duration_s']:g} s, {found['answered']} answered, {found['failed']} failed",
        f"latency: p50 {milliseconds('latency_p50_s')}, p95 {milliseconds('latency_p95_s')},"
        f" p99 {milliseconds('latency_p99_s')}, largest {milliseconds('latency_max_s')}",
    ]
    if found["sla_attainment"] is not None:
        lines.append(
            f"{found['sla_attainment']:.2%} inside the SLA of {found['latency_sla_s']:g} s"
        )
    if found["first_failure"] is not None:
        lines.append(f"first failure: {found['first_failure']}")
    lines.append(
        f"load generator: late by {milliseconds('late_p50_s')} (p50) and"
        f" {milliseconds('late_p99_s')} (p99), {found['generator_cores']:.1%} of a core"
    )
    return "\n".join(lines)
