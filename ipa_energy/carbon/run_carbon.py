"""The carbon of a run: which intensity holds when, and the grams of what was spent.

::

    run     0 s ──────── 10 ──────── 20 …
            │ start_s
    series  2023-04-17 00:00 UTC: 310 g/kWh ─────────── 01:00: 290 …

Decisions see the intensity that is in force when they are made, or what a forecast says of the
interval that begins; grams are counted with what it was, second by second.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from ipa_energy import energy
from ipa_energy.arrays import Floats
from ipa_energy.carbon.intensity import IntensitySeries, synthetic_intensity
from ipa_energy.carbon.published import Reading, read_intensity
from ipa_energy.config import PipelineConfig
from ipa_energy.config.carbon import CarbonConfig, IntensityFile, SyntheticIntensity
from ipa_energy.energy import G_PER_KWH, PUE
from ipa_energy.errors import ConfigError
from ipa_energy.records import AT_SITE


@dataclass(frozen=True, slots=True)
class RunCarbon:
    """Intensities along a run.

    Attributes:
        series: what they were, for the grams.
        seen: what decisions believe them to be; None: the value in force at the decision.
        start_s: when second 0 of the run is, seconds since 1970.
        pue: joules at the site's meter per joule at the servers.
        sites: name → the same of each place, where a run has several; the fields above then say
            when second 0 is.
    """

    series: IntensitySeries
    seen: IntensitySeries | None
    start_s: float
    pue: float
    sites: Mapping[str, RunCarbon] = field(default_factory=dict)

    def signals(self, now_s: float, interval_s: float) -> Mapping[str, float]:
        """What a decision at ``now_s`` of the run knows of the interval that begins."""
        if self.sites:
            return {
                name + AT_SITE + site: value
                for site, carbon in self.sites.items()
                for name, value in carbon.signals(now_s, interval_s).items()
            }
        at_s = self.start_s + now_s
        if self.seen is None:
            return {G_PER_KWH: self.series.at(at_s), PUE: self.pue}
        return {G_PER_KWH: self.seen.mean(at_s, at_s + interval_s), PUE: self.pue}

    def check_covers(self, duration_s: float) -> None:
        """Refuse a run that is longer than what is known of its electricity.

        Raises:
            ConfigError: an intensity is missing at its beginning or its end.
        """
        for site in self.sites.values():
            site.check_covers(duration_s)
        for series in () if self.sites else (self.series, self.seen):
            if series is not None:
                series.check_covers(self.start_s, self.start_s + duration_s)

    def mean_g_per_kwh(self, begin_s: float, end_s: float) -> float:
        """The intensity of a stretch of the run, by time."""
        return self.series.mean(self.start_s + begin_s, self.start_s + end_s)

    def grams(self, begin_s: float, end_s: float, joules: float, power_w: Floats) -> float:
        """Grams of a window's joules, at the site's meter.

        Args:
            begin_s: of the window, seconds of the run.
            end_s: of the window.
            joules: of the window, which are what counts; NaN gives NaN.
            power_w: mean watts of its seconds, the last one shorter if the window is no whole
                number of them: when in the window the joules were spent.

        What the last requests of a run spend after its end, and after the series', is counted at
        its last value.
        """
        series = self.series.held_until(self.start_s + end_s)
        if series.is_constant or len(power_w) == 0:
            mean = series.mean(self.start_s + begin_s, self.start_s + end_s)
            return energy.grams(joules, mean, self.pue)
        edges_s = np.minimum(begin_s + np.arange(len(power_w) + 1.0), end_s)
        series.check_covers(self.start_s + begin_s, self.start_s + end_s)
        spent_j = power_w * np.diff(edges_s)
        total_j = float(spent_j.sum())
        means = series.means(self.start_s + edges_s)
        intensity = float(spent_j @ means) / total_j if total_j > 0 else float(means.mean())
        return energy.grams(joules, intensity, self.pue)

    def to_json(self) -> dict[str, object]:
        """For logs: what kind of grams they are."""
        said = {**self.series.to_json(), "start_s": self.start_s, "pue": self.pue}
        if not self.sites:
            return said
        sites = {name: site.to_json() for name, site in self.sites.items()}
        # What the sites have in common; where they differ nothing holds for all grams.
        common = {
            key: value
            for key, value in said.items()
            if all(site.get(key) == value for site in sites.values())
        }
        return {**common, "start_s": self.start_s, "sites": sites}


def carbon_of(config: PipelineConfig) -> RunCarbon | None:
    """What the YAML says of carbon; None if it says nothing.

    Raises:
        ConfigError: a file that cannot be read or does not reach to the start; a forecast of
            another kind than the intensities.
    """
    return None if config.carbon is None else run_carbon(config.carbon)


def run_carbon(said: CarbonConfig) -> RunCarbon:
    """What the key ``carbon`` says.

    Raises:
        ConfigError: as :func:`carbon_of`.
    """
    series = _series(said.intensity)
    seen = None if said.forecast is None else _series(said.forecast)
    if seen is not None:
        _check_same_kind(series, seen)
    carbon = RunCarbon(series, seen, _start_s(said, [series]), said.pue)
    if said.sites:
        carbon = _at_sites(said, carbon)
    carbon.check_covers(0.0)
    return carbon


def _at_sites(said: CarbonConfig, carbon: RunCarbon) -> RunCarbon:
    """The same with intensities of each site, all of one kind, from one second 0."""
    found: dict[str, IntensitySeries] = {}
    for name, site in (said.sites or {}).items():
        series = carbon.series if site.intensity is None else _series(site.intensity)
        for first in list(found.values())[:1]:
            _check_same_kind(first, series, f"carbon.sites.{name}", "this site's intensity")
        found[name] = series
    start_s = _start_s(said, list(found.values()))
    pues = {name: site.pue or said.pue for name, site in (said.sites or {}).items()}
    sites = {name: RunCarbon(each, None, start_s, pues[name]) for name, each in found.items()}
    return replace(carbon, start_s=start_s, sites=sites)


def _start_s(said: CarbonConfig, series: Sequence[IntensitySeries]) -> float:
    """Second 0; the first time that all files know where nobody says it."""
    if said.start_s is not None:
        return said.start_s
    return max((each.start_s for each in series if not each.is_constant), default=0.0)


def _series(said: float | Path | IntensityFile | SyntheticIntensity) -> IntensitySeries:
    if isinstance(said, IntensityFile):
        declared = said.model_dump(exclude={"path"})
        return read_intensity(said.path, Reading(**declared))
    if isinstance(said, SyntheticIntensity):
        return synthetic_intensity(said.mean_g_per_kwh, said.days, said.seed)
    if isinstance(said, Path):
        return read_intensity(said)
    return IntensitySeries.constant(said)


def _check_same_kind(
    series: IntensitySeries,
    seen: IntensitySeries,
    where: str = "carbon.forecast",
    noun: str = "the forecast",
) -> None:
    for name in ("kind", "scope"):
        mine, its = getattr(series, name), getattr(seen, name)
        if "unknown" not in (mine, its) and mine != its:
            raise ConfigError(
                f"{noun} is {its}, the intensities are {mine}",
                where=where,
                fix="take both of one kind",
            )
