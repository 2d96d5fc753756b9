"""The verbs of ``import ipa_energy``: what the command line does, as functions.

A pipeline is the path of a YAML, the name of one that comes with the program, or what
:func:`load_pipeline` made of either. Keys of the YAML are overridden by keyword, and ``workload``
stands for a shape or a CSV of requests per second, as on the command line.
"""

from __future__ import annotations

from pathlib import Path

from ipa_energy.comparing import Comparison, numbered
from ipa_energy.comparing import compare as compare_runs
from ipa_energy.errors import ConfigError
from ipa_energy.experiment import Experiment, run_experiment, yardsticks_of
from ipa_energy.optimizer.solve import Result, decide
from ipa_energy.planning.planner import Planner, load_planner
from ipa_energy.runlog import Run, read_run
from ipa_energy.shipped import find_config
from ipa_energy.workloads import workload_from

Pipeline = str | Path | Planner

__all__ = ["compare", "load_pipeline", "plan", "run"]


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
    method = planner.config.optimization_method
    return decide(planner.program, planner.moment(load_rps), method=method, top_k=top)


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


def compare(*runs: Run | str | Path, hindsight: bool = False) -> Comparison:
    """Runs side by side; the others are held against the first.

    Args:
        runs: runs, or their folders.
        hindsight: also simulate the best plan that never changes and an oracle that knows the
            load, for each run that stands in a folder.

    Raises:
        ConfigError: no runs, or a folder that holds none.
    """
    read = numbered([one if isinstance(one, Run) else read_run(Path(one)) for one in runs])
    found = {one.name: yardsticks_of(one) for one in read} if hindsight else {}
    yards = {name: yard for name, yard in found.items() if yard is not None}
    return compare_runs(
        read,
        static_best={name: y.static_best for name, y in yards.items() if y.static_best},
        oracle={name: y.oracle for name, y in yards.items()},
    )
