"""Two kinds of patch: merge patch (RFC 7386) and strategic merge patch; JSON patch is not here."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

from . import api_errors as errors
from .api_store import Object
from .api_types import ANY, FieldType

APPLY = "application/apply-patch+yaml"
MERGE_PATCH = "application/merge-patch+json"
STRATEGIC_PATCH = "application/strategic-merge-patch+json"

DIRECTIVE = "$patch"


def patched(old: Object, patch: Any, content_type: str, of: FieldType) -> Object:
    """``old`` after a patch that is no apply.

    Raises:
        ApiError: 500: an item of a strategic merge patch lacks the key of its list.
    """
    if content_type == STRATEGIC_PATCH:
        return strategically_merged(old, patch, of)  # type: ignore[no-any-return]
    return merged(old, patch)  # type: ignore[no-any-return]


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
    """``value`` after a strategic merge patch: lists with keys are merged item by item."""
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
            why = f"map: map[{shown}] does not contain declared merge key: {key}"
            raise errors.internal(why)
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
