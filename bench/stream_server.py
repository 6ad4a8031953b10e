"""What ``bench.streams`` asks: the service, or an ASGI application that does nothing but stream.

``python -m bench.stream_server service|bare TOKENS RATE DIRECTORY`` prints its port and an API key.
"""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import uvicorn

from daram.llm.base import Delta, Options
from daram.model import Message
from daram.settings import Settings


class TickingModel:
    """Says ``tokens`` words, ``rate`` each second, however long it is kept waiting."""

    name = "ticking"
    context_tokens = 100_000
    prefers_notes = False

    def __init__(self, tokens: int, rate: float) -> None:
        self._tokens = tokens
        self._rate = rate

    async def stream(self, messages: Sequence[Message], options: Options = Options()) -> AsyncIterator[Delta]:
        clock = asyncio.get_running_loop().time
        start = clock()
        for number in range(self._tokens):
            await asyncio.sleep(max(start + number / self._rate - clock(), 0))
            yield Delta(text=f"w{number} ")
        yield Delta(finish="stop", usage={"input_tokens": 1, "output_tokens": self._tokens})

    def count_tokens(self, text: str) -> int | None:
        return None

    async def ready(self) -> str | None:
        return None

    async def close(self) -> None:
        """Nothing to let go of."""


def bare(tokens: int, rate: float) -> Any:
    """The least that streams the same: one frame per token."""

    async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            for _ in range(2):
                message = await receive()
                await send({"type": f"{message['type']}.complete"})
            return
        await receive()
        headers = [(b"content-type", b"text/event-stream")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        async for delta in TickingModel(tokens, rate).stream([]):
            body = b'event: response.output_text.delta\ndata: {"delta":"%s"}\n\n' % delta.text.encode()
            if delta.finish:
                body = b"event: response.completed\ndata: {}\n\n"
            await send({"type": "http.response.body", "body": body, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    return app


async def main(kind: str, tokens: str, rate: str, home: str) -> None:
    """Serve until a signal."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
    key = "none"
    if kind == "bare":
        config = uvicorn.Config(bare(int(tokens), float(rate)), log_level="warning", access_log=False)
    else:
        from daram.service.asgi import create_app
        from daram.service.door import door

        settings = Settings.from_env(
            {"DARAM_DATA": home, "DARAM_TITLES": "off", "DARAM_STREAM_LIMIT": "100000", "DARAM_RATE_LIMIT": "0"}
        )
        app = create_app(settings, model=TickingModel(int(tokens), float(rate)), page=False)
        key = await asyncio.to_thread(_key, settings)
        config = door(app, settings)
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve([listener]))
    while not server.started and not serving.done():
        await asyncio.sleep(0.01)
    os.write(1, f"{listener.getsockname()[1]} {key}\n".encode())
    await serving


def _key(settings: Settings) -> str:
    from daram.service.accounts.setup import prepare_accounts

    prepare_accounts(settings)
    from daram.service.accounts.keys import create_key
    from daram.service.accounts.models import User

    return str(create_key(User.objects.create_user(username="bench"), scopes=("write",))[1])


if __name__ == "__main__":
    Path(sys.argv[4]).mkdir(parents=True, exist_ok=True)
    asyncio.run(main(*sys.argv[1:]))
