"""The steps of a study, from what is asked to the finished record.

::

    (1) every load     the space of feasible plans, and why it is empty if it is
    (2) configurations chosen by rule, or the user's own with the replicas that the load needs
    (3) trials         each configuration run, several seeds; means and intervals
    (4) exact figures  front, counts, hypervolume, correlations over every plan
    (5) maps           optimal plan over weight and load; several profiles side by side
    (6) words

Nothing is written before (3), and no figure is kept without its reason where it is missing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tqdm import tqdm

from ipa_energy.errors import ConfigError, InfeasibleError
from ipa_energy.experiment import OBJECTIVE_SETTINGS, settings_of, versions_of
from ipa_energy.optimizer.conflict import find_conflict
from ipa_energy.optimizer.front import FrontTooLargeError, pareto_front
from ipa_energy.optimizer.plan import Plan
from ipa_energy.optimizer.plan_building import build_plan, plan_of_parts
from ipa_energy.optimizer.problem import Problem, Program, require_intervals
from ipa_energy.optimizer.quantities import Moment
from ipa_energy.optimizer.solve import solve
from ipa_energy.planning.planner import Planner
from ipa_energy.planning.sites import require_one_place
from ipa_energy.planning.stages import accuracy_between
from ipa_energy.records import Stage
from ipa_energy.tables import counted
from ipa_energy.tradeoff.correlation import correlations
from ipa_energy.tradeoff.energy_added import (
    Hypervolume,
    OnlyEnergy,
    count_only_energy,
    hypervolume_of,
    yardstick_of,
)
from ipa_energy.tradeoff.named_configurations import NamedConfiguration, Skipped, with_replicas
from ipa_energy.tradeoff.plan_map import (
    MapRow,
    compare_hardware,
    loads_to_map,
    map_row,
    plan_map,
    profile_names,
)
from ipa_energy.tradeoff.plan_space import RULE, Space, selected, space_of
from ipa_energy.tradeoff.sensitivity import Sensitivity, analyse
from ipa_energy.tradeoff.sentences import answer_of
from ipa_energy.tradeoff.study import Case, Study
from ipa_energy.tradeoff.trials import (
    PROGRESS_AFTER_S,
    Configuration,
    StudyLoad,
    columns_of,
    run_points,
)


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
    named: Sequence[NamedConfiguration] | None,
    *,
    count: int,
    energy_weight: float,
    seed: int,
    mixes: Sequence[tuple[Plan, str]] = (),
) -> Setting:
    """The setting of a load.

    Args:
        program: with an energy weight of 0.
        load: the load.
        named: the user's configurations; None to choose ``count`` of them.
        count: how many to choose.
        energy_weight: the YAML's, whose best plan is one of the chosen.
        seed: of the choice.
        mixes: mixed plans and why they are in, the first of which take up to half of the places.
    """
    problem = _one_option(program).at(load.loads)
    space = space_of(problem, seed)
    if named is not None:
        found, skipped = with_replicas(named, program, load.loads)
        return Setting(load, problem, space, tuple(found), tuple(skipped))
    mixed = mixes[: count // 2]
    chosen = selected(space, count - len(mixed), energy_weight=energy_weight, seed=seed)
    plans = [(build_plan(problem, choice), origin) for choice, origin in chosen.items()]
    configurations = tuple(
        Configuration(key=f"C{number}", name=plan.label, origin=origin, plan=plan)
        for number, (plan, origin) in enumerate([*plans, *mixed], start=1)
    )
    return Setting(load, problem, space, configurations)


def mixed_plans(planner: Planner, load: StudyLoad) -> list[tuple[Plan, str]]:
    """Plans of several options a stage, each with why it is one: with ``mix: true`` alone.

    The best one of the YAML's objective, then those of least joules at accuracies between the
    least and the most that the pipeline has, the middle ones first. What comes out as one option a
    stage is left out: it is among the other plans.
    """
    program, method = planner.program, planner.config.optimization_method
    settings = program.settings
    if not settings.mix:
        return []
    wanted = [("best mix at the weights given", program)]
    if planner.has_energy:
        for share in MIX_FLOORS:
            floor = accuracy_between(planner.stages, settings.accuracy_method, share)
            if floor > (settings.accuracy_floor or -math.inf):
                why = f"least energy at an accuracy of {floor:.4g}, mixed"
                free = {"alpha": 0.0, "beta": 0.0, "gamma": 0.0, "weights": {}}
                asked = program.under(**free, energy_weight=1.0, accuracy_floor=floor)
                wanted.append((why, asked))
    found: dict[str, tuple[Plan, str]] = {}
    shown = _without_energy_weight(planner)
    for why, asked in wanted:
        best = solve(asked.at(load.loads), method).plans
        if best and any(stage.is_wide for stage in best[0].stages):
            picks = zip(program.stages, best[0].stages, strict=True)
            parts = [(stage, chosen.parts) for stage, chosen in picks]
            plan = plan_of_parts(parts, shown.settings, program.rules, load.loads)
            found.setdefault(plan.label, (plan, why))
    return list(found.values())


MIX_FLOORS = (0.5, 0.75, 0.25, 0.9)
"""Where between the least and the most accuracy mixes are looked for."""


def _one_option(program: Program) -> Program:
    """The same with one option a stage."""
    return program.under(mix=False) if program.settings.mix else program


def _not_mixing(planner: Planner) -> Planner:
    config = planner.config.model_copy(update={"mix": False})
    planned = replace(planner.planned, program=_one_option(planner.program))
    return replace(planner, config=config, planned=planned)


ABOUT_MIXES = (
    "mix: true: mixed plans are among the configurations that were run; the counts of plans, the"
    " correlations over them, the map of optimal plans and the sensitivity look at one option a"
    " stage"
)


def nothing_to_run(settings: Sequence[Setting]) -> str:
    """Why no load has any configuration to run."""
    reasons = []
    for setting in settings:
        why = "; ".join(f"{skipped.name}: {skipped.reason}" for skipped in setting.skipped)
        reasons.append(f"at {setting.load.name} {why or find_conflict(setting.problem)}")
    return "there is no configuration to run: " + "; ".join(reasons)


def limits_known(
    stages: Sequence[Stage], settings: Sequence[Setting], *, trials: int, count: int | None
) -> list[str]:
    """A sentence for each thing that the study cannot do.

    Args:
        stages: of the profile.
        settings: the loads.
        trials: of each configuration.
        count: how many configurations were to be chosen; None if the user gave them.
    """
    found = [*_energy(stages)]
    if any(setting.problem.settings.energy_risk == "upper" for setting in settings):
        found.append(
            "energy_risk is upper: configurations, fronts, correlations over plans and optimal"
            " plans count the upper ends of the joules' 95 % intervals; joules shown are means"
        )
    if trials == 1:
        found.append("one trial has no spread: the points have no intervals")
    for setting in settings:
        found += [f"at {setting.load.name} {text}" for text in _of(setting, count)]
    return found


def _energy(stages: Sequence[Stage]) -> Iterator[str]:
    for stage in stages:
        for option in stage.options:
            if not option.has_energy:
                yield (
                    f"the profile has no joules for {option.label} of stage {stage.name}: the study"
                    " goes on without energy; ipa-energy profile measures it"
                )
                return


def _of(setting: Setting, count: int | None) -> Iterator[str]:
    for skipped in setting.skipped:
        yield f"{skipped.name} is left out: {skipped.reason}"
    for configuration in setting.configurations:
        broken = [c.constraint for c in configuration.plan.certificate.checks if not c.holds]
        if broken:
            yield (
                f"{configuration.name} breaks {', '.join(broken)} by the profile; it is run all"
                " the same"
            )
    chosen = len(setting.configurations)
    if chosen == 0 and not setting.skipped:
        yield f"nothing is run: {find_conflict(setting.problem)}"
    elif count is not None and 0 < chosen < count:
        yield (
            f"only {counted(chosen, 'configuration')} can be told apart by accuracy, cores,"
            f" latency, energy or batch: the study runs {chosen} instead of {count}"
        )
    if not setting.space.is_complete:
        yield (
            f"there are {setting.space.combinations:,} plans: configurations are chosen from, and"
            " correlations taken over, a seeded sample of them; fronts and thresholds are exact"
        )


DEFAULT_CONFIGURATIONS = 10
DEFAULT_TRIALS = 3
VERSIONS_OF = ("numpy", "scipy", "moocore")
SETTINGS_SHOWN = (*OBJECTIVE_SETTINGS, "scaling_cap", "batching_cap", "drop_limit", "mode")
"""Keys of the YAML that a reader of the study needs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What a study is asked.

    Attributes:
        planners: of one pipeline, one a profile; the study is about the first, the others are
            compared with it.
        loads: at least one.
        count: how many configurations to choose at each load.
        named: the user's own configurations instead; None to choose.
        trials: of each configuration.
        mapped_loads_rps: loads of the plan map; None for a range around those of the study.
        sensitivity: whether to add the sensitivity analyses.
        folder: where the run folders go, one folder a load; None: they are not kept.
        backend: what serves the trials, a name in :data:`~ipa_energy.registries.BACKENDS`.
    """

    planners: Sequence[Planner]
    loads: Sequence[StudyLoad]
    count: int = DEFAULT_CONFIGURATIONS
    named: Sequence[NamedConfiguration] | None = None
    trials: int = DEFAULT_TRIALS
    mapped_loads_rps: Sequence[float] | None = None
    sensitivity: bool = False
    folder: Path | None = None
    backend: str = "simulate"

    @property
    def planner(self) -> Planner:
        """That of the profile the study is about."""
        return self.planners[0]


def conduct(question: Question, *, show_progress: bool = False) -> Study:
    """The whole study.

    Args:
        question: what is asked.
        show_progress: a bar on a terminal's stderr.

    Raises:
        InfeasibleError: no load has a configuration to run; nothing is written then.
        ConfigError: a run folder is taken or cannot be written; or ``energy_risk`` plans with
            intervals that a profile does not have.
        ServingError: the backend failed.
    """
    for each in question.planners:
        # Fronts and the plan map count joules whatever the weight is.
        require_one_place(each.config.sites, "tradeoff")
        require_intervals(each.stages, each.config.energy_risk, each.profile_path)
    mixing = question.planner
    question = replace(question, planners=[_not_mixing(each) for each in question.planners])
    planner = question.planner
    program = _without_energy_weight(planner)
    settings = [
        setting_of(
            program,
            load,
            question.named,
            count=question.count,
            energy_weight=planner.config.energy_weight,
            seed=planner.config.seed,
            mixes=[] if question.named is not None else mixed_plans(mixing, load),
        )
        for load in question.loads
    ]
    if not any(setting.configurations for setting in settings):
        raise InfeasibleError(nothing_to_run(settings))
    warnings = limits_known(
        planner.stages,
        settings,
        trials=question.trials,
        count=question.count if question.named is None else None,
    )
    if question.folder is not None:
        _make(question.folder)
    runs = question.trials * sum(len(setting.configurations) for setting in settings)
    with tqdm(
        total=runs,
        desc="trials",
        unit="run",
        delay=PROGRESS_AFTER_S,
        leave=False,
        disable=None if show_progress else True,  # None: no bar where stderr is no terminal
    ) as bar:
        conductor = _Conductor(question, bar.update, mixing)
        if mixing.config.mix:
            conductor.warnings.append(ABOUT_MIXES)
        cases = [conductor.case(setting) for setting in settings]
    loads = [load.loads for load in question.loads]
    mapped = question.mapped_loads_rps or loads_to_map([load.mean_rps for load in loads])
    is_compared = len(question.planners) > 1
    weight = planner.config.energy_weight
    study = Study(
        pipeline=planner.config.pipeline_name,
        profile=profile_names([each.profile_path for each in question.planners])[0],
        hardware=planner.hardware,
        backend=question.backend,
        seed=planner.config.seed,
        trials=question.trials,
        selection=RULE if question.named is None else "the configurations that were given",
        settings={
            **settings_of(planner.config, SETTINGS_SHOWN),
            "latency_sla_s": planner.planned.latency_sla_s,
        },
        meter=planner.meter,
        quality=planner.quality,
        cases=tuple(cases),
        plan_map=plan_map(program, mapped, conductor.options) if planner.has_energy else None,
        hardware_comparison=compare_hardware(question.planners, loads, weight)
        if is_compared
        else None,
        sensitivity=dict(_sensitivity(question, cases)) if question.sensitivity else {},
        warnings=(*warnings, *conductor.warnings),
        versions=versions_of(VERSIONS_OF),
    )
    return replace(study, answer=answer_of(study))


def _without_energy_weight(planner: Planner) -> Program:
    return planner.program.under(energy_weight=0.0)


class _Conductor:
    """Steps (3) and (4), load after load.

    Args:
        question: what is asked.
        ran: called after each trial.
        serving: what the trials run with, which may be mixes.

    Attributes:
        options: options seen in any row of optimal plans so far, with their indices.
        warnings: what was found to be impossible on the way.
    """

    def __init__(self, question: Question, ran: Callable[[], object], serving: Planner) -> None:
        self._question, self._ran, self._serving = question, ran, serving
        self._energy = question.planner.has_energy
        self.options: dict[str, int] = {}
        self.warnings: list[str] = []

    def case(self, setting: Setting) -> Case:
        """One load, run and evaluated."""
        question, load, space = self._question, setting.load, setting.space
        points = run_points(
            self._serving,
            load,
            setting.configurations,
            trials=question.trials,
            folder=question.folder and question.folder / load.folder,
            backend=question.backend,
            ran=self._ran,
        )
        only_energy, hypervolume = self._front_figures(setting)
        over_points = correlations(columns_of(points), "points")
        over_plans = correlations(space.columns, "plans")
        optimum = map_row(setting.problem, self.options) if self._energy else None
        return Case(
            name=load.name,
            load_rps=load.loads.mean_rps,
            lowest_rps=load.loads.lowest_rps,
            peak_rps=load.loads.peak_rps,
            duration_s=load.workload.duration_s,
            latency_sla_s=question.planner.planned.latency_sla_s,
            plans=space.combinations,
            feasible_plans=space.feasible,
            is_counted=space.is_complete,
            points=points,
            skipped=setting.skipped,
            correlations=(*over_points, *over_plans),
            only_energy=only_energy,
            hypervolume=hypervolume,
            optimum=optimum,
            yardstick=yardstick_of(question.planner, load.loads, optimum)
            if optimum and optimum.segments
            else None,
            optima=self._optima(setting),
            conflict=None if len(space) else str(find_conflict(setting.problem)),
        )

    def _optima(self, setting: Setting) -> dict[str, MapRow]:
        """The optimal plans over the weight of each further quantity that has one."""
        program, found = _without_energy_weight(self._question.planner), {}
        for name in program.settings.weights:
            weights = {**program.settings.weights, name: 0.0}
            without = program.under(weights=weights).at(setting.problem.moment)
            found[name] = map_row(without, {}, name)
        return found

    def _front_figures(self, setting: Setting) -> tuple[OnlyEnergy | None, Hypervolume | None]:
        if not setting.space.has_energy:
            return None, None
        try:
            front = pareto_front(setting.problem)
        except FrontTooLargeError as error:
            name = setting.load.name
            self.warnings.append(f"at {name} the undominated plans are not counted: {error}")
            return None, None
        return count_only_energy(front), hypervolume_of(front)


def _sensitivity(question: Question, cases: Sequence[Case]) -> Iterator[tuple[str, Sensitivity]]:
    for case in cases:
        if case.conflict is None:
            loads = Moment(case.lowest_rps, case.load_rps, case.peak_rps)
            yield case.name, analyse(question.planner, loads)


def _make(folder: Path) -> None:
    """The folder of the run folders, which must be new or empty."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(
            "this is a file" if not folder.is_dir() else "the folder is not empty",
            where=folder,
            allowed="a folder that is new or empty",
            fix="give another --out",
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"cannot be made: {error.strerror}", where=folder) from error
