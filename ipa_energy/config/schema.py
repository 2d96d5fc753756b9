"""The pipeline YAML as a typed record: IPA's keys with IPA's meaning, and ours for energy.

Field = YAML key. IPA's parallel lists (``task_name``, ``initial_replica`` …) end here:
:attr:`PipelineConfig.stages` is the list of stages everything else works with.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import (
    Field,
    ValidationError,
    ValidationInfo,
    create_model,
    field_validator,
    model_validator,
)
from pydantic_core import InitErrorDetails, PydanticCustomError

from ipa_energy.config.carbon import CarbonConfig, SiteConfig
from ipa_energy.config.fields import (
    FilePath,
    FolderPath,
    Name,
    NaturalInteger,
    NonNegative,
    NonNegativeOrInfinite,
    OneOf,
    Percent,
    Positive,
    PositiveInteger,
    Sequence,
    Text,
    UnusedKeys,
    optional,
)
from ipa_energy.config.sections import (
    DEFAULT_BATCH_TIMEOUT_S,
    GpusConfig,
    KubernetesConfig,
    NodeConfig,
    Reconfiguration,
    ReconfigurationConfig,
    RequestClassConfig,
    StageConfig,
    TwitterWindow,
    WorkloadConfig,
    classes_of,
    parse_workload,
    wrong_shares,
)
from ipa_energy.config.source import KeyPath
from ipa_energy.gpu_partitions import KINDS, GpuPool
from ipa_energy.records import EnergyRisk, RequestClass
from ipa_energy.registries import (
    CONTROLLERS,
    PREDICTORS,
    QUANTITIES,
    SOLVERS,
    WORKLOADS,
    backup_predictors,
    energy_metrics,
)
from ipa_energy.sla_steps import SlaSteps

T = TypeVar("T")
Level = Annotated[float, Field(gt=0, lt=1)]
Levels = Annotated[Sequence[Level], Field(json_schema_extra={"minItems": 3, "maxItems": 3})]
EnergyMetric = Annotated[str, OneOf(energy_metrics)]
Predictor = Annotated[str, OneOf(lambda: PREDICTORS)]
BackupPredictor = Annotated[str, OneOf(backup_predictors)]
Controller = Annotated[str, OneOf(lambda: CONTROLLERS)]
WorkloadType = Annotated[str, OneOf(lambda: WORKLOADS)]
OptimizationMethod = Annotated[str, OneOf(lambda: [*SOLVERS, "ipa-energy"])]
AllocationMode = Literal["base", "variable", "fix"]
BaselineMode = Literal["scale", "switch", "switch-scale"]

WHOLE = "whole"
"""Error type of what :func:`contradictions` finds; its context holds ``allowed`` and ``fix``."""

_PARALLEL = (
    "task_name",
    "model_name",
    "requests_per_input",
    "initial_active_model",
    "initial_cpu_allocation",
    "initial_replica",
    "initial_batch",
    "profiling_series",
    "profiling_load",
    "from_storage",
)


_LIMIT_SHARE = 0.5
"""Of the adaptation interval, for a decision of a run: what it decides must still come to be."""


class PipelineConfig(UnusedKeys):
    """A pipeline, its objective, its limits, and how to run it."""

    pipeline_name: Name = Field(description="Name of the pipeline, e.g. video.")
    nodes: Sequence[NodeConfig] | None = optional(
        None, "The servers, first stage first; absent: one per model_name."
    )
    number_tasks: PositiveInteger | None = optional(
        None, "Number of stages, to check the lists against."
    )
    task_name: Sequence[Name] | None = optional(
        None, "Name of each stage, as in the profile; absent: the node names."
    )
    model_name: Sequence[Name] | None = optional(
        None, "Model family of each stage in IPA's profiling; absent: the node names."
    )
    requests_per_input: Sequence[Positive] | None = optional(
        None,
        "Requests each stage sees per pipeline request; absent: 1. Two people in a"
        " frame are two classifications.",
    )

    profile: FilePath | None = optional(
        None, "Profile CSV, relative to this YAML's folder, else to the working folder."
    )
    weights: dict[Name, FilePath] | None = optional(
        None,
        "Trained weights of variants, to be profiled and served, each in its project's own format;"
        " those not named have random ones, which take the same time and energy.",
    )
    images: FolderPath | None = optional(
        None,
        "Folder of pictures that live requests carry, sent in turn; null: what the pipeline makes.",
    )
    reference_latency: Literal["p99", "avg"] = optional(
        "p99", "Which measured latency of a batch planning uses."
    )
    reference_throughput: Literal["max", "p99", "avg"] = optional(
        "max",
        "IPA: statistic of the throughput to read from its profiling folder. A profile"
        " CSV has one throughput, which is used whatever this says.",
    )
    latency_margin: Percent = optional(
        0, "Percent added to every profiled latency, for another machine."
    )
    throughput_margin: Percent = optional(
        0, "Percent added to every profiled throughput, for another machine."
    )
    only_measured_profiles: bool = optional(
        True, "true: plan with measured throughputs; false: with batch / latency."
    )

    initial_active_model: Sequence[Text] | None = optional(
        None,
        "Variant of each stage before the first decision, and for good under baseline_mode: scale.",
    )
    initial_cpu_allocation: Sequence[Positive] | None = optional(
        None, "Cores of one replica of each stage before the first decision."
    )
    initial_replica: Sequence[PositiveInteger] | None = optional(
        None,
        "Replicas of each stage before the first decision, and for good under"
        " baseline_mode: switch.",
    )
    initial_batch: Sequence[PositiveInteger] | None = optional(
        None, "Batch size of each stage before the first decision."
    )

    alpha: NonNegative = Field(description="Weight of the pipeline accuracy.")
    beta: NonNegative = Field(description="Weight of one reserved core.")
    gamma: NonNegative = optional(
        1e-6, "Weight of one unit of batch size: a tie-break, small as in IPA."
    )
    prices: dict[Name, NonNegative] | None = optional(
        None,
        "Weight of one unit of each resource but core, whose weight is beta: gpu, board"
        " and whatever the profile names; null: only cores have a price.",
    )
    capacity: dict[Name, Positive] | None = optional(
        None,
        "Most units of each resource that all stages together may hold, e.g."
        " {core: 96, gpu: 2}; null: no limit.",
    )
    gpus: dict[Name, GpusConfig] | None = optional(
        None,
        "GPUs that all stages share and that may be cut into slices, by the hardware that the"
        " profile's rows name, e.g. {A100-80GB: {count: 4}}; how each is cut is part of a plan."
        " null: slices are resources like others.",
    )
    mix: bool = optional(
        False,
        "true: a stage may run several options at once, each with a share of the requests, by the"
        " methods highs, gurobi and auto; false: one option a stage.",
    )
    request_classes: dict[Name, NonNegative | RequestClassConfig] | None = optional(
        None,
        "Kinds of requests that the profile tells apart in its column request_class, each with its"
        " share of all requests, e.g. {translate: 0.3, summarize: 0.7}, or with {share: 0.3,"
        " latency_sla_s: 2}. null: all requests are alike.",
    )
    energy_weight: NonNegative = optional(
        0, "Weight of the energy term; 0: every decision is IPA's."
    )
    energy_metric: EnergyMetric = optional(
        "joules_per_request", "What the energy term counts, per pipeline request."
    )
    energy_risk: EnergyRisk = optional(
        "mean",
        "Joules that the energy term and energy_sla_joules count. mean: the mean of an"
        " entry's trials; upper: the upper end of its 95 % interval, which covers the spread of the"
        " trials and no error of the meter or its power model.",
    )
    energy_sla_joules: Positive | None = optional(
        None,
        "Hard cap on joules per pipeline request; null: none. A run plans it at the load of the"
        " quietest interval in the monitoring window, where idle watts weigh most.",
    )
    accuracy_floor: Positive | None = optional(
        None,
        "Hard floor of the pipeline's accuracy, as profiled whatever normalize_accuracy says, and"
        " combined by accuracy_method; null: none.",
    )
    carbon: CarbonConfig | None = optional(
        None, "What a joule costs the climate, and what that weighs; null: grams are not counted."
    )
    kubernetes: KubernetesConfig | None = optional(
        None, "Where and as what its servers run with --backend kubernetes; null: the defaults."
    )
    energy_estimate: Literal["cpu-time"] | None = optional(
        None,
        "In a patched IPA: where the joules of a profile without any come from."
        " cpu-time: from its CPU seconds; null: such a profile is refused. Not used here: a profile"
        " CSV has no CPU seconds.",
    )
    strict_latency: bool = optional(
        False,
        "In a patched IPA: charge the wait to fill the chosen batch, which IPA's own"
        " constraint loses. Not used here: always so.",
    )
    latency_sla_s: Positive | dict[NaturalInteger, Positive] | None = optional(
        None,
        "Hard cap on seconds per pipeline request; or a mapping from seconds of the run, 0 first,"
        " to the cap of what is sent from then on, e.g. {0: 1.0, 600: 0.5}; null: IPA's sla_factor"
        " rule.",
    )
    sla_factor: Positive = optional(
        5, "A stage's SLA is 5 × this × the mean smallest-batch latency of its variants."
    )
    threshold: Positive = optional(
        4, "Requests per second a base allocation must sustain on one replica."
    )
    scaling_cap: PositiveInteger = optional(100, "Most replicas of a stage.")
    batching_cap: PositiveInteger = optional(8, "Largest batch of a stage.")
    allocation_mode: AllocationMode = optional(
        "base",
        "base: one allocation per variant by IPA's rule; variable: every profiled"
        " allocation; fix: every variant on the stage's initial_cpu_allocation.",
    )
    baseline_mode: BaselineMode | None = optional(
        None,
        "scale: initial variants for good (FA2); switch: initial replicas for good"
        " (RIM); switch-scale: no restriction, as in IPA; null: none.",
    )
    latency_model: Literal["service", "queue"] = optional(
        "service",
        "What latency_sla_s holds of: the time to fill a batch and to serve it, or the wait"
        " for a free replica too, of which 99 % of the requests wait less; then more replicas than"
        " the load needs are open to a plan.",
    )
    accuracy_method: Literal["sum", "average", "multiply"] = optional(
        "sum", "How stage accuracies combine."
    )
    normalize_accuracy: bool = optional(
        True, "Rank-normalise accuracies within each stage to 0..1 first."
    )
    optimization_method: OptimizationMethod = optional(
        "pareto",
        "The solver. ipa-energy is another name of pareto: in a patched IPA it hands"
        " the decision to it.",
    )

    workload_type: WorkloadType = optional("bursty", "Where the load comes from.")
    workload_config: WorkloadConfig = optional(None, "Its parameters, by workload_type.")
    mode: Literal["exponential", "equal", "step", "ipa"] = optional(
        "exponential",
        "How a second's requests lie inside it: at random, evenly, all at its start, or bunched at"
        " its start as IPA's own generator sends them.",
    )
    seed: NaturalInteger = optional(
        0, "Seed of arrivals and of generated loads: one seed, one result."
    )

    predictor_type: Predictor = optional("lstm", "How the load of the next interval is predicted.")
    monitoring_duration: Positive = optional(2, "Minutes of load the predictor looks back at.")
    backup_predictor_type: BackupPredictor = optional(
        "max", "Predictor until there is enough load to look back at."
    )
    backup_predictor_duration: NonNegative = optional(
        2, "Minutes for which the backup predictor is used."
    )
    predictor_margin: Percent = optional(0, "Percent added to every prediction.")
    forecast_levels: Levels | None = optional(
        None,
        "Quantiles of the forecast that are planned with, ascending, as [0.1, 0.5, 0.9]: the energy"
        " SLA holds at the first, joules are counted at the second, replicas carry the third. null:"
        " one number for all, as IPA; controller: horizon, which weighs what is late up to the"
        " third, then takes 0.5 and 0.98.",
    )
    adaptation_interval: PositiveInteger = optional(
        10, "Seconds between decisions; IPA's 10 leave room for an 8 s reconfiguration."
    )
    decision_limit_s: Positive | None = optional(
        None,
        "Seconds that a decision may take: then the best plan found counts, with a bound on how"
        " much better another could be. null: half of adaptation_interval in a run, any time in"
        " optimize.",
    )
    controller: Controller = optional(
        "interval",
        "How a run decides. interval: the best plan for the load of the next interval, whatever"
        " runs; horizon: the best course of plans over horizon_s, every change paid for; ipa: as"
        " interval, with IPA's choice among equally good plans; hpa, inferline: replicas by"
        " Kubernetes' autoscaler, or by InferLine, of the initial variants.",
    )
    horizon_s: PositiveInteger = optional(
        60, "controller: horizon looks so many seconds ahead, in steps of adaptation_interval."
    )
    switching_price: NonNegativeOrInfinite = optional(
        1,
        "controller: horizon: factor on what a change costs. 0: none is counted; .inf: only what"
        " cannot carry the load any more changes, and then to the best plan that lasts.",
    )
    lateness_weight: NonNegative | None = optional(
        None,
        "controller: horizon: what an interval loses of its objective if all requests of it are"
        " late; null: twice alpha times the best accuracy, as if a late answer cost a good one.",
    )
    early_decisions: bool | None = optional(
        None,
        "true: a run decides at once, and not at the interval's end, when more arrives than the"
        " plan in force carries (controller: horizon: than it was made for);"
        " the next decision is a whole interval later. null: with controller: horizon only.",
    )
    reconfiguration_s: Reconfiguration | None = optional(
        None,
        "Seconds until a new replica serves, in a simulation, or a mapping from replicas, variant,"
        " cores, clock (or power cap) and partition to seconds; null: the time that the profile"
        " measured for each variant, or 8, about what IPA's take, where it measured none.",
    )
    log_detail: Literal["requests", "counts"] = optional(
        "requests",
        "What a run logs of its requests. requests: every one's times, as IPA; counts: what they"
        " came to in each interval, for runs of days, with latencies to half a percent.",
    )
    serving: Literal["central", "ipa", "ipa-random"] = optional(
        "central",
        "How batches come to replicas in a simulation. central: one queue a stage, a batch starts"
        " when a replica is free; ipa: a batch closes when it is full or its time-out is over and"
        " waits at one replica, each in turn, and stopped pods stay 30 s; ipa-random: the same at"
        " a random replica. IPA's arrivals are mode: ipa.",
    )
    queue_order: Literal["fifo", "in-time-first"] | None = optional(
        None,
        "Who is served first in a stage's queue. fifo: who came first, as IPA; in-time-first: who"
        " came first of those that can still be in time, and the others, oldest first, where there"
        " is room for them: under overload more are in time, and more are dropped at drop_limit."
        " null: in-time-first with controller: horizon, else fifo.",
    )
    drop_limit: Positive | None = optional(
        10,
        "A request older than this many seconds is dropped when it would be served; null: never.",
    )

    @field_validator("optimization_method")
    @classmethod
    def _solver_by_its_own_name(cls, value: str) -> str:
        return "pareto" if value == "ipa-energy" else value

    @field_validator("workload_config", mode="before")
    @classmethod
    def _workload_of_its_type(cls, value: object, info: ValidationInfo) -> object:
        # A workload_type that is wrong itself is not in info.data; that mistake is told already.
        if "workload_type" not in info.data:
            return None
        return parse_workload(info.data["workload_type"], value)

    @model_validator(mode="after")
    def _whole(self) -> Self:
        problems = contradictions(self)
        if problems:
            raise ValidationError.from_exception_data("PipelineConfig", problems)
        return self

    @property
    def sla_steps(self) -> SlaSteps | None:
        """``latency_sla_s`` where it changes along the run."""
        sla_s = self.latency_sla_s
        return SlaSteps.of(sla_s) if isinstance(sla_s, dict) else None

    @property
    def tightest_sla_s(self) -> float | None:
        """``latency_sla_s``, the least of it; None: IPA's rule."""
        sla_s = self.latency_sla_s
        return min(sla_s.values()) if isinstance(sla_s, dict) else sla_s

    @property
    def told_s(self) -> float | dict[str, float] | None:
        """``reconfiguration_s``: one time, or knob → time."""
        told = self.reconfiguration_s
        return told.told() if isinstance(told, ReconfigurationConfig) else told

    @property
    def sites(self) -> dict[str, SiteConfig]:
        """The places where the pipeline runs, if there are several."""
        return (self.carbon and self.carbon.sites) or {}

    @property
    def is_early(self) -> bool:
        """True if a load beyond the plan in force is not waited out."""
        said = self.early_decisions
        return self.controller == "horizon" if said is None else said

    @property
    def order(self) -> Literal["fifo", "in-time-first"]:
        """``queue_order``, or what it is by default."""
        is_ours = self.controller == "horizon" and self.serving == "central"
        return self.queue_order or ("in-time-first" if is_ours else "fifo")

    @property
    def classes(self) -> tuple[RequestClass, ...]:
        """``request_classes`` as records; empty where all requests are alike."""
        return classes_of(self.request_classes)

    @property
    def gpu_pools(self) -> tuple[GpuPool, ...]:
        """The GPUs that stages share."""
        return tuple(gpus.pool(name) for name, gpus in (self.gpus or {}).items())

    @property
    def limit_in_runs_s(self) -> float:
        """``decision_limit_s``, or what a decision of a run may take where it is not set."""
        return self.decision_limit_s or _LIMIT_SHARE * self.adaptation_interval

    @property
    def objective_weights(self) -> dict[str, float]:
        """Quantity with a key that is registered → its weight, where that is not 0."""
        weights = self._registered({name: item.weight_key for name, item in QUANTITIES.items()})
        has_budget = self.carbon is not None and self.carbon.budget_grams_per_day is not None
        return {**weights, **({"priced_grams": 1.0} if has_budget else {})}

    @property
    def quantity_caps(self) -> dict[str, float]:
        """Quantity with a key that is registered → its hard cap, where there is one."""
        return self._registered({name: item.cap_key for name, item in QUANTITIES.items()})

    def _registered(self, keys: dict[str, str | None]) -> dict[str, float]:
        further = {
            name: key for name, key in keys.items() if key not in PipelineConfig.model_fields
        }
        values = {name: self._value(key) for name, key in further.items() if key}
        return {name: value for name, value in values.items() if value}

    def _value(self, key: str) -> Any:
        """Of a key, or of one inside another: ``carbon.weight``; None if it is not there."""
        found: Any = self
        for name in key.split("."):
            found = getattr(found, name, None)
        return found

    @property
    def node_names(self) -> tuple[str, ...]:
        """Name of each stage's server: ``nodes``, else ``model_name``, else ``task_name``."""
        if self.nodes is not None:
            return tuple(node.node_name for node in self.nodes)
        return self.model_name or self.task_name or ()

    @property
    def stages(self) -> tuple[StageConfig, ...]:
        """The stages, first one first, with the YAML's parallel lists folded in."""
        return tuple(self._stage(index) for index in range(len(self.node_names)))

    def _stage(self, index: int) -> StageConfig:
        def listed(values: tuple[T, ...] | None, otherwise: T) -> T:
            return values[index] if values else otherwise

        node_name = self.node_names[index]
        node = self.nodes[index] if self.nodes else NodeConfig(node_name=node_name)
        timeout_s = node.max_batch_time
        return StageConfig(
            name=listed(self.task_name, node_name),
            node_name=node_name,
            model_name=listed(self.model_name, node_name),
            initial_variant=listed(self.initial_active_model, node.model_variants),
            initial_cpu_cores=listed(self.initial_cpu_allocation, node.cpu_request),
            initial_replicas=listed(self.initial_replica, node.replicas or 1),
            initial_batch=listed(self.initial_batch, node.max_batch_size),
            batch_timeout_s=DEFAULT_BATCH_TIMEOUT_S if timeout_s is None else timeout_s,
            requests_per_input=listed(self.requests_per_input, 1.0),
        )


def pipeline_model() -> type[PipelineConfig]:
    """:class:`PipelineConfig` with the keys of the quantities that are registered now."""
    weights: dict[str | None, str] = {}
    caps: dict[str | None, str] = {}
    for name, quantity in QUANTITIES.items():
        what = f"{name}: {quantity.help}, {quantity.unit}."
        weights[quantity.weight_key] = f"Weight of {what}"
        caps[quantity.cap_key] = f"Hard cap on {what}"
    known = {None, *PipelineConfig.model_fields}

    def new(texts: dict[str | None, str]) -> tuple[tuple[str, str], ...]:
        found = [(key, text) for key, text in texts.items() if key and key not in known]
        return tuple((key, text) for key, text in found if "." not in key)

    return _with_keys(new(weights), new(caps))


@cache
def _with_keys(
    weights: tuple[tuple[str, str], ...], caps: tuple[tuple[str, str], ...]
) -> type[PipelineConfig]:
    if not weights and not caps:
        return PipelineConfig
    fields: dict[str, Any] = {
        **{key: (NonNegative, Field(default=0.0, description=text)) for key, text in weights},
        **{key: (Positive | None, Field(default=None, description=text)) for key, text in caps},
    }
    return create_model(
        "PipelineConfig", __base__=PipelineConfig, __doc__=PipelineConfig.__doc__, **fields
    )


def contradictions(config: PipelineConfig) -> list[InitErrorDetails]:
    """What no single key can tell: lists of one length, names used once, a workload that is there.

    Empty if keys that are each fine alone are fine together.
    """
    return [
        *_lengths(config),
        *_names(config),
        *_workload(config),
        *_prices(config),
        *_beginning(config),
        *_carbon(config),
        *_gpus(config),
        *_sla(config),
        *_mix(config),
        *_levels(config),
        *_order(config),
    ]


def _problem(
    keys: KeyPath, what: str, *, allowed: str | None = None, fix: str | None = None
) -> InitErrorDetails:
    context = {"what": what, "allowed": allowed, "fix": fix}
    return InitErrorDetails(type=PydanticCustomError(WHOLE, "{what}", context), loc=keys, input="")


def _order(config: PipelineConfig) -> Iterator[InitErrorDetails]:
    if config.queue_order == "in-time-first" and config.serving != "central":
        yield _problem(
            ("queue_order",),
            f"queue_order: in-time-first with serving: {config.serving}, whose queues are fifo",
            allowed="fifo, or serving: central",
        )


def _levels(config: PipelineConfig) -> Iterator[InitErrorDetails]:
    levels = config.forecast_levels
    if levels is not None and (len(levels) != 3 or list(levels) != sorted(levels)):
        yield _problem(
            ("forecast_levels",),
            f"the levels are {', '.join(f'{level:g}' for level in levels)}",
            allowed="three, ascending",
        )


def _lengths(config: PipelineConfig) -> Iterator[InitErrorDetails]:
    stages = len(config.node_names)
    if stages == 0:
        yield _problem(
            ("nodes",),
            "the pipeline has no stages: key nodes is missing",
            allowed="a list of nodes, each with a node_name",
        )
        return
    reference = "nodes" if config.nodes else "model_name" if config.model_name else "task_name"
    if config.number_tasks not in (None, stages):
        yield _problem(
            ("number_tasks",),
            f"number_tasks is {config.number_tasks}, but {reference} lists {stages}",
            allowed=f"{stages}, or leave the key out",
        )
    for key in _PARALLEL:
        values = getattr(config, key)
        if isinstance(values, tuple) and len(values) != stages:
            yield _problem(
                (key,),
                f"{key} lists {len(values)}, but {reference} lists {stages}",
                allowed=f"a list of {stages}, one entry per stage",
            )


def _beginning(config: PipelineConfig) -> Iterator[InitErrorDetails]:
    for index, replicas in enumerate(config.initial_replica or ()):
        if replicas > config.scaling_cap:
            yield _problem(
                ("initial_replica", index),
                f"initial_replica is {replicas}, but scaling_cap {config.scaling_cap}",
                allowed="no more replicas at the start than scaling_cap",
            )


def _carbon(config: PipelineConfig) -> Iterator[InitErrorDetails]:
    carbon = config.carbon
    if carbon is not None and carbon.weight and carbon.budget_grams_per_day is not None:
        yield _problem(
            ("carbon", "weight"),
            "carbon.weight and carbon.budget_grams_per_day exclude each other",
            fix="leave weight out: the budget finds the price of a gram",
        )
    yield from _sites(config)


def _sites(config: PipelineConfig) -> Iterator[InitErrorDetails]:
    if not config.sites or config.carbon is None:
        return
    for key, wrong, allowed in (
        (("mix",), not config.mix, "mix: true, which splits the load"),
        (("request_classes",), bool(config.request_classes), "one class of requests"),
        (("carbon", "budget_grams_per_day"), config.carbon.budget_grams_per_day is not None,
         "carbon.weight or carbon.sla_grams"),
        (("carbon", "forecast"), config.carbon.forecast is not None,
         "the intensity in force at each site"),
        (("serving",), config.serving != "central", "serving: central"),
        (("gpus",), bool(config.gpus), "the capacity of each site"),
    ):  # fmt: skip
        if wrong:
            said = "without mix: true" if key == ("mix",) else f"with {'.'.join(key)}"
            yield _problem(key, f"carbon.sites {said}", allowed=allowed)


def _mix(config: PipelineConfig) -> Iterator[InitErrorDetails]:
    wrong = wrong_shares(config.classes)
    if wrong:
        yield _problem(("request_classes",), wrong, allowed="shares that add up to 1")
    if config.mix and config.accuracy_method == "multiply":
        yield _problem(
            ("accuracy_method",),
            "accuracy_method: multiply with mix: true",
            allowed="sum or average, or mix: false",
        )


def _gpus(config: PipelineConfig) -> Iterator[InitErrorDetails]:
    for name, gpus in (config.gpus or {}).items():
        if gpus.kind is None and gpus.partitions is None and name not in KINDS:
            yield _problem(
                ("gpus", name),
                f"gpus: nothing says how {name} can be cut",
                allowed=f"a kind ({', '.join(KINDS)}) or partitions",
            )


def _sla(config: PipelineConfig) -> Iterator[InitErrorDetails]:
    if isinstance(config.latency_sla_s, dict) and 0 not in config.latency_sla_s:
        yield _problem(
            ("latency_sla_s",),
            "latency_sla_s: nothing says what holds at second 0",
            allowed="a mapping with 0, such as {0: 1.0, 600: 0.5}",
        )


def _names(config: PipelineConfig) -> Iterator[InitErrorDetails]:
    tasks = config.task_name or ()
    yield from _repeated([("task_name", index) for index in range(len(tasks))], tasks)
    if config.nodes:
        places: list[KeyPath] = [("nodes", i, "node_name") for i in range(len(config.nodes))]
        yield from _repeated(places, config.node_names)
    elif config.model_name:
        places = [("model_name", i) for i in range(len(config.model_name))]
        yield from _repeated(places, config.model_name)


def _repeated(places: list[KeyPath], names: tuple[str, ...]) -> Iterator[InitErrorDetails]:
    for index, (place, name) in enumerate(zip(places, names, strict=True)):
        if name in names[:index]:
            yield _problem(
                place,
                f"{place[0]}: {name} is there twice",
                allowed="a name of its own for each stage",
            )


def _workload(config: PipelineConfig) -> Iterator[InitErrorDetails]:
    keys = {
        "static": "a mapping with loads_to_test (rps) and load_duration (s)",
        "twitter": "a list of windows, each with start and end (s) and damping_factor",
        "csv": "a mapping with path",
    }
    if config.workload_config is None and config.workload_type in keys:
        yield _problem(
            ("workload_type",),
            f"workload_type: {config.workload_type} needs a workload_config",
            allowed=keys[config.workload_type],
        )
    if isinstance(config.workload_config, tuple):
        for index, window in enumerate(config.workload_config):
            if isinstance(window, TwitterWindow) and window.end <= window.start:
                yield _problem(
                    ("workload_config", index, "end"),
                    f"end is {window.end} s, but start is {window.start} s",
                    allowed=f"an integer above {window.start}",
                )


def _prices(config: PipelineConfig) -> Iterator[InitErrorDetails]:
    if "core" in (config.prices or {}):
        yield _problem(
            ("prices", "core"), "prices.core: the price of a core is beta", fix="set beta"
        )
