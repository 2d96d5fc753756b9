"""Joules of NVIDIA GPUs: from the driver's energy counter, or from its power sensor.

The counter (Volta and newer) runs in millijoules since the driver was loaded and covers a whole GPU
with its memory; on a Grace Hopper the whole module, so that the processor is in it and never added.
It steps every 10 to 100 ms, depending on the GPU: the period is found by watching
it. Work that was handed to the GPU but has not finished belongs to the window it was started in, so
pass ``synchronise`` (``torch.cuda.synchronize``, say) and the meter calls it before each read.

Before Volta the driver tells only the present power. A background thread reads it and integrates by
the trapezoid rule. The sensor is real, but what lies between two readings is not seen, boards
average over up to a second, and some sample only a quarter of the time, so that errors of tens of
percent occur (Yang et al., "Part-time Power Measurements: nvidia-smi's Lack of Attention", 2023,
arXiv:2312.02741). These figures are labelled ``estimated``, and their meter has a name of its own.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ipa_energy.errors import ConfigError, MeterUnavailableError
from ipa_energy.meters.base import CounterMeter, MeterFault, MeterStatus, Reading, min_window_for
from ipa_energy.meters.nvml_device import Gpu, is_module, load_nvml, selected_gpus, translated
from ipa_energy.meters.sources import Places, Source
from ipa_energy.meters.watching import observe
from ipa_energy.records import Quality

JOULES_PER_MJ = 1e-3

MOST_GPU_W = 5000.0
"""Twice what the largest module of GPU and processor draws."""

OBSERVATION_LIMIT_S = 3.0
"""A GPU draws watts even when idle: a counter that rests this long is dead."""


@dataclass(frozen=True, slots=True)
class _Session:
    """NVML as opened by one process; a forked child opens its own."""

    pid: int
    nvml: Any
    gpus: tuple[Gpu, ...]


class NvmlMeter(CounterMeter):
    """Measured joules of whole NVIDIA GPUs. A :class:`~ipa_energy.meters.base.Meter`.

    Nothing is loaded before the first use.

    Args:
        devices: indices as ``nvidia-smi`` shows them, or UUIDs; None for those that
            ``CUDA_VISIBLE_DEVICES`` leaves, or all.
        synchronise: called before each read; returns when the GPUs have done what they were given.
        update_period_s: seconds between two steps of the counter, if known; else it is watched
            when first asked for.
        environ: the environment; injectable for tests.
    """

    name = "nvml"
    quality: Quality = "measured"
    joules_per_count = JOULES_PER_MJ
    unit = "mJ"
    fell_fix = "the driver was reloaded or the GPU reset: measure the window again"

    def __init__(
        self,
        devices: Sequence[int | str] | None = None,
        *,
        synchronise: Callable[[], None] | None = None,
        update_period_s: float | None = None,
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        if update_period_s is not None and not update_period_s > 0:
            raise ConfigError(f"update_period_s is {update_period_s} s", allowed="more than 0")
        self._devices = devices
        self._synchronise = synchronise
        self._period_s = update_period_s
        self._environ = environ
        self._session: _Session | None = None

    @property
    def gpus(self) -> tuple[Gpu, ...]:
        """The GPUs it measures.

        Raises:
            ConfigError: ``devices`` or the environment names a GPU that is not there.
            MeterUnavailableError: there is no driver, GPU or permission.
        """
        return self._opened().gpus

    @property
    def includes_cpu(self) -> bool:
        """True if the processor's joules are in it: a module of both has one counter."""
        return any(is_module(gpu.name) for gpu in self.gpus)

    @property
    def update_period_s(self) -> float:
        """Seconds between two steps of the slowest counter.

        Raises:
            MeterUnavailableError: a counter cannot be read, or does not move.
        """
        if self._period_s is None:
            self._period_s = self._watched_s()
        return self._period_s

    @property
    def min_window_s(self) -> float:
        """Shortest window good to 1 %: a hundred steps of the slowest counter."""
        return min_window_for(self.update_period_s)

    def read(self) -> Reading:
        """Millijoules since the driver was loaded, a counter for each GPU.

        Raises:
            MeterUnavailableError: a GPU is lost, or the driver no longer answers.
        """
        if self._synchronise is not None:
            self._synchronise()
        return self._looked()

    def most_w(self, domain: str) -> float:
        """More watts than a GPU draws."""
        return MOST_GPU_W

    def probe(self) -> MeterStatus:
        """Watch the counters for a moment and say what was found; never raises for a meter."""
        try:
            gpus, period_s = self.gpus, self._watched_s()
        except MeterFault as fault:
            return fault.status()
        except ConfigError as error:
            return MeterStatus(self.name, "absent", str(error), there=True)
        names = ", ".join(f"{gpu.domain} {gpu.name}" for gpu in gpus)
        shared = [gpu.domain for gpu in gpus if gpu.mig]
        note = f"; whole GPU, all MIG slices together: {', '.join(shared)}" if shared else ""
        if self.includes_cpu:
            note += "; of the whole module, processor and memory included"
        return MeterStatus(
            self.name,
            "measured",
            f"counters moved while watched: {names}{note}",
            domains=tuple(gpu.domain for gpu in gpus),
            update_period_s=period_s,
            min_window_s=min_window_for(period_s),
            includes_cpu=self.includes_cpu,
        )

    def close(self) -> None:
        """Let go of the driver; the next use opens it again."""
        session, self._session = self._session, None
        if session is not None and session.pid == os.getpid():
            with translated("NVML does not stop", self.name):
                session.nvml.nvmlShutdown()

    def _opened(self) -> _Session:
        if self._session is None or self._session.pid != os.getpid():
            nvml = load_nvml(self.name)
            gpus = selected_gpus(nvml, self._devices, self._environ, self.name)
            self._session = _Session(os.getpid(), nvml, gpus)
        return self._session

    def _watched_s(self) -> float:
        """The slowest counter's period, as it is now."""
        seen = observe(self._looked, watch_s=0.0, patience_s=OBSERVATION_LIMIT_S)
        if seen.still:
            raise MeterFault(
                self.name,
                "dead",
                f"the counter of {', '.join(seen.still)} can be read but stood still for "
                f"{OBSERVATION_LIMIT_S:g} s",
                "update the driver, or use the meter nvml-power",
            )
        return seen.slowest_s

    def _looked(self) -> Reading:
        gpus = self.gpus
        before_s = time.perf_counter()
        counters = {gpu.domain: float(self._counter_mj(gpu)) for gpu in gpus}
        return Reading((before_s + time.perf_counter()) / 2, counters)

    def _counter_mj(self, gpu: Gpu) -> int:
        with translated(f"reading the energy of {gpu.domain} ({gpu.name})", self.name):
            return int(self._opened().nvml.nvmlDeviceGetTotalEnergyConsumption(gpu.handle))


WATTS_PER_MW = 1e-3

SAMPLE_PERIOD_S = 0.05
MAX_GAP_S = 1.0
"""A thread that was not let run for longer missed too much to draw a line across it."""

SENSOR_PERIOD_S = 0.1
"""What the driver's own readings are at worst apart; sampling faster learns nothing."""


class NvmlPowerMeter(CounterMeter):
    """Estimated joules of whole NVIDIA GPUs. A :class:`~ipa_energy.meters.base.Meter`.

    Sampling starts at the first read and ends with :meth:`close`, or with the process.

    Args:
        devices: as for :class:`~ipa_energy.meters.nvml.NvmlMeter`.
        sample_period_s: seconds between two power readings.
        environ: the environment; injectable for tests.
    """

    name = "nvml-power"
    quality: Quality = "estimated"
    still_told = "told 0 W for"
    still_fix = "nvidia-smi -q -d POWER shows whether the board has a power sensor"
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

    def probe(self) -> MeterStatus:
        """Read the power once and say what was found; never raises for a meter."""
        try:
            domains = tuple(self.read().counters)
        except MeterFault as fault:
            return fault.status()
        except ConfigError as error:
            return MeterStatus(self.name, "absent", str(error), there=True)
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


def _open(places: Places) -> NvmlMeter:
    meter = NvmlMeter()
    _ = meter.update_period_s  # watches the counters, and raises where they cannot be believed
    return meter


def _open_power(places: Places) -> NvmlPowerMeter:
    meter = NvmlPowerMeter()
    meter.read()  # raises where there is no GPU or no power sensor
    return meter


def _probe_power(places: Places) -> MeterStatus:
    meter = NvmlPowerMeter()
    status = meter.probe()
    meter.close()
    return status


NVML = Source(_open, lambda places: NvmlMeter().probe(), "GPU")
NVML_POWER = Source(_open_power, _probe_power, "GPU")
