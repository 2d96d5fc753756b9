"""``0.json``: every request's times, in the second it was sent in, as IPA writes them.

Times are absolute (start of the experiment plus seconds of the run), to the microsecond. A served
request has every pair that any mode of IPA's parser asks for. A dropped one has empty ``times``,
which each mode counts as one lost request; where it was dropped, and the times it did get, stand
under ``dropped``, with ``failed`` among them if it was not its age that it was lost for. Beside
``times`` stands its ``request_class``, where requests come in classes. Two more lists, ``power_w``
and ``cores``, hold one mean a second.

The file is written and read one second a line, so that the length of a run costs no memory. Of a
run with ``log_detail: counts`` its lists are empty: the counts are in the adaptation log.
"""

from __future__ import annotations

import json
import re
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import numpy.typing as npt

from ipa_energy.arrays import Counts, Floats
from ipa_energy.errors import ConfigError, in_words
from ipa_energy.runlog.record import MICROSECONDS, floats, nullable, taken
from ipa_energy.serving.served import Requests, Served

OPENING = '{"responses": ['
_DECIMALS = 6
_HOLE = "@" * 17
"""Stands for a time in a rendered request: ten digits of seconds, a point, six decimals."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Responses:
    """What ``0.json`` holds.

    Attributes:
        requests: in the order of sending. Of a request lost by IPA itself nothing is known but the
            second it was sent in: ``sending_s`` is that, ``dropped_at`` the number of stages.
        power_w: (seconds,) mean watts; empty if unknown.
        cores: (seconds,) mean cores; empty if unknown.
        seconds: number of seconds that the file has a list for.
    """

    requests: Requests
    power_w: Floats
    cores: Floats
    seconds: int


def joined(parts: list[Requests]) -> Requests:
    """Several batches of requests as one."""
    columns = {
        item.name: np.concatenate([getattr(part, item.name) for part in parts])
        for item in fields(Requests)
    }
    return Requests(**columns)


def in_order(windows: Iterable[Requests]) -> Iterator[Requests]:
    """Requests in the order of sending from windows in the order of finishing.

    Holds back only those behind one that is still under way; at the end, whatever is left.
    """
    waiting: Requests | None = None
    next_id = 0
    for window in windows:
        pool = window if waiting is None else joined([waiting, window])
        pool = taken(pool, np.argsort(pool.request_id, kind="stable"))
        ready = int(np.sum(pool.request_id == next_id + np.arange(len(pool))))
        next_id += ready
        yield taken(pool, slice(0, ready))
        waiting = taken(pool, slice(ready, None))
    if waiting is not None:
        yield waiting


def write_responses(
    file: TextIO,
    windows: Iterable[Served],
    *,
    nodes: tuple[str, ...],
    start_s: float,
    end_s: float,
    classes: Iterable[str] = (),
) -> None:
    """Stream ``0.json``.

    Args:
        file: where to.
        windows: what was served, in order.
        nodes: node names in pipeline order.
        start_s: wall clock at second 0.
        end_s: wall clock at the end of the workload; a second without requests is an empty list.
        classes: names of the classes of requests; none where nobody tells them apart.
    """
    power_w: list[float] = []
    cores: list[float] = []

    def seen() -> Iterator[Requests]:
        for served in windows:
            add_seconds(power_w, cores, served)
            yield served.requests

    rendered = _renderer(nodes, start_s)
    tails = [f',"request_class":{json.dumps(name)}}}' for name in classes]
    file.write(OPENING)
    second, row = 0, list[str]()
    separator = "\n["
    for batch in in_order(seen()):
        seconds = np.floor(batch.sending_s).astype(int).tolist()
        texts = rendered(batch)
        if batch.has_classes:
            of_class = zip(texts, batch.kind.tolist(), strict=True)
            texts = [text[:-1] + tails[kind] for text, kind in of_class]
        for sent_in, text in zip(seconds, texts, strict=True):
            while second < sent_in:
                file.write(f"{separator}{','.join(row)}]")
                separator, row = ",\n[", []
                second += 1
            row.append(text)
    for _ in range(second, max(second + 1, int(np.ceil(end_s - start_s)))):
        file.write(f"{separator}{','.join(row)}]")
        separator, row = ",\n[", []
    closing = {
        "power_w": nullable(power_w),
        "cores": nullable(cores),
        "start_time_experiment": start_s,
        "end_time_experiment": end_s,
    }
    file.write("\n],\n" + json.dumps(closing)[1:] + "\n")


def add_seconds(power_w: list[float], cores: list[float], served: Served) -> None:
    """Add a window's seconds to those before it, as they are logged; NaN where nobody logged."""
    gap = [np.nan] * (int(served.start_s) - len(power_w))
    power_w += [*gap, *np.round(served.power_w, 3).tolist()]
    cores += [*gap, *np.round(served.cores, 4).tolist()]


def _renderer(nodes: tuple[str, ...], start_s: float) -> Callable[[Requests], list[str]]:
    """A function from requests to their JSON, one text each.

    A served request always has the same keys, so with times of one width all texts are one length:
    a table of bytes whose digits are filled in by column, ten times as fast as formatting floats.
    """
    pair = f'{{"arrival":{_HOLE},"serving":{_HOLE}}}'
    models = [f"{json.dumps(name)}:{pair}" for node in nodes for name in (f"queue-{node}", node)]
    text = (
        f'{{"times":{{"request":{{"sending":{_HOLE},"arrival":{_HOLE}}},'
        f'"models":{{"router":{pair},{",".join(models)}}}}}}}'
    )
    row = np.frombuffer(text.encode("ascii"), dtype=np.uint8)
    holes = np.array([match.start() for match in re.finditer(_HOLE, text)])
    columns = (holes[:, None] + np.arange(len(_HOLE))).ravel()
    start_us = round(start_s * MICROSECONDS)

    def render(batch: Requests) -> list[str]:
        ordered = [batch.sending_s, batch.done_s, batch.queued_s[:, 0], batch.served_s[:, -1]]
        for stage in range(len(nodes)):
            served = batch.served_s[:, stage]
            ordered += [batch.queued_s[:, stage], served, batch.started_s[:, stage], served]
        times_s = np.column_stack(ordered)
        times_us = np.rint(np.nan_to_num(times_s) * MICROSECONDS).astype(np.int64) + start_us
        table = np.tile(row, (len(batch), 1))
        table[:, columns] = _digits(times_us).reshape(len(batch), len(columns))
        texts = table.tobytes().decode("ascii")
        width = len(row)
        rendered = [texts[index * width : (index + 1) * width] for index in range(len(batch))]
        for index in np.flatnonzero(batch.dropped_at >= 0).tolist():
            drop = int(batch.dropped_at[index])
            further = {"failed": True} if batch.failed[index] else {}
            row_s = (times_s[index] + start_s).tolist()
            rendered[index] = _dropped(nodes, drop, row_s, further)
        return rendered

    return render


def _digits(times_us: Counts) -> npt.NDArray[np.uint8]:
    """Microseconds as seconds with six decimals, in characters, blanks in front: (…, 17)."""
    text = np.full((*times_us.shape, len(_HOLE)), ord("."), dtype=np.uint8)
    left = times_us
    for power in range(len(_HOLE) - 1):
        left, digit = np.divmod(left, 10)
        character = digit + ord("0")
        if power > _DECIMALS:
            character[(left == 0) & (digit == 0)] = ord(" ")
        text[..., -1 - power - (power >= _DECIMALS)] = character
    return text


def _dropped(
    nodes: tuple[str, ...], drop: int, row: list[float], further: Mapping[str, bool]
) -> str:
    times = nullable(round(value, 6) for value in row)
    models = {}
    for index, node in enumerate(nodes[: drop + 1]):
        queued, served, started, _ = times[4 + 4 * index : 8 + 4 * index]
        models[f"queue-{node}"] = {"arrival": queued, "serving": served}
        models[node] = {"arrival": started, "serving": served}
    dropped = {
        "node": nodes[drop],
        "request": {"sending": times[0], "arrival": times[1]},
        "models": models,
        **further,
    }
    return json.dumps({"times": {}, "dropped": dropped}, separators=(",", ":"))


def read_responses(path: Path, nodes: tuple[str, ...], classes: Iterable[str] = ()) -> Responses:
    """Read any ``0.json``: ours by the line, IPA's at once.

    Args:
        path: the file.
        nodes: node names in pipeline order.
        classes: names of the classes of requests.

    Raises:
        ConfigError: it is not such a file.
    """
    flat, drops, failed, kinds = array("d"), array("q"), array("b"), array("q")
    kind_of = {name: kind for kind, name in enumerate(classes)}
    second = -1
    try:
        with path.open(encoding="utf-8") as file:
            seconds, closing = _seconds(file)
            start_s = float(closing["start_time_experiment"])
            for second, requests in enumerate(seconds):
                for request in requests:
                    row, drop = _parse(request, nodes, start_s + second)
                    flat.extend(row)
                    drops.append(drop)
                    failed.append("failed" in (request.get("dropped") or {}))
                    kinds.append(kind_of.get(request.get("request_class"), -1))
    except OSError as error:
        raise ConfigError(f"cannot be read ({error.strerror})", where=path) from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"not a file of request times ({in_words(error)})", where=path) from error
    table = np.array(flat, dtype=np.float64).reshape(len(drops), 2 + 3 * len(nodes))
    table = np.round(table - start_s, 6)
    return Responses(
        requests=Requests(
            request_id=np.arange(len(drops), dtype=np.int64),
            sending_s=table[:, 0],
            done_s=table[:, 1],
            dropped_at=np.array(drops, dtype=np.int64),
            queued_s=table[:, 2::3],
            started_s=table[:, 3::3],
            served_s=table[:, 4::3],
            failed=np.array(failed, dtype=np.bool_),
            kind=np.array(kinds, dtype=np.int64),
        ),
        power_w=floats(closing.get("power_w") or ()),
        cores=floats(closing.get("cores") or ()),
        seconds=second + 1,
    )


def _seconds(file: TextIO) -> tuple[Iterator[list[Any]], dict[str, Any]]:
    """The seconds of a file, lazily where it is ours, and the keys after them."""
    if file.readline().rstrip("\n") != OPENING:
        file.seek(0)
        whole = json.load(file)
        return iter(whole["responses"]), whole
    body = file.tell()
    for line in iter(file.readline, ""):
        if line == "],\n":
            break
    closing = json.loads("{" + file.read())
    file.seek(body)

    def rows() -> Iterator[list[Any]]:
        for line in iter(file.readline, "],\n"):
            yield json.loads(line.rstrip(",\n"))

    return rows(), closing


def _parse(
    request: dict[str, Any], nodes: tuple[str, ...], second_s: float
) -> tuple[list[float], int]:
    """One request as [sending, done, then per stage queued, started, served] and where it was lost.

    Times that a mode of IPA does not log (``queue-NODE``) are NaN.
    """
    dropped = request.get("dropped")
    times = dropped or request.get("times") or {}
    client = times.get("request") or {}
    models = times.get("models") or {}
    row = [_time(client, "sending", second_s), _time(client, "arrival")]
    for node in nodes:
        queue, server = models.get(f"queue-{node}") or {}, models.get(node) or {}
        row += [_time(queue, "arrival"), _time(server, "arrival"), _time(server, "serving")]
    if dropped is not None:
        return row, nodes.index(dropped["node"])
    return row, -1 if {"sending", "arrival"} <= client.keys() else len(nodes)


def _time(pair: dict[str, Any], key: str, default: float = np.nan) -> float:
    value = pair.get(key)
    return default if value is None else float(value)
