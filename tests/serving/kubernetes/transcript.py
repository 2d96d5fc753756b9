"""The recording of a real API server, and what it means for two answers to be the same."""

from __future__ import annotations

import gzip
import http.client
import itertools
import json
import re
import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

RECORDING = Path(__file__).parent / "transcript.jsonl.gz"
PLACEHOLDER = re.compile(r"\$(rv|uid|t|ip|gen|continue)(\d+)")
VALUES = {
    "rv": r"\d+",
    "uid": r"[0-9a-f-]{36}",
    "t": r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ",
    "ip": r"\d+\.\d+\.\d+\.\d+",
    "gen": r"[a-z0-9]+",
    "continue": r"[A-Za-z0-9_=-]+",
}
MANAGED = ("time", "fieldsType")
"""Left out of the recording's answers."""


def exchanges() -> list[dict[str, Any]]:
    """The lines of the recording, in order; the first is number 1."""
    with gzip.open(RECORDING, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


@dataclass
class Bindings:
    """What the recording's placeholders stand for in this run."""

    values: dict[str, str] = field(default_factory=dict)

    def filled(self, value: Any) -> Any:
        """A request with its placeholders filled in."""
        if isinstance(value, dict):
            return {self.filled(name): self.filled(each) for name, each in value.items()}
        if isinstance(value, list):
            return [self.filled(each) for each in value]
        if isinstance(value, str):
            return PLACEHOLDER.sub(lambda match: self.values[match[0]], value)
        return value

    def match(self, expected: str, found: str) -> bool:
        """Whether a text is as recorded; binds what is met for the first time."""
        pattern, names, end = "", [], 0
        for each in PLACEHOLDER.finditer(expected):
            pattern += re.escape(expected[end : each.start()])
            if each[0] in self.values and each[1] != "t":
                pattern += re.escape(self.values[each[0]])
            else:
                pattern += f"({VALUES[each[1]]})"
                names.append(each[0])
            end = each.end()
        matched = re.fullmatch(pattern + re.escape(expected[end:]), found, re.DOTALL)
        if matched is None:
            return False
        self.values.update(zip(names, matched.groups(), strict=True))
        return True

    def differences(
        self, expected: Any, found: Any, path: str = "", *, is_part: bool = False
    ) -> Iterator[str]:
        """Where an answer is not what was recorded.

        Args:
            expected, found: the answers.
            path: where we are, for the message.
            is_part: the recording was cut: what it lacks may be there.
        """
        if isinstance(expected, dict) and isinstance(found, dict):
            missing = expected.keys() - found.keys()
            more = set() if is_part else found.keys() - expected.keys()
            if path.endswith("managedFields[]"):
                more -= {*MANAGED, "fieldsV1"}
            for name in sorted(missing | more):
                what = "missing" if name in missing else "too much"
                yield f"{path}.{name}: {what}: {str(expected.get(name, found.get(name)))[:90]}"
            for name in expected.keys() & found.keys():
                inside = f"{path}.{name}"
                yield from self.differences(expected[name], found[name], inside, is_part=is_part)
        elif isinstance(expected, list) and isinstance(found, list):
            if len(expected) != len(found):
                yield f"{path}: {len(found)} items, {len(expected)} recorded"
            elif path.endswith("managedFields"):
                expected, found = sorted(expected, key=_owner), sorted(found, key=_owner)
            for n, (one, other) in enumerate(zip(expected, found, strict=False)):
                place = f"{path}[]" if path.endswith("managedFields") else f"{path}[{n}]"
                yield from self.differences(one, other, place, is_part=is_part)
        elif isinstance(expected, str) and isinstance(found, str):
            if not self.match(expected, found):
                yield f"{path}: {found!r} is not {expected!r}"
        elif expected != found:
            yield f"{path}: {str(found)[:200]!r} is not {str(expected)[:200]!r}"

    def disorder(self) -> list[str]:
        """Versions and times that are not in the recording's order."""
        wrong = []
        versions = {
            int(name[3:]): int(value) for name, value in self.values.items() if name[1:3] == "rv"
        }
        numbers = sorted(versions)
        for one, other in itertools.pairwise(numbers):
            if versions[one] >= versions[other]:
                wrong.append(f"$rv{one} = {versions[one]}, $rv{other} = {versions[other]}")
        uids = [value for name, value in self.values.items() if name.startswith("$uid")]
        if len(set(uids)) < len(uids):
            wrong.append("two objects have one uid")
        return wrong


def _owner(entry: dict[str, Any]) -> tuple[str, ...]:
    return (entry["operation"], entry["manager"], entry.get("subresource", ""))


@dataclass(frozen=True)
class Answer:
    """What a server sent."""

    status: int
    body: Any
    headers: dict[str, str]
    warnings: list[str]


def sent(
    port: int, exchange: dict[str, Any], bindings: Bindings, timeout_s: float = 30.0
) -> Answer:
    """A recorded request sent to a server."""
    query = {name: str(bindings.filled(each)) for name, each in (exchange["query"] or {}).items()}
    path = bindings.filled(exchange["path"])
    if query:
        path += "?" + urllib.parse.urlencode(query)
    body = bindings.filled(exchange["body"])
    data = None if body is None else (body if isinstance(body, str) else json.dumps(body)).encode()
    headers = {"Accept": exchange.get("accept") or "application/json"}
    headers["User-Agent"] = "python-requests/2"
    if exchange.get("content_type"):
        headers["Content-Type"] = exchange["content_type"]
    if exchange["as"] != "nobody":
        headers["Authorization"] = f"Bearer {exchange['as']}"
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout_s)
    try:
        connection.request(exchange["method"], path, data, headers)
        response = connection.getresponse()
        text = response.read().decode()
    finally:
        connection.close()
    return Answer(
        response.status,
        _parsed(text, is_watch="watch" in query),
        dict(response.getheaders()),
        response.headers.get_all("Warning") or [],
    )


def _parsed(text: str, *, is_watch: bool) -> Any:
    try:
        if is_watch and not text.startswith('{"kind": "Status"'):
            return [json.loads(line) for line in text.splitlines()]
        return json.loads(text)
    except ValueError:
        return text
