"""Options that override keys of the pipeline YAML, shared by the verbs that plan."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from ipa_energy.errors import ConfigError
from ipa_energy.records import EnergyRisk
from ipa_energy.registries import POLICIES, SOLVERS, Named, energy_metrics

KEY_OF_OPTION = {
    "profile": "profile",
    "energy_weight": "energy_weight",
    "energy_metric": "energy_metric",
    "energy_risk": "energy_risk",
    "energy_sla_joules": "energy_sla_joules",
    "latency_sla": "latency_sla_s",
    "method": "optimization_method",
    "predictor": "predictor_type",
    "seed": "seed",
    "images": "images",
    "workload": "workload",
    "set": "set",
}
"""Option of the command line → key of the YAML, or one that ``load_config`` takes beside them."""


def add_planning_options(
    parser: argparse.ArgumentParser, *, several_profiles: bool = False
) -> None:
    """The options that bear on every decision; with several profiles ``profile`` is a list."""
    add = parser.add_argument_group("overrides of the YAML's keys").add_argument
    several: dict[str, Any] = {"nargs": "+", "action": "extend"} if several_profiles else {}
    add(
        "--profile",
        metavar="CSV",
        help="profile table (key: profile)"
        + ("; several are compared, the first is the study's" if several_profiles else ""),
        **several,
    )
    add("--energy-weight", type=float, metavar="W", help="weight of the energy term; 0 is IPA")
    add("--energy-metric", choices=energy_metrics(), help="what the energy term counts")
    add(
        "--energy-risk",
        choices=get_args(EnergyRisk),
        help="which joules count: the mean of the trials, or the upper end of its 95%% interval",
    )
    add(
        "--energy-sla-joules",
        type=float,
        metavar="J",
        help="hard cap on joules per pipeline request",
    )
    add("--latency-sla", type=float, metavar="S", help="end-to-end latency SLA in seconds")
    add(
        "--method",
        choices=[*SOLVERS],
        help=f"solver (key: optimization_method): {explained(SOLVERS)}",
    )
    add(
        "--policy",
        choices=[*POLICIES],
        help=f"{explained(POLICIES)} (default: what the YAML says)",
    )
    add(
        "--set",
        action="append",
        metavar="KEY=VALUE",
        help="any other key of the YAML, its value written as there, e.g. --set scaling_cap=20 or"
        " --set 'initial_batch=[1, 4]'; repeatable",
    )


def explained(registry: Mapping[str, Named]) -> str:
    """The names of a registry with what each is, for a help text."""
    text = ", ".join(f"{name} ({entry.help})" for name, entry in registry.items())
    return text.replace("%", "%%")


def chosen_weights(given: Sequence[str]) -> dict[str, str]:
    """Variant → weights file of the options ``--weights VARIANT=FILE``.

    Raises:
        ConfigError: one is not written so, or there is no such file.
    """
    weights = {}
    for item in given:
        variant, equals, file = item.partition("=")
        if not (variant and equals and Path(file).is_file()):
            raise ConfigError(
                f"{item!r}", where="--weights", allowed="VARIANT=FILE with a file that exists"
            )
        weights[variant] = str(Path(file).resolve())
    return weights


def add_weights(add: Callable[..., Any]) -> None:
    """The option ``--weights``, by a parser's or a group's ``add_argument``."""
    add(
        "--weights",
        action="append",
        default=[],
        metavar="VARIANT=FILE",
        help="trained weights (key: weights); random ones cost the same; repeatable",
    )


def chosen_overrides(args: argparse.Namespace) -> dict[str, Any]:
    """YAML key → the value given on the command line, for the options that were given."""
    given = {key: getattr(args, option, None) for option, key in KEY_OF_OPTION.items()}
    given["weights"] = chosen_weights(getattr(args, "weights", ())) or None
    return {key: value for key, value in given.items() if value is not None}
