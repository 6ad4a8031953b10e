"""A run of a graph that says when it has come to a point, and then stands still to be killed there.

Run by test_faults.py: ``python crash_child.py URL WHERE``; WHERE: ``put`` (the checkpoint of the first node is kept, no
write of the second is) or ``put_writes`` (what the second node said is kept, its checkpoint is not). Or ``store``: it
puts items until it is killed, and tells the number of each round: everything up to there has been acknowledged.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import sys
from typing import Any, TypedDict

from langgraph.graph import START, StateGraph
from langgraph.store.base import PutOp

import daram
from daram.adapters.langgraph import DaramSaver, DaramStore

NODES = ("first", "second", "third")
THREAD: Any = {"configurable": {"thread_id": "t"}}


class Steps(TypedDict):
    done: str


def graph(saver: Any, ran: list[str]) -> Any:
    """Three nodes in a row; ``ran`` is told which of them ran in this process."""
    builder = StateGraph(Steps)

    def node(name: str) -> Any:
        def run(state: Steps) -> Steps:
            ran.append(name)
            return {"done": f"{state['done']} {name}"}

        return run

    for before, name in zip((START, *NODES), NODES, strict=False):
        builder.add_node(name, node(name))
        builder.add_edge(before, name)
    return builder.compile(checkpointer=saver)


async def stand_still() -> None:
    os.write(1, b"here\n")
    await asyncio.Event().wait()


class Stopping(DaramSaver):
    """Stops where ``where`` says, once what is to be there is kept. LangGraph keeps both in the background."""

    where = ""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.first_put = asyncio.Event()
        self.second_written = asyncio.Event()

    async def aput(self, config: Any, checkpoint: Any, metadata: Any, new_versions: Any) -> Any:
        done = str(checkpoint["channel_values"].get("done"))
        if "second" in done:
            await self.second_written.wait()  # never in "put"
            await stand_still()
        found = await super().aput(config, checkpoint, metadata, new_versions)
        if "first" in done:
            self.first_put.set()
        return found

    async def aput_writes(self, config: Any, writes: Any, task_id: str, task_path: str = "") -> None:
        second = any("second" in str(value) for _, value in writes)
        if self.where == "put" and second:
            await self.first_put.wait()
            await stand_still()
        await super().aput_writes(config, writes, task_id, task_path)
        if second:
            self.second_written.set()


def embed(texts: list[str]) -> list[list[float]]:
    return [[float(text), 1.0] for text in texts]


def items(memory: Any) -> DaramStore:
    """A store that finds an item by the number in its text."""
    return DaramStore(memory, owner="ann", index={"dims": 2, "embed": embed, "fields": ["text"]})


async def put_items(store: DaramStore, number: int) -> None:
    """Two items that say a number in each of their parts."""
    await store.abatch([PutOp(("notes",), key, {"text": str(number), "long": [number] * 5000}) for key in "ab"])


async def main(url: str, where: str) -> None:
    async with await daram.open(url) as memory:
        if where == "store":
            for number in itertools.count():
                await put_items(items(memory), number)
                os.write(1, f"{number}\n".encode())
        saver = Stopping(memory, owner="ann")
        saver.where = where
        await graph(saver, []).ainvoke({"done": "go"}, THREAD)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2]))
