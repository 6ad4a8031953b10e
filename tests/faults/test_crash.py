"""P1, P2 and P7 under ``kill -9``: whatever a process was doing, what it was told is kept, once, in order.

Processes work on one file; each has tasks that append, that answer by hand and that answer through the chatbot. One
after another they are killed at a random moment and replaced, while the others go on.
"""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import threading
from pathlib import Path
from random import Random
from typing import Any

import pytest
from tests.faults.checks import check_file
from tests.faults.children import environment
from tests.faults.crash_child import OWNER, answer_text, message_text

from daram.model import Message
from daram.store.sqlite.engine import SqliteStore

CHILD = Path(__file__).with_name("crash_child.py")


class Child:
    """A process that works, and what it said."""

    def __init__(self, path: Path, name: str, seed: int) -> None:
        self.name = name
        self.lines: list[dict[str, Any]] = []
        self._ready = threading.Event()
        self._process = subprocess.Popen(
            [sys.executable, str(CHILD), str(path), name, str(seed)], env=environment(), stdout=subprocess.PIPE
        )
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.endswith(b"\n"):
                self.lines.append(json.loads(line))
                self._ready.set()
        self._ready.set()

    def wait_until_ready(self) -> None:
        assert self._ready.wait(60)

    def kill(self) -> None:
        assert self._process.poll() is None, "the child ended by itself: see its error above"
        self._process.send_signal(signal.SIGKILL)
        self._process.wait(60)
        self._reader.join(60)
        assert self._process.stdout is not None
        self._process.stdout.close()


class Account:
    """What the children were told, and what they had tried; then, whether the store agrees."""

    def __init__(self) -> None:
        self.batches: dict[tuple[str, ...], bool] = {}  # the ids of a batch: whether it was acknowledged
        self.lanes: dict[str, list[str]] = {}  # the ids that each task sent, in order
        self.conversations: dict[str, str] = {}  # of each message
        self.turns: dict[str, dict[str, Any]] = {}  # by the answer's id
        self.questions: set[str] = set()

    def add(self, line: dict[str, Any]) -> None:
        verb, _, noun = line["what"].partition(" ")
        if noun in ("append", "begin"):
            ids = tuple(line["ids"])
            self.batches[ids] = verb == "done"
            if verb == "try":
                self.lanes.setdefault(line["lane"] + line["conversation"], []).extend(ids)
                self.conversations.update(dict.fromkeys(ids, line["conversation"]))
                if noun == "begin":
                    self.questions.update(ids)
            elif noun == "begin":
                self.turns[line["answer"]] = {"question": ids[-1], "kept": 0, "tried": 0, "finish": ""}
        elif noun == "checkpoint":
            turn = self.turns[line["answer"]]
            turn["kept" if verb == "done" else "tried"] = line["length"]
        elif noun == "finish":
            self.turns[line["answer"]]["finish"] = verb

    async def check(self, store: SqliteStore) -> None:
        """Everything acknowledged is there exactly once and in order; nothing is there by halves or uncalled for."""
        seen: dict[str, Message] = {}
        for name in sorted(set(self.conversations.values())):
            stored = await messages(store, name)
            assert [message.seq for message in stored] == list(range(1, len(stored) + 1))
            for message in stored:
                assert message.id not in seen
                seen[message.id] = message
            at = {message.id: i for i, message in enumerate(stored)}
            for lane in self.lanes.values():
                mine = [id for id in lane if self.conversations[id] == name]
                places = [at[id] for id in mine if id in at]
                assert places == sorted(places), "out of order"
        for ids, acknowledged in self.batches.items():
            there = [id in seen for id in ids]
            assert all(there) or not (acknowledged or any(there)), f"acknowledged {acknowledged}, stored {there}"
            if all(there):
                first = seen[ids[0]].seq
                assert [seen[id].seq for id in ids] == list(range(first, first + len(ids))), "not contiguous"
                assert all(seen[id].text == message_text(id) for id in ids)
        for id, turn in self.turns.items():
            self._check_answer(seen[id], turn)
        for message in seen.values():
            # An answer whose begin was not acknowledged any more is there too, unfinished.
            is_early = message.status == "incomplete" and message.text == "" and message.parent in self.questions
            assert message.id in self.conversations or message.id in self.turns or is_early, message

    def _check_answer(self, answer: Message, turn: dict[str, Any]) -> None:
        whole = answer_text(message_text(turn["question"]))
        assert answer.parent == turn["question"]
        assert answer.role == "assistant"
        if turn["finish"] == "done" or (turn["finish"] == "try" and answer.status == "complete"):
            assert (answer.status, answer.text) == ("complete", whole)
        else:
            assert answer.status == "incomplete"
            assert whole.startswith(answer.text)
            assert turn["kept"] <= len(answer.text) <= max(turn["tried"], turn["kept"])


async def messages(store: SqliteStore, name: str) -> list[Message]:
    """All messages of a conversation; none where it was not made yet."""
    if name not in {found.id for found in (await store.list(OWNER, limit=1000)).items}:
        return []
    assert await store.answers(OWNER, name) == [], "an answer that was not recovered"
    found: list[Message] = []
    cursor: str | None = None
    while True:
        page = await store.messages(OWNER, name, limit=1000, cursor=cursor)
        found += page.items
        cursor = page.next_cursor
        if cursor is None:
            return found


async def check_search(store: SqliteStore, account: Account, random: Random) -> None:
    """The index has the messages of a few acknowledged batches."""
    batches = [ids for ids, acknowledged in account.batches.items() if acknowledged]
    for ids in random.sample(batches, min(5, len(batches))):
        name = account.conversations[ids[0]]
        hits = await store.search(OWNER, f"message {ids[0]} 다람쥐", conversation=name, limit=1000)
        assert ids[0] in [hit.id for hit in hits]


async def crash(path: Path, seed: int, processes: int, kills: int) -> dict[str, int]:
    """Kill so many processes one after another, then the rest at once; what was checked."""
    running: list[Child] = []
    try:
        return await _crash(path, Random(seed), processes, kills, running)
    finally:
        for child in running:
            child.kill()


async def _crash(path: Path, random: Random, processes: int, kills: int, running: list[Child]) -> dict[str, int]:
    account = Account()
    recovered = started = 0
    for n in range(kills):
        while len(running) < processes:
            running.append(Child(path, f"p{started}", random.randrange(1 << 30)))
            started += 1
        for child in running:
            child.wait_until_ready()
        await asyncio.sleep(random.uniform(0.01, 0.4))
        is_last = n == kills - 1
        while len(running) == processes or (is_last and running):
            victim = running.pop(random.randrange(len(running)))
            victim.kill()
            mine = Account()
            for line in victim.lines:
                account.add(line)
                if line.get("conversation") != "shared":
                    mine.add(line)
            async with SqliteStore(path, busy_timeout=60.0) as store:
                recovered += len(await store.recover(limit=1000))
                await mine.check(store)  # its own conversations; the others go on meanwhile
    async with SqliteStore(path) as store:
        assert await store.recover() == []
        await account.check(store)
        await check_search(store, account, random)
    check_file(path)
    return {
        "kills": started,
        "acknowledged batches": sum(account.batches.values()),
        "acknowledged messages": sum(len(ids) for ids, done in account.batches.items() if done),
        "answers": len(account.turns),
        "unfinished answers": recovered,
    }


@pytest.mark.slow
@pytest.mark.parametrize(("processes", "kills"), [(1, 8), (3, 10)])
async def test_killed_processes(tmp_path: Path, processes: int, kills: int) -> None:
    figures = await crash(tmp_path / "daram.db", 100 + processes, processes, kills)
    print(figures)
    assert figures["acknowledged messages"] > 50
    assert figures["unfinished answers"] > 3


@pytest.mark.soak
async def test_two_hundred_killed_processes(tmp_path: Path) -> None:
    total: dict[str, int] = {}
    for seed in range(10):
        figures = await crash(tmp_path / f"daram{seed}.db", seed, processes=1 + seed % 3, kills=22)
        total = {name: total.get(name, 0) + count for name, count in figures.items()}
    print(total)
    assert total["kills"] >= 200
    assert total["unfinished answers"] > 100
