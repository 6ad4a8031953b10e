"""How an answer of ``/api/chats/`` reaches its client, whole or word by word, and where its sources are opened."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any
from urllib.parse import quote

import msgspec
from django.http import HttpRequest, HttpResponse

from daram.chat.titled import TitledTurn
from daram.errors import DaramError
from daram.service.openai_api.errors import SERVER, error_body, response_of
from daram.service.openai_api.library import public_id
from daram.service.openai_api.reply import reply
from daram.service.openai_api.responses import event_stream
from daram.store.documents import Scope

Json = dict[str, Any]


def source(owner: str, data: Json) -> Json:
    """What an answer cites, and where to open it."""
    return {**data, "url": _url(data, owner)}


def _url(data: Json, owner: str) -> str:
    if data["kind"] == "reference":
        place = f"references/{quote(data['category'], safe='')}/{quote(data['title_no'], safe='')}"
        return f"/api/{place}?owner={quote(_shared(data['collection_owner'], owner), safe='')}"
    collection = public_id(owner, Scope(data["collection_owner"], data["collection"]))
    place = f"collections/{quote(collection, safe='')}/documents/{quote(data['document'], safe='')}"
    which = f"after={data['seq'] - 1}&limit={data['last_seq'] - data['seq'] + 1}&revision={data['revision']}"
    return f"/api/{place}/passages?{which}"


def _shared(whose: str, owner: str) -> str:
    return "" if whose == owner else whose


async def answered(request: HttpRequest, turn: TitledTurn, status: int) -> Any:
    """The answer, with ``Accept: text/event-stream`` as a stream of what ``TitledTurn.told`` tells, else once it is
    whole; or why there is none, with the id of the chat, whose question is kept."""
    if "text/event-stream" in request.headers.get("Accept", ""):
        response = event_stream(_frames(turn))
        response.status_code = status
        return response
    try:
        return reply(await turn.reply(), status)
    except DaramError as error:
        return _with_chat(response_of(error), turn.chat)


async def _frames(turn: TitledTurn) -> AsyncGenerator[bytes, None]:
    async with aclosing(turn.told()) as events:
        async for told in events:
            data = told.data
            if told.name == "failed":
                data = error_body(told.words, type=SERVER, code=told.code) | data
            yield b"event: %s\ndata: %s\n\n" % (told.name.encode(), msgspec.json.encode(data))


def _with_chat(refusal: HttpResponse, chat: str) -> HttpResponse:
    """The refusal, which also says which chat it is: its question is there, and it can go on."""
    body = msgspec.json.decode(refusal.content) | {"id": chat, "state": "failed"}
    refusal.content = msgspec.json.encode(body)
    return refusal
