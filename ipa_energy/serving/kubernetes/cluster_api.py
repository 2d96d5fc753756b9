"""A cluster's API server, and what is done about each way in which it may fail: the one door to it.

==============================  ==================================================================
answer                          reaction
==============================  ==================================================================
409                             :class:`ConflictError`: read again and plan anew
429                             wait as long as Retry-After says, then again
5xx, time-out, lost connection  again after a wait that doubles, with jitter: every write here can
                                be repeated, whether or not the first had its effect
500 without a reason            what was sent is no such object: never again
400, 401, 403, 404, 422 …       :class:`RefusedError`: stop and say
==============================  ==================================================================

All of it is bounded: after :data:`TRIES`, or the seconds that :meth:`ClusterApi.bound` sets for
all calls together, the answer is a :class:`~ipa_energy.errors.TryAgainError`, and the runner
decides. Objects are plain dictionaries both ways; the official client brings kubeconfig,
credentials and TLS.
"""

from __future__ import annotations

import json
import math
import os
import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import urllib3
from kubernetes import client, config
from kubernetes.config.config_exception import ConfigException
from yaml import YAMLError

from ipa_energy.errors import (
    ConfigError,
    GiveUpError,
    TryAgainError,
    UnavailableError,
    in_words,
)

Object = dict[str, Any]
Query = Mapping[str, Any]

TRIES = 5
FIRST_WAIT_S, LONGEST_WAIT_S = 0.1, 4.0
CALL_TIMEOUT_S = 10.0
WATCH_TIMEOUT_S = 240

JSON = "application/json"
APPLY = "application/apply-patch+yaml"
STRATEGIC = "application/strategic-merge-patch+json"
SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
GONE = 410
OF_OTHER_KINDS = (OSError, ValueError, TypeError, LookupError, AttributeError)
"""What the client raises of a kubeconfig that cannot be read, or that holds something else."""

PLURALS = {
    "Deployment": "deployments",
    "Service": "services",
    "SeldonDeployment": "seldondeployments",
    "Pod": "pods",
    "EndpointSlice": "endpointslices",
}
"""Kind → what its URL says."""


class ConflictError(TryAgainError):
    """Somebody else was quicker: what was planned on is no longer so."""


class RefusedError(GiveUpError):
    """The server will answer the same again.

    Args:
        status: HTTP code.
        message: the server's.
        reason: its word for it.
        causes: reasons of its parts, by which two refusals of one code are told apart.
    """

    def __init__(
        self, status: int, message: str, reason: str = "", causes: tuple[str, ...] = ()
    ) -> None:
        self.status, self.reason, self.causes = status, reason, causes
        super().__init__(f"the cluster refuses: {message}{_fix_of(status, causes)}")


class ExpiredError(Exception):
    """A watch or a list began at a version that the server has forgotten."""


class ClusterApi:
    """An API server.

    Args:
        kubeconfig: file; None: ``$KUBECONFIG``, a pod's own service account, ``~/.kube/config``.
        context: of the file; None: its current one.
        sleep: waits, with seconds.
        seed: of the jitter.

    Attributes:
        namespace: where the credentials say that one works.
        host: its address.
        writes: that were answered since the beginning.

    Raises:
        ConfigError: there is no such file or context, or it is no kubeconfig.
    """

    def __init__(
        self,
        kubeconfig: Path | None = None,
        context: str | None = None,
        *,
        sleep: Callable[[float], None] = time.sleep,
        seed: int | None = None,
    ) -> None:
        settings = client.Configuration()
        try:
            self.namespace = _load(settings, kubeconfig, context)
        except (ConfigException, YAMLError, *OF_OTHER_KINDS) as error:
            raise ConfigError(
                f"no cluster is named: {_why(error, kubeconfig)}",
                where="--kubeconfig",
                fix="--kubeconfig FILE, or KUBECONFIG, or run in a pod",
            ) from error
        settings.retries = False  # tried again here, where it is known what may be
        self._client = client.ApiClient(settings)
        self.host = str(settings.host)
        self.writes, self._lock = 0, threading.Lock()
        self._sleep, self._random = sleep, random.Random(seed)
        self._ends_s = math.inf

    def bound(self, seconds: float) -> None:
        """Let whatever is asked from now on, by any thread, be answered or given up by then."""
        self._ends_s = time.monotonic() + seconds

    def get(self, path: str, query: Query | None = None) -> Object:
        """What is there.

        Raises:
            RefusedError: it is not, or may not be read.
            TryAgainError: no answer, after all tries.
        """
        return self._asked("GET", path, query)

    def list(self, kind: tuple[str, str], namespace: str, labels: str) -> list[Object]:
        """The objects of a kind with these labels; raises as :meth:`get`."""
        found = self.get(path_of(kind, namespace), {"labelSelector": labels})
        return list(found.get("items", ()))

    def apply(self, wanted: Object, manager: str, *, dry_run: bool = False) -> Object:
        """Server-side apply, by force: its fields are ours from now on.

        Raises: as :meth:`get`.
        """
        query = {"fieldManager": manager, "force": "true", **_dry(dry_run)}
        return self._asked("PATCH", path_to(wanted), query, wanted, APPLY)

    def replace(self, wanted: Object, manager: str, *, dry_run: bool = False) -> Object:
        """Put an object in the place of the version that it was made of; raises as :meth:`get`.

        Raises:
            ConflictError: there is a newer one.
        """
        query = {"fieldManager": manager, **_dry(dry_run)}
        return self._asked("PUT", path_to(wanted), query, wanted)

    def create(self, wanted: Object, manager: str = "", *, dry_run: bool = False) -> Object:
        """Make an object; raises as :meth:`get`, and ConflictError if there is one."""
        kind = (wanted["apiVersion"], wanted["kind"])
        path = path_of(kind, wanted["metadata"].get("namespace"))
        query = {"fieldManager": manager} if manager else {}
        return self._asked("POST", path, query | _dry(dry_run), wanted)

    def delete(self, gone: Object) -> None:
        """See that an object is gone, and in time what it made; raises as :meth:`get`."""
        options = {"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": "Background"}
        try:
            self._asked("DELETE", path_to(gone), None, options)
        except RefusedError as error:
            if error.status != 404:
                raise

    def resize(self, pod: Object, container: str, cores: str, manager: str) -> None:
        """Give a running pod other cores; raises as :meth:`get`."""
        held = {"requests": {"cpu": cores}, "limits": {"cpu": cores}}
        body = {"spec": {"containers": [{"name": container, "resources": held}]}}
        named = {"apiVersion": "v1", "kind": "Pod", "metadata": pod["metadata"]}
        path = f"{path_to(named)}/resize"
        self._asked("PATCH", path, {"fieldManager": manager}, body, STRATEGIC)

    def watch(self, path: str, query: Query, *, is_over: Callable[[], bool]) -> Iterator[Object]:
        """Events from a version on, until the server ends the watch; bookmarks included.

        Raises:
            ExpiredError: the version is too old; list anew.
            RefusedError: one may not.
            TryAgainError: the connection is lost; watch again from the last version.
        """
        asked = {**query, "watch": "true", "allowWatchBookmarks": "true"}
        asked.setdefault("timeoutSeconds", WATCH_TIMEOUT_S)
        try:
            lasting = urllib3.Timeout(connect=CALL_TIMEOUT_S, read=WATCH_TIMEOUT_S + 60.0)
            answer = self._sent("GET", path, asked, None, content_type=JSON, timeout=lasting)
            if answer.status >= 400:
                raise _refusal(answer.status, answer.read())
            unread = b""
            for part in answer.stream(2**16, decode_content=True):
                *lines, unread = (unread + part).split(b"\n")
                for line in lines:
                    if is_over():
                        answer.close()
                        return
                    if line.strip():
                        yield _event(json.loads(line))
        except (urllib3.exceptions.HTTPError, OSError, ValueError) as error:
            raise TryAgainError(f"the watch at {self.host} broke: {error}") from error

    def may(self, verb: str, group: str, resource: str, namespace: str) -> bool:
        """Whether the credentials may do this; raises as :meth:`get`."""
        resource, _, subresource = resource.partition("/")
        attributes = {"namespace": namespace, "group": group, "verb": verb, "resource": resource}
        if subresource:
            attributes["subresource"] = subresource
        review = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": attributes},
        }
        path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
        return bool(self._asked("POST", path, None, review)["status"].get("allowed"))

    def close(self) -> None:
        """Close its connections."""
        self._client.rest_client.pool_manager.clear()

    def _asked(
        self,
        method: str,
        path: str,
        query: Query | None = None,
        body: Object | None = None,
        content_type: str = JSON,
    ) -> Object:
        """The answer, after as many tries as it takes and is allowed."""
        trouble, tries = "no time is left", 0
        while tries < TRIES and (left_s := self._ends_s - time.monotonic()) > 0:
            tries += 1
            wait_s = min(FIRST_WAIT_S * 2.0 ** (tries - 1), LONGEST_WAIT_S)
            try:
                timeout = urllib3.Timeout(total=min(CALL_TIMEOUT_S, left_s))
                answer = self._sent(
                    method, path, query, body, content_type=content_type, timeout=timeout
                )
                data = answer.read()
            except (urllib3.exceptions.HTTPError, OSError) as error:
                trouble = f"no answer ({_short(error)})"
            else:
                if answer.status < 400:
                    with self._lock:
                        self.writes += method != "GET"
                    return _parsed(data)
                if answer.status != 429 and answer.status < 500:
                    raise _refusal(answer.status, data)
                status = _parsed(data)
                if answer.status == 500 and not status.get("reason"):
                    raise RefusedError(500, str(status.get("message", data[:200])))
                trouble = str(status.get("message", f"status {answer.status}"))
                told = answer.headers.get("Retry-After", "")
                if told.isdecimal():
                    wait_s = min(max(wait_s, float(told)), 2 * LONGEST_WAIT_S)
            wait_s *= self._random.uniform(0.75, 1.25)
            if tries == TRIES or time.monotonic() + wait_s >= self._ends_s:
                break
            self._sleep(wait_s)
        times = "once" if tries == 1 else f"{tries} times"
        raise TryAgainError(f"{method} {path} at {self.host}: {trouble}, {times}")

    def _sent(
        self,
        method: str,
        path: str,
        query: Query | None,
        body: Object | None,
        *,
        content_type: str,
        timeout: urllib3.Timeout,
    ) -> Any:
        headers = {"Accept": JSON}
        if body is not None:
            headers["Content-Type"] = content_type
        method, url, headers, body, _ = self._client.param_serialize(
            method,
            path,
            query_params=list((query or {}).items()),
            header_params=headers,
            body=body,
            auth_settings=["BearerToken"],
        )
        sent = None if body is None else json.dumps(body)
        return self._client.rest_client.pool_manager.request(
            method,
            url,
            body=sent,
            headers=headers,
            preload_content=False,
            timeout=timeout,
            retries=False,
        )


def _refusal(code: int, data: bytes) -> Exception:
    """The exception of an answer that is no success and will not become one by waiting."""
    status = _parsed(data)
    message = str(status.get("message") or data[:200].decode(errors="replace").strip())
    if code == 409:
        return ConflictError(message)
    if code == GONE:
        return ExpiredError(message)
    causes = (status.get("details") or {}).get("causes") or ()
    reasons = tuple(str(cause.get("reason", "")) for cause in causes)
    return RefusedError(code, message, str(status.get("reason", "")), reasons)


def path_of(kind: tuple[str, str], namespace: str | None) -> str:
    """Where the objects of a kind are."""
    version, name = kind
    root = f"/api/{version}" if "/" not in version else f"/apis/{version}"
    return f"{root}{f'/namespaces/{namespace}' if namespace else ''}/{PLURALS[name]}"


def path_to(found: Object) -> str:
    """Where an object is."""
    metadata = found["metadata"]
    kind = (found["apiVersion"], found["kind"])
    return f"{path_of(kind, metadata['namespace'])}/{metadata['name']}"


def _why(error: Exception, kubeconfig: Path | None) -> str:
    """What a kubeconfig lacks; the client lets through what its parsers and its own code raise."""
    if kubeconfig is not None and not kubeconfig.exists():
        return f"{kubeconfig}: there is no such file"
    why = " ".join(in_words(error).split())
    if isinstance(error, ConfigException):
        return why.removeprefix("Invalid kube-config file. ").rstrip(".")
    return f"{kubeconfig or 'the kubeconfig'}: {why}"


def _load(settings: Any, kubeconfig: Path | None, context: str | None) -> str:
    """Fill in address and credentials; the namespace that they name."""
    in_pod = "KUBERNETES_SERVICE_HOST" in os.environ and SERVICE_ACCOUNT.exists()
    if kubeconfig is None and context is None and in_pod and "KUBECONFIG" not in os.environ:
        config.load_incluster_config(client_configuration=settings)
        return SERVICE_ACCOUNT.read_text(encoding="utf-8").strip()
    file = None if kubeconfig is None else str(kubeconfig)
    config.load_kube_config(file, context, client_configuration=settings)
    contexts, active = config.list_kube_config_contexts(file)
    named = active if context is None else next(c for c in contexts if c["name"] == context)
    return str(named["context"].get("namespace") or "default")


def _dry(is_dry: bool) -> dict[str, str]:
    return {"dryRun": "All"} if is_dry else {}


def _parsed(data: bytes) -> Object:
    try:
        found = json.loads(data)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _event(event: Object) -> Object:
    if event.get("type") == "ERROR":
        status = event.get("object", {})
        if status.get("code") == GONE:
            raise ExpiredError(str(status.get("message")))
        raise TryAgainError(f"the watch ends: {status.get('message')}")
    return event


def _short(error: Exception) -> str:
    if isinstance(error, urllib3.exceptions.NewConnectionError):
        return "nobody listens there"
    return type(error).__name__.removesuffix("Error").removesuffix("Exception").lower()


def _fix_of(status: int, causes: tuple[str, ...]) -> str:
    if status in (401, 403) and "NodeCapacity" not in causes:
        return "; fix: the rights in configs/kubernetes, see ipa-energy doctor"
    return ""


def require_reachable(api: ClusterApi) -> Object:
    """The server's version.

    Raises:
        UnavailableError: it does not answer.
    """
    try:
        return api.get("/version")
    except TryAgainError as error:
        raise UnavailableError(
            f"the cluster cannot be reached: {error}; fix: start its API server, or --kubeconfig"
            " FILE, --context NAME"
        ) from error
