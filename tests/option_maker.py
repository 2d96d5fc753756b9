"""One maker of options for every test: plain figures, of which a test names those that matter."""

from __future__ import annotations

import math

from ipa_energy.records import Allocation, Option, Provenance, Quality


def make_option(
    variant: str = "v",
    batch: int = 1,
    *,
    latency_s: float = 0.1,
    throughput_rps: float = 10.0,
    accuracy: float = 0.5,
    dynamic_energy_j: float = 1.0,
    idle_power_w: float = 2.0,
    cpu_cores: float = 1.0,
    trials: int = 1,
    ci95_j: float = math.nan,
    meter: str = "fake",
    quality: Quality = "estimated",
    load_s: float = math.nan,
    load_energy_j: float = math.nan,
) -> Option:
    """An option on a CPU; without joules and without provenance if they are NaN."""
    return Option(
        variant=variant,
        allocation=Allocation.of(cpu_cores),
        batch=batch,
        latency_s=latency_s,
        latency_avg_s=latency_s,
        latency_p99_s=latency_s,
        throughput_rps=throughput_rps,
        accuracy=accuracy,
        dynamic_energy_j=dynamic_energy_j,
        idle_power_w=idle_power_w,
        load_s=load_s,
        load_energy_j=load_energy_j,
        provenance=None
        if math.isnan(dynamic_energy_j)
        else Provenance(meter, quality, trials, ci95_j),
    )
