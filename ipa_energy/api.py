"""The verbs of ``import ipa_energy``: what the command line does, as functions.

A pipeline is the path of a YAML, the name of one that comes with the program, or what
:func:`load_pipeline` made of either. Keys of the YAML are overridden by keyword, and ``workload``
stands for a shape or a CSV of requests per second, as on the command line.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ipa_energy.comparing import Comparison, numbered
from ipa_energy.config import PipelineConfig, load_config
from ipa_energy.errors import ConfigError
from ipa_energy.experiment import Experiment, run_experiment
from ipa_energy.frontier.yardsticks import held_against, yardsticks_of
from ipa_energy.optimizer.solve import Result
from ipa_energy.pipeline_models import find_pipeline
from ipa_energy.planning.planner import Planner, load_planner
from ipa_energy.runlog import Run, read_run
from ipa_energy.shipped import find_config
from ipa_energy.workloads import workload_from

if TYPE_CHECKING:
    from ipa_energy.meters.base import Meter
    from ipa_energy.meters.sources import Places
    from ipa_energy.profiling.profile_sweep import Sweep
    from ipa_energy.tradeoff.study import Study

Pipeline = str | Path | Planner

__all__ = ["compare", "load_pipeline", "plan", "profile", "run", "study"]


def profile(
    pipeline: str | Path,
    out: str | Path,
    *,
    models: str | Path | None = None,
    meter: str | Meter = "auto",
    gpu_shares: Sequence[float] = (0.0,),
    replicas: Sequence[int] = (1,),
    window_s: float | None = None,
    quick: bool = False,
    weights: Mapping[str, str] | None = None,
    power_model: str | Path | None = None,
    places: Places | None = None,
    **choices: Any,
) -> Sweep:
    """Run a pipeline's real models and measure every (variant, cores, batch) into a table.

    Args:
        pipeline: the path of a YAML, or the name of a shipped one.
        out: the CSV to write; ``OUT.meta.json`` and ``OUT.trials.jsonl`` are written beside it.
        models: folder with the pipeline's ``pipeline.py``; None for ``pipelines/NAME``.
        meter: ``auto``, the name of one of the processors and one of the GPUs joined by ``+``, or
            a meter of your own, of the whole machine.
        gpu_shares: of one GPU for a replica; 0 for entries on CPUs alone.
        replicas: numbers of replicas that work at once.
        window_s: shortest window; None for the usual.
        quick: short trials, one an entry.
        weights: variant → weights file, beside and before those that the YAML names.
        power_model: of the cpu-time meter; None for this machine's.
        places: where meters look; None for the usual places.
        choices: further ones of ``profile_pipeline`` in ``profiling/profile_sweep.py``: ``stages``,
            ``variants``, ``batches``, ``allocations``, ``loads_rps``, ``trials``, ``resume``,
            ``budget``, ``time_limit_s`` …

    Returns:
        The rows that were measured and predicted, and the entries that failed, with the reason.

    Raises:
        ConfigError: bad input, or the table is there already.
        UnavailableError: no meter or no model can be used here.
    """
    from ipa_energy.profiling.gpus import check_shares, find_gpus
    from ipa_energy.profiling.profile_sweep import profile_pipeline
    from ipa_energy.profiling.replica_meter import machine_choice, replica_meter
    from ipa_energy.profiling.trial_windows import TrialSettings

    path = find_config(pipeline)
    config = load_config(path)
    reference = str(models) if models is not None else _models(config, path)
    named = {variant: str(file) for variant, file in (config.weights or {}).items()}
    check_shares(gpu_shares)
    gpus = find_gpus(gpu_shares, replicas) if any(gpu_shares) else None
    settings = TrialSettings().quick() if quick else TrialSettings()
    settings = settings if gpus is None else settings.for_gpu()
    settings = settings if window_s is None else settings.with_window(window_s)
    choices = {"trials": 1 if quick else None} | choices
    with contextlib.ExitStack() as opened:
        if isinstance(meter, str):
            model = None if power_model is None else Path(power_model)
            found = replica_meter(meter, gpus=gpus, power_model=model, places=places)
            choice = opened.enter_context(found)
        else:
            choice = machine_choice(meter)
        return profile_pipeline(
            reference,
            out=Path(out),
            meter=choice,
            gpus=gpus,
            gpu_shares=gpu_shares,
            replicas=replicas,
            weights=named | dict(weights or {}),
            settings=settings,
            **choices,
        )


def _models(config: PipelineConfig, path: Path) -> str:
    """What has the models of the pipeline of a YAML: a folder near it or here, or a shipped one."""
    beside = path.resolve().parent
    near = (Path.cwd(), beside, beside.parent)
    return find_pipeline(config.pipeline_folder_name or config.pipeline_name, near, where=path)


def load_pipeline(pipeline: Pipeline, *, policy: str | None = None, **overrides: object) -> Planner:
    """A pipeline ready to be planned for: its YAML, its profile, and the program the two make.

    Args:
        pipeline: the path of a YAML, or the name of a shipped one (``"video"``).
        policy: one of IPA's baselines laid over the YAML, a key of
            :data:`~ipa_energy.registries.POLICIES`.
        overrides: YAML key → value.

    Raises:
        ConfigError: anything wrong with the YAML, the overrides or the profile.
    """
    if isinstance(pipeline, Planner):
        if policy is not None or overrides:
            raise ConfigError(
                "a loaded pipeline takes no overrides", fix="give them to load_pipeline"
            )
        return pipeline
    return load_planner(find_config(pipeline), overrides, policy=policy)


def plan(
    pipeline: Pipeline,
    load_rps: float,
    *,
    top: int = 1,
    policy: str | None = None,
    **overrides: object,
) -> Result:
    """Decide once: variant, allocation, batch and replicas of every stage at one load.

    Args:
        pipeline: see :func:`load_pipeline`.
        load_rps: pipeline requests per second, above 0.
        top: how many plans, best first.
        policy: one of IPA's baselines.
        overrides: YAML key → value.

    Returns:
        ``plans``, each with its certificate; none if nothing is feasible, and then ``conflict``
        says which constraints exclude each other and what the cheapest way out is.

    Raises:
        ConfigError: bad input.
        UnavailableError: the solver or its licence is missing.
    """
    planner = load_pipeline(pipeline, policy=policy, **overrides)
    if not load_rps > 0:
        raise ConfigError(f"{load_rps:g} rps", where="load_rps", allowed="a number above 0")
    return planner.decide(load_rps, top_k=top, limit_s=planner.config.decision_limit_s)


def run(
    pipeline: Pipeline,
    out: str | Path | None = None,
    *,
    name: str | None = None,
    backend: str = "simulate",
    resume: bool = False,
    ipa_home: str | Path | None = None,
    policy: str | None = None,
    **overrides: object,
) -> Run:
    """Adapt a pipeline to its load trace, interval by interval.

    Args:
        pipeline: see :func:`load_pipeline`.
        out: run folder to write; None writes nothing.
        name: what tables and plots call it; default the folder's name.
        backend: what serves, a key of :data:`~ipa_energy.registries.BACKENDS`.
        resume: go on with the unfinished run in ``out``.
        ipa_home: checkout of IPA, for ``workload_type: twitter``.
        policy: one of IPA's baselines.
        overrides: YAML key → value; ``workload`` is a shape or a CSV.

    Raises:
        ConfigError: bad input, or the folder is taken.
        InfeasibleError: no load of the trace has a plan.
        UnavailableError: something that the run needs is missing here.
    """
    planner = load_pipeline(pipeline, policy=policy, **overrides)
    home = None if ipa_home is None else Path(ipa_home)
    experiment = Experiment(planner, workload_from(planner.config, home))
    folder = None if out is None else Path(out)
    return run_experiment(experiment, folder, name=name, backend=backend, resume=resume)


def study(
    pipeline: Pipeline,
    *loads_rps: float,
    duration_s: int = 120,
    configurations: int = 10,
    trials: int = 3,
    sensitivity: bool = False,
    out: str | Path | None = None,
    backend: str = "simulate",
    policy: str | None = None,
    **overrides: object,
) -> Study:
    """What energy adds to accuracy, cost and latency: what ``ipa-energy tradeoff`` finds.

    Args:
        pipeline: see :func:`load_pipeline`.
        loads_rps: constant loads, one or more, each studied for itself.
        duration_s: length of a trial's load.
        configurations: how many to choose, so that they cover the space.
        trials: of each configuration.
        sensitivity: also exchange rates, shadow prices and how robust the best plan is.
        out: a new folder for the run folders of all trials; None keeps none.
        backend: what serves the trials, a key of :data:`~ipa_energy.registries.BACKENDS`.
        policy: one of IPA's baselines.
        overrides: YAML key → value.

    Returns:
        Points, correlations and fronts of each load, the map of optimal plans, and the ``answer``
        in sentences.

    Raises:
        ConfigError: bad input, or the folder is taken.
        InfeasibleError: no load has a configuration to run.
    """
    from ipa_energy.tradeoff.conduct import Question, conduct
    from ipa_energy.tradeoff.trials import constant_load

    if not loads_rps:
        raise ConfigError("no load to judge configurations under", fix="give one: study(..., 10)")
    for name, value in (("configurations", configurations), ("trials", trials)):
        if value < 1:
            raise ConfigError(str(value), where=name, allowed="1 or more")
    planner = load_pipeline(pipeline, policy=policy, **overrides)
    return conduct(
        Question(
            planners=[planner],
            loads=[constant_load(rps, duration_s) for rps in dict.fromkeys(loads_rps)],
            count=configurations,
            trials=trials,
            sensitivity=sensitivity,
            folder=None if out is None else Path(out),
            backend=backend,
        )
    )


def compare(*runs: Run | str | Path, hindsight: bool = False) -> Comparison:
    """Runs side by side; the others are held against the first.

    Args:
        runs: runs, or their folders.
        hindsight: also simulate the best plan that never changes and the best course of plans that
            knew the load, for each run that stands in a folder, and say what each got of it.

    Raises:
        ConfigError: no runs, or a folder that holds none.
    """
    read = numbered([one if isinstance(one, Run) else read_run(Path(one)) for one in runs])
    found = {}
    if hindsight:
        firsts = [None, *read[:1] * (len(read) - 1)]
        found = {
            one.name: yardsticks_of(one, first) for one, first in zip(read, firsts, strict=True)
        }
    return held_against(read, found)
