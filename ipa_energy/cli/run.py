"""``ipa-energy run``: a pipeline over a load trace, into a run folder."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ipa_energy.cli.doctor import add_cluster_options
from ipa_energy.cli.meters import add_powercap_option
from ipa_energy.cli.options import (
    Arguments,
    Verbs,
    add_pipeline,
    add_planning_options,
    add_weights,
    chosen_overrides,
    filtered,
    ipa_home,
    named_path,
    named_server,
    option_of,
    print_json,
)
from ipa_energy.errors import EXIT_DONE, ConfigError, require
from ipa_energy.records import NOTATION, notice_of
from ipa_energy.registries import BACKENDS, PREDICTORS, WORKLOADS

if TYPE_CHECKING:
    from ipa_energy.cli.live_view import LiveView
    from ipa_energy.experiment import Experiment
    from ipa_energy.runlog import Run
    from ipa_energy.serving.base import LiveOptions

logger = logging.getLogger(__name__)

NOT_NAMED_ALONE = ("static", "twitter", "csv")
"""Workloads that need a ``workload_config``."""


def add_to(verbs: Verbs) -> None:
    """Add the verb to the command line."""
    add = verbs.add(
        "run",
        run,
        help="a pipeline over a load trace",
        description="Adapt a pipeline to a load trace, interval by interval, and log everything."
        f" Plans are written as in yolov5s 1c b1 x6: {NOTATION}.",
    )
    add_pipeline(add)
    add("--out RUN_DIR", "run folder to write", named_path, required=True)
    add.flag("--resume", "go on with the unfinished run in RUN_DIR")
    add("--name", "what tables and plots call it (default: the folder's name)")
    add("--backend", "what serves (default: simulate)", choices=tuple(BACKENDS), default="simulate")
    add(
        "--ipa-home DIR",
        "checkout of IPA, for workload_type: twitter (default: $IPA_HOME)",
        named_path,
    )
    add_planning_options(add)
    group = add.group("overrides that bear on the run")
    group(
        "--workload NAME|FILE",
        ", ".join([name for name in WORKLOADS if name not in NOT_NAMED_ALONE])
        + ", or a CSV of requests per second",
    )
    group("--images DIR", "pictures that live requests carry (key: images)")
    add_weights(group)
    group("--predictor", "of the load", choices=tuple(PREDICTORS))
    group("--seed N", "of everything random", int)
    _add_live_options(add.group("live runs (every backend but simulate)"))
    cluster = add.group("runs on a cluster (--backend kubernetes)")
    add_cluster_options(cluster)
    cluster.flag(
        "--dry-run",
        "print the objects of the first configuration and what they would change; write none",
    )


def _add_live_options(add: Arguments) -> None:
    """How a live run is watched."""
    add(
        "--meter NAME",
        "of this machine's processors, whose joules are told apart by CPU time (default: auto,"
        " a counter where there is one, else cpu-time)",
        default="auto",
    )
    add_powercap_option(add)
    add(
        "--lease N",
        "intervals for which the pipeline goes on serving if this command is killed, for"
        " --resume to take it over (default: 6)",
        _count,
        default=6,
    )
    add(
        "--exporter PORT",
        "offer figures to Prometheus at this port of this machine; 0: any, which is said",
        int,
    )
    add(
        "--prometheus URL",
        "start the Prometheus that is on the path, in RUN_DIR/prometheus; with a URL: see"
        " whether that one scrapes the figures. Brings --exporter 0",
        named_server,
        nargs="?",
        const=True,
    )
    add.flag("--overcommit", "plan and start what holds more cores than this machine has")
    add.flag(
        "--no-drift-correction",
        "say where live joules differ from the profile's for long, and decide by the profile"
        " all the same",
    )


def _count(text: str) -> int:
    """A whole number from 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}; allowed: a whole number from 1")
    return int(text)


def _live_options(args: argparse.Namespace) -> LiveOptions:
    from ipa_energy.meters.sources import POWERCAP
    from ipa_energy.serving.base import LiveOptions

    return LiveOptions(
        meter=args.meter,
        powercap=args.powercap or POWERCAP,
        corrects_drift=not args.no_drift_correction,
        lease=args.lease,
        exporter_port=0 if args.exporter is None and args.prometheus else args.exporter,
        prometheus=args.out / "prometheus" if args.prometheus is True else args.prometheus,
        overcommits=args.overcommit,
        kubeconfig=args.kubeconfig,
        context=args.context,
        namespace=args.namespace,
    )


LIVE_OPTIONS = (
    *("images", "weights"),
    *("meter", "powercap", "lease", "exporter", "prometheus", "overcommit", "no_drift_correction"),
    *("kubeconfig", "context", "namespace"),
)
"""Options that not every backend has a use for, as the help has them."""


def _warn_of_unused(args: argparse.Namespace) -> None:
    from ipa_energy.serving.base import LiveOptions

    def is_given(name: str) -> bool:
        value = getattr(args, name)
        usual = getattr(LiveOptions(), name, None)
        return value is not None and value is not False and value not in (usual, [])

    takes = getattr(BACKENDS[args.backend], "takes", None)
    if takes is None:
        return
    unused = [option_of(name) for name in LIVE_OPTIONS if name not in takes and is_given(name)]
    if unused:
        serves = " serves nothing, so that it" if args.backend == "simulate" else ""
        logger.warning("--backend %s%s has no use for %s", args.backend, serves, ", ".join(unused))


def run(args: argparse.Namespace) -> int:
    """Run, then print what it came to."""
    from ipa_energy.as_json import as_json
    from ipa_energy.comparing import metrics
    from ipa_energy.experiment import load_experiment, run_experiment

    overrides, home = chosen_overrides(args), ipa_home(args)
    experiment = load_experiment(args.pipeline, overrides, policy=args.policy, ipa_home=home)
    experiment.planner.warn_of_excluded()
    _warn_of_unused(args)
    if args.dry_run:
        print(_dry_run(experiment, args), end="")
        return EXIT_DONE
    with _shown(experiment, args) as view:
        finished = run_experiment(
            experiment,
            args.out,
            name=args.name,
            backend=args.backend,
            resume=args.resume,
            show_progress=not (args.quiet or args.json),
            live=_live_options(args),
            view=view,
        )
    result = as_json(metrics(finished))
    overhead_j = _overhead_j(finished)
    if args.json:
        live = {"overhead_j": overhead_j} if overhead_j else {}
        print_json({"run_dir": str(args.out), **result, **live})
    else:
        print(_summary(finished.name, result, args.out))
        if overhead_j:
            parts = ", ".join(f"{name} {joules:.3g}" for name, joules in overhead_j.items())
            print(f"beside the stages: {sum(overhead_j.values()):.3g} J ({parts})")
        print(_generator_words(args.out), end="")
    return EXIT_DONE


def _dry_run(experiment: Experiment, args: argparse.Namespace) -> str:
    from ipa_energy.experiment import setting_of

    if not args.backend.startswith("kubernetes"):
        raise ConfigError(
            f"--backend {args.backend} writes nothing anywhere",
            where="--dry-run",
            allowed="--backend kubernetes, kubernetes-stub",
        )
    require("kubernetes", what="--backend kubernetes", extra="kubernetes")
    from ipa_energy.serving.kubernetes.backend import dry_run

    setting = setting_of(experiment, None, 0.0, _live_options(args))
    return dry_run(setting, is_stub=args.backend.endswith("-stub"))


@contextmanager
def _shown(experiment: Experiment, args: argparse.Namespace) -> Iterator[LiveView | None]:
    """The block on a terminal, of live runs that are not to be quiet."""
    from ipa_energy.cli.live_view import ClearsBefore, LiveView

    config = experiment.planner.config
    view = LiveView(
        [stage.name for stage in config.stages],
        float(experiment.workload.duration_s),
        float(config.adaptation_interval),
        experiment.planner.planned.latency_sla_s,
        args.backend,
    )
    if args.backend == "simulate" or args.quiet or args.json or not view.is_shown:
        yield None
        return
    with filtered(ClearsBefore(view)):
        try:
            yield view
        finally:
            view.clear()


def _overhead_j(run: Run) -> dict[str, float]:
    """What served beside the stages → joules of the whole run; empty for a simulation."""
    sums: dict[str, float] = {}
    for step in run.steps:
        for name, joules in (step.live.overhead_j if step.live else {}).items():
            sums[name] = sums.get(name, 0.0) + joules
    return sums


def _generator_words(out: Path) -> str:
    """How late the load generator of a live run was, a line; nothing for other runs."""
    import json

    totals = json.loads((out / "run.json").read_text(encoding="utf-8")).get("totals") or {}
    late = totals.get("generator")
    if late is None:
        return ""
    return (
        f"load generator: late by {late['late_p50_s'] * 1e3:.1f} ms (p50) and"
        f" {late['late_p99_s'] * 1e3:.1f} ms (p99)\n"
    )


def _class_words(one: dict[str, Any]) -> str:
    """What one class of requests came to."""
    from ipa_energy.tables import counted

    words = f"class {one['name']}: {counted(one['requests'], 'request')}"
    if one["sla_attainment"] is not None and one["latency_sla_s"] is not None:
        words += f", {one['sla_attainment']:.2%} inside {one['latency_sla_s']:g} s"
    if one["joules_per_request"] is not None:
        words += f", {one['joules_per_request']:.3f} J per request"
    return words


def _summary(name: str, found: dict[str, Any], out: Path) -> str:
    from ipa_energy.tables import counted

    notice = notice_of(found["meter"])
    joules, total_j = found["joules_per_request"], found["energy_j"]
    if joules is not None:
        token_j = found["joules_per_token"]
        energy = f"{joules:.3f} J per request"
        energy += "" if token_j is None else f", {token_j:.3g} J per token"
        energy += f" ({found['quality']}, {found['meter']})"
    elif total_j is not None:
        energy = f"{total_j:.4g} J ({found['quality']}, {found['meter']}) and nothing answered"
    else:
        energy = "no energy in the profile"
    in_cap, cap_j = found["energy_sla_attainment"], found["energy_sla_joules"]
    if cap_j is not None and in_cap is not None:
        energy += f", {in_cap:.2%} of the intervals inside the energy SLA of {cap_j:g} J"
    attainment, cores = found["sla_attainment"], found["cores_mean"]
    return (
        f"{name}: {counted(found['requests'], 'request')}, {found['dropped']} dropped"
        + (f", {found['failed']} failed" if found["failed"] else "")
        + (f", {attainment:.2%} inside the SLA" if attainment is not None else "")
        + f", {energy}"
        + (f", {cores:.2f} cores on average" if cores is not None else "")
        + "\n"
        + "".join(f"  {_class_words(one)}\n" for one in found["classes"])
        + (f"the joules of the profile are {notice}\n" if notice else "")
        + f"run folder: {out}"
    )
