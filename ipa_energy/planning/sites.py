"""The same pipeline in several places: each option of the profile once a site.

A site is data for the program that mixes options (:mod:`ipa_energy.optimizer.mixing`): an option at
a site has the label ``site``, so that each place can be told apart; its grams are those of the
site's intensity, its units count against the site's capacity (``core@GB``), and the network's delay
is in the latency of the first stage. The program sends each site the same share of the load in
every stage, since a request is served where it came in.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from ipa_energy.config.carbon import SiteConfig
from ipa_energy.errors import ConfigError
from ipa_energy.planning.base_allocation import BaseAllocation
from ipa_energy.records import AT_SITE, Allocation, Option, Stage


def at_sites(stages: Sequence[Stage], sites: Mapping[str, SiteConfig]) -> tuple[Stage, ...]:
    """Stages with every option at every site, the first site's options first."""
    return tuple(
        replace(
            stage,
            options=tuple(
                _moved(option, option.allocation.at_site(name), _delay_s(site, index))
                for name, site in sites.items()
                for option in stage.options
            ),
        )
        for index, stage in enumerate(stages)
    )


def _delay_s(site: SiteConfig, index: int) -> float:
    """What the network adds to a stage: all of it to the first one."""
    return site.network_delay_s if index == 0 else 0.0


def _moved(option: Option, allocation: Allocation, delay_s: float) -> Option:
    # What is planned with has the delay; what a batch takes, as measured, has not.
    at_once = [replace(each, latency_s=each.latency_s + delay_s) for each in option.at_once]
    latency_s = option.latency_s + delay_s
    return replace(option, allocation=allocation, latency_s=latency_s, at_once=tuple(at_once))


def at_no_site(stages: Sequence[Stage], sites: Mapping[str, SiteConfig]) -> tuple[Stage, ...]:
    """What :func:`at_sites` was made of, but for the rounding of a delay."""
    if not sites:
        return tuple(stages)
    first, site = next(iter(sites.items()))
    return tuple(
        replace(
            stage,
            options=tuple(
                _moved(option, option.allocation.at_no_site(), -_delay_s(site, index))
                for option in stage.options
                if option.allocation.site == first
            ),
        )
        for index, stage in enumerate(stages)
    )


def everywhere(found: BaseAllocation, sites: Sequence[str]) -> BaseAllocation:
    """Allocations that a rule leaves in, at every site."""
    return replace(
        found,
        allocations={
            variant: tuple(each.at_site(site) for site in sites for each in allocations)
            for variant, allocations in found.allocations.items()
        },
    )


def require_one_place(sites: Mapping[str, SiteConfig], who: str) -> None:
    """Refuse sites where only one place is known.

    Raises:
        ConfigError: there are several.
    """
    if sites:
        raise ConfigError(
            f"{who} knows one place",
            where="carbon.sites",
            allowed="sites in optimize, run, compare and report; or one carbon.intensity",
        )


def capacity_of(sites: Mapping[str, SiteConfig]) -> dict[str, float]:
    """``core@GB`` → units, of the sites that are limited."""
    return {
        resource + AT_SITE + name: units
        for name, site in sites.items()
        for resource, units in (site.capacity or {}).items()
    }
