"""Options that override keys of the pipeline YAML, shared by the verbs that plan."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping

from ipa_energy.registries import POLICIES, SOLVERS, Named

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
    "set": "set",
}
"""Option of the command line → key of the YAML."""


def add_planning_options(
    parser: argparse.ArgumentParser, *, several_profiles: bool = False
) -> None:
    """The options that bear on every decision; with several profiles ``profile`` is a list."""
    group = parser.add_argument_group("overrides of the YAML's keys")
    if several_profiles:
        group.add_argument(
            "--profile",
            nargs="+",
            action="extend",
            metavar="CSV",
            help="profile table (key: profile); several are compared, the first is the study's",
        )
    else:
        group.add_argument("--profile", metavar="CSV", help="profile table (key: profile)")
    group.add_argument(
        "--energy-weight", type=float, metavar="W", help="weight of the energy term; 0 is IPA"
    )
    group.add_argument(
        "--energy-metric",
        choices=("joules_per_request", "watts"),
        help="what the energy term counts",
    )
    group.add_argument(
        "--energy-risk",
        choices=("mean", "upper"),
        help="which joules count: the mean of the trials, or the upper end of its 95%% interval",
    )
    group.add_argument(
        "--energy-sla-joules",
        type=float,
        metavar="J",
        help="hard cap on joules per pipeline request",
    )
    group.add_argument(
        "--latency-sla",
        type=float,
        metavar="S",
        help="end-to-end latency SLA in seconds",
    )
    group.add_argument(
        "--method",
        choices=[*SOLVERS],
        help=f"solver (key: optimization_method): {explained(SOLVERS)}",
    )
    group.add_argument(
        "--policy",
        choices=[*POLICIES],
        help=f"{explained(POLICIES)} (default: what the YAML says)",
    )
    group.add_argument(
        "--set",
        action="append",
        metavar="KEY=VALUE",
        help="any other key of the YAML, its value written as there; may be repeated",
    )


def explained(registry: Mapping[str, Named]) -> str:
    """The names of a registry with what each is, for a help text."""
    return ", ".join(f"{name} ({entry.help})" for name, entry in registry.items()).replace(
        "%", "%%"
    )


def chosen_overrides(args: argparse.Namespace, options: Iterable[str]) -> dict[str, object]:
    """YAML key → the value given on the command line, for those of ``options`` that were given."""
    chosen = {}
    for option in options:
        value = getattr(args, option, None)
        if value is not None:
            chosen[KEY_OF_OPTION[option]] = value
    return chosen
