"""Joules of IPA's single-node profiler: a meter read around its load tests.

::

    remove_pipeline   setup_node            load_test                     save_report
          │ empty machine │ pods come up │ waiting │ window: load │ waiting │ lists, note
          └─ once a run ──┘              └─ idle ──┘              └─ idle ──┘

With P_w the mean watts of the two waiting windows, per experiment of n replicas with c cores each
of the machine's k::

    e = (E_window − P_w · duration) / requests that came back
    p = (P_empty · n·c/k + P_w − P_empty) / n      a meter of the machine (rapl, perf, …)
    p = (P_empty · n·c/k + P_w) / n                Kepler's pods: their active watts only
    p = P_w / n                                    Kepler up to 0.9: a pod's idle share is in it

The profiling YAML says which meter (``energy_meter``): ``kepler`` asks IPA's own Prometheus (or
``energy_prometheus_url``) about the node's pods; ``rapl``, ``perf`` … count the machine this runs
on, which must be the one the pods run on; ``none`` measures nothing. Without the key the first of
kepler, rapl and perf that gives figures is taken. ``energy_idle_s`` sets the length of the waiting
windows. One load test is one trial: there is no interval. A meter that fails costs the joules of
that experiment, never the experiment.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import logging
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ipa_energy.energy import joules_per_request
from ipa_energy.errors import ConfigError, IpaEnergyError, MeterUnavailableError
from ipa_energy.profile_table.ipa_results import (
    DYNAMIC_JOULES,
    IDLE_POWER,
    JOULES,
    EntryJoules,
    model_latencies,
)
from ipa_energy.profile_table.ipa_tables import Note, add_note

if TYPE_CHECKING:
    from ipa_energy.meters.base import Meter, Reading

logger = logging.getLogger(__name__)

Function = Callable[..., Any]
KEPLER = "kepler"
COUNTERS = ("rapl", "perf")
NONE = "none"
NAMESPACE = "default"
"""Where IPA puts its pods."""

LEAST_IDLE_S = 10.0
LEAST_STEPS = 5
"""Steps of a counter below which a window says nothing: a step at either edge is two fifths."""

IDLE_STEPS = 10
STEPS_PER_MIN_WINDOW = 100


class Profiling:
    """The meters of one run of the profiler, and the figures of its last load test.

    Args:
        machine: shows the machine, for its watts when empty.
        of_node: name of IPA's node → the meter of its pods; None if ``machine`` is all there is.
        cores: of the machine.
        idle_s: length of a waiting window.
        sleep: waits.
    """

    def __init__(
        self,
        machine: Meter,
        of_node: Callable[[str], Meter] | None,
        *,
        cores: int,
        idle_s: float | None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._machine = machine
        self._of_node = of_node
        self._cores = cores
        self._idle_s = idle_s
        self._sleep = sleep
        self._empty_w: float | None = None
        self._replicas, self._cpu_cores = 1, 1.0
        self._last: EntryJoules | None = None
        self._load_rps = 0.0

    def before_setup(self, cpu_request: str, replicas: int) -> None:
        """Note what is about to be set up, and the first time look at the empty machine."""
        self._replicas, self._cpu_cores = int(replicas), float(cpu_request)
        self._last = None
        if self._empty_w is None:
            try:
                self._empty_w = self._idle_power_w(self._machine)
            except (MeterUnavailableError, ConfigError) as error:
                logger.warning("the empty machine cannot be measured: %s", error)

    def around(self, load_test: Function, node: str) -> Any:
        """What a load test answers, measured on the way."""
        self._last = None
        try:
            meter = self._machine if self._of_node is None else self._of_node(node)
            before_w = self._idle_power_w(meter)
            start = meter.read()
        except (MeterUnavailableError, ConfigError) as error:
            logger.warning("no joules of this experiment: %s", error)
            return load_test()
        answer = load_test()
        try:
            requests = len(model_latencies(answer[2], node, "load test")[0])
            self._last = self._measured(meter, start, before_w, requests)
        except (MeterUnavailableError, ConfigError) as error:
            logger.warning("no joules of this experiment: %s", error)
        return answer

    def _measured(
        self, meter: Meter, start: Reading, before_w: float, requests: int
    ) -> EntryJoules | None:
        end = meter.read()
        energy = meter.energy_between(start, end)
        least_s = LEAST_STEPS * meter.min_window_s / STEPS_PER_MIN_WINDOW
        if energy.duration_s < least_s:
            raise MeterUnavailableError(
                f"a load test of {energy.duration_s:.3g} s is too short for {meter.name}, which"
                f" needs {least_s:.3g} s; fix: a longer load_duration"
            )
        if requests == 0 or self._empty_w is None:
            logger.warning("no joules of this experiment: %d requests came back", requests)
            return None
        waiting_w = (before_w + self._idle_power_w(meter)) / 2
        dynamic_j = (energy.energy_j - waiting_w * energy.duration_s) / requests
        idle_w = self._replica_idle_w(meter, waiting_w)
        if not (dynamic_j > 0 and idle_w >= 0):
            raise MeterUnavailableError(
                f"{dynamic_j:.3g} J a request above waiting, {idle_w:.3g} W a waiting replica:"
                f" others used the machine, or the windows are too short for {meter.name}"
            )
        self._load_rps = requests / energy.duration_s
        whole_j = joules_per_request(dynamic_j, idle_w, self._replicas, self._load_rps)
        return EntryJoules(
            dynamic_j, idle_w, whole_j, math.nan, 1, energy.meter, quality=energy.quality
        )

    def _replica_idle_w(self, meter: Meter, waiting_w: float) -> float:
        empty_w = self._empty_w or 0.0
        share = empty_w * self._replicas * self._cpu_cores / self._cores
        if self._of_node is None:
            total = share + waiting_w - empty_w
        elif "mode" in getattr(getattr(meter, "query", None), "domain_labels", ()):
            total = waiting_w
        else:
            total = share + waiting_w
        return total / self._replicas

    def _idle_power_w(self, meter: Meter) -> float:
        steps_s = IDLE_STEPS * meter.min_window_s / STEPS_PER_MIN_WINDOW
        start = meter.read()
        self._sleep(max(LEAST_IDLE_S, steps_s) if self._idle_s is None else self._idle_s)
        return meter.energy_between(start, meter.read()).power_w

    def add_to(self, results: dict[str, Any], path: Path) -> None:
        """Put the last load test's joules into a report, and where they come from beside it."""
        last, self._last = self._last, None
        if last is None:
            return
        results[JOULES] = [last.joules_per_request]
        results[DYNAMIC_JOULES] = [last.dynamic_energy_j]
        results[IDLE_POWER] = [last.idle_power_w]
        note = Note(
            experiment_id=int(path.stem),
            meter=last.meter,
            quality=last.quality,
            trials=last.trials,
            load_rps=self._load_rps,
        )
        add_note(path.parent, note)

    def close(self) -> None:
        """End what the meters hold."""
        from ipa_energy.meters.discovery import close_meter

        close_meter(self._machine)


_running: list[Profiling] = []
"""The profiler at work in this process, if any: IPA's functions share nothing else."""


def while_profiling(inner: Function) -> Function:
    """IPA's ``experiments``, with the meter that its YAML names open meanwhile."""
    signature = inspect.signature(inner)

    @functools.wraps(inner)
    def experiments(*args: Any, **kwargs: Any) -> Any:
        profiling = open_profiling(signature.bind(*args, **kwargs).arguments["config"])
        if profiling is None:
            return inner(*args, **kwargs)
        _running.append(profiling)
        try:
            return inner(*args, **kwargs)
        finally:
            _running.remove(profiling)
            profiling.close()

    return experiments


def around(setup_node: Function, load_test: Function) -> Sequence[Function]:
    """IPA's two functions with the meter read around them while a profiler is at work."""
    setup_signature = inspect.signature(setup_node)
    load_signature = inspect.signature(load_test)

    @functools.wraps(setup_node)
    def measured_setup(*args: Any, **kwargs: Any) -> Any:
        if _running:
            given = setup_signature.bind(*args, **kwargs).arguments
            _running[-1].before_setup(given["cpu_request"], given["replica"])
        return setup_node(*args, **kwargs)

    @functools.wraps(load_test)
    def measured_load(*args: Any, **kwargs: Any) -> Any:
        if not _running:
            return load_test(*args, **kwargs)
        node = load_signature.bind(*args, **kwargs).arguments["model"]
        return _running[-1].around(lambda: load_test(*args, **kwargs), node)

    return measured_setup, measured_load


def add_to_report(results: dict[str, Any], path: Path) -> None:
    """Joules of the last load test into its report; nothing if none were measured."""
    if _running:
        _running[-1].add_to(results, path)


def open_profiling(config: Mapping[str, Any]) -> Profiling | None:
    """The meters a profiling YAML asks for; None if it asks for none, or none gives figures.

    Raises:
        ConfigError: ``energy_meter`` or ``energy_idle_s`` is wrong.
        MeterUnavailableError: the meter that is named cannot be used here.
    """
    name, idle_s = config.get("energy_meter"), config.get("energy_idle_s")
    if name is not None and not isinstance(name, str):
        raise ConfigError(f"energy_meter is {name!r}", allowed="the name of a meter, or none")
    if idle_s is not None and (not isinstance(idle_s, int | float) or not idle_s > 0):
        raise ConfigError(f"energy_idle_s is {idle_s!r}", allowed="seconds above 0")
    if name == NONE:
        return None
    if name == "cpu-time":
        raise ConfigError(
            "energy_meter is cpu-time, which cannot see into pods",
            allowed=f"{KEPLER}, {', '.join(COUNTERS)}, …, {NONE}",
            fix="set none: IPA records CPU seconds anyway, and energy_estimate: cpu-time in the"
            " pipeline's YAML makes joules of them",
        )
    if name is not None:
        return _open(name, config, idle_s)
    for candidate in (KEPLER, *COUNTERS):
        try:
            return _open(candidate, config, idle_s)
        except IpaEnergyError as error:
            logger.info("%s gives no joules: %s", candidate, error)
    logger.warning(
        "no joules are recorded: neither Kepler nor a counter of this machine gives figures;"
        " ipa-energy meters tells why"
    )
    return None


def _open(name: str, config: Mapping[str, Any], idle_s: float | None) -> Profiling:
    cores = os.cpu_count() or 1
    if name != KEPLER:
        from ipa_energy.meters.discovery import open_meter

        return Profiling(open_meter(name), None, cores=cores, idle_s=idle_s)
    from ipa_energy.meters.prometheus.exporters import kepler_meter
    from ipa_energy.meters.prometheus.server import PrometheusServer
    from ipa_energy.meters.sources import KeplerTarget

    url = config.get("energy_prometheus_url")  # else the one that IPA itself asks
    url = url or importlib.import_module("experiments.utils.constants").PROMETHEUS
    server = PrometheusServer(str(url))
    machine = kepler_meter(server)
    status = machine.probe()
    if not status.usable:
        raise MeterUnavailableError(f"kepler is {status.state}: {status.reason}")
    return Profiling(
        machine,
        lambda node: kepler_meter(server, KeplerTarget(namespace=NAMESPACE, pod=f"{node}*")),
        cores=cores,
        idle_s=idle_s,
    )
