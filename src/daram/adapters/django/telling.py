"""A store that tells the project when an answer is in it."""

from __future__ import annotations

import asyncio
from typing import Any

from django.db import close_old_connections

from daram.adapters.django.signals import turn_finished
from daram.memory import Memory
from daram.model import Appended, Message


class TellingMemory(Memory):
    """What the chatbot writes through: behind each finished turn it tells ``turn_finished``."""

    def __init__(self, inner: Memory) -> None:
        super().__init__(inner, inner.url)
        self._telling: set[asyncio.Task[None]] = set()

    async def finish_turn(self, owner: str, id: str, *args: Any, **kwargs: Any) -> Appended:
        """See ``Store.finish_turn``."""
        appended = await super().finish_turn(owner, id, *args, **kwargs)
        if turn_finished.has_listeners(type(self)):
            # Not awaited: the reader of the answer shall not wait for whoever else hears of it.
            task = asyncio.create_task(asyncio.to_thread(_tell, owner, id, appended.messages[-1]))
            self._telling.add(task)
            task.add_done_callback(self._telling.discard)
        return appended

    async def close(self) -> None:
        """Wait until everybody was told; ``inner`` is closed by whoever opened it."""
        await asyncio.gather(*self._telling, return_exceptions=True)


def _tell(owner: str, conversation: str, message: Message) -> None:
    try:
        turn_finished.send_robust(TellingMemory, owner=owner, conversation=conversation, message=message)
    finally:
        close_old_connections()  # what receivers opened on this thread, as at the end of a request
