"""The few attributes of a pipeline that the hooks look at, with figures of our own."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from ipa_energy.plugin.hooks.joules import Joules
from ipa_energy.profile_table.ipa_results import EntryJoules
from ipa_energy.records import Provenance

MEASURED = Provenance("rapl", "measured", 3, 0.1)


def entry_joules(dynamic_j: float, idle_w: float, of: Provenance) -> EntryJoules:
    """Energy of an entry, of no load yet."""
    return EntryJoules(dynamic_j, idle_w, math.nan, of.ci95_j, of.trials, of.meter, of.quality)


@dataclass
class Resources:
    cpu: float = 0.0
    gpu: float = 0.0


@dataclass
class Entry:
    batch: int
    latency: float
    throughput: float


@dataclass(eq=False)
class Network:
    name: str
    resource_allocation: Resources
    profiles: list[Entry]
    accuracy: float
    joules: Any = field(default_factory=Joules)


@dataclass(eq=False)
class Step:
    name: str
    available_model_profiles: list[Network]
    batch: int = 1
    replicas: int = 1
    gpu_mode: bool = False
    active_variant_index: int = 0
    active_variant: str = ""
    active_allocation: Any = None

    @property
    def active_model(self) -> Network:
        return self.available_model_profiles[self.active_variant_index]

    @property
    def variants_accuracies(self) -> dict[str, float]:
        return {model.name: model.accuracy for model in self.available_model_profiles}

    @property
    def variants_accuracies_normalized(self) -> dict[str, float]:
        ranked = sorted(self.variants_accuracies, key=lambda name: self.variants_accuracies[name])
        return {name: rank / (len(ranked) - 1) for rank, name in enumerate(ranked)}


@dataclass(eq=False)
class Chain:
    inference_graph: list[Step]
    accuracy_method: str = "sum"
    normalize_accuracy: bool = False
    gpu_mode: bool = False

    @property
    def sla(self) -> float:
        return 5.0


@dataclass(eq=False)
class Planner:
    pipeline: Chain
    allocation_mode: str = "base"
    baseline_mode: str | None = None
    complete_profile: bool = False

    def base_allocations(self) -> dict[str, dict[str, float]]:
        return {
            task.name: {
                model.name: model.resource_allocation.cpu for model in task.available_model_profiles
            }
            for task in self.pipeline.inference_graph
        }


Energy = Callable[[str, int], tuple[float, float] | None]


def chain(
    stages: Sequence[tuple[str, Sequence[str]]],
    energy: Energy | None = None,
    batches: Sequence[int] = (1, 2, 4),
) -> Chain:
    """Stages by name and variants; a variant's index makes it slower and better by steps.

    Args:
        stages: name and variants.
        energy: (variant, batch) → (e, p), None where the profile has none.
        batches: profiled ones.
    """
    tasks = []
    for name, variants in stages:
        models = []
        for index, variant in enumerate(variants, 1):
            entries = [Entry(b, 0.05 * index * b, 20 / index) for b in batches]
            figures = {b: energy(variant, b) for b in batches} if energy else {}
            joules = {b: entry_joules(*ep, MEASURED) for b, ep in figures.items() if ep is not None}
            models.append(
                Network(variant, Resources(float(index)), entries, 0.3 * index, Joules(joules))
            )
        tasks.append(Step(name, models, active_variant=models[0].name))
    return Chain(tasks)
