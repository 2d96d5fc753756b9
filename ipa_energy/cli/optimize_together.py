"""``ipa-energy optimize A.yaml B.yaml``: several pipelines on one pool, decided together."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ipa_energy.cli.output import print_json
from ipa_energy.cli.overrides import chosen_overrides
from ipa_energy.errors import EXIT_DONE, ConfigError
from ipa_energy.records import NOTATION

if TYPE_CHECKING:
    from ipa_energy.gpu_partitions import GpuPool
    from ipa_energy.optimizer.plan import Plan
    from ipa_energy.optimizer.together import Together
    from ipa_energy.planning.planner import Planner


PlanLines = Callable[["Plan", "Planner"], list[str]]
"""How ``optimize`` shows a plan."""


def optimize_together(args: argparse.Namespace, plan_lines: PlanLines) -> int:
    """Decide for all of them at once and show the plans, each as ``optimize`` shows one."""
    from ipa_energy.optimizer.together import plan_together
    from ipa_energy.planning.planner import load_planner

    if args.top > 1:
        raise ConfigError(str(args.top), where="--top", allowed="1 where pipelines share a pool")
    loads = _loads(args)
    planners = []
    for path in args.pipeline:
        with _warnings_of(str(path)):
            planner = load_planner(path, chosen_overrides(args), policy=args.policy)
            planner.warn_of_excluded()
        planners.append(planner)
    gpus, capacity = shared_pools(planners, args.pool)
    problems = [
        planner.program.at(planner.moment(load))
        for planner, load in zip(planners, loads, strict=True)
    ]
    found = plan_together(
        problems, gpus, capacity, args.method or "highs", names=[_name(each) for each in planners]
    )
    if args.json:
        print_json(_document(found, planners, loads, gpus, capacity))
    else:
        print(_text(found, planners, loads, plan_lines))
    return EXIT_DONE


@contextmanager
def _warnings_of(name: str) -> Iterator[None]:
    """Say of each warning which pipeline it is about."""

    def named(record: logging.LogRecord) -> bool:
        if not record.getMessage().startswith(name):  # by another handler, or by who warns
            record.msg, record.args = f"{name}: {record.getMessage()}", ()
        return True

    handlers = list(logging.getLogger().handlers)
    for handler in handlers:
        handler.addFilter(named)
    try:
        yield
    finally:
        for handler in handlers:
            handler.removeFilter(named)


def _name(planner: Planner) -> str:
    return planner.config.pipeline_name


def _loads(args: argparse.Namespace) -> list[float]:
    """One a pipeline; one that is given alone is that of each."""
    if len(args.load) not in (1, len(args.pipeline)):
        raise ConfigError(
            f"{len(args.load)} loads for {len(args.pipeline)} pipelines",
            where="--load",
            allowed="one for all, or one for each in their order",
        )
    return list(args.load) * (len(args.pipeline) if len(args.load) == 1 else 1)


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
    from dataclasses import replace

    from ipa_energy.gpu_partitions import KINDS, GpuPool, partitions_of

    known: dict[str, GpuPool] = {}
    named = {item.partition("=")[0] for item in asked}
    for planner in planners:
        for pool in planner.config.gpu_pools:
            if known.setdefault(pool.name, pool) != pool and pool.name not in named:
                raise ConfigError(
                    f"{_name(planner)} has other GPUs of {pool.name} than the pipelines before it",
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
    if not 0 < amount < float("inf"):
        raise ConfigError(
            repr(item), where="--pool", allowed="NAME=N with a number above 0: A100-80GB=4, core=32"
        )
    return amount


def _document(
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
                "pipeline": _name(planner),
                "load_rps": load,
                "latency_sla_s": planner.planned.latency_sla_s,
                "plan": plan.to_json(),
            }
            for planner, load, plan in zip(planners, loads, found.plans, strict=True)
        ],
    }


def _text(
    found: Together, planners: Sequence[Planner], loads: Sequence[float], plan_lines: PlanLines
) -> str:
    lines = [
        f"{len(planners)} pipelines together: objective {found.objective:.6g}",
        f"({NOTATION})",
    ]
    for name, cuts in found.cuts.items():
        told = ", ".join(f"{count} as {cut.label}" for cut, count in cuts.items())
        lines.append(f"GPUs {name}, for all of them: {told or 'none'}")
    for planner, load, plan in zip(planners, loads, found.plans, strict=True):
        lines += ["", f"{_name(planner)} at {load:g} rps: {plan.label}", *plan_lines(plan, planner)]
    return "\n".join(lines)
