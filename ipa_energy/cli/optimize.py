"""``ipa-energy optimize``: one decision at one load, with its certificate.

Several pipelines on one pool are decided together.
"""

from __future__ import annotations

import argparse
import logging
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from ipa_energy.as_json import as_json
from ipa_energy.cli.options import (
    Verbs,
    add_pipeline,
    add_planning_options,
    check,
    chosen_overrides,
    filtered,
    print_json,
    text_table,
)
from ipa_energy.errors import EXIT_DONE, EXIT_INFEASIBLE, ConfigError
from ipa_energy.records import EVERY_CLASS, NOTATION

if TYPE_CHECKING:
    from ipa_energy.gpu_partitions import GpuPool
    from ipa_energy.optimizer.plan import Plan
    from ipa_energy.optimizer.solve import Result
    from ipa_energy.optimizer.together import Together
    from ipa_energy.planning.planner import Planner
    from ipa_energy.records import Option, Part


HIGHEST_LOAD_RPS = 1e9
"""As for a trace: beyond it the number is something else than requests per second."""


def add_to(verbs: Verbs) -> None:
    """Add the verb to the command line."""
    add = verbs.add(
        "optimize",
        optimize,
        help="the best plan at one load",
        description="Choose variant, allocation, batch and replicas of every stage at one load."
        f" A plan is written as in yolov5s 1c b1 x6: {NOTATION}.",
    )
    add_pipeline(add, several="; several are planned together, on what they share")
    add(
        "--load RPS",
        "pipeline requests per second; of several pipelines one each, or one for all",
        float,
        required=True,
        action="append",
    )
    add(
        "--pool NAME=N",
        "what several pipelines share: N GPUs of a kind (A100-80GB=4), or N units of another"
        " resource (core=32); repeatable (default: the gpus of their YAMLs)",
        action="append",
        default=[],
    )
    add("--top K", "show the K best plans (default: 1)", int, default=1)
    add_planning_options(add)


def optimize(args: argparse.Namespace) -> int:
    """Decide once and show the plans, or the conflict."""
    from ipa_energy.planning.planner import load_planner

    allowed = f"a number above 0, at most {HIGHEST_LOAD_RPS:g}"
    for load_rps in args.load:
        check(0 < load_rps <= HIGHEST_LOAD_RPS, f"{load_rps:g} rps", "--load", allowed)
    check(args.top >= 1, str(args.top), "--top", "an integer from 1")
    if len(args.pipeline) > 1:
        return _optimize_together(args)
    if len(args.load) > 1 or args.pool:
        raise ConfigError(
            "it is for several pipelines" if args.pool else f"{len(args.load)} loads of a pipeline",
            where="--pool" if args.pool else "--load",
            allowed="several pipelines"
            + (", or the keys gpus and capacity of one" if args.pool else ", or one load"),
        )
    (path,), (load_rps,) = args.pipeline, args.load
    planner = load_planner(path, chosen_overrides(args), policy=args.policy)
    planner.warn_of_excluded()
    limit_s = planner.config.decision_limit_s
    result = planner.decide(load_rps, top_k=args.top, limit_s=limit_s)
    if args.json:
        print_json(as_json(_document(result, planner, load_rps)))
    else:
        print(_text(result, planner, load_rps))
    return EXIT_DONE if result.plans else EXIT_INFEASIBLE


def _document(result: Result, planner: Planner, load_rps: float) -> dict[str, Any]:
    return {
        **result.to_json(),
        "load_rps": load_rps,
        "planned_load_rps": result.load_rps,
        "pipeline": planner.config.pipeline_name,
        "latency_sla_s": planner.planned.latency_sla_s,
        "energy_sla_joules": planner.config.energy_sla_joules,
        "energy_risk": planner.config.energy_risk,
        "excluded": planner.planned.excluded,
    }


def _text(result: Result, planner: Planner, load_rps: float) -> str:
    config = planner.config
    lines = [
        f"{config.pipeline_name} at {load_rps:g} rps"
        + (f" (planned as {result.load_rps:g} rps)" if result.load_rps != load_rps else "")
        + f": {result.status} by {result.method} in {result.decision_s * 1e3:.2f} ms"
        + _gap_text(result)
    ]
    if result.conflict is not None:
        lines.append(str(result.conflict))
    lines += _mixing_lines(result, planner)
    for rank, plan in enumerate(result.plans, start=1):
        lines += ["", f"{f'plan {rank}' if rank > 1 else 'best plan'}: {plan.label}"]
        lines += [f"({NOTATION})"] if rank == 1 else []
        lines += plan_lines(plan, planner)
        lines += [
            f"GPUs {name}: " + (", ".join(f"{n} as {cut}" for cut, n in cuts.items()) or "none")
            for name, cuts in plan.cut_gpus().items()
        ]
    return "\n".join(lines)


SLOW_MIX_S = 0.3
"""A mix that takes HiGHS longer is worth another method."""


def _mixing_lines(result: Result, planner: Planner) -> list[str]:
    """What ``mix: true`` is worth at this load."""
    from ipa_energy.optimizer.mix_solving import what_mixing_does

    if not (planner.config.mix and result.plans):
        return []
    problem = planner.program.at(result.best.moment)
    lines = [what_mixing_does(problem, result.best)]
    if result.method == "highs" and result.decision_s > SLOW_MIX_S and len(planner.stages) > 1:
        lines.append(
            "highs alone takes seconds for mixes of several stages; optimization_method: auto takes"
            " a fraction of it where gurobipy is installed"
        )
    return lines


def _gap_text(result: Result) -> str:
    if result.status == "feasible":
        return f", at most {100 * result.gap:.2g} % below the best objective"
    if result.status == "unknown":
        return f": no plan was found in {result.limit_s:g} s, nor that there is none"
    return ""


def _each(texts: Iterable[str]) -> str:
    """A cell with the figure of each part of a stage."""
    return " + ".join(texts)


def _variant(option: Option) -> str:
    """With its site, where there are several."""
    site = option.allocation.site
    return f"{option.variant} in {site}" if site else option.variant


def _latency_s(part: Part) -> float:
    """Of the requests that come to a part: the mean of their classes."""
    served = list(part.of_classes())
    return sum(share * option.latency_s for option, share in served) / part.share


def plan_lines(plan: Plan, planner: Planner) -> list[str]:
    """Objective, stages and totals of a plan, a line each."""
    from ipa_energy.tables import MINUS, fixed, signed

    config = planner.config
    quality = plan.quality or "no energy in the profile"
    fans_out = any(stage.requests_per_input != 1 for stage in plan.stages)
    queues = any(stage.queue_s is not None for stage in plan.stages)
    rows = [
        [
            stage.stage,
            _each(_variant(part.option) for part in stage.parts),
            _each(f"{part.option.cpu_cores:g}" for part in stage.parts),
            _each(str(part.option.batch) for part in stage.parts),
            _each(str(part.replicas) for part in stage.parts),
            _each(f"{_latency_s(part):.3f}" for part in stage.parts),
            _each(f"{part.wait_s:.3f}" for part in stage.parts),
            *([_each(f"{part.queue_s:.3f}" for part in stage.parts)] if queues else []),
            f"{stage.capacity_rps:.2f}",
            f"{stage.load_rps:g}",
            *([fixed(stage.joules_per_request, 3)] if fans_out else []),
            fixed(stage.joules_per_pipeline_request, 3),
            fixed(stage.power_w, 2),
        ]
        for stage in plan.stages
    ]
    header = ["stage", "variant", "cores", "batch", "replicas", "latency s", "wait s"]
    # What a request waits for a replica, where it is planned: with the two before, the latency.
    header += ["queue s"] if queues else []
    header += ["capacity rps", "load rps"]
    # A stage's requests are then not the pipeline's; the column that adds up comes second.
    header += ["J/stage request", "J/pipeline request"] if fans_out else ["J/request"]
    header.append("W")
    costs = "".join(
        f" {MINUS} {value:{'.3g' if name == 'batch' else '.4g'}} {name}"
        for name, value in plan.terms.items()
        # A price of what the plan does not use is not worth a word.
        if name in ("cost", "batch", "energy") or (name != "accuracy" and value)
    )
    energy_sla, accuracy = config.energy_sla_joules, plan.terms["accuracy"]
    planned_j, token_j = plan.planned_joules_per_request, plan.joules_per_token
    is_upper = plan.energy_risk == "upper"
    return [
        f"objective {signed(plan.objective, '.6g')} = {signed(accuracy, '.4g')} accuracy{costs}",
        text_table(header, rows),
        f"accuracy {plan.accuracy:.4g}"
        + (f" (raw {plan.accuracy_raw:.4g})" if config.normalize_accuracy else "")
        + f", {plan.cost_cores:g} cores"
        f", latency {plan.latency_s:.3f} s of {planner.planned.latency_sla_s:.3f} s"
        f", {fixed(plan.joules_per_request, 3)} J per request"
        + (f", planned as {fixed(planned_j, 3)} J (energy_risk: upper)" if is_upper else "")
        + (f" of {energy_sla:g} J" if energy_sla is not None else "")
        + ("" if math.isnan(token_j) else f", {token_j:.3g} J per token")
        + f" ({quality})",
        *_class_lines(plan),
    ]


def _class_lines(plan: Plan) -> Iterator[str]:
    """Latency of each class of requests under its SLA, and what serves it."""
    from ipa_energy.optimizer.plan import latency_of

    limits = {check.constraint: check.limit for check in plan.certificate.checks}
    for name in plan.stages[0].classes:
        if name == EVERY_CLASS:
            continue
        latency_s = latency_of(plan.stages, name)
        sla_s = limits.get(f"latency_sla_s:{name}")
        limit = "" if sla_s is None else f" of {sla_s:.3f} s"
        serves = " | ".join(
            _each(f"{_variant(part.option)}" for part in stage.parts if dict(part.shares).get(name))
            for stage in plan.stages
        )
        yield f"class {name}: latency {latency_s:.3f} s{limit}, by {serves}"


def _optimize_together(args: argparse.Namespace) -> int:
    """Decide for several pipelines on one pool at once."""
    from ipa_energy.optimizer.together import plan_together
    from ipa_energy.planning.planner import load_planner

    check(args.top == 1, str(args.top), "--top", "1 where pipelines share a pool")
    told = f"{len(args.load)} loads for {len(args.pipeline)} pipelines"
    allowed = "one for all, or one for each in their order"
    check(len(args.load) in (1, len(args.pipeline)), told, "--load", allowed)
    loads = list(args.load) * (len(args.pipeline) if len(args.load) == 1 else 1)
    planners = []
    for path in args.pipeline:
        with filtered(partial(_about, str(path))):
            planner = load_planner(path, chosen_overrides(args), policy=args.policy)
            planner.warn_of_excluded()
        planners.append(planner)
    gpus, capacity = shared_pools(planners, args.pool)
    problems = [
        planner.program.at(planner.moment(load))
        for planner, load in zip(planners, loads, strict=True)
    ]
    names = [planner.config.pipeline_name for planner in planners]
    found = plan_together(problems, gpus, capacity, args.method or "highs", names=names)
    if args.json:
        print_json(as_json(_document_together(found, planners, loads, gpus, capacity)))
    else:
        print(_text_together(found, planners, loads))
    return EXIT_DONE


def _about(name: str, record: logging.LogRecord) -> bool:
    """Say of a warning which pipeline it is about."""
    if not record.getMessage().startswith(name):  # by another handler, or by who warns
        record.msg, record.args = f"{name}: {record.getMessage()}", ()
    return True


def shared_pools(
    planners: Sequence[Planner], asked: Sequence[str]
) -> tuple[list[GpuPool], dict[str, float]]:
    """GPUs and other resources that the pipelines share: as asked, and the ``gpus`` of their YAMLs.

    Args:
        planners: of the pipelines.
        asked: ``NAME=N`` each: so many GPUs of a kind, or of a pool of the YAMLs, or so many units
            of another resource. Pools of the YAMLs that none names stay as they are.

    Raises:
        ConfigError: something is not written so, or the YAMLs differ in a pool.
    """
    from ipa_energy.gpu_partitions import KINDS, GpuPool, partitions_of

    known: dict[str, GpuPool] = {}
    named = {item.partition("=")[0] for item in asked}
    for planner in planners:
        for pool in planner.config.gpu_pools:
            if known.setdefault(pool.name, pool) != pool and pool.name not in named:
                raise ConfigError(
                    f"{planner.config.pipeline_name} has other GPUs of {pool.name} than the"
                    " pipelines before it",
                    where="gpus",
                    fix=f"say how many all share: --pool {pool.name}=N",
                )
    gpus = [pool for name, pool in known.items() if name not in named]
    capacity = {}
    for item in asked:
        name, _, text = item.partition("=")
        amount = _amount(item, text)
        if name not in known and name not in KINDS:
            capacity[name] = amount
        elif amount != int(amount):
            raise ConfigError(item, where="--pool", allowed="a whole number of GPUs")
        elif name in known:
            gpus.append(replace(known[name], gpus=int(amount)))
        else:
            gpus.append(GpuPool(name, int(amount), partitions_of(name)))
    return gpus, capacity


def _amount(item: str, text: str) -> float:
    try:
        amount = float(text)
    except ValueError:
        amount = 0.0
    allowed = "NAME=N with a number above 0: A100-80GB=4, core=32"
    check(0 < amount < math.inf, repr(item), "--pool", allowed)
    return amount


def _document_together(
    found: Together,
    planners: Sequence[Planner],
    loads: Sequence[float],
    gpus: Sequence[GpuPool],
    capacity: Mapping[str, float],
) -> dict[str, Any]:
    return {
        "objective": found.objective,
        "pools": {pool.name: pool.gpus for pool in gpus},
        "capacity": dict(capacity),
        "gpus": {
            name: {cut.label: n for cut, n in cuts.items()} for name, cuts in found.cuts.items()
        },
        "pipelines": [
            {
                "pipeline": planner.config.pipeline_name,
                "load_rps": load,
                "latency_sla_s": planner.planned.latency_sla_s,
                "plan": plan,
            }
            for planner, load, plan in zip(planners, loads, found.plans, strict=True)
        ],
    }


def _text_together(found: Together, planners: Sequence[Planner], loads: Sequence[float]) -> str:
    lines = [
        f"{len(planners)} pipelines together: objective {found.objective:.6g}",
        f"({NOTATION})",
    ]
    for name, cuts in found.cuts.items():
        told = ", ".join(f"{count} as {cut.label}" for cut, count in cuts.items())
        lines.append(f"GPUs {name}, for all of them: {told or 'none'}")
    for planner, load, plan in zip(planners, loads, found.plans, strict=True):
        lines += [
            "",
            f"{planner.config.pipeline_name} at {load:g} rps: {plan.label}",
            *plan_lines(plan, planner),
        ]
    return "\n".join(lines)
