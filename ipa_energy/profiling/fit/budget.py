"""Which entries to measure when the budget is a share of the grid: far apart, corners included.

Every variant gets a corner of the (batch, cores) plane first, the corners in turn. Then whichever
entry is farthest from those of its own variant joins, the more readily the fewer variants have been
measured at that place; distances are between logarithms, because batches and cores go by doubling.
"""

from __future__ import annotations

import math
import random
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

from ipa_energy.errors import ConfigError
from ipa_energy.profiling.fit.surface import MIN_HELD_OUT
from ipa_energy.profiling.grid import Entry

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
        chosen |= _spread(family, share, random.Random(f"{seed}/{key if key[2] else key[:2]}"))
    return [entry for entry in entries if entry in chosen]


def _spread(family: Sequence[Entry], share: float, rng: random.Random) -> set[Entry]:
    places = _places(family)
    corners = set(_corners(places.values()))
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
    while order and (sum(uses.values()) < wanted or _paired(chosen) < MIN_HELD_OUT):
        take(max(order, key=merit))
    return {entry for entries in chosen.values() for entry in entries}


def _paired(chosen: dict[str, list[Entry]]) -> int:
    return sum(len(entries) for entries in chosen.values() if len(entries) > 1)


def _places(family: Sequence[Entry]) -> dict[Entry, Place]:
    batch = _scaler([entry.batch for entry in family])
    cores = _scaler([entry.cpu_cores for entry in family])
    return {entry: (batch[entry.batch], cores[entry.cpu_cores]) for entry in family}


def _scaler(sizes: Iterable[int]) -> dict[int, float]:
    logs = {size: math.log(size) for size in sizes}
    low, high = min(logs.values()), max(logs.values())
    return {size: (log - low) / (high - low) if high > low else 0.0 for size, log in logs.items()}


def _corners(places: Iterable[Place]) -> list[Place]:
    return [place for place in places if all(x in (0.0, 1.0) for x in place)]
