"""What pipelines of PyTorch networks share: their packages, and random weights made quickly."""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import math
import pickle
from collections.abc import Iterable, Iterator
from typing import Any

from ipa_energy.errors import UnavailableError

UNLOADABLE = (OSError, RuntimeError, ValueError, TypeError, AttributeError, pickle.UnpicklingError)
"""What the libraries raise on a file that is missing, torn, or something else altogether."""

BLOCK = 65_521
"""Random numbers that are repeated; a prime, so that no layer's rows have them in step."""


def needs_extra(error: ImportError, extra: str) -> UnavailableError:
    """What to raise when a network's package is not there."""
    return UnavailableError(
        f"the {extra} pipeline's networks need {error.name}; fix: pip install ipa-energy[{extra}]"
    )


def import_all(modules: Iterable[str], extra: str) -> None:
    """Import what a replica's process would import; nothing is computed, no GPU looked at.

    Raises:
        UnavailableError: something of it is not installed.
    """
    try:
        for name in modules:
            importlib.import_module(name)
    except ImportError as error:
        raise needs_extra(error, extra) from error


def installed_versions(packages: Iterable[str]) -> dict[str, str]:
    """Package → its version; those not installed are left out."""
    found = {}
    for package in packages:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return found


@contextlib.contextmanager
def quickly_random() -> Iterator[None]:
    """Networks built inside get weights of the usual spread, from one block of random numbers.

    A number for each takes half of the start of a large network, and its answers mean nothing
    either way.
    """
    import torch

    normal, uniform = torch.randn(BLOCK), torch.rand(BLOCK)
    usual = torch.Tensor.normal_, torch.Tensor.uniform_

    def repeated(tensor: Any, block: Any) -> Any:
        with torch.no_grad():
            repeats = math.ceil(tensor.numel() / BLOCK)
            return tensor.copy_(block.repeat(repeats)[: tensor.numel()].view(tensor.shape))

    def normal_(tensor: Any, mean: float = 0.0, std: float = 1.0, **_: Any) -> Any:
        return repeated(tensor, normal * std + mean)

    def uniform_(tensor: Any, low: float = 0.0, high: float = 1.0, **_: Any) -> Any:
        return repeated(tensor, uniform * (high - low) + low)

    setattr(torch.Tensor, "normal_", normal_)  # noqa: B010 - mypy knows them as methods
    setattr(torch.Tensor, "uniform_", uniform_)  # noqa: B010
    try:
        yield
    finally:
        torch.Tensor.normal_, torch.Tensor.uniform_ = usual


def visible_gpu(extra: str) -> dict[str, Any]:
    """The GPU that PyTorch sees: name, size and the versions that its figures depend on.

    Raises:
        UnavailableError: it sees none; with the fix.
    """
    try:
        import torch
    except ImportError as error:
        raise needs_extra(error, extra) from error
    if torch.version.cuda is None:
        raise UnavailableError(
            f"PyTorch {torch.__version__} was built without CUDA; "
            "fix: install a build with it (https://pytorch.org/get-started/locally)"
        )
    if not torch.cuda.is_available():
        raise UnavailableError(
            f"PyTorch {torch.__version__} (CUDA {torch.version.cuda}) can use no GPU; fix: a GPU "
            "and a driver new enough for that CUDA (nvidia-smi shows both), and the right to use it"
        )
    found = torch.cuda.get_device_properties(0)
    return {
        "uuid": str(found.uuid) if hasattr(found, "uuid") else None,
        "name": found.name,
        "multiprocessors": found.multi_processor_count,
        "memory_bytes": found.total_memory,
        "compute_capability": f"{found.major}.{found.minor}",
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
        "tf32_convolutions": torch.backends.cudnn.allow_tf32,
    }


def peak_gpu_memory_bytes() -> int:
    """The most that PyTorch's allocator has taken from the GPU; the CUDA context comes on top."""
    import torch

    return int(torch.cuda.max_memory_reserved())
