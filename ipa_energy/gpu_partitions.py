"""GPUs that can be cut into slices, and the ways in which NVIDIA's can be cut.

A GPU of a :class:`GpuPool` is cut as one :class:`Partition`: so many slices of each kind, named as
the resources that replicas hold (``mig-1g.10gb``), or left whole (``gpu``). With MIG the memory of
a GPU has eight places, and a slice begins at certain ones only; which partitions there are follows
from these. Only the fullest are listed: a GPU with a slice left empty is cut as one of them.

Source of the slices, their sizes and places: NVIDIA Multi-Instance GPU User Guide, chapters
"Supported MIG Profiles" and "Getting Started with MIG" (``nvidia-smi mig -lgipp``),
https://docs.nvidia.com/datacenter/tesla/mig-user-guide/. Slices with media extensions (``+me``,
``+gfx``) are cut as those without, at most one a GPU, and are not told apart here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

WHOLE = "gpu"
"""Resource of a replica that holds a GPU as it is."""

SLICE = "mig-"
"""Before the name that NVIDIA gives a slice: the resource of a replica that holds it."""

_PLACES = 8


@dataclass(frozen=True, slots=True)
class Partition:
    """One way to cut a GPU.

    Attributes:
        slices: (resource, how many), sorted by name.
    """

    slices: tuple[tuple[str, int], ...]

    @classmethod
    def of(cls, slices: Mapping[str, int]) -> Partition:
        """The partition with so many of each."""
        return cls(tuple(sorted((name, count) for name, count in slices.items() if count)))

    def count(self, resource: str) -> int:
        """How many slices of a kind it has."""
        return dict(self.slices).get(resource, 0)

    @property
    def label(self) -> str:
        """``2×1g.10gb + 1×3g.40gb``; ``whole`` for a GPU that is not cut."""
        if self.slices == ((WHOLE, 1),):
            return "whole"
        return " + ".join(f"{n}×{name.removeprefix(SLICE)}" for name, n in self.slices)


@dataclass(frozen=True, slots=True)
class GpuPool:
    """GPUs of one kind, which all stages share.

    Attributes:
        name: the label ``hardware`` of what runs on them.
        gpus: how many.
        partitions: the ways in which each of them may be cut.
    """

    name: str
    gpus: int
    partitions: tuple[Partition, ...]

    @property
    def slices(self) -> tuple[str, ...]:
        """Every kind of slice that some partition has."""
        return tuple(dict.fromkeys(name for each in self.partitions for name, _ in each.slices))


def _kind(*memory_gb: str) -> dict[str, tuple[int, tuple[int, ...]]]:
    """Slice → (memory places that it takes, where it may begin), of a GPU with seven slices.

    Args:
        memory_gb: of the slices 1g, 1g with twice the memory, 2g, 3g and 4g, 7g.
    """
    small, double, quarter, half, full = memory_gb
    return {
        f"1g.{small}": (1, (0, 1, 2, 3, 4, 5, 6)),
        f"1g.{double}": (2, (0, 2, 4, 6)),
        f"2g.{quarter}": (2, (0, 2, 4)),
        f"3g.{half}": (4, (0, 4)),
        f"4g.{half}": (4, (0,)),
        f"7g.{full}": (8, (0,)),
    }


KINDS: Mapping[str, Mapping[str, tuple[int, tuple[int, ...]]]] = {
    "A100-40GB": _kind("5gb", "10gb", "10gb", "20gb", "40gb"),
    "A100-80GB": _kind("10gb", "20gb", "20gb", "40gb", "80gb"),
    "H100-80GB": _kind("10gb", "20gb", "20gb", "40gb", "80gb"),
    "H100-94GB": _kind("12gb", "24gb", "24gb", "47gb", "94gb"),
    "H100-96GB": _kind("12gb", "24gb", "24gb", "48gb", "96gb"),
    "H200-141GB": _kind("18gb", "35gb", "35gb", "71gb", "141gb"),
}
"""Kind of GPU → slice → (memory places that it takes, where it may begin)."""


@cache
def partitions_of(kind: str) -> tuple[Partition, ...]:
    """The ways to cut a GPU of :data:`KINDS` that leave no room for another slice, and whole."""
    slices = KINDS[kind]
    found: set[tuple[str, ...]] = set()

    def fill(cut: tuple[str, ...], taken: frozenset[int], least: tuple[int, int]) -> None:
        """Add slices in the order of (name, place), so that no set of them is made twice."""
        fits = []
        for number, (name, (size, begins)) in enumerate(slices.items()):
            for begin in begins:
                places = frozenset(range(begin, begin + size))
                if not places & taken:
                    fits.append(((number, begin), name, places))
        if not fits:
            found.add(tuple(sorted(cut)))
        for order, name, places in fits:
            if order > least:
                fill((*cut, name), taken | places, order)

    fill((), frozenset(), (-1, -1))
    counted = [{SLICE + name: cut.count(name) for name in cut} for cut in found]
    whole = Partition.of({WHOLE: 1})
    return (whole, *_fullest([Partition.of(each) for each in counted]))


def _fullest(partitions: list[Partition]) -> list[Partition]:
    """Without those that another one has all slices of; in an order that does not change."""

    def within(one: Partition, other: Partition) -> bool:
        return one != other and all(n <= other.count(name) for name, n in one.slices)

    kept = [one for one in partitions if not any(within(one, other) for other in partitions)]
    return sorted(kept, key=lambda each: each.slices)
