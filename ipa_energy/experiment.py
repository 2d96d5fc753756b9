"""A run from its files to its folder: read, run or resume, write."""

from __future__ import annotations

import logging
import math
import platform
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

import ipa_energy
from ipa_energy.config import CsvWorkload, PipelineConfig, dump_config
from ipa_energy.errors import ConfigError, InfeasibleError, IpaEnergyError
from ipa_energy.optimizer.quantities import planned_load_rps
from ipa_energy.planning.follower import Schedule
from ipa_energy.planning.planner import Planner, load_planner
from ipa_energy.planning.policies import program_for
from ipa_energy.records import AT_SITE, Allocation
from ipa_energy.registries import BACKENDS, QUANTITIES, Serves, named
from ipa_energy.runlog import Interval, Run, RunInfo, RunInMemory, RunLog, Totals, read_run
from ipa_energy.runlog.folder import CONFIG_FILE, PROFILE_FILE, WORKLOAD_FILE
from ipa_energy.runlog.step import Finished, Step, further_terms
from ipa_energy.runner import Runner, View, initial_configuration
from ipa_energy.serving.base import LiveOptions, Setting
from ipa_energy.serving.deployment import Deployment, replica_start
from ipa_energy.serving.load import (
    ClassesOfRequests,
    TraceLoad,
    drawn_classes,
    shuffled_classes,
)
from ipa_energy.serving.local.cpu_groups import check_fits, free_bytes, machine_cores
from ipa_energy.workloads import Workload, workload_from
from ipa_energy.workloads.trace import busiest_rps
from ipa_energy.workloads.trace_files import OF_CLASS, TOTAL

logger = logging.getLogger(__name__)

OVERLOAD_LIMIT_S = 2.0
"""For a look at the busiest interval before a run."""

LOADS_TRIED = (0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0)
"""Quantiles of the trace at which a plan is looked for before a run begins."""

OBJECTIVE_SETTINGS = (
    *("alpha", "beta", "gamma", "energy_weight", "energy_metric", "energy_risk"),
    *("energy_sla_joules", "accuracy_method", "normalize_accuracy"),
    *("allocation_mode", "baseline_mode"),
)
"""Keys of the config that say what the best plan is; those of further quantities follow them."""

SETTINGS_LOGGED = (*OBJECTIVE_SETTINGS, "optimization_method", "predictor_type")
"""Keys of the config in ``run.json``."""

LOGGED_WHERE_SET = (
    *("controller", "mix", "accuracy_floor", "capacity", "gpus", "prices", "latency_model"),
    *("latency_margin", "throughput_margin", "predictor_margin", "forecast_levels"),
)
"""Further ones that decide, where they are not what they are by default."""

HORIZON_SETTINGS = ("horizon_s", "switching_price", "lateness_weight", "early_decisions")
"""Further ones of a run that looks ahead."""

NOT_LIVE = LiveOptions()

VERSIONS_OF = ("numpy", "gurobipy", "highspy")


@dataclass(frozen=True, slots=True)
class Experiment:
    """A pipeline and the load it is to run over.

    Attributes:
        planner: config, profile and program.
        workload: requests per second.
    """

    planner: Planner
    workload: Workload


def load_experiment(
    path: Path,
    overrides: Mapping[str, object] | None = None,
    *,
    policy: str | None = None,
    ipa_home: Path | None = None,
) -> Experiment:
    """Read everything a run needs.

    Raises:
        ConfigError: anything wrong with the YAML, the options, the profile or the trace.
        UnavailableError: the trace is in an IPA checkout and none is given.
    """
    planner = load_planner(path, overrides, policy=policy)
    workload = workload_from(planner.config, ipa_home)
    if planner.carbon is not None:
        planner.carbon.check_covers(workload.duration_s)
    _check_classes(planner.config, workload)
    return Experiment(planner, workload)


MUCH_OFF = 0.02
"""A share of a class that is so far off that of the plans is worth a word."""


def _check_classes(config: PipelineConfig, workload: Workload) -> None:
    """Refuse a trace with classes that the plans know nothing of."""
    found = {name: float(counts.sum()) for name, counts in workload.by_class.items()}
    if not found:
        return
    shares = {name: count / workload.requests for name, count in found.items()}
    told = ", ".join(f"{name}: {share:.4g}" for name, share in shares.items())
    known = {each.name: each.share for each in config.classes if each.share > 0}
    unknown = [name for name, count in found.items() if count and name not in known]
    if unknown:
        raise ConfigError(
            f"the trace has requests of class {', '.join(unknown)}, which no plan counts with",
            where=workload.source,
            allowed=", ".join(known) or "a trace with one column requests",
            fix=f"set request_classes: {{{told}}}",
        )
    off = [name for name, share in known.items() if abs(shares.get(name, 0) - share) > MUCH_OFF]
    if off:
        planned = ", ".join(f"{name}: {share:.4g}" for name, share in known.items())
        logger.warning(
            "%s: the shares of its requests are %s; plans count with %s",
            workload.source,
            told,
            planned,
        )


def classes_of(config: PipelineConfig, workload: Workload) -> ClassesOfRequests | None:
    """Which class each request is of; drawn by the shares where the trace does not say."""
    names = tuple(each.name for each in config.classes)
    if not names:
        return None
    if workload.by_class:
        none = np.zeros_like(workload.counts)
        by_class = [workload.by_class.get(name, none) for name in names]
        return ClassesOfRequests(names, shuffled_classes(by_class, seed=config.seed))
    shares = {each.name: each.share for each in config.classes}
    return ClassesOfRequests(names, drawn_classes(workload.counts, shares, seed=config.seed))


def check_serves(start: Deployment, config: PipelineConfig) -> None:
    """Refuse to begin with what cannot serve every class of requests."""
    for stage in start:
        for each in config.classes:
            serves = [lane.option.of_class(each.name) for lane in stage.lanes]
            if each.share > 0 and not any(serves):
                raise ConfigError(
                    f"stage {stage.stage} begins with {stage.label}, which is not profiled for"
                    f" requests of class {each.name}",
                    where="initial_active_model",
                    fix="name a variant that has figures for every class",
                )


def run_experiment(
    experiment: Experiment,
    out: Path | None = None,
    *,
    name: str | None = None,
    fixed: Deployment | None = None,
    backend: str = "simulate",
    resume: bool = False,
    show_progress: bool = False,
    live: LiveOptions = NOT_LIVE,
    view: View | None = None,
    decisions: Sequence[Step] = (),
    course: Schedule = (),
) -> Run:
    """Run to the end and return the run, which stands in a folder too if one is named.

    Args:
        experiment: what to run.
        out: the run folder: new, or with ``resume`` one that an unfinished run left; None writes
            nothing and gives the same run.
        name: what tables and plots call it; default the folder's name.
        fixed: a configuration to keep from the first second to the last.
        backend: what serves, a name in :data:`~ipa_energy.registries.BACKENDS`.
        resume: go on with the run in ``out``.
        show_progress: a progress bar on a terminal's stderr.
        live: how a live run is watched.
        view: shows the run while it goes on, instead of the progress bar.
        decisions: of another run over the same load, one an interval, to simulate instead of
            deciding: what would the simulation have made of them?
        course: what to run from which second on, instead of deciding.

    Raises:
        ConfigError: the folder is taken, holds another run, or cannot be written; there is no
            such backend.
        InfeasibleError: no load of the trace has a feasible plan; nothing is written.
        LicenceError: the solver's licence is missing or too small; nothing is written.
        ServingError: the backend failed; the finished intervals stay.
    """
    make = named(BACKENDS, backend, kind="backend", where="--backend")
    entry = BACKENDS[backend]
    if experiment.planner.config.sites and backend != "simulate":
        raise ConfigError(
            f"{backend} serves in one place",
            where="carbon.sites",
            allowed="backend simulate; or a run a site, each with its own carbon.intensity",
        )
    if experiment.planner.config.mix and not getattr(entry, "mixes", False):
        able = [name for name, one in BACKENDS.items() if getattr(one, "mixes", False)]
        raise ConfigError(
            f"{backend} serves one option a stage",
            where="mix",
            allowed=", ".join(["mix: false", *(f"backend {name}" for name in able)]),
        )
    by_class = getattr(entry, "by_class", False)
    if experiment.planner.config.mix and experiment.planner.config.classes and not by_class:
        raise ConfigError(
            f"{backend} does not deal out requests by their class",
            where="request_classes",
            allowed="request_classes with mix: false, mix: true without classes, or another"
            " backend",
        )
    if experiment.workload.by_class and not by_class:
        raise ConfigError(
            f"{backend} does not send requests of a class",
            where="workload_config",
            fix="give a trace with one column requests: its plans still count with the shares of"
            " request_classes",
        )
    if isinstance(entry, Serves) and entry.on_this_machine and not live.overcommits:
        experiment = _fitted(experiment, fixed)
    called = name or (out.name if out else "run")
    if not called.isprintable():
        raise ConfigError(f"{called!r}", where="--name", allowed="printable text")
    if not resume and fixed is None and not course:
        check_feasible(experiment)
        warn_of_overload(experiment)
        warn_of_full_replicas(experiment.planner.config)
    log: RunLog | RunInMemory
    if resume and out is not None:
        log = _resumed(experiment, out, name)
    else:
        info = _info(experiment, called, backend)
        log = RunInMemory(info) if out is None else _created(experiment, out, info)
    if isinstance(log, RunLog) and log.is_complete:
        logger.warning("%s: the run is complete already, there is nothing to resume", out)
        return read_run(log.path)
    with log:
        try:
            setting = replace(
                setting_of(experiment, fixed, log.elapsed_s if resume else 0.0, live),
                folder=out,
                logged_until_s=log.finished[-1].end_s if log.finished else 0.0,
                next_request_id=log.next_request_id,
            )
            with closing(make(setting)) as serving:
                runner = Runner(
                    experiment.planner,
                    serving,
                    fixed=fixed,
                    corrects_drift=live.corrects_drift,
                    # Stubs that sleep spend no joules by which a profile could be corrected.
                    watches_drift=not (backend == "local-stub" and live.stubs_sleep),
                    view=view,
                    course=course,
                )
                _go(runner, log, show_progress and view is None, decisions)
        except IpaEnergyError as error:
            with suppress(ConfigError):  # the disk that refused the interval refuses this as well
                log.fail(str(error))
            raise
    if isinstance(log, RunLog):
        return read_run(log.path)
    profile = experiment.planner.profile_path.read_bytes()
    workload = _workload_csv(experiment.workload)
    return log.run(_config_yaml(experiment), workload.encode(), profile)


def _fitted(experiment: Experiment, fixed: Deployment | None) -> Experiment:
    """The same with this machine's cores as a capacity of its plans.

    Raises:
        ConfigError: what runs first does not fit.
    """
    planner, cores = experiment.planner, machine_cores()
    capacity = dict(planner.config.capacity or {})
    capacity["core"] = min(cores, capacity.get("core", math.inf))
    config = planner.config.model_copy(update={"capacity": capacity})
    planner = replace(
        planner, config=config, planned=program_for(config, planner.stages, planner.signals())
    )
    start = fixed or initial_configuration(planner)
    mean_rps = float(experiment.workload.counts.mean())
    plans = planner.decide(mean_rps).plans
    check_fits(
        start,
        cores=cores,
        memory_bytes=free_bytes(),
        what="what runs" if fixed else "the initial configuration",
        instead=f"{plans[0].label} at {mean_rps:.3g} rps" if plans else None,
    )
    return replace(experiment, planner=planner)


def setting_of(
    experiment: Experiment, fixed: Deployment | None, resumed_at_s: float, live: LiveOptions
) -> Setting:
    """What the roles of a run are made from; no folder yet."""
    planner, config = experiment.planner, experiment.planner.config
    load = TraceLoad(experiment.workload.counts, mode=config.mode, seed=config.seed)
    start = fixed or initial_configuration(planner)
    check_serves(start, config)
    return Setting(
        config,
        planner.stages,
        start,
        load,
        resumed_at_s,
        planner.planned.latency_sla_s,
        live,
        classes=classes_of(config, experiment.workload),
    )


def _go(
    runner: Runner, log: RunLog | RunInMemory, show_progress: bool, decisions: Sequence[Step]
) -> None:
    """Run or go on, and log every interval that is not in the log yet."""
    is_replay = runner.backend.resumes == "replay"
    totals = Totals() if is_replay else log.totals
    done = len(log.finished) if is_replay else 0
    first_id = log.next_request_id
    logged = [*log.finished] or [
        Finished(start_s=step.start_s, end_s=step.end_s, requests=0, step=step)
        for step in decisions
    ]
    for index, interval in enumerate(runner.intervals(logged, show_progress=show_progress)):
        status = interval.decision.status if interval.decision else None
        further = further_terms(interval.plan.terms)
        totals.add(interval.served, status, interval.reconfigured, further)
        if index >= done:
            log.append_interval(interval if is_replay else _numbered_from(first_id, interval))
    log.complete(totals.to_json())


def _numbered_from(first_id: int, interval: Interval) -> Interval:
    """An adopted backend counts requests from 0 again; the run goes on counting."""
    served = interval.served
    ids = served.requests.request_id + first_id
    served = replace(served, requests=replace(served.requests, request_id=ids))
    return replace(interval, served=served)


def check_feasible(experiment: Experiment) -> None:
    """Decide at loads across the trace until one has a plan, as a run would.

    Raises:
        InfeasibleError: none has; the message is that of the mean load.
        UnavailableError: the solver cannot be used.
    """
    planner, counts = experiment.planner, experiment.workload.counts
    limit_s, interval_s = planner.config.limit_in_runs_s, planner.config.adaptation_interval
    mean = planner.decide(float(counts.mean()), limit_s=limit_s)
    if mean.status == "unknown":
        return
    loads = {planned_load_rps(float(rps), interval_s) for rps in np.quantile(counts, LOADS_TRIED)}
    if not mean.plans and not any(
        planner.decide(rps, limit_s=limit_s).plans for rps in sorted(loads)
    ):
        raise InfeasibleError(
            f"no load of the trace has a plan: at its mean, {mean.load_rps:g} rps, {mean.conflict}"
        )


def warn_of_overload(experiment: Experiment) -> None:
    """Say so if the busiest interval of the trace has no plan: a run keeps what it had then."""
    planner, workload = experiment.planner, experiment.workload
    seconds = min(int(planner.config.adaptation_interval), workload.duration_s)
    load_rps = busiest_rps(workload.counts, seconds)
    limit_s = min(OVERLOAD_LIMIT_S, planner.config.limit_in_runs_s)
    found = planner.decide(load_rps, limit_s=limit_s)
    if found.status == "infeasible":
        logger.warning(
            "%s: no plan carries its busiest %d s, %.3g rps, and requests will come late: %s",
            workload.source,
            seconds,
            load_rps,
            found.conflict,
        )


def warn_of_full_replicas(config: PipelineConfig) -> None:
    """Say so if mixes would fill their replicas to exactly the load that is planned for."""
    no_room = config.throughput_margin >= 0 and config.latency_model == "service"
    if config.mix and no_room and config.latency_sla_s is not None:
        logger.warning(
            "mix: true fills replicas to exactly the load planned for, so that requests come late"
            " where it rises; latency_model: queue leaves room"
        )


def experiment_of(run: Run) -> Experiment | None:
    """What a run was made from: the copies of config, profile and trace in its folder.

    None if the folder does not hold them, as IPA's own do not.
    """
    needed = (CONFIG_FILE, PROFILE_FILE, WORKLOAD_FILE)
    if run.path is None or not all((run.path / name).exists() for name in needed):
        return None
    return load_experiment(run.path / CONFIG_FILE)


def _created(experiment: Experiment, out: Path, info: RunInfo) -> RunLog:
    copies = _copies(experiment)
    config_yaml = copies.pop(CONFIG_FILE).decode()
    return RunLog.create(out, config_yaml=config_yaml, info=info, attachments=copies)


def _resumed(experiment: Experiment, out: Path, name: str | None) -> RunLog:
    log = RunLog.resume(out)
    try:
        _check_same(experiment, out)
        if name not in (None, log.info.name):
            raise ConfigError(
                f"the run is called {log.info.name}", where="--name", fix="leave it out"
            )
    except ConfigError:
        log.close()
        raise
    return log


def _check_same(experiment: Experiment, out: Path) -> None:
    """Refuse to go on with a run of other inputs."""
    for name, content in _copies(experiment).items():
        try:
            is_same = (out / name).read_bytes() == content
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise ConfigError(
                f"cannot be read ({reason}), so it cannot be told whether the run was begun with"
                " the same options, profile and trace",
                where=out / name,
                fix="put it back, or start anew with another --out",
            ) from error
        if not is_same:
            raise ConfigError(
                "the run that began here had other options, profile or trace",
                where=out / name,
                fix=f"resume with {out / CONFIG_FILE}, or start anew with another --out",
            )


def _copies(experiment: Experiment) -> dict[str, bytes]:
    """What a run folder has of a run's inputs: file → content."""
    return {
        CONFIG_FILE: _config_yaml(experiment).encode(),
        PROFILE_FILE: experiment.planner.profile_path.read_bytes(),
        WORKLOAD_FILE: _workload_csv(experiment.workload).encode(),
        **{name: path.read_bytes() for name, path in _intensity_files(experiment).values()},
    }


def _intensity_files(experiment: Experiment) -> dict[str, tuple[str, Path]]:
    """Key of ``carbon`` → (the copy's name, the file), of those that are files."""
    carbon = experiment.planner.config.carbon
    files = {} if carbon is None else carbon.files
    named = {key: key.replace(AT_SITE, "intensity-") for key in files}
    return {key: (f"{named[key]}{path.suffix}", path) for key, path in files.items()}


def _config_yaml(experiment: Experiment) -> str:
    """The resolved config; its files are the copies beside it, so a folder reruns alone."""
    copies: dict[str, object] = {
        "profile": Path(PROFILE_FILE),
        "workload_type": "csv",
        "workload_config": CsvWorkload(path=Path(WORKLOAD_FILE)),
    }
    carbon = experiment.planner.config.carbon
    if carbon is not None:
        names = {key: Path(name) for key, (name, _) in _intensity_files(experiment).items()}
        copies["carbon"] = carbon.with_files(names)
    return dump_config(experiment.planner.config.model_copy(update=copies))


def _workload_csv(workload: Workload) -> str:
    columns = {OF_CLASS + name: counts for name, counts in workload.by_class.items()}
    columns = columns or {TOTAL: workload.counts}
    rows = zip(*(counts.tolist() for counts in columns.values()), strict=True)
    lines = [",".join(map(str, (second, *row))) for second, row in enumerate(rows)]
    return "\n".join([",".join(["second", *columns]), *lines, ""])


def _cores(held: Sequence[Allocation]) -> float | dict[str, float]:
    """Cores of a base allocation, as IPA logs it; by hardware where a variant has several."""
    if len(held) == 1:
        return held[0].cpu_cores
    return {allocation.label: allocation.cpu_cores for allocation in held}


def settings_of(config: PipelineConfig, keys: Sequence[str]) -> dict[str, Any]:
    """Some keys of a config, then the weights and caps of further quantities by theirs."""
    weights, caps = config.objective_weights, config.quantity_caps
    return {
        **{key: getattr(config, key) for key in keys},
        **{QUANTITIES[name].weight_key or name: weight for name, weight in weights.items()},
        **{f"{QUANTITIES[name].cap_key}": cap for name, cap in caps.items()},
    }


def _info(experiment: Experiment, name: str, backend: str) -> RunInfo:
    planner, config = experiment.planner, experiment.planner.config
    planned = planner.planned
    return RunInfo(
        name=name,
        stages=tuple(stage.name for stage in config.stages),
        nodes=config.node_names,
        start_time_s=time.time(),
        duration_s=float(experiment.workload.duration_s),
        interval_s=float(config.adaptation_interval),
        latency_sla_s=planned.latency_sla_s,
        stage_slas_s=planned.stage_slas_s,
        base_allocations={
            stage: {variant: _cores(held) for variant, held in allocations.items()}
            for stage, allocations in (planned.base_allocations or {}).items()
        },
        backend=backend,
        seed=config.seed,
        meter=planner.meter,
        quality="estimated" if planner.meter else None,
        workload=experiment.workload.name,
        profile=planner.profile_path.name,
        hardware=planner.hardware,
        settings={
            **settings_of(config, SETTINGS_LOGGED),
            **config.model_dump(mode="json", include={*LOGGED_WHERE_SET}, exclude_defaults=True),
            **({"carbon": planner.carbon.to_json()} if planner.carbon else {}),
            **({"latency_sla_s": config.sla_steps.to_json()} if config.sla_steps else {}),
            **(
                {"queue_order": config.order}
                if config.order != "fifo" or config.controller == "horizon"
                else {}
            ),
            **({"log_detail": "counts"} if config.log_detail == "counts" else {}),
            **({"request_classes": _logged_classes(config)} if config.classes else {}),
            **(settings_of(config, HORIZON_SETTINGS) if config.controller == "horizon" else {}),
            **(
                {
                    "replica_start": replica_start(planner.stages, config.told_s),
                    **({"serving": config.serving} if config.serving != "central" else {}),
                }
                if backend == "simulate"
                else {}
            ),
        },
        versions=versions_of(VERSIONS_OF),
    )


def _logged_classes(config: PipelineConfig) -> dict[str, dict[str, float]]:
    """Class of requests → its share, and its latency SLA where it has its own."""
    return {
        each.name: {
            "share": each.share,
            **({} if each.latency_sla_s is None else {"latency_sla_s": each.latency_sla_s}),
        }
        for each in config.classes
    }


def versions_of(packages: Iterable[str]) -> dict[str, str]:
    """Program → version: ours, Python's, and of the packages that are installed."""
    versions = {"ipa-energy": ipa_energy.__version__, "python": platform.python_version()}
    for package in packages:
        with suppress(metadata.PackageNotFoundError):
            versions[package] = metadata.version(package)
    return versions
