"""The carbon intensity of electricity as a step function of time.

A series is what a provider published: one value for each step of five minutes to an hour, in grams
of CO2 equivalent per kilowatt-hour, with what kind of figure it is. *Average* intensities say what
the grid's mix emits, *marginal* ones what one kilowatt-hour more would; *direct* ones count the
power stations' chimneys, *life cycle* ones building and fuel as well. No two kinds compare, so none
is ever turned into another, and the kind goes wherever the grams go.

Times are seconds since 1970 in UTC. A value holds from its time to the next one's.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import numpy as np

from ipa_energy.arrays import Floats, Ints
from ipa_energy.errors import ConfigError

Kind = Literal["average", "marginal", "unknown"]
Scope = Literal["direct", "life cycle", "unknown"]
Gaps = Literal["refuse", "hold"]

LARGEST_G_PER_KWH = 3000.0
"""No grid reaches it (lignite alone is near 1,100): beyond it a unit is mistaken."""

UNIT_HINT = ": is the unit right? lb/MWh × 0.4536, kg/MWh × 1 are g/kWh"

USUAL_STEP_S = 3600.0


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class IntensitySeries:
    """Carbon intensities of one place, step after step without a gap.

    Attributes:
        time_s: (T,) when each value begins to hold, ascending, seconds since 1970 (UTC).
        g_per_kwh: (T,) the values, from 0.
        end_s: when the last one ends.
        kind, scope: what kind of figure they are.
        zone: of the grid; "" if nobody said.
        source: who says so, for people.
        estimated_share: share of the steps that the provider estimated or a gap was held over;
            NaN if nobody says which.
        is_forecast: True if they were said before their time.
        is_synthetic: True if they were made up.
    """

    time_s: Floats
    g_per_kwh: Floats
    end_s: float
    kind: Kind = "unknown"
    scope: Scope = "unknown"
    zone: str = ""
    source: str = ""
    estimated_share: float = math.nan
    is_forecast: bool = False
    is_synthetic: bool = False

    @classmethod
    def constant(cls, g_per_kwh: float) -> IntensitySeries:
        """One value at all times.

        Raises:
            ConfigError: it is beyond any grid's.
        """
        if g_per_kwh > LARGEST_G_PER_KWH:
            raise ConfigError(
                f"{g_per_kwh:g} g/kWh{UNIT_HINT}",
                where="carbon.intensity",
                allowed=f"0 to {LARGEST_G_PER_KWH:g} g/kWh",
            )
        return cls(
            time_s=np.array([-math.inf]),
            g_per_kwh=np.array([float(g_per_kwh)]),
            end_s=math.inf,
            source="a number in the YAML",
        )

    def __len__(self) -> int:
        return len(self.g_per_kwh)

    @property
    def is_constant(self) -> bool:
        """True if it holds at all times."""
        return self.end_s == math.inf

    @property
    def start_s(self) -> float:
        """When the first value begins."""
        return float(self.time_s[0])

    def at(self, time_s: float) -> float:
        """The intensity at a time, g/kWh.

        Raises:
            ConfigError: the series does not reach there.
        """
        self.check_covers(time_s, time_s)
        return float(self.g_per_kwh[self._index(time_s)])

    def mean(self, start_s: float, end_s: float) -> float:
        """The mean over [start_s, end_s), by time; of an instant, its value.

        Raises:
            ConfigError: the series does not reach over it.
        """
        if end_s <= start_s:
            return self.at(start_s)
        self.check_covers(start_s, end_s)
        return float(self.means(np.array([start_s, end_s]))[0])

    def means(self, edges_s: Floats) -> Floats:
        """The means between consecutive times, (len − 1,); unchecked."""
        if self.is_constant:
            return np.full(len(edges_s) - 1, self.g_per_kwh[0])
        zero_s = self.start_s  # sums of seconds since 1970 would lose digits
        bounds_s = np.append(self.time_s, self.end_s) - zero_s
        summed = np.concatenate([[0.0], np.cumsum(self.g_per_kwh * np.diff(bounds_s))])
        found: Floats = np.diff(np.interp(edges_s - zero_s, bounds_s, summed)) / np.diff(edges_s)
        return found

    def scaled(self, factor: float) -> IntensitySeries:
        """Every value times ``factor``."""
        return replace(self, g_per_kwh=self.g_per_kwh * factor)

    def held_until(self, end_s: float) -> IntensitySeries:
        """Its last value held on to a time, if it ends before."""
        return self if end_s <= self.end_s else replace(self, end_s=end_s)

    def check_covers(self, start_s: float, end_s: float) -> None:
        """Refuse a stretch of time that has no intensity.

        Raises:
            ConfigError: it begins before the series or ends after it.
        """
        if start_s >= self.start_s and end_s <= self.end_s:
            return
        asked = [in_utc(start_s), *([in_utc(end_s)] if end_s > start_s else [])]
        raise ConfigError(
            f"the intensities are of {in_utc(self.start_s)} to {in_utc(self.end_s)},"
            f" {' to '.join(asked)} is asked for",
            where=self.source or None,
            fix="set carbon.start to a time within them, shorten the load, or save a longer series",
        )

    def to_json(self) -> dict[str, object]:
        """What kind of figures they are, for logs and reports."""
        return {
            "kind": self.kind,
            "scope": self.scope,
            "zone": self.zone,
            "source": self.source,
            "estimated_share": None if math.isnan(self.estimated_share) else self.estimated_share,
            "is_forecast": self.is_forecast,
            "is_synthetic": self.is_synthetic,
        }

    def _index(self, time_s: float) -> int:
        last = len(self.time_s) - 1
        return min(int(np.searchsorted(self.time_s, time_s, side="right")) - 1, last)


@dataclass(frozen=True, slots=True)
class Point:
    """One published value.

    Attributes:
        time: when it begins to hold.
        g_per_kwh: NaN if the provider left it out.
        is_estimated: None if nobody says.
        line: where it stands, for messages; 0 if there are no lines.
    """

    time: datetime
    g_per_kwh: float
    is_estimated: bool | None = None
    line: int = 0


def series_of(
    points: list[Point],
    *,
    where: str | Path,
    source: str,
    kind: Kind,
    scope: Scope,
    zone: str = "",
    step_s: float | None = None,
    gaps: Gaps = "refuse",
    is_forecast: bool = False,
) -> IntensitySeries:
    """The points as a series: sorted, each checked, without a gap.

    A value that is missing, or whose step is, is a gap: refused with its time, or with ``hold``
    filled with the value before it and counted as estimated. A time that is there twice is refused
    unless both say the same. Steps may be of any one length; the last value lasts one.

    Raises:
        ConfigError: there are no points; one is negative, too large or out of step; a gap or a
            contradiction.
    """
    if not points:
        raise ConfigError("there is no intensity in it", where=where)
    points = _without_repeats(sorted(points, key=lambda point: point.time), where)
    for point in points:
        _check(point, where)
    times_s = np.array([point.time.timestamp() for point in points])
    length_s = step_s or _usual_step_s(times_s, where)
    place = np.rint((times_s - times_s[0]) / length_s).astype(np.int64)
    off = np.flatnonzero(np.abs(times_s - times_s[0] - place * length_s) > 1.0)
    if len(off):
        raise ConfigError(
            f"{in_utc(times_s[off[0]])} is not a whole number of steps of {length_s:g} s after"
            f" {in_utc(times_s[0])}",
            where=_place(where, points[off[0]]),
            fix="save the series in one step, or name it: carbon.intensity.step_s",
        )
    values = np.full(place[-1] + 1, np.nan)
    values[place] = [point.g_per_kwh for point in points]
    estimated = np.zeros(len(values), dtype=bool)
    estimated[place] = [bool(point.is_estimated) for point in points]
    missing = np.flatnonzero(np.isnan(values))
    all_s = times_s[0] + np.arange(len(values)) * length_s
    if len(missing):
        values = _held(values, all_s, missing, gaps, where)
        estimated[missing] = True
    says = any(point.is_estimated is not None for point in points) or len(missing) > 0
    return IntensitySeries(
        time_s=all_s,
        g_per_kwh=values,
        end_s=float(times_s[0] + len(values) * length_s),
        kind=kind,
        scope=scope,
        zone=zone,
        source=source,
        estimated_share=float(estimated.mean()) if says else math.nan,
        is_forecast=is_forecast,
    )


def in_utc(time_s: float) -> str:
    """A time for people: ``2023-04-17 00:00 UTC``."""
    if not math.isfinite(time_s):
        return "ever"
    return datetime.fromtimestamp(time_s, UTC).strftime("%Y-%m-%d %H:%M UTC")


def _without_repeats(points: list[Point], where: str | Path) -> list[Point]:
    kept: list[Point] = []
    for point in points:
        if not kept or point.time != kept[-1].time:
            kept.append(point)
        elif point.g_per_kwh != kept[-1].g_per_kwh:
            raise ConfigError(
                f"{in_utc(point.time.timestamp())} is there twice, with {kept[-1].g_per_kwh:g} and"
                f" {point.g_per_kwh:g} g/kWh",
                where=_place(where, point),
                fix="one zone and one kind of figure: name the zone with carbon.intensity.zone",
            )
    return kept


def _check(point: Point, where: str | Path) -> None:
    value = point.g_per_kwh
    if math.isnan(value) or 0 <= value <= LARGEST_G_PER_KWH:
        return
    hint = "" if value < 0 else UNIT_HINT
    raise ConfigError(
        f"{value:g} g/kWh at {in_utc(point.time.timestamp())}{hint}",
        where=_place(where, point),
        allowed=f"0 to {LARGEST_G_PER_KWH:g} g/kWh",
    )


def _usual_step_s(times_s: Floats, where: str | Path) -> float:
    if len(times_s) == 1:
        return USUAL_STEP_S
    lengths_s, counts = np.unique(np.diff(times_s), return_counts=True)
    length_s = float(lengths_s[counts.argmax()])
    if length_s <= 0:
        raise ConfigError("its times do not go on", where=where)
    return length_s


def _held(values: Floats, times_s: Floats, missing: Ints, gaps: Gaps, where: str | Path) -> Floats:
    """The values with every gap filled with what was before it."""
    at = in_utc(float(times_s[missing[0]]))
    others = f", nor at {len(missing) - 1} later times" if len(missing) > 1 else ""
    if gaps == "refuse":
        raise ConfigError(
            f"no intensity at {at}{others}",
            where=where,
            fix="save it anew, or with carbon.intensity.gaps: hold go on with the value before",
        )
    if missing[0] == 0:
        raise ConfigError(f"no intensity at {at}, and none before it to hold", where=where)
    known = np.where(np.isnan(values), 0, np.arange(len(values)))
    held: Floats = values[np.maximum.accumulate(known)]
    return held


def _place(where: str | Path, point: Point) -> str:
    return f"{where}:{point.line}" if point.line else str(where)


DAILY = ((0.163, 0.014), (-0.074, -0.023))
"""Cosine and sine of the waves of a day and of half a day."""

WEEKEND = -0.053
PERSISTENCE = 0.908
"""Correlation of the noise from one hour to the next."""

NOISE = 0.232
LEAST = 0.05
"""No hour is below this share of the mean."""

HOUR_S = 3600.0
MONDAY_S = datetime(2024, 1, 1, tzinfo=UTC).timestamp()


def synthetic_intensity(mean_g_per_kwh: float, days: int, seed: int) -> IntensitySeries:
    """A made-up series, for those who have none; it begins on a Monday, 2024-01-01 00:00 UTC.

    Hour by hour, with h the hours since a Monday midnight::

        g(h) = mean · (1 + daily(h) + weekend(h) + noise(h))

    The shape is the median of least-squares fits to five real weeks (``configs/carbon``, life
    cycle, local time, each over its mean; ``experiments/carbon/fit_synthetic.py``): lowest at noon,
    where the sun is, with a smaller wave twice a day; noise that forgets a tenth of itself every
    hour. Grids differ more from each other than any such curve shows, so that a series of this kind
    says how a program behaves, not what a site emits. It is labelled synthetic.

    Args:
        mean_g_per_kwh: its exact mean.
        days: how many.
        seed: of the noise; the first days do not depend on how many follow.
    """
    hours = np.arange(24 * days)
    shape = 1.0 + WEEKEND * (hours // 24 % 7 >= 5)
    for number, (cosine, sine) in enumerate(DAILY, start=1):
        angle = 2 * np.pi * number * hours / 24
        shape = shape + cosine * np.cos(angle) + sine * np.sin(angle)
    values = np.maximum(shape + _noise(len(hours), seed), LEAST)
    time_s: Floats = MONDAY_S + HOUR_S * hours.astype(np.float64)
    return IntensitySeries(
        time_s=time_s,
        g_per_kwh=values * (mean_g_per_kwh / values.mean()),
        end_s=MONDAY_S + HOUR_S * len(hours),
        kind="average",
        scope="unknown",
        source=f"made up, seed {seed}",
        is_synthetic=True,
    )


def _noise(hours: int, seed: int) -> Floats:
    """A first-order autoregression that has run for ever."""
    rng = np.random.default_rng(seed)
    found = np.empty(hours)
    level = rng.normal(0.0, NOISE)
    for hour, push in enumerate(rng.normal(0.0, NOISE * np.sqrt(1 - PERSISTENCE**2), hours)):
        level = PERSISTENCE * level + push
        found[hour] = level
    return found
