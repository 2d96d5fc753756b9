"""How the audio pipeline's networks are built and run; the names a profiler or server looks for.

Both are built by transformers from their configurations, without downloads, tokenizers or text:
tokens go from stage to stage as numbers. The first network makes :data:`.variants.TOKENS` of them
whatever it hears, because one with random weights would not stop by itself.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from typing import Any

from ipa_energy.errors import ConfigError, UnavailableError
from ipa_energy.pipeline_models import Handler, Runner, Variant
from ipa_energy.torch_networks import (
    UNLOADABLE,
    import_all,
    installed_versions,
    needs_extra,
    quickly_random,
)

from . import serving
from .serving import requests, signature
from .variants import TOKENS, VARIANTS

__all__ = [
    "REQUIRES",
    "VARIANTS",
    "build",
    "handler",
    "preload",
    "requests",
    "sample",
    "signature",
    "versions",
]

EXTRA = "audio"
REQUIRES = ("torch", "transformers")
"""Packages the networks need; ``pip install ipa-energy[audio]`` brings them."""

BEAMS = 5
MODELING = "transformers.models"
PRELOADED = (
    f"{MODELING}.speech_to_text.modeling_speech_to_text",
    f"{MODELING}.distilbert.modeling_distilbert",
    f"{MODELING}.bert.modeling_bert",
)
"""What a replica's process would import."""

NETWORKS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "s2t-small": ("Speech2TextConfig", "Speech2TextForConditionalGeneration", {}),
    "s2t-medium": (
        "Speech2TextConfig",
        "Speech2TextForConditionalGeneration",
        {"d_model": 512, "encoder_attention_heads": 8, "decoder_attention_heads": 8},
    ),
    "distilbert": ("DistilBertConfig", "DistilBertForSequenceClassification", {"num_labels": 2}),
    "bert": ("BertConfig", "BertForSequenceClassification", {"num_labels": 2}),
}
"""Variant → class of its configuration, class of its network, what differs from the usual."""


def build(variant: Variant, *, weights: str | None = None, threads: int = 1) -> Runner:
    """Load a variant ready to serve.

    Args:
        variant: one of :data:`VARIANTS`.
        weights: its state dict, ``.safetensors`` or PyTorch's; None for random weights, which cost
            the same time and energy.
        threads: threads of one operation; the process should be pinned to as many cores.

    Returns:
        a function from a (B, frames, 80) float tensor to (B, 20) tokens, or from (B, 20) tokens to
        (B, 2) logits.

    Raises:
        UnavailableError: torch or transformers is not installed.
        ConfigError: the weights do not fit the variant.
    """
    _set_offline()
    try:
        import torch
        import transformers
    except ImportError as error:
        raise needs_extra(error, EXTRA) from error
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    config, network, changes = NETWORKS[variant.name]
    with quickly_random():
        model = getattr(transformers, network)(getattr(transformers, config)(**changes))
    if weights is not None:
        _load(model, variant, weights)
    model = model.eval().requires_grad_(False)
    return _listening(model) if variant.stage == "audio" else _judging(model)


def _listening(model: Any) -> Runner:
    import torch

    def run(features: Any) -> Any:
        with torch.inference_mode():
            made = model.generate(
                features,
                attention_mask=torch.ones(features.shape[:2], dtype=torch.long),
                num_beams=BEAMS,
                do_sample=False,
                min_new_tokens=TOKENS,
                max_new_tokens=TOKENS,
            )
        return made[:, -TOKENS:]

    return run


def _judging(model: Any) -> Runner:
    import torch

    def run(tokens: Any) -> Any:
        with torch.inference_mode():
            return model(input_ids=tokens).logits

    return run


def _load(model: Any, variant: Variant, weights: str) -> None:
    import torch

    try:
        if weights.endswith(".safetensors"):
            read: Callable[[str], Any] = importlib.import_module("safetensors.torch").load_file
            found = read(weights)
        else:
            found = torch.load(weights, map_location="cpu", weights_only=True)
        missing, unexpected = model.load_state_dict(found, strict=False)
    except UNLOADABLE as error:
        raise ConfigError(f"cannot load {variant.name}: {error}", where=weights) from error
    model.tie_weights()
    tied = set(getattr(model, "_tied_weights_keys", None) or ())
    stray = [name for name in (*missing, *unexpected) if name not in tied]
    if stray:
        raise ConfigError(
            f"cannot load {variant.name}: {len(stray)} parameters are not its, the first is"
            f" {stray[0]}",
            where=weights,
            allowed=f"the state dict of a {NETWORKS[variant.name][1]}",
        )


def handler(variant: Variant, *, weights: str | None, threads: int, device: str) -> Handler:
    """Load a variant ready to answer; :mod:`.serving` says what comes in and goes out.

    Raises: as :func:`build`.
    """
    if device != "cpu":
        raise UnavailableError(f"{variant.name} on {device}: the audio pipeline runs on CPUs alone")
    run = build(variant, weights=weights, threads=threads)
    return serving.handler(variant, run, weights)


def preload() -> None:
    """Import what :func:`handler` needs; nothing is computed.

    Raises:
        UnavailableError: something of it is not installed.
    """
    _set_offline()
    import_all(PRELOADED, EXTRA)


def sample(variant: Variant, batch: int, seed: int) -> Any:
    """A (batch, …) tensor: noise for the first stage, tokens for the second."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    shape = (batch, *variant.input_shape)
    if variant.stage == "audio":
        return torch.randn(shape, generator=generator)
    return torch.randint(0, 10_000, shape, generator=generator)


def versions() -> dict[str, str]:
    """Versions of the packages that run the networks; those not installed are left out."""
    return installed_versions(REQUIRES)


def _set_offline() -> None:
    """Set before the import, which reads it: nothing is downloaded."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
