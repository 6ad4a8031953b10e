"""Writes that are made again: each of this adapter's may be repeated, and comes to the same then."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from daram.adapters import appending
from daram.errors import OutcomeUnknown, StoreBusy, StoreUnavailable

R = TypeVar("R")

_PAUSES: Final = (0.05, 0.5)


async def again(write: Callable[[], Awaitable[R]]) -> R:
    """What a write gives. One whose outcome is unknown, or whose store was away, is made three times, within a second.

    Raises what the last one did: then the run fails, rather than go on without what it believes to be kept.
    """
    return await appending.again(write, pauses=_PAUSES, on=(OutcomeUnknown, StoreBusy, StoreUnavailable))
