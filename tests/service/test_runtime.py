"""The runtime: opened once, found by everybody, closed so that no answer is lost."""

from __future__ import annotations

import asyncio
import dataclasses
from pathlib import Path

import pytest

import daram
from daram.errors import ChatbotClosed, StoreError
from daram.service import runtime
from daram.service.runtime import running
from daram.settings import Settings
from daram.testing.model_server import ScriptedModelServer


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings.from_env({}, data=str(tmp_path), model="openai:scripted")


async def test_it_is_the_current_one_while_it_runs(settings: Settings) -> None:
    with pytest.raises(RuntimeError, match="not running"):
        runtime.current()
    async with running(settings) as found:
        assert runtime.current() is found
        assert not found.models  # there is no endpoint
    with pytest.raises(RuntimeError, match="not running"):
        runtime.current()


async def test_what_is_given_is_not_closed(settings: Settings) -> None:
    async with daram.open("memory://") as memory:
        async with running(settings, memory=memory) as found:
            await found.memory.create("ann", id="c")
        assert (await memory.get("ann", "c")).id == "c"


async def test_a_turn_is_drained_and_told_to_the_end(settings: Settings) -> None:
    """Whoever follows an answer when the server ends hears how it ended; no turn begins any more."""
    async with ScriptedModelServer(delay=0.05) as server:
        chosen = dataclasses.replace(settings, base_url=server.base_url, drain=0.2, titles=False)
        async with running(chosen) as found:
            turn = await found.chatbot.start("ann", "c", "[[tokens 9000]]")
            events = turn.events()
            assert (await anext(events)).type == "created"
            assert (await anext(events)).type == "delta"
            ending = asyncio.create_task(found.drain())
            types = [event.type async for event in events]
            assert types[-1] == "incomplete"
            await ending
            assert found.draining
            with pytest.raises(ChatbotClosed):
                await found.chatbot.start("ann", "c", "too late")
    async with daram.open(chosen.store) as memory:
        question, answer = await memory.tail("ann", "c", 10)
        assert (question.status, answer.status) == ("complete", "incomplete")
        assert answer.text.startswith("word1")


async def test_answers_of_the_dead_are_closed_at_the_start(settings: Settings) -> None:
    async with daram.open("memory://") as memory:
        await memory.begin_turn("ann", "c", [daram.user("Hello")], answer_id="a", create=True, lease=0.01)
        await asyncio.sleep(0.05)  # it can only be over for longer
        async with running(settings, memory=memory) as found:
            assert await found.memory.answers("ann", "c") == []
            assert (await found.memory.message("ann", "c", "a")).status == "incomplete"


async def test_a_store_that_cannot_be_opened_leaves_nothing_behind(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "daram.db").write_text("not a database, but somebody's" * 100)
    with pytest.raises(StoreError):
        async with running(settings):
            raise AssertionError("it was opened")
    with pytest.raises(RuntimeError, match="not running"):
        runtime.current()


async def test_titles_are_told_to_all_who_listen(settings: Settings) -> None:
    told: list[str] = []

    async def listen(owner: str, conversation: str, title: str) -> None:
        told.append(title)

    async with ScriptedModelServer() as server:
        server.script("An answer", "Acorns")
        async with running(dataclasses.replace(settings, base_url=server.base_url)) as found:
            found.on_title(listen)
            found.on_title(listen)
            await found.chatbot.ask("ann", "c", "Hello")
    assert told == ["Acorns", "Acorns"]
