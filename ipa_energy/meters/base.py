"""What every energy meter is: something read twice around a window of work.

::

    meter.read() ── work ── meter.read()          joules = meter.energy_between(first, second)

A meter reads *cumulative* counters, so one :class:`Reading` can begin many windows and nothing has
to be started or stopped. Windows shorter than ``min_window_s`` mean nothing on that meter and are
refused by those who measure.

A counter that is listed proves nothing: some virtual machines offer ``power/energy-psys/`` and keep
it at 0.00 J under full load. So each meter is tried before anybody trusts it with a window, and
what was found is one of five states ::

    measured    a counter that moved under load
    estimated   a model, or a counter that somebody else's model feeds
    dead        it can be read, and does not move
    denied      it is there, and may not be read
    absent      there is none

A driver, a server and a counter can each fail in a dozen ways. Each is translated once, where it
happens, into a :class:`MeterFault`; whoever measures sees a
:class:`~ipa_energy.errors.MeterUnavailableError`, and ``ipa-energy meters`` sees the state.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol

from ipa_energy.errors import ConfigError, MeterUnavailableError
from ipa_energy.records import Quality


@dataclass(frozen=True, slots=True)
class Reading:
    """One look at a meter's cumulative counters.

    Attributes:
        time_s: ``time.perf_counter()`` at the read.
        counters: counter name → its cumulative value in the meter's own unit.
    """

    time_s: float
    counters: dict[str, float]


@dataclass(frozen=True, slots=True)
class Energy:
    """What a window cost.

    Attributes:
        energy_j: joules of the window, total over domains, idle share included.
        duration_s: length of the window.
        domains: joules by domain (``package-0``, ``dram-0``, ``gpu-0`` …), summing to ``energy_j``.
        meter: the meter's name.
        quality: ``measured``, ``estimated`` or ``imported``.
        notes: what may be missing from it or wrong with it, in words; mostly empty.
    """

    energy_j: float
    duration_s: float
    domains: dict[str, float]
    meter: str
    quality: Quality
    notes: tuple[str, ...] = field(default=(), kw_only=True)

    @property
    def power_w(self) -> float:
        """Mean watts over the window."""
        return self.energy_j / self.duration_s


class Meter(Protocol):
    """A source of joules. Implementations: one module each in :mod:`ipa_energy.meters`."""

    @property
    def name(self) -> str:
        """Name for provenance, e.g. ``rapl``."""
        ...

    @property
    def quality(self) -> Quality:
        """Quality of every figure this meter gives."""
        ...

    @property
    def min_window_s(self) -> float:
        """Shortest window whose joules are good to 1 % as far as the counter's steps go."""
        ...

    def read(self) -> Reading:
        """Read all counters now.

        Raises:
            MeterUnavailableError: the counters cannot be read (any more).
        """
        ...

    def energy_between(self, start: Reading, end: Reading) -> Energy:
        """Joules of the window from ``start`` to ``end``, wraps accounted for.

        Raises:
            MeterUnavailableError: a counter went backwards, or the window has no length.
        """
        ...


State = Literal["measured", "dead", "denied", "absent", "estimated"]
"""How a source answered. Only ``measured`` and ``estimated`` sources give figures."""

STATES: tuple[State, ...] = ("measured", "dead", "denied", "absent", "estimated")

STEPS_FOR_ONE_PERCENT = 100
"""Steps of a counter that a window must span so that the step at its edge is 1 % of it."""


@dataclass(frozen=True, slots=True)
class MeterStatus:
    """One source of joules and what is known about it here.

    Attributes:
        name: the meter's name, e.g. ``rapl``.
        state: how it answered.
        reason: why it is in this state, in words.
        fix: what to do to use it; None where nothing need be done, or nothing can be.
        domains: what it counts (``package-0``, ``dram-0``, ``gpu-0`` …), dead ones left out.
        update_period_s: seconds between two steps of the counter, as observed; None if not known.
        min_window_s: smallest window whose joules are good to 1 %; None if not known.
        there: True if what it would count is there, though it gives no figure.
        includes_cpu: True for a GPU's counter that the processor's joules are in as well.
    """

    name: str
    state: State
    reason: str
    fix: str | None = None
    domains: tuple[str, ...] = ()
    update_period_s: float | None = None
    min_window_s: float | None = None
    there: bool = False
    includes_cpu: bool = False

    @property
    def usable(self) -> bool:
        """True if it gives figures, of whatever quality."""
        return self.state in ("measured", "estimated")

    @property
    def told(self) -> str:
        """Name, reason and fix, in a line."""
        return f"{self.name}: {self.reason}" + (f"; fix: {self.fix}" if self.fix else "")


def min_window_for(update_period_s: float) -> float:
    """Smallest window in seconds that is good to 1 % on a counter of this period.

    A reading is at most one step old at either end of a window, so the worst error is one step of
    energy at each side, of opposite sign, and a window of 100 steps is good to 1 %.
    """
    return STEPS_FOR_ONE_PERCENT * update_period_s


MOST_W = 20_000.0
"""More than the processors, the memory or a GPU of one machine draw."""

STEP_ALLOWANCE_S = 0.2
"""A window may hold a step that began this long before it."""


class MeterFault(MeterUnavailableError):  # noqa: N818 - a fault, with the parts of a status
    """A meter that cannot be used.

    Args:
        meter: the meter's name.
        state: ``dead``, ``denied`` or ``absent``.
        reason: what was found, with values and their units.
        fix: what to do about it; None where nothing can be done.
        there: True if what it would count is there all the same.
    """

    def __init__(
        self, meter: str, state: State, reason: str, fix: str | None = None, *, there: bool = False
    ) -> None:
        self.meter, self.state, self.reason, self.fix = meter, state, reason, fix
        self.there = there or state in ("dead", "denied")
        super().__init__(f"{meter}: {reason}" + (f"; fix: {fix}" if fix is not None else ""))

    def status(self) -> MeterStatus:
        """The same as a row of ``ipa-energy meters``."""
        return MeterStatus(self.meter, self.state, self.reason, self.fix, there=self.there)


class CounterMeter:
    """A meter whose readings are counters that only grow: what a window gets no figure for.

    Whoever derives from it says how to :meth:`read`; everything between two readings is here.

    Attributes:
        name: see :class:`Meter`.
        quality: see :class:`Meter`.
        joules_per_count: the counters' unit in joules.
        unit: its name, for messages.
        fell_fix: what to do about a counter that went back.
        still_told, still_fix: what is said of one that did not move, before the seconds, and what
            to do about it.
        may_rest: True if 0 J is believable.
    """

    name: str
    quality: Quality
    joules_per_count = 1.0
    unit = "J"
    fell_fix = "measure the window again"
    still_told = "did not move in"
    still_fix = "use a longer window; a counter that rests for seconds is dead"
    may_rest = False

    def energy_between(self, start: Reading, end: Reading) -> Energy:
        """Joules of the window, by domain.

        Raises:
            ConfigError: the readings were not taken by this meter.
            MeterUnavailableError: the window has no length, or a counter fell, or did not move.
        """
        duration_s = window_s(self.name, start, end)
        if not self.took(start, end):
            raise ConfigError(f"the readings were not taken by this {self.name} meter")
        self.believe(start, end)
        steps = {name: end.counters[name] - first for name, first in start.counters.items()}
        for name, step in steps.items():
            if step < 0:
                told = f"the counter of {name} fell by {-step:g} {self.unit} in {duration_s:.3g} s"
                raise MeterFault(self.name, "dead", told, self.fell_fix)
            power_w = step * self.joules_per_count / (duration_s + STEP_ALLOWANCE_S)
            if power_w > self.most_w(name):
                told = f"the counter of {name} went forward by {step:g} {self.unit} in "
                told += f"{duration_s:.3g} s, which no power explains"
                raise MeterFault(self.name, "dead", told, "measure the window again")
        if not self.may_rest:
            require_movement(self.name, steps, duration_s, self.still_fix, told=self.still_told)
        domains = {name: step * self.joules_per_count for name, step in steps.items()}
        return Energy(sum(domains.values()), duration_s, domains, self.name, self.quality)

    def most_w(self, domain: str) -> float:
        """More watts than a domain ever draws."""
        return MOST_W

    def took(self, start: Reading, end: Reading) -> bool:
        """True if both readings are of the same counters, and of this meter's."""
        return set(start.counters) == set(end.counters)

    def believe(self, start: Reading, end: Reading) -> None:
        """Raise MeterFault if the counters cannot be believed over this window."""


def window_s(meter: str, start: Reading, end: Reading) -> float:
    """Seconds from one reading to the other.

    Raises:
        MeterFault: the window has no length.
    """
    duration_s = end.time_s - start.time_s
    if not duration_s > 0:
        raise MeterFault(meter, "dead", f"a window of {duration_s:g} s has no length")
    return duration_s


def require_movement(
    meter: str,
    moved: Mapping[str, float],
    duration_s: float,
    fix: str,
    *,
    told: str = "did not move in",
    of: str = "",
) -> None:
    """See that every domain of a machine's counters moved in a window: 0 J is never a figure.

    Args:
        meter: its name.
        moved: domain → by how much, in any unit.
        duration_s: of the window.
        fix: what to do if one did not.
        told: what is said of it, before the seconds.
        of: what the domains are parts of, for the message.

    Raises:
        MeterFault: one did not.
    """
    still = [domain for domain, step in moved.items() if not step > 0]
    if still:
        reason = f"{of}{', '.join(still)} {told} {duration_s:.3g} s"
        raise MeterFault(meter, "dead", reason, fix)
