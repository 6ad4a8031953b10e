"""Conversations and their items: OpenAI's operations, and beyond them the list, titles, branches, export, search."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Annotated, Final

from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from ninja import Query, Router

from daram.errors import Conflict, InvalidInput, NotFound
from daram.memory import Memory
from daram.model import ROOT, UNSET, Appended, Message
from daram.service.accounts.auth import require
from daram.service.openai_api import schemas
from daram.service.openai_api.idempotency import Draw, Work, once
from daram.service.openai_api.items import items_of, message_ids, messages_of
from daram.service.openai_api.pages import (
    Order,
    find_item,
    in_use,
    list_object,
    page_of_conversations,
    page_of_items,
)
from daram.service.openai_api.reply import about_items, conversation_object, memory_of, reply
from daram.store import validate
from daram.store.validate import Limits
from daram.transfer.copy import Report
from daram.transfer.files import exported

router = Router(tags=["conversations"])
_READ: Final = require("read")
_WRITE: Final = require("write")
_CHUNK: Final = 1 << 16

Limit = Annotated[int, Query(20, ge=1, le=100)]
# ``include`` is accepted like every parameter of a URL, and changes nothing: all that is kept is always there.


# --- conversations --------------------------------------------------------------------------------------------------


@router.post("/conversations", auth=_WRITE, response={200: schemas.ConversationOut, **schemas.REFUSALS})
async def create_conversation(request: HttpRequest, payload: schemas.ConversationIn | None = None) -> HttpResponse:
    """Make a conversation, with items where there are any."""
    memory, owner = memory_of(request)
    given = payload or schemas.ConversationIn()

    async def work(draw: Draw) -> HttpResponse:
        id = draw("conv")
        messages = messages_of(given.items or [], draw=draw)
        _check(messages)
        if messages and given.title is None and not given.metadata:  # one write: all of it or nothing
            await _append(memory, owner, id, messages, create=True)
            return reply(conversation_object(await memory.get(owner, id)))
        try:
            made = await memory.create(owner, id=id, title=given.title, metadata=given.metadata)
        except Conflict:  # an earlier try of this request made it
            made = await memory.get(owner, id)
        if messages:
            try:
                await _append(memory, owner, id, messages)
            except InvalidInput:
                await memory.delete(owner, id)
                raise
            made = await memory.get(owner, id)
        return reply(conversation_object(made))

    async def again(draw: Draw) -> HttpResponse:
        return reply(conversation_object(await memory.get(owner, draw("conv"))))

    return await once(memory, owner, request, work, again)


@router.get("/conversations", auth=_READ, response={200: schemas.ConversationList, **schemas.REFUSALS})
async def list_conversations(
    request: HttpRequest, limit: Limit, after: str | None = None, cursor: str | None = None
) -> HttpResponse:
    """The conversations, the one changed last first. Beyond OpenAI, which has no list of them."""
    memory, owner = memory_of(request)
    page = await page_of_conversations(memory, owner, limit=limit, after=after, cursor=cursor)
    data = [conversation_object(found) for found in page.items]
    more = page.next_cursor
    return reply(list_object(data, has_more=more is not None, next_cursor=more))


@router.get("/conversations/search", auth=_READ, response={200: schemas.FoundList, **schemas.REFUSALS})
async def search_conversations(
    request: HttpRequest,
    limit: Limit,
    q: Annotated[str, Query(..., min_length=1, max_length=1000)],
    conversation: str | None = None,
) -> HttpResponse:
    """Where these words stand in the messages of the caller, or of one conversation. Beyond OpenAI."""
    memory, owner = memory_of(request)
    if conversation is not None:
        await memory.get(owner, conversation)
    hits = await memory.search(owner, q, conversation=conversation, limit=limit)
    return reply(
        list_object(
            [
                {
                    "id": hit.message.id,
                    "object": "search.result",
                    "conversation_id": hit.conversation,
                    "title": hit.title,
                    "score": hit.score,
                    "created_at": _seconds(hit.message),
                    "items": items_of(hit.message),
                }
                for hit in hits
            ]
        )
    )


@router.get("/conversations/{conversation_id}", auth=_READ, response={200: schemas.ConversationOut, **schemas.REFUSALS})
async def retrieve_conversation(request: HttpRequest, conversation_id: str) -> HttpResponse:
    """One conversation."""
    memory, owner = memory_of(request)
    return reply(conversation_object(await memory.get(owner, conversation_id)))


@router.post(
    "/conversations/{conversation_id}", auth=_WRITE, response={200: schemas.ConversationOut, **schemas.REFUSALS}
)
async def update_conversation(
    request: HttpRequest, conversation_id: str, payload: schemas.ConversationChanges
) -> HttpResponse:
    """Change the metadata (as a whole) or, beyond OpenAI, the title and whether it is pinned or archived."""
    memory, owner = memory_of(request)
    given = payload.model_dump(exclude_unset=True)
    for name in ("pinned", "archived"):
        if given.get(name, True) is None:
            raise InvalidInput(name, "must be true or false")

    async def work(_draw: Draw) -> HttpResponse:
        changed = await memory.update(
            owner,
            conversation_id,
            title=given.get("title", UNSET),
            metadata=(given["metadata"] or {}) if "metadata" in given else UNSET,
            pinned=given.get("pinned", UNSET),
            archived=given.get("archived", UNSET),
        )
        return reply(conversation_object(changed))

    return await once(memory, owner, request, work, _shown(memory, owner, conversation_id))


@router.patch(
    "/conversations/{conversation_id}", auth=_WRITE, response={200: schemas.ConversationOut, **schemas.REFUSALS}
)
async def patch_conversation(
    request: HttpRequest, conversation_id: str, payload: schemas.ConversationChanges
) -> HttpResponse:
    """The same as POST, under the name that others give it. Beyond OpenAI."""
    return await update_conversation(request, conversation_id, payload)


@router.delete("/conversations/{conversation_id}", auth=_WRITE, response={200: schemas.Deleted, **schemas.REFUSALS})
async def delete_conversation(request: HttpRequest, conversation_id: str) -> HttpResponse:
    """Delete a conversation with everything in it."""
    memory, owner = memory_of(request)
    await memory.delete(owner, conversation_id)
    return reply({"id": conversation_id, "object": "conversation.deleted", "deleted": True})


@router.get("/conversations/{conversation_id}/export", auth=_READ, response={200: str, **schemas.REFUSALS})
async def export_conversation(request: HttpRequest, conversation_id: str) -> HttpResponse | StreamingHttpResponse:
    """The conversation with all its branches as JSON Lines, in the format of `daram export`. Beyond OpenAI."""
    memory, owner = memory_of(request)
    await memory.get(owner, conversation_id)
    response = StreamingHttpResponse(_exported(memory, owner, conversation_id), content_type="application/jsonl")
    response.headers["Content-Disposition"] = 'attachment; filename="conversation.jsonl"'
    return response


async def _exported(memory: Memory, owner: str, conversation: str) -> AsyncGenerator[bytes, None]:
    """Read no faster than it is sent. What fails on the way breaks the connection: the last line is missing then."""
    report = Report()
    ready = bytearray()
    async with aclosing(exported(memory, report, owner=owner, conversation=conversation)) as lines:
        async for line in lines:
            if len(ready) >= _CHUNK:
                yield bytes(ready)
                ready.clear()
            ready += line
    if not report.conversations:
        raise Conflict("the conversation was changed again and again while it was read, or was deleted")
    yield bytes(ready)


# --- items ----------------------------------------------------------------------------------------------------------


@router.post(
    "/conversations/{conversation_id}/items", auth=_WRITE, response={200: schemas.ItemList, **schemas.REFUSALS}
)
async def create_items(request: HttpRequest, conversation_id: str, payload: schemas.ItemsIn) -> HttpResponse:
    """Append up to 20 items, all or none; with `beside` as a branch of their own, which becomes the one in use."""
    memory, owner = memory_of(request)

    async def work(draw: Draw) -> HttpResponse:
        messages = messages_of(payload.items, draw=draw)
        _check(messages)
        parent = None
        if payload.beside is not None:
            edited, _ = await find_item(memory, owner, conversation_id, payload.beside)
            parent = edited.parent or ROOT
        await _check_new(memory, owner, conversation_id, messages)
        appended = await _append(memory, owner, conversation_id, messages, parent)
        return reply(list_object([item for message in appended.messages for item in items_of(message)]))

    async def again(draw: Draw) -> HttpResponse:
        made = [message.id for message in messages_of(payload.items, draw=draw)]
        return reply(list_object([(await find_item(memory, owner, conversation_id, id))[1] for id in made]))

    return await once(memory, owner, request, work, again)


@router.get("/conversations/{conversation_id}/items", auth=_READ, response={200: schemas.ItemList, **schemas.REFUSALS})
async def list_items(
    request: HttpRequest,
    conversation_id: str,
    limit: Limit,
    after: str | None = None,
    order: Order = "desc",
) -> HttpResponse:
    """The items of the branch in use."""
    memory, owner = memory_of(request)
    found, more = await page_of_items(memory, owner, conversation_id, limit=limit, after=after, order=order)
    return reply(list_object(found, has_more=more))


@router.get(
    "/conversations/{conversation_id}/items/{item_id}", auth=_READ, response={200: schemas.ItemOut, **schemas.REFUSALS}
)
async def retrieve_item(request: HttpRequest, conversation_id: str, item_id: str) -> HttpResponse:
    """One item, of any branch."""
    memory, owner = memory_of(request)
    _, item = await find_item(memory, owner, conversation_id, item_id)
    return reply(item)


@router.delete(
    "/conversations/{conversation_id}/items/{item_id}",
    auth=_WRITE,
    response={200: schemas.ConversationOut, **schemas.REFUSALS},
)
async def delete_item(request: HttpRequest, conversation_id: str, item_id: str) -> HttpResponse:
    """Delete an item; what follows it stays. An answer of several items is one message, and goes as a whole."""
    memory, owner = memory_of(request)
    message, _ = await find_item(memory, owner, conversation_id, item_id)
    return reply(conversation_object(await memory.delete_message(owner, conversation_id, message.id)))


# --- branches -------------------------------------------------------------------------------------------------------


@router.get(
    "/conversations/{conversation_id}/items/{item_id}/branches",
    auth=_READ,
    response={200: schemas.BranchList, **schemas.REFUSALS},
)
async def list_branches(
    request: HttpRequest, conversation_id: str, item_id: str, limit: Limit, after: str | None = None
) -> HttpResponse:
    """The item and what stands beside it, from edits and answers made anew, oldest first. Beyond OpenAI."""
    memory, owner = memory_of(request)
    message, _ = await find_item(memory, owner, conversation_id, item_id)
    branches = await memory.branches(owner, conversation_id, message.id)
    used = await in_use(memory, owner, conversation_id, branches)
    if after is not None:
        behind = next((place + 1 for place, branch in enumerate(branches) if branch.id == after), None)
        if behind is None:
            raise NotFound("branch", after)
        branches = branches[behind:]
    return reply(
        list_object(
            [
                {
                    "id": branch.id,
                    "object": "conversation.branch",
                    "in_use": branch.id == used,
                    "created_at": _seconds(branch),
                    "items": items_of(branch),
                }
                for branch in branches[:limit]
            ],
            has_more=len(branches) > limit,
        )
    )


@router.post(
    "/conversations/{conversation_id}/items/{item_id}/use",
    auth=_WRITE,
    response={200: schemas.ConversationOut, **schemas.REFUSALS},
)
async def use_branch(request: HttpRequest, conversation_id: str, item_id: str) -> HttpResponse:
    """Go on with the branch through this item. Beyond OpenAI."""
    memory, owner = memory_of(request)

    async def work(_draw: Draw) -> HttpResponse:
        message, _ = await find_item(memory, owner, conversation_id, item_id)
        return reply(conversation_object(await memory.use_branch(owner, conversation_id, message.id)))

    return await once(memory, owner, request, work, _shown(memory, owner, conversation_id))


# --- what they share ------------------------------------------------------------------------------------------------


def _shown(memory: Memory, owner: str, conversation: str) -> Work:
    """Work that shows the conversation as it is now."""

    async def work(_draw: Draw) -> HttpResponse:
        return reply(conversation_object(await memory.get(owner, conversation)))

    return work


def _check(messages: list[Message]) -> None:
    """Refuse what the store would refuse, before anything is stored."""
    try:
        validate.batch(messages, Limits(), may_be_empty=True)
    except InvalidInput as error:
        raise about_items(error) from None


async def _check_new(memory: Memory, owner: str, conversation: str, messages: list[Message]) -> None:
    """Refuse an id that a part of an answer in this conversation has already: an item must be found by its id."""
    for message in messages:
        for id in message_ids(message.id)[1:]:
            try:
                answer = await memory.message(owner, conversation, id)
            except NotFound:
                continue
            if any(item["id"] == message.id for item in items_of(answer)):
                raise Conflict(f"item {message.id!r} is in this conversation already")


async def _append(
    memory: Memory,
    owner: str,
    conversation: str,
    messages: list[Message],
    parent: str | None = None,
    *,
    create: bool = False,
) -> Appended:
    try:
        return await memory.append(owner, conversation, messages, parent=parent, create=create)
    except InvalidInput as error:
        raise about_items(error) from None
    except Conflict:
        # Its own words speak of messages and of what is stored.
        raise Conflict("an item of this id is in the conversation already, or somebody changed it meanwhile") from None


def _seconds(message: Message) -> int:
    return 0 if message.created_at is None else int(message.created_at.timestamp())
