"""What the server refuses about an object that it understood."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from .api_decoding import quantity
from .api_defaults import qos_class
from .api_errors import Cause
from .api_types import Resource

NAME = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*"
LABEL = r"(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?"
NOT_NEGATIVE = "must be greater than or equal to 0"
POD_FIELDS = (
    "pod updates may not change fields other than `spec.containers[*].image`,"
    "`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions"
    " to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it"
    " was previously negative)"
)
"""The server adds the lines that differ; this one does not."""

Object = Mapping[str, Any]


def causes(resource: Resource, new: Object, old: Object | None) -> list[Cause]:
    """What is wrong with ``new``; ``old`` is what it replaces."""
    found = list(_metadata(new["metadata"]))
    match resource.kind:
        case "Deployment":
            found += _deployment(new, old)
        case "Service":
            found += _service(new, old)
        case "Pod" if old is None:
            found += _containers(new["spec"], "spec")
        case "Pod" if old is not None and _fixed(new) != _fixed(old):
            found.append(Cause("spec", "Forbidden", POD_FIELDS))
    return found


def _metadata(metadata: Object) -> Iterator[Cause]:
    name = metadata.get("name", "")
    if not name:
        yield Cause("metadata.name", "Required value", "name or generateName is required")
    elif not re.fullmatch(NAME, name):
        yield Cause(
            "metadata.name",
            "Invalid value",
            f'"{name}": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric '
            "characters, '-' or '.', and must start and end with an alphanumeric character "
            f"(e.g. 'example.com', regex used for validation is '{NAME}')",
        )
    for value in metadata.get("labels", {}).values():
        if not re.fullmatch(LABEL, value):
            yield Cause(
                "metadata.labels",
                "Invalid value",
                f'"{value}": a valid label must be an empty string or consist of alphanumeric '
                "characters, '-', '_' or '.', and must start and end with an alphanumeric "
                "character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for "
                f"validation is '{LABEL}')",
            )


def _shown(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))


def _deployment(new: Object, old: Object | None) -> Iterator[Cause]:
    spec, status = new.get("spec", {}), new.get("status", {})
    if spec["replicas"] < 0:
        yield Cause("spec.replicas", "Invalid value", f"{spec['replicas']}: {NOT_NEGATIVE}")
    selector = spec.get("selector", {})
    labels = spec.get("template", {}).get("metadata", {}).get("labels", {})
    wanted = selector.get("matchLabels", {})
    if not selector:
        yield Cause("spec.selector", "Required value")
    elif any(labels.get(name) != value for name, value in wanted.items()):
        text = f"{_shown(labels)}: `selector` does not match template `labels`"
        yield Cause("spec.template.metadata.labels", "Invalid value", text)
    yield from _containers(spec.get("template", {}).get("spec", {}), "spec.template.spec")
    rolling = spec["strategy"].get("rollingUpdate")
    if rolling and all(str(each).rstrip("%") == "0" for each in rolling.values()):
        text = "0: may not be 0 when `maxSurge` is 0"
        yield Cause("spec.strategy.rollingUpdate.maxUnavailable", "Invalid value", text)
    if old is not None and old["spec"]["selector"] != selector:
        yield Cause("spec.selector", "Invalid value", f"{_shown(selector)}: field is immutable")
    ready, there = status.get("readyReplicas", 0), status.get("replicas", 0)
    available = status.get("availableReplicas", 0)
    if ready > there:
        text = f"{ready}: cannot be greater than status.replicas"
        yield Cause("status.readyReplicas", "Invalid value", text)
    elif available > ready:
        text = f"{available}: cannot be greater than readyReplicas"
        yield Cause("status.availableReplicas", "Invalid value", text)


def _containers(spec: Object, path: str) -> Iterator[Cause]:
    if not spec.get("containers"):
        yield Cause(f"{path}.containers", "Required value")
    for n, container in enumerate(spec.get("containers", ())):
        place = f"{path}.containers[{n}]"
        for name in ("name", "image"):
            if not container.get(name):
                yield Cause(f"{place}.{name}", "Required value")
        limits = container["resources"].get("limits", {})
        for what, amount in container["resources"].get("requests", {}).items():
            if what in limits and quantity(amount) > quantity(limits[what]):
                text = f'"{amount}": must be less than or equal to {what} limit of {limits[what]}'
                yield Cause(f"{place}.resources.requests", "Invalid value", text)


def _service(new: Object, old: Object | None) -> Iterator[Cause]:
    spec = new["spec"]
    ports = spec.get("ports", ())
    for n, port in enumerate(ports if len(ports) > 1 else ()):
        if not port.get("name"):
            yield Cause(f"spec.ports[{n}].name", "Required value")
    types = ("ClusterIP", "ExternalName", "LoadBalancer", "NodePort")
    if spec["type"] not in types:
        text = f'"{spec["type"]}": supported values: {", ".join(_shown(each) for each in types)}'
        yield Cause("spec.type", "Unsupported value", text)
    if old is not None and old["spec"]["clusterIP"] != spec["clusterIP"]:
        text = f"{_shown([spec['clusterIP']])}: may not change once set"
        yield Cause("spec.clusterIPs[0]", "Invalid value", text)


def _fixed(pod: Object) -> Object:
    """What of a pod's spec may not change."""
    spec = {
        name: value
        for name, value in pod["spec"].items()
        if name not in ("tolerations", "activeDeadlineSeconds", "nodeName")
    }
    spec["containers"] = [
        {name: value for name, value in each.items() if name != "image"}
        for each in spec["containers"]
    ]
    return spec


def resize_causes(new: Object, old: Object) -> list[Cause]:
    """What is wrong with a resize of a pod."""
    found: list[Cause] = []
    for n, each in enumerate(new["spec"]["containers"]):
        if not each.get("image"):
            found.append(Cause(f"spec.containers[{n}].image", "Required value"))
    before = qos_class(old["spec"])
    if qos_class(new["spec"]) != before:
        text = f'"{before}": Pod QOS Class may not change as a result of resizing'
        found.append(Cause("spec", "Invalid value", text))
    names = [[each["name"] for each in pod["spec"]["containers"]] for pod in (new, old)]
    if names[0] != names[1]:
        text = "containers may not be added or removed on resize"
        return [*found, Cause("spec.containers", "Forbidden", text)]
    for n, (each, its_old) in enumerate(
        zip(new["spec"]["containers"], old["spec"]["containers"], strict=True)
    ):
        for what in ("requests", "limits"):
            if its_old["resources"].get(what) and not each["resources"].get(what):
                text = f"resource {what} cannot be removed"
                path = f"spec.containers[{n}].resources.{what}"
                found.append(Cause(path, "Forbidden", text))
    return found


def beyond_node(new: Object, allocatable: Mapping[str, str]) -> str | None:
    """Why a resized pod does not fit its node, in the server's words; None: it does."""
    for what, unit in (("cpu", 1000), ("memory", 1)):
        asked = sum(
            quantity(each["resources"].get("requests", {}).get(what, 0))
            for each in new["spec"]["containers"]
        )
        there = quantity(allocatable.get(what, "0"))
        if asked > there:
            return (
                f"node didn't have enough allocatable resources: {what}, "
                f"requested: {int(asked * unit)}, allocatable: {int(there * unit)}"
            )
    return None
