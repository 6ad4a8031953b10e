"""Importers: what other libraries kept arrives with all it says, and only once.

langchain_messages.json was recorded from langchain-core's ``message_to_dict`` (the library itself would double the
test environment); the layouts are those that langchain-community 0.4 and langchain-redis 0.2 write.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import apsw
import pytest
import redis
from tests.postgres import Databases

from daram.errors import ConfigError, InvalidInput, StoreUnavailable
from daram.memory import Memory
from daram.model import Message
from daram.store.memory import MemoryStore
from daram.testing.servers import RedisServer
from daram.transfer.chathistory import chat_history
from daram.transfer.foreign import Histories, add
from daram.transfer.langchain import _document, community_redis, langchain_redis, langchain_sql

RECORDED = json.loads((Path(__file__).parent / "langchain_messages.json").read_text("utf-8"))


@pytest.fixture
async def store() -> Any:
    async with Memory(MemoryStore(), "") as memory:
        yield memory


def as_expected(found: list[Message], *, full: bool = True) -> None:
    assert [m.role for m in found] == ["system", "user", "assistant", "tool", "tool", "user", "user", "user"]
    assert [m.text for m in found] == ["be brief", "hi", "", "42", "r", "x", "look", "hi"]
    if full:
        assert [(p.type, p.data) for p in found[2].parts] == [
            ("tool_call", {"call_id": "c1", "name": "f", "arguments": '{"a": 1}'})
        ]
        assert (found[2].model, found[2].usage) == ("m", {"input_tokens": 1, "output_tokens": 2})
        assert found[1].metadata == {"langchain_id": "h1"}
        assert found[5].metadata == {"role": "critic"}
    assert found[3].parts[0].data == {"call_id": "c1", "output": "42"}
    assert [(p.type, p.data["image_url"]) for p in found[6].parts] == [("image", {"url": "data:x"})]
    assert len({m.id for m in found}) == 8


async def twice(store: Memory, make: Any, **options: Any) -> None:
    """Import, and import again: nothing is new then."""
    first = await add(store, make(), owner="ann", **options)
    assert first.new == first.messages
    second = await add(store, make(), owner="ann", **options)
    assert (second.new, second.messages, second.conversations) == (0, first.messages, first.conversations)


def client(server: RedisServer) -> Any:
    made = redis.Redis.from_url(server.url)
    made.flushall()
    return made


async def test_lists_of_langchain_community(store: Memory, redis_server: RedisServer) -> None:
    with client(redis_server) as db:
        for value in RECORDED:
            db.lpush("message_store:s[1]*", json.dumps(value))  # the newest first, as the library does it
        for n in range(1203):
            db.lpush("message_store:long", json.dumps({"type": "human", "data": {"content": f"{n % 7}"}}))
        db.set("message_store:no list", "x")
        db.lpush("other:s", "{}")

        def make() -> Histories:
            return community_redis(redis_server.url)

        await twice(store, make)
        as_expected(await store.tail("ann", "s[1]*", 100))
        assert [m.text for m in await store.tail("ann", "long", 3)] == ["3", "4", "5"]
        assert (await store.get("ann", "long")).last_seq == 1203
        db.lpush("message_store:long", json.dumps({"type": "ai", "data": {"content": "more"}}))
        again = await add(store, make(), owner="ann")
        assert again.new == 1
        assert (await store.tail("ann", "long", 1))[0].text == "more"


async def test_a_prefix_and_sessions_that_are_owners(store: Memory, redis_server: RedisServer) -> None:
    with client(redis_server) as db:
        db.lpush("app*:kim", json.dumps(RECORDED[1]))
        db.lpush("apple:lee", json.dumps(RECORDED[1]))
    added = await add(store, community_redis(redis_server.url, "app*:"), owner="ann", session_is_owner=True)
    assert added.conversations == 1
    assert [m.text for m in await store.tail("kim", "kim")] == ["hi"]
    assert (await store.list("ann")).items == []


async def test_what_was_deleted_in_daram_stays_deleted(store: Memory, redis_server: RedisServer) -> None:
    with client(redis_server) as db:
        for value in RECORDED[:3]:
            db.lpush("message_store:s", json.dumps(value))
        db.lpush("message_store:t", json.dumps(RECORDED[0]))
    await add(store, community_redis(redis_server.url), owner="ann")
    gone = (await store.tail("ann", "s"))[1].id
    await store.delete_message("ann", "s", gone)
    await store.delete("ann", "t")
    again = await add(store, community_redis(redis_server.url), owner="ann")
    assert (again.new, len(again.problems)) == (0, 1)
    assert [m.text for m in await store.tail("ann", "s")] == ["be brief", ""]


async def test_messages_that_cannot_be_kept_are_named_and_the_rest_is(store: Memory, redis_server: RedisServer) -> None:
    with client(redis_server) as db:
        bad = [b"{", b"[]", b'{"type":"remove","data":{}}', b'{"type":"human","data":{"content":""}}']
        for raw in [*bad, json.dumps(RECORDED[1]).encode()]:
            db.lpush("message_store:s", raw)
        db.lpush(b"message_store:bad\nname", json.dumps(RECORDED[1]))
    added = await add(store, community_redis(redis_server.url), owner="ann")
    assert len(added.problems) == 5
    assert [m.text for m in await store.tail("ann", "s")] == ["hi"]


def documents() -> dict[str, dict[str, Any]]:
    """What langchain-redis makes of the messages, by key."""
    made = {}
    for n, value in enumerate(RECORDED):
        data = {k: v for k, v in value["data"].items() if k in ("content", "additional_kwargs", "type")}
        data |= {k: v for k, v in value["data"].items() if k in ("tool_call_id", "status", "role")}
        document = {"type": value["type"], "message_id": f"01J{n}", "data": data, "session_id": "s"}
        made[f"chat:s:01J{n}"] = {**document, "timestamp": 1_700_000_000.25 + n}
    return made


async def test_documents_of_langchain_redis(store: Memory, redis_server: RedisServer) -> None:
    with client(redis_server) as db:
        for key, document in documents().items():
            db.hset(key, mapping={**document, "data": json.dumps(document["data"])})
        db.set("chat:other", "x")
        db.hset("chat:another", "x", "y")

    def make() -> Histories:
        return langchain_redis(redis_server.url)

    await twice(store, make)
    found = await store.tail("ann", "s", 100)
    as_expected(found, full=False)
    assert found[0].created_at is not None
    assert found[0].created_at.timestamp() == 1_700_000_000.25
    assert found[0].id == "lc_01J0"


async def test_a_json_document_is_read_as_a_hash_is() -> None:
    """By the commands alone: the servers of the tests have no module for JSON."""

    class WithModule:
        async def type(self, key: bytes) -> bytes:
            return b"ReJSON-RL"

        async def execute_command(self, command: str, key: bytes) -> bytes | None:
            assert command == "JSON.GET"
            found = documents().get(key.decode())
            return None if found is None else json.dumps(found).encode()

    assert await _document(WithModule(), b"chat:s:01J2") == documents()["chat:s:01J2"]
    assert await _document(WithModule(), b"gone") is None


def test_openai_tool_calls_are_kept_where_there_are_no_others() -> None:
    from daram.transfer.foreign import from_langchain

    calls = [{"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}]
    made = from_langchain(
        {"type": "AIMessageChunk", "data": {"content": "", "additional_kwargs": {"tool_calls": calls, "x": 1}}}, "id"
    )
    assert [p.type for p in made.parts] == ["tool_call", "additional_kwargs"]
    assert made.parts[0].data == {"call_id": "c", "name": "f", "arguments": "{}"}


async def test_a_table_in_sqlite(store: Memory, tmp_path: Path) -> None:
    path = tmp_path / "chat.db"
    db = apsw.Connection(str(path))
    db.pragma("journal_mode", "wal")
    db.execute("CREATE TABLE message_store (id INTEGER PRIMARY KEY, session_id TEXT, message TEXT)")
    for session in ("a", "b"):
        for value in RECORDED:
            db.execute("INSERT INTO message_store (session_id, message) VALUES (?, ?)", (session, json.dumps(value)))

    def make() -> Histories:
        return langchain_sql(f"sqlite:///{path}")

    await twice(store, make)
    for session in ("a", "b"):
        as_expected(await store.tail("ann", session, 100))
    db.execute("INSERT INTO message_store (session_id, message) VALUES ('a', ?)", (json.dumps(RECORDED[0]),))
    assert (await add(store, langchain_sql(str(path)), owner="ann")).new == 1


async def test_a_table_in_postgresql(store: Memory, databases: Databases, tmp_path: Path) -> None:
    url = databases.url(tmp_path)
    with databases.server.connect(databases.name(tmp_path)) as db:
        db.execute("CREATE TABLE history (id serial PRIMARY KEY, session_id text, message text)")
        for value in RECORDED:
            db.execute("INSERT INTO history (session_id, message) VALUES ('a', %s)", (json.dumps(value),))

    def make() -> Histories:
        return langchain_sql(url.replace("postgresql://", "postgresql+psycopg://"), "history")

    await twice(store, make)
    as_expected(await store.tail("ann", "a", 100))


@pytest.mark.parametrize(
    ("url", "table", "error"),
    [
        ("sqlite:///missing.db", None, ConfigError),
        ("mysql://x/y", None, ConfigError),
        ("sqlite:///x.db", 'x"; DROP TABLE x', InvalidInput),
    ],
)
async def test_what_cannot_be_read_is_said(url: str, table: str | None, error: type[Exception]) -> None:
    with pytest.raises(error):
        async for _ in langchain_sql(url, table):
            pass


async def test_a_redis_that_is_not_there_is_said() -> None:
    with pytest.raises(StoreUnavailable):
        async for _ in community_redis("redis://127.0.0.1:1/0"):
            pass
    with pytest.raises(ConfigError):
        async for _ in community_redis("http://x"):
            pass


CHAT = [
    {"SYSTEM": "init conversation"},
    {"id_user": 1, "USER": "What is a queryset?"},
    {"id_ai": 1, "AI": "A lazy list."},
    {"id_user": 2, "USER": "And a manager?"},
    {"id_ai": 2, "AI": "It makes them."},
]


async def test_one_chat_in_a_file(store: Memory, tmp_path: Path) -> None:
    file = tmp_path / "django.json"
    file.write_text(json.dumps(CHAT[:3]), "utf-8")

    def make() -> Histories:
        return chat_history(str(file), "old-")

    await twice(store, make)
    file.write_text(json.dumps(CHAT), "utf-8")
    assert (await add(store, make(), owner="ann")).new == 2
    found = await store.tail("ann", "old-django")
    assert [(m.id, m.role, m.text) for m in found][:2] == [
        ("id_user_1", "user", "What is a queryset?"),
        ("id_ai_1", "assistant", "A lazy list."),
    ]
    assert len(found) == 4


async def test_the_rows_of_a_table(store: Memory, tmp_path: Path) -> None:
    file = tmp_path / "dump.json"
    about = {"category": "OFFICIAL_DOCS", "title_no": 3, "title": "Django"}
    rows = [
        {"model": "user.user", "pk": 7, "fields": {"name": "kim"}},
        {
            "model": "user.chathistory",
            "pk": 12,
            "fields": {"user": 7, "title": "Querysets", "content_info": about, "conversation": json.dumps(CHAT)},
        },
        {"model": "user.chathistory", "pk": 13, "fields": {"user": None, "conversation": CHAT[:1]}},
    ]
    file.write_text(json.dumps(rows), "utf-8")

    def make() -> Histories:
        return chat_history(str(file))

    await twice(store, make)
    kept = await store.get("7", "12")
    assert kept.title == "Querysets"
    assert kept.metadata == {"category": "OFFICIAL_DOCS", "title_no": "3", "title": "Django"}
    assert len(await store.tail("7", "12")) == 4


@pytest.mark.parametrize("bad", ["{", "{}", "[]", '[{"x": 1}]'])
async def test_a_file_that_is_no_chat_is_refused(tmp_path: Path, bad: str) -> None:
    (tmp_path / "bad.json").write_text(bad)
    if bad == "[]":
        assert [h async for h in chat_history(str(tmp_path / "bad.json"))] == []
        return
    with pytest.raises(InvalidInput):
        async for _ in chat_history(str(tmp_path / "bad.json")):
            pass
