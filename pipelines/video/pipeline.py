"""How the video pipeline's networks are built and run; the names a profiler or server looks for.

What one call of a runner covers: a preprocessed float tensor in, the network's output out. For the
detector that includes decoding the boxes but not non-maximum suppression, whose time depends on
what is in the picture. Networks are in eval mode, without gradients, and convolutions are fused
with their batch normalisation, as a server would have them.
"""

from __future__ import annotations

import importlib.metadata
import os
import pickle
from typing import Any

from ipa_energy.errors import ConfigError, UnavailableError
from ipa_energy.profiling.runtime import Runner, Variant
from pipelines.video.variants import VARIANTS

__all__ = ["REQUIRES", "VARIANTS", "build", "sample", "versions"]

REQUIRES = ("torch", "torchvision", "ultralytics")
"""Packages the networks need; ``pip install ipa-energy[video]`` brings them."""

UNLOADABLE = (OSError, RuntimeError, ValueError, TypeError, AttributeError, pickle.UnpicklingError)
"""What the libraries raise on a file that is missing, torn, or something else altogether."""


def build(variant: Variant, *, weights: str | None = None, threads: int = 1) -> Runner:
    """Load a variant ready to serve.

    Args:
        variant: one of :data:`VARIANTS`.
        weights: an ultralytics checkpoint (``.pt``) for a detector, a state dict for a classifier;
            None for random weights, which cost the same time and energy.
        threads: threads of one operation; the process should be pinned to as many cores.

    Returns:
        a function from a (B, 3, H, W) float tensor to a tensor whose first dimension is B: boxes
        and class scores (B, 84, anchors), or logits (B, 1000).

    Raises:
        UnavailableError: torch, torchvision or ultralytics is not installed.
        ConfigError: the weights do not fit the variant.
    """
    try:
        import torch
    except ImportError as error:
        raise _needs_extra(error) from error
    torch.set_num_threads(threads)
    is_detector = variant.stage == "crop"
    model = _detector(variant, weights) if is_detector else _classifier(variant, weights)

    def run(batch: Any) -> Any:
        with torch.inference_mode():
            output = model(batch)
        return output[0] if is_detector else output

    return run


def sample(variant: Variant, batch: int, seed: int) -> Any:
    """A (batch, 3, H, W) float tensor of uniform noise in 0..1."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    return torch.rand((batch, *variant.input_shape), generator=generator)


def versions() -> dict[str, str]:
    """Versions of the packages that run the networks; those not installed are left out."""
    found = {}
    for package in ("torch", "torchvision", "ultralytics"):
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _needs_extra(error: ImportError) -> UnavailableError:
    return UnavailableError(
        f"the video pipeline's networks need {error.name}; fix: pip install ipa-energy[video]"
    )


def _detector(variant: Variant, weights: str | None) -> Any:
    # Set before the import, which reads them: no look at the network, no installing of packages.
    os.environ.setdefault("YOLO_OFFLINE", "true")
    os.environ.setdefault("YOLO_AUTOINSTALL", "false")
    try:
        import torch
        from ultralytics import YOLO
        from ultralytics.nn.tasks import DetectionModel
    except ImportError as error:
        raise _needs_extra(error) from error
    if weights is None:
        torch.manual_seed(0)
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
        raise _needs_extra(error) from error
    torch.manual_seed(0)
    model = torchvision.models.get_model(variant.name, weights=None)
    if weights is not None:
        try:
            model.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
        except UNLOADABLE as error:
            raise ConfigError(f"cannot load {variant.name}: {error}", where=weights) from error
    return fuse(model.eval().requires_grad_(False))
