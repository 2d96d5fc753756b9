"""Everything that is chosen by a name, one dict each.

A new solver, predictor, meter, workload, backend, objective term or pipeline is one file and one
entry here: the YAML's schema, the command line's choices and its help come from the keys, so that
an entry added while the program runs can be used at once. What an entry stands for is imported
when it is first used, which keeps ``--help`` fast and the layers apart.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ipa_energy.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Named:
    """What a name stands for.

    Attributes:
        help: what it is, for ``--help`` and the documentation; begins in lower case, no full stop.
        target: ``package.module:attribute``, imported by :meth:`load`; or the thing itself.
    """

    help: str
    target: Any

    def load(self) -> Any:
        """The thing itself."""
        if not isinstance(self.target, str):
            return self.target
        module, _, attribute = self.target.partition(":")
        return getattr(importlib.import_module(module), attribute)


@dataclass(frozen=True, slots=True)
class Quantity(Named):
    """What plans have a figure of, to be weighted in the objective and capped.

    Attributes:
        unit: of the figure.
        weight_key: key of the YAML that weights it in the objective, a number from 0; with a dot it
            is a key inside another; None: none.
        cap_key: key of the YAML that caps it, a number above 0; None: none.
        needs_joules: True if it cannot be computed from a profile without joules.
        is_metric: True if ``energy_weight`` may weigh it although its own key is another.
    """

    unit: str = ""
    weight_key: str | None = None
    cap_key: str | None = None
    needs_joules: bool = False
    is_metric: bool = False


def named(registry: Mapping[str, Named], name: str, *, kind: str, where: str | None = None) -> Any:
    """What ``name`` stands for in a registry.

    Args:
        registry: one of this module's dicts.
        name: a key.
        kind: what it is a name of, for the message.
        where: key or option that it was given by.

    Raises:
        ConfigError: there is no such name.
    """
    if name not in registry:
        raise ConfigError(f"unknown {kind} {name!r}", where=where, allowed=", ".join(registry))
    return registry[name].load()


SOLVERS: dict[str, Named] = {
    "pareto": Named("exact, needs NumPy only", "ipa_energy.optimizer.pareto:solve"),
    "gurobi": Named("as in IPA; needs a licence that fits", "ipa_energy.optimizer.gurobi:solve"),
    "highs": Named("exact, by HiGHS", "ipa_energy.optimizer.highs:solve"),
    "auto": Named("pareto, then gurobi or highs", "ipa_energy.optimizer.portfolio:solve"),
    "brute-force": Named("every plan, small programs", "ipa_energy.optimizer.exhaustive:solve"),
}
"""``solve(problem, top_k) -> choices``, best first; one that can stop in time says so with
:func:`ipa_energy.optimizer.deadline.stops_in_time`."""

PREDICTORS: dict[str, Named] = {
    "reactive": Named("the last ten seconds", "ipa_energy.adaptation.predictor:forecast_reactive"),
    "avg": Named("the mean of the maxima", "ipa_energy.adaptation.predictor:forecast_avg"),
    "arima": Named(
        "ARIMA(1, 0, 0) of the maxima", "ipa_energy.adaptation.predictor:forecast_arima"
    ),
    "lstm": Named("IPA's network, in NumPy", "ipa_energy.adaptation.predictor:forecast_lstm"),
    "max": Named("the largest of the maxima", "ipa_energy.adaptation.predictor:forecast_max"),
    "seasonal": Named(
        "what followed the same phase of earlier periods",
        "ipa_energy.adaptation.predictor:forecast_seasonal",
    ),
    "ensemble": Named(
        "lstm, arima and seasonal, by how good they were lately",
        "ipa_energy.adaptation.predictor:forecast_ensemble",
    ),
    "oracle": Named("knows the trace", "ipa_energy.adaptation.predictor:OraclePredictor"),
}
"""A function ``forecast(maxima) -> load_rps`` of the last minutes' maxima of ten seconds each,
oldest first, to which backup and margin are added; a function ``forecast(counts, horizon_s)``,
marked with :func:`ipa_energy.adaptation.forecast.takes_counts`; or a class
``Predictor(trace, horizon_s)`` that predicts by itself from the counts of the whole trace, which
only a simulation has."""


def backup_predictors() -> tuple[str, ...]:
    """Names in :data:`PREDICTORS` that can stand in for another: functions of the maxima."""
    loaded = {name: entry.load() for name, entry in PREDICTORS.items()}
    return tuple(
        name
        for name, found in loaded.items()
        if not isinstance(found, type) and not hasattr(found, "takes_counts")
    )


WORKLOADS: dict[str, Named] = {
    "static": Named("a constant load", "ipa_energy.workloads:static_of"),
    "twitter": Named("IPA's trace, in a checkout", "ipa_energy.workloads:twitter_of"),
    "bursty": Named("a burst every 20 minutes", "ipa_energy.workloads:shape_of"),
    "steady-low": Named("about 5 requests a second", "ipa_energy.workloads:shape_of"),
    "steady-high": Named("about 29 requests a second", "ipa_energy.workloads:shape_of"),
    "fluctuating": Named("a rise every 10 minutes", "ipa_energy.workloads:shape_of"),
    "diurnal": Named("days, most at 20 o'clock", "ipa_energy.workloads:shape_of"),
    "csv": Named("a CSV of requests per second", "ipa_energy.workloads:csv_of"),
}
"""``make(config, ipa_home) -> Workload``; its parameters are ``config.workload_config``, its seed
``config.seed``."""


@dataclass(frozen=True, slots=True)
class Serves(Named):
    """What serves a pipeline.

    Attributes:
        on_this_machine: True if its replicas hold this machine's cores, so that what does not fit
            here is neither started nor planned.
        mixes: True if a stage may run several options at once on it.
        by_class: True if it tells classes of requests apart.
        takes: options of ``run`` that bear on it, of those that do not bear on all; None: all.
    """

    on_this_machine: bool = False
    mixes: bool = False
    by_class: bool = False
    takes: tuple[str, ...] | None = None


_OF_LIVE_RUNS = ("images", "lease", "exporter", "prometheus", "no_drift_correction")
_OF_THIS_MACHINE = ("meter", "powercap", "overcommit")
_OF_A_CLUSTER = ("kubeconfig", "context", "namespace")
_OF_MODELS = ("weights",)

BACKENDS: dict[str, Named] = {
    "simulate": Serves(
        "a simulation in virtual time",
        "ipa_energy.serving.simulated.backend:simulated",
        mixes=True,
        by_class=True,
        takes=(),
    ),
    "local": Serves(
        "its models on this machine, in real time",
        "ipa_energy.serving.local:local",
        on_this_machine=True,
        mixes=True,
        by_class=True,
        takes=(*_OF_LIVE_RUNS, *_OF_THIS_MACHINE, *_OF_MODELS),
    ),
    "local-stub": Serves(
        "the same with stubs that take the profile's times",
        "ipa_energy.serving.local:local_stub",
        on_this_machine=True,
        mixes=True,
        by_class=True,
        takes=(*_OF_LIVE_RUNS, *_OF_THIS_MACHINE),
    ),
    "kubernetes": Serves(
        "its models on a cluster",
        "ipa_energy.serving.kubernetes:kubernetes",
        mixes=True,
        by_class=True,
        takes=(*_OF_LIVE_RUNS, *_OF_A_CLUSTER, *_OF_MODELS),
    ),
    "kubernetes-stub": Serves(
        "the same with stubs",
        "ipa_energy.serving.kubernetes:kubernetes_stub",
        mixes=True,
        by_class=True,
        takes=(*_OF_LIVE_RUNS, *_OF_A_CLUSTER),
    ),
}
"""``make(setting) -> Serving``: from a :class:`ipa_energy.serving.base.Setting` to the backend and
the clock that it runs by."""

PIPELINES: dict[str, Named] = {
    "video": Named("crop → classification, YOLOv5 and ResNet", "video"),
    "audio-sent": Named("audio → nlp-sent, Speech2Text and BERT", "audio"),
    "llm-local": Named("generate, GPT-2 with forced lengths", "llm"),
}
"""Folder with a ``pipeline.py``, by its name among those shipped or by its path; or its module.

Not imported here but by each replica's own process (:mod:`ipa_energy.pipeline_models`).
"""

_LITERATURE = "ipa_energy.planning.literature"
CONTROLLERS: dict[str, Named] = {
    "interval": Named(
        "the best plan for the load of the next interval, whatever runs",
        f"{_LITERATURE}:interval_adapter",
    ),
    "horizon": Named(
        "the best course of plans over horizon_s, every change paid for",
        "ipa_energy.planning.horizon_adapter:HorizonAdapter",
    ),
    "ipa": Named("interval, with IPA's choice among equals", f"{_LITERATURE}:ipa_adapter"),
    "hpa": Named("Kubernetes' HPA on utilisation", f"{_LITERATURE}:HpaAdapter"),
    "inferline": Named("InferLine's planner and tuner", f"{_LITERATURE}:InferlineAdapter"),
}
"""``make(planner, predictor, signals) -> Adapter``: how a run decides, ``controller`` in a YAML."""

_POLICY = "ipa_energy.planning.policies"
POLICIES: dict[str, Named] = {
    "ipa": Named("IPA itself", f"{_POLICY}:unrestricted"),
    "fa2-low": Named("FA2 on the least accurate variants", f"{_POLICY}:fa2_low"),
    "fa2-high": Named("FA2 on the most accurate variants", f"{_POLICY}:fa2_high"),
    "rim-low": Named("RIM on 1 replica", f"{_POLICY}:rim_low"),
    "rim-high": Named("RIM on 3 replicas", f"{_POLICY}:rim_high"),
    "ipa-switch": Named("IPA with its own switching rule", f"{_POLICY}:ipa_switch"),
    "hpa-low": Named("Kubernetes' HPA on the least accurate variants", f"{_POLICY}:hpa_low"),
    "hpa-high": Named("Kubernetes' HPA on the most accurate variants", f"{_POLICY}:hpa_high"),
    "inferline-low": Named("InferLine on the least accurate", f"{_POLICY}:inferline_low"),
    "inferline-high": Named("InferLine on the most accurate", f"{_POLICY}:inferline_high"),
}
"""``policy(config, stages) -> config``: a preset of modes laid over the YAML."""

_QUANTITIES = "ipa_energy.optimizer.quantities"
QUANTITIES: dict[str, Quantity] = {
    "cost": Quantity("reserved cores", f"{_QUANTITIES}:cores", "cores", "beta"),
    "batch": Quantity("batch sizes", f"{_QUANTITIES}:batches", "requests", "gamma"),
    "latency_s": Quantity(
        "model latency and batch wait", f"{_QUANTITIES}:latency_s", "s", cap_key="latency_sla_s"
    ),
    "joules_per_request": Quantity(
        "joules of a pipeline request",
        f"{_QUANTITIES}:joules_per_request",
        "J",
        "energy_weight",
        "energy_sla_joules",
        needs_joules=True,
    ),
    "watts": Quantity("power", f"{_QUANTITIES}:watts", "W", "energy_weight", needs_joules=True),
    "grams_per_request": Quantity(
        "grams of CO2 equivalent of a pipeline request",
        f"{_QUANTITIES}:grams_per_request",
        "g",
        "carbon.weight",
        "carbon.sla_grams",
        needs_joules=True,
        is_metric=True,
    ),
    "priced_grams": Quantity(
        "grams at the price that keeps the budget of the day",
        f"{_QUANTITIES}:priced_grams",
        needs_joules=True,
    ),
}
"""``amount(option, replicas, stage, moment) -> float``, see :mod:`ipa_energy.optimizer.quantities`.
Terms of the objective and caps, by name. A weight or cap whose key is none of the YAML's own
becomes one; ``PipelineConfig.objective_weights`` and ``quantity_caps`` hold what a YAML says."""


def energy_metrics() -> tuple[str, ...]:
    """Names in :data:`QUANTITIES` that ``energy_weight`` may weigh: those of ``energy_metric``."""
    return tuple(
        name
        for name, item in QUANTITIES.items()
        if item.is_metric or item.weight_key == "energy_weight"
    )


METERS: dict[str, Named] = {
    "rapl": Named("processors and memory, from files", "ipa_energy.meters.rapl:RAPL"),
    "perf": Named("the same, as the kernel's events", "ipa_energy.meters.perf:PERF"),
    "nvml": Named("NVIDIA GPUs, their counters", "ipa_energy.meters.nvml:NVML"),
    "nvml-power": Named("NVIDIA GPUs, their power added up", "ipa_energy.meters.nvml:NVML_POWER"),
    "kepler": Named(
        "nodes, pods or containers", "ipa_energy.meters.prometheus.exporters:KEPLER_SOURCE"
    ),
    "dcgm": Named("GPUs of a cluster", "ipa_energy.meters.prometheus.exporters:DCGM_SOURCE"),
    "prometheus": Named("any query", "ipa_energy.meters.prometheus.prometheus_meter:QUERY"),
    "cpu-time": Named("CPU time × a power model", "ipa_energy.meters.cgroup:CPU_TIME"),
}
"""A :class:`ipa_energy.meters.sources.Source`; in the order that ``ipa-energy meters`` shows."""
