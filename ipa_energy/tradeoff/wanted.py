"""Configurations that the user names, as the profile has them; from a run's log or a list."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ipa_energy.errors import ConfigError
from ipa_energy.records import Option, Stage
from ipa_energy.runlog import Run


@dataclass(frozen=True, slots=True)
class Wanted:
    """A named configuration.

    Attributes:
        name: what the user or the log calls it.
        options: of each stage, first stage first.
        replicas: of each stage; None: what the load needs.
        origin: where it is from, for people.
    """

    name: str
    options: tuple[Option, ...]
    replicas: tuple[int | None, ...]
    origin: str


def wanted_of_run(run: Run, stages: Sequence[Stage]) -> tuple[Wanted, ...]:
    """The distinct configurations of a run's adaptation log, in order of first use.

    Steps that differ in replicas alone are one configuration: here it gets the replicas that the
    study's load needs.

    Raises:
        ConfigError: the log has other stages, an option that the profile does not have, or no
            configuration at all.
    """
    found: dict[tuple[Option, ...], Wanted] = {}
    for step in run.steps:
        if not step.stages:  # an infeasible step of IPA's own log
            continue
        if len(step.stages) != len(stages):
            raise ConfigError(
                f"the log has {len(step.stages)} stages, the pipeline {len(stages)}",
                where=run.path,
                fix="give a run of this pipeline",
            )
        options = tuple(
            profiled_option(
                stage,
                logged.variant,
                cpu_cores=logged.cpu_cores,
                gpu_share=logged.gpu_share,
                batch=logged.batch,
                where=str(run.path),
            )
            for stage, logged in zip(stages, step.stages, strict=True)
        )
        if options not in found:
            name = " | ".join(option.label for option in options)
            origin = f"run {run.name}, second {step.start_s:g}"
            found[options] = Wanted(name, options, (None,) * len(options), origin)
    if not found:
        raise ConfigError("no step of the log has a configuration", where=run.path)
    return tuple(found.values())


def profiled_option(
    stage: Stage,
    variant: str,
    *,
    cpu_cores: float | None,
    gpu_share: float,
    batch: int,
    where: str,
) -> Option:
    """The option of a stage's profile; ``cpu_cores`` may be None if that leaves one.

    Raises:
        ConfigError: the profile has none, or several.
    """
    fitting = [
        option
        for option in stage.options
        if (option.variant, option.batch, option.gpu_share) == (variant, batch, gpu_share)
        and cpu_cores in (None, option.cpu_cores)
    ]
    if len(fitting) == 1:
        return fitting[0]
    cores = "" if cpu_cores is None else f" on {cpu_cores:g} cores"
    gpu = f" and {gpu_share:g} of a GPU" if gpu_share else ""
    what = f"{variant}{cores}{gpu} at batch {batch}"
    if fitting:
        raise ConfigError(
            f"stage {stage.name}: the profile has {what} on several allocations",
            where=where,
            allowed=", ".join(option.label for option in fitting),
            fix="give cpu_cores",
        )
    same = [option for option in stage.options if option.variant == variant]
    raise ConfigError(
        f"stage {stage.name}: the profile has no {what}",
        where=where,
        allowed=", ".join(option.label for option in same or stage.options),
    )
