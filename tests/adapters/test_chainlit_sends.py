"""What Chainlit itself writes, by tasks that nobody waits for: in its order, as it was last, and all of it."""

from __future__ import annotations

import asyncio
import logging
import random
import uuid
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
from tests.chainlit_home import load_chainlit

import daram
from daram.errors import OutcomeUnknown, StoreUnavailable
from daram.memory import Memory
from daram.store.wrapper import StoreWrapper

load_chainlit()

import chainlit as cl  # noqa: E402
import chainlit.data  # noqa: E402
from chainlit.context import init_ws_context  # noqa: E402
from chainlit.session import WebsocketSession, ws_sessions_id, ws_sessions_sid  # noqa: E402
from chainlit.user import PersistedUser  # noqa: E402

from daram.adapters.chainlit import DaramDataLayer  # noqa: E402
from daram.adapters.chainlit import lines as chainlit_lines  # noqa: E402
from daram.adapters.chainlit import records as chainlit_records  # noqa: E402

WRITING = ("_step", "_element", "turn", "_create", "init_thread", "flush")
ALICE = PersistedUser(id="alice", identifier="alice", createdAt="2026-01-01T00:00:00Z", metadata={})


class Hard(StoreWrapper):
    """A store whose calls take their time, and whose writes fail as often as ``faults`` says, before or behind it."""

    def __init__(self, inner: Any, *, faults: int = 0) -> None:
        super().__init__(inner)
        self._random = random.Random(17)
        self._faults = faults
        self.down = False

    async def _call(self, work: Callable[[], Awaitable[Any]], *, writes: bool = True) -> Any:
        await asyncio.sleep(self._random.random() * 0.003)
        if self.down:
            raise StoreUnavailable("nobody answers")
        fault = self._faults and writes and self._random.randrange(3)
        if fault == 1:
            self._faults -= 1
            raise StoreUnavailable("the connection was refused")
        found = await work()
        if fault == 2:
            self._faults -= 1
            raise OutcomeUnknown("the connection was cut behind the commit")
        return found

    async def append(self, *args: Any, **kwargs: Any) -> Any:
        return await self._call(lambda: self.inner.append(*args, **kwargs))

    async def put_record(self, *args: Any, **kwargs: Any) -> Any:
        return await self._call(lambda: self._records().put_record(*args, **kwargs))

    async def message(self, *args: Any, **kwargs: Any) -> Any:
        return await self._call(lambda: self.inner.message(*args, **kwargs), writes=False)

    async def get(self, *args: Any, **kwargs: Any) -> Any:
        return await self._call(lambda: self.inner.get(*args, **kwargs), writes=False)

    async def delete_message(self, *args: Any, **kwargs: Any) -> Any:
        return await self._call(lambda: self.inner.delete_message(*args, **kwargs))

    async def create(self, *args: Any, **kwargs: Any) -> Any:
        return await self._call(lambda: self.inner.create(*args, **kwargs))

    async def update(self, *args: Any, **kwargs: Any) -> Any:
        return await self._call(lambda: self.inner.update(*args, **kwargs))


@pytest.fixture(autouse=True)
def nothing_left(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(chainlit.data, "_data_layer_initialized", True)
    monkeypatch.setattr(chainlit.data, "_data_layer", None)
    monkeypatch.setattr(chainlit_lines, "_AGAIN", (0.01, 0.02, 0.03, 0.04, 0.05))
    yield
    ws_sessions_id.clear()
    ws_sessions_sid.clear()


def enter(layer: DaramDataLayer, *, begun: bool = True, user: PersistedUser | None = ALICE) -> WebsocketSession:
    """A tab of Chainlit's with this layer."""

    async def emit(event: str, data: Any) -> None: ...

    chainlit.data._data_layer = layer
    session = WebsocketSession(
        id="s1", socket_id="sid1", emit=emit, emit_call=emit, user_env={}, client_type="webapp", user=user
    )
    session.has_first_interaction = begun
    init_ws_context(session)
    return session


async def finished() -> None:
    """All tasks have ended that Chainlit has made of this test's."""
    while tasks := {
        task
        for task in asyncio.all_tasks() - {asyncio.current_task()}
        if any(
            name in repr(task.get_coro()) for name in ("_step", "_element", "turn", "_create", "init_thread", "flush")
        )
    }:
        await asyncio.wait(tasks)


async def said(store: Memory, session: WebsocketSession, owner: str = "alice") -> list[str]:
    return [message.text for message in await store.tail(owner, session.thread_id, 1000)]


async def shown(layer: DaramDataLayer, session: WebsocketSession) -> list[str]:
    thread: Any = await layer.get_thread(session.thread_id)
    return [step["output"] for step in thread["steps"] if step["type"].endswith("_message")]


async def test_messages_are_stored_in_the_order_in_which_they_were_sent(memory: Memory) -> None:
    layer = DaramDataLayer(Hard(memory))
    session = enter(layer)
    for number in range(40):
        await cl.Message(str(number)).send()
        if number % 3 == 0:
            await asyncio.sleep(0)
    await finished()
    assert await said(memory, session) == await shown(layer, session) == [str(number) for number in range(40)]


async def test_the_last_text_is_the_one_that_is_shown(memory: Memory) -> None:
    layer = DaramDataLayer(Hard(memory))
    session = enter(layer)
    for number in range(25):
        message = cl.Message(f"first {number}")
        await message.send()
        for again in range(3):
            message.content = f"{again} of {number}"
            await message.update()
        gone = cl.Message(f"gone {number}")
        await gone.send()
        await gone.remove()
    await finished()
    assert await shown(layer, session) == [f"2 of {number}" for number in range(25)]
    assert len(await said(memory, session)) == 25


async def test_a_step_that_is_changed_while_it_is_stored_is_as_it_was_last(memory: Memory) -> None:
    layer = DaramDataLayer(Hard(memory))
    session = enter(layer)
    await cl.Message("hi", type="user_message").send()
    async with cl.Step("on_message", type="run"):
        for number in range(20):
            async with cl.Step(f"tool {number}", type="tool") as tool:
                tool.output = f"out {number}"
        await cl.Message("done").send()
    await finished()
    thread: Any = await layer.get_thread(session.thread_id)
    tools = {step["name"]: step["output"] for step in thread["steps"] if step["type"] == "tool"}
    assert tools == {f"tool {number}": f"out {number}" for number in range(20)}


async def test_what_a_store_refuses_for_a_moment_is_not_lost(memory: Memory) -> None:
    layer = DaramDataLayer(Hard(memory, faults=60))
    session = enter(layer)
    await layer.update_thread(session.thread_id, name="thirty", user_id="alice", metadata={"chat_profile": "p"})
    expected = []
    for number in range(30):
        message = cl.Message(f"first {number}")
        await message.send()
        message.content = f"second {number}"
        await message.update()
        expected.append(f"second {number}")
        await asyncio.sleep(0.01)
    await finished()
    assert await said(memory, session) == [f"first {number}" for number in range(30)]
    assert await shown(layer, session) == expected
    thread: Any = await layer.get_thread(session.thread_id)
    assert (thread["name"], thread["metadata"]) == ("thirty", {"chat_profile": "p"})


async def test_what_is_lost_is_said_and_holds_nobody_up(memory: Memory, caplog: pytest.LogCaptureFixture) -> None:
    store = Hard(memory)
    layer = DaramDataLayer(store)
    session = enter(layer)
    store.down = True
    lost = cl.Message("lost")
    with caplog.at_level(logging.ERROR):
        await lost.send()
        await finished()
    assert f"step {lost.id} of thread {session.thread_id} was not stored" in caplog.text
    store.down = False
    await cl.Message("kept").send()
    await finished()
    assert await said(memory, session) == ["kept"]


async def test_a_defect_is_said_too(
    memory: Memory, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def defect(*args: Any, **kwargs: Any) -> None:
        raise ZeroDivisionError("a defect")

    layer = DaramDataLayer(memory)
    session = enter(layer)
    monkeypatch.setattr(chainlit_records.SideRecords, "put", defect)
    lost = cl.Message("lost")
    with caplog.at_level(logging.ERROR):
        await lost.send()
        await finished()
    (told,) = [record for record in caplog.records if record.name == chainlit_lines.__name__]
    assert f"step {lost.id} of thread {session.thread_id} was not stored: a defect" in told.getMessage()
    assert told.exc_info is not None


@pytest.mark.parametrize("owner", [None, "local"])
async def test_what_was_shown_before_the_first_message_is_stored_before_it(memory: Memory, owner: str | None) -> None:
    layer = DaramDataLayer(Hard(memory), owner=owner)
    session = enter(layer, begun=False, user=None if owner else ALICE)
    async with cl.Step("on_chat_start", type="run"):
        await cl.Message("greeting").send()
        corrected = await cl.Message("one more thing").send()
        corrected.content = "one thing more"
        await corrected.update()
    await asyncio.sleep(0.02)
    assert (await memory.list(owner or "alice")).items == []
    payload: Any = {
        "message": {
            "id": str(uuid.uuid4()),
            "type": "user_message",
            "output": "hi\nand more",
            "name": "alice",
            "createdAt": "2026-01-01T00:00:00Z",
        }
    }
    await cl.context.emitter.process_message(payload)
    await asyncio.sleep(0.001)
    await cl.Message("an answer").send()
    await finished()
    assert await said(memory, session, owner or "alice") == ["greeting", "one more thing", "hi\nand more", "an answer"]
    assert await shown(layer, session) == ["greeting", "one thing more", "hi\nand more", "an answer"]
    assert (await memory.get(owner or "alice", session.thread_id)).title == "hi"


async def test_a_text_that_no_store_takes_is_kept_without_what_is_wrong_in_it(memory: Memory) -> None:
    layer = DaramDataLayer(memory)
    session = enter(layer)
    await cl.Message("half \ud83d and \x00", metadata={"half": ["\ud83d"]}).send()
    async with cl.Step("tool", type="tool") as tool:
        tool.output = "\ud83d"
    await finished()
    assert await said(memory, session) == await shown(layer, session) == ["half \ufffd and \ufffd"]
    assert len((await memory.scan_records("alice", chainlit_records.STEP)).items) == 2


async def test_a_thread_that_is_deleted_while_it_is_written_leaves_nothing(memory: Memory) -> None:
    layer = DaramDataLayer(Hard(memory))
    session = enter(layer)
    await cl.Message("hi", elements=[cl.Text(name="note", content="words")]).send()
    async with cl.Step("run", type="run"):
        await asyncio.sleep(0.003)
    deleting = asyncio.create_task(layer.delete_thread(session.thread_id))
    await asyncio.sleep(0.001)
    await deleting
    await finished()
    for namespace in chainlit_records.OF_A_THREAD:
        assert (await memory.scan_records("alice", namespace)).items == [], namespace
    assert (await memory.list("alice")).items == []


async def test_closing_ends_what_was_begun(url: str) -> None:
    memory = await daram.open(url)
    layer = DaramDataLayer(Hard(memory))
    session = enter(layer)
    for number in range(5):
        await cl.Message(str(number)).send()
    await layer.close()
    async with daram.open(url) as again:
        assert await said(again, session) == [str(number) for number in range(5)]
