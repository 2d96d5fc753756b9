"""A model of a pipeline behind MLServer: the one door to it, inside a replica's own process.

Of MLServer this uses the data plane, the registry of models and the gRPC service, as far as one
model on one port needs them. Off are: its worker processes (a replica is one process), its batching
(the router's queue makes the batches), HTTP, metrics, access logs, and loading further models at a
client's word. The port is the kernel's choice and shared with nobody.

What comes in is checked before the model sees it, and refused with ``INVALID_ARGUMENT`` and the
reason, which says nothing against the replica; what a model raises beside ``ValueError`` is
``INTERNAL``, which does. Nothing that comes in is evaluated.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import json
import logging
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from typing import Any, cast

import grpc.aio
from mlserver import MLModel, ModelSettings, Settings
from mlserver.errors import InferenceError
from mlserver.grpc.dataplane_pb2_grpc import (
    GRPCInferenceServiceServicer,
    add_GRPCInferenceServiceServicer_to_server,
)
from mlserver.grpc.servicers import InferenceServicer
from mlserver.server import MLServer
from mlserver.settings import ModelParameters
from mlserver.types import (
    InferenceRequest,
    InferenceResponse,
    MetadataTensor,
    Parameters,
    ResponseOutput,
)

from ipa_energy.errors import IpaEnergyError
from ipa_energy.pipeline_models import (
    Handler,
    ModelSpec,
    Signature,
    find_variant,
    load_pipeline,
    served_pipeline,
)
from ipa_energy.serving.local.protocol import (
    MAX_JSON_CHARACTERS,
    MAX_MESSAGE_BYTES,
    BadMessageError,
    Payload,
    spread,
)
from ipa_energy.serving.local.rpc import SERVER_OPTIONS, run

MAX_BATCH = 1024
"""Elements of one request; more are refused."""

WARM_UP_SEED = 0


def load_handler(spec: ModelSpec) -> Handler:
    """The model ready to answer, its first answer given: the first one takes longer.

    Returns:
        a :data:`~ipa_energy.pipeline_models.SpreadingHandler` where it yields other than one.

    Raises:
        IpaEnergyError: it cannot be loaded; with the fix.
    """
    pipeline = served_pipeline(load_pipeline(spec.pipeline))
    variant = find_variant(pipeline, spec.stage, spec.variant)
    more: dict[str, Any] = {} if spec.yields == 1 else {"yields": spec.yields}
    handler = cast(
        Handler,
        pipeline.handler(
            variant, weights=spec.weights, threads=spec.threads, device=spec.device, **more
        ),
    )
    handler(pipeline.requests(WARM_UP_SEED, 1, stage=spec.stage))
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # what loading needed is not needed again
    return handler


class PipelineModel(MLModel):  # type: ignore[misc]
    """One variant of one stage."""

    async def load(self) -> bool:
        """Load it in the one thread that will run it."""
        spec = ModelSpec(**self.settings.parameters.extra)
        self._spreads = spec.yields != 1
        self._signature = served_pipeline(load_pipeline(spec.pipeline)).signature(spec.stage)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="model")
        loop = asyncio.get_running_loop()
        self._handler = await loop.run_in_executor(self._thread, load_handler, spec)
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Answer a batch: an answer an element or as many as it yields, parameters as they came."""
        elements = checked_elements(payload, self._signature)
        beside = checked_parameters(payload)
        loop = asyncio.get_running_loop()
        try:
            answers: Sequence[Any] = await loop.run_in_executor(
                self._thread, self._handler, elements
            )
        except ValueError as error:
            raise InferenceError(str(error)) from error
        if len(answers) != len(elements):
            raise RuntimeError(f"a batch of {len(elements)} got {len(answers)} answers")
        if self._spreads:
            answers, beside = spread_answers(elements, beside, answers)
        output = ResponseOutput(
            name="output", shape=[len(answers)], datatype="BYTES", data=list(answers)
        )
        parameters = Parameters(json=beside) if beside is not None else None
        return InferenceResponse(model_name=self.name, outputs=[output], parameters=parameters)


def checked_elements(payload: InferenceRequest, signature: Signature) -> list[bytes]:
    """The byte strings of a request.

    Raises:
        InferenceError: it has not the form that is declared.
    """
    if len(payload.inputs) != 1:
        raise InferenceError(f"{len(payload.inputs)} inputs; allowed: 1")
    tensor = payload.inputs[0]
    datatype = getattr(tensor.datatype, "value", tensor.datatype)
    if datatype != "BYTES":
        raise InferenceError(f"an input of datatype {datatype!r}; allowed: BYTES")
    elements = list(tensor.data)
    if list(tensor.shape) not in ([len(elements)], [len(elements), 1]):
        raise InferenceError(
            f"an input of shape {list(tensor.shape)} with {len(elements)} elements"
        )
    if not 1 <= len(elements) <= MAX_BATCH:
        raise InferenceError(f"{len(elements)} elements; allowed: 1 to {MAX_BATCH}")
    for number, element in enumerate(elements):
        if not isinstance(element, bytes):
            raise InferenceError(f"element {number} is no byte string")
        if not 1 <= len(element) <= signature.max_bytes:
            raise InferenceError(
                f"element {number} of {len(element)} bytes;"
                f" allowed: {signature.takes} of 1 to {signature.max_bytes} bytes"
            )
    return elements


def checked_parameters(payload: InferenceRequest) -> str | None:
    """The JSON text beside the elements, which is handed on unread; None if there is none.

    Raises:
        InferenceError: it is no text, or too long.
    """
    beside = (payload.parameters.model_extra or {}).get("json") if payload.parameters else None
    if beside is None:
        return None
    if not isinstance(beside, str) or len(beside) > MAX_JSON_CHARACTERS:
        raise InferenceError(f"parameter json is no text of up to {MAX_JSON_CHARACTERS} characters")
    return beside


def spread_answers(
    elements: Sequence[bytes], beside: str | None, answers: Sequence[Any]
) -> tuple[Sequence[bytes], str | None]:
    """What each element has become, in a row, and the JSON text that says whose it is.

    Args:
        elements: of the batch.
        beside: the JSON text that came with it.
        answers: those of a :data:`~ipa_energy.pipeline_models.SpreadingHandler`.

    Raises:
        InferenceError: the parameters do not say whose the elements are.
    """
    try:
        told = json.loads(beside) if beside else {}
        spread_out = spread(Payload(tuple(elements), told), answers)
    except (ValueError, AttributeError, BadMessageError) as error:
        raise InferenceError(f"parameter json: {error}") from error
    return spread_out.elements, json.dumps(spread_out.parameters) if spread_out.parameters else None


class _Service(InferenceServicer):  # type: ignore[misc]
    """MLServer's service without its repository: no client loads or unloads a model."""

    RepositoryIndex = GRPCInferenceServiceServicer.RepositoryIndex
    RepositoryModelLoad = GRPCInferenceServiceServicer.RepositoryModelLoad
    RepositoryModelUnload = GRPCInferenceServiceServicer.RepositoryModelUnload


class _Port:
    """MLServer's gRPC server, on a port of the kernel's choice that nobody else shares."""

    def __init__(self, data_plane: Any, repository: Any) -> None:
        self._server = grpc.aio.server(options=SERVER_OPTIONS)
        add_GRPCInferenceServiceServicer_to_server(_Service(data_plane, repository), self._server)
        self.port = 0

    async def start(self) -> None:
        """Listen, and return when it was stopped."""
        self.port = self._server.add_insecure_port("127.0.0.1:0")
        await self._server.start()

    async def stop(self, sig: int | None = None) -> None:
        """Finish what is under way, for five seconds at most."""
        await self._server.stop(5.0)

    async def wait(self) -> None:
        """Return when it was stopped."""
        await self._server.wait_for_termination()


class _NoHttp:
    """What MLServer tells its HTTP server, which is not there."""

    async def add_custom_handlers(self, model: MLModel) -> MLModel:
        return model

    async def delete_custom_handlers(self, model: MLModel) -> MLModel:
        return model

    async def stop(self, sig: int | None = None) -> None:
        pass


class ReplicaServer(MLServer):  # type: ignore[misc]
    """MLServer with one model and one port.

    Args:
        name: of the server; no two replicas have the same.
    """

    def __init__(self, name: str) -> None:
        super().__init__(
            Settings(
                debug=False,
                server_name=name,
                host="127.0.0.1",
                parallel_workers=0,
                metrics_endpoint=None,
                gzip_enabled=False,
                cache_enabled=False,
                load_models_at_startup=False,
                grpc_max_message_length=MAX_MESSAGE_BYTES,
            )
        )

    async def begin(self, model: ModelSettings) -> int:
        """Load the model, then listen; the port."""
        await self._model_registry.load(model)
        await self._grpc_server.start()
        super()._add_signal_handlers()
        return int(self._grpc_server.port)

    async def wait(self) -> None:
        """Return when it was told to end and has."""
        await self._grpc_server.wait()

    def _add_signal_handlers(self) -> None:
        """Not before there is something to finish."""

    def _configure_logger(self) -> None:
        logging.getLogger("mlserver").setLevel(logging.ERROR)
        logging.getLogger("mlserver.grpc").setLevel(logging.CRITICAL)  # the router is told

    def _create_servers(self) -> None:
        self._rest_server, self._kafka_server = _NoHttp(), None
        self._grpc_server = _Port(self._data_plane, self._model_repository_handlers)


def model_settings(spec: ModelSpec, name: str, signature: Signature) -> ModelSettings:
    """What MLServer is told of a model, and tells who asks for its metadata."""

    def tensor(tensor_name: str, media_type: str) -> MetadataTensor:
        parameters = Parameters(content_type=media_type)
        return MetadataTensor(name=tensor_name, datatype="BYTES", shape=[-1], parameters=parameters)

    return ModelSettings(
        name=name,
        implementation=PipelineModel,
        platform=f"ipa-energy {spec.stage}/{spec.variant}",
        inputs=[tensor("input", signature.takes)],
        outputs=[tensor("output", signature.gives)],
        parameters=ModelParameters(extra=asdict(spec)),
    )


def serve(spec: ModelSpec, name: str, report_to: int) -> int:
    """Serve until told to end.

    Args:
        spec: what.
        name: of model and server.
        report_to: descriptor that gets a line ``{"port"}`` when it serves, or ``{"error"}``.

    Returns:
        the exit status.
    """
    statuses: list[int] = []

    async def main() -> None:
        try:
            server = ReplicaServer(name)
            signature = served_pipeline(load_pipeline(spec.pipeline)).signature(spec.stage)
            port = await server.begin(model_settings(spec, name, signature))
        except Exception as error:  # noqa: BLE001 - told to who started this
            told = str(error) if isinstance(error, IpaEnergyError) else repr(error)
            _report(report_to, {"error": told})
            statuses.append(1)
            return
        _report(report_to, {"port": port})
        await server.wait()

    run(main())
    return max(statuses, default=0)


def _report(report_to: int, what: dict[str, Any]) -> None:
    os.write(report_to, json.dumps(what).encode() + b"\n")
    os.close(report_to)


def check_models(specs: Sequence[ModelSpec]) -> str | None:
    """What is wrong with the first of these models that cannot be loaded; None if all can."""
    for spec in specs:
        try:
            load_handler(spec)
        except IpaEnergyError as error:
            return str(error)
    return None
