"""Compacts a session of the OpenAI Agents SDK, again and again, until it is killed. Run by
test_openai_agents_compaction.py.

``python crash_compaction.py URL``; after each time it prints its number.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import sys
from contextlib import suppress
from typing import Any

from agents.memory import OpenAIResponsesCompactionSession

import daram
from daram.adapters.openai_agents import DaramSession
from daram.errors import Conflict


class Compacting:
    """A client whose ``responses.compact`` keeps every text that it was shown, in one item."""

    def __init__(self) -> None:
        self.responses = self
        self.times = 0

    async def compact(self, *, input: list[Any], **_: object) -> Any:
        class Compacted:
            output = [{"type": "compaction", "id": "cmp", "encrypted_content": json.dumps(texts(input))}]  # noqa: RUF012
            usage = None

        self.times += 1
        return Compacted()


def texts(items: list[Any]) -> list[str]:
    """Everything that was said in these items, also what was compacted."""
    found: list[str] = []
    for item in items:
        if item.get("type") == "compaction":
            found += json.loads(item["encrypted_content"])
        else:
            said = item["content"]
            found += [said] if isinstance(said, str) else [piece["text"] for piece in said]
    return found


async def main(url: str) -> None:
    async with await daram.open(url) as memory:
        for number in itertools.count():
            session = DaramSession(memory, "ann", "s", session_settings={"limit": (None, 6)[number % 2]})
            wrapped = OpenAIResponsesCompactionSession("s", session, client=Compacting())  # type: ignore[arg-type]
            with suppress(Conflict):  # somebody was faster
                await wrapped.run_compaction({"force": True, "compaction_mode": "input"})
            os.write(1, f"{number}\n".encode())


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
