"""Joules of NVIDIA GPUs from NVIDIA's DCGM exporter, through Prometheus.

``DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION`` is NVML's counter of a whole GPU in millijoules. The
exporter labels it with the pod that holds the GPU and repeats it for every MIG slice and every pod
that shares the GPU; all of these are one counter, told apart by the GPU's UUID and counted once. A
slice's or a pod's own joules are not known, so a selector by pod is not offered.
"""

from __future__ import annotations

from ipa_energy.meters.prometheus.meter import PrometheusMeter
from ipa_energy.meters.prometheus.query import CounterQuery, quoted
from ipa_energy.meters.prometheus.server import PrometheusServer

DCGM = "dcgm"
METRIC = "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION"
JOULES_PER_MJ = 1e-3


def dcgm_meter(
    server: PrometheusServer, *, host: str | None = None, uuid: str | None = None
) -> PrometheusMeter:
    """A meter of the GPUs that a DCGM exporter watches.

    Args:
        server: the Prometheus that scrapes the exporter.
        host: only GPUs of this host (label ``Hostname``).
        uuid: only this GPU.
    """
    return PrometheusMeter(server, dcgm_query(host=host, uuid=uuid), name=DCGM)


def dcgm_query(*, host: str | None = None, uuid: str | None = None) -> CounterQuery:
    """The counters of the GPUs, each once."""
    pairs = [("Hostname", host), ("UUID", uuid)]
    matchers = ",".join(f"{name}={quoted(value)}" for name, value in pairs if value is not None)
    return CounterQuery(
        f"{METRIC}{{{matchers}}}",
        quality="measured",
        joules_per_unit=JOULES_PER_MJ,
        domain_labels=("Hostname", "device"),
        identity=("UUID",),
    )
