"""What a CPU second and an idle core cost right now: by a counter of the machine, or by a model.

::

    counter ──read──▶ E joules in d seconds, of which the idle machine is P_empty·d
    /proc/stat ─────▶ B CPU seconds of all programs meanwhile

    price of a CPU second   (E − P_empty·d) / B        price of an idle core   P_empty / k

A counter shows the whole machine and CPU time says who kept it busy, so replicas, router and other
programs are told apart by their CPU seconds at one price. ``P_empty`` is what the machine drew
before anything was started, or less where it was seen to draw less; of a machine whose power model
was calibrated it is that model's. Reads may take long (a server that is asked, a counter whose next
step is waited for) and are done in a thread. Between two windows of the counter's smallest useful
length the last price goes on, and the next window makes up for what it missed.

A counter that fails (the permission is taken away, it stands still, its server is gone) gives no
figure and never 0: from then on a CPU second costs what the power model says, which is said, and
the counter is tried again every few seconds.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from ipa_energy.errors import ConfigError, MeterUnavailableError
from ipa_energy.meters.base import Meter, Reading
from ipa_energy.meters.discovery import AUTO, CPU_COUNTERS, close_meter, open_meter
from ipa_energy.meters.power_model import PowerModel
from ipa_energy.meters.sources import Places, sources_of
from ipa_energy.records import Quality

logger = logging.getLogger(__name__)

ESTIMATE = "cpu-time"
RETRY_S = 5.0
EMPTY_S = 1.0
"""How long the machine is watched before anything is started."""

LEAST_WINDOW_S = 0.1
TICKS_PER_S = 100
PROC_STAT = Path("/proc/stat")


@dataclass(frozen=True, slots=True)
class Price:
    """What CPU time and reserved cores cost over a step.

    Attributes:
        j_per_cpu_s: joules above idle of a CPU second.
        idle_w_per_core: watts that one reserved core stands for.
        meter, quality: where these are from.
        machine_j: joules of the whole machine in the step; None without a counter. Between two
            windows of the counter they are what its last price makes of them, and the step that
            ends a window has what is left of it.
        cores: of the machine, which share its idle watts however many are reserved; infinity where
            no counter says what the machine draws.
    """

    j_per_cpu_s: float
    idle_w_per_core: float
    meter: str = ESTIMATE
    quality: Quality = "estimated"
    machine_j: float | None = None
    cores: float = math.inf


def machine_busy_s(path: Path = PROC_STAT) -> float:
    """CPU seconds that all programs of this machine have used since it started."""
    words = path.read_text(encoding="ascii").split(maxsplit=9)
    user, nice, system, _idle, _iowait, irq, softirq = (int(word) for word in words[1:8])
    return (user + nice + system + irq + softirq) / TICKS_PER_S


def _modelled(model: PowerModel, meter: str = ESTIMATE) -> Price:
    return Price(model.dynamic_w_per_core, model.idle_w_per_core, meter)


class ModelPrices:
    """The price by the power model: always the same.

    Attributes:
        meter: its name.
        cpu_s: CPU seconds that metering itself took.
    """

    meter = ESTIMATE
    cpu_s = 0.0

    def __init__(self, model: PowerModel) -> None:
        self._price = _modelled(model, self.meter)

    async def begin(self) -> None:
        """Nothing to watch."""

    async def price(self, now_s: float, ours_s: float) -> Price:
        """Of the step that ends now; see :meth:`MeteredPrices.price`."""
        del now_s, ours_s
        return self._price

    def take_notes(self) -> list[str]:
        """Nothing to say."""
        return []

    def close(self) -> None:
        """Nothing to close."""


class MeteredPrices:
    """The price by a counter of the whole machine, and by the model while that fails.

    Args:
        meter: of all cores; closed by :meth:`close`.
        model: of this machine.
        busy_s: CPU seconds of all programs so far.
        now_s: the clock of the meter's readings.

    Attributes:
        meter: its name.
        cpu_s: CPU seconds that reading the meter took.
        empty_w: watts of the machine with nothing on it, as far as known.
    """

    def __init__(
        self,
        meter: Meter,
        model: PowerModel,
        *,
        busy_s: Callable[[], float] = machine_busy_s,
        now_s: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.meter = meter.name
        self.cpu_s = 0.0
        self.empty_w = model.idle_w if model.machine is not None else math.inf
        self._meter, self._model = meter, model
        self._busy_s, self._now_s = busy_s, now_s
        self._least_s = max(LEAST_WINDOW_S, meter.min_window_s)
        self._last: Reading | None = None
        self._pending_j = 0.0  # charged since the last reading
        self._step_s, self._step_busy_s = now_s(), busy_s()
        self._price = _modelled(model)
        self._retry_s = -math.inf
        self._notes: list[str] = []

    async def begin(self) -> None:
        """Watch the machine for a moment, before anything is started on it."""
        first = await self._read()
        await asyncio.sleep(max(EMPTY_S, self._least_s))
        last = await self._read()
        try:
            if first is not None and last is not None:
                power_w = self._meter.energy_between(first, last).power_w
                self.empty_w = min(self.empty_w, power_w)
        except MeterUnavailableError as error:
            self._failed(error)
        self._step_s, self._step_busy_s = self._now_s(), self._busy_s()

    async def price(self, now_s: float, ours_s: float) -> Price:
        """Of the step that ends now.

        Args:
            now_s: when it ends.
            ours_s: CPU seconds in it of whoever is charged, a lower bound of those of all.
        """
        before = self._last
        due = before is None or now_s - before.time_s >= self._least_s
        reading = await self._read() if due and now_s >= self._retry_s else None
        now_s, busy_s = self._now_s(), self._busy_s()
        length_s = max(0.0, now_s - self._step_s)
        step_busy_s = max(busy_s - self._step_busy_s, ours_s)
        self._step_s, self._step_busy_s = now_s, busy_s
        if reading is not None and before is not None:
            try:
                return self._metered(before, reading, length_s, step_busy_s)
            except MeterUnavailableError as error:
                self._failed(error)
        price = self._price
        charged_j = price.j_per_cpu_s * step_busy_s
        charged_j += price.idle_w_per_core * self._model.cores * length_s
        self._pending_j += charged_j
        return replace(price, machine_j=None if price.meter == ESTIMATE else charged_j)

    def take_notes(self) -> list[str]:
        """What happened to the meter since the last call, in words."""
        notes, self._notes = self._notes, []
        return notes

    def close(self) -> None:
        """Close the meter."""
        close_meter(self._meter)

    def _metered(
        self, before: Reading, reading: Reading, length_s: float, step_busy_s: float
    ) -> Price:
        """The window between two readings, less what was charged for it already."""
        energy = self._meter.energy_between(before, reading)
        if self._price.meter == ESTIMATE:  # what was charged till now was no part of the counter's
            if self._retry_s > -math.inf:
                self._notes.append(f"{self._meter.name} counts again")
            self._retry_s = -math.inf
        self.empty_w = min(self.empty_w, energy.power_w)
        rest_j = energy.energy_j - self._pending_j
        left_j = max(0.0, rest_j)
        idle_j = min(left_j, self.empty_w * length_s)
        rate = self._price.j_per_cpu_s
        if step_busy_s > 0:
            rate = (left_j - idle_j) / step_busy_s
        self._pending_j = 0.0
        idle_w = self.empty_w / self._model.cores
        name, quality = self._meter.name, self._meter.quality
        self._price = Price(rate, idle_w, name, quality, cores=self._model.cores)
        return replace(self._price, machine_j=rest_j)

    async def _read(self) -> Reading | None:
        """A reading, in a thread; None if there is none."""
        try:
            reading, spent_s = await asyncio.to_thread(self._timed_read)
        except MeterUnavailableError as error:
            self._failed(error)
            return None
        self.cpu_s += spent_s
        if self._last is None:
            self._pending_j = 0.0
        self._last = reading
        return reading

    def _timed_read(self) -> tuple[Reading, float]:
        begin_s = time.thread_time()
        reading = self._meter.read()
        return reading, time.thread_time() - begin_s

    def _failed(self, error: MeterUnavailableError) -> None:
        """The counter has no figure: the model's price from now on."""
        if self._price.meter != ESTIMATE or self._retry_s == -math.inf:
            self._notes.append(f"{error}: joules are estimated from CPU time from here on")
        self._last, self._pending_j = None, 0.0
        self._retry_s = self._now_s() + RETRY_S
        self._price = _modelled(self._model)


Prices = ModelPrices | MeteredPrices


def prices_for(name: str, powercap: Path, model: PowerModel) -> Prices:
    """What CPU time costs, by the meter of this name; ``auto``: a counter where there is one.

    Args:
        name: of a meter that counts the processors of this machine, ``auto`` or ``cpu-time``.
        powercap: the kernel's powercap folder.
        model: of this machine.

    Raises:
        ConfigError: there is no such meter, or it does not count processors.
        MeterUnavailableError: it is named and gives no figure.
    """
    places = Places(powercap=powercap)
    if name == ESTIMATE:
        return ModelPrices(model)
    if name != AUTO:
        if name not in sources_of("CPU"):
            raise ConfigError(
                f"{name}: the joules of a live run are told apart by CPU time",
                where="--meter",
                allowed=", ".join((AUTO, *sources_of("CPU"))),
            )
        return MeteredPrices(open_meter(name, places), model)
    for counter in CPU_COUNTERS:
        try:
            return MeteredPrices(open_meter(counter, places), model)
        except MeterUnavailableError as error:
            logger.info("%s", error)
    return ModelPrices(model)
