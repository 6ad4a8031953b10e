"""Writes into a store until it is killed, and says through a pipe what it tries and what was acknowledged.

Run by test_crash.py: ``python crash_child.py DATABASE NAME SEED``. Each line is written with one system call, before a
call ("try") and after it returned ("done"), so that nothing is said to be done that was not acknowledged.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
from collections.abc import AsyncIterator, Sequence
from random import Random
from typing import Any

from daram.chat import Chatbot
from daram.errors import ConversationBusy
from daram.llm.base import Delta, Options
from daram.model import Appended, Message, Turn, user
from daram.store.base import Store
from daram.store.sqlite.engine import SqliteStore
from daram.store.wrapper import StoreWrapper

OWNER = "owner"


def message_text(id: str) -> str:
    """What a message with that id says."""
    size = sum(id.encode()) * 37 % 2500
    return f"message {id} 다람쥐 " + "x" * size


def answer_text(question: str) -> str:
    """The whole answer to that question (or to what a prompt makes of it, with notes around it)."""
    id = re.findall(r"message (\S+) 다람쥐", question)[-1]
    return " ".join(f"word{i}-{id}" for i in range(60))


def say(**line: Any) -> None:
    os.write(1, json.dumps(line).encode() + b"\n")


class Witness(StoreWrapper):
    """Says what is tried and what was acknowledged."""

    def __init__(self, inner: Store, lane: str) -> None:
        super().__init__(inner)
        self.lane = lane

    async def append(self, owner: str, id: str, messages: Sequence[Message], **options: Any) -> Appended:
        line = {"lane": self.lane, "conversation": id, "ids": [message.id for message in messages]}
        say(what="try append", **line)
        appended = await self.inner.append(owner, id, messages, **options)
        say(what="done append", **line)
        return appended

    async def begin_turn(self, owner: str, id: str, messages: Sequence[Message], **options: Any) -> Turn:
        line = {"lane": self.lane, "conversation": id, "ids": [message.id for message in messages]}
        say(what="try begin", **line)
        turn = await self.inner.begin_turn(owner, id, messages, **options)
        assert turn.answer is not None
        say(what="done begin", answer=turn.answer.id, **line)
        return turn

    async def checkpoint(self, owner: str, id: str, answer_id: str, token: str, text: str, **options: Any) -> bool:
        say(what="try checkpoint", answer=answer_id, length=len(text))
        cancel = await self.inner.checkpoint(owner, id, answer_id, token, text, **options)
        say(what="done checkpoint", answer=answer_id, length=len(text))
        return cancel

    async def finish_turn(self, owner: str, id: str, answer_id: str, token: str, **options: Any) -> Appended:
        say(what="try finish", answer=answer_id, length=len(options["text"]))
        appended = await self.inner.finish_turn(owner, id, answer_id, token, **options)
        say(what="done finish", answer=answer_id, length=len(options["text"]))
        return appended


class Model:
    """Streams ``answer_text`` word by word."""

    name = "scripted"
    context_tokens = 100_000
    prefers_notes = False

    async def stream(self, messages: Sequence[Message], options: Options = Options()) -> AsyncIterator[Delta]:
        words = answer_text(messages[-1].text).split(" ")
        for i, word in enumerate(words):
            await asyncio.sleep(0.002)
            yield Delta(text=word if i == 0 else " " + word)
        yield Delta(finish="stop")

    def count_tokens(self, text: str) -> int | None:
        return len(text) // 4

    async def ready(self) -> str | None:
        return None

    async def close(self) -> None:
        pass


class Work:
    def __init__(self, store: SqliteStore, name: str, seed: int) -> None:
        self.store = store
        self.name = name
        self.random = Random(seed)
        self.count = 0

    def message(self, lane: str) -> Message:
        self.count += 1
        id = f"{lane}-{self.count}"
        return user(message_text(id), id=id)

    async def append(self, lane: str, conversation: str) -> None:
        memory = Witness(self.store, lane)
        while True:
            batch = [self.message(lane) for _ in range(self.random.randint(1, 4))]
            await memory.append(OWNER, conversation, batch, create=True, window=20)
            if self.random.random() < 0.05:
                await self.store.search(OWNER, "다람쥐", conversation=conversation, limit=5)

    async def answer(self, lane: str) -> None:
        """Turns made by hand: question, checkpoints, answer."""
        memory = Witness(self.store, lane)
        while True:
            question = self.message(lane)
            turn = await memory.begin_turn(OWNER, lane, [question], create=True, window=20)
            assert turn.answer is not None
            held = turn.answer.id, turn.answer.token
            text = answer_text(question.text)
            for end in range(50, len(text), 50):
                await memory.checkpoint(OWNER, lane, *held, text[:end])
            await memory.finish_turn(OWNER, lane, *held, text=text)

    async def chat(self, lane: str, bot: Chatbot) -> None:
        """Turns made by the chatbot."""
        while True:
            try:
                await bot.ask(OWNER, lane, self.message(lane))
            except ConversationBusy:
                await asyncio.sleep(0.01)

    async def run(self) -> None:
        bot = Chatbot(
            Witness(self.store, f"{self.name}.chat"), Model(), titles=False, checkpoint_every=0.02, lease=30.0
        )
        tasks = [self.append(f"{self.name}.append{n}", f"{self.name}.append{n}") for n in range(3)]
        tasks += [self.append(f"{self.name}.shared{n}", "shared") for n in range(2)]
        tasks += [self.answer(f"{self.name}.answer{n}") for n in range(2)]
        tasks += [self.chat(f"{self.name}.chat{n}", bot) for n in range(2)]
        await asyncio.gather(*tasks)


async def main(path: str, name: str, seed: str) -> None:
    store = SqliteStore(path, busy_timeout=60.0)
    await store.describe()
    say(what="ready")
    await Work(store, name, int(seed)).run()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
