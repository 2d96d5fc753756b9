"""A stand-in Kubernetes API server over HTTP, in threads of this process.

::

    with ApiServer() as server:
        client = kubernetes.client.ApiClient(server.configuration())
        …
        server.faults.next(Fault(code=500))

What it answers is held to a recording of kube-apiserver 1.36.
"""

from __future__ import annotations

import contextlib
import json
import re
import socket
import sys
import threading
import time
import urllib.parse
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import yaml

from ipa_energy.testing.cluster import api_errors as errors
from ipa_energy.testing.cluster import api_reads as reads
from ipa_energy.testing.cluster.api_errors import ApiError, Cause, PageNotFoundError
from ipa_energy.testing.cluster.api_rights import Rights, review
from ipa_energy.testing.cluster.api_store import Object, Store, seen
from ipa_energy.testing.cluster.api_types import Resource, Target, built_in_resources
from ipa_energy.testing.cluster.api_writes import (
    APPLY,
    JSON_PATCH,
    MERGE_PATCH,
    STRATEGIC_PATCH,
    Request,
    Writes,
    scale_of,
)
from ipa_energy.testing.cluster.faults import FaultScript

VERSION = {
    "major": "1",
    "minor": "36",
    "emulationMajor": "1",
    "emulationMinor": "36",
    "minCompatibilityMajor": "1",
    "minCompatibilityMinor": "35",
    "gitVersion": "v1.36.0-stand-in",
    "platform": "python",
}

PARTIAL = "as=PartialObjectMetadataList"
SERVED = "application/json, application/yaml, application/vnd.kubernetes.protobuf"
WATCH_S = 1800.0
BOOKMARK_BEFORE_END_S = 2.0
POLL_S = 0.5
OPTIONS = {"POST": "CreateOptions", "PUT": "UpdateOptions", "PATCH": "PatchOptions"}

VERBS = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete", "GET": "get"}
ALL_VERBS = ("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch")


class ApiServer:
    """The server; it runs from its making until :meth:`close`.

    Args:
        tokens: bearer token → user. None: everybody may do everything. The user ``admin`` may
            always; of the others, roles and role bindings decide.

    Attributes:
        store: the objects.
        faults: what goes wrong on purpose.
        url: where it listens.
        log: method, path and HTTP code of each request that was answered.
    """

    def __init__(self, tokens: Mapping[str, str] | None = None) -> None:
        self.store = Store()
        self.resources = built_in_resources()
        self.writes = Writes(self.store, self.resources)
        self.faults = FaultScript()
        self.rights = Rights(self.store, self.resources, tokens)
        self.is_closing = threading.Event()
        self.errors: list[Exception] = []
        self.log: list[tuple[str, str, int]] = []
        for name in ("default", "kube-system"):
            namespaces = self.resources["", "v1", "namespaces"]
            self.writes.create(Request(namespaces, ""), {"metadata": {"name": name}})
        self._http = _Http(("127.0.0.1", 0), _handler(self))
        self.url = f"http://127.0.0.1:{self._http.server_port}"
        self._thread = threading.Thread(
            target=self._http.serve_forever, args=(POLL_S / 10,), daemon=True
        )
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop; open watches end.

        Raises:
            Exception: what the stand-in could not cope with meanwhile.
        """
        self.is_closing.set()
        with self.store.changed:
            self.store.changed.notify_all()
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()
        for each in self.errors:
            raise each

    def kubeconfig(self, path: Path, token: str = "any", namespace: str = "default") -> Path:
        """Write a kubeconfig that leads here."""
        written = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "here", "cluster": {"server": self.url}}],
            "users": [{"name": "me", "user": {"token": token}}],
            "contexts": [
                {
                    "name": "here",
                    "context": {"cluster": "here", "user": "me", "namespace": namespace},
                }
            ],
            "current-context": "here",
        }
        path.write_text(yaml.safe_dump(written), encoding="utf-8")
        return path

    def written(self) -> list[tuple[str, str, int]]:
        """Method, path and HTTP code of each write so far that was answered."""
        return [each for each in self.log if each[0] != "GET"]

    def target(self, path: str) -> Target:
        """What a path leads to.

        Raises:
            ApiError: nowhere.
        """
        steps = path.strip("/").split("/")
        if steps[0] == "api" and len(steps) > 2:
            group, version, rest = "", steps[1], steps[2:]
        elif steps[0] == "apis" and len(steps) > 3:
            group, version, rest = steps[1], steps[2], steps[3:]
        else:
            raise PageNotFoundError
        namespace = ""
        if rest[0] == "namespaces" and len(rest) > 2 and rest[2] not in ("status", "finalize"):
            namespace, rest = rest[1], rest[2:]
        plural, name, subresource = [*rest, "", ""][:3]
        resource = self.resources.get((group, version, plural))
        if resource is None:
            if (group, version) not in {key[:2] for key in self.resources}:
                raise PageNotFoundError
            raise ApiError(404, "NotFound", "the server could not find the requested resource", {})
        if subresource and subresource not in resource.subresources:
            raise errors.not_found(resource, name)
        return Target(resource, namespace, name, subresource)

    def discovery(self, path: str) -> Object | None:
        """What there is, as clients ask for it; None: the path is none of discovery."""
        groups = sorted({key[:2] for key in self.resources if key[0]})
        listed = [_group(group, version) for group, version in groups]
        found: Object | None = None
        match path.strip("/").split("/"):
            case ["version"]:
                found = VERSION
            case ["api"]:
                address = {"clientCIDR": "0.0.0.0/0", "serverAddress": self.url[7:]}
                found = {
                    "kind": "APIVersions",
                    "versions": ["v1"],
                    "serverAddressByClientCIDRs": [address],
                }
            case ["apis"]:
                found = {"kind": "APIGroupList", "apiVersion": "v1", "groups": listed}
            case ["apis", group] if any(group == each for each, _ in groups):
                group_found = next(each for each in listed if each["name"] == group)
                found = {"kind": "APIGroup", "apiVersion": "v1", **group_found}
            case ["api", "v1"]:
                found = self._resources_of("", "v1")
            case ["apis", group, version] if (group, version) in groups:
                found = self._resources_of(group, version)
        return found

    def _resources_of(self, group: str, version: str) -> Object:
        listed: list[Object] = []
        for (its_group, its_version, _), each in sorted(self.resources.items()):
            if (its_group, its_version) != (group, version):
                continue
            entry: Object = {
                "name": each.plural,
                "singularName": each.kind.lower(),
                "namespaced": each.namespaced,
                "kind": each.kind,
                "verbs": _verbs(each),
            }
            if each.short:
                entry["shortNames"] = list(each.short)
            if each.kind in ("Pod", "Service", "Deployment", "ReplicaSet"):
                entry["categories"] = ["all"]
            listed.append(entry)
            listed += [_subresource(each, name) for name in sorted(each.subresources)]
        head = {"kind": "APIResourceList", "groupVersion": f"{group}/{version}".lstrip("/")}
        return {**head, **({"apiVersion": "v1"} if group else {}), "resources": listed}


def _verbs(resource: Resource) -> list[str]:
    if resource.custom:
        return ["delete", "deletecollection", "get", "list", "patch", "create", "update", "watch"]
    return [verb for verb in ALL_VERBS if (resource.kind, verb) != ("Namespace", ALL_VERBS[2])]


def _group(group: str, version: str) -> Object:
    entry = {"groupVersion": f"{group}/{version}", "version": version}
    return {"name": group, "versions": [entry], "preferredVersion": entry}


def _subresource(resource: Resource, name: str) -> Object:
    entry: Object = {
        "name": f"{resource.plural}/{name}",
        "singularName": "",
        "namespaced": resource.namespaced,
        "kind": {"scale": "Scale", "binding": "Binding"}.get(name, resource.kind),
        "verbs": ["create"] if name == "binding" else ["get", "patch", "update"],
    }
    if name == "scale":
        entry |= {"group": "autoscaling", "version": "v1"}
    return entry


class _Http(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Nothing for a client that has gone, which is what ends up here."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


def _handler(server: ApiServer) -> type[BaseHTTPRequestHandler]:
    return type("_BoundHandler", (_Handler,), {"api": server})


class _Handler(BaseHTTPRequestHandler):
    """One connection."""

    api: ApiServer
    protocol_version = "HTTP/1.1"
    wbufsize = 2**16
    disable_nagle_algorithm = True

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        pass

    def do_GET(self) -> None:
        self._answer()

    do_POST = do_PUT = do_PATCH = do_DELETE = do_GET  # noqa: N815

    def _answer(self) -> None:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self._answered()

    def _answered(self) -> None:
        """Work on one request, with its fault if it has one."""
        self._sent = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self._warnings: list[str] = []
        url = urllib.parse.urlsplit(self.path)
        self._path = url.path
        self._query = dict(urllib.parse.parse_qsl(url.query, keep_blank_values=True))
        fault = self.api.faults.of(self.command, self._path)
        if fault is not None:
            time.sleep(fault.delay_s)
        if fault is not None and fault.drop == "before":
            return self._hang_up()
        try:
            if fault is not None and fault.code:
                raise fault.refusal()
            answer = self._worked()
        except ApiError as error:
            return self._send(error.code, error.status, error.headers)
        except OSError:
            raise  # the client has gone
        except Exception as error:  # noqa: BLE001  (raised by close)
            self.api.errors.append(error)
            return self._send(500, errors.internal(repr(error)).status)
        if fault is not None and fault.drop == "after":
            return self._hang_up()
        if answer is not None:
            self._send(*answer)
        return None

    def _hang_up(self) -> None:
        self.close_connection = True
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)

    def _worked(self) -> tuple[int, Object | str] | None:
        """The answer; None if it was sent already, event by event."""
        if self._path in ("/readyz", "/livez", "/healthz"):
            return 200, "ok"
        user = self.api.rights.user(self.headers.get("Authorization", ""))
        found = self.api.discovery(self._path) if self.command == "GET" else None
        if found is not None:
            return 200, found
        if self._path == "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews":
            return 201, review(self.api.rights, user, self._body(), self._manager())
        target = self.api.target(self._path)
        verb = self._verb(target)
        self.api.rights.require(user, verb, target)
        accept = self.headers.get("Accept", "*/*")
        if not re.search(r"\*/\*|application/(json|yaml|vnd)", accept):
            text = f"406: Not Acceptable\n\nAvailable representations: {SERVED}"
            raise ApiError(406, "NotAcceptable", text, {})
        if verb == "watch":
            self._watch(target)
            return None
        if verb in ("list", "get"):
            return 200, self._read(verb, target, is_partial=PARTIAL in accept)
        return self._written(verb, target, user)

    def _read(self, verb: str, target: Target, *, is_partial: bool) -> Object:
        store, resource = self.api.store, target.resource
        if verb == "list":
            full = reads.listed(store, resource, target.namespace, self._query)
            return reads.partial_list(full) if is_partial else full
        reads.require_reached(
            store, reads.read_version(self._query.get("resourceVersion", ""), 400)
        )
        there = store.get(resource, target.namespace, target.name)
        if there is None:
            raise errors.not_found(resource, target.name)
        return scale_of(there) if target.subresource == "scale" else there

    def _verb(self, target: Target) -> str:
        verb = VERBS[self.command]
        if verb == "get" and not target.name:
            is_watch = self._query.get("watch") in ("true", "1", "True")
            return "watch" if is_watch else "list"
        if verb == "delete" and not target.name:
            return "deletecollection"
        is_creation = verb == "create" and (not target.name or target.subresource == "binding")
        if (verb == "create" and not is_creation) or (
            verb in ("update", "patch") and not target.name
        ):
            raise ApiError(
                405,
                "MethodNotAllowed",
                "the server does not allow this method on the requested resource",
                {},
            )
        return verb

    def _written(self, verb: str, target: Target, user: str) -> tuple[int, Object]:
        writes = self.api.writes
        request = self._request(verb, target)
        resource = target.resource
        match verb:
            case "create" if target.subresource == "binding":
                return 201, writes.bind(request, self._body())
            case "create":
                return 201, writes.create(request, self._body(resource))
            case "update":
                with self.api.store.changed:
                    there = self.api.store.get(resource, target.namespace, target.name)
                    made = writes.replace(request, self._body(resource))
                return 201 if there is None else 200, made
            case "patch":
                kind = self._patch_kind(resource)
                with self.api.store.changed:
                    there = self.api.store.get(resource, target.namespace, target.name)
                    if kind == APPLY and there is None and not target.subresource:
                        self.api.rights.require(user, "create", target)
                    made, is_new = writes.patch(request, self._body(), kind)
                return 201 if is_new else 200, made
            case "delete":
                options = {**(self._body() if self._sent else {}), **self._query}
                return 200, writes.delete(request, options)
        with self.api.store.changed:
            full = reads.listed(self.api.store, resource, target.namespace, self._query)
            for each in full["items"]:
                metadata = each["metadata"]
                one = Request(resource, metadata.get("namespace", ""), metadata["name"])
                writes.delete(one, {})
        return 200, full

    def _request(self, verb: str, target: Target) -> Request:
        query, options = self._query, OPTIONS.get(self.command, "DeleteOptions")
        dry = query.get("dryRun", "")
        validation = query.get("fieldValidation") or "Warn"
        if dry not in ("", "All"):
            text = f'["{dry}"]: supported values: "All"'
            raise errors.invalid_options(options, Cause("dryRun", "Unsupported value", text))
        if validation not in ("Ignore", "Strict", "Warn"):
            text = f'"{validation}": supported values: "", "Ignore", "Strict", "Warn"'
            raise errors.invalid_options(
                options, Cause("fieldValidation", "Unsupported value", text)
            )
        is_apply = self._content_type() == APPLY
        if verb == "patch" and is_apply and not query.get("fieldManager"):
            wrong = Cause("fieldManager", "Required value", "is required for apply patch")
            raise errors.invalid_options(options, wrong)
        if verb == "patch" and not is_apply and query.get("force"):
            wrong = Cause("force", "Forbidden", "may not be specified for non-apply patch")
            raise errors.invalid_options(options, wrong)
        return Request(
            target.resource,
            target.namespace,
            target.name,
            target.subresource,
            manager=self._manager(),
            is_dry=dry == "All",
            force=query.get("force") in ("true", "True", "1"),
            validation=validation,
            warnings=self._warnings,
        )

    def _manager(self) -> str:
        agent = self.headers.get("User-Agent", "unknown")
        return self._query.get("fieldManager") or agent.partition("/")[0]

    def _content_type(self) -> str:
        return self.headers.get("Content-Type", "application/json").partition(";")[0].strip()

    def _patch_kind(self, resource: Resource) -> str:
        kind = self._content_type()
        known = [JSON_PATCH, MERGE_PATCH, APPLY]
        if not resource.custom:
            known.append(STRATEGIC_PATCH)
        if kind in known:
            return kind
        if not resource.custom and kind == "application/json":
            raise ApiError(415, "UnsupportedMediaType", "415: Unsupported Media Type", {})
        raise _unsupported(known)

    def _body(self, resource: Resource | None = None) -> Any:
        kind = self._content_type()
        if resource is not None and kind not in ("application/json", "application/yaml"):
            raise _unsupported(SERVED.split(", "))
        text = self._sent.decode()
        try:
            if kind in (APPLY, "application/yaml") and not text.lstrip().startswith(("{", "[")):
                return yaml.load(text, Loader=_Yaml)
            return self._json(text, resource)
        except (ValueError, yaml.YAMLError) as error:
            what = resource.kind if resource else "object"
            raise errors.bad_request(
                f"the object provided is unrecognized (must be of type {what}): couldn't get "
                "version/kind; json parse error: invalid character "
                f"'{text[1:2]}' looking for beginning of object key string ({text[:30]})"
            ) from error

    def _json(self, text: str, resource: Resource | None) -> Any:
        """The body; a field that is there twice is refused where fields are checked strictly."""
        twice: list[str] = []

        def pairs(found: list[tuple[str, Any]]) -> dict[str, Any]:
            names = [name for name, _ in found]
            twice.extend(name for name in set(names) if names.count(name) > 1)
            return dict(found)

        made = json.loads(text, object_pairs_hook=pairs)
        if twice and resource and self._query.get("fieldValidation") == "Strict":
            raise errors.bad_request(
                f'{resource.kind} in version "{resource.version}" cannot be handled as a '
                f'{resource.kind}: strict decoding error: duplicate field "spec.{twice[0]}"'
            )
        return made

    def _watch(self, target: Target) -> None:
        """Send what happens until the time is up, a line an event."""
        store, query = self.api.store, self._query
        matches = reads.selected(query)
        wants_first = query.get("sendInitialEvents") == "true"
        if wants_first and query.get("resourceVersionMatch") != "NotOlderThan":
            text = "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan"
            raise errors.invalid_options(
                "ListOptions", Cause("resourceVersionMatch", "Forbidden", text)
            )
        version = reads.read_version(query.get("resourceVersion", ""), 500)
        ends_s = time.monotonic() + float(query.get("timeoutSeconds") or WATCH_S)
        is_marked = query.get("allowWatchBookmarks") not in ("true", "True", "1")
        self._begin_events()
        with store.changed:
            first = store.all(target.resource, target.namespace) if version == 0 else []
            sent = version or store.version
            last = version
        if version == 0 or wants_first:
            for each in filter(matches, first):
                self._send_event({"type": "ADDED", "object": each})
            last = sent
            if wants_first:
                self._send_bookmark(target, sent, is_first=True)
        while not self.api.is_closing.is_set():
            with store.changed:
                if sent < store.oldest:
                    self._send_event(reads.too_old(sent, store.oldest))
                    break
                events = store.events_after(sent)
                if not events:
                    store.changed.wait(min(POLL_S, max(0.0, ends_s - time.monotonic())))
                    events = store.events_after(sent)
                now = max(sent, store.version)
            for change in seen(events, target.resource, target.namespace, matches):
                self._send_event({"type": change.kind, "object": change.object})
                last = change.version
            sent = now
            left_s = ends_s - time.monotonic()
            if not is_marked and left_s < BOOKMARK_BEFORE_END_S:
                is_marked = True
                if sent > last:
                    self._send_bookmark(target, sent)
            if left_s <= 0:
                break
        self.wfile.write(b"0\r\n\r\n")
        self.wfile.flush()

    def _send_bookmark(self, target: Target, version: int, *, is_first: bool = False) -> None:
        metadata: Object = {"resourceVersion": str(version)}
        if is_first:
            metadata["annotations"] = {"k8s.io/initial-events-end": "true"}
        kind = {"kind": target.resource.kind, "apiVersion": target.resource.api_version}
        self._send_event({"type": "BOOKMARK", "object": {**kind, "metadata": metadata}})

    def _begin_events(self) -> None:
        self.api.log.append((self.command, self._path, 200))
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.wfile.flush()

    def _send_event(self, event: Object) -> None:
        data = json.dumps(event, separators=(",", ":")).encode() + b"\n"
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
        self.wfile.flush()

    def _send(
        self, code: int, body: Object | str, headers: Mapping[str, str] | None = None
    ) -> None:
        self.api.log.append((self.command, self._path, code))
        is_text = isinstance(body, str)
        data = body.encode() if isinstance(body, str) else json.dumps(body).encode()
        self.send_response(code)
        self.send_header("Content-Type", "text/plain" if is_text else "application/json")
        self.send_header("Content-Length", str(len(data)))
        for text in self._warnings:
            self.send_header("Warning", f"299 - {json.dumps(text)}")
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)
        self.wfile.flush()


def _unsupported(known: list[str]) -> ApiError:
    text = (
        "the body of the request was in an unknown format - accepted media types include: "
        + ", ".join(known)
    )
    return ApiError(415, "UnsupportedMediaType", text)


class _Yaml(yaml.SafeLoader):
    """Also reads the bare word y as true, as the server does."""


_Yaml.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"^(?:y|Y|n|N)$"), list("yYnN"))
_Yaml.add_constructor(
    "tag:yaml.org,2002:bool",
    lambda loader, node: str(node.value).lower() in ("y", "yes", "true", "on"),
)
