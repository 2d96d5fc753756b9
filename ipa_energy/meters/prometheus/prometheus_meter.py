"""Joules that somebody else counts and a Prometheus server scrapes.

A reading is only a moment on the server's clock; the joules of a window are asked for when it is
over, and when the scrape that closes it is in (the meter waits for it, a few scrape intervals at
most). Nothing is sampled here and nothing is lost by a pause of this process.

How fine such a meter is depends on two periods, both observed: how often the server scrapes, and
how often the exporter moves its counter (Kepler: every 5 s). The slower one sets ``min_window_s``.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from ipa_energy.errors import ConfigError
from ipa_energy.meters.base import Energy, MeterFault, MeterStatus, Reading, min_window_for
from ipa_energy.meters.nvml_device import is_module
from ipa_energy.meters.prometheus.counters import (
    Window,
    interval_between_scrapes_s,
    period_between_steps_s,
)
from ipa_energy.meters.prometheus.query import WindowQuery, counted_by
from ipa_energy.meters.prometheus.server import METER, CounterSeries, PrometheusServer
from ipa_energy.meters.sources import Counted, Places, Source
from ipa_energy.records import Quality, weakest_quality

SERVER_TIME = "server_unix_s"
ROUND_TRIP = "round_trip_s"

LOOK_BACK_S = 300.0
"""How far back the scrapes are looked at to find their interval."""

PATIENCE_INTERVALS = 3.0
"""Scrape intervals to wait for the sample that closes a window."""

LEAST_PATIENCE_S = 3.0
"""At least; a server may show a sample a second after it was scraped."""

CLOCK_SLACK_S = 0.1
CLOCK_DRIFT = 1e-3
"""How far the server's clock and ours may part within a window: this, plus the round trips."""

MODEL_WORDS = ("model", "estimat")
"""A ``source`` label with one of these means that no counter was read (Kepler up to 0.9)."""


class PrometheusMeter:
    """Joules by a query over a window. A :class:`~ipa_energy.meters.base.Meter`.

    Args:
        server: whom to ask.
        query: what to ask; or a function of a window's start and end, in Unix seconds, that finds
            out what there was to ask about then.
        name: for provenance.
        model_label: label with the model of a GPU, if GPUs are counted.
        clock: seconds, increasing; used to wait.
        sleep: waits.
    """

    def __init__(
        self,
        server: PrometheusServer,
        query: WindowQuery | Callable[[float, float], WindowQuery],
        *,
        name: str = METER,
        model_label: str | None = None,
        clock: Callable[[], float] = time.perf_counter,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.server = server
        self.name = name
        self._model_label = model_label
        self._given = query
        self._query: WindowQuery | None = None
        self._clock = clock
        self._sleep = sleep
        self._periods_s: tuple[float, float] | None = None

    @property
    def query(self) -> WindowQuery:
        """What is asked, as it was found when first needed; each window finds its own.

        Raises:
            MeterUnavailableError: the server does not answer, or scrapes nothing of the kind.
        """
        if self._query is None:
            now_s = self.server.now_s()
            self._query = self._query_over(now_s - LOOK_BACK_S, now_s)
        return self._query

    @property
    def quality(self) -> Quality:
        """Quality of every figure, as far as the query tells; a series may weaken it."""
        return self.query.quality

    @property
    def counts(self) -> Counted | None:
        """Whose joules, if the user's query tells."""
        return None if callable(self._given) else counted_by(" ".join(self._given.selectors))

    @property
    def includes_cpu(self) -> bool:
        """True if GPUs are counted whose counters have a processor's joules in them."""
        if self._model_label is None:
            return False
        now_s = self.server.now_s()
        found = self._fetched(self.query, now_s - LOOK_BACK_S, now_s)
        return any(is_module(one.labels.get(self._model_label, "")) for one in found)

    @property
    def update_period_s(self) -> float:
        """The slower of the scrape interval and the counters' own period, as observed."""
        interval_s, steps_s = self._observed(self.server.now_s())
        return interval_s if math.isnan(steps_s) else max(interval_s, steps_s)

    @property
    def min_window_s(self) -> float:
        """Shortest window good to 1 %."""
        return min_window_for(self.update_period_s)

    def read(self) -> Reading:
        """The moment on the server's clock, midway between question and answer.

        Raises:
            MeterUnavailableError: the server does not answer.
        """
        before_s = self._clock()
        now_s = self.server.now_s()
        after_s = self._clock()
        counters = {SERVER_TIME: now_s, ROUND_TRIP: after_s - before_s}
        return Reading((before_s + after_s) / 2, counters)

    def energy_between(self, start: Reading, end: Reading) -> Energy:
        """Joules of the window; waits until its last scrape is in.

        Raises:
            ConfigError: the server refuses the query.
            MeterUnavailableError: the window is not covered by scrapes, nothing moved, a clock
                jumped, or the server does not answer.
        """
        duration_s = end.time_s - start.time_s
        server_s = end.counters[SERVER_TIME] - start.counters[SERVER_TIME]
        trips_s = end.counters[ROUND_TRIP] + start.counters[ROUND_TRIP]
        slack_s = CLOCK_SLACK_S + trips_s / 2 + CLOCK_DRIFT * max(duration_s, 0.0)
        if abs(server_s - duration_s) > slack_s:
            raise MeterFault(
                self.name,
                "dead",
                f"the window lasted {duration_s:.3f} s here and {server_s:.3f} s on the server: "
                "a clock jumped",
                "measure the window again; keep the server's clock with NTP",
            )
        energy = self.energy_over(start.counters[SERVER_TIME], end.counters[SERVER_TIME])
        return replace(energy, duration_s=duration_s)

    def energy_over(self, start_s: float, end_s: float) -> Energy:
        """Joules between two moments on the server's clock, recent or long ago.

        Args:
            start_s: Unix seconds.
            end_s: Unix seconds, later.

        Raises:
            ConfigError: the server refuses the query.
            MeterUnavailableError: the window has no length or is not covered by scrapes, nothing
                moved, or the server does not answer.
        """
        if not start_s < end_s:
            raise MeterFault(self.name, "dead", f"a window of {end_s - start_s:g} s has no length")
        window = Window(start_s, end_s, self._observed(end_s)[0])
        query = self._query_over(start_s - window.max_gap_s, end_s)
        found = self._enclosing(query, window)
        domains, notes = query.joules(self.server, found, window)
        total_j = math.fsum(domains.values())
        quality = query.quality
        if _from_model(found):
            quality = weakest_quality([quality, "estimated"]) or quality
        return Energy(total_j, end_s - start_s, domains, self.name, quality, notes=notes)

    def probe(self) -> MeterStatus:
        """Look at the last scrapes and say what was found; never raises for a meter."""
        try:
            now_s = self.server.now_s()
            query = self._query = self._query_over(now_s - LOOK_BACK_S, now_s)
            found = self._fetched(query, now_s - LOOK_BACK_S, now_s)
            query.check(self.server, found)
            self._periods_s = None
            interval_s, steps_s = self._observed(now_s)
        except MeterFault as fault:
            return replace(fault.status(), name=self.name)
        except ConfigError as error:
            return MeterStatus(self.name, "absent", str(error))
        scraped = f"{len(found)} series, scraped every {interval_s:.3g} s by {self.server.url}"
        alive = found if query.may_rest else [one for one in found if len(set(one.values)) > 1]
        if not alive:
            return MeterStatus(
                self.name,
                "dead",
                f"{scraped}, stood still for {LOOK_BACK_S:g} s",
                "run something and try again; else see the exporter's log",
            )
        domains = query.domains(alive)
        still = [name for name in query.domains(found) if name not in domains]
        scraped += f"; still: {', '.join(still)}" if still else ""
        period_s = interval_s if math.isnan(steps_s) else max(interval_s, steps_s)
        measured = query.quality == "measured" and not _from_model(found)
        return MeterStatus(
            self.name,
            "measured" if measured else "estimated",
            scraped if measured else f"{scraped}; a model or a share by CPU time, not a counter",
            domains=domains,
            update_period_s=period_s,
            min_window_s=min_window_for(period_s),
        )

    def _observed(self, end_s: float) -> tuple[float, float]:
        """Seconds between scrapes and between steps of the counters, before ``end_s``."""
        if self._periods_s is None:
            query = self._query_over(end_s - LOOK_BACK_S, end_s)
            found = self._fetched(query, end_s - LOOK_BACK_S, end_s)
            interval_s = interval_between_scrapes_s(found)
            if math.isnan(interval_s):
                raise MeterFault(
                    self.name,
                    "dead" if found else "absent",
                    f"{_listed(query)} has {'one sample' if found else 'no samples'}"
                    f" in the {LOOK_BACK_S:g} s before {end_s:.0f} on {self.server.url}",
                    "see the exporter's state on the server's page /targets",
                )
            self._periods_s = interval_s, period_between_steps_s(found)
        return self._periods_s

    def _query_over(self, start_s: float, end_s: float) -> WindowQuery:
        given = self._given
        return given(start_s, end_s) if callable(given) else given

    def _enclosing(self, query: WindowQuery, window: Window) -> list[CounterSeries]:
        """The samples around the window, once the scrape after its end is in, or never will be."""
        patience_s = max(LEAST_PATIENCE_S, PATIENCE_INTERVALS * window.interval_s)
        give_up_s = self._clock() + patience_s
        while True:
            found = self._fetched(
                query, window.start_s - window.max_gap_s, window.end_s + window.max_gap_s
            )
            closed = bool(found) and all(one.times_s[-1] >= window.end_s for one in found)
            if closed or self._clock() > give_up_s:
                break
            self._sleep(window.interval_s / 4)
        if not found:
            raise MeterFault(
                self.name,
                "absent",
                f"{_listed(query)} has no samples in the window",
                "see the exporter's state on the server's page /targets",
            )
        return found

    def _fetched(self, query: WindowQuery, start_s: float, end_s: float) -> list[CounterSeries]:
        selectors = dict.fromkeys(query.selectors)
        found = [one for each in selectors for one in self.server.series(each, start_s, end_s)]
        return query.joined(found)


def _from_model(found: Sequence[CounterSeries]) -> bool:
    sources = [one.labels.get("source", "").lower() for one in found]
    return any(word in source for source in sources for word in MODEL_WORDS)


def _listed(query: WindowQuery) -> str:
    return ", ".join(query.selectors)


URL_FIX = "name the server that scrapes it: --prometheus-url http://HOST:9090"
QUERY_FIX = "name a counter of energy, or an expression: --query 'NAME{LABEL=\"VALUE\"}'"
QUALITY_FIX = "if a hardware counter or a power meter feeds it: --query-quality measured"


def scraped_source(
    open_scraped: Callable[[Places, PrometheusServer], PrometheusMeter],
    name: str,
    counts: Counted | None,
) -> Source:
    """A source that a Prometheus server scrapes; it is first asked when it is first used.

    Args:
        open_scraped: makes the meter of a server.
        name: of the meter, for what to say where no server is named.
        counts: whose joules.
    """

    def open_named(places: Places) -> PrometheusMeter:
        if places.prometheus_url is None:
            raise MeterFault(name, "absent", "no Prometheus server is named", URL_FIX)
        server = PrometheusServer(places.prometheus_url, headers=places.prometheus_headers)
        return open_scraped(places, server)

    def probe(places: Places) -> MeterStatus:
        try:
            return open_named(places).probe()
        except MeterFault as fault:
            return fault.status()

    return Source(open_named, probe, counts)


def _open_query(places: Places, server: PrometheusServer) -> PrometheusMeter:
    if places.query is None:
        raise MeterFault(METER, "absent", "no query is named", QUERY_FIX)
    return PrometheusMeter(server, places.query)


def _probe_query(places: Places) -> MeterStatus:
    """State of the user's own query, whose quality Prometheus does not tell."""
    status = _QUERY.status(places)
    if status.state != "estimated" or status.fix is not None:
        return status
    return replace(status, fix=QUALITY_FIX)


_QUERY = scraped_source(_open_query, METER, None)
QUERY = replace(_QUERY, probe=_probe_query)
