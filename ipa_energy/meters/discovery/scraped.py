"""What a Prometheus server scrapes, opened from the places that the user named."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from ipa_energy.meters.fault import MeterFault
from ipa_energy.meters.status import MeterStatus

if TYPE_CHECKING:
    from ipa_energy.meters.discovery.sources import Places
    from ipa_energy.meters.prometheus.meter import PrometheusMeter
    from ipa_energy.meters.prometheus.server import PrometheusServer

URL_FIX = "name the server that scrapes it: --prometheus-url http://HOST:9090"
QUERY_FIX = "name a counter of energy, or an expression: --query 'NAME{LABEL=\"VALUE\"}'"
QUALITY_FIX = "if a hardware counter or a power meter feeds it: --query-quality measured"


def open_kepler(places: Places) -> PrometheusMeter:
    """Kepler's counters of the target; the server is first asked when it is first used."""
    from ipa_energy.meters.prometheus.kepler import KEPLER, kepler_meter

    return kepler_meter(_server(places, KEPLER), places.kepler)


def open_dcgm(places: Places) -> PrometheusMeter:
    """DCGM's counters of the GPUs."""
    from ipa_energy.meters.prometheus.dcgm import DCGM, dcgm_meter

    return dcgm_meter(_server(places, DCGM), host=places.dcgm_host, uuid=places.dcgm_gpu)


def open_query(places: Places) -> PrometheusMeter:
    """Whatever the user's own query is about."""
    from ipa_energy.meters.prometheus.meter import PrometheusMeter
    from ipa_energy.meters.prometheus.server import METER

    server = _server(places, METER)
    if places.query is None:
        raise MeterFault(METER, "absent", "no query is named", QUERY_FIX)
    return PrometheusMeter(server, places.query)


def probe_query(places: Places) -> MeterStatus:
    """State of the user's own query, whose quality Prometheus does not tell."""
    try:
        status = open_query(places).probe()
    except MeterFault as fault:
        return fault.status()
    if status.state != "estimated" or status.fix is not None:
        return status
    return replace(status, fix=QUALITY_FIX)


def _server(places: Places, meter: str) -> PrometheusServer:
    from ipa_energy.meters.prometheus.server import PrometheusServer

    if places.prometheus_url is None:
        raise MeterFault(meter, "absent", "no Prometheus server is named", URL_FIX)
    return PrometheusServer(places.prometheus_url, headers=places.prometheus_headers)
