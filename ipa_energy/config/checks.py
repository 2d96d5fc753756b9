"""What no single key can tell: lists of one length, names used once, a workload that is there."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from pydantic_core import InitErrorDetails, PydanticCustomError

from ipa_energy.config.workload_config import TwitterWindow
from ipa_energy.config.yaml_source import KeyPath

if TYPE_CHECKING:
    from ipa_energy.config.schema import PipelineConfig

WHOLE = "whole"
"""Error type of everything found here; its context holds ``allowed`` and ``fix``."""

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


def check_whole(config: PipelineConfig) -> list[InitErrorDetails]:
    """Every contradiction between keys that are each fine alone; empty if there is none."""
    problems = [*_lengths(config), *_names(config), *_workload(config)]
    return list(problems)


def _problem(
    keys: KeyPath, what: str, *, allowed: str | None = None, fix: str | None = None
) -> InitErrorDetails:
    context = {"what": what, "allowed": allowed, "fix": fix}
    return InitErrorDetails(type=PydanticCustomError(WHOLE, "{what}", context), loc=keys, input="")


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
