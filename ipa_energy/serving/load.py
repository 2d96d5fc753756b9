"""When each request of a load trace is sent, of which class it is, and who of several gets it.

A trace has a count per second; the YAML's ``mode`` says how a second's requests lie inside it:
``exponential``, ``equal`` and ``step`` are names of IPA's load generator, ``ipa`` is what that
generator really does in its mode ``exponential``. It draws n delays of mean 1/n s *from the
second's start* instead of adding up gaps, so that a second's requests bunch at its beginning: at
10 requests a second 92 % come in the first quarter, and counts in 100 ms vary several times as much
as those of a Poisson process. Our ``exponential`` is the Poisson process.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, TypeVar, get_args

import numpy as np
import numpy.typing as npt

from ipa_energy.arrays import Counts, Floats
from ipa_energy.errors import ConfigError

Mode = Literal["exponential", "equal", "step", "ipa"]
MODES: tuple[Mode, ...] = get_args(Mode)


def arrival_times_s(
    counts_per_s: npt.ArrayLike, *, mode: Mode = "exponential", seed: int
) -> Floats:
    """Sending times of every request, ascending; second s has exactly ``counts_per_s[s]`` of them.

    ``exponential`` is a Poisson process given each second's count (independent uniform times);
    ``equal`` sends the i-th of n at i/n of the second; ``step`` sends all at its beginning; ``ipa``
    draws n exponential delays of mean 1/n s from its beginning, each within the second (IPA's own
    may reach into the next one, which matters below 5 requests a second only). The times of the
    first seconds do not depend on the later ones.

    Args:
        counts_per_s: (seconds,) whole numbers ≥ 0.
        mode: how a second's requests lie inside it.
        seed: of ``exponential`` and ``ipa``; the others are not random.

    Raises:
        ConfigError: a count is negative or no whole number, ``mode`` is unknown, or ``seed`` is
            negative.
    """
    counts = _checked_counts(counts_per_s)
    if mode not in MODES:
        raise ConfigError(f"mode {mode!r}", allowed=", ".join(MODES))
    if seed < 0:
        raise ConfigError(f"seed of {seed}", allowed="a whole number from 0")
    second = np.repeat(np.arange(len(counts)), counts).astype(np.float64)
    if mode == "step":
        return second
    if mode == "equal":
        first = np.repeat(np.cumsum(counts) - counts, counts)
        return second + (np.arange(len(second)) - first) / np.repeat(counts, counts)
    within_s = np.random.default_rng(seed).random(len(second))
    if mode == "ipa":
        n = np.repeat(counts, counts)
        within_s = -np.log1p(within_s * np.expm1(-n)) / n
    times_s = second + within_s
    # A sum can round up to the next whole second, which is no longer this one.
    return np.sort(np.minimum(times_s, np.nextafter(second + 1, 0.0)))


def _checked_counts(counts_per_s: npt.ArrayLike) -> Counts:
    try:
        counts = np.asarray(counts_per_s, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"request counts that are not numbers ({error})", allowed="whole numbers ≥ 0 per second"
        ) from error
    if counts.ndim != 1:
        raise ConfigError(
            f"request counts in {counts.ndim} dimensions", allowed="one count per second"
        )
    wrong = np.flatnonzero(~(np.isfinite(counts) & (counts >= 0) & (counts == np.floor(counts))))
    if len(wrong):
        raise ConfigError(
            f"request count {counts[wrong[0]]:g} in second {wrong[0]}", allowed="whole numbers ≥ 0"
        )
    return counts.astype(np.int64)


@dataclass(frozen=True, slots=True, eq=False)
class ClassesOfRequests:
    """Which class each request of a trace is of.

    Attributes:
        names: of the classes.
        of_request: (R,) position in ``names``, in the order of sending.
    """

    names: tuple[str, ...]
    of_request: Counts

    def last(self, count: int) -> Counts:
        """Of the last so many requests."""
        return self.of_request[len(self.of_request) - count :]


def drawn_classes(counts_per_s: Counts, shares: Mapping[str, float], *, seed: int) -> Counts:
    """(R,) positions of classes drawn by their shares, request by request."""
    edges = np.cumsum([*shares.values()])
    draws = np.random.default_rng([seed, _CLASSES]).random(int(counts_per_s.sum()))
    return np.searchsorted(edges / edges[-1], draws, side="right").astype(np.int64)


def shuffled_classes(by_class: Sequence[Counts], *, seed: int) -> Counts:
    """(R,) positions of classes with so many of each in every second, in random order there.

    Args:
        by_class: of each class (seconds,) requests.
        seed: of the order within the seconds.
    """
    table = np.array(by_class).T
    kinds = np.repeat(np.tile(np.arange(len(by_class)), len(table)), table.ravel())
    second = np.repeat(np.arange(len(table)), table.sum(axis=1))
    keys = np.random.default_rng([seed, _CLASSES]).random(len(kinds))
    return kinds[np.lexsort((keys, second))].astype(np.int64)


_CLASSES = 1
"""Which of a seed's random streams deals out classes."""


class TraceLoad:
    """:class:`~.base.LoadSource` of a trace: every request's time is known in advance.

    Args:
        counts_per_s: (seconds,) whole numbers ≥ 0.
        mode, seed: as for :func:`arrival_times_s`.

    Attributes:
        trace: the counts.
        duration_s: their number.
    """

    def __init__(self, counts_per_s: Counts, *, mode: Mode = "exponential", seed: int) -> None:
        self.trace = counts_per_s
        self.duration_s = len(counts_per_s)
        self._times_s = arrival_times_s(counts_per_s, mode=mode, seed=seed)

    def start(self) -> None:
        """Nothing to do: a simulation asks."""

    def sending_s(self, start_s: float, until_s: float) -> Floats:
        """When requests are sent in [start_s, until_s)."""
        first, last = np.searchsorted(self._times_s, [start_s, until_s])
        return self._times_s[first:last]

    def close(self) -> None:
        """Nothing to stop."""


class Dealt(Protocol):
    """What requests are dealt out to.

    Attributes:
        credits: requests of each class that it should have had more, up to now; 0 at the beginning.
    """

    credits: list[float]

    @property
    def shares(self) -> Sequence[float]:
        """Of the requests of each class."""
        ...


Lane = TypeVar("Lane", bound=Dealt)


def next_of(lanes: Sequence[Lane], kind: int = 0, whole: float = 1.0) -> Lane:
    """The one of a stage's options that gets the next request, in every backend.

    Always the one that is furthest behind its share, of several the first: after n requests no
    option has got a whole request more or less than its share of them for two options, and hardly
    more for several. Nothing is random, so that the simulation and what serves deal alike.

    Args:
        lanes: at least one.
        kind: class of the request; 0 where nobody tells them apart.
        whole: sum of their shares.
    """
    for lane in lanes:
        lane.credits[kind] += lane.shares[kind]
    # Where a lane has gone with what it was ahead, the others are all behind one without a share.
    chosen = max(lanes, key=lambda lane: (lane.shares[kind] > 0, lane.credits[kind]))
    chosen.credits[kind] -= whole
    return chosen
