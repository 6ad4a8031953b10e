"""An answer that is kept nowhere: the model's words as events, for doors that pass a request through."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Sequence

from daram.chat.clean import TextStream, clean_name, clean_parts, clean_usage
from daram.chat.events import Event, terminal_type
from daram.chat.verdict import verdict
from daram.context.sources import Source, citations
from daram.errors import DaramError, ModelError
from daram.llm.base import ChatModel, Finish, Options
from daram.model import Message, Part

log = logging.getLogger(__name__)


async def aside(
    model: ChatModel,
    messages: Sequence[Message],
    options: Options,
    answer_id: str,
    *,
    sources: Sequence[Source] = (),
    limit: int = 1 << 20,
) -> AsyncGenerator[Event, None]:
    """Ask the model for the next message and tell what it says; the last event has the message.

    Nothing is stored, and nobody else can follow it: closing the iterator stops the model. ``sources``: the passages of
    documents among the messages, that the answer may cite; ``limit`` in bytes.
    """
    cleaner = TextStream(limit)
    pieces: list[str] = []
    parts: list[Part] = []
    usage: dict[str, int] | None = None
    name = clean_name(model.name)
    finish: Finish | None = None
    failed: DaramError | None = None
    yield Event(seq=1, type="created", answer=answer_id)
    seq = 1
    deltas = model.stream(messages, options)
    try:
        async for delta in deltas:
            text = cleaner.feed(delta.text)
            parts.extend(delta.parts)
            usage = clean_usage(delta.usage) or usage
            name = clean_name(delta.model) or name
            finish = delta.finish
            if text:
                pieces.append(text)
                seq += 1
                yield Event(seq=seq, type="delta", answer=answer_id, text=text)
            if finish is not None or cleaner.full:
                break
            await asyncio.sleep(0)  # a model that never waits must not keep everybody else waiting
    except DaramError as error:
        failed = error
    except Exception as error:
        log.exception("the model's plug-in failed on a request that is not stored")
        failed = ModelError(f"the model's plug-in failed: {type(error).__name__}: {error}")
    finally:
        if (aclose := getattr(deltas, "aclose", None)) is not None:
            await aclose()
    if rest := cleaner.end():
        pieces.append(rest)
        seq += 1
        yield Event(seq=seq, type="delta", answer=answer_id, text=rest)
    said = bool(pieces or parts)
    status, failed, metadata = verdict(name or model.name, failed, finish, cut=cleaner.full, said=said)
    told = "".join(pieces)
    if told and status != "failed":
        parts += citations(sources, told)
    message = Message(
        id=answer_id,
        role="assistant",
        text=told,
        parts=clean_parts(parts, limit)[0],
        status=status,
        model=name,
        usage=usage,
        metadata=metadata,
    )
    yield Event(
        seq=seq + 1,
        type=terminal_type(status),
        answer=answer_id,
        message=message,
        error=None if failed is None else str(failed),
        code=None if failed is None else failed.code,
    )
