"""How adapters write to a conversation: in batches, again where the outcome is unknown, to the end."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final, TypeVar

from daram.errors import Conflict, DaramError, Gone, NotFound, OutcomeUnknown
from daram.model import Message
from daram.store.base import Store, SupportsRecords

R = TypeVar("R")

_BATCH: Final = 100
_CLEARING: Final = "adapters.clearing"
_TOMBSTONE: Final = timedelta(days=1)


async def append_all(
    store: Store, owner: str, id: str, messages: Sequence[Message], *, parent: str | None = None
) -> None:
    """Add messages behind what is there, each batch of 100 in one piece; the conversation is made if need be.

    ``parent``: behind which message instead (``ROOT``: none): a branch, which is the one in use from then on.

    Where it is cancelled, what was begun is finished first: a run must know what the conversation holds.
    """
    if messages:
        await outcome(_append(store, owner, id, messages, parent))


async def clear(store: Store, owner: str, id: str) -> None:
    """Delete everything that was said; the conversation goes on, empty. Where there is none, nothing happens.

    It is deleted and made again. That this is going on is on record, so that whoever adds in between, or after a crash
    in between, makes it again by himself: only what another door deletes is ``Gone``.
    """
    await outcome(_clear(store, owner, id))


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


async def again(
    write: Callable[[], Awaitable[R]],
    *,
    pauses: Sequence[float] = (0.0, 0.0),
    on: tuple[type[DaramError], ...] = (OutcomeUnknown,),
) -> R:
    """What a write gives that may be repeated: made again where it raises one of ``on``, behind each of the pauses (in
    seconds). Raises what the last try did."""
    for pause in pauses:
        try:
            return await write()
        except on:
            await asyncio.sleep(pause)
    return await write()


async def _append(store: Store, owner: str, id: str, messages: Sequence[Message], parent: str | None) -> None:
    for start in range(0, len(messages), _BATCH):
        batch = messages[start : start + _BATCH]
        try:
            await _append_batch(store, owner, id, batch, parent)
        except Gone:
            await _finish_clearing(store, owner, id)
            await _append_batch(store, owner, id, batch, parent)
        parent = None if parent is None else batch[-1].id


async def _append_batch(store: Store, owner: str, id: str, batch: Sequence[Message], parent: str | None) -> None:
    # The same ids once more: stored already, it changes nothing.
    await again(lambda: store.append(owner, id, batch, parent=parent, create=True))


async def _clear(store: Store, owner: str, id: str) -> None:
    if isinstance(store, SupportsRecords):
        if await store.get_record(owner, _CLEARING, id) is not None:
            await _finish_clearing(store, owner, id)  # somebody's, who may not have come to its end
        await store.put_record(owner, _CLEARING, id, b"", expires_at=datetime.now(UTC) + _TOMBSTONE)
    try:
        await store.delete(owner, id)
    except NotFound:
        if isinstance(store, SupportsRecords):
            await store.delete_record(owner, _CLEARING, id)
        return
    await _begin_again(store, owner, id)


async def _finish_clearing(store: Store, owner: str, id: str) -> None:
    if isinstance(store, SupportsRecords) and await store.get_record(owner, _CLEARING, id) is not None:
        await _begin_again(store, owner, id)


async def _begin_again(store: Store, owner: str, id: str) -> None:
    try:
        await store.create(owner, id=id)
    except Conflict:
        pass  # somebody was faster
    if isinstance(store, SupportsRecords):
        await store.delete_record(owner, _CLEARING, id)
