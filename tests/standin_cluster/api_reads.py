"""Reads from the stand-in API server: selectors, lists, and what a watch begins with."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from . import api_errors as errors
from .api_errors import ApiError
from .api_store import Object, Store
from .api_types import Resource

Matches = Callable[[Object], bool]


def selected(query: Mapping[str, str]) -> Matches:
    """Whether an object is what ``labelSelector`` and ``fieldSelector`` ask for.

    Raises:
        ApiError: 400: one of them cannot be read.
    """
    labels = _label_tests(query.get("labelSelector", ""))
    fields = _field_tests(query.get("fieldSelector", ""))

    def matches(each: Object) -> bool:
        its_labels = each["metadata"].get("labels", {})
        return all(test(its_labels) for test in labels) and all(test(each) for test in fields)

    return matches


def _label_tests(text: str) -> list[Callable[[Mapping[str, str]], bool]]:
    return [_label_test(part) for part in re.split(r",(?![^(]*\))", text) if part.strip()]


def _label_test(text: str) -> Callable[[Mapping[str, str]], bool]:
    text = text.strip()
    if match := re.fullmatch(r"([\w./-]+) *(=|==|!=) *([\w.-]*)", text):
        name, sign, value = match.groups()
        if sign == "!=":
            return lambda labels: labels.get(name) != value
        return lambda labels: labels.get(name) == value
    if match := re.fullmatch(r"([\w./-]+) +(in|notin) *\(([^()]*)\)", text):
        name, sign = match[1], match[2]
        values = [value.strip() for value in match[3].split(",")]
        if sign == "in":
            return lambda labels: labels.get(name) in values
        return lambda labels: labels.get(name) not in values
    if match := re.fullmatch(r"(!?) *([\w./-]+)", text):
        is_absent, name = bool(match[1]), match[2]
        return lambda labels: (name in labels) != is_absent
    if match := re.match(r"[\w./-]+ +(?:in|notin) +(\w+)", text):
        raise errors.bad_request(f"unable to parse requirement: found '{match[1]}' expected: '('")
    odd = re.sub(r"^[\w./-]+ *(=|==|!=)? *", "", text)[:1]
    raise errors.bad_request(f"unable to parse requirement: found '{odd}', expected: identifier")


def _field_tests(text: str) -> list[Matches]:
    tests: list[Matches] = []
    for part in filter(None, text.split(",")):
        name, sign, value = [*re.split(r"(!=|==|=)", part, maxsplit=1), "", ""][:3]
        if name not in ("metadata.name", "metadata.namespace", *POD_FIELDS):
            raise errors.bad_request(
                f'"{name}" is not a known field selector: only "metadata.name", '
                '"metadata.namespace"'
            )
        tests.append(partial(_has, name.split("."), value, is_wanted=sign != "!="))
    return tests


def _has(steps: list[str], value: str, each: Object, *, is_wanted: bool) -> bool:
    return (str(each.get(steps[0], {}).get(steps[1], "")) == value) == is_wanted


POD_FIELDS = ("spec.nodeName", "status.phase")
"""The other fields that the server lets one select pods by."""


def listed(store: Store, resource: Resource, namespace: str, query: Mapping[str, str]) -> Object:
    """GET of a collection, whole and as it is now: nobody here asks for pages or for the past.

    Raises:
        ApiError: 400 or 504.
    """
    matches = selected(query)
    with store.changed:
        require_reached(store, read_version(query.get("resourceVersion", ""), 400))
        found = [each for each in store.all(resource, namespace) if matches(each)]
        metadata: Object = {"resourceVersion": str(store.version)}
    if resource.custom:
        metadata["continue"] = ""
    return {
        "kind": f"{resource.kind}List",
        "apiVersion": resource.api_version,
        "metadata": metadata,
        "items": [each if resource.custom else _without_kind(each) for each in found],
    }


def _without_kind(each: Object) -> Object:
    return {name: value for name, value in each.items() if name not in ("kind", "apiVersion")}


def read_version(text: str, code: int) -> int:
    """A ``resourceVersion``; "" is 0.

    Raises:
        ApiError: it is no number: 400 of a list, 500 of a watch.
    """
    if not text:
        return 0
    if text.isdigit():
        return int(text)
    why = (
        f'resourceVersion: Invalid value: "{text}": strconv.ParseUint: parsing "{text}": '
        "invalid syntax"
    )
    if code == 400:
        raise errors.bad_request(f"invalid resource version: {why}")
    raise errors.internal(why)


def require_reached(store: Store, version: int) -> None:
    """Raise 504 for a version that is yet to come."""
    if version > store.version:
        cause = {"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}
        raise ApiError(
            504,
            "Timeout",
            f"Timeout: Too large resource version: {version}, current: {store.version}",
            {"causes": [cause], "retryAfterSeconds": 1},
            headers={"Retry-After": "1"},
        )


def too_old(version: int, oldest: int) -> dict[str, Any]:
    """What a watch from a forgotten version is told: an ERROR event, with HTTP 200."""
    error = ApiError(410, "Expired", f"too old resource version: {version} ({oldest})")
    return {"type": "ERROR", "object": error.status}
