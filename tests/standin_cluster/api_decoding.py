"""An object as it came is made one of its type: known fields, right types, canonical quantities."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from typing import Any

from .api_defaults import defaulted
from .api_errors import Cause
from .api_types import FieldType

QUANTITY_PATTERN = "^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$"
BAD_QUANTITY = f"quantities must match the regular expression '{QUANTITY_PATTERN}'"

_BINARY = {f"{letter}i": 1024 ** (n + 1) for n, letter in enumerate("KMGTPE")}
_DECIMAL = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}

OMITTED_WHEN_ZERO = {
    "minReadySeconds",
    "paused",
    "observedGeneration",
    "updatedReplicas",
    "readyReplicas",
    "availableReplicas",
    "unavailableReplicas",
    "fullyLabeledReplicas",
    "hostNetwork",
    "hostPID",
    "hostIPC",
}
"""Numbers and flags that the server leaves out where they are 0 or false."""

JSON_NAMES = {str: "string", bool: "bool", int: "number", float: "number", dict: "object"}


class DecodingError(Exception):
    """The server cannot make the object's type of what it was sent."""


def quantity(value: Any) -> Decimal:
    """An amount of a resource as a number: cores, bytes, pieces.

    Raises:
        DecodingError: it is none.
    """
    match = re.fullmatch(QUANTITY_PATTERN[1:-1], str(value))
    try:
        if match is None:
            raise InvalidOperation
        number, suffix = match.groups()
        if suffix in _BINARY:
            return Decimal(number) * Decimal(_BINARY[suffix])
        if suffix in _DECIMAL:
            return Decimal(number).scaleb(_DECIMAL[suffix])
        return Decimal(f"{number}{suffix}")
    except InvalidOperation as error:
        raise DecodingError(BAD_QUANTITY) from error


def canonical(value: Any) -> str:
    """A quantity as the server writes it: a whole mantissa, the largest suffix that allows it."""
    amount = quantity(value)
    suffix = re.sub(r"^[+-]?[0-9.]+", "", str(value))
    if suffix in _BINARY and amount == amount.to_integral_value():
        for name, size in reversed(_BINARY.items()):
            if amount and amount % size == 0:
                return f"{int(amount) // size}{name}"
        return str(int(amount))
    for name in ("E", "P", "T", "G", "M", "k", "", "m", "u", "n"):
        scaled = amount.scaleb(-_DECIMAL[name])
        if scaled == scaled.to_integral_value():
            return f"{int(scaled)}{name}"
    return str(amount)


@dataclass(slots=True)
class Decoder:
    """Decodes one object.

    Attributes:
        unknown: the fields that its type does not have.
        causes: what is wrong with a custom resource's values.
    """

    unknown: list[str] = field(default_factory=list)
    causes: list[Cause] = field(default_factory=list)

    def decoded(self, value: Any, of: FieldType, path: str = "", struct: str = "") -> Any:
        """``value`` as the type has it.

        Raises:
            DecodingError: a value of a built-in type that does not fit.
        """
        match of.kind:
            case "struct":
                return self._struct(value, of, path)
            case "map" if isinstance(value, dict):
                items = {
                    name: self.decoded(each, of.element, f"{path}.{name}")
                    for name, each in value.items()
                }
                return {name: each for name, each in items.items() if each is not None}
            case "list" if isinstance(value, list):
                return [
                    self.decoded(each, of.element, f"{path}[{n}]") for n, each in enumerate(value)
                ]
            case "scalar":
                return self._scalar(value, of, path, struct)
            case "any":
                return value
        return self._misfit(value, of, path, struct)

    def _struct(self, value: Any, of: FieldType, path: str) -> Any:
        if not isinstance(value, dict):
            return self._misfit(value, of, path, of.go_name)
        result = {}
        for name, each in value.items():
            its_type = of.child(name)
            inside = f"{path}.{name}" if path else name
            if its_type is None:
                self.unknown.append(inside)
                continue
            if each is None:
                continue
            made = self.decoded(each, its_type, inside, of.go_name)
            if of.schema is None and _is_omitted(name, made, its_type):
                continue
            result[name] = made
        if of.schema is None:
            return defaulted(result, of)
        for name in of.schema.get("required", ()):
            if name not in result:
                self.causes.append(Cause(f"{path}.{name}", "Required value"))
        return result

    def _scalar(self, value: Any, of: FieldType, path: str, struct: str) -> Any:
        match of.name:
            case "quantity":
                return canonical(value)
            case "intstr" | "time":
                return value
            case "string":
                fits = isinstance(value, str)
            case "bool" | "boolean":
                fits = isinstance(value, bool)
            case "number" | "float64":
                fits = isinstance(value, (int, float)) and not isinstance(value, bool)
            case _:
                fits = isinstance(value, int) and not isinstance(value, bool)
        if not fits:
            return self._misfit(value, of, path, struct)
        if of.schema is not None:
            self._check(value, of.schema, path)
        return value

    def _misfit(self, value: Any, of: FieldType, path: str, struct: str) -> Any:
        name = JSON_NAMES.get(type(value), "array")
        if of.schema is None:
            go = of.name if of.kind == "scalar" else of.go_name
            raise DecodingError(
                f"json: cannot unmarshal {name} into Go struct field {struct}.{path} of type {go}"
            )
        want = of.name if of.kind == "scalar" else {"list": "array"}.get(of.kind, "object")
        text = f'"{name}": {path} in body must be of type {want}: "{name}"'
        self.causes.append(Cause(path, "Invalid value", text, reason="FieldValueTypeInvalid"))
        return value

    def _check(self, value: Any, schema: Any, path: str) -> None:
        allowed, least = schema.get("enum"), schema.get("minimum")
        if allowed and value not in allowed:
            shown = ", ".join(f'"{each}"' for each in allowed)
            self.causes.append(
                Cause(path, "Unsupported value", f'"{value}": supported values: {shown}')
            )
        if least is not None and value < least:
            text = f"{value}: {path} in body should be greater than or equal to {least}"
            self.causes.append(Cause(path, "Invalid value", text))


def _is_omitted(name: str, value: Any, of: FieldType) -> bool:
    """Whether the server leaves the field out, empty as it is."""
    if of.kind in ("map", "list"):
        return not value
    return name in OMITTED_WHEN_ZERO and not value


def pruned_nulls(value: Any) -> Any:
    """``value`` without its nulls."""
    if isinstance(value, dict):
        return {name: pruned_nulls(each) for name, each in value.items() if each is not None}
    return [pruned_nulls(each) for each in value] if isinstance(value, list) else value
