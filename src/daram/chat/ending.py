"""The end of an answer on its way into the store: tried again and again, for as long as nobody else may write it."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Sequence

import msgspec

from daram.errors import DaramError, InvalidInput, OutcomeUnknown
from daram.model import Message, Part, Status
from daram.store.base import Store

log = logging.getLogger(__name__)


class End(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be stored of an answer that has come to its end: see ``Store.finish_turn``."""

    text: str
    status: Status
    parts: Sequence[Part]
    model: str | None
    tokens: int | None
    usage: dict[str, int] | None
    metadata: dict[str, str]


async def store_end(
    memory: Store, place: tuple[str, str, str, str], end: End, *, stored: str, give_up: Callable[[], float]
) -> Message:
    """Finish the turn at ``place`` (owner, conversation, answer, token); the message as stored.

    ``stored``: the text that the store has taken already, which it will take again; ``give_up``: until when to try, in
    the time of the event loop, asked before each try. Raises ``LeaseLost``, ``OutcomeUnknown`` and what the store does.
    """
    clock = asyncio.get_running_loop().time
    owner, conversation, answer, token = place
    pause = 0.05
    while True:
        until = give_up()
        try:
            async with asyncio.timeout_at(until):
                done = await memory.finish_turn(
                    owner,
                    conversation,
                    answer,
                    token,
                    text=end.text,
                    status=end.status,
                    parts=end.parts,
                    model=end.model,
                    tokens=end.tokens,
                    usage=end.usage,
                    metadata=end.metadata,
                )
            return done.messages[0]
        except InvalidInput as error:  # a store with limits of its own
            if not end.parts and end.text == stored:
                raise
            log.exception("the store refused answer %s; what it holds of it is kept", answer)
            failed = {"error": error.code}
            end = msgspec.structs.replace(
                end, text=stored, status="failed", parts=(), tokens=None, usage=None, metadata=failed
            )
        except TimeoutError:
            raise OutcomeUnknown("the store did not answer for as long as the answer's lease lasted") from None
        except DaramError as error:
            if not error.retryable or clock() + pause > until:
                raise
            log.warning("answer %s is not stored yet, trying again: %s", answer, error)
            await asyncio.sleep(pause * random.uniform(0.5, 1.5))  # noqa: S311  # jitter, not a secret
            pause = min(pause * 2, 2.0)
