"""What hangs on an IPA pipeline: what its YAML says of energy, and the plan of any configuration.

The YAML's keys are those of ``ipa-energy run``, checked by the same schema, and kept as the
optimizer's own settings. IPA's keys are none of our business here: its runner reads them, and a
file without any of ours leaves IPA as it is.

IPA's own objects know variant, allocation, batch and replicas of the moment; after an optimization
that moment is the last solution Gurobi had in its pool. So everything here is looked up from a
:data:`Configuration`, never from the pipeline's state, unless the state is what is meant.
"""

from __future__ import annotations

import difflib
import logging
import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from ipa_energy.errors import ConfigError
from ipa_energy.optimizer.plan import Plan, StagePlan
from ipa_energy.optimizer.plan_building import plan_of
from ipa_energy.optimizer.problem import within
from ipa_energy.optimizer.quantities import Moment
from ipa_energy.optimizer.settings import Settings
from ipa_energy.optimizer.stage_columns import StageRules
from ipa_energy.plugin.hooks.joules import estimate, joules_of, missing_batches
from ipa_energy.records import Allocation, Option, Stage
from ipa_energy.tables import counted

if TYPE_CHECKING:
    from ipa_energy.carbon.run_carbon import RunCarbon
    from ipa_energy.config.carbon import CarbonConfig

logger = logging.getLogger(__name__)

ATTRIBUTE = "ipa_energy"
WHERE = "pipeline YAML"

GRAMS = "grams_per_request"

EXACT_METHODS = ("ipa-energy", "pareto", "highs")
"""Values of ``optimization_method`` that hand the decision to this package; IPA knows none."""

KEYS = (
    "energy_weight",
    "energy_metric",
    "energy_risk",
    "energy_sla_joules",
    "energy_estimate",
    "carbon",
    "strict_latency",
    "latency_sla_s",
    "requests_per_input",
)
OURS = ("energy", "strict_", "carbon")
"""Keys that begin so are meant for us: one that is not known is a mistake."""

Configuration = tuple[str, float, int, int]
"""Of one stage: variant, cores (or share of a GPU) of one replica, batch, replicas."""


# ------------------------------------------------------------------ what the YAML says


@dataclass(frozen=True, slots=True, kw_only=True)
class EnergySettings(Settings):
    """The optimizer's settings of one YAML; defaults are those of a YAML without our keys.

    IPA's own weights and caps come with every decision (:meth:`PipelineEnergy.begin`), and where
    ``latency_sla_s`` is None its SLA is IPA's rule.

    Attributes:
        carbon: what a joule costs the climate; None: grams are not counted.
        energy_estimate: ``cpu-time`` to estimate joules the profile lacks; None: refuse.
        strict_latency: charge the wait to fill the chosen batch, which IPA's constraint loses.
        requests_per_input: m_s of each stage; empty: 1.
    """

    alpha: float = 0.0
    beta: float = 0.0
    gamma: float = 0.0
    scaling_cap: int = sys.maxsize
    batching_cap: int = sys.maxsize
    carbon: CarbonConfig | None = None
    energy_estimate: Literal["cpu-time"] | None = None
    strict_latency: bool = False
    requests_per_input: tuple[float, ...] = ()

    @property
    def changes_decisions(self) -> bool:
        """True if IPA's own program must be added to."""
        return self.needs_energy or self.strict_latency


def settings_from(config: Mapping[str, Any]) -> EnergySettings | None:
    """The settings of a YAML as IPA's runners loaded it; None if it says nothing to us.

    Raises:
        ConfigError: a key or a value is wrong, or asks for what a patched IPA cannot do.
    """
    _refuse_unknown(config)
    given = {key: config[key] for key in KEYS if key in config}
    method = config.get("optimization_method")
    if not given and method not in EXACT_METHODS:
        return None
    settings = _with_carbon(EnergySettings(**_validated(given)))
    if method not in EXACT_METHODS and any(m != 1 for m in settings.requests_per_input):
        raise ConfigError(
            f"requests_per_input is {list(settings.requests_per_input)}, and IPA's own solvers"
            " count one request a stage",
            where=WHERE,
            fix="set optimization_method: ipa-energy, or leave the key out",
        )
    return settings


def _with_carbon(settings: EnergySettings) -> EnergySettings:
    """The same with what ``carbon`` weighs and caps."""
    said = settings.carbon
    if said is None:
        return settings
    if said.budget_grams_per_day is not None:
        raise ConfigError(
            "carbon.budget_grams_per_day is kept by ipa-energy run alone",
            where=WHERE,
            fix="set carbon.weight or carbon.sla_grams",
        )
    if said.sites:
        raise ConfigError(
            "carbon.sites are served by ipa-energy run alone",
            where=WHERE,
            fix="set carbon.intensity to that of this cluster",
        )
    return replace(
        settings,
        weights={GRAMS: said.weight} if said.weight else {},
        caps={} if said.sla_grams is None else {GRAMS: said.sla_grams},
    )


def _refuse_unknown(config: Mapping[str, Any]) -> None:
    for key in config:
        if not str(key).startswith(OURS) or key in KEYS:
            continue
        near = difflib.get_close_matches(str(key), KEYS, n=1)
        raise ConfigError(
            f"key {key} is not known to a patched IPA"
            + (f": did you mean {near[0]}?" if near else ""),
            where=WHERE,
            allowed=", ".join(KEYS),
        )


def _validated(given: Mapping[str, Any]) -> dict[str, Any]:
    """The values as the schema of our own YAMLs types them."""
    from pydantic import ValidationError, create_model

    from ipa_energy.config.fields import StrictModel
    from ipa_energy.config.loading import problems_of
    from ipa_energy.config.schema import PipelineConfig
    from ipa_energy.config.source import raise_all

    known: dict[str, Any] = {
        key: (PipelineConfig.model_fields[key].annotation, PipelineConfig.model_fields[key])
        for key in KEYS
    }
    try:
        found = create_model("EnergyKeys", __base__=StrictModel, **known).model_validate(given)
    except ValidationError as error:
        raise_all(problems_of(error, given, lambda _keys: WHERE), WHERE)
    values = {key: getattr(found, key) for key in KEYS}
    values["requests_per_input"] = values["requests_per_input"] or ()
    return values


# ------------------------------------------------------------------ what hangs on the pipeline


@dataclass(frozen=True, slots=True)
class LastAnswer:
    """What the optimizer answered last, as far as the log tells of it.

    Attributes:
        method: ``gurobi``, ``brute-force``, ``ipa-energy`` …
        decision_s: wall time.
        energy_objective: energy_weight·E of the first plan; None without plan or joules.
        conflict: why there was no plan, if the method knows.
    """

    method: str
    decision_s: float
    energy_objective: float | None
    conflict: str | None


@dataclass(slots=True)
class PipelineEnergy:
    """Energy of one IPA pipeline.

    Attributes:
        settings: of the YAML, with IPA's own weights and caps of the last decision.
        stages: the pipeline's, with every entry of its profile.
        entries: of each stage, (variant, cores or share of a GPU, batch) → option.
        has_joules: every entry that can be planned has them.
        load_rps: λ that IPA's methods are working on, at least 1.
        last_answer: of the optimizer; None before the first.
        programs: our own programs of this pipeline, by the settings they were built for.
        carbon: intensities along the run; None without any.
        interval_s: between decisions.
        reported_s: second of the run of the last step in the log; the next decision is an interval
            later.
    """

    settings: EnergySettings
    stages: tuple[Stage, ...]
    entries: tuple[dict[tuple[str, float, int], Option], ...]
    has_joules: bool
    load_rps: float = 1.0
    last_answer: LastAnswer | None = None
    programs: dict[Any, Any] = field(default_factory=dict)
    carbon: RunCarbon | None = None
    interval_s: float = 0.0
    reported_s: float = 0.0

    @property
    def moment(self) -> Moment:
        """The load that is planned for, and what a joule emits when that is decided."""
        if self.carbon is None:
            return Moment.at(self.load_rps)
        now_s = self.reported_s + self.interval_s
        return Moment.at(self.load_rps, **self.carbon.signals(now_s, self.interval_s))

    def begin(self, given: Mapping[str, Any]) -> None:
        """Take the load, the weights and the caps of a decision.

        Args:
            given: the arguments of IPA's ``optimize``.
        """
        self.plan_for(given["arrival_rate"])
        cap = given["batching_cap"]
        self.settings = replace(
            self.settings,
            **{name: given[name] for name in ("alpha", "beta", "gamma", "scaling_cap")},
            batching_cap=sys.maxsize if cap is None else cap,
        )

    def plan_for(self, load_rps: float) -> None:
        """Set the load that objective and constraints are about to be asked for.

        IPA's loads are whole numbers, and it plans 0 as 1.
        """
        self.load_rps = max(1.0, float(load_rps))

    def plan(self, configurations: Iterable[Configuration]) -> Plan | None:
        """What these mean at the planned load; None if the profile lacks one of the entries.

        Args:
            configurations: one a stage, first stage first.
        """
        found = [self._pick(index, each) for index, each in enumerate(configurations)]
        picks = [pick for pick in found if pick is not None]
        return self._plan_of(picks) if len(picks) == len(found) else None

    def stage_plan(self, index: int, configuration: Configuration) -> StagePlan | None:
        """The same of one stage alone."""
        pick = self._pick(index, configuration)
        return None if pick is None else self._plan_of([pick]).stages[0]

    def _pick(self, index: int, configuration: Configuration) -> tuple[Stage, Option, int] | None:
        variant, held, batch, replicas = configuration
        option = self.entries[index].get((variant, held, batch))
        return None if option is None else (self.stages[index], option, replicas)

    def _plan_of(self, picks: Sequence[tuple[Stage, Option, int]]) -> Plan:
        return plan_of(picks, self.settings, [StageRules()] * len(picks), self.moment)

    def keeps_energy_sla(self, plan: Plan) -> bool:
        """True if the plan respects the caps on joules and grams, where there are any."""
        joules_cap, grams_cap = self.settings.energy_sla_joules, self.settings.caps.get(GRAMS)
        return within(plan.planned_joules_per_request, joules_cap) and (
            grams_cap is None or within(plan.amounts[GRAMS], grams_cap)
        )


def energy_of(pipeline: Any) -> PipelineEnergy | None:
    """What :func:`attach` hung on a pipeline; None if it has no energy settings."""
    found = getattr(pipeline, ATTRIBUTE, None)
    return found if isinstance(found, PipelineEnergy) else None


def attach(pipeline: Any, settings: EnergySettings) -> PipelineEnergy:
    """Hang settings on a pipeline, with estimates if they are asked for.

    Raises:
        ConfigError: a decision would need joules, or intervals of them, that the profile does not
            have.
    """
    graph = pipeline.inference_graph
    models = [model for task in graph for model in task.available_model_profiles]
    if settings.requests_per_input and len(settings.requests_per_input) != len(graph):
        raise ConfigError(
            f"requests_per_input lists {len(settings.requests_per_input)}",
            where=WHERE,
            allowed=f"a list of {len(graph)}, one entry per stage",
        )
    if settings.energy_estimate == "cpu-time":
        estimate(models)
    lacking = [model for model in models if missing_batches(model)]
    if lacking and settings.needs_energy:
        _refuse(lacking, settings)
    if settings.needs_energy and settings.energy_risk == "upper":
        _require_intervals(models)
    if lacking:
        logger.info("the profile has no joules for every entry: none are logged")
    if settings.latency_sla_s is not None:
        _set_sla(pipeline, settings.latency_sla_s)
    shares = settings.requests_per_input or (1.0,) * len(graph)
    stages = tuple(_stage(task, share) for task, share in zip(graph, shares, strict=True))
    energy = PipelineEnergy(
        settings=replace(
            settings,
            accuracy_method=pipeline.accuracy_method,
            normalize_accuracy=pipeline.normalize_accuracy,
        ),
        stages=stages,
        entries=tuple(
            _entries(stage, gpu=task.gpu_mode) for stage, task in zip(stages, graph, strict=True)
        ),
        has_joules=not lacking,
        carbon=None if settings.carbon is None else _carbon(settings.carbon),
    )
    setattr(pipeline, ATTRIBUTE, energy)
    return energy


def _carbon(said: CarbonConfig) -> RunCarbon:
    from ipa_energy.carbon.run_carbon import run_carbon

    return run_carbon(said)


def _refuse(lacking: Sequence[Any], settings: EnergySettings) -> None:
    first = lacking[0]
    key = "energy_weight" if settings.energy_weight else "energy_sla_joules"
    key = "carbon" if settings.weights or settings.caps else key
    cores, batch = first.resource_allocation.cpu, missing_batches(first)[0]
    entry = f"{first.name} at {cores:g} cores, batch {batch}"
    count = sum(len(missing_batches(model)) for model in lacking)
    estimated = settings.energy_estimate is not None
    raise ConfigError(
        f"{key} is set, and the profile has no joules for {counted(count, 'entry')}, the first"
        f" {entry}" + ("; nor CPU seconds to estimate them from" if estimated else ""),
        where=WHERE,
        allowed="a profile with dynamic_joules_per_request and idle_power_w for every entry",
        fix="profile again with the patched profiler"
        + ("" if estimated else ", or set energy_estimate: cpu-time")
        + ", or energy_weight: 0",
    )


def _require_intervals(models: Sequence[Any]) -> None:
    for model in models:
        for batch, figures in joules_of(model).entries.items():
            if math.isnan(figures.provenance.ci95_j):
                cores = model.resource_allocation.cpu
                raise ConfigError(
                    f"energy_risk: upper plans with 95 % intervals, and the joules of {model.name}"
                    f" at {cores:g} cores, batch {batch}, have none",
                    where=WHERE,
                    allowed="a profile with an interval of every entry, from several samples of"
                    " its joules",
                    fix="profile again with the patched profiler, or set energy_risk: mean",
                )


def _set_sla(pipeline: Any, latency_sla_s: float) -> None:
    """Give this one pipeline the YAML's SLA; IPA's is a property of its class."""
    base = type(pipeline)
    pipeline.__class__ = type(base.__name__, (base,), {"sla": property(lambda _: latency_sla_s)})


# ------------------------------------------------------------------ IPA's objects as ours


def _stage(task: Any, requests_per_input: float) -> Stage:
    options = tuple(
        _option(model, profile)
        for model in task.available_model_profiles
        for profile in model.profiles
    )
    return Stage(task.name, task.name, options, requests_per_input)


def _option(model: Any, profile: Any) -> Option:
    energy = joules_of(model).entries.get(int(profile.batch))
    latency_s = float(profile.latency)
    return Option(
        variant=model.name,
        allocation=allocation_of(model.resource_allocation),
        batch=int(profile.batch),
        latency_s=latency_s,
        latency_avg_s=latency_s,
        latency_p99_s=latency_s,
        throughput_rps=float(profile.throughput),
        accuracy=float(model.accuracy),
        dynamic_energy_j=energy.dynamic_energy_j if energy else math.nan,
        idle_power_w=energy.idle_power_w if energy else math.nan,
        provenance=energy.provenance if energy else None,
    )


def allocation_of(held: Any) -> Allocation:
    """IPA's resources of one replica."""
    return Allocation.of(float(held.cpu), float(held.gpu), "cpu" if held.cpu else "gpu")


def _entries(stage: Stage, *, gpu: bool) -> dict[tuple[str, float, int], Option]:
    found: dict[tuple[str, float, int], Option] = {}
    for option in stage.options:
        held = option.gpu_share if gpu else option.cpu_cores
        found.setdefault((option.variant, held, option.batch), option)
    return found


def current(pipeline: Any) -> list[Configuration]:
    """What a pipeline is set to now, a configuration a stage."""
    found = []
    for task in pipeline.inference_graph:
        model = task.active_model
        resources = model.resource_allocation
        held = float(resources.gpu if task.gpu_mode else resources.cpu)
        found.append((model.name, held, int(task.batch), int(task.replicas)))
    return found


def of_state(pipeline: Any, state: Mapping[str, Any]) -> list[Configuration]:
    """What a row of IPA's states means, a configuration a stage."""
    return [
        (
            str(state[f"task_{index}_variant"]),
            float(state[f"task_{index}_gpu" if task.gpu_mode else f"task_{index}_cpu"]),
            int(state[f"task_{index}_batch"]),
            int(state[f"task_{index}_replicas"]),
        )
        for index, task in enumerate(pipeline.inference_graph)
    ]
