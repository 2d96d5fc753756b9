"""The append-only journal: the truth of a run until it is complete.

One line of JSON an interval, ``{"timestep", "entry", "window"}``: the step's entry for the
adaptation log (null for a continuation) and everything that the window served. Request times are
whole microseconds since the start of the run, −1 for never; one list a column, one list a stage;
with ``log_detail: counts`` what they came to (:mod:`ipa_energy.serving.tally`) in their place.
Each line ends in its number and checksum (:mod:`ipa_energy.jsonl`); lines of older versions do not.
A last line without its newline is one that a kill tore: it never happened.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ipa_energy.arrays import Floats
from ipa_energy.as_json import as_json, or_none
from ipa_energy.errors import ConfigError, in_words
from ipa_energy.jsonl import Seals, sealed
from ipa_energy.runlog.live_step import known
from ipa_energy.runlog.record import MICROSECONDS, Interval, floats, no_requests, nullable
from ipa_energy.runlog.step import as_quality, log_entry, sites_json
from ipa_energy.serving.observed import ClassWork, Spent
from ipa_energy.serving.served import Change, Event, Requests, Served, SiteSpent
from ipa_energy.serving.tally import Tally

NEVER_US = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One line of the journal.

    Attributes:
        timestep_s: start of the window.
        entry: the step's entry for the adaptation log, None for a continuation.
        served: the window, times rounded to the microsecond.
    """

    timestep_s: float
    entry: dict[str, Any] | None
    served: Served


def encode(interval: Interval, *, continues: bool, number: int) -> tuple[Line, bytes]:
    """Line ``number``, from 1, of a journal, as a record and as bytes with their newline."""
    entry = None if continues else log_entry(interval)
    served = interval.served
    data = {"timestep": interval.timestep_s, "entry": entry, "window": _window(served)}
    text = json.dumps(data, separators=(",", ":"), allow_nan=False)
    line = Line(timestep_s=interval.timestep_s, entry=entry, served=served)
    return line, sealed(text, number).encode() + b"\n"


def read_lines(path: Path) -> Iterator[tuple[Line, int]]:
    """The whole lines of a journal, each with the offset of its end in bytes.

    Raises:
        ConfigError: a line that is whole is not one of ours, or not what or where it was.
    """
    end = 0
    seals = Seals()
    with path.open("rb") as file:
        for index, raw in enumerate(file):
            if not raw.endswith(b"\n"):
                return
            end += len(raw)
            try:
                seals.check(raw)
                line = _decode(json.loads(raw))
            except (ValueError, KeyError, TypeError) as error:
                raise ConfigError(
                    f"not a line of a run's journal ({in_words(error)})",
                    where=f"{path}:{index + 1}",
                    fix="keep the lines before it alone, which are whole"
                    f" (sed -i '{index + 1},$d' {shlex.quote(str(path))}), then go on with"
                    " --resume",
                ) from error
            yield line, end


def _decode(data: dict[str, Any]) -> Line:
    window = data["window"]
    return Line(
        timestep_s=float(data["timestep"]),
        entry=data["entry"],
        served=Served(
            start_s=float(window["start_s"]),
            end_s=float(window["end_s"]),
            requests=no_requests(len(window["idle_j"])) if "tally" in window else _requests(window),
            idle_j=floats(window["idle_j"]),
            dynamic_j=floats(window["dynamic_j"]),
            power_w=floats(window["power_w"]),
            cores=floats(window["cores"]),
            in_flight=int(window["in_flight"]),
            meter=window["meter"],
            quality=as_quality(window["quality"]),
            grams=window.get("grams"),
            embodied_g=window.get("embodied_g"),
            tally=Tally.from_json(window["tally"]) if "tally" in window else None,
            work=tuple(ClassWork(**one) for one in window.get("request_classes", ())),
            sites=tuple(
                SiteSpent(name, figures["joules"], np.zeros(0), figures["grams"])
                for name, figures in window.get("sites", {}).items()
            ),
            **_beside(window),
        ),
    )


def _beside(window: dict[str, Any]) -> dict[str, Any]:
    """What only live windows have."""
    return {
        "overhead_j": window.get("overhead_j", {}),
        "replicas": tuple(Spent(**one) for one in window.get("replicas", ())),
        "events": tuple(Event(**one) for one in window.get("events", ())),
        "changes": tuple(Change(**known(one)) for one in window.get("changes", ())),
        "notes": tuple(window.get("notes", ())),
        "machine_j": window.get("machine_j"),
    }


def _window(served: Served) -> dict[str, Any]:
    beside = {
        "request_classes": as_json([one.rounded() for one in served.work]),
        "overhead_j": {name: round(joules, 6) for name, joules in served.overhead_j.items()},
        "replicas": as_json(served.replicas),
        "events": as_json(served.events),
        "changes": as_json(served.changes),
        "notes": list(served.notes),
        "machine_j": served.machine_j,
    }
    return {
        **{name: value for name, value in beside.items() if value},
        "start_s": round(served.start_s, 6),
        "end_s": round(served.end_s, 6),
        "idle_j": nullable(np.round(served.idle_j, 6).tolist()),
        "dynamic_j": nullable(np.round(served.dynamic_j, 6).tolist()),
        "power_w": nullable(np.round(served.power_w, 3).tolist()),
        "cores": nullable(np.round(served.cores, 4).tolist()),
        "in_flight": int(served.in_flight),
        "meter": served.meter,
        "quality": served.quality,
        **({} if served.embodied_g is None else {"embodied_g": round(served.embodied_g, 9)}),
        **({} if served.grams is None else {"grams": or_none(round(served.grams, 9))}),
        **({"sites": sites_json(served)} if served.sites else {}),
        **_logged(served),
    }


def _logged(served: Served) -> dict[str, Any]:
    """Times of the requests, or what they came to."""
    requests = served.requests
    if served.tally is not None:
        return {"tally": served.tally.to_json()}
    return {
        "request_id": requests.request_id.tolist(),
        "sending_us": _to_us(requests.sending_s),
        "done_us": _to_us(requests.done_s),
        "dropped_at": requests.dropped_at.tolist(),
        **({"failed": requests.failed.tolist()} if requests.failed.any() else {}),
        **({"kind": requests.kind.tolist()} if requests.has_classes else {}),
        "queued_us": _to_us(requests.queued_s.T),
        "started_us": _to_us(requests.started_s.T),
        "served_us": _to_us(requests.served_s.T),
    }


def _requests(window: dict[str, Any]) -> Requests:
    ids = np.array(window["request_id"], dtype=np.int64)
    by_stage = (len(window["idle_j"]), len(ids))
    return Requests(
        request_id=ids,
        sending_s=_from_us(window["sending_us"]),
        done_s=_from_us(window["done_us"]),
        dropped_at=np.array(window["dropped_at"], dtype=np.int64),
        queued_s=_from_us(window["queued_us"]).reshape(by_stage).T,
        started_s=_from_us(window["started_us"]).reshape(by_stage).T,
        served_s=_from_us(window["served_us"]).reshape(by_stage).T,
        failed=np.array(window.get("failed", []), dtype=np.bool_),
        kind=np.array(window.get("kind", []), dtype=np.int64),
    )


def _to_us(seconds: Floats) -> Any:
    scaled = np.rint(seconds * MICROSECONDS)
    return np.where(np.isnan(scaled), NEVER_US, scaled).astype(np.int64).tolist()


def _from_us(microseconds: Any) -> Floats:
    values = np.array(microseconds, dtype=np.int64)
    return np.where(values == NEVER_US, np.nan, values / MICROSECONDS)
