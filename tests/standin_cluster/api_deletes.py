"""What a delete does to an object of the stand-in API server, and how it is answered."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from . import api_errors as errors
from .api_store import Object
from .api_types import Resource
from .api_write_rules import Request, stamp

ANSWERED_WITH_OBJECT = ("Service", "Pod", "Namespace")
"""Kinds whose deletion is answered with the object instead of a ``Status``."""


def deleted(request: Request, old: Object, options: Mapping[str, Any]) -> Object | None:
    """An object that was deleted, as long as it is there; None: it is gone at once.

    What belongs to it is always deleted in the background; finalizers hold nothing up.
    """
    resource, metadata = request.resource, old["metadata"]
    grace = _grace_s(old, options)
    is_bound = resource.kind == "Pod" and bool(old["spec"].get("nodeName"))
    if not (resource.kind == "Namespace" or (is_bound and grace > 0)):
        return None
    new = {**old, "metadata": {**metadata, **_marks(resource, grace)}}
    if "deletionTimestamp" not in metadata and resource.generation:
        new["metadata"]["generation"] = metadata["generation"] + 1
    if resource.kind == "Namespace":
        new["status"] = {"phase": "Terminating"}
    return new


def _grace_s(old: Object, options: Mapping[str, Any]) -> int:
    grace = int(options.get("gracePeriodSeconds", -1))
    return (
        grace if grace >= 0 else int(old.get("spec", {}).get("terminationGracePeriodSeconds", 30))
    )


def _marks(resource: Resource, grace: int) -> Object:
    now = datetime.now(UTC)
    if resource.kind != "Pod":
        return {"deletionTimestamp": stamp(now)}
    ends = stamp(now + timedelta(seconds=grace))
    return {"deletionTimestamp": ends, "deletionGracePeriodSeconds": grace}


def deletion_answer(
    resource: Resource, old: Object, options: Mapping[str, Any], version: int = 0
) -> Object:
    """How the deletion of an object that is gone is answered; version 0: of a dry run."""
    metadata = old["metadata"]
    if version and resource.kind in ANSWERED_WITH_OBJECT:
        marks = _marks(resource, _grace_s(old, options)) if resource.kind == "Pod" else {}
        return {**old, "metadata": {**metadata, **marks, "resourceVersion": str(version)}}
    about = {**errors.details(resource, metadata["name"]), "uid": metadata["uid"]}
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Success",
        "details": about,
    }


def require_preconditions(request: Request, old: Object, wanted: Mapping[str, Any]) -> None:
    """See that the object is still the one that is to be deleted.

    Raises:
        ApiError: 409.
    """
    resource = request.resource
    for name, words, ending in (
        ("uid", "UID", "The object might have been deleted and then recreated"),
        ("resourceVersion", "ResourceVersion", "The object might have been modified"),
    ):
        there = old["metadata"][name]
        if wanted.get(name) not in (None, there):
            why = (
                f"the {words} in the precondition ({wanted[name]}) does not match the {words} "
                f"in record ({there}). {ending}"
            )
            about = errors.details(resource, request.name, kind=resource.kind)
            raise errors.conflict(resource.long_kind, request.name, why, about)
