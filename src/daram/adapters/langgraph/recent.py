"""What was used last, of many threads: of each as much as there is room for in all."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

V = TypeVar("V")
Key = tuple[object, ...]
"""The first two parts say whose thread it is of: its owner and its name."""


class Recent(Generic[V]):
    """Values by their keys, of at most the weight ``room`` in all; what was not used for longest goes first.

    ``weigh``: what one value weighs (1, if not given). Several threads of the process may use it at once.
    """

    def __init__(self, room: int, weigh: Callable[[V], int] = lambda _: 1) -> None:
        self._room = room
        self._weigh = weigh
        self._weight = 0
        self._values: OrderedDict[Key, V] = OrderedDict()
        # To forget a thread must not mean to look at all others: each new one is forgotten first.
        self._threads: dict[Key, set[Key]] = {}
        self._lock = threading.Lock()

    def get(self, key: Key) -> V | None:
        """The value, if it is here still."""
        with self._lock:
            if key not in self._values:
                return None
            self._values.move_to_end(key)
            return self._values[key]

    def keep(self, key: Key, value: V) -> None:
        """Keep a value, in the place of the one that was here; one that there is no room for is not kept."""
        weight = self._weigh(value)
        with self._lock:
            self._drop(key)
            if weight > self._room:
                return
            self._values[key] = value
            self._threads.setdefault(key[:2], set()).add(key)
            self._weight += weight
            while self._weight > self._room:
                self._drop(next(iter(self._values)))

    def drop(self, key: Key) -> None:
        """Let go of a value, if it is here."""
        with self._lock:
            self._drop(key)

    def forget(self, owner: str, thread: str) -> None:
        """Let go of everything of a thread."""
        with self._lock:
            for key in list(self._threads.get((owner, thread), ())):
                self._drop(key)

    def _drop(self, key: Key) -> None:
        if key not in self._values:
            return
        self._weight -= self._weigh(self._values.pop(key))
        own = self._threads[key[:2]]
        own.remove(key)
        if not own:
            del self._threads[key[:2]]
