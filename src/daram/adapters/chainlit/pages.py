"""Pages of threads, as Chainlit asks for them: one may end within a page of the store."""

from __future__ import annotations

from collections.abc import Sequence

from chainlit.types import PageInfo, PaginatedResponse, Pagination, ThreadDict

from daram.model import Conversation
from daram.store.base import Store


def page_of(found: list[ThreadDict], pagination: Pagination, end: str | None) -> PaginatedResponse[ThreadDict]:
    """What was asked for; ``end``: the cursor for what follows it, if anything does."""
    info = PageInfo(hasNextPage=end is not None, startCursor=pagination.cursor, endCursor=end)
    return PaginatedResponse(pageInfo=info, data=found)


async def cursor_behind(store: Store, owner: str, cursor: str | None, looked: Sequence[Conversation]) -> str | None:
    """The cursor for what follows these conversations, which were listed from ``cursor`` on.

    Some may have moved to the front since; then others, at which nobody looked, have come up to where they were.
    """
    ids = {conversation.id for conversation in looked}
    limit = len(looked)
    while True:
        page = await store.list(owner, limit=limit, cursor=cursor)
        last = max((at for at, conversation in enumerate(page.items, 1) if conversation.id in ids), default=0)
        if last == len(page.items):
            return page.next_cursor
        if not last:
            return cursor or page.next_cursor
        limit = last
