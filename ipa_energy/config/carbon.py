"""The key ``carbon`` of a pipeline YAML: what a joule costs the climate, and what that weighs."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field
from pydantic_core import PydanticCustomError

from ipa_energy.config.fields import (
    FilePath,
    Name,
    NaturalInteger,
    NonNegative,
    Positive,
    StrictModel,
    Text,
    optional,
)
from ipa_energy.records import AT_SITE

A_TIME = "a time with its zone: 2023-04-17T00:00Z"


def _time(value: str) -> str:
    try:
        has_zone = datetime.fromisoformat(value).tzinfo is not None
    except ValueError:
        has_zone = False
    if not has_zone:
        raise PydanticCustomError("time", "no time with a zone")
    return value


def _as_text(value: object) -> object:
    """What YAML itself takes for a time, as it was written."""
    return value.isoformat() if isinstance(value, datetime) else value


Time = Annotated[
    Text,
    BeforeValidator(_as_text),
    AfterValidator(_time),
    Field(json_schema_extra={"x-allowed": A_TIME}),
]


class IntensityFile(StrictModel):
    """A file of carbon intensities, and what it does not say itself."""

    path: FilePath = Field(
        description="What a provider answered, or a CSV; beside this YAML, else in the working"
        " folder. Electricity Maps, WattTime, the UK's Carbon Intensity API, the Carbon Aware SDK,"
        " Energinet and the EIA are recognised."
    )
    zone: Text | None = optional(None, "The zone to take, where the file holds several.")
    unit: Literal["g/kWh", "kg/MWh", "t/GWh", "kg/kWh", "t/MWh", "lb/MWh", "lb/kWh"] | None = (
        optional(None, "Unit of a plain CSV's intensities, which must be declared.")
    )
    kind: Literal["average", "marginal"] | None = optional(
        None, "What the grid's mix emits, or what one kilowatt-hour more would; null: as it says."
    )
    scope: Literal["direct", "life cycle"] | None = optional(
        None,
        "Chimneys alone, or with building and fuel; null: as it says, life cycle where the"
        " file has both.",
    )
    time_column: Text | None = optional(None, "Of a plain CSV; null: the first column.")
    value_column: Text | None = optional(None, "Of a plain CSV; null: the second column.")
    time_zone: Text | None = optional(
        None, "Zone of times that name none: UTC, Europe/Berlin; null: such times are refused."
    )
    step_s: Positive | None = optional(
        None, "Seconds between two values; null: what most are apart."
    )
    gaps: Literal["refuse", "hold"] = optional(
        "refuse",
        "A step without a value: refuse the file, or hold the value before it, counted as"
        " estimated.",
    )


class SyntheticIntensity(StrictModel):
    """Made-up intensities, for those who have none; the grams are labelled synthetic."""

    mean_g_per_kwh: Positive = Field(description="Their mean.")
    days: Annotated[int, Field(ge=1, le=366)] = optional(
        8, "How many days, from a Monday, 2024-01-01 00:00 UTC."
    )
    seed: NaturalInteger = optional(0, "Of the noise.")


Intensity = NonNegative | IntensityFile | SyntheticIntensity | FilePath


class SiteConfig(StrictModel):
    """One of the places where the same pipeline runs."""

    intensity: Intensity | None = optional(
        None, "Of its electricity, as carbon.intensity; null: that one."
    )
    pue: Annotated[float, Field(ge=1)] | None = optional(
        None, "Its power usage effectiveness; null: carbon.pue."
    )
    network_delay_s: NonNegative = optional(
        0, "Seconds on the network that going there adds to a request, there and back."
    )
    capacity: dict[Name, NonNegative] | None = optional(
        None,
        "Resource → units of it that all stages together may hold there, as the key capacity;"
        " null: no limit.",
    )


class CarbonConfig(StrictModel):
    """What a joule costs the climate, and what that weighs."""

    intensity: Intensity = Field(
        description="Grams of CO2 equivalent a kilowatt-hour: a number, a file, or a mapping with"
        " path and what the file does not say itself."
    )
    forecast: Intensity | None = optional(
        None,
        "What decisions believe the intensity to be, as intensity; null: the value in force at the"
        " decision. Grams are always counted with intensity.",
    )
    start: Time | None = optional(
        None,
        "When second 0 of a run is, for intensities from a file; null: their first time. A live run"
        " has its own.",
    )
    pue: Annotated[float, Field(ge=1)] = optional(
        1.0, "Power usage effectiveness: joules at the meter of the site per joule at the servers."
    )
    weight: NonNegative = optional(
        0, "Weight in the objective of one gram a pipeline request; 0: none."
    )
    sla_grams: Positive | None = optional(
        None, "Hard cap on grams per pipeline request; null: none."
    )
    budget_grams_per_day: Positive | None = optional(
        None,
        "Grams a day, from second 0 of the run, kept by one price of a gram that is found anew"
        " every hour; a run that ends within a day has its share of it. null: none.",
    )
    load_forecast: Literal["yesterday", "trace"] = optional(
        "yesterday",
        "The load that a budget is planned over: yesterday's hours (on the first day those seen"
        " so far), or the trace itself, which only a simulation knows.",
    )

    sites: dict[Name, SiteConfig] | None = optional(
        None,
        "Places where the same pipeline runs, name by name; the load is split among them at every"
        " decision. Needs mix: true; for optimize and simulated runs.",
    )

    @property
    def files(self) -> dict[str, Path]:
        """Key, or site, → path, of the intensities that are files."""
        said = {"intensity": self.intensity, "forecast": self.forecast}
        said |= {f"{AT_SITE}{name}": site.intensity for name, site in (self.sites or {}).items()}
        paths = {
            key: value.path if isinstance(value, IntensityFile) else value
            for key, value in said.items()
        }
        return {key: path for key, path in paths.items() if isinstance(path, Path)}

    def with_files(self, paths: Mapping[str, Path]) -> CarbonConfig:
        """The same with other paths; see :attr:`files`."""
        changed: dict[str, object] = {}
        sites = dict(self.sites or {})
        for key, path in paths.items():
            name = key.removeprefix(AT_SITE)
            said = sites[name].intensity if key != name else getattr(self, key)
            found: object = path
            if isinstance(said, IntensityFile):
                found = said.model_copy(update={"path": path})
            if key == name:
                changed[key] = found
            else:
                sites[name] = sites[name].model_copy(update={"intensity": found})
        return self.model_copy(update=changed | ({"sites": sites} if sites else {}))

    @property
    def start_s(self) -> float | None:
        """``start`` as seconds since 1970; None if it is not set."""
        if self.start is None:
            return None
        return datetime.fromisoformat(self.start).astimezone(UTC).timestamp()
