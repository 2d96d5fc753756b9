"""A stand-in Kubernetes API server over HTTP, in threads of this process.

::

    with ApiServer() as server:
        client = kubernetes.client.ApiClient(server.configuration())
        …
        server.faults.next(Fault(code=500))

What it answers is held to a recording of kube-apiserver 1.36.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import yaml

from . import api_errors as errors
from .api_connection import POLL_S, Connection
from .api_errors import ApiError, PageNotFoundError
from .api_rights import Rights
from .api_store import Store
from .api_types import Target, built_in_resources
from .api_write_rules import Request
from .api_writes import Writes
from .beside import Beside
from .faults import FaultScript


class ApiServer(Beside):
    """The server; it runs from its making until :meth:`close`.

    Args:
        tokens: bearer token → user. None: everybody may do everything, else the user ``admin``.

    Attributes:
        store: the objects.
        faults: what goes wrong on purpose.
        url: where it listens.
        log: method, path and HTTP code of each request that was answered.
    """

    def __init__(self, tokens: Mapping[str, str] | None = None) -> None:
        super().__init__()
        self.store = Store()
        self.resources = built_in_resources()
        self.writes = Writes(self.store, self.resources)
        self.faults = FaultScript()
        self.rights = Rights(tokens)
        self.log: list[tuple[str, str, int]] = []
        for name in ("default", "kube-system"):
            namespaces = self.resources["", "v1", "namespaces"]
            self.writes.create(Request(namespaces, ""), {"metadata": {"name": name}})
        self._http = _Http(("127.0.0.1", 0), _handler(self))
        self.url = f"http://127.0.0.1:{self._http.server_port}"
        self._begin(lambda: self._http.serve_forever(POLL_S / 10))

    def _wake(self) -> None:
        with self.store.changed:
            self.store.changed.notify_all()  # open watches end
        self._http.shutdown()
        self._http.server_close()

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


class _Http(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Nothing for a client that has gone, which is what ends up here."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


def _handler(server: ApiServer) -> type[BaseHTTPRequestHandler]:
    return type("_BoundHandler", (Connection,), {"api": server})
