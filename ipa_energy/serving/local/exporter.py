"""The figures of a live pipeline for Prometheus, at ``/metrics`` of the plane.

They live in the plane, which goes on serving when who decides is gone. What only the decider knows
(plan, predicted load, scales of the profile) it tells over the control socket
(:class:`~ipa_energy.serving.observed.AdapterFigures`); until it has, those series are absent,
never 0.

Joules per request are no series but a quotient of two rates (``configs/monitoring``), which is
right over any window and any sum of pipelines. The latency histogram has a bound at the SLA, so
that the share inside it is exact.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter as Counts
from collections.abc import Iterable, Sequence
from typing import Any

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Histogram,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
)
from prometheus_client.registry import Collector

import ipa_energy
from ipa_energy.errors import ServingError
from ipa_energy.serving.local.cpu_ledger import CpuLedger, Sample
from ipa_energy.serving.local.machine_meter import ESTIMATE
from ipa_energy.serving.local.replica_set import ReplicaSet
from ipa_energy.serving.local.router import Trip
from ipa_energy.serving.observed import AdapterFigures

PREFIX = "ipa_energy"
LATENCY_BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
DECISION_BUCKETS_S = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0)
SLA_RATIOS = (0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0)
STATES = ("ready", "starting", "draining", "failed")
OUTCOMES = ("in_sla", "late", "dropped", "failed")
MAX_REQUEST_BYTES = 8192
REQUEST_TIMEOUT_S = 5.0

Family = CounterMetricFamily | GaugeMetricFamily | InfoMetricFamily | HistogramMetricFamily


class Exporter(Collector):
    """A registry of its own, what serves it, and what is read from the plane when somebody asks.

    Args:
        pipeline: label of every series.
        sets: the stages' replicas.
        ledger: of the joules.
        latency_sla_s: of the pipeline; None without: then every answer is inside it.
        energy_sla_j: cap on the joules of a request; None without.
        meter: of the machine that was asked for; ``cpu-time`` where there is none.

    Attributes:
        cpu_s: CPU seconds that answering took.
    """

    def __init__(
        self,
        pipeline: str,
        sets: Sequence[ReplicaSet],
        ledger: CpuLedger,
        *,
        latency_sla_s: float | None = None,
        energy_sla_j: float | None = None,
        meter: str = ESTIMATE,
    ) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.cpu_s = 0.0
        self.registry = CollectorRegistry()
        self._slas = {"latency_sla_seconds": latency_sla_s, "energy_sla_joules": energy_sla_j}
        self._sla_s = math.inf if latency_sla_s is None else latency_sla_s
        self._pipeline, self._sets, self._ledger, self._meter = pipeline, sets, ledger, meter
        self._stages = [fleet.queue.stage for fleet in sets]
        self._figures: AdapterFigures | None = None
        self._samples: list[Sample] = []
        self._server: asyncio.Server | None = None
        self._requests = self._counter("requests", "Requests that left the pipeline.", "outcome")
        for outcome in OUTCOMES:
            self._requests.labels(pipeline, outcome)
        told = "Requests that a stage served."
        self._stage_requests = self._counter("stage_requests", told, "stage")
        for stage in self._stages:
            self._stage_requests.labels(pipeline, stage)
        self._duration = self._histogram(
            "request_duration_seconds",
            "From a request's arrival at the router to its answer.",
            latency_buckets_s(latency_sla_s),
        )
        self._decision = self._histogram(
            "decision_duration_seconds",
            "Prediction, optimisation and choice of a plan.",
            DECISION_BUCKETS_S,
        )
        self._decisions = self._counter("decisions", "Decisions.", "status")
        self.registry.register(self)

    def _counter(self, name: str, help_text: str, label: str) -> Counter:
        labels = ("pipeline", label)
        return Counter(f"{PREFIX}_{name}", help_text, labels, registry=self.registry)

    def _histogram(self, name: str, help_text: str, buckets: Sequence[float]) -> Histogram:
        made = Histogram(
            f"{PREFIX}_{name}", help_text, ("pipeline",), buckets=buckets, registry=self.registry
        )
        return made.labels(self._pipeline)

    def left(self, trip: Trip) -> None:
        """A request has left the pipeline."""
        latency_s = trip.left_s - trip.arrived_s
        if trip.trouble is None:
            outcome = "in_sla" if latency_s <= self._sla_s else "late"
            self._duration.observe(latency_s)
        else:
            outcome = "dropped" if trip.is_dropped else "failed"
        self._requests.labels(self._pipeline, outcome).inc()
        for stage, served_s in zip(self._stages, trip.served_s, strict=False):
            if not math.isnan(served_s):
                self._stage_requests.labels(self._pipeline, stage).inc()

    def sampled(self, sample: Sample) -> None:
        """The ledger was looked at: keep the last two, whose difference is power."""
        if not self._samples or sample.at_s - self._samples[-1].at_s > 0.1:
            self._samples = [*self._samples[-1:], sample]

    def told(self, figures: AdapterFigures) -> None:
        """The decider knows more."""
        self._figures = figures
        if figures.status is not None:
            self._decisions.labels(self._pipeline, figures.status).inc()
            if not math.isnan(figures.decision_s):
                self._decision.observe(figures.decision_s)

    def text(self) -> bytes:
        """Everything, as Prometheus reads it."""
        begin_s = time.thread_time()
        text: bytes = generate_latest(self.registry)
        self.cpu_s += time.thread_time() - begin_s
        return text

    async def listen(self, port: int, host: str = "127.0.0.1") -> int:
        """Serve ``/metrics``; the port, which the kernel chooses for 0.

        Raises:
            ServingError: the port is taken.
        """
        try:
            self._server = await asyncio.start_server(
                self._answer, host, port, limit=MAX_REQUEST_BYTES
            )
        except OSError as error:
            told = (error.strerror or str(error)).lower()
            raise ServingError(
                f"--exporter: cannot listen at port {port}: {told}; fix: another port, or 0 for any"
            ) from error
        found: int = self._server.sockets[0].getsockname()[1]
        return found

    def close(self) -> None:
        """Stop serving."""
        if self._server is not None:
            self._server.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(REQUEST_TIMEOUT_S):
                head = await reader.readuntil(b"\r\n\r\n")
                method, path = [*head.decode("latin-1").split(maxsplit=2), "", ""][:2]
                writer.write(self._response(method, path.partition("?")[0]))
                await writer.drain()
        except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # whoever asked is gone, slow, or speaks something else
        finally:
            writer.close()

    def _response(self, method: str, path: str) -> bytes:
        if method not in ("GET", "HEAD") or path not in ("/", "/metrics"):
            status, kind, body = "404 Not Found", "text/plain", b"figures are at /metrics\n"
        else:
            status, kind, body = "200 OK", CONTENT_TYPE_LATEST, self.text()
        head = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n"
        return f"{head}Connection: close\r\n\r\n".encode() + (b"" if method == "HEAD" else body)

    def collect(self) -> Iterable[Family]:
        """Every family; those that nobody knows anything of are left out."""
        families = [*self._joules(), *self._replicas(), *self._limits()]
        families += self._told(self._figures) if self._figures else ()
        version = {"version": ipa_energy.__version__}
        build = InfoMetricFamily(f"{PREFIX}_build", "Version of ipa-energy.", value=version)
        return [family for family in (*families, build) if family.samples]

    def _gauge(self, name: str, help_text: str, *labels: str) -> GaugeMetricFamily:
        return GaugeMetricFamily(f"{PREFIX}_{name}", help_text, labels=("pipeline", *labels))

    def _count(self, name: str, help_text: str, *labels: str) -> CounterMetricFamily:
        return CounterMetricFamily(f"{PREFIX}_{name}", help_text, labels=("pipeline", *labels))

    def _add(self, family: Any, labels: Sequence[str], value: float) -> None:
        if not math.isnan(value):
            family.add_metric((self._pipeline, *labels), value)

    def _joules(self) -> Iterable[Family]:
        joules = self._count(
            "stage_joules",
            "Joules of a stage's replicas: idle while they exist, dynamic above that.",
            *("stage", "variant", "kind", "meter", "quality"),
        )
        for (stage, variant, meter, quality), spent in self._ledger.by_variant.items():
            for kind, value in zip(("idle", "dynamic"), spent, strict=True):
                self._add(joules, (stage, variant, kind, meter, quality), value)
        beside = "Joules above idle of what serves beside the stages, in none of theirs."
        overhead = self._count("overhead_joules", beside, "part")
        power = self._gauge("stage_power_watts", "Power of a stage's replicas.", "stage", "kind")
        up = self._gauge("meter_up", "1 while the meter of the machine gives figures.", "meter")
        if self._samples:
            last = self._samples[-1]
            for part, value in last.overhead_j.items():
                self._add(overhead, (part,), value)
            if self._meter != ESTIMATE:
                self._add(up, (self._meter,), float(last.meter != ESTIMATE))
        if len(self._samples) == 2:
            before, last = self._samples
            length_s = last.at_s - before.at_s
            for index, fleet in enumerate(self._sets):
                for kind, name in (("idle", "idle_j"), ("dynamic", "dynamic_j")):
                    spent_j = getattr(last, name)[index] - getattr(before, name)[index]
                    self._add(power, (fleet.queue.stage, kind), spent_j / length_s)
        return joules, overhead, power, up

    def _replicas(self) -> Iterable[Family]:
        queue = self._gauge("queue_requests", "Requests that wait.", "stage")
        found = self._gauge("replicas", "Replicas by what they do.", "stage", "variant", "state")
        cores = self._gauge("cores", "Cores that replicas hold.", "stage")
        failed = self._count("replica_failures", "Replicas that ended unasked.", "stage")
        for fleet in self._sets:
            stage = fleet.queue.stage
            self._add(queue, (stage,), len(fleet.queue))
            self._add(failed, (stage,), fleet.repaired)
            counts: Counts[tuple[str, str]] = Counts()
            for state in fleet.states():
                for name in STATES:
                    counts[state.option.variant, name] += getattr(state, name)
            for (variant, name), count in counts.items():
                self._add(found, (stage, variant, name), count)
            held = sum(member.option.cpu_cores for member in fleet.members)
            self._add(cores, (stage,), held)
        return queue, found, cores, failed

    def _limits(self) -> Iterable[Family]:
        for name, of in (("latency_sla_seconds", "latency"), ("energy_sla_joules", "joules")):
            family = self._gauge(name, f"Limit of a request's {of}.")
            value = self._slas[name]
            if value is not None:
                self._add(family, (), value)
            yield family

    def _told(self, figures: AdapterFigures) -> Iterable[Family]:
        single = (
            ("predicted_load_rps", "Load that the predictor expects.", figures.predicted_load_rps),
            ("planned_load_rps", "Load that was planned for.", figures.planned_load_rps),
            ("accuracy", "Of the pipeline, by the plan in force.", figures.accuracy),
            ("plan_feasible", "1 if the last decision found a plan.", figures.is_feasible),
            (
                "decided_timestamp_seconds",
                "When the last interval ended or was decided on.",
                figures.told_at_s,
            ),
        )
        for name, help_text, value in single:
            family = self._gauge(name, help_text)
            self._add(family, (), float(value))
            yield family
        objective = self._gauge("objective", "Terms of the plan's objective, weighted.", "part")
        for part, value in figures.objective.items():
            self._add(objective, (part,), value)
        names = ("stage", "variant", "allocation")
        scale = self._gauge("profile_scale_ratio", "Scale of the profile's joules.", *names)
        for one in figures.scales:
            self._add(scale, (one.stage, one.variant, one.allocation), one.factor)
        expected = self._gauge(
            "stage_profile_joules_per_request",
            "Joules of a request by the profile, at the last interval's batch fill and load.",
            *names,
        )
        live = self._gauge(
            "stage_interval_joules_per_request",
            "Joules of a request as spent in the last interval.",
            *names,
        )
        for seen in figures.joules:
            labels = (seen.stage, seen.variant, seen.allocation)
            self._add(expected, labels, seen.profile_j)
            self._add(live, labels, seen.live_j)
        yield from (objective, scale, expected, live)


def latency_buckets_s(sla_s: float | None) -> tuple[float, ...]:
    """Bounds of the latency histogram: the SLA itself, parts and multiples of it, and usual ones.

    The usual ones stop where those of the SLA begin, so that there are few.
    """
    if sla_s is None:
        return LATENCY_BUCKETS_S
    around = [ratio * sla_s for ratio in SLA_RATIOS]
    below = [bound for bound in LATENCY_BUCKETS_S if bound < around[0]]
    above = [bound for bound in LATENCY_BUCKETS_S if bound > around[-1]]
    return tuple(sorted({*below, *around, *above}))
