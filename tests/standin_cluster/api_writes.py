"""Writes to the stand-in API server: create, replace, patch, apply, delete, and subresources."""

from __future__ import annotations

import itertools
import secrets
import uuid
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from . import api_errors as errors
from . import api_fields as fields
from . import api_write_rules as rules
from .api_decoding import Decoder, DecodingError
from .api_defaults import EMPTY, admitted, prepared
from .api_deletes import deleted, deletion_answer, require_preconditions
from .api_errors import Cause
from .api_fields import Owner
from .api_patches import APPLY, merged, patched
from .api_scale import SCALED, rescaled, scale_of
from .api_store import Object, Store, key_of
from .api_types import Resource, built_in, defined, established
from .api_validation import beyond_node, causes, resize_causes
from .api_write_rules import Request, stamp

MADE_BY_PUT = ("Service", "Role", "RoleBinding", "Lease")
"""Kinds that a PUT makes if they are not there."""


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
        rules.require_kind(request, body)
        given = body.get("metadata", {}).get("namespace")
        if given and request.resource.namespaced and given != request.namespace:
            raise errors.bad_request(
                "the namespace of the provided object does not match the namespace sent on the "
                "request"
            )
        made = rules.decoded(request, body)
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
                rules.require_name(request, body)
                return self.create(request, body)
            old = self._there(request)
            if request.subresource == "scale":
                return self._scaled(request, old, lambda _: body)
            rules.require_kind(request, body)
            rules.require_name(request, body)
            owner = Owner(
                "Update", request.manager, request.resource.api_version, request.subresource
            )
            new = rules.decoded(request, body)
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
                    request, old, lambda live: patched(live, patch, content_type, scale)
                ), False
            new = patched(old, patch, content_type, request.resource.type)
            if new.get("kind") != old["kind"]:
                rules.require_kind(request, new)
            rules.require_name(request, new)
            new = rules.decoded(request, new)
            owner = Owner(
                "Update", request.manager, request.resource.api_version, request.subresource
            )
            return self._updated(request, old, new, owner), False

    def delete(self, request: Request, options: Mapping[str, Any]) -> Object:
        """DELETE of one object."""
        with self._store.changed:
            old = self._there(request)
            require_preconditions(request, old, options.get("preconditions") or {})
            if "deletionTimestamp" in old["metadata"] and request.resource.kind != "Pod":
                return old
            new = deleted(request, old, options)
            if request.is_dry:
                return new or deletion_answer(request.resource, old, options)
            key = key_of(request.resource, request.namespace, request.name)
            kept = self._store.put(key, new)
            if kept is not None:
                return kept
            self._forget_definition(request, old)
            version = self._store.version
            return deletion_answer(request.resource, old, options, version)

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
        assert kept is not None
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
        new = rules.allowed(request, old, new)
        self._require_valid(request, old, new)
        if change is None:
            change = fields.difference(old, new, resource.type)
        before = fields.owners_of(old["metadata"].get("managedFields", ()))
        if applied is None:  # where nobody owns anything, a write that is no apply is not tracked
            after = fields.updated(before, owner, change) if before else {}
        else:
            found = fields.conflicts(before, owner, change)
            if found and not request.force:
                raise rules.conflict(found)
            after = {
                each: paths if each == owner else paths - change.removed - change.changed
                for each, paths in applied.items()
            }
        now = stamp(datetime.now(UTC))
        entries = fields.managed_fields(after, old["metadata"].get("managedFields", ()), now)
        if (
            change.changed
            or change.removed
            or rules.untimed(entries) != rules.untimed(old["metadata"].get("managedFields", ()))
        ):
            new["metadata"]["managedFields"] = entries
        else:
            new["metadata"]["managedFields"] = old["metadata"].get("managedFields", [])
        if resource.generation and rules.spec(request, old) != rules.spec(request, new):
            new["metadata"]["generation"] = old["metadata"]["generation"] + 1
        if new == old or request.is_dry:
            return new
        return self._put(request, request.name, new)

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
        rules.require_name(request, body)
        full_kind = f"{resource.api_version}, Kind={resource.kind}"
        place = f"{request.namespace}/{name}; {full_kind}"
        named = rules.typed(request, body, place)
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
        new, change = rescaled(request, old, changed(scale_of(old)))
        by = owner or Owner("Update", request.manager, request.resource.api_version, "scale")
        before = fields.owners_of(old["metadata"].get("managedFields", ()))
        applied = None
        if owner is not None:
            applied = {**before, owner: frozenset({SCALED})}
        elif not any(SCALED in paths for paths in before.values()):
            # what nobody owns is not tracked in a scale, which has then no managed fields at all
            change = fields.Difference(frozenset(), frozenset())
        plain = replace(request, subresource="")
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

    def _define(self, request: Request, definition: Object) -> None:
        """A new kind of object, at once."""
        made = defined(definition)
        self._resources[made.group, made.version, made.plural] = made
        status = established(definition, stamp(datetime.now(UTC)))
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
