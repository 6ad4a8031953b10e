"""Pages of items and of conversations: what comes after an id."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, Literal

import msgspec

from daram.codec import list_cursor, messages_cursor
from daram.errors import NotFound
from daram.memory import Memory
from daram.model import Conversation, Message, Page
from daram.service.openai_api.items import Item, item_of, items_of, message_ids

Order = Literal["asc", "desc"]

PAGE_BYTES: Final = 8 << 20
"""A page ends early where its items are larger than this; clients go on by ``has_more``."""
_STEP: Final = 20
_encode = msgspec.json.Encoder().encode


async def find_item(memory: Memory, owner: str, conversation: str, item_id: str) -> tuple[Message, Item]:
    """The item, of any branch, and the message that it is in. Raises ``NotFound``."""
    for id in message_ids(item_id):
        try:
            message = await memory.message(owner, conversation, id)
        except NotFound:
            continue
        if (item := item_of(message, item_id)) is not None:
            return message, item
    await memory.get(owner, conversation)  # which of the two is not there
    raise NotFound("item", item_id)


async def page_of_items(
    memory: Memory, owner: str, conversation: str, *, limit: int, after: str | None, order: Order
) -> tuple[list[Item], bool]:
    """At most ``limit`` items of the branch in use behind the item ``after``, and whether there are more.

    Raises ``NotFound`` (also where there is no item ``after``).
    """
    found: list[Item] = []
    cursor = None
    if after is not None:
        message, item = await find_item(memory, owner, conversation, after)
        found = _behind(items_of(message), item, order)
        # Forward along the branch in use, if it is on it; backward along its own.
        cursor = messages_cursor(owner, conversation, order, message.seq, message.seq)
    size = 0
    while len(found) <= limit:
        step = min(limit + 1 - len(found), _STEP)
        page = await memory.messages(owner, conversation, limit=step, cursor=cursor, order=order)
        for message in page.items:
            items = items_of(message)
            found += items if order == "asc" else reversed(items)
            size += sum(len(_encode(item)) for item in items)
        cursor = page.next_cursor
        if cursor is None:
            break
        if size > PAGE_BYTES:
            return found[:limit], True
    return found[:limit], len(found) > limit


async def in_use(memory: Memory, owner: str, conversation: str, siblings: Sequence[Message]) -> str | None:
    """The id of the one of them through which the branch in use goes, in two reads, however many there are."""
    last = await memory.messages(owner, conversation, limit=1, order="desc")
    if not last.items:
        return None
    # On a branch the numbers rise: what it has at the place of these is its first message from their numbers on.
    first = min(message.seq for message in siblings)
    cursor = messages_cursor(owner, conversation, "asc", first - 1, last.items[0].seq) if first > 1 else None
    found = (await memory.messages(owner, conversation, limit=1, cursor=cursor)).items
    return next((message.id for message in siblings if found and message.id == found[0].id), None)


async def page_of_conversations(
    memory: Memory, owner: str, *, limit: int, after: str | None, cursor: str | None
) -> Page[Conversation]:
    """The owner's conversations, the one changed last first, behind the conversation ``after`` or at the ``cursor``."""
    if cursor is None and after is not None:
        last = await memory.get(owner, after)
        cursor = list_cursor(owner, last.updated_at, last.id)
    return await memory.list(owner, limit=limit, cursor=cursor)


def list_object(data: Sequence[Any], *, has_more: bool = False, **more: Any) -> dict[str, Any]:
    """A list as the API shows it."""
    first, last = (data[0]["id"], data[-1]["id"]) if data else (None, None)
    return {"object": "list", "data": data, "first_id": first, "last_id": last, "has_more": has_more, **more}


def _behind(items: list[Item], item: Item, order: Order) -> list[Item]:
    ordered = items if order == "asc" else items[::-1]
    return ordered[ordered.index(item) + 1 :]
