"""``/api/chats/``: a chat about a title. It is a conversation that is bound to documents, and a turn is its question.

Of the category ``OFFICIAL_DOCS`` a title is an official collection, whose passages are searched; of any other category
it is a reference, which is given to the model whole where it fits.
"""

from __future__ import annotations

from typing import Annotated, Any, Final

from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from ninja import File, Query, Router, UploadedFile

from daram import ids
from daram.chat.titled import TitledChats
from daram.errors import NotFound
from daram.knowledge.collections import of_conversation
from daram.memory import Memory
from daram.service import runtime
from daram.service.accounts.auth import require
from daram.service.native_api import chat_reply
from daram.service.native_api.chat_schemas import Chat, ChatIn, ChatList, Reply, TurnIn
from daram.service.native_api.document_schemas import DocumentList, DocumentOut
from daram.service.native_api.documents import document_object
from daram.service.openai_api import schemas
from daram.service.openai_api.idempotency import Draw, once
from daram.service.openai_api.library import documents_here, library_of
from daram.service.openai_api.reply import memory_of, reply
from daram.service.openai_api.responses_turn import check_room
from daram.service.uploads import pieces

router = Router(tags=["chats"])
_READ: Final = require("read", either=True)
_WRITE: Final = require("write", either=True)
Limit = Annotated[int, Query(20, ge=1, le=100)]


# --- turns ----------------------------------------------------------------------------------------------------------


@router.post("/chats/", auth=_WRITE, response={201: Reply, **schemas.REFUSALS})
async def create_chat(request: HttpRequest, payload: ChatIn) -> HttpResponseBase:
    """Begin a chat about a title: the answer to its first question, with Accept: text/event-stream as a stream."""
    memory, owner = memory_of(request)
    _, who = await library_of(request)
    chats = _chats()

    async def work(draw: Draw) -> Any:
        id = draw("conv")
        question, answer = _ids(draw, owner)
        about = (payload.category, payload.title_no, payload.user_input)
        turn = await chats.begin(who, *about, chat=id, question=question, answer=answer)
        return await chat_reply.answered(request, turn, 201)

    return await once(memory, owner, request, work, work)


@router.post("/chats/{chat_id}/", auth=_WRITE, response={200: Reply, **schemas.REFUSALS})
async def continue_chat(request: HttpRequest, chat_id: str, payload: TurnIn) -> HttpResponseBase:
    """Go on with a chat. What it is about is read as it is now: a corrected reference is answered from at once."""
    memory, owner = memory_of(request)
    _, who = await library_of(request)
    chats = _chats()

    async def work(draw: Draw) -> Any:
        question, answer = _ids(draw, owner)
        turn = await chats.go_on(who, chat_id, payload.user_input, question=question, answer=answer)
        return await chat_reply.answered(request, turn, 200)

    return await once(memory, owner, request, work, work)


def _ids(draw: Draw, owner: str) -> tuple[str, str]:
    """The ids of a question and its answer, where there is room for one more."""
    if not draw.again:
        check_room(runtime.current(), owner)
    question, answer = draw("msg"), draw("msg")
    # An earlier try may be making the first one: who asks with another id joins it, or makes a cut one anew beside it.
    return question, ids.message_id() if draw.again else answer


def _chats() -> TitledChats:
    house = runtime.current()
    settings = house.settings
    return TitledChats(
        house.chatbot, delayed=settings.chat_delayed, failed=settings.chat_failed, source=chat_reply.source
    )


# --- chats ----------------------------------------------------------------------------------------------------------


@router.get("/chats/", auth=_READ, response={200: ChatList, **schemas.REFUSALS})
async def list_chats(request: HttpRequest, limit: Limit, cursor: str | None = None) -> HttpResponse:
    """The chats, the one changed last first: every conversation is one, through whatever door it was begun."""
    _, owner = memory_of(request)
    return reply(await _chats().list(owner, limit=limit, cursor=cursor))


@router.get("/chats/{chat_id}/", auth=_READ, response={200: Chat, **schemas.REFUSALS})
async def retrieve_chat(
    request: HttpRequest, chat_id: str, limit: Limit = 100, cursor: str | None = None
) -> HttpResponse:
    """A chat with what was said in it, the oldest first, and the answer that is being made."""
    _, owner = memory_of(request)
    return reply(await _chats().get(owner, chat_id, limit=limit, cursor=cursor))


@router.delete("/chats/{chat_id}/", auth=_WRITE, response={204: None, **schemas.REFUSALS})
async def delete_chat(request: HttpRequest, chat_id: str) -> HttpResponse:
    """Delete a chat with what was uploaded into it."""
    _, owner = memory_of(request)
    await _chats().delete(owner, chat_id)
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


async def _find(memory: Memory, owner: str, id: str) -> None:
    try:
        await memory.get(owner, id)
    except NotFound:
        raise NotFound("chat", id) from None
