"""A stub for MLServer in a pod, which starts at once and serves what its environment says.

It answers what is asked of MLServer here, after the times of a profile: gRPC inference, whether the
model is ready by gRPC and HTTP, and the server's name.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import threading
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from ipa_energy.serving.local.protocol import Named
from ipa_energy.serving.local.rpc import run, start_server
from ipa_energy.serving.local.stub_model import StubModel

STOP_S = 5.0
ENVIRONMENT = "MLSERVER_"


@dataclass(frozen=True, slots=True)
class PodStub:
    """A stub that has a name of its own, as a server; one service of :mod:`.rpc`."""

    name: str
    model: StubModel

    def is_ready(self, model: str) -> bool:
        """Always, for its own model."""
        return self.model.is_ready(model)

    async def infer(self, named: Named) -> Named:
        """The same again, later."""
        return await self.model.infer(named)


async def serve(stub: PodStub, host: str, grpc_port: str, http_port: str) -> None:
    """Serve until told to stop: then finish what is under way."""
    server, _ = await start_server(stub, f"{host}:{grpc_port}")
    health = ThreadingHTTPServer((host, int(http_port)), _health(stub))
    threading.Thread(target=health.serve_forever, daemon=True).start()
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await stop.wait()
    await server.stop(STOP_S)


def _health(stub: PodStub) -> type[BaseHTTPRequestHandler]:
    class Health(BaseHTTPRequestHandler):
        """``/v2/models/NAME/ready``."""

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            """Nothing."""

        def do_GET(self) -> None:
            """200 for the model that is there, else 404."""
            is_there = self.path == f"/v2/models/{stub.model.name}/ready"
            self.send_response(200 if is_there else 404)
            self.send_header("Content-Length", "0")
            self.end_headers()

    return Health


def serve_pod() -> None:
    """Serve what the environment says."""
    told = {
        name.removeprefix(ENVIRONMENT): value
        for name, value in os.environ.items()
        if name.startswith(ENVIRONMENT)
    }
    extra = json.loads(told.get("MODEL_EXTRA", "{}"))
    batch_s = {int(size): float(s) for size, s in extra.get("batch_s", {"1": 0.0}).items()}
    stub = PodStub(told["SERVER_NAME"], StubModel(told["MODEL_NAME"], batch_s))
    with contextlib.suppress(KeyboardInterrupt):
        run(serve(stub, told["HOST"], told["GRPC_PORT"], told["HTTP_PORT"]))


if __name__ == "__main__":
    serve_pod()
