"""Stopping: by the user at each stage, from this process or another; by closing the chatbot; by the loop's end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from tests.unit.chat_script import OWNER, SAID, Gate, ScriptedModel, chatbot, check_events, collect, until

from daram import errors
from daram.chat import Chatbot
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
    # No checkpoint comes within the test: what stops the answer is the call itself.
    async with chatbot(memory, model, checkpoint_every=1000.0, lease=3000.0) as bot:
        yield bot


@pytest.mark.parametrize("said", [[], ["one "], ["one ", "two "]], ids=["nothing", "a word", "two words"])
@pytest.mark.parametrize("by_id", [True, False])
async def test_stop_keeps_what_was_said(
    bot: Chatbot, memory: MemoryStore, model: ScriptedModel, said: list[str], by_id: bool
) -> None:
    gate = Gate()
    model.script(*said, gate, "never said")
    running = await bot.start(OWNER, "c", "hello")
    await gate.reached.wait()
    assert await bot.cancel(OWNER, "c", running.answer_id if by_id else None) == 1
    answer = await running.message()
    assert (answer.text, answer.status, answer.metadata) == ("".join(said), "cancelled", {})
    check_events(await collect(running), answer)
    assert model.streaming == 0  # the model was told to stop, not left alone
    assert (await memory.tail(OWNER, "c"))[-1] == answer
    assert await bot.cancel(OWNER, "c") == 0


async def test_stop_before_the_model_is_asked(bot: Chatbot, memory: MemoryStore, model: ScriptedModel) -> None:
    running = await bot.start(OWNER, "c", "hello")
    await bot.cancel(OWNER, "c")
    assert (await running.message()).status == "cancelled"
    assert (await bot.ask(OWNER, "c", "again")).text == SAID


async def test_the_next_turn_can_follow_at_once(bot: Chatbot, model: ScriptedModel) -> None:
    model.script("one ", Gate())
    running = await bot.start(OWNER, "c", "hello")
    next_turn = asyncio.create_task(bot.ask(OWNER, "c", "next"))
    await until(lambda: model.streaming == 1)
    await bot.cancel(OWNER, "c")
    assert (await next_turn).text == SAID
    assert (await running.message()).status == "cancelled"


async def test_stop_from_another_process(model: ScriptedModel) -> None:
    data, gate = MemoryData(), Gate()
    model.script("one ", gate, "never said")
    async with (
        MemoryStore(data) as here,
        MemoryStore(data) as there,
        chatbot(here, model) as bot,
        chatbot(there, ScriptedModel()) as other,
    ):
        running = await bot.start(OWNER, "c", "hello")
        await gate.reached.wait()
        assert await other.cancel(OWNER, "c", running.answer_id) == 1
        answer = await running.message()
        assert (answer.text, answer.status) == ("one ", "cancelled")
        assert await other.cancel(OWNER, "c", running.answer_id) == 0


async def test_nobody_stops_what_is_not_theirs(bot: Chatbot, model: ScriptedModel) -> None:
    gate = Gate()
    model.script("one ", gate, "two")
    running = await bot.start(OWNER, "c", "hello")
    await gate.reached.wait()
    for owner, conversation in (("bob", "c"), (OWNER, "d")):
        with pytest.raises(errors.NotFound):
            await bot.cancel(owner, conversation, running.answer_id)
    assert await bot.cancel(OWNER, "c", "msg_unknown") == 0
    gate.open()
    assert (await running.message()).status == "complete"


async def test_stop_behind_the_end_changes_nothing(memory: MemoryStore, model: ScriptedModel) -> None:
    class SlowToFinish(MemoryStore):
        async def finish_turn(self, *args: object, **kwargs: object) -> object:  # type: ignore[override]
            await gate._pass()
            return await super().finish_turn(*args, **kwargs)  # type: ignore[arg-type]

    gate = Gate()
    async with SlowToFinish(memory.data) as store, chatbot(store, model) as bot:
        running = await bot.start(OWNER, "c", "hello")
        await gate.reached.wait()
        await bot.cancel(OWNER, "c", running.answer_id)
        gate.open()
        assert (await running.message()).status == "complete"


# --- closing ---


async def test_closing_waits_for_running_answers(memory: MemoryStore, model: ScriptedModel) -> None:
    gate = Gate()
    model.script("one ", gate, "two")
    bot = chatbot(memory, model)
    running = await bot.start(OWNER, "c", "hello")
    closing = asyncio.create_task(bot.close(drain=1000.0))
    await asyncio.sleep(0.01)
    with pytest.raises(errors.ChatbotClosed):
        await bot.start(OWNER, "c", "too late")
    assert not closing.done()
    gate.open()
    await closing
    assert (await running.message()).status == "complete"
    await bot.close()


async def test_closing_keeps_the_others_as_incomplete(memory: MemoryStore, model: ScriptedModel) -> None:
    model.script("one ", Gate())
    model.script(Gate())
    bot = chatbot(memory, model)
    first = await bot.start(OWNER, "c", "hello")
    second = await bot.start(OWNER, "d", "hello")
    followed = asyncio.create_task(collect(first))
    await until(lambda: model.streaming == 2)
    await bot.close(drain=0.01)
    assert model.streaming == 0
    check_events(await followed, await first.message())
    assert ((await first.message()).text, (await first.message()).status) == ("one ", "incomplete")
    assert ((await second.message()).text, (await second.message()).status) == ("", "incomplete")
    assert (await memory.tail(OWNER, "c"))[-1] == await first.message()
    assert [task for task in asyncio.all_tasks() if task is not asyncio.current_task()] == []


async def test_closing_sends_away_who_waits(memory: MemoryStore, model: ScriptedModel) -> None:
    model.script("one ", Gate())
    bot = chatbot(memory, model)
    await bot.start(OWNER, "c", "hello")
    waiting = [asyncio.create_task(bot.start(OWNER, "c", word)) for word in ("next", "and next")]
    await asyncio.sleep(0.01)
    await bot.close(drain=0.01)
    for result in await asyncio.gather(*waiting, return_exceptions=True):
        assert isinstance(result, errors.ChatbotClosed)
    assert [m.text for m in await memory.tail(OWNER, "c")] == ["hello", "one "]


async def test_closed_means_closed(memory: MemoryStore, model: ScriptedModel) -> None:
    bot = chatbot(memory, model)
    await bot.close()
    for call in (
        bot.start(OWNER, "c", "x"),
        bot.ask(OWNER, "c", "x"),
        bot.regenerate(OWNER, "c"),
        bot.cancel(OWNER, "c"),
        bot.recover(),
        anext(bot.resume(OWNER, "c", "a")),
    ):
        with pytest.raises(errors.ChatbotClosed):
            await call


def test_the_end_of_the_loop_stores_what_there_is(recwarn: pytest.WarningsRecorder) -> None:
    """Ctrl-C without a close: asyncio cancels all tasks, the answers among them."""
    memory, model = MemoryStore(), ScriptedModel(["one ", Gate()])
    bot = chatbot(memory, model)

    async def leave() -> str:
        running = await bot.start(OWNER, "c", "hello")
        await until(lambda: model.streaming == 1)
        await asyncio.sleep(0.01)
        return running.answer_id

    answer_id = asyncio.run(leave())
    answer = asyncio.run(memory.message(OWNER, "c", answer_id))
    assert (answer.text, answer.status) == ("one ", "incomplete")
    assert [str(w.message) for w in recwarn] == []
