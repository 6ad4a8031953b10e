"""``/api/chats/``: a chat about a title. It is a conversation that is bound to documents, and a turn is its question.

Of the category ``OFFICIAL_DOCS`` a title is an official collection, whose passages are searched; of any other category
it is a reference, which is given to the model whole where it fits.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, Final

from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from ninja import File, Query, Router, UploadedFile

from daram import ids
from daram.errors import Conflict, InvalidInput, NotFound
from daram.knowledge.access import Reader
from daram.knowledge.collections import of_conversation, official_title
from daram.knowledge.documents import Documents
from daram.memory import Memory
from daram.model import Conversation, Message
from daram.service import runtime
from daram.service.accounts.auth import require
from daram.service.native_api import chat_reply
from daram.service.native_api.chat_reply import STATES, age_state, sources_of
from daram.service.native_api.chat_schemas import Chat, ChatIn, ChatList, Reply, TurnIn
from daram.service.native_api.document_schemas import DocumentList, DocumentOut
from daram.service.native_api.documents import document_object
from daram.service.openai_api import schemas
from daram.service.openai_api.idempotency import Draw, once
from daram.service.openai_api.library import documents_here, library_of
from daram.service.openai_api.reply import memory_of, reply
from daram.service.openai_api.responses_turn import check_room
from daram.service.uploads import pieces
from daram.store.documents import Scope

router = Router(tags=["chats"])
_READ: Final = require("read", either=True)
_WRITE: Final = require("write", either=True)
OFFICIAL_DOCS: Final = "OFFICIAL_DOCS"
"""The category whose titles are official collections."""

Limit = Annotated[int, Query(20, ge=1, le=100)]


# --- turns ----------------------------------------------------------------------------------------------------------


@router.post("/chats/", auth=_WRITE, response={201: Reply, **schemas.REFUSALS})
async def create_chat(request: HttpRequest, payload: ChatIn) -> HttpResponseBase:
    """Begin a chat about a title: the answer to its first question, with Accept: text/event-stream as a stream."""
    memory, owner = memory_of(request)
    documents, who = await library_of(request)
    _check_input(payload.user_input)
    title_no = str(payload.title_no)

    async def work(draw: Draw) -> Any:
        if not draw.again:
            check_room(runtime.current(), owner)  # before anything is made
        id = draw("conv")
        scope, reference = await _title(documents, who, payload.category, title_no)
        about = {"category": payload.category, "title_no": title_no}
        try:
            await memory.create(owner, id=id, metadata=about)
        except Conflict:  # an earlier try of this request made it
            await _find(memory, owner, id)
        await documents.bind(who, id, [scope] if scope else [], reference=reference, create=False)
        return await _turn(request, owner, id, payload.user_input, draw, status=201)

    return await once(memory, owner, request, work, work)


@router.post("/chats/{chat_id}/", auth=_WRITE, response={200: Reply, **schemas.REFUSALS})
async def continue_chat(request: HttpRequest, chat_id: str, payload: TurnIn) -> HttpResponseBase:
    """Go on with a chat. What it is about is read as it is now: a corrected reference is answered from at once."""
    memory, owner = memory_of(request)
    documents, who = await library_of(request)
    _check_input(payload.user_input)

    async def work(draw: Draw) -> Any:
        await _find(memory, owner, chat_id)
        await _check_bound(documents, who, chat_id)
        return await _turn(request, owner, chat_id, payload.user_input, draw, status=200)

    return await once(memory, owner, request, work, work)


async def _turn(request: HttpRequest, owner: str, chat: str, words: str, draw: Draw, *, status: int) -> Any:
    house = runtime.current()
    if not draw.again:
        check_room(house, owner)
    question, answer = draw("msg"), draw("msg")
    # An earlier try may be making the first one: who asks with another id joins it, or makes a cut one anew beside it.
    answer = ids.message_id() if draw.again else answer
    message = Message(id=question, role="user", text=words)
    running = await house.chatbot.start(owner, chat, message, create=False, answer_id=answer)
    if "text/event-stream" in request.headers.get("Accept", ""):
        return chat_reply.streamed(house, owner, chat, running, status)
    return await chat_reply.whole(house, owner, chat, running, status)


def _check_input(text: str) -> None:
    if not text.strip():
        raise InvalidInput("user_input", "must not be empty")


async def _title(
    documents: Documents, who: Reader, category: str, title_no: str
) -> tuple[Scope | None, tuple[str, str] | None]:
    """What the chat is about: a collection or a reference. Raises ``NotFound`` that names the category or the title."""
    if category != OFFICIAL_DOCS:
        await documents.reference(who, category, title_no)
        return None, (category, title_no)
    scope = official_title(title_no)
    if await documents.collections.find(*scope) is None:
        raise NotFound("title", f"{category}/{title_no}")
    return scope, None


async def _check_bound(documents: Documents, who: Reader, chat: str) -> None:
    """Raise ``NotFound`` where what the chat is about is not there any more, or not for the caller."""
    binding = await documents.binding(who, chat)
    if binding is None:
        return
    if (title := binding.reference) is not None:
        who.check_read(title.owner, "title", f"{title.category}/{title.title_no}")
        await documents.references.get(title.owner, title.category, title.title_no)
    for scope in binding.collections:
        who.check_read(scope.owner, "title", scope.collection)
        if await documents.collections.find(*scope) is None:
            raise NotFound("title", scope.collection)


# --- chats ----------------------------------------------------------------------------------------------------------


@router.get("/chats/", auth=_READ, response={200: ChatList, **schemas.REFUSALS})
async def list_chats(request: HttpRequest, limit: Limit, cursor: str | None = None) -> HttpResponse:
    """The chats, the one changed last first: every conversation is one, through whatever door it was begun."""
    memory, owner = memory_of(request)
    page = await memory.list(owner, limit=limit, cursor=cursor)
    return reply({"chats": [_object(found) for found in page.items], "next_cursor": page.next_cursor})


@router.get("/chats/{chat_id}/", auth=_READ, response={200: Chat, **schemas.REFUSALS})
async def retrieve_chat(
    request: HttpRequest, chat_id: str, limit: Limit = 100, cursor: str | None = None
) -> HttpResponse:
    """A chat with what was said in it, the oldest first, and the answer that is being made."""
    memory, owner = memory_of(request)
    found = await _find(memory, owner, chat_id)
    page = await memory.messages(owner, chat_id, limit=limit, cursor=cursor)
    said = [_said(message, owner) for message in page.items if message.role in ("user", "assistant")]
    if page.next_cursor is None:
        now, settings = datetime.now(UTC), runtime.current().settings
        for answer in await memory.answers(owner, chat_id):
            state = age_state((now - answer.created_at).total_seconds(), settings)
            said.append({"id_ai": answer.id, "AI": answer.text, "sources": [], "state": state})
    return reply({**_object(found), "conversation": said, "next_cursor": page.next_cursor})


@router.delete("/chats/{chat_id}/", auth=_WRITE, response={204: None, **schemas.REFUSALS})
async def delete_chat(request: HttpRequest, chat_id: str) -> HttpResponse:
    """Delete a chat with what was uploaded into it."""
    memory, owner = memory_of(request)
    await _find(memory, owner, chat_id)
    await memory.delete(owner, chat_id)
    return HttpResponse(status=204)


# --- files of a chat ------------------------------------------------------------------------------------------------


@router.post("/chats/{chat_id}/files/", auth=_WRITE, response={201: DocumentOut, **schemas.REFUSALS})
async def upload_into_chat(request: HttpRequest, chat_id: str, file: File[UploadedFile]) -> HttpResponse:
    """Upload a file into a chat: its answers use it, and it goes with the chat. The same name again replaces it."""
    memory, owner = memory_of(request)
    documents, who = await library_of(request)
    await _find(memory, owner, chat_id)
    added = await documents.attach(who, chat_id, pieces(file), name=file.name or "", media_type=file.content_type)
    return reply(await document_object(documents, who, added), 201)


@router.get("/chats/{chat_id}/files/", auth=_READ, response={200: DocumentList, **schemas.REFUSALS})
async def list_files_of_chat(
    request: HttpRequest, chat_id: str, limit: Limit, cursor: str | None = None
) -> HttpResponse:
    """What was uploaded into a chat, the newest first."""
    memory, owner = memory_of(request)
    documents, who = await library_of(request)
    await _find(memory, owner, chat_id)
    page = await documents.list(who, of_conversation(chat_id), limit=limit, cursor=cursor)
    data = [await document_object(documents, who, document) for document in page.items]
    return reply({"data": data, "next_cursor": page.next_cursor})


@router.delete("/chats/{chat_id}/files/{document_id}/", auth=_WRITE, response={204: None, **schemas.REFUSALS})
async def delete_file_of_chat(request: HttpRequest, chat_id: str, document_id: str) -> HttpResponse:
    """Delete a file of a chat: nothing of it is left."""
    memory, owner = memory_of(request)
    documents = documents_here()
    await _find(memory, owner, chat_id)
    await documents.remove(owner, of_conversation(chat_id), document_id)
    return HttpResponse(status=204)


# --- what they share ------------------------------------------------------------------------------------------------


async def _find(memory: Memory, owner: str, id: str) -> Conversation:
    try:
        return await memory.get(owner, id)
    except NotFound:
        raise NotFound("chat", id) from None


def _object(found: Conversation) -> dict[str, Any]:
    return {
        "id": found.id,
        "category": found.metadata.get("category"),
        "title_no": found.metadata.get("title_no"),
        "title": found.title,
        "created_at": int(found.created_at.timestamp()),
        "updated_at": int(found.updated_at.timestamp()),
    }


def _said(message: Message, owner: str) -> dict[str, Any]:
    if message.role == "user":
        return {"id_user": message.id, "USER": message.text}
    sources = sources_of(message, owner)
    return {"id_ai": message.id, "AI": message.text, "sources": sources, "state": STATES[message.status]}
