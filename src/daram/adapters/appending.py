"""How adapters add messages to a conversation: in batches, again where the outcome is unknown, to the end."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any, Final, TypeVar

from daram.errors import OutcomeUnknown
from daram.model import Message
from daram.store.base import Store

R = TypeVar("R")

_BATCH: Final = 100


async def append_all(store: Store, owner: str, id: str, messages: Sequence[Message]) -> None:
    """Add messages behind what is there, each batch of 100 in one piece; the conversation is made if need be.

    Where it is cancelled, what was begun is finished first: a run must know what the conversation holds.
    """
    if messages:
        await outcome(_append(store, owner, id, messages))


async def outcome(work: Coroutine[Any, Any, R]) -> R:
    """Wait for what a write came to, although the caller is cancelled."""
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        if not task.cancelled():
            task.exception()  # seen: the cancellation is what the caller asked for
        raise cancelled
    return task.result()


async def _append(store: Store, owner: str, id: str, messages: Sequence[Message]) -> None:
    for start in range(0, len(messages), _BATCH):
        batch = messages[start : start + _BATCH]
        for last in (False, False, True):
            try:
                await store.append(owner, id, batch, create=True)
                break
            except OutcomeUnknown:
                if last:
                    raise
                # The same ids once more: stored already, it changes nothing.
