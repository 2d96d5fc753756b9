"""Reads from the stand-in API server: selectors, lists in pages, and what a watch begins with."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from ipa_energy.testing.cluster import api_errors as errors
from ipa_energy.testing.cluster.api_errors import ApiError, Cause
from ipa_energy.testing.cluster.api_store import Object, Store
from ipa_energy.testing.cluster.api_types import Resource

Matches = Callable[[Object], bool]

CONTINUE_TOO_OLD = (
    "The provided continue parameter is too old to display a consistent list result. You can start "
    "a new list without the continue parameter, or use the continue token in this response to "
    "retrieve the remainder of the results. Continuing with the provided token results in an "
    "inconsistent list - objects that were created, modified, or deleted between the time the "
    "first chunk was returned and now may show up in the list."
)


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


@dataclass(frozen=True, slots=True)
class _Page:
    """Where a list goes on: from what version, after what object."""

    version: int
    after: str

    def token(self) -> str:
        return base64.urlsafe_b64encode(json.dumps([self.version, self.after]).encode()).decode()

    @classmethod
    def read(cls, token: str) -> _Page:
        try:
            version, after = json.loads(base64.urlsafe_b64decode(token))
            return cls(version, after)
        except ValueError as error:
            raise errors.bad_request(
                "invalid continue token: continue key is not valid: invalid character '\\u0081' "
                "looking for beginning of value"
            ) from error


def listed(store: Store, resource: Resource, namespace: str, query: Mapping[str, str]) -> Object:
    """GET of a collection.

    Raises:
        ApiError: 400, 410, 422 or 504.
    """
    matches = selected(query)
    with store.changed:
        version, page = _list_version(store, query)
        found = [
            each
            for each in store.all(
                resource, namespace, None if version == store.version else version
            )
            if matches(each) and (page is None or _place(each) > page.after)
        ]
    limit = int(query.get("limit") or 0)
    metadata: Object = {"resourceVersion": str(version)}
    if resource.custom:
        metadata["continue"] = ""
    if 0 < limit < len(found):
        metadata["continue"] = _Page(version, _place(found[limit - 1])).token()
        if not query.get("labelSelector") and not query.get("fieldSelector"):
            metadata["remainingItemCount"] = len(found) - limit
        found = found[:limit]
    return {
        "kind": f"{resource.kind}List",
        "apiVersion": resource.api_version,
        "metadata": metadata,
        "items": [each if resource.custom else _without_kind(each) for each in found],
    }


def _place(each: Object) -> str:
    return f"{each['metadata'].get('namespace', '')}/{each['metadata']['name']}"


def _without_kind(each: Object) -> Object:
    return {name: value for name, value in each.items() if name not in ("kind", "apiVersion")}


def partial_list(full: Object) -> Object:
    """A list with the metadata of its objects only; no objects are null, as the server has it."""
    items = [
        {
            "kind": "PartialObjectMetadata",
            "apiVersion": "meta.k8s.io/v1",
            "metadata": each["metadata"],
        }
        for each in full["items"]
    ]
    metadata = {name: value for name, value in full["metadata"].items() if value}
    return {
        "kind": "PartialObjectMetadataList",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": metadata,
        "items": items or None,
    }


def _list_version(store: Store, query: Mapping[str, str]) -> tuple[int, _Page | None]:
    """The version to list at, and the page to go on with."""
    given, match = query.get("resourceVersion", ""), query.get("resourceVersionMatch", "")
    if match not in ("", "Exact", "NotOlderThan"):
        text = f'"{match}": supported values: "Exact", "NotOlderThan", ""'
        raise errors.invalid_options(
            "ListOptions", Cause("resourceVersionMatch", "Unsupported value", text)
        )
    if token := query.get("continue"):
        if given:
            raise errors.bad_request(
                "specifying resource version is not allowed when using continue"
            )
        page = _Page.read(token)
        if page.version < 0:
            return store.version, page
        if page.version < store.oldest:
            raise ApiError(
                410,
                "Expired",
                CONTINUE_TOO_OLD,
                metadata={"continue": _Page(-1, page.after).token()},
            )
        return page.version, page
    wanted = read_version(given, 400)
    require_reached(store, wanted)
    if match == "Exact":
        if wanted < store.oldest:
            raise ApiError(410, "Expired", "The resourceVersion for the provided list is too old.")
        return wanted, None
    return store.version, None


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
