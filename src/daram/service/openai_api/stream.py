"""A turn's events as the frames of the Responses API.

The frames follow from the events alone: any process that has the log of an answer gives the same frames with the same
numbers, however often it is asked. So a client comes back with the last number that it saw, to whatever process.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from typing import Any, Final

import msgspec

from daram.chat.events import TERMINAL, Event
from daram.errors import DaramError
from daram.model import Message
from daram.service.openai_api.items import Item, text_item
from daram.service.openai_api.responses_view import View, output_of

log = logging.getLogger(__name__)

PING: Final = b": still here\n\n"
"""A comment: it keeps proxies from taking a silent stream for dead."""
_AHEAD: Final = 1 << 16
"""How many bytes of frames are made before the client has taken those before them."""
_LOST: Final = "The server lost this stream. The answer is not lost: ask for the rest of it again."
_TERMINAL_FRAME: Final = {
    "completed": "response.completed",
    "incomplete": "response.incomplete",
    "cancelled": "response.incomplete",  # there is no frame of its own; the response in it says "cancelled"
    "failed": "response.failed",
}


class Framer:
    """Turns the events of one answer, from the first on and in order, into numbered frames."""

    def __init__(self, view: View, answer: str) -> None:
        self.number = 0
        self.ended = False
        self._view = view
        self._id = answer
        self._told: list[str] = []
        self._open = False

    def feed(self, event: Event) -> Iterator[bytes]:
        """The frames of the next event. A terminal one may come first: then it brings all the others."""
        if event.type == "delta":
            yield from self._delta(event.text)
        elif event.type == "created":
            yield from self._begin()
        else:
            if self.number == 0:
                yield from self._begin()
            yield from self._end(event)

    def _begin(self) -> Iterator[bytes]:
        shown = self._view.running()
        yield self._frame("response.created", response=shown)
        yield self._frame("response.in_progress", response=shown)

    def _delta(self, text: str) -> Iterator[bytes]:
        if not self._open:
            self._open = True
            item = {**text_item(self._id, "", status="in_progress"), "content": []}
            yield self._frame("response.output_item.added", output_index=0, item=item)
            yield self._part("response.content_part.added", part=_words(""))
        if text:
            self._told.append(text)
            yield self._part("response.output_text.delta", delta=text, logprobs=[])

    def _end(self, event: Event) -> Iterator[bytes]:
        told = "".join(self._told)
        message = event.message
        output = [] if message is None else output_of(message)
        if self._open and not (output and output[0]["type"] == "message"):
            output.insert(0, text_item(self._id, told, status="incomplete"))
        for index, item in enumerate(output):
            if item["type"] == "message":
                yield from self._words(message, told, item)
            else:
                yield from self._other(index, item)
        self.ended = True
        if message is None:
            shown = self._view.broken(event.code or "error", event.error or "the answer was lost", output)
        else:
            shown = self._view.ended(message) | {"output": output}
        yield self._frame(_TERMINAL_FRAME[event.type], response=shown)

    def _words(self, message: Message | None, told: str, item: Item) -> Iterator[bytes]:
        text = told if message is None else message.text
        if not self._open or (len(told) < len(text) and text.startswith(told)):  # what the log has missed
            yield from self._delta(text[len(told) :])
        part = item["content"][0] if item["content"] else _words(text)
        yield self._part("response.output_text.done", text=text, logprobs=[])
        yield self._part("response.content_part.done", part=part)
        yield self._frame("response.output_item.done", output_index=0, item=item)

    def _other(self, index: int, item: Item) -> Iterator[bytes]:
        begun = {**item, **({"status": "in_progress"} if "status" in item else {})}
        if item["type"] == "function_call":
            begun["arguments"] = ""
        yield self._frame("response.output_item.added", output_index=index, item=begun)
        if item["type"] == "function_call":
            where = {"item_id": item["id"], "output_index": index}
            if item["arguments"]:
                yield self._frame("response.function_call_arguments.delta", **where, delta=item["arguments"])
            yield self._frame(
                "response.function_call_arguments.done", **where, name=item["name"], arguments=item["arguments"]
            )
        yield self._frame("response.output_item.done", output_index=index, item=item)

    def _part(self, type: str, **fields: Any) -> bytes:
        return self._frame(type, item_id=self._id, output_index=0, content_index=0, **fields)

    def _frame(self, type: str, **fields: Any) -> bytes:
        number, self.number = self.number, self.number + 1
        return frame(number, type, fields)

    # --- where nothing is known of what a client saw ---

    def only_the_end(self, event: Event, after: int) -> bytes:
        """The one frame behind number ``after`` for a client whose earlier frames no log holds any more."""
        self.ended = True
        message = event.message
        if message is None:
            shown = self._view.broken(event.code or "error", event.error or "the answer was lost", [])
        else:
            shown = self._view.ended(message)
        return frame(after + 1, _TERMINAL_FRAME[event.type], {"response": shown})

    def lost(self, error: DaramError, after: int | None) -> bytes:
        """What a client is told where its stream breaks off: it may come back behind the last number that it saw.

        So this has no number of its own, nor an id for ``Last-Event-ID``.
        """
        seen = max(self.number - 1, after or 0, 0)
        fields = {"code": error.code, "message": _LOST, "param": None, "sequence_number": seen}
        return b"event: error\ndata: %s\n\n" % msgspec.json.encode({"type": "error", **fields})


def frame(number: int, type: str, fields: dict[str, Any]) -> bytes:
    """One frame on the wire; its number is also its id, which a browser sends back as ``Last-Event-ID``."""
    data = msgspec.json.encode({"type": type, "sequence_number": number, **fields})
    return b"id: %d\nevent: %s\ndata: %s\n\n" % (number, type.encode(), data)


async def frames(
    events: AsyncGenerator[Event, None], view: View, answer: str, *, after: int | None = None
) -> AsyncGenerator[bytes, None]:
    """The frames with a number above ``after`` (None: all), from the events of the answer from the first on.

    Where the log knows the answer no more there is one event, the end. A client that saw nothing gets the whole stream
    made of it, one that comes back the terminal frame alone: nobody knows what it has seen. Where the events cannot be
    had any more the last frame is an ``error``.
    """
    framer = Framer(view, answer)
    try:
        async with aclosing(events):
            async for event in events:
                if after is not None and framer.number == 0 and event.type in TERMINAL:
                    yield framer.only_the_end(event, after)
                    return
                for data in framer.feed(event):
                    if after is None or framer.number > after + 1:
                        yield data
    except DaramError as error:
        log.warning("the stream of answer %s broke off: %s: %s", answer, type(error).__name__, error)
        yield framer.lost(error, after)


async def with_pings(found: AsyncGenerator[bytes, None], interval: float = 15.0) -> AsyncGenerator[bytes, None]:
    """The frames, those together that are there together, and a ``PING`` whenever none came for ``interval`` seconds.

    One task reads ahead, a little: a task or a timer for each frame would cost more than all the rest. A client that
    takes nothing makes nobody else wait, and holds no more than that: what comes meanwhile stays in the log.
    """
    loop = asyncio.get_running_loop()
    ready: list[bytes] = []
    size = 0
    room = asyncio.Event()
    waiting: asyncio.Future[None] | None = None
    heard = loop.time()  # when something came last

    def news() -> None:
        if waiting is not None and not waiting.done():
            waiting.set_result(None)

    timer: asyncio.TimerHandle

    def look() -> None:
        nonlocal timer
        now = loop.time()
        if now - heard >= interval:
            news()
            timer = loop.call_at(now + interval, look)
        else:
            timer = loop.call_at(heard + interval, look)

    async def read() -> None:
        nonlocal size
        try:
            async with aclosing(found):
                async for data in found:
                    ready.append(data)
                    size += len(data)
                    news()
                    if size >= _AHEAD:
                        room.clear()
                        await room.wait()
        finally:
            news()

    timer = loop.call_later(interval, look)
    reading = asyncio.create_task(read())
    try:
        while True:
            over = reading.done()
            if ready:
                data = b"".join(ready)
                ready.clear()
                size = 0
                room.set()
                heard = loop.time()
                yield data
            elif over:
                break
            elif loop.time() - heard >= interval:
                heard = loop.time()
                yield PING
            else:
                waiting = loop.create_future()
                await waiting
                waiting = None
        await reading
    finally:
        timer.cancel()
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)


def _words(text: str) -> Item:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
