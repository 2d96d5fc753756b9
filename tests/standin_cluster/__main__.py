"""A cluster on this machine, to try ``--backend kubernetes`` without one.

::

    python -m tests.standin_cluster --kubeconfig /tmp/kubeconfig &
    ipa-energy run video --backend kubernetes-stub --kubeconfig /tmp/kubeconfig --out runs/cluster

Pods are processes of this machine; with ``--pretend`` they are only said to run. It says where it
listens once it does, and ends with Ctrl-C.
"""

from __future__ import annotations

import argparse
import contextlib
import signal
import threading
from functools import partial
from pathlib import Path

from kubernetes import client as kubernetes

from .api_server import ApiServer
from .api_write_rules import Request
from .node_agent import NodeAgent, as_command
from .seldon import DEFINITION
from .world import World

NODE = "this-machine"
PRETENDED = {"cpu": "10000", "memory": "100Ti", "pods": "10000"}


def main() -> None:
    """Run until told to stop."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.standin_cluster",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--kubeconfig", type=Path, required=True, help="file to write")
    parser.add_argument("--namespace", default="default", help="of the kubeconfig; it is made")
    parser.add_argument(
        "--pretend", action="store_true", help="start nothing: pods are said to run"
    )
    parser.add_argument(
        "--mlserver", metavar="FILE.py", type=_program, help="what pods run in its place"
    )
    args = parser.parse_args()
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(ApiServer())
        definitions = server.resources["apiextensions.k8s.io", "v1", "customresourcedefinitions"]
        server.writes.create(Request(definitions, ""), dict(DEFINITION))
        if args.namespace not in ("default", "kube-system"):
            namespaces = server.resources["", "v1", "namespaces"]
            server.writes.create(Request(namespaces, ""), {"metadata": {"name": args.namespace}})
        accounts = server.resources["", "v1", "serviceaccounts"]
        account = {"metadata": {"name": "ipa-energy-router"}}
        server.writes.create(Request(accounts, args.namespace), account)
        path = server.kubeconfig(args.kubeconfig, namespace=args.namespace)
        if args.pretend:
            stack.enter_context(World(server, nodes={NODE: PRETENDED}))
        else:
            stack.enter_context(World(server, nodes={}, starts_pods=False))
            client = kubernetes.ApiClient(kubernetes.Configuration(host=server.url))
            environment = {"KUBECONFIG": str(path.resolve())}
            program = partial(as_command, mlserver=args.mlserver)
            stack.enter_context(NodeAgent(client, NODE, program, environment=environment))
        print(f"{server.url} KUBECONFIG={path}", flush=True)
        stop.wait()


def _program(text: str) -> str:
    """A file as pods find it, whose working folders are their own."""
    path = Path(text).resolve()
    if not path.is_file():
        raise argparse.ArgumentTypeError(f"{text}: no such file")
    return str(path)


if __name__ == "__main__":
    main()
