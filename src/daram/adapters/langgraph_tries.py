"""Writes that are made again: each of this adapter's may be repeated, and comes to the same then."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from daram.errors import OutcomeUnknown, StoreBusy, StoreUnavailable

R = TypeVar("R")

_PAUSES: Final = (0.05, 0.5)


async def again(write: Callable[[], Awaitable[R]]) -> R:
    """What a write gives. One whose outcome is unknown, or whose store was away, is made three times, within a second.

    Raises what the last one did: then the run fails, rather than go on without what it believes to be kept.
    """
    for pause in _PAUSES:
        try:
            return await write()
        except (OutcomeUnknown, StoreBusy, StoreUnavailable):
            await asyncio.sleep(pause)
    return await write()
