"""Chainlit's data layers for ``bench.peers``: its own on SQLAlchemy, and ours. A turn opens a thread, keeps two steps.

Chainlit's own makes no tables: these are the ones of its documentation. It answers an error of the database with
nothing, so ``fill`` looks whether the thread is as long as it should be.
"""

from __future__ import annotations

import atexit
import shutil
import tempfile
import uuid
from collections.abc import Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

from bench.peers_stores import OWNER, WINDOW, Kept, Place, opened, pair, text
from daram.model import Message
from daram.store.base import Store
from daram.ui import home

_BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
_TABLES = """
CREATE TABLE users (
    "id" {uuid} PRIMARY KEY, "identifier" TEXT NOT NULL UNIQUE, "metadata" {json} NOT NULL, "createdAt" TEXT
);
CREATE TABLE threads (
    "id" {uuid} PRIMARY KEY, "createdAt" TEXT, "name" TEXT, "userId" {uuid} REFERENCES users ("id") ON DELETE CASCADE,
    "userIdentifier" TEXT, "tags" {list}, "metadata" {json}
);
CREATE TABLE steps (
    "id" {uuid} PRIMARY KEY, "name" TEXT NOT NULL, "type" TEXT NOT NULL,
    "threadId" {uuid} NOT NULL REFERENCES threads ("id") ON DELETE CASCADE, "parentId" {uuid},
    "streaming" BOOLEAN NOT NULL, "waitForAnswer" BOOLEAN, "isError" BOOLEAN, "metadata" {json}, "tags" {list},
    "input" TEXT, "output" TEXT, "createdAt" TEXT, "command" TEXT, "start" TEXT, "end" TEXT, "generation" {json},
    "showInput" TEXT, "language" TEXT, "indent" INT, "defaultOpen" BOOLEAN
);
CREATE TABLE elements (
    "id" {uuid} PRIMARY KEY, "threadId" {uuid} REFERENCES threads ("id") ON DELETE CASCADE, "type" TEXT, "url" TEXT,
    "chainlitKey" TEXT, "name" TEXT NOT NULL, "display" TEXT, "objectKey" TEXT, "size" TEXT, "page" INT,
    "language" TEXT, "forId" {uuid}, "mime" TEXT, "props" {json}
);
CREATE TABLE feedbacks (
    "id" {uuid} PRIMARY KEY, "forId" {uuid} NOT NULL,
    "threadId" {uuid} NOT NULL REFERENCES threads ("id") ON DELETE CASCADE, "value" INT NOT NULL, "comment" TEXT
)
"""
_TYPES = {
    "SQLite": {"uuid": "TEXT", "json": "TEXT", "list": "TEXT"},
    "PostgreSQL": {"uuid": "UUID", "json": "JSONB", "list": "TEXT[]"},
}
# What is filled in is written as the layer itself writes it, but for what lies further back than any window.
_RECENT = 2 * WINDOW


@cache
def _enter() -> None:
    """Import Chainlit on a directory of its own: it writes its settings where it is imported."""
    directory = Path(tempfile.mkdtemp(prefix="daram-peers-chainlit-"))
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    home.load(directory)


def _step(thread: str, number: int) -> Any:
    """A message as Chainlit's ``to_dict`` gives it."""
    return {
        "id": str(uuid.uuid4()),
        "threadId": thread,
        "parentId": None,
        "name": ("user", "assistant")[number % 2],
        "type": ("user_message", "assistant_message")[number % 2],
        "input": "",
        "output": text(number),
        "createdAt": (_BEGIN + timedelta(seconds=number)).isoformat().replace("+00:00", "Z"),
        "streaming": False,
        "isError": False,
        "metadata": {},
        "tags": None,
    }


class Layer:
    """A data layer, with its threads by name."""

    def __init__(self, layer: Any, store: Store | None) -> None:
        self._layer = layer
        self._store = store

    async def fill(self, name: str, length: int) -> None:
        thread = _thread(name)
        distant = [_step(thread, n) for n in range(max(0, length - _RECENT))]
        if self._store is not None:
            for start in range(0, len(distant), 100):
                said = [
                    Message(id=step["id"], role=step["name"], text=step["output"])
                    for step in distant[start : start + 100]
                ]
                await self._store.append(OWNER, thread, said, create=True)
        elif distant:
            await self._insert(thread, distant)
        for n in range(len(distant), length):
            await self._layer.create_step(_step(thread, n))
        found = len((await self._layer.get_thread(thread))["steps"])
        assert found >= (length if self._store is None else min(length, WINDOW)), f"{found} steps, not {length}"

    async def _insert(self, thread: str, steps: Sequence[Any]) -> None:
        from sqlalchemy import text as sql

        await self._layer.update_thread(thread)
        columns = ("id", "threadId", "name", "type", "input", "output", "createdAt", "streaming", "isError")
        names, values = ", ".join(f'"{c}"' for c in columns), ", ".join(f":{c}" for c in columns)
        statement = f"INSERT INTO steps ({names}, metadata, generation) VALUES ({values}, '{{}}', '{{}}')"
        async with self._layer.engine.begin() as connection:
            await connection.execute(sql(statement), [{c: step[c] for c in columns} for step in steps])

    async def turn(self, name: str) -> object:
        found = await self._layer.get_thread(_thread(name))
        await self.add(name)
        return found

    async def add(self, name: str) -> None:
        for n in pair():
            await self._layer.create_step(_step(_thread(name), 1_000_000 + n))


def _thread(name: str) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_URL, name))


def _context() -> None:
    _enter()
    from chainlit.context import init_http_context

    init_http_context()


async def daram_layer(place: Place, stack: AsyncExitStack) -> Kept:
    """``DaramDataLayer``."""
    _context()
    from daram.adapters.chainlit import DaramDataLayer

    memory = await opened(place, stack)
    return Layer(DaramDataLayer(memory, owner=OWNER, history=WINDOW), memory)


async def sqlalchemy_layer(place: Place, stack: AsyncExitStack) -> Kept:
    """Chainlit's ``SQLAlchemyDataLayer``; the tables are made where there are none."""
    _context()
    from chainlit.data.sql_alchemy import SQLAlchemyDataLayer
    from sqlalchemy import inspect
    from sqlalchemy import text as sql

    layer = SQLAlchemyDataLayer(place.url("aiosqlite" if place.engine == "SQLite" else "asyncpg"))
    stack.push_async_callback(layer.engine.dispose)
    async with layer.engine.begin() as connection:
        if not await connection.run_sync(lambda known: inspect(known).has_table("steps")):
            for table in _TABLES.format(**_TYPES[place.engine]).split(";"):
                await connection.execute(sql(table))
    return Layer(layer, None)
