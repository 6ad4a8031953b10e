"""How the administration asks the store."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import ParamSpec, TypeVar

from asgiref.sync import async_to_sync

P = ParamSpec("P")
R = TypeVar("R")


def ask(call: Callable[P, Awaitable[R]], *args: P.args, **kwargs: P.kwargs) -> R:
    """What the store answers, on the loop that serves: these views run on threads beside it."""
    found: R = async_to_sync(call)(*args, **kwargs)
    return found
