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
PLACEHOLDER = re.compile(r"\$(rv|uid|t|ip|gen|continue|hash)(\d+)")
VALUES = {
    "rv": r"\d+",
    "uid": r"[0-9a-f-]{36}",
    "t": r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ",
    "ip": r"\d+\.\d+\.\d+\.\d+",
    "gen": r"[a-z0-9]+",
    "continue": r"[A-Za-z0-9_=-]+",
    "hash": r"[0-9a-f]+",
}
HASHED = re.compile(r'"pod-template-hash": ?"([0-9a-f]+)"')
MET_ONCE = re.compile(r"(\$hash\d+)-([a-z0-9]{5})\b")
"""A pod's name that stands in one answer only, so that the recorder left it as it was."""

MANAGED = ("time", "fieldsType")
"""Left out of the recording's answers."""


def exchanges() -> list[dict[str, Any]]:
    """The lines of the recording, in order; the first is number 1.

    The hashes in the names of ReplicaSets are the server's own: ``$hashN`` stands for them.
    """
    with gzip.open(RECORDING, "rt", encoding="utf-8") as lines:
        text = lines.read()
    for n, hashed in enumerate(dict.fromkeys(HASHED.findall(text)), 1):
        text = text.replace(hashed, f"$hash{n}")
    text = MET_ONCE.sub(lambda match: f"{match[1]}-$gen{900 + len(match[2])}", text)
    return [json.loads(line) for line in text.splitlines()]


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
            return PLACEHOLDER.sub(lambda match: self.value(match[0]), value)
        return value

    def value(self, name: str) -> str:
        """What a placeholder stands for; a version that was not met: the next older one."""
        if name not in self.values and name.startswith("$rv"):
            older = (int(each[3:]) for each in self.values if each.startswith("$rv"))
            name = f"$rv{max(n for n in older if n < int(name[3:]))}"
        return self.values[name]

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
            elif is_part:
                found = self._in_order_of(expected, found)
            for n, (one, other) in enumerate(zip(expected, found, strict=False)):
                place = f"{path}[]" if path.endswith("managedFields") else f"{path}[{n}]"
                yield from self.differences(one, other, place, is_part=is_part)
        elif isinstance(expected, str) and isinstance(found, str):
            if not self.match(expected, found):
                yield f"{path}: {found!r} is not {expected!r}"
        elif expected != found:
            yield f"{path}: {str(found)[:200]!r} is not {str(expected)[:200]!r}"

    def _in_order_of(self, expected: list[Any], found: list[Any]) -> list[Any]:
        """Items in the recorded order: names with a hash in them are listed in another."""
        rest = list(found)
        for n, each in enumerate(expected[: len(rest)]):

            def distance(m: int, each: Any = each) -> int:
                trial = Bindings(dict(self.values))
                return len(list(trial.differences(each, rest[m], is_part=True)))

            rest.insert(n, rest.pop(min(range(n, len(rest)), key=distance)))
        return rest

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
