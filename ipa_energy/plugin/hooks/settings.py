"""What a pipeline YAML says to a patched IPA about energy.

The same keys as for ``ipa-energy run``, validated by the same schema. IPA's own keys are none of
our business here: its runner reads them, and a file without any of ours leaves IPA as it is.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from ipa_energy.errors import ConfigError

EXACT_METHODS = ("ipa-energy", "pareto", "highs")
"""Values of ``optimization_method`` that hand the decision to this package; IPA knows none."""

KEYS = (
    "energy_weight",
    "energy_metric",
    "energy_risk",
    "energy_sla_joules",
    "energy_estimate",
    "strict_latency",
    "latency_sla_s",
    "requests_per_input",
)
OURS = ("energy", "strict_")
"""Keys that begin so are meant for us: one that is not known is a mistake."""

WHERE = "pipeline YAML"


@dataclass(frozen=True, slots=True, kw_only=True)
class EnergySettings:
    """The energy keys of one YAML; defaults are those of a YAML without them.

    Attributes:
        energy_weight: objective per joule (or watt); 0 leaves every decision IPA's.
        energy_metric: what the weight counts.
        energy_risk: ``upper`` plans with the upper ends of the joules' 95 % intervals.
        energy_sla_joules: hard cap on joules per pipeline request; None: none.
        energy_estimate: ``cpu-time`` to estimate joules the profile lacks; None: refuse.
        strict_latency: charge the wait to fill the chosen batch, which IPA's constraint loses.
        latency_sla_s: takes the place of IPA's SLA rule; None: IPA's rule.
        requests_per_input: m_s of each stage; empty: 1.
    """

    energy_weight: float = 0.0
    energy_metric: str = "joules_per_request"
    energy_risk: Literal["mean", "upper"] = "mean"
    energy_sla_joules: float | None = None
    energy_estimate: Literal["cpu-time"] | None = None
    strict_latency: bool = False
    latency_sla_s: float | None = None
    requests_per_input: tuple[float, ...] = field(default=())

    @property
    def needs_energy(self) -> bool:
        """True if a decision depends on joules."""
        return self.energy_weight != 0 or self.energy_sla_joules is not None

    @property
    def changes_decisions(self) -> bool:
        """True if IPA's own program must be added to."""
        return self.needs_energy or self.strict_latency


def settings_from(config: Mapping[str, Any]) -> EnergySettings | None:
    """The settings of a YAML as IPA's runners loaded it; None if it says nothing to us.

    Raises:
        ConfigError: a key or a value is wrong, or asks for what a patched IPA cannot do.
    """
    _refuse_unknown(config)
    given = {key: config[key] for key in KEYS if key in config}
    method = config.get("optimization_method")
    if not given and method not in EXACT_METHODS:
        return None
    settings = EnergySettings(**_validated(given))
    if method not in EXACT_METHODS and any(m != 1 for m in settings.requests_per_input):
        raise ConfigError(
            f"requests_per_input is {list(settings.requests_per_input)}, and IPA's own solvers"
            " count one request a stage",
            where=WHERE,
            fix="set optimization_method: ipa-energy, or leave the key out",
        )
    return settings


def _refuse_unknown(config: Mapping[str, Any]) -> None:
    for key in config:
        if not str(key).startswith(OURS) or key in KEYS:
            continue
        near = difflib.get_close_matches(str(key), KEYS, n=1)
        raise ConfigError(
            f"key {key} is not known to a patched IPA"
            + (f": did you mean {near[0]}?" if near else ""),
            where=WHERE,
            allowed=", ".join(KEYS),
        )


def _validated(given: Mapping[str, Any]) -> dict[str, Any]:
    """The values as the schema of our own YAMLs types them."""
    from pydantic import ValidationError, create_model

    from ipa_energy.config.fields import StrictModel
    from ipa_energy.config.loading import problems_of
    from ipa_energy.config.schema import PipelineConfig
    from ipa_energy.config.source import raise_all

    known: dict[str, Any] = {
        key: (PipelineConfig.model_fields[key].annotation, PipelineConfig.model_fields[key])
        for key in KEYS
    }
    try:
        found = create_model("EnergyKeys", __base__=StrictModel, **known).model_validate(given)
    except ValidationError as error:
        raise_all(problems_of(error, given, lambda _keys: WHERE), WHERE)
    values = {key: getattr(found, key) for key in KEYS}
    values["requests_per_input"] = values["requests_per_input"] or ()
    return values
