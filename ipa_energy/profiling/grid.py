"""Which entries a sweep measures, and in which order."""

from __future__ import annotations

import random
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from ipa_energy.errors import ConfigError
from ipa_energy.profiling.runtime import Pipeline, Variant


@dataclass(frozen=True, slots=True, order=True)
class Entry:
    """What one row of a profile is about, replicas and load aside.

    Attributes:
        stage, variant: one of the pipeline's variants.
        hardware: label of what it runs on, e.g. ``cpu``.
        cpu_cores: whole cores it is pinned to.
        batch: batch size.
    """

    stage: str
    variant: str
    hardware: str
    cpu_cores: int
    batch: int

    @property
    def label(self) -> str:
        """Short name for messages and the meta file: ``crop/yolov5n cpu 1c b4``."""
        return f"{self.stage}/{self.variant} {self.hardware} {self.cpu_cores}c b{self.batch}"


def chosen_variants(
    pipeline: Pipeline, stages: Collection[str] | None, variants: Collection[str] | None
) -> list[Variant]:
    """The variants that pass both filters, in the pipeline's order.

    Raises:
        ConfigError: a filter names a stage or variant that the pipeline does not have.
    """
    for kind, names, known in (
        ("stage", stages, {v.stage for v in pipeline.VARIANTS}),
        ("variant", variants, {v.name for v in pipeline.VARIANTS}),
    ):
        unknown = sorted(set(names or ()) - known)
        if unknown:
            raise ConfigError(f"no {kind} {unknown[0]!r}", allowed=", ".join(sorted(known)))
    return [
        v
        for v in pipeline.VARIANTS
        if (stages is None or v.stage in stages) and (variants is None or v.name in variants)
    ]


def grid(
    variants: Sequence[Variant],
    hardware: str,
    allocations: Sequence[int],
    batches: Sequence[int],
    available_cores: int,
) -> list[Entry]:
    """Every (variant, allocation, batch).

    Raises:
        ConfigError: a size is below 1, or an allocation has more cores than there are.
    """
    for name, sizes, most in (
        ("allocation", allocations, available_cores),
        ("batch", batches, None),
    ):
        for size in sizes:
            if size < 1 or (most is not None and size > most):
                limit = f"1 to {most} cores" if most is not None else "1 or more"
                raise ConfigError(f"{name} {size}", allowed=limit)
    found = [
        Entry(v.stage, v.name, hardware, cores, batch)
        for v in variants
        for cores in allocations
        for batch in batches
    ]
    return list(dict.fromkeys(found))


def visits(entries: Sequence[Entry], rounds: int, seed: int) -> Iterator[tuple[int, Entry]]:
    """(round, entry): every entry once a round, each round in its own seeded order."""
    for number in range(rounds):
        order = list(entries)
        random.Random(f"{seed}/{number}").shuffle(order)
        for entry in order:
            yield number, entry
