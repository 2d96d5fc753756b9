r"""The formulas of energy, each once. They take numbers or arrays alike.

With λ the requests per second that a stage sees, n its replicas, b its batch, h the throughput of
one replica, e the dynamic joules of a request and p the idle watts of one replica::

    replicas    n* = max(1, ⌈λ / h⌉), the least n with n·h(n) ≥ λ where h depends on n
    wait        q  = (b − 1) / λ                      to fill a batch
    joules      J  = e + n·p / λ                      per request of the stage
    power       P  = λ·J                              watts
    carbon      G  = E·CI·PUE / 3.6e6                 grams, for E joules at CI grams per kWh

Only the certificate of a plan (:mod:`.optimizer.plan_building`) computes them a second time, on
purpose: it is the second opinion on every plan.
"""

from __future__ import annotations

from typing import TypeVar

import numpy as np

from ipa_energy.arrays import Floats

Number = TypeVar("Number", float, Floats)

JOULES_PER_KWH = 3.6e6

G_PER_KWH, PUE = "g_per_kwh", "pue"
"""Signals of a moment: the two factors of G; ``g_per_kwh@SITE`` is that of a site."""

ROUNDING_RTOL = 1e-12
"""Relative room for the rounding of a few floats, so that 0.1 s + 0.2 s fits 0.3 s."""


def replicas_needed(load_rps: float, throughput_rps: Floats) -> Floats:
    """n*: the fewest replicas that carry ``load_rps``, whole numbers from 1.

    A load that is a whole multiple of the throughput but for the rounding of its computation needs
    no replica more.

    Args:
        load_rps: of the stage.
        throughput_rps: (N,) of one replica; or (N, K) of one replica while 1, 2 … K work at once,
            and K work like more than K.
    """
    if throughput_rps.ndim < 2:
        needed: Floats = np.ceil(load_rps / throughput_rps * (1 - ROUNDING_RTOL))
        return np.maximum(needed, 1.0)
    most = throughput_rps.shape[1]
    beyond = np.maximum(replicas_needed(load_rps, throughput_rps[:, -1]), float(most))
    capacity_rps = throughput_rps[:, :-1] * np.arange(1.0, most)
    carries = load_rps <= capacity_rps * (1 + ROUNDING_RTOL)
    return np.where(carries.any(axis=1), carries.argmax(axis=1) + 1.0, beyond)


def fill_wait_s(batch: Number, load_rps: float) -> Number:
    """q: seconds until a batch is full, from its first request on."""
    return (batch - 1) / load_rps


def joules_per_request(
    dynamic_energy_j: Number, idle_power_w: Number, replicas: Number, load_rps: float
) -> Number:
    """J: joules of one request of a stage, its share of what the replicas idle away included."""
    return dynamic_energy_j + replicas * idle_power_w / load_rps


def power_w(joules_per_request: Number, load_rps: float) -> Number:
    """P: watts of serving ``load_rps`` requests a second at ``joules_per_request``."""
    return load_rps * joules_per_request


def grams(energy_j: Number, intensity_g_per_kwh: float, pue: float = 1.0) -> Number:
    """G: grams of CO2 equivalent for ``energy_j`` joules at the servers.

    Args:
        energy_j: joules.
        intensity_g_per_kwh: carbon intensity of the electricity.
        pue: power usage effectiveness of the site: joules at the meter per joule at the servers.
    """
    return energy_j * (intensity_g_per_kwh * pue / JOULES_PER_KWH)
