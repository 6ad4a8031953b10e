"""Where LangChain keeps histories: lists and JSON documents in Redis, tables of SQLChatMessageHistory."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import closing
from datetime import UTC, datetime
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote, urlsplit

import apsw

from daram.errors import ConfigError, InvalidInput, MissingExtra, StoreUnavailable
from daram.transfer.foreign import Histories, History, Naming, collect, from_langchain

_PAGE: Final = 500
_TABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}")
_SQLITE: Final = 'SELECT id, session_id, message FROM "message_store" ORDER BY session_id, id'


async def community_redis(url: str, prefix: str | None = None) -> Histories:
    """The layout of langchain-community: a list per session, ``message_store:SESSION``, the newest message first."""
    prefix = "message_store:" if prefix is None else prefix
    async for client in _redis(url):
        async for key in client.scan_iter(match=_glob(prefix), count=_PAGE, _type="list"):
            history = History(key.decode("utf-8", "replace").removeprefix(prefix))
            naming = Naming(history.session)
            length = await client.llen(key)
            # From the end of the list: what is pushed meanwhile comes in front, and is found the next time.
            for last in range(-1, -length - 1, -_PAGE):
                page = await client.lrange(key, max(last - _PAGE + 1, -length), last)
                for raw in reversed(page):
                    _collect_json(history, naming, raw)
            yield history


async def langchain_redis(url: str, prefix: str | None = None) -> Histories:
    """The layout of langchain-redis: a JSON document (or a hash) per message, ``chat:SESSION:ULID``."""
    prefix = "chat:" if prefix is None else prefix
    async for client in _redis(url):
        sessions: dict[str, list[tuple[float, str, bytes]]] = {}
        broken = History("(unknown)")
        async for key in client.scan_iter(match=_glob(prefix), count=_PAGE):
            document = await _document(client, key)
            if document is None:
                continue  # no message: another key that begins alike
            try:
                place = float(document["timestamp"]), str(document["message_id"]), key
                sessions.setdefault(str(document["session_id"]), []).append(place)
            except (KeyError, TypeError, ValueError):
                broken.problems.append(f"{key.decode('utf-8', 'replace')} has no session_id, timestamp or message_id")
        for session, places in sessions.items():
            history = History(session)
            for when, name, key in sorted(places):
                document = await _document(client, key)
                if document is None:
                    continue  # it has expired meanwhile
                try:
                    made = from_langchain(document, f"lc_{name}", datetime.fromtimestamp(when, UTC))
                    collect(history, made)
                except (InvalidInput, OverflowError, OSError) as error:
                    history.problems.append(str(error))
            yield history
        if broken.problems:
            raise InvalidInput("the keys", "; ".join(broken.problems[:5]))


async def _document(client: Any, key: bytes) -> dict[str, Any] | None:
    """A message of langchain-redis, or None where the key is something else."""
    kind = await client.type(key)
    if kind == b"ReJSON-RL":
        found: Any = json.loads(await client.execute_command("JSON.GET", key) or "null")
    elif kind == b"hash":
        found = {k.decode(): v.decode() for k, v in (await client.hgetall(key)).items()}
        if isinstance(found.get("data"), str):
            found["data"] = json.loads(found["data"])
    else:
        return None
    return found if isinstance(found, dict) and "data" in found and "type" in found else None


async def _redis(url: str) -> AsyncIterator[Any]:
    """A client, closed afterwards; the library's errors become ours."""
    if find_spec("redis") is None:
        raise MissingExtra("Reading from Redis", "redis")
    import redis
    import redis.asyncio

    try:
        client = redis.asyncio.from_url(url)
    except ValueError as error:
        raise ConfigError(f"the URL cannot be used: {error}; write redis://HOST:6379/0") from None
    try:
        await client.ping()
        yield client
    except redis.RedisError as error:
        raise StoreUnavailable(f"Redis: {error}") from error
    finally:
        await client.aclose()


def _glob(prefix: str) -> str:
    return re.sub(r"([\[\]?*\\])", r"\\\1", prefix) + "*"


def _collect_json(history: History, naming: Naming, raw: bytes | str, id: str | None = None) -> None:
    try:
        value = json.loads(raw)
    except ValueError as error:
        history.problems.append(f"a message is no JSON: {error}")
        return
    try:
        collect(history, from_langchain(value, naming.name(value) if id is None else id))
    except InvalidInput as error:
        history.problems.append(str(error))


async def langchain_sql(url: str, table: str | None = None) -> Histories:
    """The table of ``SQLChatMessageHistory``: ``id``, ``session_id``, ``message``; SQLite or PostgreSQL."""
    table = "message_store" if table is None else table
    if not _TABLE.fullmatch(table):
        raise InvalidInput("--table", f"{table!r} is not the name of a table")
    scheme = urlsplit(url).scheme.partition("+")[0]
    if scheme in ("postgresql", "postgres"):
        rows = _postgres_rows("postgresql://" + url.partition("://")[2], table)
    elif scheme in ("sqlite", "") or "://" not in url:
        rows = _sqlite_rows(url, table)
    else:
        raise ConfigError(f"{scheme}:// is not read; copy the table into an SQLite file, or PostgreSQL")
    history: History | None = None
    async for id, session, message in rows:
        if history is None or history.session != session:
            if history is not None:
                yield history
            history = History(session)
        _collect_json(history, Naming(session), message, f"lc_{id}")
    if history is not None:
        yield history


async def _sqlite_rows(url: str, table: str) -> AsyncIterator[tuple[int, str, str]]:
    """Read-only, in one transaction: the program that writes it may be running."""
    path = unquote(urlsplit(url).path.removeprefix("/")) if "://" in url else url

    def start() -> tuple[apsw.Connection, apsw.Cursor]:
        if not Path(path).is_file():
            raise ConfigError(f"{path}: is not there; write sqlite:///relative.db, sqlite:////absolute.db or a path")
        db = apsw.Connection(path, flags=apsw.SQLITE_OPEN_READONLY)
        db.set_busy_timeout(10_000)
        return db, db.execute(_SQLITE.replace("message_store", table))

    try:
        db, cursor = await asyncio.to_thread(start)
        with closing(db):
            while page := await asyncio.to_thread(lambda: list(islice(cursor, _PAGE))):
                for id, session, message in page:
                    yield int(id), str(session), str(message)
    except apsw.Error as error:
        raise StoreUnavailable(f"{path}: {error}") from error


async def _postgres_rows(url: str, table: str) -> AsyncIterator[tuple[int, str, str]]:
    if find_spec("psycopg") is None:
        raise MissingExtra("Reading from PostgreSQL", "postgres")
    import psycopg
    from psycopg import sql

    query = sql.SQL("SELECT id, session_id, message::text FROM {} ORDER BY session_id, id").format(
        sql.Identifier(table)
    )
    try:
        async with (
            await psycopg.AsyncConnection.connect(url) as connection,
            connection.cursor(name="daram") as cursor,  # on the server: the table need not fit here
        ):
            cursor.itersize = _PAGE
            await cursor.execute(query)
            async for id, session, message in cursor:
                yield int(id), str(session), str(message)
    except psycopg.Error as error:
        raise StoreUnavailable(f"PostgreSQL: {error}") from error
