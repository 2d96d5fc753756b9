"""What a write to the stand-in API server has to be, and what it makes of an object: no store."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from . import api_errors as errors
from . import api_fields as fields
from .api_decoding import Decoder, DecodingError, pruned_nulls
from .api_fields import KeyMissingError, Owner
from .api_store import Object
from .api_types import Resource


@dataclass(slots=True)
class Request:
    """One write, as the server understood it.

    Attributes:
        manager: who writes.
        is_dry: nothing is to be kept.
        warnings: added to while it is worked on.
    """

    resource: Resource
    namespace: str
    name: str = ""
    subresource: str = ""
    manager: str = "unknown"
    is_dry: bool = False
    force: bool = False
    warnings: list[str] = field(default_factory=list)


def decoded(request: Request, body: Object) -> Object:
    """``body`` as its type has it, without unknown fields, of which there is a warning.

    Raises:
        ApiError: 400 or 422.
    """
    resource = request.resource
    kind = resource.kind
    prefix = f'{kind} in version "{resource.version}" cannot be handled as a {kind}: '
    decoder = Decoder()
    try:
        made: Object = decoder.decoded(body, resource.type)
    except DecodingError as error:
        raise errors.bad_request(f"{prefix}{error}") from error
    request.warnings += [f'unknown field "{each}"' for each in decoder.unknown]
    if decoder.causes:
        name = body.get("metadata", {}).get("name", "")
        raise errors.invalid_object(
            resource, name, sorted(decoder.causes, key=lambda cause: cause.field)
        )
    return made


def allowed(request: Request, old: Object, new: Object) -> Object:
    """``new`` with what this kind of write cannot change as it was."""
    kept = {
        name: old["metadata"][name] for name in fields.SERVERS_METADATA if name in old["metadata"]
    }
    metadata = {**new["metadata"], **kept}
    metadata.pop("managedFields", None)
    new = {**new, "metadata": metadata}
    match request.subresource:
        case "status":
            status = new.get("status")
            new = {**deepcopy(old), "metadata": metadata}
            metadata["labels"] = old["metadata"].get("labels", {})
            if not metadata["labels"]:
                del metadata["labels"]
            if status is not None:
                new["status"] = status
        case "resize":
            metadata = {**old["metadata"]}
            metadata.pop("managedFields", None)
            new = {**deepcopy(old), "metadata": metadata, "spec": _resized(old, new)}
        case _:
            if request.resource.kind == "Service":
                for name in ("clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"):
                    new["spec"].setdefault(name, old["spec"].get(name))
            if request.resource.kind == "Pod" and "nodeName" in old["spec"]:
                new["spec"] = {**new["spec"], "nodeName": old["spec"]["nodeName"]}
            if "status" in request.resource.subresources:
                new.pop("status", None)
                if "status" in old:
                    new["status"] = old["status"]
    return new


def _resized(old: Object, new: Object) -> Object:
    """The spec of ``old`` with the resources of ``new``."""
    spec: Object = deepcopy(old["spec"])
    names = [each["name"] for each in spec["containers"]]
    if [each.get("name") for each in new["spec"]["containers"]] != names:
        return {**spec, "containers": new["spec"]["containers"]}
    for container, its_new in zip(spec["containers"], new["spec"]["containers"], strict=True):
        container["resources"] = its_new.get("resources", {})
    return spec


def require_kind(request: Request, body: Object) -> None:
    """See that a body is of the kind that its path leads to.

    Raises:
        ApiError: 400.
    """
    resource = request.resource
    kind, api_version = body.get("kind", resource.kind), body.get("apiVersion")
    if (kind, api_version or resource.api_version) != (resource.kind, resource.api_version):
        group, _, version = str(api_version).rpartition("/")
        raise errors.bad_request(
            f'{kind} in version "{version}" cannot be handled as a {resource.kind}: converting '
            f"({group or version}.{kind}) to ({resource.group or resource.version}.{resource.kind})"
            ": unknown conversion"
        )


def require_name(request: Request, body: Object) -> None:
    """See that a body has the name of its path.

    Raises:
        ApiError: 400.
    """
    name = body.get("metadata", {}).get("name", request.name)
    if name != request.name:
        raise errors.bad_request(
            f"the name of the object ({name}) does not match the name on the URL ({request.name})"
        )


def typed(request: Request, body: Object, place: str) -> Object:
    """What an apply names, checked against the type.

    Raises:
        ApiError: 500, as the server answers a field that it does not know.
    """
    decoder, resource = Decoder(), request.resource
    prefix = f"failed to create typed patch object ({place}): "
    try:
        decoder.decoded(body, resource.type)
        fields.named_fields(body, resource.type)
    except DecodingError:
        pass  # said later, when the object is made
    except KeyMissingError as error:
        raise errors.internal(f"{prefix}{error}") from error
    if decoder.unknown:
        raise errors.internal(f"{prefix}.{decoder.unknown[0]}: field not declared in schema")
    duplicate = _duplicate(body, resource.type, ())
    if duplicate:
        raise errors.internal(f"{prefix}{duplicate}")
    named = {name: value for name, value in body.items() if name != "status"}
    if request.subresource == "status":
        named = {name: value for name, value in body.items() if name != "spec"}
    metadata = {
        name: value
        for name, value in body.get("metadata", {}).items()
        if name not in ("resourceVersion", "uid", "creationTimestamp", "managedFields")
    }
    return pruned_nulls({**named, "metadata": metadata})  # type: ignore[no-any-return]


def _duplicate(value: Any, of: Any, path: fields.Path) -> str:
    """Two items of one key, in the server's words; "" if there are none."""
    inside = fields.children(value, of)
    if inside is None:
        return ""
    if of.kind == "list":
        steps = [fields.item_step(item, of) for item in value or ()]
        for step in steps:
            if steps.count(step) > 1:
                return (
                    f"{fields.as_text(path)}: duplicate entries for key {fields.as_text((step,))}"
                )
    for step, (item, its_type) in inside.items():
        if isinstance(item, (dict, list)) and (found := _duplicate(item, its_type, (*path, step))):
            return found
    return ""


def conflict(found: Sequence[tuple[Owner, fields.Path]]) -> errors.ApiError:
    """409 of an apply that would take what others own."""
    by_owner: dict[Owner, list[str]] = {}
    for owner, path in found:
        by_owner.setdefault(owner, []).append(fields.as_text(path))
    if len(found) == 1:
        text = f"Apply failed with 1 conflict: {found[0][0]}: {fields.as_text(found[0][1])}"
    else:
        parts = []
        for owner, paths in by_owner.items():
            words = str(owner).replace("conflict ", "conflicts ", 1)
            parts.append(f"{words}:\n" + "\n".join(f"- {path}" for path in paths))
        text = f"Apply failed with {len(found)} conflicts: " + "\n".join(parts)
    listed = [
        {"reason": "FieldManagerConflict", "message": str(owner), "field": fields.as_text(path)}
        for owner, path in found
    ]
    return errors.ApiError(409, "Conflict", text, {"causes": listed})


def untimed(entries: Any) -> list[Any]:
    """Entries of managed fields, whenever they were written."""
    return [{**each, "time": ""} for each in entries]


def spec(request: Request, obj: Object) -> Any:
    """What a change of makes another generation."""
    if "spec" not in obj or request.resource.custom:
        return {name: value for name, value in obj.items() if name not in ("metadata", "status")}
    if request.resource.kind == "Deployment" and not request.subresource:
        return obj["spec"], obj["metadata"].get("annotations")
    return obj["spec"]


def stamp(when: datetime) -> str:
    """A time as objects have it, to the second."""
    return when.strftime("%Y-%m-%dT%H:%M:%SZ")
