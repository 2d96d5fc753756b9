"""Records as JSON can hold them: one walker for everything that ``--json`` and files print.

JSON has no NaN and no infinity; what is not known is ``null`` there.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import PurePath
from typing import Any


def or_none(value: float) -> float | None:
    """The number; None if it is NaN or infinite."""
    return value if math.isfinite(value) else None


def fields_of(record: Any) -> dict[str, Any]:
    """The fields of a dataclass as they are, for a ``to_json`` that shows more than these."""
    return {field.name: getattr(record, field.name) for field in fields(record)}


def as_json(value: Any) -> Any:
    """``value`` in objects, lists, texts, numbers, booleans and null.

    A record with a method ``to_json`` says itself what is shown of it; any other dataclass is an
    object of its fields. NumPy's numbers and arrays become Python's, paths texts, sets sorted
    lists, NaN and infinity null.

    Raises:
        TypeError: there is something in it that has no such form.
    """
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return or_none(float(value))
    if hasattr(value, "to_json"):
        return as_json(value.to_json())
    if is_dataclass(value) and not isinstance(value, type):
        return {name: as_json(item) for name, item in fields_of(value).items()}
    return _of_container(value)


def _of_container(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): as_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [as_json(item) for item in value]
    if isinstance(value, set | frozenset):
        return [as_json(item) for item in sorted(value)]
    if hasattr(value, "tolist"):  # NumPy's, without importing it for --help
        return as_json(value.tolist())
    if isinstance(value, PurePath):
        return str(value)
    raise TypeError(f"{type(value).__name__} has no form in JSON")
