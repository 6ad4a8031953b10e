"""An answer on its way into one browser tab: the events of a turn as what Chainlit's page listens to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

from daram.adapters.chainlit import steps
from daram.chat.events import TERMINAL, Event
from daram.model import Message
from daram.ui.library import elements
from daram.ui.strings import Words

Emit = Callable[[str, Any], Awaitable[None]]
"""Sends an event to one tab; where that tab has gone, into the void."""

# Tokens that come faster than the eye go together. The page sets the whole text anew each time, so a long one goes less
# often; else a slow browser would fall ever further behind. In seconds, and seconds per character.
_PAUSE = 0.05
_PAUSE_PER_CHARACTER = 1e-5
_LONGEST_PAUSE = 1.0


def now() -> str:
    """The present as Chainlit writes it."""
    return steps.moment(datetime.now(UTC)) or ""


async def follow(
    emit: Emit,
    conversation: str,
    answer_id: str,
    question_id: str,
    events: AsyncIterator[Event],
    words: Words,
    *,
    known: str = "",
) -> None:
    """Show an answer while it is made and as it ends, and then what can be done about it.

    ``known``: its text so far as the store has it, for the time until the first event.
    """
    run = steps.run_of(conversation, answer_id, now(), ended=False)
    text, told = known, bool(known)
    await emit("task_start", {})
    try:
        await emit("new_message", run)
        if told:
            await emit("stream_start", _partial(conversation, answer_id, text))
        heard = False
        async for batch in _batches(events):
            added = "".join(event.text for event in batch if event.type == "delta")
            if added:
                text = text + added if heard else added
                if not told:
                    await emit("stream_start", _partial(conversation, answer_id, text))
                else:
                    piece = {"token": added if heard else text, "isSequence": not heard, "isInput": False}
                    await emit("stream_token", {"id": answer_id, **piece})
                heard = told = True
            if batch[-1].type in TERMINAL:
                await _end(emit, conversation, batch[-1], text, question_id, words)
    finally:
        await emit("update_message", {**run, "end": now()})
        await emit("task_end", {})


async def offer_retry(emit: Emit, for_id: str, payload: dict[str, Any], words: Words) -> None:
    """A button below a message that asks again; ``payload`` comes back with the click."""
    await emit(
        "action",
        {
            "id": f"retry-{for_id}",
            "name": "retry",
            "forId": for_id,
            "payload": payload,
            "label": words.retry,
            "tooltip": words.retry_tooltip,
            "icon": "rotate-ccw",
        },
    )


def stored_step(conversation: str, message: Message, note: str) -> dict[str, Any]:
    """A stored answer as a step below its run."""
    step = steps.from_message(conversation, message, note)
    return {**step, "parentId": steps.run_id(message.id)}


async def _end(emit: Emit, conversation: str, event: Event, text: str, question_id: str, words: Words) -> None:
    message = event.message or Message(id=event.answer, role="assistant", text=text, status="incomplete")
    note = words.note(message)
    if event.error is not None and (event.message is None or event.type == "failed"):
        note = words.explain(event.code or "model", event.error)
    step = stored_step(conversation, message, note)
    for element in elements(conversation, message):
        await emit("element", element)
    await emit("new_message", {**step, "createdAt": step["createdAt"] or now()})
    if message.status != "complete":
        await offer_retry(emit, message.id, {"question": question_id, "answer": message.id}, words)


def _partial(conversation: str, answer_id: str, text: str) -> dict[str, Any]:
    step = stored_step(conversation, Message(id=answer_id, role="assistant", text=text), "")
    return {**step, "createdAt": now(), "streaming": True}


async def _batches(events: AsyncIterator[Event]) -> AsyncIterator[list[Event]]:
    """The events that have come meanwhile, together; the longer the text, the less often."""
    length = 0
    queue: asyncio.Queue[Event | None] = asyncio.Queue()

    async def fill() -> None:
        try:
            async for event in events:
                queue.put_nowait(event)
        finally:
            queue.put_nowait(None)

    filling = asyncio.create_task(fill())
    try:
        over = False
        while not over and (event := await queue.get()) is not None:
            batch = [event]
            while not queue.empty():
                more = queue.get_nowait()
                over = more is None
                batch += [] if more is None else [more]
            yield batch
            if batch[-1].type in TERMINAL:
                return
            length += sum(len(event.text) for event in batch)
            await asyncio.sleep(min(_PAUSE + length * _PAUSE_PER_CHARACTER, _LONGEST_PAUSE))
        await filling  # an error that ended the events ends the following too
    finally:
        filling.cancel()
