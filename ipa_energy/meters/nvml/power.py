"""Joules of NVIDIA GPUs that have no energy counter: power readings, added up.

Before Volta the driver tells only the present power. A background thread reads it and integrates by
the trapezoid rule. The sensor is real, but what lies between two readings is not seen, boards
average over up to a second, and some sample only a quarter of the time, so that errors of tens of
percent occur (Yang et al., "Part-time Power Measurements: nvidia-smi's Lack of Attention", 2023,
arXiv:2312.02741). The figures are therefore labelled ``estimated``, and the meter has a name of its
own.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

from ipa_energy.errors import ConfigError, MeterUnavailableError
from ipa_energy.meters.base import Energy, Reading
from ipa_energy.meters.fault import MeterFault
from ipa_energy.meters.nvml.device import Gpu, load_nvml, selected_gpus, translated
from ipa_energy.meters.status import MeterStatus, min_window_for
from ipa_energy.records import Quality

WATTS_PER_MW = 1e-3

SAMPLE_PERIOD_S = 0.05
MAX_GAP_S = 1.0
"""A thread that was not let run for longer missed too much to draw a line across it."""

SENSOR_PERIOD_S = 0.1
"""What the driver's own readings are at worst apart; sampling faster learns nothing."""


class NvmlPowerMeter:
    """Estimated joules of whole NVIDIA GPUs. A :class:`~ipa_energy.meters.base.Meter`.

    Sampling starts at the first read and ends with :meth:`close`, or with the process.

    Args:
        devices: as for :class:`~ipa_energy.meters.nvml.meter.NvmlMeter`.
        sample_period_s: seconds between two power readings.
        environ: the environment; injectable for tests.
    """

    name = "nvml-power"
    quality: Quality = "estimated"
    min_window_s = min_window_for(SENSOR_PERIOD_S)

    def __init__(
        self,
        devices: Sequence[int | str] | None = None,
        *,
        sample_period_s: float = SAMPLE_PERIOD_S,
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        if not 0 < sample_period_s < MAX_GAP_S:
            raise ConfigError(
                f"sample_period_s is {sample_period_s} s", allowed=f"0 to {MAX_GAP_S:g} s"
            )
        self._devices = devices
        self._sample_period_s = sample_period_s
        self._environ = environ
        self._sampler: _Sampler | None = None

    def read(self) -> Reading:
        """Joules since the first read, a counter for each GPU.

        Raises:
            ConfigError: ``devices`` or the environment names a GPU that is not there.
            MeterUnavailableError: a GPU is lost or tells no power, or samples were missed.
        """
        if self._sampler is None:
            nvml = load_nvml(self.name)
            gpus = selected_gpus(nvml, self._devices, self._environ, self.name)
            self._sampler = _Sampler(nvml, gpus, self._sample_period_s, self.name)
        try:
            return self._sampler.take()
        except MeterUnavailableError:
            self.close()  # the joules before it are lost; the next read begins anew
            raise

    def energy_between(self, start: Reading, end: Reading) -> Energy:
        """Joules of the window, by GPU.

        Raises:
            MeterUnavailableError: the window has no length, or a GPU told no power in all of it.
        """
        duration_s = end.time_s - start.time_s
        if duration_s <= 0:
            raise MeterFault(self.name, "dead", f"a window of {duration_s:g} s has no length")
        domains = {name: end.counters[name] - start.counters[name] for name in start.counters}
        still = [name for name, joules in domains.items() if not joules > 0]
        if still:
            raise MeterFault(
                self.name,
                "dead",
                f"{', '.join(still)} told 0 W for {duration_s:.3g} s",
                "nvidia-smi -q -d POWER shows whether the board has a power sensor",
            )
        return Energy(sum(domains.values()), duration_s, domains, self.name, self.quality)

    def probe(self) -> MeterStatus:
        """Read the power once and say what was found; never raises for a meter."""
        try:
            domains = tuple(self.read().counters)
        except MeterFault as fault:
            return fault.status()
        except ConfigError as error:
            return MeterStatus(self.name, "absent", str(error))
        return MeterStatus(
            self.name,
            "estimated",
            f"power readings every {self._sample_period_s:g} s, added up; no energy counter",
            domains=domains,
            update_period_s=SENSOR_PERIOD_S,
            min_window_s=self.min_window_s,
        )

    def close(self) -> None:
        """Stop sampling."""
        if self._sampler is not None:
            self._sampler.stop()
            self._sampler = None


class _Sampler:
    """The thread that reads power, and the joules it has added up."""

    def __init__(self, nvml: Any, gpus: Sequence[Gpu], period_s: float, meter: str) -> None:
        self._nvml, self._gpus, self._period_s, self._meter = nvml, gpus, period_s, meter
        self._lock = threading.Lock()
        self._energy_j = dict.fromkeys((gpu.domain for gpu in gpus), 0.0)
        self._time_s, self._powers_w = self._look()
        self._failure: MeterUnavailableError | None = None
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._watch, name=meter, daemon=True)
        self._thread.start()

    def take(self) -> Reading:
        """A sample now, and the joules up to it."""
        with self._lock:
            self._sample()
            return Reading(self._time_s, dict(self._energy_j))

    def stop(self) -> None:
        """End the thread."""
        self._stopped.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stopped.wait(self._period_s):
            with self._lock:
                try:
                    self._sample()
                except MeterUnavailableError as failure:
                    self._failure = failure  # the next read raises it
                    return

    def _sample(self) -> None:
        if self._failure is not None:
            raise self._failure
        time_s, powers_w = self._look()
        gap_s = time_s - self._time_s
        if gap_s > MAX_GAP_S:
            self._failure = MeterFault(
                self._meter,
                "dead",
                f"no power reading for {gap_s:.3g} s: this process was not let run",
                "measure the window again with a core left free",
            )
            raise self._failure
        for name, power_w in powers_w.items():
            self._energy_j[name] += (self._powers_w[name] + power_w) / 2 * gap_s
        self._time_s, self._powers_w = time_s, powers_w

    def _look(self) -> tuple[float, dict[str, float]]:
        powers_w = {}
        for gpu in self._gpus:
            with translated(f"reading the power of {gpu.domain} ({gpu.name})", self._meter):
                milliwatts = self._nvml.nvmlDeviceGetPowerUsage(gpu.handle)
            powers_w[gpu.domain] = milliwatts * WATTS_PER_MW
        return time.perf_counter(), powers_w
