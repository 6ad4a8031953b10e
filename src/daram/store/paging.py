"""Lists to their end: what is read page by page, for whoever wants all of it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final, TypeVar

from daram.model import Message, Page
from daram.store.base import Store

_PAGE: Final = 200

T = TypeVar("T")
Ask = Callable[[str | None], Awaitable[Page[T]]]


async def pages(ask: Ask[T]) -> AsyncIterator[list[T]]:
    """The items of each page, which is asked for when those before it were taken; ``ask`` gets the cursor."""
    cursor = None
    while True:
        page = await ask(cursor)
        yield page.items
        cursor = page.next_cursor
        if cursor is None:
            return


async def items(ask: Ask[T]) -> AsyncIterator[T]:
    """All items of all pages."""
    async for page in pages(ask):
        for item in page:
            yield item


async def newest(
    store: Store, owner: str, id: str, count: int | None = None, size: Callable[[Message], int] = lambda _: 1
) -> list[Message]:
    """The last messages of the branch in use, the newest first, until they come to ``count`` (None: all of them).

    ``size``: what a message counts for; it is asked once for each, in that order. Raises ``NotFound``.
    """
    # A list: to leave a generator in the middle costs as much as the read.
    found: list[Message] = []
    taken, cursor = 0, None
    while True:
        limit = _PAGE if count is None else min(count - taken, _PAGE)
        page = await store.messages(owner, id, limit=limit, cursor=cursor, order="desc")
        for message in page.items:
            found.append(message)
            taken += size(message)
            if count is not None and taken >= count:
                return found
        cursor = page.next_cursor
        if cursor is None:
            return found
