"""What a runner hands to the run folder: who ran (:class:`RunInfo`) and what each interval did.

::

    [0, i)          Interval(plan=initial, decision=None)        the YAML's initial configuration
    [i, 2i)         Interval(plan=…, decision=Decision(…))       one a decision
    …
    [end, drained)  Interval(plan=last, decision=None)           continues the step before it

The decision at t governs [t, t + interval), and the joules of that window belong to it. A later
interval without a decision continues the step before it, so that the drain after the last request
is charged to the plan that ran it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ipa_energy.arrays import Floats
from ipa_energy.as_json import as_json, fields_of, or_none
from ipa_energy.errors import ConfigError, in_words
from ipa_energy.optimizer.plan import Plan
from ipa_energy.records import Quality
from ipa_energy.runlog.folder import RUN_FILE
from ipa_energy.serving.deployment import Decision
from ipa_energy.serving.observed import Correction, Scale, StageJoules
from ipa_energy.serving.served import Requests, Served
from ipa_energy.serving.tally import Tally, limits_s, tally
from ipa_energy.sla_steps import SlaSteps

MICROSECONDS = 1_000_000

RunStatus = Literal["running", "complete", "failed"]

FORMAT = 1
"""Version of the run folder's own files; raised when an older reader would misread them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """One served window with the plan that governed it.

    Attributes:
        timestep_s: when the plan was decided, seconds since the start; the window's start.
        plan: what governs the window; for an infeasible step, the plan that was kept.
        decision: None for the initial configuration and for a continuation (the drain).
        served: what the backend did in the window.
        reconfigured: names of the stages whose configuration this decision changed.
        gap_s: seconds before it in which nobody decided or logged. What a live pipeline served in
            them all the same is in this interval's window; of one that was gone nothing is known.
        joules: live joules per request of each stage beside the profile's; of live runs.
        corrections: drifts that were found at its end.
        scales: of the profile's joules, as its decision counted with them.
    """

    timestep_s: float
    plan: Plan
    decision: Decision | None
    served: Served
    reconfigured: tuple[str, ...] = ()
    gap_s: float = 0.0
    joules: tuple[StageJoules, ...] = ()
    corrections: tuple[Correction, ...] = ()
    scales: tuple[Scale, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class RunInfo:
    """What is known of a run before it starts; becomes ``run.json``.

    Attributes:
        name: what tables and plots call it; free text.
        stages: task names, first stage first.
        nodes: node names in the same order (IPA's logs are keyed by these).
        start_time_s: wall clock at second 0 of the run, seconds since the epoch.
        duration_s: length of the workload.
        interval_s: adaptation interval.
        latency_sla_s: latency SLA of the pipeline; None if it has none; the least of one that
            changes along the run, which is then in ``settings``.
        stage_slas_s: stage name → its share of the SLA by IPA's rule.
        base_allocations: stage name → variant → allocation, as IPA logs it.
        backend: ``simulate``, ``local`` or ``kubernetes``.
        seed: of everything random in the run.
        meter: meter behind the joules; None without energy.
        quality: of the joules; None without energy.
        workload: name of the load trace.
        profile: name of the profile table.
        hardware: what the profile was measured on.
        settings: weights and caps of the objective (``alpha``, ``energy_weight`` …).
        versions: program → version.
    """

    name: str
    stages: tuple[str, ...]
    nodes: tuple[str, ...]
    start_time_s: float
    duration_s: float
    interval_s: float
    latency_sla_s: float | None = None
    stage_slas_s: Mapping[str, float] = field(default_factory=dict)
    base_allocations: Mapping[str, Any] = field(default_factory=dict)
    backend: str = "simulate"
    seed: int | None = None
    meter: str | None = None
    quality: Quality | None = None
    workload: str = ""
    profile: str = ""
    hardware: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)

    @property
    def counts_requests(self) -> bool:
        """True if its log counts requests interval by interval in the place of their times."""
        return self.settings.get("log_detail") == "counts"

    @property
    def classes(self) -> Mapping[str, Mapping[str, Any]]:
        """Class of requests → its ``share``, and its ``latency_sla_s`` where it has its own."""
        found: Mapping[str, Mapping[str, Any]] = self.settings.get("request_classes") or {}
        return found

    def sla_s(self, requests: Requests) -> Floats | float | None:
        """The latency SLA of requests: one for all, unless it changes along the run or by class."""
        steps = self.settings.get("latency_sla_s")
        common = SlaSteps.of(steps).at(requests.sending_s) if steps else self.latency_sla_s
        own = {kind: one.get("latency_sla_s") for kind, one in enumerate(self.classes.values())}
        if not any(own.values()):
            return common
        return limits_s(common, requests.kind, own)

    def counted(self, interval: Interval) -> Interval:
        """The interval as it is logged: its requests counted, if that is how this run logs them."""
        if not self.counts_requests:
            return interval
        served, stages = interval.served, len(self.stages)
        requests = as_logged(served.requests)
        counts = self._tally(requests)
        if requests.has_classes:
            kinds = enumerate(self.classes)
            of_kind = {name: taken(requests, requests.kind == kind) for kind, name in kinds}
            by_class = {name: self._tally(some) for name, some in of_kind.items()}
            counts = replace(counts, by_class=by_class)
        return replace(interval, served=replace(served, requests=no_requests(stages), tally=counts))

    def _tally(self, requests: Requests) -> Tally:
        return tally(
            requests.sending_s,
            requests.done_s - requests.sending_s,
            requests.dropped_at,
            requests.failed,
            stages=len(self.stages),
            sla_s=self.sla_s(requests),
        )

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> RunInfo:
        """The record back from ``run.json``; keys of newer versions are ignored."""
        known = {item.name for item in fields(cls)}
        kept = {key: value for key, value in data.items() if key in known}
        for key in ("stages", "nodes"):
            kept[key] = tuple(kept[key])
        # A folder may come from anywhere, and a terminal does what control characters say.
        kept["name"] = "".join(c if c.isprintable() else "\ufffd" for c in str(kept["name"]))
        return cls(**kept)


def as_logged(requests: Requests) -> Requests:
    """Requests with their times as the journal keeps them, to the microsecond."""
    times = ("sending_s", "done_s", "queued_s", "started_s", "served_s")
    rounded = {name: np.rint(getattr(requests, name) * MICROSECONDS) for name in times}
    return replace(requests, **{name: value / MICROSECONDS for name, value in rounded.items()})


def nullable(values: Iterable[float]) -> list[float | None]:
    """Numbers as JSON has them: NaN is null."""
    return [None if value != value else value for value in values]  # noqa: PLR0124 - NaN


def floats(values: Iterable[float | None]) -> Floats:
    """The numbers back."""
    return np.array([np.nan if value is None else value for value in values], dtype=np.float64)


def taken(requests: Requests, index: Any) -> Requests:
    """The requests at ``index`` (positions or a mask)."""
    return Requests(**{item.name: getattr(requests, item.name)[index] for item in fields(Requests)})


def no_requests(stages: int) -> Requests:
    """Nothing, in the right shapes."""
    none, matrix = np.empty(0), np.empty((0, stages))
    ids = np.empty(0, dtype=np.int64)
    return Requests(ids, none, none, ids, matrix, matrix, matrix)


@dataclass(slots=True)
class Totals:
    """Sums over a run, for ``run.json``.

    Attributes:
        grams: None where nobody said what a joule emits.
        embodied_g: of making the hardware; None where the profile does not say.
        sites: site → its joules and grams; empty where the pipeline runs in one place.
        failed: requests that were lost for another reason than their age; not among ``dropped``.
        overhead_j: joules of what serves beside the stages, which are in none of theirs.
        further: term of a further quantity → (its sum over requests, these requests).
        late_s: by how much each request was sent later than intended, as far as it was seen in this
            call; in ``run.json`` its median and 99th percentile.
        held_by: what keeps live replicas to their cores, in words; empty for a simulation.
    """

    requests: int = 0
    dropped: int = 0
    failed: int = 0
    decisions: int = 0
    infeasible_steps: int = 0
    reconfigurations: int = 0
    idle_j: float = 0.0
    dynamic_j: float = 0.0
    grams: float | None = None
    embodied_g: float | None = None
    sites: dict[str, dict[str, float]] = field(default_factory=dict)
    overhead_j: dict[str, float] = field(default_factory=dict)
    further: dict[str, tuple[float, int]] = field(default_factory=dict)
    late_s: list[float] = field(default_factory=list)
    held_by: str = ""

    def add(
        self,
        served: Served,
        status: str | None,
        reconfigured: Sequence[str],
        further: Mapping[str, float],
    ) -> None:
        """One interval more, with the status of its decision and the stages that this changed.

        Args:
            served: what it served.
            status: of the decision at its beginning; None without one.
            reconfigured: names of the stages that this changed.
            further: terms of further quantities in the plan that governed it.
        """
        for name, term in further.items():
            total, requests = self.further.get(name, (0.0, 0))
            count = served.left
            self.further[name] = (total + count * term, requests + count)
        self.requests += served.left
        self.failed += served.failed
        self.dropped += served.dropped
        self.decisions += status not in (None, "initial")
        self.infeasible_steps += status == "infeasible"
        self.reconfigurations += bool(reconfigured)
        self.idle_j += float(served.idle_j.sum())
        self.dynamic_j += float(served.dynamic_j.sum())
        if served.grams is not None:
            self.grams = (self.grams or 0.0) + served.grams
        if served.embodied_g is not None:
            self.embodied_g = (self.embodied_g or 0.0) + served.embodied_g
        for site in served.sites:
            sums = self.sites.setdefault(site.name, {"joules": 0.0, "grams": 0.0})
            sums["joules"] += site.joules
            sums["grams"] += site.grams
        self.late_s += served.late_s.tolist()
        self.held_by = served.held_by or self.held_by
        for name, joules in served.overhead_j.items():
            self.overhead_j[name] = self.overhead_j.get(name, 0.0) + joules

    def to_json(self) -> dict[str, Any]:
        """The sums, and what follows from them."""
        answered = self.requests - self.dropped - self.failed
        energy_j = self.idle_j + self.dynamic_j
        sums = fields_of(self)
        late_s = sums.pop("late_s")
        if not self.held_by:
            sums.pop("held_by")
        if not self.failed:
            sums.pop("failed")
        for name in ("grams", "embodied_g"):
            if sums[name] is None:
                sums.pop(name)
        means = {name: or_none(total / n) for name, (total, n) in sums.pop("further").items() if n}
        for name in ("overhead_j", "sites"):
            if not sums[name]:
                sums.pop(name)
        return {
            **as_json(sums),
            "energy_j": or_none(energy_j),
            "joules_per_request": or_none(energy_j / answered) if answered else None,
            **self._sci(answered),
            **({"terms": means} if means else {}),
            **({"generator": lateness(late_s)} if late_s else {}),
        }

    def _sci(self, answered: int) -> dict[str, float]:
        """Software Carbon Intensity of a request, (E·I + M)/R, where both parts are known."""
        if self.grams is None or self.embodied_g is None or not answered:
            return {}
        return {"sci_g_per_request": (self.grams + self.embodied_g) / answered}


def lateness(late_s: Sequence[float]) -> dict[str, float]:
    """How late a load generator was: the median and the 99th percentile."""
    p50_s, p99_s = np.quantile(late_s, [0.5, 0.99])
    return {"late_p50_s": round(float(p50_s), 6), "late_p99_s": round(float(p99_s), 6)}


def run_json(info: RunInfo, status: RunStatus, **further: Any) -> str:
    """The text of ``run.json``."""
    data = {"format": FORMAT, "status": status, **as_json(info), **further}
    return json.dumps(data, indent=1, allow_nan=False) + "\n"


def read_run_json(path: Path) -> tuple[RunInfo, str]:
    """``run.json`` of a folder: who ran, and the status.

    Raises:
        ConfigError: there is none, or it is not ours.
    """
    file = path / RUN_FILE
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
        info, status = RunInfo.from_json(data), str(data["status"])
        newer = int(data["format"]) > FORMAT
    except OSError as error:
        raise ConfigError(
            "is not a run folder: it has no run.json",
            where=path,
            allowed="a folder that ipa-energy run --out made",
        ) from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"not a run.json ({in_words(error)})", where=file) from error
    if newer:
        raise ConfigError("written by a newer version", where=file, fix="upgrade ipa-energy")
    return info, status
