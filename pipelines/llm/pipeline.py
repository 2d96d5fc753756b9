"""Causal language models of transformers with forced lengths; the names a profiler looks for.

Built from their configurations with random weights, without downloads, tokenizers or text. A model
with random weights would not stop by itself, and a trained one would stop where its text ends: so
many tokens are made as the variant says, whatever they are, and joules per token are joules per
request over that number. A shorter answer is what a generation directive asks for; what it costs in
accuracy depends on the task and cannot be seen here.
"""

from __future__ import annotations

import os
from typing import Any

from ipa_energy.errors import ConfigError
from ipa_energy.pipeline_models import GPU_DEVICE, Runner, Variant
from ipa_energy.torch_networks import (
    installed_versions,
    needs_extra,
    peak_gpu_memory_bytes,
    quickly_random,
    visible_gpu,
)

__all__ = ["VARIANTS", "build", "gpu", "peak_gpu_memory_bytes", "sample", "tokens_of", "versions"]

EXTRA = "audio"
"""Extra with transformers and torch."""

REQUIRES = ("torch", "transformers")
STAGE = "generate"
PROMPT_TOKENS = 64
LENGTHS = (128, 32)
"""Tokens of an answer: at length, and as under a directive to be brief."""

SIZES: dict[str, tuple[float, dict[str, int]]] = {
    "gpt2": (0.4599, {"n_embd": 768, "n_layer": 12, "n_head": 12}),
    "gpt2-medium": (0.5548, {"n_embd": 1024, "n_layer": 24, "n_head": 16}),
    "gpt2-large": (0.6012, {"n_embd": 1280, "n_layer": 36, "n_head": 20}),
}
"""Model → its accuracy on LAMBADA, what differs from the usual configuration."""

_SOURCE = (
    "accuracy on LAMBADA without training on it, Radford et al. 2019, table 3; of the model,"
    " whatever the length of its answers"
)
VARIANTS: tuple[Variant, ...] = tuple(
    Variant(STAGE, f"{name}-{length}", accuracy, _SOURCE, (PROMPT_TOKENS,))
    for name, (accuracy, _) in SIZES.items()
    for length in LENGTHS
)


def tokens_of(variant: Variant) -> int:
    """Tokens that a variant makes for each request."""
    return int(variant.name.rpartition("-")[2])


def build(
    variant: Variant, *, weights: str | None = None, threads: int = 1, device: str = "cpu"
) -> Runner:
    """Load a variant ready to serve.

    Args:
        variant: one of :data:`VARIANTS`.
        weights: none: joules do not depend on them, and lengths are forced.
        threads: threads of one operation; the process should be pinned to as many cores.
        device: ``cpu``, or ``cuda`` for the GPU that this process sees.

    Returns:
        a function from (B, 64) tokens to (B, length) tokens, which returns when they are made.

    Raises:
        UnavailableError: torch or transformers is not installed, or there is no GPU.
        ConfigError: weights were given.
    """
    if weights is not None:
        raise ConfigError(
            f"{variant.name} takes no weights",
            where=weights,
            fix="serve a trained model, and profile it with ipa-energy profile-endpoint",
        )
    os.environ.setdefault("HF_HUB_OFFLINE", "1")  # read by the import: nothing is downloaded
    try:
        import torch
        import transformers
    except ImportError as error:
        raise needs_extra(error, EXTRA) from error
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    _, shape = SIZES[variant.name.rpartition("-")[0]]
    with quickly_random():
        model = transformers.GPT2LMHeadModel(transformers.GPT2Config(**shape))
    if device == GPU_DEVICE:
        gpu()  # says what is missing, which a failing copy would not
    model = model.eval().requires_grad_(False).to(device)
    length = tokens_of(variant)

    def run(prompts: Any) -> Any:
        with torch.inference_mode():
            made = model.generate(
                prompts.to(device),
                attention_mask=torch.ones_like(prompts).to(device),
                do_sample=False,
                min_new_tokens=length,
                max_new_tokens=length,
                pad_token_id=model.config.eos_token_id,
            )
        return made[:, -length:].cpu()

    return run


def gpu() -> dict[str, Any]:
    """See :func:`ipa_energy.torch_networks.visible_gpu`."""
    return visible_gpu(EXTRA)


def sample(variant: Variant, batch: int, seed: int) -> Any:
    """(batch, 64) random tokens."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 50_000, (batch, *variant.input_shape), generator=generator)


def versions() -> dict[str, str]:
    """Versions of the packages that run the networks; those not installed are left out."""
    return installed_versions(REQUIRES)
