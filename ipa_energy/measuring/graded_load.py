"""Loads from idle to every core, each with a counter's watts: what a calibration is fitted to.

::

    a load    start │ settle │ window │ stop
                    │        │  P, u  │

The first round begins with idle and full load, which show a dead counter at once; then the order is
shuffled, so that drift of the machine does not pass for a bend of the curve.

``integers`` is a loop of the interpreter; ``matrices`` are products of float32 matrices, which is
what inference does. They cost different watts at the same utilisation, and a power model that knows
utilisation alone must live with both: so a calibration has both.

Utilisation is the workers' own CPU time over that of all cores, from the scheduler's clock. What
others do belongs to the machine as it idles, and is named where it is much.
"""

from __future__ import annotations

import contextlib
import logging
import os
import random
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from ipa_energy.errors import ConfigError, MeterUnavailableError
from ipa_energy.measuring.child_process import ChildEndedError, ModuleProcess
from ipa_energy.meters.base import Meter
from ipa_energy.meters.calibration import PowerPoint
from ipa_energy.meters.cpu_time import load_between, process_tree_cpu_s, read_core_times
from ipa_energy.meters.discovery import AUTO, CPU_COUNTERS, best_here, close_meter, open_meter
from ipa_energy.meters.sources import Places

logger = logging.getLogger(__name__)

FOREIGN_LOAD_LIMIT = 0.05
"""Others' share of the cores above which a window is named."""

ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")


UNCALIBRATED = (
    "Without a counter there is nothing to calibrate against, and the cpu-time meter stays an "
    "estimate good to ±50 %"
)


@dataclass(frozen=True, slots=True)
class Load:
    """What runs during a window.

    Attributes:
        work: a key of :data:`WORK`.
        workers: processes, one core each.
        duty: share of the time that each is busy.
    """

    work: str
    workers: int
    duty: float

    @property
    def name(self) -> str:
        """For tables and messages: ``3 × matrices at 50 %``."""
        return f"{self.workers} × {self.work} at {self.duty:.0%}" if self.workers else "idle"


IDLE = Load("integers", 0, 0.0)


@contextmanager
def processor_counter(name: str, places: Places) -> Iterator[Meter]:
    """A real counter of the processors' energy, to calibrate against.

    Args:
        name: ``auto``, ``rapl`` or ``perf``.
        places: where to look.

    Raises:
        ConfigError: no such counter.
        MeterUnavailableError: there is none that moves.
    """
    if name not in (AUTO, *CPU_COUNTERS):
        raise ConfigError(
            f"{name} is no counter of the processors' energy",
            where="--meter",
            allowed=", ".join((AUTO, *CPU_COUNTERS)),
        )
    if name == AUTO:
        statuses = [status for status in best_here(places).statuses if status.name in CPU_COUNTERS]
        name = next((status.name for status in statuses if status.state == "measured"), "")
        if not name:
            found = "; ".join(f"{s.name} is {s.state}: {s.reason}" for s in statuses)
            raise MeterUnavailableError(f"{found}. {UNCALIBRATED}")
    try:
        meter = open_meter(name, places)
    except MeterUnavailableError as error:
        raise MeterUnavailableError(f"{error}. {UNCALIBRATED}") from error
    try:
        yield meter
    finally:
        close_meter(meter)


def graded_loads(cores: int) -> list[Load]:
    """Loads over the whole range: part of the cores all the time, all of them part of the time."""
    loads = [IDLE]
    for work in WORK:
        loads += [Load(work, cores, duty) for duty in (1.0, 0.75, 0.5, 0.25)]
        some = {max(1, round(cores * share)) for share in (0.25, 0.5, 0.75)} - {cores}
        loads += [Load(work, workers, 1.0) for workers in sorted(some)]
    return loads


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadSettings:
    """How each load is measured.

    Attributes:
        window_s: length of a window; 10 ms ticks of the guard against others need about a second.
        settle_s: from the start of a load to its window.
        rounds: windows of each load.
        seed: of the order.
    """

    window_s: float = 3.0
    settle_s: float = 1.0
    rounds: int = 2
    seed: int = 0


def record_power(
    meter: Meter,
    loads: Sequence[Load],
    settings: LoadSettings,
    *,
    sleep: Callable[[float], None] = time.sleep,
    show_progress: bool = True,
) -> list[PowerPoint]:
    """The watts of every load, in the order they were taken.

    Args:
        meter: a counter of the whole machine.
        loads: see :func:`graded_loads`.
        settings: lengths and order.
        sleep: passes the time; injectable for tests.
        show_progress: a bar on a terminal's standard error.

    Raises:
        MeterUnavailableError: the counter cannot be read, or does not move at all.
    """
    from tqdm import tqdm

    order = random.Random(settings.seed)
    points = []
    plan = [*loads[:2], *order.sample(list(loads[2:]), len(loads[2:]))]
    for _ in range(settings.rounds - 1):
        plan += order.sample(list(loads), len(loads))
    with tqdm(plan, unit="load", disable=None if show_progress else True) as progress:
        for load in progress:
            progress.set_postfix_str(load.name)
            points.append(_record(meter, load, settings, sleep))
            logger.info("%s: %.4g W", load.name, points[-1].power_w)
    disturbed = [point for point in points if point.foreign_load > FOREIGN_LOAD_LIMIT]
    if disturbed:
        worst = max(disturbed, key=lambda point: point.foreign_load)
        logger.warning(
            "others used the cores in %d of %d windows, up to %.0f %% of them (%s): the model "
            "takes that for the idle machine; calibrate with nothing else running",
            len(disturbed),
            len(points),
            100 * worst.foreign_load,
            worst.load,
        )
    return points


def _record(
    meter: Meter, load: Load, settings: LoadSettings, sleep: Callable[[float], None]
) -> PowerPoint:
    with running(load) as pids:
        sleep(settings.settle_s)
        cores, cpu_s, start = read_core_times(), _cpu_s(pids), meter.read()
        sleep(max(settings.window_s, meter.min_window_s))
        end, cpu_end_s, cores_end = meter.read(), _cpu_s(pids), read_core_times()
    energy = meter.energy_between(start, end)
    if not energy.energy_j > 0:
        raise MeterUnavailableError(
            f"{meter.name} shows {energy.energy_j:g} J for {energy.duration_s:.3g} s under the "
            f"load {load.name}: the counter is dead"
        )
    used = (cpu_end_s - cpu_s) / (energy.duration_s * len(cores.busy_s))
    foreign = load_between(
        cores, cores_end, core_ids=list(cores.busy_s), own_cpu_s=cpu_end_s - cpu_s
    ).foreign
    return PowerPoint(load.name, min(1.0, used), energy.power_w, foreign)


@contextmanager
def running(load: Load) -> Iterator[list[int]]:
    """The load's worker processes, ready; they end with the block."""
    arguments = (load.work, str(load.duty))
    with contextlib.ExitStack() as ended:
        workers = [
            ended.enter_context(ModuleProcess(__name__, ONE_THREAD, arguments))
            for _ in range(load.workers)
        ]
        for worker in workers:
            try:
                worker.hear()
            except ChildEndedError as error:
                raise MeterUnavailableError(f"the load {load.name} did not start") from error
        yield [worker.pid for worker in workers]


def _cpu_s(pids: Sequence[int]) -> float:
    return sum(map(process_tree_cpu_s, pids))


# ------------------------------------------------------------------ a worker's own process

PERIOD_S = 0.1
"""Of the duty cycle: long against the scheduler's slices, short against any window."""

MATRIX_ROWS = 256


def work_until_the_parent_is_gone() -> None:
    """What each worker's process does; its first arguments are kind of work and duty."""
    work, duty = WORK[sys.argv[1]](), float(sys.argv[2])
    parent = os.getppid()
    os.write(int(sys.argv[-1]), b'{"ready": true}\n')
    time.sleep(random.random() * PERIOD_S)  # so that many do not beat in step
    while os.getppid() == parent:
        start_s = time.perf_counter()
        while time.perf_counter() - start_s < duty * PERIOD_S:
            work()
        left_s = start_s + PERIOD_S - time.perf_counter()
        if duty < 1 and left_s > 0:
            time.sleep(left_s)


def _integers() -> Callable[[], None]:
    def work() -> None:
        total = 0
        for number in range(1000):
            total += number * number

    return work


def _matrices() -> Callable[[], None]:
    import numpy as np

    left = np.random.default_rng(0).random((MATRIX_ROWS, MATRIX_ROWS), dtype=np.float32)
    product = np.empty_like(left)

    def work() -> None:
        np.matmul(left, left, out=product)

    return work


WORK: dict[str, Callable[[], Callable[[], None]]] = {"integers": _integers, "matrices": _matrices}

if __name__ == "__main__":
    work_until_the_parent_is_gone()
