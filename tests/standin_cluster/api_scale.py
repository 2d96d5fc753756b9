"""The ``scale`` of a Deployment: its number of replicas, as a subresource of its own."""

from __future__ import annotations

from copy import deepcopy

from . import api_errors as errors
from . import api_fields as fields
from .api_errors import Cause
from .api_store import Object
from .api_write_rules import Request

SCALED = ("f:spec", "f:replicas")


def scale_of(owner: Object) -> Object:
    """The ``scale`` of a Deployment; 0 replicas are left out, as the server does."""
    metadata = {
        name: owner["metadata"][name]
        for name in ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")
        if name in owner["metadata"]
    }
    replicas = owner["spec"]["replicas"]
    labels = owner["spec"]["selector"].get("matchLabels", {})
    return {
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": metadata,
        "spec": {"replicas": replicas} if replicas else {},
        "status": {
            "replicas": owner.get("status", {}).get("replicas", 0),
            "selector": ",".join(f"{name}={value}" for name, value in sorted(labels.items())),
        },
    }


def rescaled(request: Request, old: Object, wanted: Object) -> tuple[Object, fields.Difference]:
    """An object with the replicas of a scale, and what that changes.

    Raises:
        ApiError: 409 or 422.
    """
    version = wanted.get("metadata", {}).get("resourceVersion")
    if version not in (None, old["metadata"]["resourceVersion"]):
        raise errors.stale(request.resource, request.name)
    replicas = wanted.get("spec", {}).get("replicas", 0)
    if replicas < 0:
        text = f"{replicas}: must be greater than or equal to 0"
        wrong = Cause("spec.replicas", "Invalid value", text)
        about = {"name": request.name, "group": "autoscaling", "kind": "Scale"}
        raise errors.invalid("Scale.autoscaling", request.name, [wrong], about)
    new = deepcopy(old)
    new["spec"]["replicas"] = replicas
    path: fields.Fields = frozenset({SCALED} if replicas != old["spec"]["replicas"] else ())
    none: fields.Fields = frozenset()
    # a scale of 0 has no such field, so that nobody owns it
    return new, fields.Difference(path, none) if replicas else fields.Difference(none, path)
