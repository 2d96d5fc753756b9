"""The nouns that every part of the program shares.

All quantities are SI and end in their unit (``latency_s``, ``power_w``, ``load_rps``); ratios are
0..1 without suffix. What was not measured is NaN (numbers) or None (records), never 0.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Quality = Literal["measured", "estimated", "imported"]
"""How a joule figure came to be. Nothing else may be written in a ``quality`` column."""

EnergyRisk = Literal["mean", "upper"]
"""Which joules a decision plans with: the mean of the trials, or the upper end of its interval."""

EnergyMetric = Literal["joules_per_request", "watts"]
"""What the energy term of the objective counts."""

NOTATION = "1c = cores of a replica, b = batch, x = replicas"
"""How to read a plan such as ``yolov5s 1c b1 x6``; stands where plans are printed first."""

QUALITIES: tuple[Quality, ...] = ("measured", "estimated", "imported")


def joined_meters(names: Iterable[str]) -> str:
    """Several meters as one name, each once, in the order given: ``nvml+rapl``; empty for none."""
    return "+".join(dict.fromkeys(names))


def meters_in(name: str) -> list[str]:
    """The names that :func:`joined_meters` joined."""
    return name.split("+")


def weakest_quality(qualities: list[Quality]) -> Quality | None:
    """The quality of a sum: that of its weakest part; None for a sum of nothing.

    ``estimated`` is weaker than ``imported``, which is weaker than ``measured``.
    """
    for quality in ("estimated", "imported", "measured"):
        if quality in qualities:
            return quality
    return None


@dataclass(frozen=True, slots=True)
class Provenance:
    """Where a joule figure comes from and how good it is.

    Attributes:
        meter: name of the meter that gave it (``rapl``, ``perf``, ``nvml``, ``cpu-time`` …).
        quality: ``measured``, ``estimated`` or ``imported``.
        trials: number of independent windows behind the mean.
        ci95_j: half width of the 95 % interval of the dynamic joules per request; NaN if unknown.
    """

    meter: str
    quality: Quality
    trials: int
    ci95_j: float


@dataclass(frozen=True, slots=True)
class Option:
    """One thing a stage can run: a variant on an allocation at a batch size (DESIGN section 2).

    Attributes:
        variant: name of the model variant, e.g. ``yolov5n``.
        hardware: what it was profiled on, e.g. ``cpu``.
        cpu_cores: cores reserved by one replica.
        gpu_share: share of one GPU reserved by one replica, 0..1.
        batch: batch size b.
        latency_s: time to serve one full batch, l(o), as planning sees it (p99 or mean, with the
            pipeline's ``latency_margin`` applied).
        latency_avg_s: mean time to serve one full batch as measured.
        latency_p99_s: 99th percentile of the same.
        throughput_rps: requests per second that one replica sustains at this batch, h(o), with
            ``throughput_margin`` applied.
        accuracy: a(o) as a ratio; minus a word error rate for some of IPA's audio variants.
        dynamic_energy_j: joules per request above idle, e(o); NaN if the profile has no energy.
        idle_power_w: watts one waiting replica holds, p(o); NaN if the profile has no energy.
        provenance: of ``dynamic_energy_j``; None if the profile has no energy.
    """

    variant: str
    hardware: str
    cpu_cores: float
    gpu_share: float
    batch: int
    latency_s: float
    latency_avg_s: float
    latency_p99_s: float
    throughput_rps: float
    accuracy: float
    dynamic_energy_j: float
    idle_power_w: float
    provenance: Provenance | None

    @property
    def allocation(self) -> tuple[float, float]:
        """(cpu_cores, gpu_share) of one replica."""
        return (self.cpu_cores, self.gpu_share)

    @property
    def has_energy(self) -> bool:
        """True if both e(o) and p(o) are known."""
        return not (math.isnan(self.dynamic_energy_j) or math.isnan(self.idle_power_w))

    @property
    def energy_ci95_j(self) -> float:
        """Half width of the 95 % interval of ``dynamic_energy_j`` over the trials; NaN if unknown.

        It is that of the joules per request at any load and number of replicas too: what waits
        adds n·p/λ, and a profile has no interval of p.
        """
        return math.nan if self.provenance is None else self.provenance.ci95_j

    @property
    def label(self) -> str:
        """Short name for tables and hovers: ``yolov5n 2c b4``."""
        gpu = f"+{self.gpu_share:g}g" if self.gpu_share else ""
        return f"{self.variant} {self.cpu_cores:g}c{gpu} b{self.batch}"


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage of a linear pipeline with everything it may run.

    Attributes:
        name: the stage's task name, e.g. ``crop`` (IPA's ``task_name``).
        node_name: the name its server has in IPA's logs, e.g. ``yolo``.
        options: every profiled option, in the order of the profile.
        requests_per_input: m_s, requests this stage sees for one request of the pipeline.
    """

    name: str
    node_name: str
    options: tuple[Option, ...]
    requests_per_input: float = 1.0
