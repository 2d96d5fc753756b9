"""One load of a study before anything is run: its plans, and the configurations to run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ipa_energy.optimizer.problem import Problem, Program
from ipa_energy.optimizer.solution import build_plan
from ipa_energy.tradeoff.configuration import Configuration
from ipa_energy.tradeoff.deployable import deployable
from ipa_energy.tradeoff.load import StudyLoad
from ipa_energy.tradeoff.selection import selected
from ipa_energy.tradeoff.space import Space, space_of
from ipa_energy.tradeoff.study import Skipped
from ipa_energy.tradeoff.wanted import Wanted


@dataclass(frozen=True, slots=True)
class Setting:
    """What is known before the first trial.

    Attributes:
        load: the load.
        problem: the program at it, with an energy weight of 0.
        space: its feasible plans.
        configurations: what to run; empty if nothing can be.
        skipped: the user's configurations that cannot be run here.
    """

    load: StudyLoad
    problem: Problem
    space: Space
    configurations: tuple[Configuration, ...]
    skipped: tuple[Skipped, ...] = ()


def setting_of(
    program: Program,
    load: StudyLoad,
    wanted: Sequence[Wanted] | None,
    *,
    count: int,
    energy_weight: float,
    seed: int,
) -> Setting:
    """The setting of a load.

    Args:
        program: with an energy weight of 0.
        load: the load.
        wanted: the user's configurations; None to choose ``count`` of them.
        count: how many to choose.
        energy_weight: the YAML's, whose best plan is one of the chosen.
        seed: of the choice.
    """
    problem = program.over(load.loads)
    space = space_of(problem, seed)
    if wanted is not None:
        found, skipped = deployable(wanted, program, load.loads)
        return Setting(load, problem, space, tuple(found), tuple(skipped))
    chosen = selected(space, count, energy_weight=energy_weight, seed=seed)
    configurations = []
    for number, (choice, origin) in enumerate(chosen.items(), start=1):
        plan = build_plan(problem, choice)
        configurations.append(
            Configuration(key=f"C{number}", name=plan.label, origin=origin, plan=plan)
        )
    return Setting(load, problem, space, tuple(configurations))
