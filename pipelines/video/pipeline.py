"""How the video pipeline's networks are built and run; the names a profiler or server looks for.

What one call of a runner covers: a preprocessed float tensor in, the network's output out. For the
detector that includes decoding the boxes but not non-maximum suppression, whose time depends on
what is in the picture. Networks are in eval mode, without gradients, and convolutions are fused
with their batch normalisation, as a server would have them.

On a GPU a call begins with the batch in ordinary memory, where a request arrives, and ends when the
GPU is done: the copy to it is part of the request. Logits come back to the host, being the answer;
boxes stay, because what sorts them out runs where they are.
"""

from __future__ import annotations

import os
from typing import Any

from ipa_energy.errors import ConfigError
from ipa_energy.pipeline_models import GPU_DEVICE, Handler, Runner, SpreadingHandler, Variant
from ipa_energy.torch_networks import (
    UNLOADABLE,
    import_all,
    installed_versions,
    needs_extra,
    peak_gpu_memory_bytes,
    quickly_random,
    visible_gpu,
)

from . import serving
from .serving import signature
from .variants import VARIANTS

__all__ = [
    "PRECISIONS",
    "REQUIRES",
    "VARIANTS",
    "build",
    "gpu",
    "handler",
    "peak_gpu_memory_bytes",
    "preload",
    "requests",
    "sample",
    "signature",
    "versions",
]

EXTRA = "video"
PRECISIONS = ("float32", "float16", "bfloat16")
"""Of weights and activations; the batch comes as float32 and is turned where the model is."""

REQUIRES = ("torch", "torchvision", "ultralytics")
"""Packages the networks need; ``pip install ipa-energy[video]`` brings them."""

PRELOADED = (
    "PIL.JpegImagePlugin",
    "torch.fx.experimental.optimization",
    "torchvision",
    "ultralytics",
    "ultralytics.nn.tasks",
)
"""What a replica's process would import."""


def build(
    variant: Variant,
    *,
    weights: str | None = None,
    threads: int = 1,
    device: str = "cpu",
    precision: str = "float32",
) -> Runner:
    """Load a variant ready to serve.

    Args:
        variant: one of :data:`VARIANTS`.
        weights: an ultralytics checkpoint (``.pt``) for a detector, a state dict for a classifier;
            None for random weights, which cost the same time and energy.
        threads: threads of one operation; the process should be pinned to as many cores.
        device: ``cpu``, or ``cuda`` for the GPU that this process sees.
        precision: one of :data:`PRECISIONS`.

    Returns:
        a function from a (B, 3, H, W) float tensor in ordinary memory to a tensor whose first
        dimension is B: boxes and class scores (B, 84, anchors), or logits (B, 1000). It returns
        when the work is done, on a GPU too.

    Raises:
        UnavailableError: torch, torchvision or ultralytics is not installed, or there is no GPU.
        ConfigError: the weights do not fit the variant.
    """
    try:
        import torch
    except ImportError as error:
        raise needs_extra(error, EXTRA) from error
    torch.set_num_threads(threads)
    is_detector = variant.stage == "crop"
    model = _detector(variant, weights) if is_detector else _classifier(variant, weights)
    numbers = getattr(torch, precision)
    model = model.to(numbers)
    if device == GPU_DEVICE:
        return _on_gpu(model, is_detector, numbers)

    def run(batch: Any) -> Any:
        with torch.inference_mode():
            output = model(batch.to(numbers))
        return output[0] if is_detector else output

    return run


def _on_gpu(model: Any, is_detector: bool, numbers: Any) -> Runner:
    import torch

    gpu()  # says what is missing, which a failing copy would not
    model = model.to(GPU_DEVICE)

    def run(batch: Any) -> Any:
        with torch.inference_mode():
            output = model(batch.to(GPU_DEVICE).to(numbers))
        answer = output[0] if is_detector else output.cpu()
        torch.cuda.synchronize()
        return answer

    return run


def gpu() -> dict[str, Any]:
    """See :func:`ipa_energy.torch_networks.visible_gpu`."""
    return visible_gpu(EXTRA)


def sample(variant: Variant, batch: int, seed: int) -> Any:
    """A (batch, 3, H, W) float tensor of uniform noise in 0..1."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    return torch.rand((batch, *variant.input_shape), generator=generator)


def versions() -> dict[str, str]:
    """Versions of the packages that run the networks; those not installed are left out."""
    return installed_versions(REQUIRES)


def handler(
    variant: Variant, *, weights: str | None, threads: int, device: str, yields: float = 1.0
) -> Handler | SpreadingHandler:
    """Load a variant ready to answer; :mod:`.serving` says what comes in and goes out.

    Raises: as :func:`build`.
    """
    run = build(variant, weights=weights, threads=threads, device=device)
    return serving.handler(variant, run, weights=weights, device=device, yields=yields)


def requests(seed: int, count: int, *, stage: str | None = None) -> list[bytes]:
    """Seeded JPEGs. With random weights no person is seen: both stages get whole pictures."""
    signature(stage or "crop")
    return serving.requests(seed, count)


def preload() -> None:
    """Import what :func:`handler` needs; nothing is computed, no GPU looked at.

    Raises:
        UnavailableError: something of it is not installed.
    """
    _set_offline()
    import_all(PRELOADED, EXTRA)


def _set_offline() -> None:
    """Set before the import, which reads them: no look at the network, no installing."""
    os.environ.setdefault("YOLO_OFFLINE", "true")
    os.environ.setdefault("YOLO_AUTOINSTALL", "false")


def _detector(variant: Variant, weights: str | None) -> Any:
    _set_offline()
    try:
        import torch
        from ultralytics import YOLO
        from ultralytics.nn.tasks import DetectionModel
    except ImportError as error:
        raise needs_extra(error, EXTRA) from error
    if weights is None:
        torch.manual_seed(0)
        with quickly_random():
            model = DetectionModel(f"{variant.name}.yaml", verbose=False)
    else:
        try:
            model = YOLO(weights).model.float()
        except UNLOADABLE as error:
            raise ConfigError(f"cannot load {variant.name}: {error}", where=weights) from error
        scale = model.yaml.get("scale")
        if scale != variant.name[-1]:
            raise ConfigError(
                f"cannot load {variant.name}: the checkpoint's network has scale {scale!r}",
                where=weights,
                allowed=f"a YOLOv5 checkpoint of scale {variant.name[-1]!r}",
            )
    return model.eval().requires_grad_(False).fuse(verbose=False)


def _classifier(variant: Variant, weights: str | None) -> Any:
    try:
        import torch
        import torchvision
        from torch.fx.experimental.optimization import fuse
    except ImportError as error:
        raise needs_extra(error, EXTRA) from error
    torch.manual_seed(0)
    with quickly_random():
        model = torchvision.models.get_model(variant.name, weights=None)
    if weights is not None:
        try:
            model.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
        except UNLOADABLE as error:
            raise ConfigError(f"cannot load {variant.name}: {error}", where=weights) from error
    return fuse(model.eval().requires_grad_(False), inplace=True)
