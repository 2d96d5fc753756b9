"""Random weights without a random number for each: half of what starting a ResNet-152 takes.

A detector's are no such part of its start, and its class sets them in other ways.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from typing import Any

BLOCK = 65_521
"""Random numbers that are repeated; a prime, so that no layer's rows have them in step."""


@contextlib.contextmanager
def quickly_random() -> Iterator[None]:
    """Networks built inside get weights of the usual spread, from one block of random numbers."""
    import torch
    from torch.nn import init

    block = torch.randn(BLOCK)

    def fill(
        tensor: Any, a: float = 0, mode: str = "fan_in", nonlinearity: str = "leaky_relu", **_: Any
    ) -> Any:
        spread = init.calculate_gain(nonlinearity, a) / math.sqrt(
            init._calculate_correct_fan(tensor, mode)
        )
        with torch.no_grad():
            repeats = -(-tensor.numel() // BLOCK)
            return tensor.copy_((block * spread).repeat(repeats)[: tensor.numel()].view_as(tensor))

    kept = init.kaiming_uniform_, init.kaiming_normal_
    init.kaiming_uniform_ = init.kaiming_normal_ = fill
    try:
        yield
    finally:
        init.kaiming_uniform_, init.kaiming_normal_ = kept
