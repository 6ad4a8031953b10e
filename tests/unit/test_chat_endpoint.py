"""Turns over a real socket: the OpenAI-compatible client, the scripted server, SQLite."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.unit.chat_script import OWNER, chatbot, check_events, collect, until

from daram import errors, tool, user
from daram.chat import Chatbot
from daram.llm.openai import OpenAIModel
from daram.store.sqlite.engine import SqliteStore
from daram.testing.model_replies import Reply, call, cut, failure, html, overflow, stall
from daram.testing.model_server import ScriptedModelServer


@pytest.fixture
async def server() -> AsyncIterator[ScriptedModelServer]:
    async with ScriptedModelServer() as server:
        yield server


@pytest.fixture
async def memory(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    async with SqliteStore(tmp_path / "daram.db") as store:
        yield store


@pytest.fixture
async def bot(server: ScriptedModelServer, memory: SqliteStore) -> AsyncIterator[Chatbot]:
    model = OpenAIModel("scripted", base_url=server.base_url, max_retries=0)
    async with chatbot(memory, model) as bot:
        yield bot
    await model.close()


async def test_the_story_of_the_squirrel(server: ScriptedModelServer, tmp_path: Path) -> None:
    """Told, the process ends, asked: in English and Korean, and when the statement has left the window."""
    for window, between in ((20, 0), (4, 5)):
        for told, asked, name in (
            ("From now on we call the squirrel tuna.", "What is the squirrel called?", "tuna"),
            ("앞으로 다람쥐를 다랑어라고 부를게.", "다람쥐를 뭐라고 부르지?", "다랑어"),
        ):
            conversation = f"{window} {name}"
            for messages in ([told, *(f"Tell me about mountain number {n}." for n in range(between))], [asked]):
                model = OpenAIModel("scripted", base_url=server.base_url)
                async with SqliteStore(tmp_path / "daram.db") as store, chatbot(store, model, window=window) as bot:
                    for message in messages:
                        answer = await bot.ask(OWNER, conversation, message)
                await model.close()
            assert name in answer.text
            assert len(server.requests[-1]["messages"]) <= window + 1


@pytest.mark.parametrize(
    ("reply", "error", "kept"),
    [
        (failure(401, "wrong key"), errors.ModelRefused, ""),
        (failure(404, "no such model"), errors.ModelRefused, ""),
        (failure(429, retry_after=0), errors.ModelRateLimited, ""),
        (failure(500), errors.ModelError, ""),
        (html(), errors.ModelBroken, ""),
        (cut(), errors.ModelError, ""),
        (cut(2, "one two three"), errors.ModelBroken, "one two"),
        (Reply(text="one two three", end="garbage", after=2), errors.ModelBroken, "one two"),
        (Reply(text="one two three", end="badjson", after=2), errors.ModelBroken, "one two"),
        (Reply(text="one two three", end="error", after=2), errors.ModelError, "one two"),
        (Reply(text="one two", end="no-finish"), errors.ModelBroken, "one two"),
        (overflow(), errors.ContextOverflow, ""),
    ],
    ids=lambda value: getattr(value, "end", None) if isinstance(value, Reply) else None,
)
async def test_a_server_that_fails(
    bot: Chatbot,
    memory: SqliteStore,
    server: ScriptedModelServer,
    reply: Reply,
    error: type[errors.ModelError],
    kept: str,
) -> None:
    server.script(reply)
    message = user("hello")
    running = await bot.start(OWNER, "c", message)
    events = await collect(running)
    with pytest.raises(error):
        await running.message()
    answer = (await memory.tail(OWNER, "c"))[-1]
    assert (answer.text, answer.status) == (kept, "failed")
    check_events(events, answer)
    server.script("it works again")
    assert (await bot.ask(OWNER, "c", message)).text == "it works again"
    assert [m.text for m in await memory.tail(OWNER, "c")] == ["hello", "it works again"]


async def test_a_server_that_is_not_there(memory: SqliteStore) -> None:
    with socket.socket() as taken:  # bound, not listening: nobody answers there
        taken.bind(("127.0.0.1", 0))
        model = OpenAIModel("x", base_url=f"http://127.0.0.1:{taken.getsockname()[1]}/v1", max_retries=0)
        async with chatbot(memory, model) as bot:
            with pytest.raises(errors.ModelUnavailable):
                await bot.ask(OWNER, "c", "hello")
        await model.close()
    assert [m.status for m in await memory.tail(OWNER, "c")] == ["complete", "failed"]


@pytest.mark.parametrize("reply", [stall(), stall(2, "one two three")], ids=["before a word", "after two"])
async def test_a_server_that_falls_silent(memory: SqliteStore, server: ScriptedModelServer, reply: Reply) -> None:
    server.script(reply)
    model = OpenAIModel("scripted", base_url=server.base_url, max_retries=0, read_timeout=0.2)
    async with chatbot(memory, model) as bot:
        with pytest.raises(errors.ModelTimeout):
            await bot.ask(OWNER, "c", "hello")
    await model.close()
    answer = (await memory.tail(OWNER, "c"))[-1]
    assert (answer.text, answer.status) == (reply.text and "one two", "failed")


@pytest.mark.parametrize("reply", [stall(), stall(2, "one two three")], ids=["before a word", "after two"])
async def test_stop_closes_the_connection(
    bot: Chatbot, memory: SqliteStore, server: ScriptedModelServer, reply: Reply
) -> None:
    server.script(reply)
    running = await bot.start(OWNER, "c", "hello")
    await server.wait_for(lambda server: len(server.requests) == 1)
    if reply.text:
        assert bot._home is not None
        log = bot._home.events

        async def heard() -> bool:
            known = await log.text(running.answer_id)
            return known is not None and known[0] == "one two"

        await until(heard)
    assert await bot.cancel(OWNER, "c", running.answer_id) == 1
    answer = await running.message()
    assert (answer.text, answer.status) == (reply.text and "one two", "cancelled")
    await server.wait_for(lambda server: server.left == 1)


async def test_a_context_that_is_too_long_is_halved(bot: Chatbot, server: ScriptedModelServer) -> None:
    for number in range(4):
        await bot.ask(OWNER, "c", f"message {number}")
    server.script(overflow(), "shorter")
    assert (await bot.ask(OWNER, "c", "and now?")).text == "shorter"
    long, short = (request["messages"] for request in server.requests[-2:])
    assert len(short) < len(long)
    assert short[-1] == long[-1]


async def test_a_call_of_a_tool_is_kept_and_shown_again(
    bot: Chatbot, memory: SqliteStore, server: ScriptedModelServer
) -> None:
    server.script(call("weather", {"city": "서울"}), "It rains.")
    asked = await bot.ask(OWNER, "c", "how is the weather?")
    (part,) = asked.parts
    assert (asked.status, part.type, part.data["name"]) == ("complete", "tool_call", "weather")
    await memory.append(OWNER, "c", [tool("rain", call_id=str(part.data["call_id"]))])
    assert (await bot.ask(OWNER, "c", "and so?")).text == "It rains."
    roles = [message["role"] for message in server.requests[-1]["messages"]]
    assert roles == ["system", "user", "assistant", "tool", "user"]


async def test_many_conversations_at_once(bot: Chatbot, memory: SqliteStore, server: ScriptedModelServer) -> None:
    names = [f"c{number}" for number in range(16)]
    await asyncio.gather(*(bot.ask(OWNER, name, f"{name} {turn}") for name in names for turn in range(4)))
    for name in names:
        messages = (await memory.messages(OWNER, name)).items
        assert [m.seq for m in messages] == list(range(1, 9))
        assert [m.role for m in messages] == ["user", "assistant"] * 4
        assert all(m.status == "complete" for m in messages)
    assert await bot.recover() == []
