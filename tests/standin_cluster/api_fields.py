"""Who owns which field: the sets of ``managedFields``, comparison, and server-side apply.

A set holds paths; a path is a tuple of the strings that ``fieldsV1`` uses: ``f:spec``,
``k:{"name":"model"}``, ``v:"x"``. The rules are those of Kubernetes' structured merge:

* who applies owns what it names, and no more;
* any other write owns what it changed, and takes it from everyone else;
* an apply that would change what someone else owns is refused unless it is forced;
* what an applier no longer names, and nobody else owns, goes.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

from .api_types import ANY, KEY_DEFAULTS, FieldType

Path = tuple[str, ...]
Fields = frozenset[Path]

_ABSENT: Any = object()

SERVERS_METADATA = (
    "name",
    "namespace",
    "uid",
    "resourceVersion",
    "generation",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
)
"""Of an object's metadata: what no later write changes or owns."""

_UNMANAGED = {
    ("f:apiVersion",),
    ("f:kind",),
    ("f:metadata",),
    *(("f:metadata", f"f:{name}") for name in (*SERVERS_METADATA, "managedFields", "selfLink")),
}


@dataclass(frozen=True, slots=True, order=True)
class Owner:
    """One entry of ``managedFields`` but for its fields."""

    operation: str
    manager: str
    api_version: str
    subresource: str = ""

    def __str__(self) -> str:
        """As a conflict names it."""
        text = f"conflict with {json.dumps(self.manager)}"
        if self.subresource:
            text += f" with subresource {json.dumps(self.subresource)}"
        return text if self.operation == "Apply" else f"{text} using {self.api_version}"


class KeyMissingError(Exception):
    """An item of a list that is merged by key lacks the key, or two have the same."""


def item_step(item: Any, of: FieldType) -> str:
    """The step of a path that leads to an item of a keyed list or a set.

    Raises:
        KeyMissingError: the item has no key.
    """
    if of.is_set:
        return f"v:{json.dumps(item)}"
    values = {key: item.get(key, KEY_DEFAULTS.get(key)) for key in of.keys}
    if None in values.values():
        raise KeyMissingError(
            f"element {json.dumps(item)}: associative list with keys has an element that omits key"
        )
    return "k:" + json.dumps(values, separators=(",", ":"), sort_keys=True)


def children(value: Any, of: FieldType) -> dict[str, tuple[Any, FieldType]] | None:
    """What has owners of its own inside ``value``, by step; None where it is owned as a whole."""
    if of.is_atomic or of.kind in ("scalar", "any"):
        return None
    if of.kind == "list":
        return {item_step(item, of): (item, of.element) for item in value or ()}
    return {f"f:{name}": (inside, of.child(name) or ANY) for name, inside in (value or {}).items()}


def named_fields(value: Any, of: FieldType) -> Fields:
    """What an applier of ``value`` owns."""
    found: set[Path] = set()

    def visit(value: Any, of: FieldType, path: Path) -> None:
        inside = children(value, of)
        if inside is None or (not inside and path and of.kind != "list"):
            found.add(path)
            return
        for step, (item, its_type) in inside.items():
            visit(item, its_type, (*path, step))
            if of.kind == "list":
                found.add((*path, step))

    visit(value, of, ())
    return frozenset(found - _UNMANAGED)


@dataclass(frozen=True, slots=True)
class Difference:
    """Between two states of an object: paths that were added or changed, and removed."""

    changed: Fields
    removed: Fields


def difference(old: Any, new: Any, of: FieldType) -> Difference:
    """What changed from ``old`` to ``new``."""
    changed: set[Path] = set()
    removed: set[Path] = set()

    def visit(old: Any, new: Any, of: FieldType, path: Path) -> None:
        if old is not _ABSENT and old == new:
            return
        value = old if new is _ABSENT else new
        before = {} if old is _ABSENT else children(old, of)
        after = {} if new is _ABSENT else children(new, of)
        if children(value, of) is None:
            (removed if new is _ABSENT else changed).add(path)
            return
        if old is _ABSENT:
            changed.add(path)
        elif new is _ABSENT:
            removed.add(path)
        before, after = before or {}, after or {}
        for step in before | after:
            old_item, its_type = before.get(step, (_ABSENT, ANY))
            new_item, its_type = after.get(step, (_ABSENT, its_type))
            visit(old_item, new_item, its_type, (*path, step))

    visit(old, new, of, ())
    return Difference(
        frozenset(each for each in changed if not _is_unmanaged(each)),
        frozenset(each for each in removed if not _is_unmanaged(each)),
    )


def _is_unmanaged(path: Path) -> bool:
    return path in _UNMANAGED or (path[:2] in _UNMANAGED and path[:2] != ("f:metadata",))


def owners_of(managed: Iterable[Mapping[str, Any]]) -> dict[Owner, Fields]:
    """``managedFields`` read."""
    return {
        Owner(
            each["operation"], each["manager"], each["apiVersion"], each.get("subresource", "")
        ): _read(each.get("fieldsV1", {}))
        for each in managed
    }


def managed_fields(
    owners: Mapping[Owner, Fields], before: Iterable[Mapping[str, Any]], now: str
) -> list[dict[str, Any]]:
    """``managedFields`` written; entries that did not change keep their time."""
    times = {
        owner: (fields, str(each.get("time", now)))
        for each in before
        for owner, fields in owners_of([each]).items()
    }
    entries = []
    for owner, fields in sorted(owners.items()):
        if not fields:
            continue
        old, time = times.get(owner, (None, now))
        entry = {
            "manager": owner.manager,
            "operation": owner.operation,
            "apiVersion": owner.api_version,
            "time": time if old == fields else now,
            "fieldsType": "FieldsV1",
            "fieldsV1": _written(fields),
        }
        if owner.subresource:
            entry["subresource"] = owner.subresource
        entries.append(entry)
    return entries


def _read(tree: Mapping[str, Any]) -> Fields:
    found: set[Path] = set()

    def visit(tree: Mapping[str, Any], path: Path) -> None:
        if not tree and path:
            found.add(path)
        for step, inside in tree.items():
            if step == ".":
                found.add(path)
            else:
                visit(inside, (*path, step))

    visit(tree, ())
    return frozenset(found)


def _written(fields: Fields) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for path in sorted(fields):
        node = tree
        for step in path:
            node = node.setdefault(step, {})
    for path in fields:
        node = tree
        for step in path:
            node = node[step]
        if node:
            node["."] = {}
    return tree


def updated(owners: Mapping[Owner, Fields], by: Owner, change: Difference) -> dict[Owner, Fields]:
    """The owners after a write that is no apply."""
    after = {
        owner: fields - change.removed - (frozenset() if owner == by else change.changed)
        for owner, fields in owners.items()
    }
    after[by] = after.get(by, frozenset()) | change.changed
    return after


def applied(
    live: Any, named: Any, of: FieldType, owners: Mapping[Owner, Fields], by: Owner
) -> tuple[Any, dict[Owner, Fields]]:
    """An object and its owners after an apply, conflicts not looked at."""
    fields = named_fields(named, of)
    last = owners.get(by, frozenset())
    after = {**owners, by: fields}
    kept = set[Path]().union(*map(_with_parents, after.values()))
    gone = _with_parents(last) - kept - _UNMANAGED
    return _without(_merged(live, named, of), of, gone, ()), after


def _with_parents(fields: Fields) -> set[Path]:
    """The paths and the fields that they are in; items of lists are there only as themselves."""
    return set(fields) | {
        path[:n] for path in fields for n in range(1, len(path)) if path[n - 1].startswith("f:")
    }


def conflicts(
    owners: Mapping[Owner, Fields], by: Owner, change: Difference
) -> list[tuple[Owner, Path]]:
    """What others own of what ``by`` is about to change."""
    return [
        (owner, path)
        for owner, fields in sorted(owners.items(), key=lambda item: item[0].manager)
        if owner != by
        for path in _in_order(fields & change.changed)
    ]


def _in_order(paths: Iterable[Path]) -> list[Path]:
    """At each level what is itself owned, then what is inside something else."""
    return sorted(paths, key=lambda path: [(1, step) for step in path[:-1]] + [(0, path[-1])])


def as_text(path: Path) -> str:
    """As messages have it: ``.spec.containers[name="model"].image``."""
    text = ""
    for step in path:
        kind, _, rest = step.partition(":")
        if kind == "f":
            text += f".{rest}"
        elif kind == "k":
            keys = json.loads(rest).items()
            text += "[" + ",".join(f"{key}={json.dumps(value)}" for key, value in keys) + "]"
        else:
            text += f"[={rest}]"
    return text


def _merged(live: Any, named: Any, of: FieldType) -> Any:
    """``live`` with what ``named`` names."""
    inside = children(named, of)
    if inside is None or live is None:
        return deepcopy(named)
    if of.kind == "list":
        items = {item_step(item, of): item for item in live}
        order = _interleaved(list(items), list(inside))
        for step, (item, its_type) in inside.items():
            items[step] = _merged(items.get(step), item, its_type)
        return [items[step] for step in order]
    merged = dict(live)
    for step, (item, its_type) in inside.items():
        merged[step[2:]] = _merged(live.get(step[2:]), item, its_type)
    return merged


def _interleaved(live: list[str], named: list[str]) -> list[str]:
    """The order of a list's items after an apply: as named, others where they were."""
    shared = [step for step in named if step in live]
    order: list[str] = []
    n = m = 0
    while n < len(live) or m < len(named):
        one = live[n] if n < len(live) else ""
        other = named[m] if m < len(named) else ""
        is_early = one in shared and other and one not in (other, shared[0])
        if one and one not in named:
            order.append(one)
            n += 1
        elif other and not is_early:
            order.append(other)
            shared = [step for step in shared if step != other]
            n += one == other
            m += 1
        else:  # it comes, or came, where it is named
            n += 1
    return order


def _without(value: Any, of: FieldType, gone: set[Path], path: Path) -> Any:
    """``value`` without what is at the paths."""
    if not isinstance(value, (dict, list)):
        return value
    inside = children(value, of)
    if inside is None:
        return value
    left = {
        step: _without(item, its_type, gone, (*path, step))
        for step, (item, its_type) in inside.items()
        if (*path, step) not in gone
    }
    if of.kind == "list":
        return [
            _with_keys(item, inside[step][0], of.keys) if of.keys else item
            for step, item in left.items()
        ]
    return {step[2:]: item for step, item in left.items()}


def _with_keys(item: Any, before: Any, keys: tuple[str, ...]) -> Any:
    """An item that stays keeps what it is found by, whoever owned that."""
    return {**{key: before[key] for key in keys if key in before}, **item}
