"""Which entries a profile has, which of them are measured, and in which order.

With a budget a share of the grid is measured: far apart, corners included. Every variant gets a
corner of the (batch, cores) plane first, the corners in turn. Then whichever entry is farthest from
those of its own variant joins, the more readily the fewer variants have been measured at that
place; distances are between logarithms, because batches and cores go by doubling.
"""

from __future__ import annotations

import math
import random
import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from ipa_energy.errors import ConfigError
from ipa_energy.pipeline_models import Pipeline, Variant
from ipa_energy.profile_table.profile_row import ProfileRow

MIN_HELD_OUT = 4
"""Fewer held-out points than this give no error and no interval worth stating."""


@dataclass(frozen=True, slots=True, order=True)
class Entry:
    """What one row of a profile is about.

    Attributes:
        stage, variant: one of the pipeline's variants.
        hardware: label of what it runs on: ``cpu``, or a GPU's model.
        cpu_cores: whole cores one replica is pinned to.
        batch: batch size.
        replicas: replicas that work at once, each on cores of its own.
        load_rps: requests per second offered to all of them, or 0 for back to back: as many as
            they serve.
        gpu_share: of one GPU for each replica; 0 on CPUs alone.
        precision: of its numbers; empty where nobody asked for one.
    """

    stage: str
    variant: str
    hardware: str
    cpu_cores: int
    batch: int
    replicas: int = 1
    load_rps: float = 0.0
    gpu_share: float = 0.0
    precision: str = ""

    @property
    def label(self) -> str:
        """Short name for messages and the meta file: ``crop/yolov5n cpu 1c b4 float16 ×2``."""
        several = f" ×{self.replicas}" if self.replicas > 1 else ""
        offered = f" @{self.load_rps:g}rps" if self.load_rps else ""
        allocation = f"{self.cpu_cores}c" + (f"+{self.gpu_share:g}g" if self.gpu_share else "")
        option = f"{self.stage}/{self.variant} {self.hardware} {allocation} b{self.batch}"
        return f"{option}{f' {self.precision}' * bool(self.precision)}{several}{offered}"

    @property
    def family(self) -> tuple[str, str, float, str]:
        """Entries whose figures follow one law over batch and cores."""
        return (self.stage, self.hardware, self.gpu_share, self.precision)

    @property
    def saturated(self) -> Entry:
        """The same back to back."""
        return replace(self, load_rps=0.0)

    @property
    def key(self) -> tuple[object, ...]:
        """What tells the entry's row from others: ``(*option_key, replicas, load or 0)``."""
        allocation = (float(self.cpu_cores), self.gpu_share)
        labels = [("precision", self.precision)] if self.precision else []
        option = (self.stage, self.variant, self.hardware, *allocation, self.batch, *labels)
        return (*option, self.replicas, self.load_rps)


def entry_of(row: ProfileRow) -> Entry:
    """The entry that a row is about."""
    return Entry(
        stage=row.stage,
        variant=row.variant,
        hardware=row.hardware,
        cpu_cores=int(row.cpu_cores),
        batch=row.batch,
        replicas=row.replicas,
        load_rps=0.0 if row.is_saturated else row.load_rps,
        gpu_share=row.gpu_share,
        precision=row.precision,
    )


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
    *,
    available_cores: int,
    replicas: Sequence[int] = (1,),
    loads_rps: Sequence[float] = (),
    gpu_shares: Mapping[float, str] | None = None,
    precisions: Sequence[str] = ("",),
) -> list[Entry]:
    """Every (variant, allocation, batch, replicas), back to back and at each load.

    Args:
        variants: of the pipeline.
        hardware: label of entries on CPUs alone.
        allocations: cores of one replica.
        batches: batch sizes.
        available_cores: CPUs there are.
        replicas: numbers of replicas that work at once.
        loads_rps: loads below saturation.
        gpu_shares: share of a GPU → label of its entries; None for CPUs alone.
        precisions: of numbers; an empty one is the pipeline's own.

    Raises:
        ConfigError: a size is below 1, replicas together have more cores than there are, or a load
            is not above 0.
    """
    for load_rps in loads_rps:
        if not 0 < load_rps < math.inf:
            raise ConfigError(f"load {load_rps:g} rps", allowed="more than 0 rps")
    for name, sizes, most in (
        ("allocation", allocations, available_cores),
        ("batch", batches, None),
        ("replicas", replicas, None),
    ):
        for size in sizes:
            if size < 1 or (most is not None and size > most):
                limit = f"1 to {most} cores" if most is not None else "1 or more"
                raise ConfigError(f"{name} {size}", allowed=limit)
    for count in replicas:
        for cores in allocations:
            if count * cores > available_cores:
                raise ConfigError(
                    f"{count} replicas on {cores} cores each need {count * cores} cores",
                    allowed=f"{available_cores} cores in all",
                    fix="measure fewer replicas or smaller allocations, or profile them apart",
                )
    found = [
        Entry(v.stage, v.name, label, cores, batch, count, load_rps, share, precision)
        for v in variants
        for precision in precisions
        for share, label in (gpu_shares or {0.0: hardware}).items()
        for cores in allocations
        for batch in batches
        for count in replicas
        for load_rps in (0.0, *loads_rps)
    ]
    return list(dict.fromkeys(found))


def visits(entries: Sequence[Entry], rounds: int, seed: int) -> Iterator[tuple[int, Entry]]:
    """(round, entry): every entry once a round, each round in its own seeded order."""
    for number in range(rounds):
        order = list(entries)
        random.Random(f"{seed}/{number}").shuffle(order)
        for entry in order:
            yield number, entry


Place = tuple[float, float]
"""(ln batch, ln cores), each scaled to 0..1 over the stage's grid."""


def parse_share(text: str) -> float:
    """The ratio that ``40%`` or ``0.4`` stands for.

    Raises:
        ConfigError: it is neither, or not above 0 and at most 100 %.
    """
    number = re.fullmatch(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)\s*(%?)", text.strip())
    share = math.nan
    if number:
        share = float(number[1]) / (100 if number[2] else 1)
    if not 0 < share <= 1:
        raise ConfigError(f"budget {text!r}", allowed="a share of the grid: 40% or 0.4, up to 100%")
    return share


def within_budget(entries: Sequence[Entry], share: float, seed: int) -> list[Entry]:
    """The entries to measure, in the grid's order.

    At least one a variant, and as many more as a fit needs, are chosen for every stage, even where
    that is more than the share.

    Args:
        entries: the whole grid.
        share: of each stage's entries, above 0 and at most 1.
        seed: decides between entries that are equally good.
    """
    chosen: set[Entry] = set()
    for key in dict.fromkeys(entry.family for entry in entries):
        family = [entry for entry in entries if entry.family == key]
        chosen |= _spread(family, share, random.Random(f"{seed}/{_name(key)}"))
    return [entry for entry in entries if entry in chosen]


def _name(family: tuple[str, str, float, str]) -> tuple[object, ...]:
    """What of a family is not as ever."""
    stage, hardware, share, precision = family
    if precision:
        return family
    return (stage, hardware, share) if share else (stage, hardware)


def _spread(family: Sequence[Entry], share: float, rng: random.Random) -> set[Entry]:
    batch = _scaler([entry.batch for entry in family])
    cores = _scaler([entry.cpu_cores for entry in family])
    places = {entry: (batch[entry.batch], cores[entry.cpu_cores]) for entry in family}
    corners = {place for place in places.values() if set(place) <= {0.0, 1.0}}
    order = sorted(family)
    rng.shuffle(order)
    chosen: dict[str, list[Entry]] = defaultdict(list)
    uses: Counter[Place] = Counter()

    def take(entry: Entry) -> None:
        chosen[entry.variant].append(entry)
        uses[places[entry]] += 1
        order.remove(entry)

    for variant in dict.fromkeys(entry.variant for entry in list(order)):
        mine = [entry for entry in order if entry.variant == variant]
        take(min(mine, key=lambda e: (places[e] not in corners, uses[places[e]])))

    def merit(entry: Entry) -> float:
        near = min(math.dist(places[entry], places[other]) for other in chosen[entry.variant])
        return near * (1 + 1 / (1 + uses[places[entry]]))

    wanted = math.ceil(share * len(family) - 1e-9)
    # So many that enough points have another of their variant to be held out against.
    while order and (
        sum(uses.values()) < wanted
        or sum(len(mine) for mine in chosen.values() if len(mine) > 1) < MIN_HELD_OUT
    ):
        take(max(order, key=merit))
    return {entry for entries in chosen.values() for entry in entries}


def _scaler(sizes: Iterable[int]) -> dict[int, float]:
    logs = {size: math.log(size) for size in sizes}
    low, high = min(logs.values()), max(logs.values())
    return {size: (log - low) / (high - low) if high > low else 0.0 for size, log in logs.items()}
