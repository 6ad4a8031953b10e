"""The session of the OpenAI Agents SDK: its documented behaviour, and the SDK's own loop with a scripted model."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import pytest

os.environ.setdefault("OPENAI_AGENTS_DISABLE_TRACING", "1")

import agents.memory.session
from agents import Agent, ModelResponse, Runner, SQLiteSession, Usage, function_tool
from agents.memory import OpenAIResponsesCompactionSession, Session, SessionSettings
from agents.models.interface import Model
from openai.types.responses import (
    ResponseFunctionToolCall,
    ResponseOutputMessage,
    ResponseOutputText,
)
from tests.adapters.crash_compaction import Compacting, texts
from tests.faults.children import environment

import daram
from daram.adapters.openai_agents import DaramSession
from daram.errors import Conflict, Gone, InvalidInput, OutcomeUnknown
from daram.memory import Memory
from daram.store.wrapper import StoreWrapper

CHILD = Path(__file__).with_name("crash_compaction.py")

ITEMS: list[Any] = [
    {"role": "user", "content": "이건 뭐야?"},
    {
        "type": "message",
        "role": "user",
        "content": [{"type": "input_image", "image_url": "data:image/png;base64,aGk="}],
    },
    {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "hm"}], "encrypted_content": "x"},
    {"type": "function_call", "id": "fc_1", "call_id": "c1", "name": "look", "arguments": '{"x": 1}'},
    {"type": "function_call_output", "call_id": "c1", "output": "a squirrel"},
    {
        "type": "message",
        "id": "msg_1",
        "role": "assistant",
        "status": "completed",
        "content": [{"type": "output_text", "text": "다람쥐", "annotations": [], "logprobs": None}],
    },
    {"type": "compaction", "id": "cmp_1", "encrypted_content": "…"},
    {"role": "user", "content": ""},
]


def user(text: str) -> Any:
    return {"role": "user", "content": text}


async def test_items_come_back_as_they_were(memory: Memory) -> None:
    session = DaramSession(memory, "ann", "s")
    assert isinstance(session, Session)
    assert await session.get_items() == []
    await session.add_items([])
    await session.add_items(ITEMS)
    assert await DaramSession(memory, "ann", "s").get_items() == ITEMS
    assert await DaramSession(memory, "bob", "s").get_items() == []
    shown = await memory.tail("ann", "s", 20)
    assert [(m.role, m.text) for m in shown if m.text] == [
        ("user", "이건 뭐야?"),
        ("tool", "a squirrel"),
        ("assistant", "다람쥐"),
    ]
    await session.clear_session()
    assert await session.get_items() == []
    await session.add_items([user("again")])
    assert await session.get_items() == [user("again")]


async def test_limits_pop_and_pages_are_those_of_the_sdks_own(memory: Memory) -> None:
    ours, theirs = DaramSession(memory, "ann", "s"), SQLiteSession("s")
    sessions: list[Any] = [ours, theirs]
    said = [user(f"word {n}") for n in range(230)]
    for session in sessions:
        assert await session.pop_item() is None
        await session.add_items(said)
    for limit in (None, 0, 1, 7, 200, 230, 500):
        assert await ours.get_items(limit) == await theirs.get_items(limit)
    for _ in range(3):
        assert await ours.pop_item() == await theirs.pop_item()
    await ours.add_items([user("new")])
    assert [item["content"] for item in await ours.get_items(2)] == ["word 226", "new"]  # type: ignore[typeddict-item]
    ours.session_settings = SessionSettings(limit=3)
    assert len(await ours.get_items()) == 3
    theirs.close()


async def test_a_window_begins_with_nothing_that_hangs_in_the_air(memory: Memory) -> None:
    session = DaramSession(memory, "ann", "s")
    turn = ITEMS[:6]
    await session.add_items(turn * 2)
    for limit in range(1, 12):
        items: list[Any] = await session.get_items(limit)
        calls = [item["call_id"] for item in items if item.get("type") == "function_call"]
        outputs = [item["call_id"] for item in items if item.get("type") == "function_call_output"]
        assert len(calls) == len(outputs), limit
        reasoning = [item for item in items if item.get("type") == "reasoning"]
        assert len(calls) <= len(reasoning), limit
        assert items == (turn * 2)[12 - len(items) :] or items[-1] == turn[-1]
    assert await session.get_items(12) == turn * 2


async def test_two_runs_on_one_session(memory: Memory) -> None:
    async def run(name: str) -> None:
        session = DaramSession(memory, "ann", "s")
        for n in range(10):
            await session.add_items([user(f"{name} {n}"), {"role": "assistant", "content": f"to {name} {n}"}])

    await asyncio.gather(run("a"), run("b"))
    said = [item["content"] for item in await DaramSession(memory, "ann", "s").get_items()]  # type: ignore[typeddict-item]
    assert len(said) == 40
    assert all(b == f"to {a}" for a, b in zip(said[::2], said[1::2], strict=True))
    popped = await asyncio.gather(*(DaramSession(memory, "ann", "s").pop_item() for _ in range(10)))
    assert sorted(item["content"] for item in popped) == sorted(said[30:])  # type: ignore[typeddict-item,index]


async def test_what_other_doors_said(memory: Memory) -> None:
    call = daram.Part(type="tool_call", data={"call_id": "c", "name": "look", "arguments": "{}"})
    await memory.append(
        "ann",
        "s",
        [daram.user("hi"), daram.assistant("let me see", parts=[call]), daram.tool("ok", call_id="c")],
        create=True,
    )
    session = DaramSession(memory, "ann", "s")
    assert await session.get_items() == [
        user("hi"),
        {"role": "assistant", "content": "let me see"},
        {"type": "function_call", "call_id": "c", "name": "look", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c", "output": "ok"},
    ]
    assert (await session.pop_item() or {})["type"] == "function_call_output"
    assert (await session.pop_item() or {})["type"] == "function_call"
    assert await session.get_items() == [user("hi"), {"role": "assistant", "content": "let me see"}]
    await memory.delete("ann", "s")
    assert await session.get_items() == []
    assert await session.pop_item() is None
    with pytest.raises(Gone):
        await session.add_items([user("on")])


@pytest.mark.parametrize("first", [True, False])
async def test_of_a_message_that_says_several_things_the_last_is_popped_in_one_piece(
    memory: Memory, first: bool
) -> None:
    class Dying(StoreWrapper):
        async def delete_message(self, *args: Any, **kwargs: Any) -> Any:
            await super().delete_message(*args, **kwargs)
            raise ConnectionAbortedError("the process is gone")

    call = daram.Part(type="tool_call", data={"call_id": "c", "name": "look", "arguments": "{}"})
    front = [] if first else [daram.user("hi")]
    await memory.append("ann", "s", [*front, daram.assistant("let me see", parts=[call])], create=True)
    with suppress(ConnectionAbortedError):
        await DaramSession(Dying(memory), "ann", "s").pop_item()
    session = DaramSession(memory, "ann", "s")
    left = [item.get("content") for item in await session.get_items()]
    assert left == [*([] if first else ["hi"]), "let me see"]
    await session.add_items([user("on")])
    assert len(await session.get_items()) == len(left) + 1


# --- beside the engines -------------------------------------------------------------------------------------------


@pytest.fixture
async def small() -> AsyncIterator[Memory]:
    async with daram.open("memory://") as memory:
        yield memory


async def test_a_cancelled_write_is_finished_first(small: Memory) -> None:
    begun, go = asyncio.Event(), asyncio.Event()

    class Slow(StoreWrapper):
        async def append(self, *args: Any, **kwargs: Any) -> Any:
            begun.set()
            await go.wait()
            return await super().append(*args, **kwargs)

    task = asyncio.create_task(DaramSession(Slow(small), "ann", "s").add_items([user("one")]))
    await begun.wait()
    task.cancel()
    await asyncio.sleep(0)
    task.cancel()
    go.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await DaramSession(small, "ann", "s").get_items() == [user("one")]


async def test_an_unknown_outcome_is_asked_again_with_the_same_ids(small: Memory) -> None:
    class Lost(StoreWrapper):
        lost = 0

        async def append(self, *args: Any, **kwargs: Any) -> Any:
            found = await super().append(*args, **kwargs)
            self.lost += 1
            if self.lost % 3:
                raise OutcomeUnknown("the connection was cut behind the commit")
            return found

    session = DaramSession(Lost(small), "ann", "s")
    await session.add_items([user("one"), user("two")])
    assert await session.get_items() == [user("one"), user("two")]


async def test_what_cannot_be_kept_is_said(small: Memory) -> None:
    session = DaramSession(small, "ann", "s")
    for bad in ({"role": "user", "content": object()}, "text", {"role": "user", "content": float("nan")}):
        with pytest.raises(InvalidInput, match="items"):
            await session.add_items([user("fine"), bad])  # type: ignore[list-item]
    assert await session.get_items() == []


class Scripted(Model):
    """Says what it was told to say, and keeps what it was asked."""

    def __init__(self, *answers: list[Any]) -> None:
        self.answers = list(answers)
        self.asked: list[Any] = []

    async def get_response(self, system_instructions: Any, input: Any, *args: Any, **kwargs: Any) -> ModelResponse:
        self.asked.append(input)
        return ModelResponse(output=self.answers.pop(0), usage=Usage(), response_id=None)

    def stream_response(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError


def says(text: str) -> list[Any]:
    content = [ResponseOutputText(type="output_text", text=text, annotations=[])]
    return [ResponseOutputMessage(id="m", type="message", role="assistant", status="completed", content=content)]


def calls(name: str, arguments: str) -> list[Any]:
    return [ResponseFunctionToolCall(type="function_call", call_id="c1", name=name, arguments=arguments)]


async def test_the_sdks_own_loop(memory: Memory) -> None:
    @function_tool
    def look(at: str) -> str:
        """Look."""
        return f"{at} is called a tuna"

    for session in (DaramSession(memory, "ann", "s"), SQLiteSession("s")):
        model = Scripted(calls("look", '{"at": "squirrel"}'), says("a tuna"), says("I said: a tuna"))
        agent: Any = Agent(name="a", model=model, tools=[look])
        first = await Runner.run(agent, "what is a squirrel called?", session=session)
        assert first.final_output == "a tuna"
        second = await Runner.run(agent, "again?", session=session)
        assert second.final_output == "I said: a tuna"
        if isinstance(session, DaramSession):
            asked = model.asked
            kept = await session.get_items()
        else:
            assert model.asked == asked
            assert await session.get_items() == kept
            session.close()
    assert [m.role for m in await memory.tail("ann", "s", 10)] == [
        "user",
        "assistant",
        "tool",
        "assistant",
        "user",
        "assistant",
    ]


# --- compaction -------------------------------------------------------------------------------------------------------

HOOKED = pytest.mark.skipif(
    not hasattr(agents.memory.session, "_CompactionSnapshot"), reason="this release clears and adds again"
)
BY_HAND: Any = {"force": True, "compaction_mode": "input"}


class Answering(Scripted):
    """Answers what it was asked last, as an endpoint does that names its responses."""

    async def get_response(self, system_instructions: Any, input: Any, *args: Any, **kwargs: Any) -> ModelResponse:
        self.asked.append(input)
        return ModelResponse(output=says(f"to {input[-1]['content']}"), usage=Usage(), response_id="r")


def said(*rounds: int) -> list[Any]:
    return [item for n in rounds for item in (user(f"{n}"), {"role": "assistant", "content": f"to {n}"})]


def every(rounds: int) -> list[str]:
    return sorted(f"{to}{n}" for n in range(rounds) for to in ("", "to "))


async def kept(memory: Memory) -> list[str]:
    """The texts that are in the session, and see that nothing else is stored."""
    items: list[Any] = await DaramSession(memory, "ann", "s").get_items()
    left = [entry.message for entry in await memory.log("ann", "s", limit=1000) if not entry.deleted]
    assert len(left) == len(items)
    return sorted(texts(items))


async def test_by_hand_in_any_release(memory: Memory) -> None:
    inner = DaramSession(memory, "ann", "s")
    session = OpenAIResponsesCompactionSession("s", inner, client=Compacting())  # type: ignore[arg-type]
    await session.add_items(said(*range(6)))
    await session.run_compaction(BY_HAND)
    assert [item["type"] for item in await inner.get_items()] == ["compaction"]  # type: ignore[typeddict-item]
    await session.add_items(said(6))
    assert await kept(memory) == every(7)
    assert await memory.search("ann", "5", conversation="s") == []


@HOOKED
@pytest.mark.parametrize("limit", [None, 7])
async def test_runs_compact_by_themselves_what_they_have_read(memory: Memory, limit: int | None) -> None:
    inner = DaramSession(memory, "ann", "s", session_settings={"limit": limit})
    await inner.add_items(said(*range(20)))
    client = Compacting()
    model = Answering()
    for n in range(20, 40):
        # A session for each run, as a server makes them.
        session = OpenAIResponsesCompactionSession(
            "s",
            DaramSession(memory, "ann", "s", session_settings={"limit": limit}),
            client=client,  # type: ignore[arg-type]
            compaction_mode="input",
            should_trigger_compaction=lambda context: len(context["compaction_candidate_items"]) >= 3,
        )
        await Runner.run(Agent(name="a", model=model), str(n), session=session)
    assert client.times >= 4
    assert await kept(memory) == every(40)
    if limit is not None:
        assert max(len(asked) for asked in model.asked) == 8


@HOOKED
@pytest.mark.parametrize("limit", [None, 4])
async def test_what_another_adds_during_a_compaction_is_kept(memory: Memory, limit: int | None) -> None:
    other = DaramSession(memory, "ann", "s")

    class Slow(Compacting):
        async def compact(self, **kwargs: Any) -> Any:
            if not self.times:
                await other.add_items(said(6))
            return await super().compact(**kwargs)

    class Beside(StoreWrapper):
        """Somebody adds behind the last look, just before the commit."""

        late = False

        async def _add(self) -> None:
            if self.late:
                self.late = False
                await other.add_items(said(7))

        async def append(self, *args: Any, **kwargs: Any) -> Any:
            await self._add()
            return await super().append(*args, **kwargs)

        async def load(self, *args: Any, **kwargs: Any) -> Any:
            await self._add()
            return await super().load(*args, **kwargs)

    store = Beside(memory)
    await other.add_items(said(*range(6)))
    inner = DaramSession(store, "ann", "s", session_settings=SessionSettings(limit=limit))
    session = OpenAIResponsesCompactionSession("s", inner, client=Slow())  # type: ignore[arg-type]
    with pytest.raises(Conflict, match="once more"):
        await session.run_compaction(BY_HAND)
    assert await other.get_items() == said(*range(7))
    store.late = True
    with pytest.raises(Conflict, match="once more"):
        await session.run_compaction(BY_HAND)
    assert await other.get_items() == said(*range(8))
    await memory.update("ann", "s", title="Trees")
    await session.run_compaction(BY_HAND)
    assert await kept(memory) == every(8)
    assert (await memory.get("ann", "s")).title == "Trees"


@HOOKED
@pytest.mark.parametrize("limit", [None, 4])
async def test_a_compaction_is_all_or_nothing(memory: Memory, limit: int | None) -> None:
    """Killed behind any of its writes, it leaves what was there or what it makes of it; the next one tidies up."""

    class Dying(StoreWrapper):
        lives = 0

        async def _live(self, found: Any) -> Any:
            if not self.lives:
                raise ConnectionAbortedError("the process is gone")
            self.lives -= 1
            return found

        async def append(self, *args: Any, **kwargs: Any) -> Any:
            return await self._live(await super().append(*args, **kwargs))

        async def load(self, *args: Any, **kwargs: Any) -> Any:
            return await self._live(await super().load(*args, **kwargs))

        async def put_record(self, *args: Any, **kwargs: Any) -> Any:
            return await self._live(await super().put_record(*args, **kwargs))

        async def delete_record(self, *args: Any, **kwargs: Any) -> Any:
            return await self._live(await super().delete_record(*args, **kwargs))

        async def delete_message(self, *args: Any, **kwargs: Any) -> Any:
            return await self._live(await super().delete_message(*args, **kwargs))

        async def delete(self, *args: Any, **kwargs: Any) -> None:
            raise AssertionError("whoever reads now finds nothing")

    def compacting(store: Any) -> OpenAIResponsesCompactionSession:
        inner = DaramSession(store, "ann", "s", session_settings=SessionSettings(limit=limit))
        return OpenAIResponsesCompactionSession("s", inner, client=Compacting())  # type: ignore[arg-type]

    plain = DaramSession(memory, "ann", "s")
    await plain.add_items(said(*range(3)))
    for lives in range(7):
        rounds = 3 + lives
        before = await plain.get_items()
        dying = Dying(memory)
        dying.lives = lives
        try:
            await compacting(dying).run_compaction(BY_HAND)
            died = False
        except ConnectionAbortedError:
            died = True
        items: list[Any] = await plain.get_items()
        assert sorted(texts(items)) == every(rounds)
        assert items == before or len(items) < len(before)
        await plain.add_items(said(rounds))
    assert not died
    await compacting(memory).run_compaction(BY_HAND)
    assert await kept(memory) == every(10)


@HOOKED
@pytest.mark.parametrize("committed", [True, False])
@pytest.mark.parametrize("limit", [None, 4])
async def test_a_compaction_whose_outcome_is_unknown_is_there_once(
    memory: Memory, limit: int | None, committed: bool
) -> None:
    other = DaramSession(memory, "ann", "s")

    class Lossy(StoreWrapper):
        """Each kind of write loses its connection once, and somebody adds before it is back."""

        lost: set[str] = set()  # noqa: RUF012

        async def _lose(self, name: str, write: Callable[..., Awaitable[Any]], *args: Any, **kwargs: Any) -> Any:
            if name in self.lost:
                return await write(*args, **kwargs)
            self.lost = {*self.lost, name}
            if committed:
                await write(*args, **kwargs)
                if name in ("append", "load"):
                    await other.add_items(said(6))
            raise OutcomeUnknown("the connection was cut")

        async def append(self, *args: Any, **kwargs: Any) -> Any:
            return await self._lose("append", super().append, *args, **kwargs)

        async def load(self, *args: Any, **kwargs: Any) -> Any:
            return await self._lose("load", super().load, *args, **kwargs)

        async def delete_message(self, *args: Any, **kwargs: Any) -> Any:
            return await self._lose("delete", super().delete_message, *args, **kwargs)

        async def put_record(self, *args: Any, **kwargs: Any) -> Any:
            return await self._lose("put", super().put_record, *args, **kwargs)

    await other.add_items(said(*range(6)))
    inner = DaramSession(Lossy(memory), "ann", "s", session_settings=SessionSettings(limit=limit))
    session = OpenAIResponsesCompactionSession("s", inner, client=Compacting())  # type: ignore[arg-type]
    await session.run_compaction(BY_HAND)
    items: list[Any] = await other.get_items()
    assert sorted(texts(items)) == every(7 if committed else 6)
    assert [item.get("type") for item in items].count("compaction") == 1
    await session.run_compaction(BY_HAND)
    assert await kept(memory) == every(7 if committed else 6)


@HOOKED
async def test_one_process_compacts_and_is_killed_while_another_adds(url: str) -> None:
    async with await daram.open(url) as memory:
        session = DaramSession(memory, "ann", "s")
        await session.add_items(said(*range(10)))
        rounds = 10
        with subprocess.Popen([sys.executable, str(CHILD), url], env=environment(), stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            try:
                assert await asyncio.to_thread(_until, process.stdout, b"0\n")
                reading = asyncio.ensure_future(asyncio.to_thread(_until, process.stdout, b"40\n"))
                while not reading.done():
                    await session.add_items(said(rounds))
                    rounds += 1
                    await asyncio.sleep(0.03)
                assert await reading
            finally:
                process.kill()
        items: list[Any] = await session.get_items()
        found = texts(items)
        assert sorted(found) == every(rounds)
        assert len(items) < len(found)


def _until(pipe: IO[bytes], line: bytes) -> bool:
    return any(said == line for said in pipe)


@HOOKED
async def test_what_cannot_take_the_place_of_the_session_leaves_it_as_it_is(small: Memory) -> None:
    session = DaramSession(small, "ann", "s")
    await session.add_items(said(*range(6)))
    assert (await session._get_compaction_snapshot(4)).complete is False
    whole = await session._get_compaction_snapshot(100)
    for snapshot, start in ((await session._get_compaction_snapshot(4), 1), (whole, 12), (whole, -1)):
        assert not await snapshot.replace_suffix(start, said(*range(51)) if start == 1 else said(9))
    for bad in ([], said(*range(501))):
        assert not await whole.replace_suffix(0, bad)
        with pytest.raises(InvalidInput):
            await session._atomic_replace_items(bad)
    turn = await small.begin_turn("ann", "s", [daram.user("a page asks")])
    with pytest.raises(Conflict, match="answer"):
        await session._atomic_replace_items(said(9))
    assert turn.answer is not None
    await small.cancel_turn("ann", "s")
    assert (await session.get_items())[:12] == said(*range(6))

    class Mine(DaramSession):
        """Its items may be others outside than inside."""

    mine = Mine(small, "ann", "s")
    assert await mine._get_compaction_snapshot(4) is None
    assert not await mine._atomic_replace_items(said(9))
    assert await mine._read_compaction_items(2) == (await mine.get_items(2), False)
    small_one = DaramSession(small, "ann", "t")
    assert await small_one._atomic_replace_items(said(1))
    assert await small_one.get_items() == said(1)


async def test_settings_as_a_dict(small: Memory) -> None:
    session = DaramSession(small, "ann", "s", session_settings={"limit": 3})
    await session.add_items(said(1, 2))
    assert len(await session.get_items()) == 3
    assert session.session_settings == SessionSettings(limit=3)
    await Runner.run(Agent(name="a", model=Answering()), "on", session=session)
    with pytest.raises(TypeError):
        DaramSession(small, "ann", "s", session_settings={"limits": 3})
