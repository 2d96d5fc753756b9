"""What is taken as a message of the Open Inference Protocol, and with which words it is refused."""

from __future__ import annotations

import pytest

pytest.importorskip("google.protobuf")

from ipa_energy.serving.local.protocol import (
    MESSAGES,
    BadMessageError,
    Named,
    Payload,
    answer_bytes,
    joined,
    parse_answer,
    parse_request,
    parted,
    request_bytes,
    requests_in,
    with_id,
)

PICTURES = Payload((b"\xff\xd8one", b"", b"\x00" * 70_000), {"boxes": [[1, 2.5]], "who": "é"})


def test_requests_and_answers_come_back_as_they_were() -> None:
    named = Named("crop", "17", PICTURES)
    assert parse_request(request_bytes(named)) == named
    assert parse_answer(answer_bytes(named)) == named


def test_bytes_on_the_wire_are_those_of_the_public_declaration() -> None:
    """Field numbers by hand: id 3, inputs 5 {name 1, datatype 2, shape 3, contents 5 {8}}."""
    tensor = b"\x0a\x05input" + b"\x12\x05BYTES" + b"\x1a\x01\x01" + b"\x2a\x03\x42\x01x"
    expected = b"\x0a\x01m" + b"\x1a\x011" + b"\x2a" + bytes([len(tensor)]) + tensor
    assert request_bytes(Named("m", "1", Payload((b"x",)))) == expected
    parameter = b"\x0a\x04json" + b"\x12\x0a\x1a\x08" + b'{"a": 1}'
    told = request_bytes(Named("m", "1", Payload((b"x",), {"a": 1})))
    assert b"\x22" + bytes([len(parameter)]) + parameter in told


def message(**changes: object) -> bytes:
    tensor = {
        "name": "x",
        "datatype": "BYTES",
        "shape": [1],
        "contents": {"bytes_contents": [b"x"]},
    }
    built = MESSAGES["ModelInferRequest"](model_name="m", inputs=[{**tensor, **changes}])
    return bytes(built.SerializeToString())


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"datatype": "FOO"}, "datatype 'FOO'; allowed: BYTES"),
        ({"datatype": ""}, "datatype ''; allowed: BYTES"),
        ({"shape": [3]}, r"shape \[3\] with 1 elements"),
        ({"shape": [-1]}, r"shape \[-1\] with 1 elements"),
        ({"shape": []}, r"shape \[\] with 1 elements"),
        ({"shape": [1, 1, 1]}, r"shape \[1, 1, 1\]"),
        ({"contents": {"int_contents": [1]}}, "with 0 elements"),
    ],
)
def test_tensors_of_another_form_are_refused(changes: dict[str, object], said: str) -> None:
    with pytest.raises(BadMessageError, match=said):
        parse_request(message(**changes))


def test_a_second_dimension_of_one_is_no_other_form() -> None:
    assert parse_request(message(shape=[1, 1])).payload.elements == (b"x",)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("__import__('os')", "no JSON"),
        ("[1]", "no JSON object"),
        ('{"a": NaN}', "NaN is no number"),
        ("[" * 100_000, "no JSON"),
        (" " * (2**20 + 1), "characters; allowed: 1048576"),
        ("", "no JSON"),
    ],
)
def test_parameters_are_json_and_nothing_else(text: str, said: str) -> None:
    built = MESSAGES["ModelInferRequest"].FromString(message())
    built.parameters["json"].string_param = text
    with pytest.raises(BadMessageError, match=said):
        parse_request(built.SerializeToString())


def test_garbage_and_other_numbers_of_tensors_are_refused() -> None:
    with pytest.raises(BadMessageError, match="4 bytes are no ModelInferRequest"):
        parse_request(b"\xff\xff\xff\xff")
    with pytest.raises(BadMessageError, match="0 inputs; allowed: 1"):
        parse_request(b"")
    with pytest.raises(BadMessageError, match="2 inputs; allowed: 1"):
        parse_request(message() + message())


def raw_message(raw: bytes, shape: list[int]) -> bytes:
    built = MESSAGES["ModelInferRequest"](
        inputs=[{"datatype": "BYTES", "shape": shape}], raw_input_contents=[raw]
    )
    return bytes(built.SerializeToString())


def test_raw_contents_are_read_as_well() -> None:
    raw = b"\x02\x00\x00\x00ab" + b"\x00\x00\x00\x00"
    assert parse_request(raw_message(raw, [2])).payload.elements == (b"ab", b"")
    for cut in (1, 2, 3, 4, 5):
        with pytest.raises(BadMessageError, match="end within element 0"):
            parse_request(raw_message(raw[:cut], [1]))


def test_a_batch_is_parted_as_it_was_joined() -> None:
    payloads = [Payload((b"a", b"b"), {"k": 1}), Payload(()), Payload((b"c",))]
    assert parted(joined(payloads), 3) == payloads


def test_a_batch_of_single_elements_says_nothing_beside_them() -> None:
    payloads = [Payload((b"a",)), Payload((b"b",))]
    batch = joined(payloads)
    assert batch == Payload((b"a", b"b"))
    assert requests_in(batch) == 2
    assert parted(batch, 2) == payloads
    assert requests_in(joined([Payload((b"a", b"b")), Payload(())])) == 2


def test_an_answer_without_parts_is_shared_out_evenly() -> None:
    assert parted(Payload((b"a", b"b")), 2) == [Payload((b"a",)), Payload((b"b",))]


@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"parts": [1, 1]},
        {"parts": [4, -1]},
        {"parts": [True, 2]},
        {"parts": "21"},
        {"parts": [3]},
        {"parts": [2, 1], "requests": [{}]},
        {"parts": [2, 1], "requests": [1, 2]},
    ],
)
def test_an_answer_that_is_not_one_of_the_batch_is_refused(parameters: dict[str, object]) -> None:
    with pytest.raises(BadMessageError):
        parted(Payload((b"a", b"b", b"c"), parameters), 2)


def test_an_id_is_put_into_an_encoded_request() -> None:
    named = Named("m", "", Payload((b"jpeg", b"x" * 300), {"a": 1}))
    encoded = request_bytes(named)
    assert parse_request(with_id(encoded, "4711")) == Named("m", "4711", named.payload)
    with pytest.raises(ValueError, match="200 bytes"):
        with_id(encoded, "7" * 200)
