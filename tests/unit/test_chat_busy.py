"""One running answer per branch: who waits, in which order, and for how long."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator

import pytest
from tests.unit.chat_script import OWNER, SAID, Gate, ScriptedModel, chatbot, collect, until

from daram import errors, user
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
    async with chatbot(memory, model) as bot:
        yield bot


async def test_turns_go_in_the_order_in_which_they_came(
    bot: Chatbot, memory: MemoryStore, model: ScriptedModel
) -> None:
    gate = Gate()
    model.script(gate, "first")
    await bot.start(OWNER, "c", "0")
    turns = []
    for number in range(1, 8):
        turns.append(asyncio.create_task(bot.ask(OWNER, "c", str(number))))
        await asyncio.sleep(0)
    await gate.reached.wait()
    gate.open()
    await asyncio.gather(*turns)
    said = [m.text for m in await memory.tail(OWNER, "c") if m.role == "user"]
    assert said == [str(number) for number in range(8)]
    assert model.most_streaming == 1


async def test_a_message_that_takes_long_to_measure_keeps_its_place(memory: MemoryStore) -> None:
    second_is_measured = threading.Event()

    class Measuring(ScriptedModel):
        def count_tokens(self, text: str) -> int | None:
            if text == "first":
                second_is_measured.wait(10)
            elif text == "second":
                second_is_measured.set()
            return len(text)

    async with chatbot(memory, Measuring()) as bot:
        first = asyncio.create_task(bot.ask(OWNER, "c", "first"))
        await asyncio.sleep(0)
        await asyncio.gather(first, bot.ask(OWNER, "c", "second"))
    assert [m.text for m in await memory.tail(OWNER, "c")] == ["first", SAID, "second", SAID]


async def test_a_waiter_holds_no_model_and_no_place_in_other_conversations(bot: Chatbot, model: ScriptedModel) -> None:
    gate = Gate()
    model.script(gate, "first")
    first = await bot.start(OWNER, "c", "one")
    waiting = asyncio.create_task(bot.ask(OWNER, "c", "two"))
    await gate.reached.wait()
    assert (await bot.ask(OWNER, "d", "elsewhere", wait=0)).text == SAID
    assert (await bot.ask("bob", "c", "another's", wait=0)).text == SAID
    assert model.streaming == 1
    gate.open()
    await first.message()
    assert (await waiting).text == SAID


@pytest.mark.parametrize("wait", [0, 0.03])
async def test_who_waited_long_enough_is_told_whom_for(
    bot: Chatbot, memory: MemoryStore, model: ScriptedModel, wait: float
) -> None:
    model.script(Gate())
    running = await bot.start(OWNER, "c", "one")
    for _ in range(2):
        with pytest.raises(errors.ConversationBusy) as caught:
            await bot.start(OWNER, "c", "two", wait=wait)
        assert caught.value.answer_id == running.answer_id
        assert caught.value.retry_after > 0
    assert [m.text for m in await memory.tail(OWNER, "c")] == ["one"]  # nothing of it was stored
    await bot.cancel(OWNER, "c")


async def test_who_waits_in_the_queue_is_bounded_too(bot: Chatbot, memory: MemoryStore, model: ScriptedModel) -> None:
    model.script(Gate())
    running = await bot.start(OWNER, "c", "one")
    long = asyncio.create_task(bot.ask(OWNER, "c", "two", wait=1000))
    await asyncio.sleep(0.01)
    with pytest.raises(errors.ConversationBusy) as caught:
        await bot.start(OWNER, "c", "three", wait=0.01)
    assert caught.value.answer_id == running.answer_id
    with pytest.raises(errors.ConversationBusy):
        await bot.start(OWNER, "c", "three", wait=0)
    await bot.cancel(OWNER, "c")
    await long
    assert [m.text for m in await memory.tail(OWNER, "c")] == ["one", "", "two", SAID]


async def test_who_stops_waiting_leaves_nothing_behind(bot: Chatbot, memory: MemoryStore, model: ScriptedModel) -> None:
    gate = Gate()
    model.script(gate, "first")
    first = await bot.start(OWNER, "c", "one")
    leaving = [asyncio.create_task(bot.ask(OWNER, "c", word)) for word in ("two", "three")]
    staying = asyncio.create_task(bot.ask(OWNER, "c", "four"))
    await asyncio.sleep(0.01)
    for task in leaving:
        task.cancel()
    await asyncio.wait(leaving)
    gate.open()
    await first.message()
    await staying
    assert [m.text for m in await memory.tail(OWNER, "c")] == ["one", "first", "four", SAID]


async def test_regenerate_waits_its_turn(bot: Chatbot, memory: MemoryStore, model: ScriptedModel) -> None:
    gate = Gate()
    model.script(gate, "first")
    running = await bot.start(OWNER, "c", "one")
    with pytest.raises(errors.ConversationBusy):
        await bot.regenerate(OWNER, "c", wait=0)
    anew = asyncio.create_task(bot.regenerate(OWNER, "c"))
    await gate.reached.wait()
    gate.open()
    again = await (await anew).message()
    assert again.parent == running.question.id
    assert len(await memory.branches(OWNER, "c", again.id)) == 2


async def test_processes_wait_for_each_other(model: ScriptedModel) -> None:
    data, gate = MemoryData(), Gate()
    model.script(gate, "first")
    async with (
        MemoryStore(data) as here,
        MemoryStore(data) as there,
        chatbot(here, model) as bot,
        chatbot(there, ScriptedModel()) as other,
    ):
        running = await bot.start(OWNER, "c", "one")
        with pytest.raises(errors.ConversationBusy) as caught:
            await other.start(OWNER, "c", "two", wait=0)
        assert caught.value.answer_id == running.answer_id
        waiting = asyncio.create_task(other.ask(OWNER, "c", "two"))
        await gate.reached.wait()
        await asyncio.sleep(0.01)
        with pytest.raises(errors.ConversationBusy, match="waiting|being made") as caught:
            await other.start(OWNER, "c", "three", wait=0)
        assert caught.value.answer_id in ("", running.answer_id)  # it stands behind the second, and knows no answer
        gate.open()
        assert (await waiting).text == SAID
        assert [m.text for m in await here.tail(OWNER, "c")] == ["one", "first", "two", SAID]


async def test_a_turn_that_meets_a_dead_answer_closes_it(model: ScriptedModel) -> None:
    """Its maker never came back; the lease has run out."""
    data = MemoryData()
    async with MemoryStore(data, clock=lambda: 1000.0) as dead:
        turn = await dead.begin_turn(OWNER, "c", [user("one")], create=True, lease=5.0)
        assert turn.answer is not None
        await dead.checkpoint(OWNER, "c", turn.answer.id, turn.answer.token, "half an ", lease=5.0)
    async with MemoryStore(data) as memory, chatbot(memory, model) as bot:
        await bot.ask(OWNER, "c", "two", wait=0)
        tail = await memory.tail(OWNER, "c")
        assert [m.text for m in tail] == ["one", "half an ", "two", SAID]
        assert [m.status for m in tail] == ["complete", "incomplete", "complete", "complete"]
        assert [m.text for m in model.calls[-1]][1:] == ["one", "half an ", "two"]


async def test_many_turns_at_once_lose_nothing(bot: Chatbot, memory: MemoryStore, model: ScriptedModel) -> None:
    await asyncio.gather(
        *(bot.ask(OWNER, conversation, f"{conversation}{number}") for conversation in "abc" for number in range(20))
    )
    for conversation in "abc":
        messages = (await memory.messages(OWNER, conversation)).items
        assert [m.role for m in messages] == ["user", "assistant"] * 20
        assert {m.text for m in messages if m.role == "user"} == {f"{conversation}{n}" for n in range(20)}
    assert bot._home is not None
    assert bot._home.turns._lanes._lanes == {}  # nothing is kept of who is gone


async def test_the_events_of_the_one_before_are_not_disturbed(bot: Chatbot, model: ScriptedModel) -> None:
    gate = Gate()
    model.script("one ", gate, "two")
    first = await bot.start(OWNER, "c", "hello")
    following = asyncio.create_task(collect(first))
    waiting = asyncio.create_task(bot.ask(OWNER, "c", "next"))
    await until(lambda: gate.reached.is_set())
    gate.open()
    assert (await following)[-1].message == await first.message()
    await waiting
