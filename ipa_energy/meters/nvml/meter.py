"""Joules of NVIDIA GPUs, from the energy counter of the driver (Volta and newer).

The counter runs in millijoules since the driver was loaded and covers a whole GPU with its memory.
It steps every 10 to 100 ms, depending on the GPU: the period is found by watching it, and a window
good to 1 % spans a hundred steps. Work that was handed to the GPU but has not finished belongs to
the window it was started in, so pass ``synchronise`` (``torch.cuda.synchronize``, say) and the
meter calls it before each read.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ipa_energy.errors import ConfigError
from ipa_energy.meters.base import Energy, Reading
from ipa_energy.meters.discovery.observation import observe
from ipa_energy.meters.fault import MeterFault
from ipa_energy.meters.nvml.device import Gpu, load_nvml, selected_gpus, translated
from ipa_energy.meters.status import MeterStatus, min_window_for
from ipa_energy.records import Quality

JOULES_PER_MJ = 1e-3

OBSERVATION_LIMIT_S = 3.0
"""A GPU draws watts even when idle: a counter that rests this long is dead."""


@dataclass(frozen=True, slots=True)
class _Session:
    """NVML as opened by one process; a forked child opens its own."""

    pid: int
    nvml: Any
    gpus: tuple[Gpu, ...]


class NvmlMeter:
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

    def energy_between(self, start: Reading, end: Reading) -> Energy:
        """Joules of the window, by GPU.

        Raises:
            MeterUnavailableError: a counter fell (the driver was reloaded), or did not move (it is
                dead, or the window is shorter than its step), or the window has no length.
        """
        duration_s = end.time_s - start.time_s
        if duration_s <= 0:
            raise MeterFault(self.name, "dead", f"a window of {duration_s:g} s has no length")
        domains = {}
        for name, first_mj in start.counters.items():
            moved_mj = end.counters[name] - first_mj
            if moved_mj < 0:
                raise MeterFault(
                    self.name,
                    "dead",
                    f"the counter of {name} fell by {-moved_mj:g} mJ within {duration_s:.3g} s",
                    "the driver was reloaded or the GPU reset: measure the window again",
                )
            if moved_mj == 0:
                raise MeterFault(
                    self.name,
                    "dead",
                    f"the counter of {name} did not move in {duration_s:.3g} s",
                    "use a longer window; a counter that rests for seconds is dead",
                )
            domains[name] = moved_mj * JOULES_PER_MJ
        return Energy(sum(domains.values()), duration_s, domains, self.name, self.quality)

    def probe(self) -> MeterStatus:
        """Watch the counters for a moment and say what was found; never raises for a meter."""
        try:
            gpus, period_s = self.gpus, self._watched_s()
        except MeterFault as fault:
            return fault.status()
        except ConfigError as error:
            return MeterStatus(self.name, "absent", str(error))
        names = ", ".join(f"{gpu.domain} {gpu.name}" for gpu in gpus)
        shared = [gpu.domain for gpu in gpus if gpu.mig]
        note = f"; whole GPU, all MIG slices together: {', '.join(shared)}" if shared else ""
        return MeterStatus(
            self.name,
            "measured",
            f"counters moved while watched: {names}{note}",
            domains=tuple(gpu.domain for gpu in gpus),
            update_period_s=period_s,
            min_window_s=min_window_for(period_s),
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
