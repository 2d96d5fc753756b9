"""A pipeline whose models only give back what they get: for timing what is around models."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ipa_energy.pipeline_models import Handler, Runner, Signature, Variant

VARIANTS = (Variant("echo", "echo", 1.0, "none", (1,)),)


def versions() -> dict[str, str]:
    """Of nothing."""
    return {}


def build(variant: Variant, *, weights: str | None, threads: int) -> Runner:
    """Gives back what it gets."""
    return lambda batch: batch


def sample(variant: Variant, batch: int, seed: int) -> Any:
    """A batch of nothing much."""
    return [b"0"] * batch


def signature(stage: str) -> Signature:
    """Anything."""
    return Signature("application/octet-stream", "application/octet-stream")


def requests(seed: int, count: int, *, stage: str | None = None) -> list[bytes]:
    """Nothing much."""
    return [b"0"] * count


def preload() -> None:
    """Nothing."""


def handler(variant: Variant, *, weights: str | None, threads: int, device: str) -> Handler:
    """Gives back what it gets."""

    def answer(elements: Sequence[bytes]) -> Sequence[bytes]:
        return elements

    return answer
