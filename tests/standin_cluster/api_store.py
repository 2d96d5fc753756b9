"""The objects of the stand-in API server: their versions, and what happened to them."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from .api_types import Resource

Object = dict[str, Any]
Key = tuple[str, str, str]
"""Long name of the resource, namespace ("" for none), name."""

FIRST_VERSION = 10
"""So that versions 1 and 2 are in the past, as on a server that has run for a while."""

KEPT_EVENTS = 20_000


@dataclass(frozen=True, slots=True)
class Event:
    """One write. ``old`` and ``new`` are what was there before and after; None: nothing."""

    version: int
    key: Key
    old: Object | None
    new: Object | None


class Store:
    """Objects by key; each write has a version of its own, one more than the last.

    Objects are never changed once they are in: a write puts another one in their place, so what
    was handed out stays as it is.

    Attributes:
        changed: a condition whose lock guards everything here; notified after each write.
        version: of the last write.
        oldest: what happened up to this version is forgotten.
    """

    def __init__(self) -> None:
        self.changed = threading.Condition(threading.RLock())
        self.version = FIRST_VERSION
        self.oldest = 0
        self._objects: dict[Key, Object] = {}
        self._events: deque[Event] = deque()

    def get(self, resource: Resource, namespace: str, name: str) -> Object | None:
        """An object; None if there is none."""
        with self.changed:
            return self._objects.get(key_of(resource, namespace, name))

    def all(self, resource: Resource, namespace: str = "") -> list[Object]:
        """Objects in the order of their names; "" stands for all namespaces."""
        with self.changed:
            found = [
                (key, each)
                for key, each in self._objects.items()
                if key[0] == resource.long_name and namespace in ("", key[1])
            ]
        return [each for _, each in sorted(found, key=lambda item: item[0])]

    def put(self, key: Key, new: Object | None) -> Object | None:
        """Write an object, or remove it; what is there now, with its version."""
        with self.changed:
            self.version += 1
            old = self._objects.get(key)
            if new is not None:
                metadata = {**new["metadata"], "resourceVersion": str(self.version)}
                new = {**new, "metadata": metadata}
                self._objects[key] = new
            else:
                self._objects.pop(key, None)
            self._events.append(Event(self.version, key, old, new))
            if len(self._events) > KEPT_EVENTS:
                self.forget(self._events[KEPT_EVENTS // 2].version)
            self.changed.notify_all()
            return new

    def forget(self, up_to: int | None = None) -> None:
        """From now on watches from before that version are too old."""
        with self.changed:
            self.oldest = self.version if up_to is None else up_to
            while self._events and self._events[0].version <= self.oldest:
                self._events.popleft()

    def events_after(self, version: int) -> list[Event]:
        """What happened since, oldest first."""
        with self.changed:
            found = []
            for event in reversed(self._events):
                if event.version <= version:
                    break
                found.append(event)
        return found[::-1]


def key_of(resource: Resource, namespace: str, name: str) -> Key:
    """Where an object is kept."""
    return resource.long_name, namespace if resource.namespaced else "", name


@dataclass(frozen=True, slots=True)
class Change:
    """What a watch is told."""

    kind: str
    object: Object
    version: int


def seen(
    events: list[Event], resource: Resource, namespace: str, matches: Callable[[Object], bool]
) -> Iterator[Change]:
    """Events as a watch with a selector sees them: what leaves the selector is deleted."""
    for event in events:
        if event.key[0] != resource.long_name or namespace not in ("", event.key[1]):
            continue
        was = event.old is not None and matches(event.old)
        is_there = event.new is not None and matches(event.new)
        if is_there and event.new is not None:
            yield Change("MODIFIED" if was else "ADDED", event.new, event.version)
        elif was and event.old is not None:
            metadata = {**event.old["metadata"], "resourceVersion": str(event.version)}
            yield Change("DELETED", {**event.old, "metadata": metadata}, event.version)
