"""The scripted model server as a program that gives titles too: ``[[title TEXT]]`` names the conversation."""

from __future__ import annotations

import asyncio
import re
import sys
from typing import Any

from daram.testing.model_replies import Reply, last_user, magic, remembering
from daram.testing.model_server import ScriptedModelServer


def reply(request: dict[str, Any]) -> Reply:
    """A title where one is asked for (the prompt ends in ``Title:``), else what the scripted server always says."""
    said = last_user(request)
    title = re.search(r"\[\[title (.*?)\]\]", said)
    if title and re.search(r"\n\S+:$", said.rstrip()):
        return Reply(text=title[1])
    return magic(request, Reply(text=remembering(request)))


async def serve(delay: float, port: int) -> None:
    """Until the process is ended."""
    async with ScriptedModelServer(default=reply, delay=delay, port=port) as server:
        print(server.base_url, flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    options = dict(zip(sys.argv[1::2], sys.argv[2::2], strict=True))
    try:
        asyncio.run(serve(float(options.get("--delay", 0)), int(options.get("--port", 0))))
    except KeyboardInterrupt:
        pass
