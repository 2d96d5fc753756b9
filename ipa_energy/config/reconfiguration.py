"""The key ``reconfiguration_s`` of a pipeline YAML, where it is told knob by knob."""

from __future__ import annotations

from ipa_energy.config.fields import NonNegative, StrictModel, optional


class ReconfigurationConfig(StrictModel):
    """Seconds that each kind of change takes; what is not named takes what the profile measured."""

    replicas: NonNegative | None = optional(None, "Until one more replica of what runs serves.")
    variant: NonNegative | None = optional(
        None, "Until a replica of another variant, precision or hardware serves."
    )
    cores: NonNegative | None = optional(
        None, "To change the cores of running replicas in place; null: others are started instead."
    )
    clock: NonNegative | None = optional(
        None,
        "To change clock_mhz or power_cap_w in place; null: others are started instead.",
    )
    partition: NonNegative | None = optional(
        None, "To cut a GPU into other slices, before a replica starts on one; null: none."
    )

    def told(self) -> dict[str, float]:
        """Knob → seconds, of those that are named."""
        named = ((name, getattr(self, name)) for name in type(self).model_fields)
        return {name: float(seconds) for name, seconds in named if seconds is not None}


Reconfiguration = NonNegative | ReconfigurationConfig
