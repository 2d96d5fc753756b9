"""Three kinds of patch: JSON patch (RFC 6902), merge patch (RFC 7386), strategic merge patch."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

from ipa_energy.testing.cluster.api_types import ANY, FieldType

DIRECTIVE = "$patch"


class PatchError(Exception):
    """A JSON patch whose test fails or whose path is not there."""


class MergeKeyError(Exception):
    """An item of a strategic merge patch lacks the key of its list."""


def json_patched(value: Any, operations: list[dict[str, Any]]) -> Any:
    """``value`` after the operations, in order; what is not there is replaced as it is added.

    Raises:
        PatchError: one of them cannot be done.
    """
    value = deepcopy(value)
    for each in operations:
        try:
            value = _operated(value, each)
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise PatchError(str(error)) from error
    return value


def _operated(value: Any, operation: dict[str, Any]) -> Any:
    kind = operation["op"]
    steps = _steps(operation["path"])
    if kind == "test":
        if _at(value, steps) != operation["value"]:
            raise ValueError(operation["path"])
        return value
    if kind in ("move", "copy"):
        source = _steps(operation["from"])
        given = deepcopy(_at(value, source))
        if kind == "move":
            _remove(value, source)
    else:
        given = operation.get("value")
    if kind == "remove":
        _remove(value, steps)
    elif not steps:
        return given
    else:
        _put(value, steps, given, replaces=kind == "replace")
    return value


def _steps(pointer: str) -> list[str]:
    return [step.replace("~1", "/").replace("~0", "~") for step in pointer.split("/")[1:]]


def _at(value: Any, steps: list[str]) -> Any:
    for step in steps:
        value = value[int(step) if isinstance(value, list) else step]
    return value


def _remove(value: Any, steps: list[str]) -> None:
    parent = _at(value, steps[:-1])
    del parent[int(steps[-1]) if isinstance(parent, list) else steps[-1]]


def _put(value: Any, steps: list[str], given: Any, *, replaces: bool) -> None:
    parent, last = _at(value, steps[:-1]), steps[-1]
    if isinstance(parent, dict):
        parent[last] = given
    elif last == "-":
        parent.append(given)
    elif replaces:
        parent[int(last)] = given
    elif int(last) > len(parent):
        raise IndexError(last)
    else:
        parent.insert(int(last), given)


def merged(value: Any, patch: Any) -> Any:
    """``value`` after a merge patch: null removes, lists are replaced."""
    if not isinstance(patch, dict):
        return deepcopy(patch)
    result = dict(value) if isinstance(value, dict) else {}
    for name, inside in patch.items():
        if inside is None:
            result.pop(name, None)
        else:
            result[name] = merged(result.get(name), inside)
    return result


def strategically_merged(value: Any, patch: Any, of: FieldType) -> Any:
    """``value`` after a strategic merge patch: lists with keys are merged item by item.

    Raises:
        MergeKeyError: an item has no key.
    """
    if isinstance(patch, list) and of.kind == "list" and of.keys:
        return _merged_list(value or [], patch, of)
    if isinstance(patch, list) and of.is_set:
        return [*(value or []), *(item for item in patch if item not in (value or []))]
    if not isinstance(patch, dict) or of.kind == "any":
        return merged(value, patch)
    if patch.get(DIRECTIVE) == "replace":
        return {name: inside for name, inside in patch.items() if name != DIRECTIVE}
    result = dict(value) if isinstance(value, dict) else {}
    for name, inside in patch.items():
        if name.startswith("$"):
            continue
        if inside is None:
            result.pop(name, None)
        else:
            its_type = of.child(name) or ANY
            result[name] = strategically_merged(result.get(name), inside, its_type)
    return result


def _merged_list(items: list[Any], patch: list[Any], of: FieldType) -> list[Any]:
    """Items in the order of the patch, and those that it does not name where they were."""
    key = of.keys[0]
    there = {item.get(key): item for item in items}
    order = {name: n for n, name in enumerate(there)}
    named: dict[Any, Any] = {}
    for each in patch:
        if key not in each:
            shown = " ".join(f"{name}:{value}" for name, value in each.items())
            raise MergeKeyError(f"map: map[{shown}] does not contain declared merge key: {key}")
        name = each[key]
        if each.get(DIRECTIVE) == "delete":
            there.pop(name, None)
        else:
            named[name] = strategically_merged(there.pop(name, {}), each, of.element)
    result = []
    others = list(there)
    for name, item in named.items():
        while others and name in order and order[others[0]] < order[name]:
            result.append(there[others.pop(0)])
        result.append(item)
    return [*result, *(there[name] for name in others)]
