"""Forks: no connection is ever carried into a child.

SQLite forbids it, even to close one there (https://sqlite.org/howtocorrupt.html section 2.6). So all connections of all
stores are closed before every fork; parent and child open their own when they go on.
"""

from __future__ import annotations

import os
import threading
import weakref
from typing import Protocol


class Forkable(Protocol):
    """A store that can stand still."""

    def park(self) -> None:
        """Close all connections and stand still."""

    def unpark(self) -> None:
        """Go on, in the parent."""

    def begin_anew(self) -> None:
        """Forget threads and connections, in the child."""


_stores: weakref.WeakSet[Forkable] = weakref.WeakSet()
_parked: list[Forkable] = []
_lock = threading.Lock()


def register(store: Forkable) -> None:
    """From now on the store is parked across forks; it is forgotten with its last reference."""
    with _lock:
        _stores.add(store)


def _before() -> None:
    _lock.acquire()
    for store in list(_stores):
        store.park()
        _parked.append(store)


def _after_in_parent() -> None:
    for store in _parked:
        store.unpark()
    _parked.clear()
    _lock.release()


def _after_in_child() -> None:
    for store in _parked:
        store.begin_anew()
    _parked.clear()
    _lock.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before, after_in_parent=_after_in_parent, after_in_child=_after_in_child)
