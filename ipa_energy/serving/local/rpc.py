"""gRPC at both ends of the router: a server of the protocol, and a client for one replica."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine, Mapping
from typing import Any, Protocol

import grpc
import grpc.aio

from ipa_energy.errors import ServingError
from ipa_energy.serving.local.protocol import (
    INPUT,
    MAX_MESSAGE_BYTES,
    MESSAGES,
    SERVICE,
    BadMessageError,
    DroppedError,
    Named,
    Payload,
    RefusedError,
    ReplicaLostError,
    answer_bytes,
    parse_answer,
    parse_request,
    request_bytes,
)

_SIZES = [
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
]
SERVER_OPTIONS = [*_SIZES, ("grpc.so_reuseport", 0)]
"""Without the last one two servers share a port and nobody notices."""

CHANNEL_OPTIONS = [
    *_SIZES,
    ("grpc.initial_reconnect_backoff_ms", 20),
    ("grpc.min_reconnect_backoff_ms", 20),
    ("grpc.max_reconnect_backoff_ms", 100),
    ("grpc.enable_http_proxy", 0),
    ("grpc.use_local_subchannel_pool", 1),
]
"""gRPC's own wait before it connects again is a second. A replica has a connection of its own."""

LOST = {
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.INTERNAL,
    grpc.StatusCode.UNKNOWN,
}
"""Statuses that say that the replica, not the request, is at fault; UNKNOWN is what gRPC itself
answers when a model raised something."""


class Service(Protocol):
    """What a server of the protocol serves."""

    @property
    def name(self) -> str:
        """Of server and model."""
        ...

    def is_ready(self, model: str) -> bool:
        """True if ``model`` (the empty name: the server) can be asked now."""
        ...

    async def infer(self, named: Named) -> Named:
        """Answer a request; a :class:`~ipa_energy.errors.ServingError` is told to the client."""
        ...


async def start_server(service: Service, address: str = "127.0.0.1:0") -> tuple[Any, int]:
    """A listening server and its port, which the kernel chooses where ``address`` ends in ``:0``.

    Raises:
        ServingError: the address cannot be had.
    """
    server = grpc.aio.server(options=SERVER_OPTIONS)
    server.add_generic_rpc_handlers((_handlers(service),))
    try:
        port = server.add_insecure_port(address)
    except RuntimeError as error:
        raise ServingError(f"cannot listen at {address}; fix: name another port") from error
    await server.start()
    return server, port


def _handlers(service: Service) -> Any:
    async def infer(data: bytes, context: Any) -> bytes:
        try:
            return answer_bytes(await service.infer(parse_request(data)))
        except ServingError as error:
            await context.abort(_status(error), str(error))
            raise

    async def live(_: Any, __: Any) -> Any:
        return MESSAGES["ServerLiveResponse"](live=True)

    async def ready(_: Any, __: Any) -> Any:
        return MESSAGES["ServerReadyResponse"](ready=service.is_ready(""))

    async def model_ready(request: Any, _: Any) -> Any:
        return MESSAGES["ModelReadyResponse"](ready=service.is_ready(request.name))

    async def metadata(_: Any, __: Any) -> Any:
        return MESSAGES["ServerMetadataResponse"](name=service.name)

    def handler(function: Any, name: str) -> Any:
        return grpc.unary_unary_rpc_method_handler(
            function,
            request_deserializer=MESSAGES[f"{name}Request"].FromString,
            response_serializer=lambda answer: answer.SerializeToString(),
        )

    methods = {
        "ModelInfer": grpc.unary_unary_rpc_method_handler(infer),
        "ServerLive": handler(live, "ServerLive"),
        "ServerReady": handler(ready, "ServerReady"),
        "ModelReady": handler(model_ready, "ModelReady"),
        "ServerMetadata": handler(metadata, "ServerMetadata"),
    }
    return grpc.method_handlers_generic_handler(SERVICE, methods)


def _status(error: ServingError) -> Any:
    if isinstance(error, BadMessageError | RefusedError):
        return grpc.StatusCode.INVALID_ARGUMENT
    if isinstance(error, DroppedError):
        return grpc.StatusCode.DEADLINE_EXCEEDED
    return grpc.StatusCode.UNAVAILABLE


class RemoteReplica:
    """:class:`.stage_queue.Replica` behind an address.

    Args:
        name: of the replica, for messages.
        address: ``host:port`` of its server.
        model: what is asked there.
        batch, batch_timeout_s, call_timeout_s: see :class:`.stage_queue.Replica`.
    """

    def __init__(
        self,
        name: str,
        address: str,
        *,
        model: str,
        batch: int = 1,
        batch_timeout_s: float = 0.0,
        call_timeout_s: float = 60.0,
    ) -> None:
        self.name = name
        self.address = address
        self.model = model
        self.batch = batch
        self.batch_timeout_s = batch_timeout_s
        self.call_timeout_s = call_timeout_s
        self.in_time_s: Mapping[str, float] = {}
        self._channel = grpc.aio.insecure_channel(address, options=CHANNEL_OPTIONS)
        self._infer = self._channel.unary_unary(f"/{SERVICE}/ModelInfer")
        self._model_ready = self._method("ModelReady")
        self._metadata = self._method("ModelMetadata")
        self._server_metadata = self._method("ServerMetadata")

    def _method(self, name: str) -> Any:
        return self._channel.unary_unary(
            f"/{SERVICE}/{name}",
            request_serializer=lambda request: request.SerializeToString(),
            response_deserializer=MESSAGES[f"{name}Response"].FromString,
        )

    async def infer(self, payload: Payload) -> Payload:
        """Serve a batch there; see :meth:`.stage_queue.Replica.infer`."""
        return await self.ask("", payload)

    async def ask(self, request_id: str, payload: Payload) -> Payload:
        """The same, with a name of the client's for the request."""
        named = Named(self.model, request_id, payload)
        return parse_answer(await self.answer(request_bytes(named))).payload

    async def answer(self, request: bytes) -> bytes:
        """The answer to an encoded request, whatever is in it."""
        try:
            data: bytes = await self._infer(request)
        except grpc.aio.AioRpcError as error:
            told = f"replica {self.name}: {error.code().name}: {error.details()}"
            if error.code() in LOST:
                raise ReplicaLostError(told) from error
            raise RefusedError(told) from error
        return data

    async def is_ready(self, timeout_s: float = 1.0) -> bool:
        """True if the model says so within the time."""
        request = MESSAGES["ModelReadyRequest"](name=self.model)
        try:
            answer = await self._model_ready(request, timeout=timeout_s, wait_for_ready=True)
        except grpc.aio.AioRpcError:
            return False
        return bool(answer.ready)

    async def input_name(self, timeout_s: float = 5.0) -> str:
        """How the model calls the tensor that it takes, if it says so."""
        request = MESSAGES["ModelMetadataRequest"](name=self.model)
        try:
            answer = await self._metadata(request, timeout=timeout_s)
        except grpc.aio.AioRpcError:  # the protocol's part that many servers leave out
            return INPUT
        return str(answer.inputs[0].name) if answer.inputs else INPUT

    async def server_name(self, timeout_s: float) -> str | None:
        """What the server there calls itself; None if it does not say so within the time."""
        request = MESSAGES["ServerMetadataRequest"]()
        try:
            asked = self._server_metadata(request, timeout=timeout_s, wait_for_ready=True)
            answer = await asked
        except grpc.aio.AioRpcError:
            return None
        return str(answer.name)

    async def close(self) -> None:
        """Close the connection."""
        await self._channel.close()


def run(main: Coroutine[Any, Any, None]) -> None:
    """Run a program's event loop: uvloop's where it is installed, which is less late."""
    factory = None
    with contextlib.suppress(ImportError):
        import uvloop

        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(main)
