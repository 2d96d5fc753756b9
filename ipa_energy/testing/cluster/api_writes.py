"""Writes to the stand-in API server: create, replace, patch, apply, delete, and subresources."""

from __future__ import annotations

import itertools
import secrets
import uuid
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from ipa_energy.testing.cluster import api_errors as errors
from ipa_energy.testing.cluster import api_fields as fields
from ipa_energy.testing.cluster.api_decoding import Decoder, DecodingError, pruned_nulls
from ipa_energy.testing.cluster.api_defaults import EMPTY, admitted, prepared
from ipa_energy.testing.cluster.api_errors import Cause
from ipa_energy.testing.cluster.api_fields import KeyMissingError, Owner
from ipa_energy.testing.cluster.api_patches import (
    MergeKeyError,
    PatchError,
    json_patched,
    merged,
    strategically_merged,
)
from ipa_energy.testing.cluster.api_store import Object, Store, key_of
from ipa_energy.testing.cluster.api_types import Resource, built_in, defined
from ipa_energy.testing.cluster.api_validation import beyond_node, causes, resize_causes

APPLY = "application/apply-patch+yaml"
JSON_PATCH = "application/json-patch+json"
MERGE_PATCH = "application/merge-patch+json"
STRATEGIC_PATCH = "application/strategic-merge-patch+json"

SCALED = ("f:spec", "f:replicas")
ANSWERED_WITH_OBJECT = ("Service", "Pod", "Namespace")
"""Kinds whose deletion is answered with the object instead of a ``Status``."""

MADE_BY_PUT = ("Service", "Role", "RoleBinding", "Lease")
"""Kinds that a PUT makes if they are not there."""

FOREGROUND = "foregroundDeletion"


@dataclass(slots=True)
class Request:
    """One write, as the server understood it.

    Attributes:
        manager: who writes.
        is_dry: nothing is to be kept.
        validation: what becomes of unknown fields: Warn, Strict or Ignore.
        warnings: added to while it is worked on.
    """

    resource: Resource
    namespace: str
    name: str = ""
    subresource: str = ""
    manager: str = "unknown"
    is_dry: bool = False
    force: bool = False
    validation: str = "Warn"
    warnings: list[str] = field(default_factory=list)


class Writes:
    """The writes that the server knows.

    Args:
        store: where the objects are.
        resources: what kinds there are; a definition adds to it.
    """

    def __init__(self, store: Store, resources: dict[tuple[str, str, str], Resource]) -> None:
        self._store = store
        self._resources = resources
        self._suffixes = itertools.count(secrets.randbelow(2**18))  # names in the order of making
        self._addresses = (f"10.96.{n // 250}.{n % 250 + 1}" for n in itertools.count())

    def create(self, request: Request, body: Object) -> Object:
        """POST of an object."""
        _require_kind(request, body)
        given = body.get("metadata", {}).get("namespace")
        if given and request.resource.namespaced and given != request.namespace:
            raise errors.bad_request(
                "the namespace of the provided object does not match the namespace sent on the "
                "request"
            )
        made = self._decoded(request, body)
        metadata = made.setdefault("metadata", {})
        if not metadata.get("name") and metadata.get("generateName"):
            metadata["name"] = f"{metadata['generateName']}{next(self._suffixes):05x}"
        owner = Owner("Update", request.manager, request.resource.api_version)
        with self._store.changed:
            name = metadata.get("name", "")
            if self._store.get(request.resource, request.namespace, name) is not None:
                raise errors.already_exists(request.resource, name)
            return self._created(request, made, owner, None)

    def replace(self, request: Request, body: Object) -> Object:
        """PUT of an object or of one of its subresources."""
        with self._store.changed:
            if request.resource.kind in MADE_BY_PUT and not self._is_there(request):
                _require_name(request, body)
                return self.create(request, body)
            old = self._there(request)
            if request.subresource == "scale":
                return self._scaled(request, old, lambda _: body)
            _require_kind(request, body)
            _require_name(request, body)
            owner = Owner(
                "Update", request.manager, request.resource.api_version, request.subresource
            )
            new = self._decoded(request, body)
            version = new["metadata"].get("resourceVersion")
            if version is None and request.resource.custom:
                about = errors.details(request.resource, request.name)
                wrong = Cause(
                    "metadata.resourceVersion",
                    "Invalid value",
                    "0: must be specified for an update",
                )
                raise errors.invalid(request.resource.long_name, request.name, [wrong], about)
            uid = new["metadata"].get("uid", old["metadata"]["uid"])
            if uid != old["metadata"]["uid"]:
                raise errors.conflict(
                    request.resource.long_name,
                    request.name,
                    "StorageError: invalid object, Code: 4, Key: /registry/"
                    f"{request.resource.plural}/{request.namespace}/{request.name}, "
                    "ResourceVersion: 0, AdditionalErrorMsg: Precondition failed: UID in "
                    f"precondition: {uid}, UID in object meta: {old['metadata']['uid']}",
                    errors.details(request.resource, request.name),
                )
            return self._updated(request, old, new, owner)

    def patch(self, request: Request, patch: Any, content_type: str) -> tuple[Object, bool]:
        """PATCH of any kind; the object, and whether it was created."""
        with self._store.changed:
            if content_type == APPLY:
                return self._applied(request, patch)
            old = self._there(request)
            if request.subresource == "scale":
                scale = built_in("V1Scale")
                return self._scaled(
                    request, old, lambda live: _patched(live, patch, content_type, scale)
                ), False
            new = _patched(old, patch, content_type, request.resource.type)
            if new.get("kind") != old["kind"]:
                _require_kind(request, new)
            _require_name(request, new)
            new = self._decoded(request, new, is_patch=True)
            owner = Owner(
                "Update", request.manager, request.resource.api_version, request.subresource
            )
            return self._updated(request, old, new, owner), False

    def delete(self, request: Request, options: Mapping[str, Any]) -> Object:
        """DELETE of one object."""
        with self._store.changed:
            old = self._there(request)
            self._require_preconditions(request, old, options.get("preconditions") or {})
            resource, metadata = request.resource, old["metadata"]
            now = datetime.now(UTC)
            policy = options.get("propagationPolicy") or "Background"
            if "deletionTimestamp" in metadata and resource.kind != "Pod":
                return old
            finalizers = list(metadata.get("finalizers", ()))
            if policy == "Foreground":
                finalizers.append(FOREGROUND)
            grace = int(options.get("gracePeriodSeconds", -1))
            if grace < 0:
                grace = old.get("spec", {}).get("terminationGracePeriodSeconds", 30)
            is_bound = resource.kind == "Pod" and bool(old["spec"].get("nodeName"))
            lingers = finalizers or resource.kind == "Namespace" or (is_bound and grace > 0)
            marks: Object = {"deletionTimestamp": stamp(now)}
            if resource.kind == "Pod":
                marks = {
                    "deletionTimestamp": stamp(now + timedelta(seconds=grace)),
                    "deletionGracePeriodSeconds": grace,
                }
            elif finalizers:
                marks |= {"deletionGracePeriodSeconds": 0, "finalizers": finalizers}
            new = {**old, "metadata": {**metadata, **marks}}
            if lingers and "deletionTimestamp" not in metadata and resource.generation:
                new["metadata"]["generation"] = metadata["generation"] + 1
            if resource.kind == "Namespace":
                new["status"] = {"phase": "Terminating"}
            if request.is_dry:
                return new if lingers else _success(resource, old)
            key = key_of(resource, request.namespace, request.name)
            kept = self._store.put(key, new if lingers else None)
            if kept is not None:
                return kept
            self._forget_definition(request, old)
            if resource.kind not in ANSWERED_WITH_OBJECT:
                return _success(resource, old)
            marks = marks if resource.kind == "Pod" else {}
            metadata = {**metadata, **marks, "resourceVersion": str(self._store.version)}
            return {**old, "metadata": metadata}

    def bind(self, request: Request, body: Object) -> Object:
        """POST of a pod's binding."""
        with self._store.changed:
            old = self._there(request)
            if node := old["spec"].get("nodeName"):
                why = f'pod {request.name} is already assigned to node "{node}"'
                about = {"name": request.name, "kind": "pods/binding"}
                raise errors.conflict("pods/binding", request.name, why, about)
            new = deepcopy(old)
            new["spec"]["nodeName"] = body["target"]["name"]
            condition = {"type": "PodScheduled", "status": "True", "lastProbeTime": None}
            others = [
                each
                for each in new["status"].get("conditions", ())
                if each["type"] != "PodScheduled"
            ]
            condition["lastTransitionTime"] = stamp(datetime.now(UTC))
            new["status"]["conditions"] = [*others, condition]
            self._store.put(key_of(request.resource, request.namespace, request.name), new)
        return {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Success",
            "code": 201,
        }

    def _is_there(self, request: Request) -> bool:
        there = self._store.get(request.resource, request.namespace, request.name)
        return there is not None or bool(request.subresource)

    def _there(self, request: Request) -> Object:
        old = self._store.get(request.resource, request.namespace, request.name)
        if old is None:
            raise errors.not_found(request.resource, request.name)
        return old

    def _decoded(self, request: Request, body: Object, *, is_patch: bool = False) -> Object:
        """``body`` as its type has it, unknown fields dealt with.

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
        unknown = [f'unknown field "{each}"' for each in decoder.unknown]
        if unknown and request.validation == "Strict":
            text = f"strict decoding error: {', '.join(unknown)}"
            if is_patch:
                wrong = Cause("patch", "Invalid value", text)
                raise errors.invalid("", "", [wrong], {})
            raise errors.bad_request(f"{prefix}{text}")
        if request.validation == "Warn":
            request.warnings += unknown
        if decoder.causes:
            name = body.get("metadata", {}).get("name", "")
            raise errors.invalid_object(
                resource, name, sorted(decoder.causes, key=lambda cause: cause.field)
            )
        return made

    def _created(
        self, request: Request, made: Object, owner: Owner, owned: fields.Fields | None
    ) -> Object:
        """A new object, kept unless this is a dry run."""
        resource = request.resource
        made = {"kind": resource.kind, "apiVersion": resource.api_version, **made}
        metadata = made["metadata"]
        metadata.pop("resourceVersion", None)
        if resource.namespaced:
            self._require_namespace(request, metadata.get("name", ""))
            metadata["namespace"] = request.namespace
        empty = EMPTY.get(resource.kind, {"metadata": {}})
        if "status" in resource.subresources and resource.kind != "Node":
            made.pop("status", None)
            if "status" in empty:
                made["status"] = deepcopy(empty["status"])
        prepared(resource, made)
        if owned is None:
            change = fields.difference(empty, made, resource.type)
            owned = frozenset(path for path in change.changed if path[0] != "f:status")
        wrong = causes(resource, made, None)
        if wrong:
            raise errors.invalid_object(resource, metadata.get("name", ""), wrong)
        now = stamp(datetime.now(UTC))
        metadata |= {"uid": str(uuid.uuid4()), "creationTimestamp": now}
        if resource.generation:
            metadata["generation"] = 1
        metadata["managedFields"] = fields.managed_fields({owner: owned}, (), now)
        admitted(resource, made, next(self._addresses))
        if request.is_dry:
            return made
        kept = self._put(request, metadata["name"], made)
        if resource.kind == "CustomResourceDefinition":
            self._define(request, kept)
        return kept

    def _put(self, request: Request, name: str, new: Object) -> Object:
        kept = self._store.put(key_of(request.resource, request.namespace, name), new)
        assert kept is not None  # noqa: S101  (put hands back what it was given)
        return kept

    def _updated(
        self,
        request: Request,
        old: Object,
        new: Object,
        owner: Owner,
        applied: Mapping[Owner, fields.Fields] | None = None,
        *,
        change: fields.Difference | None = None,
    ) -> Object:
        """``new`` in the place of ``old``, as far as this kind of write may change it.

        Args:
            request: of which the subresource says what may change.
            old: the object as it is.
            new: the object as it was sent.
            owner: who writes.
            applied: the owners after an apply; None: this is none.
            change: what its owner changed, where that is not all that is different.
        """
        resource = request.resource
        version = new["metadata"].get("resourceVersion")
        if version not in (None, old["metadata"]["resourceVersion"]):
            raise errors.stale(resource, request.name)
        new = self._allowed(request, old, new)
        self._require_valid(request, old, new)
        if change is None:
            change = fields.difference(old, new, resource.type)
        before = fields.owners_of(old["metadata"].get("managedFields", ()))
        if applied is None:
            after = fields.updated(before, owner, change)
        else:
            found = fields.conflicts(before, owner, change)
            if found and not request.force:
                raise _conflict(found)
            after = {
                each: paths if each == owner else paths - change.removed - change.changed
                for each, paths in applied.items()
            }
        now = stamp(datetime.now(UTC))
        entries = fields.managed_fields(after, old["metadata"].get("managedFields", ()), now)
        if (
            change.changed
            or change.removed
            or _untimed(entries) != _untimed(old["metadata"].get("managedFields", ()))
        ):
            new["metadata"]["managedFields"] = entries
        else:
            new["metadata"]["managedFields"] = old["metadata"].get("managedFields", [])
        if resource.generation and _spec(request, old) != _spec(request, new):
            new["metadata"]["generation"] = old["metadata"]["generation"] + 1
        if new == old or request.is_dry:
            return new
        if (
            "deletionTimestamp" in new["metadata"]
            and not new["metadata"].get("finalizers")
            and old["metadata"].get("finalizers")
        ):
            self._store.put(key_of(resource, request.namespace, request.name), None)
            return new
        return self._put(request, request.name, new)

    def _allowed(self, request: Request, old: Object, new: Object) -> Object:
        """``new`` with what this kind of write cannot change as it was."""
        kept = {
            name: old["metadata"][name]
            for name in (
                "name",
                "namespace",
                "uid",
                "resourceVersion",
                "generation",
                "creationTimestamp",
                "deletionTimestamp",
                "deletionGracePeriodSeconds",
            )
            if name in old["metadata"]
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

    def _require_valid(self, request: Request, old: Object, new: Object) -> None:
        resource, name = request.resource, request.name
        if request.subresource == "resize":
            if wrong := resize_causes(new, old):
                raise errors.invalid_object(resource, name, wrong)
            node = old["spec"].get("nodeName")
            place = node and self._store.get(self._resources["", "v1", "nodes"], "", node)
            why = place and beyond_node(new, place["status"].get("allocatable", {}))
            if why:
                about = {**errors.details(resource, name), "causes": [{"reason": "NodeCapacity"}]}
                raise errors.ApiError(
                    403, "Forbidden", f'{resource.long_name} "{name}" is forbidden: {why}', about
                )
        elif wrong := causes(resource, new, old):
            raise errors.invalid_object(resource, name, wrong)

    def _applied(self, request: Request, body: Any) -> tuple[Object, bool]:
        """Server-side apply."""
        resource, name = request.resource, request.name
        owner = Owner("Apply", request.manager, resource.api_version, request.subresource)
        if request.subresource == "scale":
            there = self._there(request)
            return self._scaled(request, there, lambda live: merged(live, body), owner), False
        if not body.get("apiVersion") or not body.get("kind"):
            raise errors.bad_request(f"invalid object type: /, Kind={body.get('kind', '')}")
        metadata = body.get("metadata", {})
        if metadata.get("managedFields") is not None:
            raise errors.bad_request("metadata.managedFields must be nil")
        _require_name(request, body)
        full_kind = f"{resource.api_version}, Kind={resource.kind}"
        place = f"{request.namespace}/{name}; {full_kind}"
        named = _typed(request, body, place)
        old = self._store.get(resource, request.namespace, name)
        live: Object = old or {}
        before = fields.owners_of(live.get("metadata", {}).get("managedFields", ()))
        new, after = fields.applied(live, named, resource.type, before, owner)
        change = fields.difference(live, new, resource.type)  # defaults are nobody's
        try:
            made: Object = Decoder().decoded(new, resource.type)
        except DecodingError as error:
            raise errors.internal(
                f"failed to convert new object ({place}) to proper version: "
                f"unable to convert unstructured object to {full_kind}: {error}"
            ) from error
        if old is not None:
            if "uid" in metadata and metadata["uid"] != old["metadata"]["uid"]:
                text = f'"{metadata["uid"]}": field is immutable'
                wrong = Cause("metadata.uid", "Invalid value", text)
                raise errors.invalid_object(resource, name, [wrong])
            made["metadata"]["resourceVersion"] = metadata.get("resourceVersion")
            return self._updated(request, old, made, owner, after, change=change), False
        if "uid" in metadata:
            raise errors.conflict(
                resource.long_name,
                name,
                "uid mismatch: the provided object specified uid "
                f"{metadata['uid']}, and no existing object was found",
                errors.details(resource, name),
            )
        return self._created(request, made, owner, after[owner]), True

    def _scaled(
        self,
        request: Request,
        old: Object,
        changed: Callable[[Object], Object],
        owner: Owner | None = None,
    ) -> Object:
        """A write to the ``scale`` of an object; the scale after it."""
        wanted = changed(scale_of(old))
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
        by = owner or Owner("Update", request.manager, request.resource.api_version, "scale")
        applied = None
        if owner is not None:
            applied = {
                **fields.owners_of(old["metadata"].get("managedFields", ())),
                owner: frozenset({SCALED}),
            }
        plain = replace(request, subresource="")
        is_changed = replicas != old["spec"]["replicas"]
        path = frozenset({SCALED} if is_changed else ())
        # a scale of 0 has no such field, so that nobody owns it
        change = (
            fields.Difference(path, frozenset())
            if replicas
            else fields.Difference(frozenset(), path)
        )
        return scale_of(self._updated(plain, old, new, by, applied, change=change))

    def _require_namespace(self, request: Request, name: str) -> None:
        namespaces = self._resources["", "v1", "namespaces"]
        namespace = self._store.get(namespaces, "", request.namespace)
        if namespace is None:
            raise errors.not_found(namespaces, request.namespace)
        if "deletionTimestamp" in namespace["metadata"]:
            why = f"namespace {request.namespace} is being terminated"
            cause = {
                "reason": "NamespaceTerminating",
                "message": why,
                "field": "metadata.namespace",
            }
            raise errors.ApiError(
                403,
                "Forbidden",
                f'{request.resource.long_name} "{name}" is forbidden: unable to create new content '
                f"in namespace {request.namespace} because it is being terminated",
                {**errors.details(request.resource, name), "causes": [cause]},
            )

    def _require_preconditions(
        self, request: Request, old: Object, wanted: Mapping[str, Any]
    ) -> None:
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

    def _define(self, request: Request, definition: Object) -> None:
        """A new kind of object, at once."""
        made = defined(definition)
        self._resources[made.group, made.version, made.plural] = made
        now = stamp(datetime.now(UTC))
        conditions = [
            {
                "type": kind,
                "status": "True",
                "lastTransitionTime": now,
                "reason": reason,
                "message": message,
            }
            for kind, reason, message in (
                ("NamesAccepted", "NoConflicts", "no conflicts found"),
                (
                    "Established",
                    "InitialNamesAccepted",
                    "the initial names have been accepted",
                ),
            )
        ]
        status = {
            **definition["status"],
            "conditions": conditions,
            "acceptedNames": definition["spec"]["names"],
        }
        name = definition["metadata"]["name"]
        by = replace(request, name=name, subresource="status", manager="kube-apiserver")
        owner = Owner("Update", by.manager, by.resource.api_version, "status")
        self._updated(by, definition, {**definition, "status": status}, owner)

    def _forget_definition(self, request: Request, old: Object) -> None:
        """What was defined goes with its definition."""
        if request.resource.kind != "CustomResourceDefinition":
            return
        gone = defined(old)
        self._resources.pop((gone.group, gone.version, gone.plural), None)
        for each in self._store.all(gone):
            metadata = each["metadata"]
            self._store.put(key_of(gone, metadata.get("namespace", ""), metadata["name"]), None)


def stamp(when: datetime) -> str:
    """A time as objects have it, to the second."""
    return when.strftime("%Y-%m-%dT%H:%M:%SZ")


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


def _patched(old: Object, patch: Any, content_type: str, of: Any) -> Object:
    """``old`` after a patch that is no apply.

    Raises:
        ApiError: 400, 422 or 500.
    """
    try:
        if content_type == JSON_PATCH:
            if not isinstance(patch, list):
                raise errors.bad_request(
                    "error decoding patch: json: cannot unmarshal object into Go value of type "
                    "[]handlers.jsonPatchOp"
                )
            return json_patched(old, patch)  # type: ignore[no-any-return]
        if content_type == STRATEGIC_PATCH:
            return strategically_merged(old, patch, of)  # type: ignore[no-any-return]
        return merged(old, patch)  # type: ignore[no-any-return]
    except PatchError as error:
        raise errors.unprocessable() from error
    except MergeKeyError as error:
        raise errors.internal(str(error)) from error


def _require_kind(request: Request, body: Object) -> None:
    resource = request.resource
    kind, api_version = body.get("kind", resource.kind), body.get("apiVersion")
    if (kind, api_version or resource.api_version) != (resource.kind, resource.api_version):
        group, _, version = str(api_version).rpartition("/")
        raise errors.bad_request(
            f'{kind} in version "{version}" cannot be handled as a {resource.kind}: converting '
            f"({group or version}.{kind}) to ({resource.group or resource.version}.{resource.kind})"
            ": unknown conversion"
        )


def _require_name(request: Request, body: Object) -> None:
    name = body.get("metadata", {}).get("name", request.name)
    if name != request.name:
        raise errors.bad_request(
            f"the name of the object ({name}) does not match the name on the URL ({request.name})"
        )


def _typed(request: Request, body: Object, place: str) -> Object:
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


def _conflict(found: Sequence[tuple[Owner, fields.Path]]) -> errors.ApiError:
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


def _success(resource: Resource, old: Object) -> Object:
    about = {
        **errors.details(resource, old["metadata"]["name"]),
        "uid": old["metadata"]["uid"],
    }
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Success",
        "details": about,
    }


def _untimed(entries: Any) -> list[Any]:
    return [{**each, "time": ""} for each in entries]


def _spec(request: Request, obj: Object) -> Any:
    """What a change of makes another generation."""
    if "spec" not in obj or request.resource.custom:
        return {name: value for name, value in obj.items() if name not in ("metadata", "status")}
    if request.resource.kind == "Deployment" and not request.subresource:
        return obj["spec"], obj["metadata"].get("annotations")
    return obj["spec"]


def _resized(old: Object, new: Object) -> Object:
    """The spec of ``old`` with the resources of ``new``."""
    spec: Object = deepcopy(old["spec"])
    names = [each["name"] for each in spec["containers"]]
    if [each.get("name") for each in new["spec"]["containers"]] != names:
        return {**spec, "containers": new["spec"]["containers"]}
    for container, its_new in zip(spec["containers"], new["spec"]["containers"], strict=True):
        container["resources"] = its_new.get("resources", {})
    return spec
