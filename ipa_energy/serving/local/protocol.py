"""The Open Inference Protocol V2 over gRPC, as far as a pipeline needs it.

A request carries byte strings, say one JPEG each, and a JSON object beside them::

    ModelInferRequest   id, model_name, inputs: one BYTES tensor of shape [n], parameter "json"
    ModelInferResponse  id, model_name, outputs: the same

so that any server of the protocol can stand behind a stage. A batch is the elements of its requests
one after the other; ``json`` says under ``parts`` how many belong to each, and under ``requests``
what each one's own object is; neither is said where every request is one element and nothing else.
A model may return more or fewer elements than it got (a detector returns crops), and then says in
``parts`` whose they are.

Nothing that comes in is evaluated, and whatever does not have this form is refused with a
:class:`BadMessageError` that says why. The messages are declared here by number and type, in a pool
of their own, so that another library's declaration of the same names does not collide with them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError

from ipa_energy.errors import ServingError

SERVICE = "inference.GRPCInferenceService"

MAX_MESSAGE_BYTES = 64 * 2**20
"""gRPC's own 4 MiB hold no batch of pictures; both ends must be told."""

MAX_JSON_CHARACTERS = 2**20

Json = Mapping[str, Any]


class BadMessageError(ServingError):
    """A message has not the form that this module describes: it is refused, and not tried again."""


class ReplicaLostError(ServingError):
    """A replica cannot be used any more: gone, hung, or answering what is no answer."""


class RefusedError(ServingError):
    """The model refuses this input; another replica would, too."""


class DroppedError(ServingError):
    """The request was older than the drop limit when its batch was formed."""


class StageFailedError(ServingError):
    """The request was tried as often as allowed, or the stage is closed."""


@dataclass(frozen=True, slots=True)
class Payload:
    """What goes into a stage and comes out of it.

    Attributes:
        elements: byte strings, e.g. one picture each.
        parameters: a JSON object of whatever the stages hand each other beside them.
    """

    elements: tuple[bytes, ...]
    parameters: Json = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Named:
    """A payload and whose it is.

    Attributes:
        model: name of the model that is asked or that answers.
        request_id: chosen by the client; empty if it chose none.
        payload: what is sent.
    """

    model: str
    request_id: str
    payload: Payload


_FieldSpec = tuple[int, str, str]
_MESSAGES: dict[str, tuple[_FieldSpec, ...]] = {
    "ServerLiveRequest": (),
    "ServerLiveResponse": ((1, "live", "bool"),),
    "ServerReadyRequest": (),
    "ServerReadyResponse": ((1, "ready", "bool"),),
    "ModelReadyRequest": ((1, "name", "string"), (2, "version", "string")),
    "ModelReadyResponse": ((1, "ready", "bool"),),
    "ServerMetadataRequest": (),
    "ServerMetadataResponse": (
        (1, "name", "string"),
        (2, "version", "string"),
        (3, "extensions", "string*"),
    ),
    "ModelMetadataRequest": ((1, "name", "string"), (2, "version", "string")),
    "ModelMetadataResponse": ((1, "name", "string"), (4, "inputs", "TensorMetadata*")),
    "TensorMetadata": ((1, "name", "string"), (2, "datatype", "string")),
    "InferParameter": (
        (1, "bool_param", "bool|"),
        (2, "int64_param", "int64|"),
        (3, "string_param", "string|"),
    ),
    "InferTensorContents": (
        (1, "bool_contents", "bool*"),
        (2, "int_contents", "int32*"),
        (3, "int64_contents", "int64*"),
        (4, "uint_contents", "uint32*"),
        (5, "uint64_contents", "uint64*"),
        (6, "fp32_contents", "float*"),
        (7, "fp64_contents", "double*"),
        (8, "bytes_contents", "bytes*"),
    ),
    "Tensor": (
        (1, "name", "string"),
        (2, "datatype", "string"),
        (3, "shape", "int64*"),
        (4, "parameters", "InferParameter%"),
        (5, "contents", "InferTensorContents"),
    ),
    "ModelInferRequest": (
        (1, "model_name", "string"),
        (2, "model_version", "string"),
        (3, "id", "string"),
        (4, "parameters", "InferParameter%"),
        (5, "inputs", "Tensor*"),
        (7, "raw_input_contents", "bytes*"),
    ),
    "ModelInferResponse": (
        (1, "model_name", "string"),
        (2, "model_version", "string"),
        (3, "id", "string"),
        (4, "parameters", "InferParameter%"),
        (5, "outputs", "Tensor*"),
        (6, "raw_output_contents", "bytes*"),
    ),
}
"""Message → (number, name, type): ``*`` is repeated, ``%`` a map from string, ``|`` one of several.
On the wire a message has no name, so that ``Tensor`` stands for inputs and outputs alike."""


def _declared() -> dict[str, Any]:
    """Message → its class."""
    file = descriptor_pb2.FileDescriptorProto(
        name="ipa_energy/open_inference.proto", package="inference", syntax="proto3"
    )
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for number, field_name, spec in fields:
            _add_field(message, number, field_name, spec)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"inference.{name}"))
        for name in _MESSAGES
    }


def _add_field(message: Any, number: int, name: str, spec: str) -> None:
    kind, mark = spec.rstrip("*%|"), spec[-1]
    added = message.field.add(name=name, number=number)
    added.label = added.LABEL_REPEATED if mark in "*%" else added.LABEL_OPTIONAL
    if mark == "%":
        entry_name = f"{name.title().replace('_', '')}Entry"
        entry = message.nested_type.add(name=entry_name)
        entry.options.map_entry = True
        _add_field(entry, 1, "key", "string")
        _add_field(entry, 2, "value", kind)
        kind = f"{message.name}.{entry_name}"
    if mark == "|":
        if not message.oneof_decl:
            message.oneof_decl.add(name="parameter_choice")
        added.oneof_index = 0
    number_of_type = getattr(added, f"TYPE_{kind.upper()}", None)
    if number_of_type is None:
        added.type, added.type_name = added.TYPE_MESSAGE, f".inference.{kind}"
    else:
        added.type = number_of_type


MESSAGES = _declared()
"""Message → its class, by the protocol's names."""


REQUEST_CLASS = "request_class"
"""Parameter of a request that says which class it is of, where requests come in classes."""

INPUT = "input"
"""How the tensor of a request is named to a server that does not say."""


def request_bytes(named: Named, tensor: str = INPUT) -> bytes:
    """A ``ModelInferRequest`` on the wire."""
    message = MESSAGES["ModelInferRequest"](model_name=named.model, id=named.request_id)
    _fill(message, message.inputs, tensor, named.payload)
    return bytes(message.SerializeToString())


def with_id(encoded: bytes, request_id: str) -> bytes:
    """A ``ModelInferRequest`` that was encoded without an id, with one.

    Fields of a message may come in any order, so that what is sent often is encoded once.
    """
    text = request_id.encode()
    if len(text) >= 128:
        raise ValueError(f"an id of {len(text)} bytes; allowed: below 128")
    return encoded + bytes((_ID_TAG, len(text))) + text


_ID_TAG = 3 << 3 | 2


def answer_bytes(named: Named) -> bytes:
    """A ``ModelInferResponse`` on the wire."""
    message = MESSAGES["ModelInferResponse"](model_name=named.model, id=named.request_id)
    _fill(message, message.outputs, "output", named.payload)
    return bytes(message.SerializeToString())


def parse_request(data: bytes) -> Named:
    """What :func:`request_bytes` of any client wrote.

    Raises:
        BadMessageError: it is no request of the form above.
    """
    return _parsed("ModelInferRequest", "input", data)


def parse_answer(data: bytes) -> Named:
    """What :func:`answer_bytes` of any server wrote.

    Raises:
        BadMessageError: it is no answer of the form above.
    """
    return _parsed("ModelInferResponse", "output", data)


def joined(payloads: Sequence[Payload]) -> Payload:
    """The payloads of several requests as one batch."""
    if all(len(payload.elements) == 1 and not payload.parameters for payload in payloads):
        return Payload(tuple(payload.elements[0] for payload in payloads))
    elements = tuple(element for payload in payloads for element in payload.elements)
    parts = [len(payload.elements) for payload in payloads]
    return Payload(elements, {"parts": parts, "requests": [dict(p.parameters) for p in payloads]})


def spread(batch: Payload, answers: Sequence[Sequence[bytes]]) -> Payload:
    """The answer to a batch of which each element became several, or none.

    Args:
        batch: what was asked; an element is a request where it does not say otherwise.
        answers: one for each element.

    Raises:
        BadMessageError: the batch does not say whose its elements are.
    """
    left = iter(answers)
    return joined(
        [
            Payload(tuple(e for _ in request.elements for e in next(left)), request.parameters)
            for request in parted(batch, requests_in(batch))
        ]
    )


def requests_in(batch: Payload) -> int:
    """How many requests a batch is made of."""
    parts = batch.parameters.get("parts")
    return len(parts) if isinstance(parts, list) else len(batch.elements)


def parted(batch: Payload, requests: int) -> list[Payload]:
    """The requests of a batch, or the answers to them.

    What carries no ``parts`` has the same number of elements for each, and what carries no
    ``requests`` has no parameters: so any model of the protocol can answer.

    Raises:
        BadMessageError: the batch is not one of ``requests``.
    """
    count = len(batch.elements)
    parts = batch.parameters.get("parts")
    if parts is None and count % requests == 0:
        parts = [count // requests] * requests
    if not (isinstance(parts, list) and _add_up(parts, requests, count)):
        raise BadMessageError(
            f"a batch of {requests} requests has {count} elements and parts {parts!r};"
            f" allowed: {requests} whole numbers from 0 that add up to the elements"
        )
    own = batch.parameters.get("requests", [{}] * requests)
    if not (
        isinstance(own, list) and len(own) == requests and all(isinstance(o, dict) for o in own)
    ):
        raise BadMessageError(
            f"parameters of {requests} requests are no list of {requests} JSON objects"
        )
    payloads, first = [], 0
    for part, parameters in zip(parts, own, strict=True):
        payloads.append(Payload(batch.elements[first : first + part], parameters))
        first += part
    return payloads


def _add_up(parts: list[object], requests: int, count: int) -> bool:
    whole = [part for part in parts if type(part) is int and part >= 0]
    return len(whole) == len(parts) == requests and sum(whole) == count


def _fill(message: Any, tensors: Any, name: str, payload: Payload) -> None:
    if payload.parameters:
        message.parameters["json"].string_param = json.dumps(payload.parameters, allow_nan=False)
    tensor = tensors.add(name=name, datatype="BYTES", shape=[len(payload.elements)])
    tensor.contents.bytes_contents.extend(payload.elements)


def _parsed(kind: str, name: str, data: bytes) -> Named:
    try:
        message = MESSAGES[kind].FromString(data)
    except DecodeError as error:
        raise BadMessageError(f"{len(data)} bytes are no {kind}") from error
    tensors = getattr(message, f"{name}s")
    if len(tensors) != 1:
        raise BadMessageError(f"{len(tensors)} {name}s; allowed: 1")
    elements = _elements(tensors[0], getattr(message, f"raw_{name}_contents"))
    return Named(message.model_name, message.id, Payload(elements, _parameters(message)))


def _elements(tensor: Any, raw: Sequence[bytes]) -> tuple[bytes, ...]:
    """The byte strings of a tensor, in its contents or, as some clients do, raw beside it."""
    if tensor.datatype != "BYTES":
        raise BadMessageError(f"tensor of datatype {tensor.datatype!r}; allowed: BYTES")
    elements = tuple(tensor.contents.bytes_contents)
    if raw:
        if len(raw) != 1 or elements:
            raise BadMessageError("a tensor with contents both in it and raw beside it")
        elements = _lengths_undone(raw[0])
    shape = list(tensor.shape)
    if shape not in ([len(elements)], [len(elements), 1]):
        raise BadMessageError(f"tensor of shape {shape} with {len(elements)} elements")
    return elements


def _lengths_undone(raw: bytes) -> tuple[bytes, ...]:
    """Elements of which each has its length before it, in four bytes, lowest first."""
    elements: list[bytes] = []
    at = 0
    while at < len(raw):
        end = at + 4 + int.from_bytes(raw[at : at + 4], "little")
        if at + 4 > len(raw) or end > len(raw):
            raise BadMessageError(f"raw contents end within element {len(elements)}")
        elements.append(raw[at + 4 : end])
        at = end
    return tuple(elements)


def _parameters(message: Any) -> Json:
    if "json" not in message.parameters:
        return {}
    text = message.parameters["json"].string_param
    if len(text) > MAX_JSON_CHARACTERS:
        raise BadMessageError(
            f"parameter json of {len(text)} characters; allowed: {MAX_JSON_CHARACTERS}"
        )
    try:
        value = json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise BadMessageError(f"parameter json is no JSON ({error})") from error
    if not isinstance(value, dict):
        raise BadMessageError("parameter json is no JSON object")
    return value


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no number of JSON")
