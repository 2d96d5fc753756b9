"""What a local backend starts for each variant, and what is sent to it.

``local``: the pipeline's real models, forked from a template (:mod:`.template`) and served by
MLServer. ``local-stub``: stubs (:mod:`.stub_model`), processes that take the time which the profile
gives a batch of their variant. Whatever can be refused is refused before anything is started.
"""

from __future__ import annotations

import inspect
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from ipa_energy.config import PipelineConfig
from ipa_energy.errors import ConfigError, UnavailableError, in_words, require
from ipa_energy.gpu_partitions import SLICE
from ipa_energy.pipeline_models import (
    GPU_DEVICE,
    OPENMP,
    ModelSpec,
    ServedPipeline,
    check_requirements,
    find_pipeline,
    find_variant,
    load_pipeline,
    served_pipeline,
)
from ipa_energy.records import Option, Stage
from ipa_energy.serving.base import Setting
from ipa_energy.serving.local.replica_process import Launch
from ipa_energy.serving.local.replica_set import Server, server_of

REQUESTS = 20
"""Different requests that are made and sent in turn, where no folder of images is given."""

MAX_IMAGES = 200
"""Read from a folder; the generator holds them in memory."""

IMAGES = (".jpg", ".jpeg", ".png")
CHECK_TIMEOUT_S = 300.0
STUB_PAYLOAD = b"\0" * 1024


@dataclass(frozen=True, slots=True)
class ServedModels:
    """What is served and what is sent.

    Attributes:
        backend: name of the backend that serves them.
        launches: stage → how each server that it may run is started.
        payloads: requests, sent in turn.
        pipeline: what the template is made from (:class:`.template.Template`); None for stubs.
    """

    backend: str
    launches: Mapping[str, Mapping[Server, Launch]]
    payloads: tuple[bytes, ...]
    pipeline: str | None = None


def stub_models(setting: Setting) -> ServedModels:
    """Stubs that take the profile's times."""
    yields = yields_of(setting, "local-stub")
    launches = {
        stage.name: _stubs(stage, not setting.live.stubs_sleep, yields[stage.name])
        for stage in setting.stages
    }
    return ServedModels("local-stub", launches, payloads_of(setting.config))


def real_models(setting: Setting) -> ServedModels:
    """The pipeline's own models.

    Raises:
        ConfigError: the pipeline cannot be served, has other variants than the profile, or weights
            do not load.
        UnavailableError: something is not installed.
    """
    require("mlserver", what="--backend local", extra="serve", instead="--backend local-stub")
    yields = yields_of(setting, "local")
    _check_whole_cores(setting)
    _check_whole_gpus(setting)
    config = setting.config
    reference = reference_of(config)
    pipeline = load_pipeline(reference)
    served = served_pipeline(pipeline, where="--backend local")
    check_requirements(pipeline)
    _check_yields(served, yields)
    launches = {
        stage.name: {
            server_of(option): Launch(
                (),
                option.variant,
                forked=_spec(reference, served, config, stage, option, yields=yields[stage.name]),
            )
            for option in stage.options
        }
        for stage in setting.stages
    }
    _check_weights(reference, config, launches)
    return ServedModels("local", launches, payloads_of(config, served), reference)


def payloads_of(config: PipelineConfig, served: ServedPipeline | None = None) -> tuple[bytes, ...]:
    """What is sent: the pictures of the folder that the YAML names, else what the pipeline makes.

    Without a pipeline, for stubs, some bytes.

    Raises: as :func:`images_in`.
    """
    if config.images is not None:
        return images_in(config.images)
    return (STUB_PAYLOAD,) if served is None else tuple(served.requests(config.seed, REQUESTS))


def images_in(folder: Path) -> tuple[bytes, ...]:
    """The pictures of a folder, in the order of their names, at most :data:`MAX_IMAGES`.

    Raises:
        ConfigError: there are none, or one cannot be read.
    """
    try:
        paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in IMAGES)
        images = tuple(path.read_bytes() for path in paths[:MAX_IMAGES])
    except OSError as error:
        raise ConfigError(in_words(error), where=folder, allowed="a folder of pictures") from error
    if not images:
        raise ConfigError("no pictures in it", where=folder, allowed=", ".join(IMAGES))
    return images


def stages_apart(setting: Setting) -> tuple[str, ...]:
    """The stages that see another number of requests than the pipeline: each element is one."""
    return tuple(stage.name for stage in setting.stages if stage.requests_per_input != 1)


def yields_of(setting: Setting, backend: str) -> dict[str, float]:
    """Stage → what one of its elements is to become, so that the next stage sees what it should.

    A stage that sees one request for each of the pipeline's gets all elements of it together.

    Raises:
        ConfigError: there is no such number.
    """
    stages, where = setting.stages, f"--backend {backend}"
    if stages[0].requests_per_input != 1:
        raise ConfigError(
            f"the first stage, {stages[0].name}, sees {stages[0].requests_per_input:g} requests for"
            " each input, and what it sees is what a client sends",
            where=where,
            allowed="1 for the first stage",
        )
    yields = {}
    for stage, following in zip(stages, [*stages[1:], None], strict=True):
        sees = 1.0 if following is None else following.requests_per_input
        if following is not None and sees == 1 and stage.requests_per_input < 1:
            raise ConfigError(
                f"stage {following.name} sees every request, and of some nothing is left after"
                f" {stage.name}, which sees {stage.requests_per_input:g} for each input",
                where=where,
                allowed=f"at most {stage.requests_per_input:g} for {following.name}",
            )
        yields[stage.name] = 1.0 if sees == 1 else round(sees / stage.requests_per_input, 12)
    return yields


def _check_yields(pipeline: ServedPipeline, yields: Mapping[str, float]) -> None:
    """Whether the pipeline's handlers can make several elements of one."""
    several = {stage: count for stage, count in yields.items() if count != 1}
    if several and "yields" not in inspect.signature(pipeline.handler).parameters:
        stage, count = next(iter(several.items()))
        raise ConfigError(
            f"stage {stage} is to make {count:g} elements of one for the next stage, and the"
            " pipeline's handlers make one of one",
            where="--backend local",
            allowed="requests_per_input of 1",
            fix="give its handler a keyword yields (pipelines/README.md), or --backend local-stub",
        )


def _check_whole_cores(setting: Setting) -> None:
    """A replica is pinned to CPUs: a share of one would be more than the profile says."""
    for stage in setting.stages:
        for option in stage.options:
            if not float(option.cpu_cores).is_integer():
                raise ConfigError(
                    f"stage {stage.name} has {option.label} in its profile, and a replica is pinned"
                    " to whole CPUs",
                    where="--backend local",
                    allowed="whole numbers of cores",
                    fix="profile whole cores, or --backend local-stub",
                )


def _check_whole_gpus(setting: Setting) -> None:
    """Nobody leads a replica to its slice here; a cluster's device plugin does."""
    for stage in setting.stages:
        for option in stage.options:
            if any(name.startswith(SLICE) for name, _ in option.allocation.resources):
                raise ConfigError(
                    f"stage {stage.name} has {option.label} in its profile, and no replica is put"
                    " on a slice of a GPU here",
                    where="--backend local",
                    allowed="CPUs and whole GPUs",
                    fix="--backend kubernetes, or local-stub",
                )


def _stubs(stage: Stage, works: bool, yields: float) -> dict[Server, Launch]:
    batch_s: dict[Server, dict[int, float]] = {}
    for option in stage.options:
        batch_s.setdefault(server_of(option), {})[option.batch] = option.latency_avg_s
    launches = {}
    for server, seconds in batch_s.items():
        told = json.dumps({"name": server[0], "batch_s": seconds, "work": works, "yields": yields})
        command = (sys.executable, "-m", "ipa_energy.serving.local.stub_model", told)
        launches[server] = Launch(command, server[0])
    return launches


def reference_of(config: PipelineConfig) -> str:
    """The pipeline's folder, file or module."""
    name = config.pipeline_folder_name or config.pipeline_name
    near = [Path.cwd()]
    if config.profile is not None:
        near += list(config.profile.parents)[:3]
    return str(Path(find_pipeline(name, near=near, where="--backend local")))


def _spec(
    reference: str,
    pipeline: ServedPipeline,
    config: PipelineConfig,
    stage: Stage,
    option: Option,
    *,
    yields: float,
) -> ModelSpec:
    find_variant(pipeline, stage.name, option.variant)
    weights = (config.weights or {}).get(option.variant)
    return ModelSpec(
        reference,
        stage.name,
        option.variant,
        weights=None if weights is None else str(weights),
        threads=max(1, round(option.cpu_cores)),
        device=GPU_DEVICE if option.gpu_share > 0 else "cpu",
        yields=yields,
    )


def _check_weights(
    reference: str, config: PipelineConfig, launches: Mapping[str, Mapping[Server, Launch]]
) -> None:
    """Load every variant that has weights, in a process of its own.

    Raises:
        ConfigError: one does not load, or the profile has no such variant.
    """
    weights = config.weights or {}
    specs = {
        launch.forked.variant: launch.forked
        for servers in launches.values()
        for launch in servers.values()
        if launch.forked is not None
    }
    unknown = sorted(set(weights) - set(specs))
    if unknown:
        raise ConfigError(
            f"{unknown[0]} is no variant of the profile",
            where="weights",
            allowed=", ".join(specs),
        )
    if not weights:
        return
    told = json.dumps([asdict(specs[name]) for name in weights])
    command = (sys.executable, "-m", "ipa_energy.serving.local.template", "check")
    done = subprocess.run(
        (*command, reference, told),
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | OPENMP,
        timeout=CHECK_TIMEOUT_S,
        check=False,
    )
    if done.returncode:
        raise UnavailableError(f"the models cannot be loaded: status {done.returncode}")
    trouble = json.loads(done.stdout.splitlines()[-1])
    if trouble is not None:
        raise ConfigError(trouble)
