"""How an answer of ``/api/chats/`` reaches its client, whole or word by word, and what is said where it takes long.

A client that hears nothing for ``DARAM_CHAT_DELAYED`` seconds counts as kept waiting; one that hears nothing for
``DARAM_CHAT_FAILED`` seconds is told that the answer failed, and the answer is stopped: what it said, and the question,
are kept. Who takes no stream hears nothing until the answer is whole.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from typing import Any, Final, cast
from urllib.parse import quote

import msgspec
from django.http import HttpResponse, StreamingHttpResponse

from daram.chat.events import TERMINAL, Event
from daram.chat.running import Running
from daram.context.sources import cited
from daram.errors import DaramError
from daram.model import Message
from daram.service.openai_api.errors import SERVER, error_body, response_of
from daram.service.openai_api.library import public_id
from daram.service.openai_api.reply import reply
from daram.service.openai_api.responses import event_stream
from daram.service.runtime import Runtime
from daram.settings import Settings
from daram.store.documents import Scope

STATES: Final[Mapping[str, str]] = {
    "complete": "answered",
    "incomplete": "incomplete",
    "cancelled": "cancelled",
    "failed": "failed",
}
_LATE: Final = "There was no answer in {:g} seconds; what was asked is kept. Ask again, or as a stream."

Json = dict[str, Any]


def sources_of(message: Message, owner: str) -> list[Json]:
    """What an answer cites, and where to open it."""
    return [{**data, "url": _url(data, owner)} for data in cited(message)]


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


def age_state(seconds: float, settings: Settings) -> str:
    """How an answer that has been made for so long stands to who asked for it."""
    return "delayed" if settings.chat_delayed and seconds >= settings.chat_delayed else "running"


async def whole(house: Runtime, owner: str, chat: str, running: Running, status: int) -> HttpResponse:
    """The answer once it is whole; or why there is none, with the id of the chat, whose question is kept."""
    settings = house.settings
    clock = asyncio.get_running_loop().time
    begun = clock()
    coming = asyncio.ensure_future(running.message())
    try:
        await asyncio.wait({coming}, timeout=settings.chat_failed or None)
        if not coming.done():
            await house.chatbot.cancel(owner, chat, running.answer_id)
            return reply(_late(settings) | {"id": chat, "state": "failed"}, 504)
        message = coming.result()
    except DaramError as error:
        return _with_chat(response_of(error), chat)
    finally:
        coming.cancel()  # the wait, not the answer
    said = _done(chat, owner, message)
    if said["state"] == "answered":
        said["state"] = "delayed" if age_state(clock() - begun, settings) == "delayed" else "answered"
    return reply(said, status)


def streamed(house: Runtime, owner: str, chat: str, running: Running, status: int) -> StreamingHttpResponse:
    """The answer as server-sent events: ``created``, ``delta`` with words (``AI``), ``delayed``, and in the end
    ``done`` (the whole reply) or ``failed``."""
    response = event_stream(_frames(house, owner, chat, running))
    response.status_code = status
    return response


async def _frames(house: Runtime, owner: str, chat: str, running: Running) -> AsyncGenerator[bytes, None]:
    settings = house.settings
    loop = asyncio.get_running_loop()
    events = running.events()
    waits = sorted(
        (seconds, name)
        for seconds, name in ((settings.chat_delayed, "delayed"), (settings.chat_failed, "failed"))
        if seconds
    )
    heard, ahead = loop.time(), list(waits)
    coming: asyncio.Task[Event] | None = None
    try:
        while True:
            if coming is None:
                coming = asyncio.ensure_future(cast("Any", anext(events)))
            patience = None if not ahead else max(0.0, heard + ahead[0][0] - loop.time())
            done, _ = await asyncio.wait({coming}, timeout=patience)
            if not done:
                _, name = ahead.pop(0)
                if name == "failed":
                    await house.chatbot.cancel(owner, chat, running.answer_id)
                    yield _frame("failed", _late(settings) | {"id": chat, "state": "failed"})
                    return
                yield _frame("delayed", {"id": chat, "state": "delayed"})
                continue
            event, coming = coming.result(), None
            if event.type == "created":
                yield _frame("created", {"id": chat, "id_ai": running.answer_id, "state": "running"})
            elif event.type not in TERMINAL:
                heard, ahead = loop.time(), list(waits)
                yield _frame("delta", {"AI": event.text})
            else:
                yield _end(event, chat, owner)
                return
    except (DaramError, StopAsyncIteration) as error:
        code = error.code if isinstance(error, DaramError) else "internal_error"
        words = "The server lost this stream. The answer is not lost: GET the chat."
        yield _frame("failed", error_body(words, type=SERVER, code=code) | {"id": chat, "state": "failed"})
    finally:
        if coming is not None:
            coming.cancel()
            await asyncio.gather(coming, return_exceptions=True)
        await events.aclose()


def _end(event: Event, chat: str, owner: str) -> bytes:
    if event.type == "failed" or event.message is None:
        body = error_body(event.error or "the answer was lost", type=SERVER, code=event.code)
        return _frame("failed", body | {"id": chat, "state": "failed"})
    return _frame("done", _done(chat, owner, event.message))


def _done(chat: str, owner: str, message: Message) -> Json:
    return {
        "id": chat,
        "AI": message.text,
        "sources": sources_of(message, owner),
        "state": STATES[message.status],
    }


def _late(settings: Settings) -> Json:
    return error_body(_LATE.format(settings.chat_failed), type=SERVER, code="answer_failed")


def _with_chat(refusal: HttpResponse, chat: str) -> HttpResponse:
    """The refusal, which also says which chat it is: its question is there, and it can go on."""
    body = msgspec.json.decode(refusal.content) | {"id": chat, "state": "failed"}
    refusal.content = msgspec.json.encode(body)
    return refusal


def _frame(name: str, data: Json) -> bytes:
    return b"event: %s\ndata: %s\n\n" % (name.encode(), msgspec.json.encode(data))
