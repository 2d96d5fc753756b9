"""Carbon intensities as their providers publish them, read from a file that the user saved.

Recognised by content: Electricity Maps (history, past range and forecast as JSON, the data portal's
CSV), WattTime v3, the UK's Carbon Intensity API, the Carbon Aware SDK, Energinet's CO2Emis and
CO2EmisProg, the EIA's hourly net generation by fuel (EIA-930, API v2), its workbook of a balancing
authority saved as CSV, and any CSV whose unit is declared. Nothing is fetched.

What a provider's figures are is theirs to say: WattTime's and some others are *marginal*,
Electricity Maps has *life cycle* and *direct* ones side by side. A file that says neither is of
kind "unknown" unless the YAML says it.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from ipa_energy.carbon.intensity import Gaps, IntensitySeries, Kind, Point, Scope, series_of
from ipa_energy.errors import ConfigError, in_words

Entry = TypeVar("Entry")

G_PER_LB = 453.59237

UNITS: dict[str, float] = {
    "g/kWh": 1.0,
    "kg/MWh": 1.0,
    "t/GWh": 1.0,
    "kg/kWh": 1000.0,
    "t/MWh": 1000.0,
    "lb/MWh": G_PER_LB / 1000.0,
    "lb/kWh": G_PER_LB,
}
"""Unit of an intensity → what makes grams per kilowatt-hour of it."""

EIA_LB_PER_KWH = {"COL": 2.31, "NG": 0.96, "OIL": 2.46}
"""CO2 of a kilowatt-hour by fuel, United States 2023: EIA, Frequently Asked Questions, "How much
carbon dioxide is produced per kilowatthour of U.S. electricity generation?" Other fuels count 0, as
there: chimneys of power stations, plants' own combustion of biomass left out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """How a file is to be read, where it does not say itself; see ``carbon.intensity`` of the YAML.

    Attributes:
        zone: the one to take of several.
        unit: of a plain CSV's values, one of :data:`UNITS`.
        kind, scope: of figures that do not say it; None leaves what the file says.
        time_column, value_column: of a plain CSV.
        time_zone: of times without one, a name of the tz database.
        step_s: length of a step; None: what most are apart.
        gaps: what a missing step is.
    """

    zone: str | None = None
    unit: str | None = None
    kind: Kind | None = None
    scope: Scope | None = None
    time_column: str | None = None
    value_column: str | None = None
    time_zone: str | None = None
    step_s: float | None = None
    gaps: Gaps = "refuse"


IN_UTC = Reading(time_zone="UTC")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Found:
    """What a file holds."""

    points: list[Point]
    source: str
    kind: Kind = "unknown"
    scope: Scope = "unknown"
    zone: str = ""
    is_forecast: bool = False
    step_s: float | None = None


def read_intensity(path: Path, reading: Reading | None = None) -> IntensitySeries:
    """The series in a file.

    Raises:
        ConfigError: it cannot be read, is of no known format, says something else than the reading
            does, or is no series (:func:`.intensity.series_of`).
    """
    reading = reading or Reading()
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read it: {in_words(error)}", where=path) from error
    is_json = text.lstrip()[:1] in ("{", "[")
    try:
        found = _from_json(text, path, reading) if is_json else _from_csv(text, path, reading)
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        raise ConfigError(f"an entry of it is not whole: {in_words(error)}", where=path) from error
    return series_of(
        found.points,
        where=path,
        source=f"{found.source}, {path.name}",
        kind=_agreed(found.kind, reading.kind, "kind", path),
        scope=_agreed(found.scope, reading.scope, "scope", path),
        zone=found.zone or reading.zone or "",
        step_s=reading.step_s or found.step_s,
        gaps=reading.gaps,
        is_forecast=found.is_forecast,
    )


def _agreed(said: Any, declared: Any, key: str, where: Path) -> Any:
    """What the file says, or the YAML where it says nothing."""
    if declared is None or said == declared:
        return said
    if said == "unknown":
        return declared
    raise ConfigError(
        f"these intensities are {said}", where=where, fix=f"leave carbon.intensity.{key} out"
    )


# JSON


def _from_json(text: str, where: Path, reading: Reading) -> _Found:
    try:
        data = json.loads(text)
    except json.JSONDecodeError as error:
        raise ConfigError(in_words(error), where=where) from error
    for is_it, read in _JSON_FORMATS:
        if is_it(data):
            return read(data, where, reading)
    raise ConfigError(
        "its JSON is of no known format",
        where=where,
        allowed="what Electricity Maps, WattTime, the UK's Carbon Intensity API, the Carbon Aware"
        " SDK, Energinet or the EIA answer; or a CSV",
    )


def _is_electricity_maps(data: Any) -> bool:
    return (
        isinstance(data, dict)
        and "zone" in data
        and any(isinstance(data.get(key), list) for key in ("history", "data", "forecast"))
    )


def _electricity_maps(data: dict[str, Any], where: Path, reading: Reading) -> _Found:
    key = next(key for key in ("history", "data", "forecast") if key in data)
    _check_zone([data["zone"]], reading.zone, where)
    entries = data[key]
    factors = {str(entry.get("emissionFactorType", "")).lower() for entry in entries} - {""}
    scopes: dict[str, Scope] = {"lifecycle": "life cycle", "direct": "direct"}
    if len(factors) > 1:
        raise ConfigError(f"intensities of several kinds: {', '.join(factors)}", where=where)
    return _Found(
        points=_points(
            entries, "datetime", "carbonIntensity", where, reading, estimated="isEstimated"
        ),
        source="Electricity Maps",
        kind="average",
        scope=scopes.get(factors.pop(), "unknown") if factors else "unknown",
        zone=str(data["zone"]),
        is_forecast=key == "forecast",
    )


def _is_watttime(data: Any) -> bool:
    return (
        isinstance(data, dict)
        and isinstance(data.get("meta"), dict)
        and "signal_type" in data["meta"]
        and isinstance(data.get("data"), list)
    )


def _watttime(data: dict[str, Any], where: Path, reading: Reading) -> _Found:
    meta = data["meta"]
    signal, units = str(meta["signal_type"]), str(meta.get("units"))
    kinds: dict[str, Kind] = {"co2_moer": "marginal", "co2_aoer": "average"}
    if signal not in kinds:
        raise ConfigError(
            f"signal_type {signal!r} is no carbon intensity",
            where=where,
            allowed=" or ".join(kinds),
        )
    if units != "lbs_co2_per_mwh":
        raise ConfigError(f"units {units!r}", where=where, allowed="lbs_co2_per_mwh")
    _check_zone([str(meta.get("region", ""))], reading.zone, where)
    period_s = meta.get("data_point_period_seconds")
    return _Found(
        points=_points(data["data"], "point_time", "value", where, reading, factor=UNITS["lb/MWh"]),
        source="WattTime",
        kind=kinds[signal],
        scope="direct",
        zone=str(meta.get("region", "")),
        is_forecast="generated_at" in meta,
        step_s=float(period_s) if period_s else None,
    )


def _is_uk(data: Any) -> bool:
    return _first(data, "data", lambda entry: "from" in entry and "intensity" in entry)


def _uk(data: dict[str, Any], where: Path, reading: Reading) -> _Found:
    points, forecast = [], 0
    for entry in data["data"]:
        actual = entry["intensity"].get("actual")
        forecast += actual is None
        value = entry["intensity"].get("forecast") if actual is None else actual
        # What did not happen yet is a forecast, which stands in: an estimate of what it will be.
        points.append(
            Point(_time(entry["from"], where, reading), _number(value, where), actual is None)
        )
    _check_zone(["GB"], reading.zone, where)
    return _Found(
        points=points,
        source="Carbon Intensity API (NESO)",
        kind="average",
        scope="direct",
        zone="GB",
        is_forecast=forecast == len(points),
    )


def _is_carbon_aware(data: Any) -> bool:
    return isinstance(data, list) and _first(
        {"all": data},
        "all",
        lambda entry: {"rating", "time"} <= {str(key).lower() for key in entry},
    )


def _carbon_aware(data: list[dict[str, Any]], where: Path, reading: Reading) -> _Found:
    entries = [{key.lower(): value for key, value in entry.items()} for entry in data]
    zone, mine = _in_zone(entries, lambda entry: str(entry.get("location", "")), where, reading)
    return _Found(
        points=_points(mine, "time", "rating", where, reading),
        source="Carbon Aware SDK",
        zone=zone,
    )


def _is_energinet(data: Any) -> bool:
    return _first(data, "records", lambda entry: "CO2Emission" in entry and "Minutes5UTC" in entry)


def _energinet(data: dict[str, Any], where: Path, reading: Reading) -> _Found:
    zone, mine = _in_zone(data["records"], lambda entry: entry["PriceArea"], where, reading)
    return _Found(
        points=_points(mine, "Minutes5UTC", "CO2Emission", where, IN_UTC),
        source="Energinet",
        kind="average",
        scope="direct",
        zone=zone,
        is_forecast=data.get("dataset") == "CO2EmisProg",
    )


def _is_eia(data: Any) -> bool:
    return isinstance(data, dict) and _first(
        data.get("response"), "data", lambda entry: "fueltype" in entry and "respondent" in entry
    )


def _eia(data: dict[str, Any], where: Path, reading: Reading) -> _Found:
    """Net generation by fuel, in megawatt-hours an hour, times what each fuel emits."""
    entries = data["response"]["data"]
    zone, mine = _in_zone(entries, lambda entry: entry["respondent"], where, reading)
    mwh: dict[datetime, dict[str, float]] = {}
    for entry in mine:
        hour = mwh.setdefault(_time(entry["period"], where, IN_UTC), {})
        hour[entry["fueltype"]] = _number(entry["value"], where)
    points = []
    for time, fuels in mwh.items():
        # A plant that takes more than it gives (a pumped store) generates nothing.
        given = {fuel: max(0.0, value) for fuel, value in fuels.items()}
        total_mwh = sum(given.values())
        lb = sum(given.get(fuel, 0.0) * rate for fuel, rate in EIA_LB_PER_KWH.items())
        # The hour before the stamp: the EIA's periods end at it.
        begin = time - timedelta(hours=1)
        points.append(Point(begin, lb / total_mwh * G_PER_LB if total_mwh else math.nan, True))
    return _Found(
        points=points,
        source="EIA-930, net generation × CO2 by fuel (EIA, 2023)",
        kind="average",
        scope="direct",
        zone=zone,
    )


_Reader = Callable[[Any, Path, Reading], _Found]
_JSON_FORMATS: tuple[tuple[Callable[[Any], bool], _Reader], ...] = (
    (_is_electricity_maps, _electricity_maps),
    (_is_watttime, _watttime),
    (_is_uk, _uk),
    (_is_carbon_aware, _carbon_aware),
    (_is_energinet, _energinet),
    (_is_eia, _eia),
)


def _points(
    entries: Iterable[Mapping[str, Any]],
    time: str,
    value: str,
    where: Path,
    reading: Reading,
    *,
    estimated: str = "",
    factor: float = 1.0,
) -> list[Point]:
    """Of entries with a time and a value, and whether that is estimated, under these keys."""
    return [
        Point(
            _time(entry[time], where, reading),
            _number(entry[value], where) * factor,
            entry.get(estimated),
        )
        for entry in entries
    ]


def _first(data: Any, key: str, is_it: Callable[[Any], bool]) -> bool:
    """True if ``data[key]`` is a list that begins with an object for which it holds."""
    entries = data.get(key) if isinstance(data, Mapping) else None
    return (
        isinstance(entries, list)
        and bool(entries)
        and isinstance(entries[0], Mapping)
        and is_it(entries[0])
    )


# CSV


def _from_csv(text: str, where: Path, reading: Reading) -> _Found:
    rows = csv.DictReader(io.StringIO(text))
    names = [name or "" for name in rows.fieldnames or ()]
    if len(names) < 2:
        raise ConfigError(
            "no CSV with a time and an intensity", where=where, fix="separate its columns by commas"
        )
    lines = list(enumerate(rows, start=2))
    if {EIA_TIME, EIA_CONSUMED} <= set(names):
        return _eia_sheet(lines, where, reading)
    portal = _portal_columns(names)
    return (
        _portal(lines, portal, where, reading) if portal else _plain(lines, names, where, reading)
    )


@dataclass(frozen=True, slots=True)
class _PortalColumns:
    """Columns of Electricity Maps' data portal, whose titles have changed over the years."""

    time: str
    direct: str
    life_cycle: str
    zone: str | None
    estimated: str | None


def _portal_columns(names: Sequence[str]) -> _PortalColumns | None:
    def column(*all_of: str) -> str | None:
        return next((n for n in names if all(part in n.lower() for part in all_of)), None)

    time = column("datetime", "utc")
    direct = column("carbon intensity", "direct") or column("g_per_kwh_direct")
    life_cycle = (
        column("carbon intensity", "life") or column("carbon intensity", "lca")
    ) or column("g_per_kwh_lca")
    if time is None or direct is None or life_cycle is None:
        return None
    zone = column("zone", "id") or column("zone")
    estimated = column("data", "estimated") or next((n for n in names if n == "estimated"), None)
    return _PortalColumns(time, direct, life_cycle, zone, estimated)


def _portal(
    lines: list[tuple[int, dict[str, str]]], names: _PortalColumns, where: Path, reading: Reading
) -> _Found:
    scope: Scope = reading.scope or "life cycle"
    column = names.direct if scope == "direct" else names.life_cycle
    at = names.zone
    zone, mine = _in_zone(lines, lambda line: line[1][at] if at else "", where, reading)
    return _Found(
        points=[
            Point(
                _time(row[names.time], f"{where}:{line}", IN_UTC),
                _number(row[column], f"{where}:{line}"),
                _truth(row[names.estimated]) if names.estimated else None,
                line,
            )
            for line, row in mine
        ],
        source="Electricity Maps data portal",
        kind="average",
        scope=scope,
        zone=zone,
    )


EIA_TIME, EIA_CONSUMED = "UTC time", "CO2 Emissions Intensity for Consumed Electricity"
"""Columns of the sheet with the EIA's published hours; the intensity is in pounds a kWh."""

EIA_TIMES = ("%m/%d/%Y %H:%M", "%m/%d/%Y %H:%M:%S", "%m/%d/%Y %I:%M %p", "%m/%d/%Y %I:%M:%S %p")
"""How a spreadsheet writes them into a CSV, where not as ISO 8601."""


def _eia_sheet(lines: list[tuple[int, dict[str, str]]], where: Path, reading: Reading) -> _Found:
    """What the EIA works out itself: imports count with the intensity of where they are from."""
    zone, mine = _in_zone(lines, lambda line: line[1].get("BA") or "", where, reading)
    return _Found(
        points=[
            Point(
                # The hour before the stamp: the EIA's periods end at it.
                _sheet_time(row[EIA_TIME], f"{where}:{line}") - timedelta(hours=1),
                _number(row[EIA_CONSUMED], f"{where}:{line}") * UNITS["lb/kWh"],
                True,
                line,
            )
            for line, row in mine
        ],
        source="EIA-930, intensity of consumed electricity",
        kind="average",
        scope="direct",
        zone=zone,
    )


def _sheet_time(text: str, where: str) -> datetime:
    for form in EIA_TIMES:
        try:
            return datetime.strptime(text.strip(), form).replace(tzinfo=UTC)
        except ValueError:
            continue
    return _time(text, where, IN_UTC)


def _plain(
    lines: list[tuple[int, dict[str, str]]], names: list[str], where: Path, reading: Reading
) -> _Found:
    """A CSV of which the YAML says columns and unit."""
    if reading.unit is None:
        raise ConfigError(
            "the unit of its intensities is not declared",
            where=where,
            allowed=" | ".join(UNITS),
            fix="carbon.intensity: {path: …, unit: g/kWh, value_column: …}",
        )
    time_column = _column(reading.time_column, names[0], names, "time_column", where)
    value_column = _column(reading.value_column, names[1], names, "value_column", where)
    times = _local_times([(row[time_column], f"{where}:{line}") for line, row in lines], reading)
    return _Found(
        points=[
            Point(
                time,
                _number(row[value_column], f"{where}:{line}") * UNITS[reading.unit],
                None,
                line,
            )
            for time, (line, row) in zip(times, lines, strict=True)
        ],
        source=f"column {value_column}",
    )


def _column(wanted: str | None, otherwise: str, names: Sequence[str], key: str, where: Path) -> str:
    if wanted is None:
        return otherwise
    if wanted not in names:
        raise ConfigError(
            f"it has no column {wanted!r}",
            where=where,
            allowed=", ".join(names),
            fix=f"carbon.intensity.{key}",
        )
    return wanted


# Values


def _time(text: object, where: str | Path, reading: Reading) -> datetime:
    """A time; without a zone of its own it is of the reading's."""
    try:
        time = datetime.fromisoformat(str(text).strip().replace("Z", "+00:00"))
    except ValueError as error:
        raise ConfigError(
            f"{text!r} is no time", where=where, allowed="ISO 8601: 2023-04-17T00:00Z"
        ) from error
    if time.tzinfo is not None:
        return time.astimezone(UTC)
    if reading.time_zone is None:
        raise ConfigError(
            f"{text!r} has no time zone",
            where=where,
            fix="name it: carbon.intensity.time_zone: UTC, or Europe/Berlin",
        )
    return _from_local(time, zone_named(reading.time_zone), where)


def _from_local(time: datetime, zone: ZoneInfo, where: str | Path) -> datetime:
    local = time.replace(tzinfo=zone)
    if local.astimezone(UTC).astimezone(zone).replace(tzinfo=None) != time.replace(fold=0):
        raise ConfigError(
            f"{time} did not happen in {zone.key}: clocks were put forward",
            where=where,
            fix="name the zone that its times are of: carbon.intensity.time_zone",
        )
    return local.astimezone(UTC)


def _local_times(texts: Iterable[tuple[str, str]], reading: Reading) -> Iterator[datetime]:
    """Times in a file's order; where clocks are put back the second of equal ones is winter's."""
    seen: set[str] = set()
    for text, where in texts:
        time = _time(text, where, reading)
        if text in seen and reading.time_zone is not None:
            naive = datetime.fromisoformat(text.strip().replace("Z", "+00:00"))
            if naive.tzinfo is None:
                time = _from_local(naive.replace(fold=1), zone_named(reading.time_zone), where)
        seen.add(text)
        yield time


def zone_named(name: str) -> ZoneInfo:
    """A time zone of the tz database.

    Raises:
        ConfigError: there is none of that name.
    """
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError) as error:
        raise ConfigError(
            f"unknown time zone {name!r}",
            where="carbon.intensity.time_zone",
            allowed="a name of the tz database: UTC, Europe/Berlin",
        ) from error


def _number(value: object, where: str | Path) -> float:
    """A number; NaN where there is none."""
    if value is None or (isinstance(value, str) and value.strip().lower() in ("", "null", "nan")):
        return math.nan
    try:
        number = float(value) if isinstance(value, int | float | str) else math.inf
    except ValueError:
        number = math.inf
    if isinstance(value, bool) or not math.isfinite(number):
        raise ConfigError(f"{value!r} is no intensity", where=where, allowed="a number")
    return number


def _truth(text: str) -> bool | None:
    return {"true": True, "1": True, "false": False, "0": False}.get(text.strip().lower())


def _check_zone(found: Sequence[str], wanted: str | None, where: Path) -> None:
    if wanted is not None and wanted not in found:
        raise ConfigError(
            f"it is of {', '.join(found)}",
            where=where,
            fix="carbon.intensity.zone, or another file",
        )


def _in_zone(
    entries: Sequence[Entry], zone_of: Callable[[Entry], str], where: Path, reading: Reading
) -> tuple[str, list[Entry]]:
    """The zone of a file that may hold several, and the entries of it."""
    zones = list(dict.fromkeys(map(zone_of, entries)))
    _check_zone(zones, reading.zone, where)
    if reading.zone is None and len(zones) > 1:
        raise ConfigError(
            f"it holds several zones: {', '.join(zones)}",
            where=where,
            fix="name one: carbon.intensity.zone",
        )
    zone = reading.zone if reading.zone is not None else zones[0] if zones else ""
    return zone, [entry for entry in entries if zone_of(entry) == zone]
