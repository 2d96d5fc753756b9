"""What the patches in an IPA checkout call, and nothing they do not.

Each patch is an import of this module and one line that calls one of these names. Importing costs
nothing: everything is imported where it is first needed, so that an IPA without energy settings is
as fast to start as before. A pipeline without energy settings passes every hook untouched.

===================  ====================================================================
``configure``        runners: hang the energy keys of the YAML on a pipeline
``profile_table``    ``load_profile``: joules beside latency and throughput
``profile_models``   ``make_task_profiles``: joules on each model
``optimizer``        class ``Optimizer``: objective, constraints, brute force, our solver
``gurobi``           inside the Gurobi model: energy term, energy SLA, strict latency
``adapter``          classes ``Adapter`` and ``SimAdapter``: joules in the log
``parser``           class ``AdaptationParser``: joules back from the log
``profiling``        ``experiments`` of the profiler: open the meter its YAML names
``metered``          its ``setup_node`` and ``load_test``: read the meter around them
``add_joules``       its report: joules of the experiment that was just measured
===================  ====================================================================
"""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

__all__ = [
    "adapter",
    "add_joules",
    "configure",
    "gurobi",
    "metered",
    "optimizer",
    "parser",
    "profile_models",
    "profile_table",
    "profiling",
]

Class = TypeVar("Class", bound=type)
Function = Callable[..., Any]


def configure(pipeline: Any, config: Mapping[str, Any]) -> None:
    """Hang a YAML's energy keys on a pipeline, or on each of a list; nothing without such keys.

    Ends the program with exit status 2 and one message if a key is wrong, or the profile lacks
    what it needs: this is called by IPA's runners, where nobody else would tell the user.
    """
    from ipa_energy.errors import IpaEnergyError
    from ipa_energy.plugin.hooks.pipeline_energy import attach, settings_from

    try:
        settings = settings_from(config)
        if settings is not None:
            for each in pipeline if isinstance(pipeline, list) else [pipeline]:
                attach(each, settings)
    except IpaEnergyError as error:
        sys.stderr.write(f"ipa-energy: {error}\n")
        raise SystemExit(error.exit_status) from error


def profile_table(results_path: str) -> Callable[[Function], Function]:
    """Decorator of IPA's ``load_profile``: its table gets the joules recorded in the series.

    Args:
        results_path: IPA's folder of node profiling results.
    """

    def decorate(inner: Function) -> Function:
        signature = inspect.signature(inner)

        @functools.wraps(inner)
        def load_profile(*args: Any, **kwargs: Any) -> Any:
            from ipa_energy.plugin.hooks.joules import ProfileSource, add_columns

            table = inner(*args, **kwargs)
            bound = signature.bind(*args, **kwargs)
            bound.apply_defaults()
            given = bound.arguments
            folder = Path(results_path) / "series" / str(given["series"])
            return add_columns(table, ProfileSource(folder, given["model_name"], given["load"]))

        return load_profile

    return decorate


def profile_models(inner: Function) -> Function:
    """Decorator of IPA's ``make_task_profiles``: its models carry the table's joules."""
    signature = inspect.signature(inner)

    @functools.wraps(inner)
    def make_task_profiles(*args: Any, **kwargs: Any) -> Any:
        from ipa_energy.plugin.hooks.joules import give_to_models

        models = inner(*args, **kwargs)
        give_to_models(models, signature.bind(*args, **kwargs).arguments["profiling_info"])
        return models

    return make_task_profiles


def optimizer(cls: Class) -> Class:
    """Decorator of IPA's ``Optimizer``."""
    from ipa_energy.plugin.hooks.optimizing import OPTIMIZER

    return _with_methods(cls, OPTIMIZER)


def gurobi(*given: Any) -> None:
    """Add energy to IPA's Gurobi model, once its objective is set and it is updated.

    Args:
        given: as of :func:`ipa_energy.plugin.hooks.optimizing.add_to_model`.
    """
    from ipa_energy.plugin.hooks.optimizing import add_to_model

    add_to_model(*given)


def adapter(cls: Class) -> Class:
    """Decorator of IPA's ``Adapter`` and ``SimAdapter``."""
    from ipa_energy.plugin.hooks.adaptation_log import ADAPTER

    return _with_methods(cls, ADAPTER)


def parser(cls: Class) -> Class:
    """Decorator of IPA's ``AdaptationParser``."""
    from ipa_energy.plugin.hooks.adaptation_log import PARSER

    return _with_methods(cls, PARSER)


def _with_methods(cls: Class, wrappers: Mapping[str, Callable[[Function], Function]]) -> Class:
    """The class itself, each of these methods as its wrapper makes it."""
    for name, wrapper in wrappers.items():
        inner = getattr(cls, name)
        setattr(cls, name, functools.wraps(inner)(wrapper(inner)))
    return cls


def profiling(inner: Function) -> Function:
    """Decorator of the profiler's ``experiments``: measures while it runs, as its YAML says."""
    from ipa_energy.plugin.hooks.profiler import while_profiling

    return while_profiling(inner)


def metered(*functions: Function) -> Sequence[Function]:
    """The profiler's ``setup_node`` and ``load_test`` with the meter read around them."""
    from ipa_energy.plugin.hooks.profiler import around

    return around(*functions)


def add_joules(results: dict[str, Any], save_path: str) -> None:
    """Add the joules of the last load test to a report that is about to be written.

    Args:
        results: the report, IPA's ``N.json``.
        save_path: where it goes; the provenance goes into the notes file beside it.
    """
    from ipa_energy.plugin.hooks.profiler import add_to_report

    add_to_report(results, Path(save_path))
