"""Writes a thread by Chainlit's data layer until it is killed. Run by test_chainlit_faults.py:
``python crash_chainlit.py URL DIRECTORY``.

After each round it prints its number: everything up to there has been acknowledged. Beside it Chainlit sends messages
of its own to another thread, by tasks that nobody waits for.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import sys
from pathlib import Path
from typing import Any

import daram
from daram.ui import home


def step(number: int, kind: str, text: str, parent: str | None = None) -> Any:
    """A step of the thread that is acknowledged."""
    return {
        "id": f"{kind}-{number}",
        "threadId": "told",
        "parentId": parent,
        "type": kind,
        "output": text,
        "name": kind,
    }


async def main(url: str) -> None:
    import chainlit as cl
    import chainlit.data
    from chainlit.context import init_ws_context
    from chainlit.session import WebsocketSession

    from daram.adapters.chainlit import DaramDataLayer

    async def emit(event: str, data: Any) -> None: ...

    async with await daram.open(url) as memory:
        layer = DaramDataLayer(memory, owner="ann")
        chainlit.data._data_layer, chainlit.data._data_layer_initialized = layer, True
        session = WebsocketSession(
            id="s", socket_id="sid", emit=emit, emit_call=emit, user_env={}, client_type="webapp", thread_id="sent"
        )
        session.has_first_interaction = True
        init_ws_context(session)
        for number in itertools.count():
            for each in range(3):
                await cl.Message(f"{number}.{each}").send()
            run = f"run-{number}"
            await layer.create_step(step(number, "user_message", f"ask {number}"))
            await layer.create_step(step(number, "run", "", f"user_message-{number}"))
            await layer.create_step(step(number, "assistant_message", f"say {number}", run))
            await layer.update_step(step(number, "assistant_message", f"said {number}", run))
            os.write(1, f"{number}\n".encode())


if __name__ == "__main__":
    home.load(Path(sys.argv[2]))
    asyncio.run(main(sys.argv[1]))
