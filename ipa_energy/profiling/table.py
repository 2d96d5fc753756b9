"""The profile table: one CSV row an entry, read strictly, turned into the stages of a pipeline."""

from __future__ import annotations

from dataclasses import dataclass

from ipa_energy.records import Quality


@dataclass(frozen=True, slots=True)
class ProfileRow:
    """One measured entry; the fields are the CSV's columns, in order.

    ``joules_per_request`` is J = e + n·p/λ at the row's own replicas and load. Absent figures are
    NaN and an empty cell in the file. ``quality`` and ``meter`` are empty without energy.
    """

    stage: str
    variant: str
    hardware: str
    cpu_cores: float
    gpu_share: float
    batch: int
    replicas: int
    load_rps: float
    latency_avg_s: float
    latency_p99_s: float
    throughput_rps: float
    accuracy: float
    dynamic_energy_j: float
    idle_power_w: float
    joules_per_request: float
    energy_ci95_j: float
    trials: int
    meter: str
    quality: Quality | None
