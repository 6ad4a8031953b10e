"""A turn from its beginning to its end, on the reference store, with a model that says what it is told to."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator

import pytest
from tests.unit.chat_script import OWNER, SAID, Gate, ScriptedModel, Usage, chatbot, check_events, collect, until

from daram import assistant, errors, user
from daram.chat import Chatbot
from daram.llm.base import Delta, Options
from daram.model import ROOT, Part
from daram.store.memory import MemoryData, MemoryStore


@pytest.fixture
async def memory() -> AsyncIterator[MemoryStore]:
    async with MemoryStore() as store:
        yield store


@pytest.fixture
def model() -> ScriptedModel:
    return ScriptedModel()


@pytest.fixture
async def bot(memory: MemoryStore, model: ScriptedModel) -> AsyncIterator[Chatbot]:
    async with chatbot(memory, model) as bot:
        yield bot


async def test_a_turn_is_stored_streamed_and_ended_once(
    bot: Chatbot, memory: MemoryStore, model: ScriptedModel
) -> None:
    gate = Gate()
    model.script("a squirrel ", "is ", gate, "a tuna", Usage(input_tokens=7, output_tokens=5))
    running = await bot.start(OWNER, "c", "what is a squirrel?")
    assert running.state == "started"
    # Durable before the model has said anything.
    assert [m.text for m in await memory.tail(OWNER, "c")] == ["what is a squirrel?"]
    assert running.question.seq == 1
    assert [a.id for a in await memory.answers(OWNER, "c")] == [running.answer_id]
    gate.open()
    events = await collect(running)
    answer = await running.message()
    assert (answer.text, answer.status, answer.model, answer.tokens) == (SAID, "complete", "scripted-2", 5)
    assert answer.usage == {"input_tokens": 7, "output_tokens": 5}
    assert answer.parent == running.question.id
    check_events(events, answer)
    assert (events[0].type, events[0].question) == ("created", running.question.id)
    assert await memory.tail(OWNER, "c") == [running.question, answer]
    assert await memory.answers(OWNER, "c") == []


async def test_the_model_is_given_the_conversation(bot: Chatbot, model: ScriptedModel) -> None:
    await bot.ask(OWNER, "c", "one")
    await bot.ask(OWNER, "c", "two")
    assert [m.role for m in model.calls[1]] == ["system", "user", "assistant", "user"]
    assert [m.text for m in model.calls[1][1:]] == ["one", SAID, "two"]


async def test_what_left_the_window_comes_back_as_a_note(memory: MemoryStore, model: ScriptedModel) -> None:
    async with chatbot(memory, model, window=4) as bot:
        await bot.ask(OWNER, "c", "From now on my squirrel is called Nutkin.")
        for number in range(4):
            await bot.ask(OWNER, "c", f"Tell me about mountain number {number}.")
        await bot.ask(OWNER, "c", "What is my squirrel called?")
    asked = model.calls[-1]
    assert len(asked) == 5  # system, three of the past, the question
    assert "Nutkin" in asked[-1].text
    assert asked[-1].text.endswith("What is my squirrel called?")


async def test_an_edited_statement_is_not_noted_in_its_old_wording(memory: MemoryStore, model: ScriptedModel) -> None:
    async with chatbot(memory, model, window=2) as bot:
        await bot.ask(OWNER, "c", "My squirrel is called Nutkin.")
        await bot.ask(OWNER, "c", "My squirrel is called Hazel.", parent=ROOT)
        for number in range(3):
            await bot.ask(OWNER, "c", f"Tell me about mountain number {number}.")
        await bot.ask(OWNER, "c", "What is my squirrel called?")
    assert "Hazel" in model.calls[-1][-1].text
    assert "Nutkin" not in model.calls[-1][-1].text


async def test_no_other_read_on_the_way_to_the_model(memory: MemoryStore, model: ScriptedModel) -> None:
    calls: list[str] = []

    class Counting(MemoryStore):
        def __getattribute__(self, name: str) -> object:
            if name in ("begin_turn", "finish_turn", "tail", "messages", "message", "get", "search", "answers"):
                calls.append(name)
            return super().__getattribute__(name)

    async with Counting(memory.data) as store, chatbot(store, model, checkpoint_every=2.0, window=4) as bot:
        await bot.ask(OWNER, "c", "one")
        assert calls == ["begin_turn", "finish_turn"]
        await bot.ask(OWNER, "c", "two")
        calls.clear()
        await bot.ask(OWNER, "c", "three")
        assert calls == ["begin_turn", "search", "finish_turn"]


async def test_a_message_that_cannot_fit_is_refused_before_it_is_stored(memory: MemoryStore) -> None:
    async with chatbot(memory, ScriptedModel(context_tokens=400)) as bot:
        with pytest.raises(errors.MessageTooLong) as caught:
            await bot.start(OWNER, "c", "word " * 2000)
    assert caught.value.tokens > caught.value.budget > 0
    with pytest.raises(errors.NotFound):
        await memory.get(OWNER, "c")


def test_what_is_no_model_is_refused_at_once(memory: MemoryStore) -> None:
    model = type("Half", (), {"name": "half", "stream": None, "close": None})()
    with pytest.raises(
        errors.InvalidInput, match="model.*it has no context_tokens, prefers_notes, count_tokens, ready"
    ):
        chatbot(memory, model)


@pytest.mark.parametrize(
    ("message", "error"),
    [
        ("", errors.InvalidInput),
        (b"bytes", errors.InvalidInput),
        (None, errors.InvalidInput),
        ("NUL \x00", errors.InvalidInput),
        ("lone \ud800", errors.InvalidInput),
        (assistant("an answer"), errors.InvalidInput),
        (user("x", id=""), errors.InvalidInput),
        (user(7), errors.InvalidInput),  # type: ignore[arg-type]
        ("x" * (1 << 21), errors.TooLarge),
    ],
)
async def test_bad_input_is_answered_not_stored(
    bot: Chatbot, memory: MemoryStore, message: object, error: type[Exception]
) -> None:
    with pytest.raises(error):
        await bot.start(OWNER, "c", message)  # type: ignore[arg-type]  # that is the test
    with pytest.raises(errors.NotFound):
        await memory.get(OWNER, "c")


@pytest.mark.parametrize(
    ("owner", "conversation", "parent", "wait", "field"),
    [
        ("", "c", None, 0, "owner"),
        (["a"], "c", None, 0, "owner"),
        (OWNER, None, None, 0, "conversation"),
        (OWNER, "c\n", None, 0, "conversation"),
        (OWNER, "c", {}, 0, "message_id"),
        (OWNER, "c", None, -1, "wait"),
        (OWNER, "c", None, "soon", "wait"),
    ],
)
async def test_bad_names_are_named(
    bot: Chatbot, owner: object, conversation: object, parent: object, wait: object, field: str
) -> None:
    with pytest.raises(errors.InvalidInput) as caught:
        await bot.start(owner, conversation, "x", parent=parent, wait=wait)  # type: ignore[arg-type]
    assert caught.value.field == field


@pytest.mark.parametrize(
    "settings",
    [{"window": 0}, {"lease": 0}, {"checkpoint_every": -1}, {"wait": -1}, {"lease": 1.0, "checkpoint_every": 1.0}],
)
async def test_bad_settings_are_named(memory: MemoryStore, settings: dict[str, float]) -> None:
    with pytest.raises(errors.InvalidInput) as caught:
        chatbot(memory, ScriptedModel(), **settings)
    assert caught.value.field in settings


async def test_without_create_the_conversation_must_be_there(bot: Chatbot) -> None:
    with pytest.raises(errors.NotFound):
        await bot.start(OWNER, "c", "hello", create=False)


# --- the client leaves ---


async def test_leaving_the_events_does_not_stop_the_answer(bot: Chatbot, model: ScriptedModel) -> None:
    gate = Gate()
    model.script("one ", gate, "two")
    running = await bot.start(OWNER, "c", "hello")
    events = running.events()
    assert (await anext(events)).type == "created"
    assert (await anext(events)).text == "one "
    await events.aclose()
    gate.open()
    assert (await running.message()).text == "one two"
    # It comes back with the number that it saw last.
    rest = [event async for event in bot.resume(OWNER, "c", running.answer_id, after=2)]
    assert [event.seq for event in rest] == [3, 4]
    assert rest[0].text == "two"


async def test_cancelling_ask_does_not_stop_the_answer(bot: Chatbot, memory: MemoryStore, model: ScriptedModel) -> None:
    gate = Gate()
    model.script("one ", gate, "two")
    asking = asyncio.create_task(bot.ask(OWNER, "c", "hello"))
    await gate.reached.wait()
    asking.cancel()
    await asyncio.wait([asking])
    gate.open()
    await until(lambda: _has(memory, 2))
    assert [m.text for m in await memory.tail(OWNER, "c")] == ["hello", "one two"]


async def test_a_client_that_leaves_while_the_turn_begins_leaves_no_row_behind(model: ScriptedModel) -> None:
    gate = Gate()

    class Slow(MemoryStore):
        async def begin_turn(self, *args: object, **kwargs: object) -> object:  # type: ignore[override]
            turn = await super().begin_turn(*args, **kwargs)  # type: ignore[arg-type]
            await gate._pass()
            return turn

    async with Slow() as memory, chatbot(memory, model) as bot:
        starting = asyncio.create_task(bot.start(OWNER, "c", "hello"))
        await gate.reached.wait()
        starting.cancel()
        await asyncio.wait([starting])
        gate.open()
        await until(lambda: _has(memory, 2))
        assert [m.text for m in await memory.tail(OWNER, "c")] == ["hello", SAID]


async def _has(memory: MemoryStore, count: int) -> bool:
    return len(await memory.tail(OWNER, "c")) == count


# --- the same turn again ---


async def test_the_same_message_joins_its_running_answer(bot: Chatbot, model: ScriptedModel) -> None:
    gate = Gate()
    model.script("one ", gate, "two")
    message = user("hello")
    first = await bot.start(OWNER, "c", message)
    second = await bot.start(OWNER, "c", message)
    assert (second.state, second.answer_id) == ("running", first.answer_id)
    gate.open()
    assert await collect(first) == await collect(second)
    assert await first.message() == await second.message()
    third = await bot.start(OWNER, "c", message)
    assert (third.state, third.answer_id) == ("finished", first.answer_id)
    assert await third.message() == await first.message()
    assert await collect(third) == await collect(first)
    assert len(model.calls) == 1


async def test_a_joined_turn_does_not_wait_behind_others(bot: Chatbot, model: ScriptedModel) -> None:
    gate = Gate()
    model.script(gate, "one")
    message = user("hello")
    first = await bot.start(OWNER, "c", message)
    waiting = asyncio.create_task(bot.start(OWNER, "c", "next"))
    await asyncio.sleep(0.01)
    second = await bot.start(OWNER, "c", message, wait=0)
    assert second.answer_id == first.answer_id
    gate.open()
    await (await waiting).message()


async def test_an_answer_that_another_process_makes_is_joined(model: ScriptedModel) -> None:
    data, gate = MemoryData(), Gate()
    model.script("one ", gate, "two")
    message = user("hello")
    async with (
        MemoryStore(data) as here,
        MemoryStore(data) as there,
        chatbot(here, model) as bot,
        chatbot(there, ScriptedModel()) as other,
    ):
        first = await bot.start(OWNER, "c", message)
        second = await other.start(OWNER, "c", message)
        assert (second.state, second.answer_id) == ("running", first.answer_id)
        waiting = asyncio.create_task(collect(second))
        gate.open()
        (event,) = await waiting
        assert (event.seq, event.type, event.message) == (1, "completed", await first.message())
        assert await second.message() == await first.message()
        third = await other.start(OWNER, "c", message)
        assert third.state == "finished"
        assert [e.message for e in await collect(third, after=9)] == [await first.message()]


async def test_the_same_id_with_other_content_is_refused(bot: Chatbot) -> None:
    await bot.ask(OWNER, "c", user("hello", id="m1"))
    with pytest.raises(errors.Conflict):
        await bot.start(OWNER, "c", user("goodbye", id="m1"))


async def test_a_failed_answer_is_made_anew_as_a_sibling(
    bot: Chatbot, memory: MemoryStore, model: ScriptedModel
) -> None:
    model.script(errors.ModelUnavailable("down"))
    message = user("hello")
    with pytest.raises(errors.ModelUnavailable):
        await bot.ask(OWNER, "c", message)
    answer = await bot.ask(OWNER, "c", message)
    assert answer.text == SAID
    assert [m.text for m in await memory.tail(OWNER, "c")] == ["hello", SAID]
    assert [m.status for m in await memory.branches(OWNER, "c", answer.id)] == ["failed", "complete"]


# --- anew, and edits ---


async def test_regenerate_makes_a_sibling_of_the_last_answer(
    bot: Chatbot, memory: MemoryStore, model: ScriptedModel
) -> None:
    await bot.ask(OWNER, "c", "one")
    first = await bot.ask(OWNER, "c", "two")
    model.script("otherwise")
    running = await bot.regenerate(OWNER, "c")
    assert running.question.text == "two"
    again = await running.message()
    assert (again.text, again.parent) == ("otherwise", first.parent)
    assert [m.text for m in model.calls[-1]][1:] == ["one", SAID, "two"]
    assert [m.text for m in await memory.tail(OWNER, "c")] == ["one", SAID, "two", "otherwise"]
    assert [m.id for m in await memory.branches(OWNER, "c", first.id)] == [first.id, again.id]


async def test_regenerate_an_earlier_question(bot: Chatbot, memory: MemoryStore, model: ScriptedModel) -> None:
    running = await bot.start(OWNER, "c", "one")
    first = await running.message()
    await bot.ask(OWNER, "c", "two")
    model.script("otherwise")
    again = await (await bot.regenerate(OWNER, "c", running.question.id)).message()
    assert [m.text for m in model.calls[-1]][1:] == ["one"]
    assert again.parent == running.question.id
    assert [m.id for m in await memory.branches(OWNER, "c", first.id)] == [first.id, again.id]


async def test_regenerate_what_is_not_there(bot: Chatbot, memory: MemoryStore) -> None:
    with pytest.raises(errors.NotFound):
        await bot.regenerate(OWNER, "c")
    answer = await bot.ask(OWNER, "c", "one")
    with pytest.raises(errors.NotFound):
        await bot.regenerate(OWNER, "c", "msg_unknown")
    with pytest.raises(errors.NotFound):
        await bot.regenerate("bob", "c")
    with pytest.raises(errors.InvalidInput):
        await bot.regenerate(OWNER, "c", answer.id)
    await memory.create(OWNER, id="empty")
    with pytest.raises(errors.NotFound):
        await bot.regenerate(OWNER, "empty")


async def test_an_edit_opens_a_branch_and_does_not_wait_for_the_other(
    bot: Chatbot, memory: MemoryStore, model: ScriptedModel
) -> None:
    first = await bot.ask(OWNER, "c", "one")
    gate = Gate()
    model.script(gate, "late")
    slow = await bot.start(OWNER, "c", "two")
    edited = await bot.ask(OWNER, "c", "two, better", parent=first.id, wait=0)
    assert [m.text for m in model.calls[-1]][1:] == ["one", SAID, "two, better"]
    gate.open()
    late = await slow.message()
    assert late.parent == slow.question.id
    assert (await memory.tail(OWNER, "c"))[-1].id == edited.id  # the edit stays in use


async def test_the_first_message_can_be_edited(bot: Chatbot, memory: MemoryStore) -> None:
    await bot.ask(OWNER, "c", "one")
    await bot.ask(OWNER, "c", "one, better", parent=ROOT)
    assert [m.text for m in await memory.tail(OWNER, "c")] == ["one, better", SAID]


# --- what the model says ---


async def test_parts_are_kept_on_the_answer(bot: Chatbot, memory: MemoryStore, model: ScriptedModel) -> None:
    call = Part(type="tool_call", id="t1", data={"call_id": "t1", "name": "look", "arguments": '{"at": "tree\ud800"}'})
    model.script("let me look", call)
    model.finish = "tool_calls"
    answer = await bot.ask(OWNER, "c", "what is there?")
    assert answer.status == "complete"
    assert answer.parts[0].data == {"call_id": "t1", "name": "look", "arguments": '{"at": "tree\ufffd"}'}
    assert (await memory.tail(OWNER, "c"))[-1] == answer


@pytest.mark.parametrize(
    ("finish", "status", "metadata"),
    [
        ("stop", "complete", {}),
        ("length", "incomplete", {"finish": "length"}),
        ("content_filter", "incomplete", {"finish": "content_filter"}),
        (None, "incomplete", {}),
    ],
)
async def test_how_an_answer_ends(
    bot: Chatbot, model: ScriptedModel, finish: str | None, status: str, metadata: dict[str, str]
) -> None:
    model.finish = finish  # type: ignore[assignment]
    running = await bot.start(OWNER, "c", "hello")
    answer = await running.message()
    assert (answer.text, answer.status, answer.metadata) == (SAID, status, metadata)
    check_events(await collect(running), answer)


async def test_whatever_a_model_says_can_be_stored(bot: Chatbot, model: ScriptedModel) -> None:
    model.script("NUL \x00 half \ud83d", "\ude00 whole, lone \udc00 ", "end \ud83d")
    running = await bot.start(OWNER, "c", "hello")
    answer = await running.message()
    assert answer.text == "NUL \ufffd half \U0001f600 whole, lone \ufffd end \ufffd"
    check_events(await collect(running), answer)


async def test_an_endless_answer_is_cut_at_the_limit(memory: MemoryStore) -> None:
    class Endless(ScriptedModel):
        async def stream(self, messages: object, options: Options = Options()) -> AsyncIterator[Delta]:
            self.streaming += 1
            try:
                while True:
                    yield Delta(text="다람쥐" * 10_000)
            finally:
                self.streaming -= 1

    model = Endless()
    async with chatbot(memory, model) as bot:
        running = await bot.start(OWNER, "c", "go on")
        answer = await running.message()
        check_events(await collect(running), answer)
        await until(lambda: model.streaming == 0)
    assert (answer.status, answer.metadata) == ("incomplete", {"finish": "length"})
    size = len(answer.text.encode())
    assert memory.limits.message_bytes - 8192 < size <= memory.limits.message_bytes


async def test_parts_without_end_are_cut_at_the_limit(bot: Chatbot, model: ScriptedModel) -> None:
    big = Part(type="tool_call", data={"call_id": "x", "name": "y", "arguments": "z" * 600_000})
    model.script("calling", big, big)
    answer = await bot.ask(OWNER, "c", "hello")
    assert (answer.status, len(answer.parts), answer.metadata) == ("incomplete", 1, {"finish": "length"})


# --- loops ---


async def test_another_loop_is_refused_while_the_first_lives(bot: Chatbot) -> None:
    await bot.ask(OWNER, "c", "hello")
    with pytest.raises(errors.WrongLoop):
        await asyncio.to_thread(lambda: asyncio.run(bot.ask(OWNER, "c", "hello")))


async def test_a_fork_begins_anew(bot: Chatbot, model: ScriptedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate()
    model.script("one ", gate)
    running = await bot.start(OWNER, "c", "hello")
    await gate.reached.wait()
    parent = os.getpid()
    monkeypatch.setattr("os.getpid", lambda: parent + 1)  # as the child sees it: the same objects, another process
    with pytest.raises(errors.ConversationBusy):
        await bot.start(OWNER, "c", "from the child", wait=0)
    assert (await bot.ask(OWNER, "d", "from the child")).text == SAID
    await bot.close()
    monkeypatch.undo()
    gate.open()
    assert (await running.message()).text == "one "


def test_one_loop_after_the_other() -> None:
    memory, model = MemoryStore(), ScriptedModel()
    bot = chatbot(memory, model)
    for word in ("one", "two"):
        assert asyncio.run(bot.ask(OWNER, "c", word)).text == SAID
    asyncio.run(bot.close())
    assert len(model.calls[1]) == 4
