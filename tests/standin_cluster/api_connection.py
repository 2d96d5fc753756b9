"""One connection to the stand-in API server: requests are read, worked on and answered."""

from __future__ import annotations

import contextlib
import json
import socket
import time
import urllib.parse
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Any

from . import api_errors as errors
from . import api_reads as reads
from .api_discovery import discovery
from .api_errors import ApiError, Cause
from .api_patches import APPLY, MERGE_PATCH, STRATEGIC_PATCH
from .api_rights import review
from .api_scale import scale_of
from .api_store import Object, seen
from .api_types import Resource, Target
from .api_write_rules import Request

if TYPE_CHECKING:
    from .api_server import ApiServer

SERVED = ("application/json", "application/yaml", "application/vnd.kubernetes.protobuf")
"""As the server says; this one reads JSON alone."""

WATCH_S = 1800.0
BOOKMARK_BEFORE_END_S = 2.0
POLL_S = 0.5
OPTIONS = {"POST": "CreateOptions", "PUT": "UpdateOptions", "PATCH": "PatchOptions"}

VERBS = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete", "GET": "get"}


class Connection(BaseHTTPRequestHandler):
    """One connection."""

    api: ApiServer
    protocol_version = "HTTP/1.1"
    wbufsize = 2**16
    disable_nagle_algorithm = True

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Nothing is told."""

    def do_GET(self) -> None:
        """Any method."""
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
        found = (
            discovery(self.api.resources, self._path, self.api.url[7:])
            if self.command == "GET"
            else None
        )
        if found is not None:
            return 200, found
        if self._path == "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews":
            return 201, review(user, self._body(), self._manager())
        target = self.api.target(self._path)
        verb = self._verb(target)
        self.api.rights.require(user, verb, target)
        if verb == "watch":
            self._watch(target)
            return None
        if verb in ("list", "get"):
            return 200, self._read(verb, target)
        return self._written(verb, target)

    def _read(self, verb: str, target: Target) -> Object:
        store, resource = self.api.store, target.resource
        if verb == "list":
            return reads.listed(store, resource, target.namespace, self._query)
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
        is_creation = verb == "create" and (not target.name or target.subresource == "binding")
        if (verb == "create" and not is_creation) or (
            verb in ("update", "patch", "delete") and not target.name
        ):
            raise ApiError(
                405,
                "MethodNotAllowed",
                "the server does not allow this method on the requested resource",
                {},
            )
        return verb

    def _written(self, verb: str, target: Target) -> tuple[int, Object]:
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
                made, is_new = writes.patch(request, self._body(), kind)
                return 201 if is_new else 200, made
            case "delete":
                options = {**(self._body() if self._sent else {}), **self._query}
                return 200, writes.delete(request, options)
        raise AssertionError(verb)

    def _request(self, verb: str, target: Target) -> Request:
        query, options = self._query, OPTIONS.get(self.command, "DeleteOptions")
        dry = query.get("dryRun", "")
        if dry not in ("", "All"):
            text = f'["{dry}"]: supported values: "All"'
            raise errors.invalid_options(options, Cause("dryRun", "Unsupported value", text))
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
            warnings=self._warnings,
        )

    def _manager(self) -> str:
        agent = self.headers.get("User-Agent", "unknown")
        return self._query.get("fieldManager") or agent.partition("/")[0]

    def _content_type(self) -> str:
        return self.headers.get("Content-Type", "application/json").partition(";")[0].strip()

    def _patch_kind(self, resource: Resource) -> str:
        kind = self._content_type()
        known = (MERGE_PATCH, APPLY, *(() if resource.custom else (STRATEGIC_PATCH,)))
        if kind in known:
            return kind
        if not resource.custom and kind == "application/json":
            raise ApiError(415, "UnsupportedMediaType", "415: Unsupported Media Type", {})
        raise _unsupported(known)

    def _body(self, resource: Resource | None = None) -> Any:
        return _read_body(self._sent, self._content_type(), resource)

    def _watch(self, target: Target) -> None:
        """Send what happens until the time is up, a line an event."""
        store, query = self.api.store, self._query
        matches = reads.selected(query)
        version = reads.read_version(query.get("resourceVersion", ""), 500)
        ends_s = time.monotonic() + float(query.get("timeoutSeconds") or WATCH_S)
        is_marked = query.get("allowWatchBookmarks") not in ("true", "True", "1")
        self._begin_events()
        with store.changed:
            first = store.all(target.resource, target.namespace) if version == 0 else []
            sent = version or store.version
            last = version
        if version == 0:
            for each in filter(matches, first):
                self._send_event({"type": "ADDED", "object": each})
            last = sent
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

    def _send_bookmark(self, target: Target, version: int) -> None:
        metadata = {"resourceVersion": str(version)}
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


def _read_body(sent: bytes, content_type: str, resource: Resource | None = None) -> Any:
    """What a body says.

    Args:
        sent: the body.
        content_type: what it is said to be.
        resource: what it is to be an object of; None: it is none, but a patch or an option.

    Raises:
        ApiError: 400 or 415.
    """
    if resource is not None and content_type != "application/json":
        raise _unsupported(SERVED)
    text = sent.decode()
    try:
        return json.loads(text)
    except ValueError as error:
        what = resource.kind if resource else "object"
        raise errors.bad_request(
            f"the object provided is unrecognized (must be of type {what}): couldn't get "
            "version/kind; json parse error: invalid character "
            f"'{text[1:2]}' looking for beginning of object key string ({text[:30]})"
        ) from error


def _unsupported(known: tuple[str, ...]) -> ApiError:
    """415: of another type than these."""
    text = (
        "the body of the request was in an unknown format - accepted media types include: "
        + ", ".join(known)
    )
    return ApiError(415, "UnsupportedMediaType", text)
