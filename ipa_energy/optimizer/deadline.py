"""Decisions in bounded time: until when a solver may look, and what it can say when time is up."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from ipa_energy.optimizer.plan import EQUAL_OBJECTIVE_RTOL, Choice
from ipa_energy.optimizer.problem import Problem
from ipa_energy.optimizer.settings import Settings

Solve = TypeVar("Solve", bound=Callable[..., Any])


class OutOfTimeError(Exception):
    """A search was stopped by its deadline, or would need more memory than it may have."""


@dataclass(frozen=True, slots=True)
class Deadline:
    """When to stop.

    Attributes:
        until_s: on the clock.
        clock: seconds; wall time unless something else is measured.
    """

    until_s: float
    clock: Callable[[], float] = field(default=time.perf_counter)

    @classmethod
    def after(cls, seconds: float, clock: Callable[[], float] = time.perf_counter) -> Deadline:
        """So many seconds from now."""
        return cls(clock() + seconds, clock)

    @property
    def left_s(self) -> float:
        """Seconds that are left, 0 at least."""
        return max(0.0, self.until_s - self.clock())

    def share(self, ratio: float) -> Deadline:
        """An earlier one, after a share of the time that is left."""
        return Deadline(self.clock() + ratio * self.left_s, self.clock)

    def check(self) -> None:
        """Stop whoever asks if time is up.

        Raises:
            OutOfTimeError: it is.
        """
        if self.clock() >= self.until_s:
            raise OutOfTimeError


class InTime(Protocol):
    """What a solver that can stop in time has as its attribute ``within``."""

    def __call__(self, problem: Problem, top_k: int, deadline: Deadline) -> Bounded:
        """The best choices found until the deadline, and a bound on all."""
        ...


def stops_in_time(within: InTime) -> Callable[[Solve], Solve]:
    """Mark a solver as one that can stop at a deadline, and by which function."""

    def marked(solve: Solve) -> Solve:
        solve.within = within  # type: ignore[attr-defined]
        return solve

    return marked


def prepared_by(prepare: Callable[[Settings], None]) -> Callable[[Solve], Solve]:
    """Mark a solver as one that has something to import or to start before it is timed."""

    def marked(solve: Solve) -> Solve:
        solve.prepare = prepare  # type: ignore[attr-defined]
        return solve

    return marked


@dataclass(frozen=True, slots=True)
class Bounded:
    """What a solver has when its time is up.

    Attributes:
        choices: feasible, best first; empty if none was found.
        bound: no feasible choice is worth more; −inf if there is none, inf if nothing is proven.
    """

    choices: list[Choice]
    bound: float

    def is_proven(self, worth: float) -> bool:
        """True if a choice of that worth is a best one."""
        return self.bound <= worth + EQUAL_OBJECTIVE_RTOL * max(1.0, abs(worth))


def gap_of(bound: float, worth: float) -> float:
    """How much better the best plan could be, as a share of the objective; 0 if it is proven."""
    if bound <= worth + EQUAL_OBJECTIVE_RTOL * max(1.0, abs(worth)):
        return 0.0
    return (bound - worth) / abs(worth) if worth else math.inf
