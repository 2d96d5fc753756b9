"""``ipa-energy optimize``: one decision at one load, with its certificate."""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from ipa_energy.cli.output import print_json, text_table
from ipa_energy.cli.overrides import add_planning_options, chosen_overrides
from ipa_energy.cli.path import add_pipeline
from ipa_energy.errors import EXIT_DONE, EXIT_INFEASIBLE, ConfigError
from ipa_energy.records import NOTATION

if TYPE_CHECKING:
    from ipa_energy.optimizer.plan import Plan
    from ipa_energy.optimizer.solve import Result
    from ipa_energy.planning.planner import Planner
    from ipa_energy.records import Option, Part

HIGHEST_LOAD_RPS = 1e9
"""As for a trace: beyond it the number is something else than requests per second."""


def add_to(verbs: argparse._SubParsersAction[Any], common: argparse.ArgumentParser) -> None:
    """Add the verb to the command line."""
    parser = verbs.add_parser(
        "optimize",
        parents=[common],
        allow_abbrev=False,
        help="the best plan at one load",
        description="Choose variant, allocation, batch and replicas of every stage at one load."
        f" A plan is written as in yolov5s 1c b1 x6: {NOTATION}.",
    )
    add_pipeline(parser, several="; several are planned together, on what they share")
    parser.add_argument(
        "--load",
        type=float,
        required=True,
        action="append",
        metavar="RPS",
        help="pipeline requests per second; of several pipelines one each, or one for all",
    )
    parser.add_argument(
        "--pool",
        action="append",
        default=[],
        metavar="NAME=N",
        help="what several pipelines share: N GPUs of a kind (A100-80GB=4), or N units of another"
        " resource (core=32); repeatable (default: the gpus of their YAMLs)",
    )
    parser.add_argument(
        "--top", type=int, default=1, metavar="K", help="show the K best plans (default: 1)"
    )
    add_planning_options(parser)
    parser.set_defaults(verb_function=optimize)


def optimize(args: argparse.Namespace) -> int:
    """Decide once and show the plans, or the conflict."""
    from ipa_energy.optimizer.solve import decide
    from ipa_energy.planning.planner import load_planner

    for load_rps in args.load:
        if not 0 < load_rps <= HIGHEST_LOAD_RPS:
            raise ConfigError(
                f"{load_rps:g} rps",
                where="--load",
                allowed=f"a number above 0, at most {HIGHEST_LOAD_RPS:g}",
            )
    if args.top < 1:
        raise ConfigError(str(args.top), where="--top", allowed="an integer from 1")
    if len(args.pipeline) > 1:
        from ipa_energy.cli.optimize_together import optimize_together

        return optimize_together(args, plan_lines)
    if len(args.load) > 1 or args.pool:
        raise ConfigError(
            "it is for several pipelines" if args.pool else f"{len(args.load)} loads of a pipeline",
            where="--pool" if args.pool else "--load",
            allowed="several pipelines"
            + (", or the keys gpus and capacity of one" if args.pool else ", or one load"),
        )
    (path,), (load_rps,) = args.pipeline, args.load
    overrides = chosen_overrides(args)
    planner = load_planner(path, overrides, policy=args.policy)
    planner.warn_of_excluded()
    result = decide(
        planner.program,
        planner.moment(load_rps),
        method=planner.config.optimization_method,
        top_k=args.top,
        limit_s=planner.config.decision_limit_s,
    )
    if args.json:
        print_json(_document(result, planner, load_rps))
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
        "excluded": {stage: dict(why) for stage, why in planner.planned.excluded.items()},
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
    from ipa_energy.optimizer.mixing import what_mixing_does

    if not (planner.config.mix and result.plans):
        return []
    problem = planner.program.at(result.best.moment)
    lines = [what_mixing_does(problem, result.best)]
    if result.method == "highs" and result.decision_s > SLOW_MIX_S:
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
    rows = [
        [
            stage.stage,
            _each(_variant(part.option) for part in stage.parts),
            _each(f"{part.option.cpu_cores:g}" for part in stage.parts),
            _each(str(part.option.batch) for part in stage.parts),
            _each(str(part.replicas) for part in stage.parts),
            _each(f"{_latency_s(part):.3f}" for part in stage.parts),
            _each(f"{part.wait_s:.3f}" for part in stage.parts),
            f"{stage.capacity_rps:.2f}",
            f"{stage.load_rps:g}",
            *([fixed(stage.joules_per_request, 3)] if fans_out else []),
            fixed(stage.joules_per_pipeline_request, 3),
            fixed(stage.power_w, 2),
        ]
        for stage in plan.stages
    ]
    header = ["stage", "variant", "cores", "batch", "replicas", "latency s", "wait s"]
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
    return [
        f"objective {signed(plan.objective, '.6g')} = {signed(accuracy, '.4g')} accuracy{costs}",
        text_table(header, rows),
        f"accuracy {plan.accuracy:.4g}"
        + (f" (raw {plan.accuracy_raw:.4g})" if config.normalize_accuracy else "")
        + f", {plan.cost_cores:g} cores"
        f", latency {plan.latency_s:.3f} s of {planner.planned.latency_sla_s:.3f} s"
        f", {fixed(plan.joules_per_request, 3)} J per request"
        + (
            f", planned as {fixed(plan.planned_joules_per_request, 3)} J (energy_risk: upper)"
            if plan.energy_risk == "upper"
            else ""
        )
        + (f" of {energy_sla:g} J" if energy_sla is not None else "")
        + (
            ""
            if math.isnan(plan.joules_per_token)
            else f", {plan.joules_per_token:.3g} J per token"
        )
        + f" ({quality})",
    ]
