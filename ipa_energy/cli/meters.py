"""``ipa-energy meters`` and ``calibrate``, and the options of every verb with meters."""

from __future__ import annotations

import argparse
import math
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from ipa_energy.as_json import as_json
from ipa_energy.cli.options import (
    Arguments,
    Verbs,
    check,
    named_path,
    option_of,
    print_json,
    text_table,
)
from ipa_energy.errors import EXIT_DONE, ConfigError, in_words
from ipa_energy.files import check_output
from ipa_energy.records import joined_meters, meters_in
from ipa_energy.registries import METERS

if TYPE_CHECKING:
    from ipa_energy.meters.base import MeterStatus
    from ipa_energy.meters.calibration import Calibration
    from ipa_energy.meters.discovery import Discovery
    from ipa_energy.meters.prometheus.query import WindowQuery
    from ipa_energy.meters.sources import KeplerTarget, Places


AUTO = "auto"

SCRAPED = ("kepler", "dcgm", "prometheus")
"""Meters that ask a Prometheus server."""

UNITS_J = {"J": 1.0, "mJ": 1e-3, "uJ": 1e-6, "kJ": 1e3, "Wh": 3600.0, "kWh": 3.6e6}
"""Unit of a query's value → joules."""

TARGETS = {
    "dcgm_gpu": "dcgm",
    "dcgm_host": "dcgm",
    "kepler_node": "kepler",
    "namespace": "kepler",
    "kepler_pod": "kepler",
    "kepler_container": "kepler",
    "kepler_without_memory": "kepler",
    "query": "prometheus",
    "query_unit": "prometheus",
    "query_by": "prometheus",
    "query_quality": "prometheus",
    "cgroup": "cpu-time",
    "cgroup_cores": "cpu-time",
}
"""Option → the meter that it is about; the GPU's first, because reading it waits for the work."""


def add_to(verbs: Verbs) -> None:
    """Add the verb to the command line."""
    add = verbs.add(
        "meters",
        meters,
        help="what can be measured here",
        description="Try every source of joules: keep some cores busy for a moment and see which "
        "counters move, and how often.",
        epilog="states: measured (a counter that moved), estimated (a model), dead (it can be read "
        "and does not move), denied (it may not be read), absent",
    )
    add_place_options(add)


def meters(args: argparse.Namespace) -> int:
    """Try everything, then say what was found."""
    from ipa_energy.meters.discovery import discover

    found = discover(places_of(args))
    if args.json:
        print_json({"meters": as_json(found.statuses), "auto": found.auto})
    else:
        print(_text(found))
    return EXIT_DONE


def _text(found: Discovery) -> str:
    rows = [
        [
            status.name,
            status.state,
            _seconds(status.update_period_s),
            _seconds(status.min_window_s),
            ", ".join(status.domains) or "–",
        ]
        for status in found.statuses
    ]
    table = text_table(["meter", "state", "steps every", "window for 1 %", "domains"], rows)
    notes = [_note(status) for status in found.statuses]
    return "\n".join([table, "", *notes, f"auto: {found.auto or 'nothing can be measured here'}"])


def _note(status: MeterStatus) -> str:
    fix = f"\n  fix: {status.fix}" if status.fix is not None else ""
    return f"{status.name}: {status.reason}{fix}"


def _seconds(value_s: float | None) -> str:
    """Three digits and a unit; a dash for what is not known."""
    if value_s is None:
        return "–"
    return f"{value_s:.3g} s" if value_s >= 1 else f"{1000 * value_s:.3g} ms"


def add_meter_option(add: Arguments) -> None:
    """``--meter``, for verbs that take any."""
    add(
        "--meter M",
        f"{', '.join(METERS)}, several joined by +, or auto: what the options below are "
        "about, else the best that works here (default)",
        default=AUTO,
    )


def add_powercap_option(add: Arguments) -> None:
    """``--powercap``, for every verb that may read rapl."""
    add(
        "--powercap DIR",
        "of rapl: the powercap folder, where a container mounts the host's elsewhere "
        "(default: /sys/class/powercap)",
        named_path,
    )


def add_place_options(add: Arguments) -> None:
    """Where to look and whose joules to count: :func:`places_of` reads them."""
    add_powercap_option(add)
    _add_cgroup(add.group("one container, pod or service (cpu-time)"))
    _add_prometheus(add.group("what a Prometheus server scrapes"))


def _add_cgroup(add: Arguments) -> None:
    add(
        "--cgroup PATH",
        "count the CPU time of this control group: its folder, its path in the hierarchy, "
        "or pid:N for the group of process N",
    )
    add(
        "--cgroup-cores C",
        "cores whose idle power it is charged with (default: its CPU limit, else all)",
        float,
    )


def _add_prometheus(add: Arguments) -> None:
    add("--prometheus-url,--prometheus URL", "the server, http://[USER:PASSWORD@]HOST:9090")
    add("--prometheus-token FILE", "a file with its bearer token", named_path)
    add("--kepler-node NAME", "of kepler: this node")
    add("--kepler-pod NAME", "of kepler: this pod; * stands for any characters")
    add("--kepler-container NAME", "of kepler: this container")
    add("--namespace NAME", "of kepler: pods of this Kubernetes namespace")
    add.flag(
        "--kepler-without-memory",
        "of kepler: leave memory out, where its counter is dead",
        default=None,
    )
    add("--dcgm-host NAME", "of dcgm: this host's GPUs")
    add("--dcgm-gpu UUID", "of dcgm: this GPU")
    add(
        "--query PROMQL",
        'of prometheus: any counter of energy, NAME{LABEL="VALUE"}, or an expression over '
        "the window, 'sum(avg_over_time(NAME[$window])) * $window_s'",
    )
    add("--query-unit", "of the query's value (default: J)", choices=tuple(UNITS_J))
    add("--query-by LABEL", "label that tells the query's parts; repeatable", action="append")
    add(
        "--query-quality",
        "what feeds the query: a hardware counter or power meter, or a model (default: "
        "estimated, because Prometheus does not tell)",
        choices=("measured", "estimated"),
    )


def chosen_meter(args: argparse.Namespace) -> str:
    """The meter's name: ``--meter``, or what the other options are about where that is ``auto``.

    Raises:
        ConfigError: an option is about another meter than the one that is named.
    """
    asked = {name: meter for name, meter in TARGETS.items() if getattr(args, name) is not None}
    if args.meter == AUTO:
        return joined_meters(asked.values()) or AUTO
    parts = meters_in(args.meter)
    for name, meter in asked.items():
        if meter not in parts:
            raise ConfigError(
                f"means nothing with --meter {args.meter}",
                where=option_of(name),
                fix=f"leave it out, or give --meter {meter}",
            )
    return str(args.meter)


def require_used(args: argparse.Namespace) -> None:
    """See that a source that is named is one that the meter reads.

    Raises:
        ConfigError: it is not.
    """
    name = chosen_meter(args)
    parts = meters_in(name)
    if args.prometheus_url is not None and not set(parts) & set(SCRAPED):
        raise ConfigError(
            f"means nothing with --meter {name}",
            where="--prometheus-url",
            fix="say what is measured there: --meter kepler, --meter dcgm, or --query PROMQL",
        )
    if args.powercap is not None and name != AUTO and "rapl" not in parts:
        raise ConfigError(
            f"means nothing with --meter {name}",
            where="--powercap",
            fix="leave it out, or give --meter rapl",
        )


def places_of(args: argparse.Namespace) -> Places:
    """Where to look, from the options of :func:`add_place_options`.

    Raises:
        ConfigError: an option is empty, or means nothing without another.
    """
    from ipa_energy.meters.sources import POWERCAP, Places

    for name in (*TARGETS, "prometheus_url"):
        if getattr(args, name) == "":
            raise ConfigError("is empty", where=option_of(name))
    scraped = [name for name, meter in TARGETS.items() if meter != "cpu-time"]
    _require(args, "prometheus_url", [*scraped, "prometheus_token"])
    _require(args, "query", ["query_unit", "query_by", "query_quality"])
    _require(args, "cgroup", ["cgroup_cores"])
    return Places(
        powercap=args.powercap or POWERCAP,
        prometheus_url=args.prometheus_url,
        prometheus_headers=_headers(args.prometheus_token),
        kepler=_kepler(args),
        dcgm_host=args.dcgm_host,
        dcgm_gpu=args.dcgm_gpu,
        query=_query(args),
        cgroup=args.cgroup,
        reserved_cores=args.cgroup_cores,
    )


def _require(args: argparse.Namespace, needed: str, options: list[str]) -> None:
    for name in options:
        if getattr(args, name) is not None and getattr(args, needed) is None:
            raise ConfigError(f"means nothing without {option_of(needed)}", where=option_of(name))


def _headers(token: Path | None) -> dict[str, str]:
    if token is None:
        return {}
    try:
        text = token.read_text(encoding="ascii").strip()
    except (OSError, UnicodeError) as error:
        raise ConfigError(
            f"cannot read the token: {in_words(error)}", where="--prometheus-token"
        ) from error
    if not text or len(text.split()) != 1:
        raise ConfigError(f"{token} holds no token", where="--prometheus-token")
    return {"Authorization": f"Bearer {text}"}


def _kepler(args: argparse.Namespace) -> KeplerTarget | None:
    from ipa_energy.meters.sources import KeplerTarget

    if not any(getattr(args, name) for name, meter in TARGETS.items() if meter == "kepler"):
        return None
    return KeplerTarget(
        node=args.kepler_node,
        namespace=args.namespace,
        pod=args.kepler_pod,
        container=args.kepler_container,
        memory=not args.kepler_without_memory,
    )


def _query(args: argparse.Namespace) -> WindowQuery | None:
    from ipa_energy.meters.prometheus.query import RANGE, CounterQuery, PromqlQuery

    if args.query is None:
        return None
    kind = PromqlQuery if RANGE in args.query else CounterQuery
    return kind(
        args.query,
        quality=args.query_quality or "estimated",
        joules_per_unit=UNITS_J[args.query_unit or "J"],
        domain_labels=tuple(args.query_by or ()),
    )


def add_calibrate_to(verbs: Verbs) -> None:
    """Add the verb that fits the cpu-time model to this machine's energy counter."""
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
        check_output(args.out, where="--out", begins="{")
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
        print(_calibration_text(found, path))
    return EXIT_DONE


WORSE = (
    "this machine's power is no straight line over its load: measure with the counter itself "
    "where you can"
)


def _calibration_text(found: Calibration, path: Path) -> str:
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
