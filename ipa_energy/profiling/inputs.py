"""What a variant's figures depend on besides the machine: its definition and its weights.

The journal keeps these beside the trials. When one of them changes, the figures of that variant,
and of no other, are out of date.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ipa_energy.errors import ConfigError
from ipa_energy.profiling.runtime import Variant

Inputs = dict[str, dict[str, Any]]
"""``stage/variant`` → its inputs, as JSON has them."""

RANDOM_WEIGHTS = "random"


def inputs_of(variants: Sequence[Variant], weights: Mapping[str, str]) -> Inputs:
    """The inputs of every variant; weights by their content, not their name.

    Args:
        variants: all of the pipeline's.
        weights: variant → weights file.

    Raises:
        ConfigError: a weights file cannot be read, or is for no variant of the pipeline.
    """
    stray = sorted(set(weights) - {variant.name for variant in variants})
    if stray:
        raise ConfigError(
            f"weights for {stray[0]}, which the pipeline does not have",
            allowed=", ".join(variant.name for variant in variants),
        )
    return {
        variant_key(variant.stage, variant.name): {
            "accuracy": variant.accuracy,
            "input_shape": list(variant.input_shape),
            "weights": weights_digest(weights[variant.name])
            if variant.name in weights
            else RANDOM_WEIGHTS,
        }
        for variant in variants
    }


def variant_key(stage: str, variant: str) -> str:
    """How a variant is named in the journal and the meta file."""
    return f"{stage}/{variant}"


def weights_digest(path: str) -> str:
    """``sha256:…`` of a weights file.

    Raises:
        ConfigError: it cannot be read.
    """
    try:
        with Path(path).open("rb") as file:
            return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
    except OSError as error:
        raise ConfigError(f"cannot read weights: {error.strerror}", where=path) from error
