"""A node of a cluster on this machine: its pods are processes here, or only said to run.

It does what a kubelet does, by the API alone, so that the cluster may be the stand-in or a real
API server. Every pod has an address of its own in 127.0.0.0/8, all of which leads to this machine,
so a container's ports are the ports that its manifest says: where the manifest tells it to listen
everywhere (``0.0.0.0``), it listens at its pod's address.

::

    with NodeAgent(api_client, "n1"): …                       every pod is said to run
    with NodeAgent(api_client, "n1", as_command): …           every pod does, as it is told to
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from .api_store import Object
from .beside import Beside
from .statuses import condition, is_ready, running

Program = Callable[[Object], Sequence[str]]
"""The command of a container, from its part of the manifest."""

EVERYWHERE = "0.0.0.0"

POLL_S = 0.05
PROBE_TIMEOUT_S = 1.0
PROBE_PERIOD_S = 1.0
"""Of a container that is ready; another is asked at each look."""

FAILURES = 3
"""Probes that fail one after the other until a ready container is not ready any more."""

RESTART_S = 0.2
STRATEGIC_PATCH = "application/strategic-merge-patch+json"


class NodeAgent(Beside):
    """Runs from its making until :meth:`close`, which ends every process.

    Args:
        client: an ``ApiClient`` of the official client.
        node: name of the node; it is made if it is not there, with label ``ipa-energy/node``.
        program: what a container runs; None: nothing is started, every pod is said to run after
            ``ready_after_s``.
        environment: variables that every container gets beside its own.
        ready_after_s: how long a pretended pod takes.
        capacity: what the node has.

    Attributes:
        pods: name → the processes of the pods that run now.
    """

    def __init__(
        self,
        client: Any,
        node: str,
        program: Program | None = None,
        *,
        environment: Mapping[str, str] | None = None,
        ready_after_s: float = 0.02,
        capacity: Mapping[str, str] | None = None,
    ) -> None:
        from kubernetes import client as kubernetes

        super().__init__()
        self._core = kubernetes.CoreV1Api(client)
        self._node, self._program, self._ready_after_s = node, program, ready_after_s
        self._environment = dict(environment or {})
        self._prefix = f"127.{secrets.randbelow(200) + 20}.{secrets.randbelow(250)}"
        self._addresses = 0
        self._workers: dict[str, tuple[threading.Thread, threading.Event]] = {}
        self.pods: dict[str, list[subprocess.Popen[bytes]]] = {}
        self._make_node(capacity or {"cpu": "64", "memory": "256Gi", "pods": "250"})
        self._begin(self._run)

    def close(self) -> None:
        """End every process; the node and its pods stay as they are in the cluster."""
        super().close()
        for thread, _ in list(self._workers.values()):
            thread.join()

    def _wake(self) -> None:
        for processes in list(self.pods.values()):
            for each in processes:
                with contextlib.suppress(OSError):
                    os.killpg(each.pid, signal.SIGKILL)

    def _make_node(self, capacity: Mapping[str, str]) -> None:
        labels = {"kubernetes.io/hostname": self._node, "ipa-energy/node": self._node}
        status = {
            "capacity": dict(capacity),
            "allocatable": dict(capacity),
            "conditions": [condition("Ready", "True", "KubeletReady", "")],
        }
        body = {"metadata": {"name": self._node, "labels": labels}, "status": status}
        with contextlib.suppress(Exception):  # it may be there already
            self._core.create_node({"apiVersion": "v1", "kind": "Node", **body})
        self._core.patch_node_status(self._node, {"status": status}, _content_type=STRATEGIC_PATCH)
        self._core.patch_node(
            self._node,
            {"metadata": {"labels": labels}, "spec": {"taints": None}},
            _content_type="application/merge-patch+json",
        )

    def _run(self) -> None:
        """Look after every pod of the node as it comes and goes."""
        while not self.is_closing.is_set():
            try:
                for pod in self._pods():
                    self._see(pod)
            except Exception:  # noqa: BLE001  (the server may be away; a kubelet tries again)
                self.is_closing.wait(0.2)
            self.is_closing.wait(POLL_S)

    def _pods(self) -> list[Object]:
        answer = self._core.list_pod_for_all_namespaces(
            field_selector=f"spec.nodeName={self._node}",
            _request_timeout=5,
            _preload_content=False,
        )
        found: list[Object] = _json(answer)["items"]
        uids = {each["metadata"]["uid"] for each in found}
        for uid, (_, is_over) in list(self._workers.items()):
            if uid not in uids:
                is_over.set()
        return found

    def _see(self, pod: Object) -> None:
        uid = pod["metadata"]["uid"]
        if uid in self._workers:
            thread, is_over = self._workers[uid]
            if "deletionTimestamp" in pod["metadata"]:
                is_over.set()
            elif self._program is None:
                self._follow(pod)
            return
        is_over = threading.Event()
        if "deletionTimestamp" in pod["metadata"]:
            is_over.set()
        thread = threading.Thread(target=self._tend, args=(pod, is_over), daemon=True)
        self._workers[uid] = thread, is_over
        thread.start()

    def _follow(self, pod: Object) -> None:
        """A pretended pod has at once what a resize gave it."""
        if not is_ready(pod):
            return
        new = running(pod, pod["status"]["podIP"])
        has = [each.get("resources") for each in pod["status"].get("containerStatuses", ())]
        if has != [each.get("resources") for each in new["status"]["containerStatuses"]]:
            self._say(pod, new)

    def _tend(self, pod: Object, is_over: threading.Event) -> None:
        """The life of one pod."""
        self._addresses += 1
        address = f"{self._prefix}.{self._addresses % 250 + 1}"
        grace_s = float(pod["spec"].get("terminationGracePeriodSeconds", 30))
        with tempfile.TemporaryDirectory(prefix="pod-") as folder:
            try:
                if self._program is None:
                    if not is_over.wait(self._ready_after_s):
                        self._say(pod, running(pod, address))
                        self._wait(is_over)
                else:
                    self._run_pod(pod, address, Path(folder), is_over, self._program)
            finally:
                self._end(pod, grace_s)
        if not self.is_closing.is_set():
            with contextlib.suppress(Exception):  # it may be gone already
                self._core.delete_namespaced_pod(
                    pod["metadata"]["name"],
                    pod["metadata"]["namespace"],
                    body={
                        "gracePeriodSeconds": 0,
                        "preconditions": {"uid": pod["metadata"]["uid"]},
                    },
                )

    def _wait(self, is_over: threading.Event) -> None:
        while not self.is_closing.is_set() and not is_over.wait(POLL_S):
            pass

    def _run_pod(
        self,
        pod: Object,
        address: str,
        folder: Path,
        is_over: threading.Event,
        program: Program,
    ) -> None:
        """Start its containers, say when it is ready, start again what ends."""
        name = pod["metadata"]["name"]
        mounts = self._mounted(pod, folder)
        containers = pod["spec"]["containers"]
        self.pods[name] = [
            self._started(pod, each, address, mounts, program(each)) for each in containers
        ]
        said, restarts, probed_s, ready, failures = False, 0, 0.0, False, 0
        while not is_over.is_set() and not self.is_closing.is_set():
            for n, process in enumerate(self.pods[name]):
                if process.poll() is not None and not is_over.wait(RESTART_S):
                    restarts, probed_s, failures = restarts + 1, 0.0, FAILURES
                    each = containers[n]
                    self.pods[name][n] = self._started(pod, each, address, mounts, program(each))
            if not said or time.monotonic() - probed_s > PROBE_PERIOD_S:
                is_well = all(_is_probed(each, address) for each in containers)
                failures = 0 if is_well else failures + 1
                ready = is_well or (said and failures < FAILURES)
                probed_s = time.monotonic()
            if ready != said:
                new = running(pod, address)
                for each in new["status"]["containerStatuses"]:
                    each["ready"], each["restartCount"] = ready, restarts
                for each in new["status"]["conditions"]:
                    if each["type"] in ("Ready", "ContainersReady"):
                        each["status"] = str(ready)
                self._say(pod, new)
                said = ready
            is_over.wait(POLL_S)
        wait_s = max((_pre_stop_s(each) for each in containers), default=0.0)
        self.is_closing.wait(wait_s)  # it serves meanwhile

    def _say(self, pod: Object, new: Object) -> None:
        with contextlib.suppress(Exception):  # it may be gone meanwhile
            self._core.patch_namespaced_pod_status(
                pod["metadata"]["name"],
                pod["metadata"]["namespace"],
                {"status": new["status"]},
                field_manager="kubelet",
                _content_type=STRATEGIC_PATCH,
            )

    def _started(
        self,
        pod: Object,
        container: Object,
        address: str,
        mounts: Mapping[str, str],
        command: Sequence[str],
    ) -> subprocess.Popen[bytes]:
        named = {path: here for path, here in mounts.items() if any(Path(here).iterdir())}
        places = {**named, EVERYWHERE: address}  # an empty folder's name may be part of another's
        environment = {
            **os.environ,
            **self._environment,
            **{
                each["name"]: _placed(_value(each, pod, address), places)
                for each in container.get("env", ())
            },
        }
        folder = container.get("workingDir", "")
        return subprocess.Popen(
            [_expanded(_placed(each, places), environment) for each in command],
            stdin=subprocess.DEVNULL,
            cwd=mounts.get(folder),
            env=environment,
            start_new_session=True,
        )

    def _mounted(self, pod: Object, folder: Path) -> dict[str, str]:
        """Where the files of the pod's config maps are: path in the container → path here."""
        maps = {
            each["name"]: each["configMap"]["name"]
            for each in pod["spec"].get("volumes", ())
            if "configMap" in each
        }
        mounts = {}
        for container in pod["spec"]["containers"]:
            for mount in container.get("volumeMounts", ()):
                place = folder / mount["name"]
                place.mkdir(exist_ok=True)
                mounts[mount["mountPath"]] = str(place)
                if mount["name"] in maps:
                    found = self._core.read_namespaced_config_map(
                        maps[mount["name"]], pod["metadata"]["namespace"], _preload_content=False
                    )
                    for file, text in (_json(found).get("data") or {}).items():
                        (place / file).write_text(text, encoding="utf-8")
        return mounts

    def _end(self, pod: Object, grace_s: float) -> None:
        """SIGTERM, and SIGKILL for what is still there after the grace period."""
        processes = self.pods.get(pod["metadata"]["name"], [])
        for each in processes:
            with contextlib.suppress(OSError):
                os.killpg(each.pid, signal.SIGTERM)
        until_s = time.monotonic() + (0.0 if self.is_closing.is_set() else grace_s)
        for each in processes:
            while each.poll() is None and time.monotonic() < until_s:
                time.sleep(POLL_S / 5)
            with contextlib.suppress(OSError):
                os.killpg(each.pid, signal.SIGKILL)
            each.wait()
        self.pods.pop(pod["metadata"]["name"], None)


def as_command(container: Object, mlserver: str | None = None) -> list[str]:
    """A container's own command; ``python`` and ``mlserver`` are those of this environment.

    Args:
        container: its part of the manifest.
        mlserver: a program in Python to run in the place of ``mlserver`` and what it is told.
    """
    words = [*container.get("command", ()), *container.get("args", ())]
    if mlserver is not None and words[:1] == ["mlserver"]:
        return [sys.executable, mlserver]
    here = Path(sys.executable).parent
    return [str(here / word) if word in ("python", "mlserver") else word for word in words]


def _json(answer: Any) -> Any:
    return json.loads(answer.data)


def _value(variable: Object, pod: Object, address: str) -> str:
    """A variable's value; of those from elsewhere the fields of the pod itself."""
    if "valueFrom" not in variable:
        return str(variable.get("value", ""))
    path = variable["valueFrom"].get("fieldRef", {}).get("fieldPath", "")
    if path == "status.podIP":
        return address
    found: Any = pod
    for step in path.split("."):
        found = found.get(step, "") if isinstance(found, dict) else ""
    return str(found)


def _placed(text: str, mounts: Mapping[str, str]) -> str:
    for inside, here in mounts.items():
        text = text.replace(inside, here)
    return text


def _expanded(text: str, environment: Mapping[str, str]) -> str:
    for name, value in environment.items():
        text = text.replace(f"$({name})", value)
    return text


def _pre_stop_s(container: Object) -> float:
    """How long it waits before it is told to end: the only hook there is, of either form."""
    hook = container.get("lifecycle", {}).get("preStop", {})
    command = hook.get("exec", {}).get("command", ())
    if list(command[:1]) == ["sleep"]:
        return float(command[1])
    return float(hook.get("sleep", {}).get("seconds", 0))


def _is_probed(container: Object, address: str) -> bool:
    """Whether a container's readiness probe succeeds now; without one it does."""
    probe = container.get("readinessProbe", {})
    named = {each.get("name"): each["containerPort"] for each in container.get("ports", ())}
    for kind in ("httpGet", "tcpSocket", "grpc"):
        if kind in probe:
            port = probe[kind]["port"]
            port = int(named.get(port, port))
            break
    else:
        return True
    try:
        if kind != "httpGet":
            with socket.create_connection((address, port), timeout=PROBE_TIMEOUT_S):
                return True
        connection = http.client.HTTPConnection(address, port, timeout=PROBE_TIMEOUT_S)
        with contextlib.closing(connection):
            connection.request("GET", probe[kind].get("path", "/"))
            return connection.getresponse().status < http.client.BAD_REQUEST
    except (OSError, http.client.HTTPException):
        return False
