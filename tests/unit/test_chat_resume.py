"""Coming back: to a running answer, to a finished one, after a restart, to an answer that another process makes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import pytest
from tests.unit.chat_script import OWNER, SAID, Gate, ScriptedModel, chatbot, check_events, collect, until

from daram import errors, user
from daram.chat import Chatbot, Event, MemoryEventLog, turn
from daram.model import Answer
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


async def resumed(bot: Chatbot, answer_id: str, after: int = 0, owner: str = OWNER, c: str = "c") -> list[Event]:
    return [event async for event in bot.resume(owner, c, answer_id, after=after)]


def later() -> float:
    return time.time() + 1000


async def test_from_every_number(bot: Chatbot, model: ScriptedModel) -> None:
    gate = Gate()
    model.script("one ", "two ", gate, "three ", "four")
    running = await bot.start(OWNER, "c", "hello")
    await gate.reached.wait()
    live = [asyncio.create_task(resumed(bot, running.answer_id, after)) for after in range(7)]
    await asyncio.sleep(0)
    gate.open()
    answer = await running.message()
    whole = await collect(running)
    assert [e.text for e in whole] == ["", "one ", "two ", "three ", "four", ""]
    check_events(whole, answer)
    for after, task in enumerate(live):
        assert await task == whole[after:]
        assert await resumed(bot, running.answer_id, after) == whole[after:]  # and again when all is over


async def test_where_many_answers_run_words_wait_for_one_another(
    bot: Chatbot, model: ScriptedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first word is told at once, the others together: the end does not let them wait any longer."""
    monkeypatch.setattr(turn, "_FEW", 0)
    monkeypatch.setattr(turn, "_EVENTS", 1e-3)
    gate = Gate()
    model.script("one ", gate, "two ", "three ", "four")
    running = await bot.start(OWNER, "c", "hello")
    await gate.reached.wait()
    events = running.events()
    assert [(await anext(events)).text, (await anext(events)).text] == ["", "one "]
    gate.open()
    rest = [event async for event in events]
    answer = await running.message()
    assert answer.text == "one two three four"
    assert [event.text for event in rest] == ["two three four", ""]
    whole = await collect(running)
    check_events(whole, answer)
    for after in range(len(whole)):  # the numbers are the log's, the same for every reader
        assert await resumed(bot, running.answer_id, after) == whole[after:]


async def test_words_that_waited_are_told_while_the_model_is_silent(
    bot: Chatbot, model: ScriptedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turn, "_FEW", 0)
    monkeypatch.setattr(turn, "_EVENTS", 50)
    gate = Gate()
    model.script("one ", "two ", gate, "three")
    running = await bot.start(OWNER, "c", "hello")
    told = ""
    async for event in running.events():
        told += event.text
        if told == "one two ":
            gate.open()  # not before: what follows was not said while these waited
    assert told == "one two three" == (await running.message()).text


async def test_after_a_restart_there_is_one_event_with_the_stored_answer(
    memory: MemoryStore, bot: Chatbot, model: ScriptedModel
) -> None:
    answer = await bot.ask(OWNER, "c", "hello")
    model.script("half ", errors.ModelTimeout("silent"))
    with pytest.raises(errors.ModelTimeout):
        await bot.ask(OWNER, "c", "again")
    failed = (await memory.tail(OWNER, "c"))[-1]
    async with chatbot(memory, model) as restarted:
        (event,) = await resumed(restarted, answer.id, after=41)
        assert event == Event(seq=42, type="completed", answer=answer.id, message=answer)
        (event,) = await resumed(restarted, failed.id)
        assert (event.seq, event.type, event.message, event.code) == (1, "failed", failed, "model_timeout")


async def test_what_another_process_makes_comes_when_it_is_stored(memory: MemoryStore, model: ScriptedModel) -> None:
    gate = Gate()
    model.script("one ", gate, "two")
    async with (
        chatbot(memory, model) as bot,
        MemoryStore(memory.data) as there,
        chatbot(there, ScriptedModel()) as other,
    ):
        running = await bot.start(OWNER, "c", "hello")
        waiting = asyncio.create_task(resumed(other, running.answer_id, after=3))
        await gate.reached.wait()
        await asyncio.sleep(0.01)
        gate.open()
        assert await waiting == [
            Event(seq=4, type="completed", answer=running.answer_id, message=await running.message())
        ]


async def test_an_answer_whose_maker_died_while_others_wait_is_closed(memory: MemoryStore) -> None:
    turn = await memory.begin_turn(OWNER, "c", [user("hello")], create=True, lease=500.0)
    assert turn.answer is not None
    await memory.checkpoint(OWNER, "c", turn.answer.id, turn.answer.token, "half an ", lease=500.0)
    async with chatbot(memory, ScriptedModel()) as bot:
        waiting = asyncio.create_task(resumed(bot, turn.answer.id))
        await asyncio.sleep(0.01)
        assert not waiting.done()
        memory._clock = later
        (event,) = await waiting
        assert event.message is not None
        assert (event.seq, event.type, event.message.text) == (1, "incomplete", "half an ")


async def test_what_is_not_there_or_not_yours_is_not_found(
    bot: Chatbot, memory: MemoryStore, model: ScriptedModel
) -> None:
    gate = Gate()
    model.script("one ", gate)
    running = await bot.start(OWNER, "c", "hello")
    await bot.ask("bob", "c", "hello")
    await gate.reached.wait()
    for _ in range(2):  # while it runs, and when it is in the log
        for owner, conversation, id in (
            ("bob", "c", running.answer_id),
            (OWNER, "d", running.answer_id),
            (OWNER, "c", running.question.id),
            (OWNER, "c", "msg_unknown"),
        ):
            with pytest.raises(errors.NotFound):
                await resumed(bot, id, owner=owner, c=conversation)
        gate.open()
        await running.message()
    await memory.delete_message(OWNER, "c", running.answer_id)
    with pytest.raises(errors.NotFound):  # gone is gone, though the log could still tell it
        await resumed(bot, running.answer_id)


@pytest.mark.parametrize("after", [-1, 1.5, "3", None])
async def test_after_is_a_number(bot: Chatbot, after: object) -> None:
    with pytest.raises(errors.InvalidInput):
        await anext(bot.resume(OWNER, "c", "x", after=after))  # type: ignore[arg-type]


async def test_a_reader_that_fails_for_a_while_is_borne_with(memory: MemoryStore, model: ScriptedModel) -> None:
    gate = Gate()
    model.script(gate, "one")

    class Stuttering(MemoryStore):
        failures = 3

        async def answers(self, *args: object) -> list[Answer]:  # type: ignore[override]
            if self.failures:
                self.failures -= 1
                raise errors.StoreBusy("held")
            return await super().answers(*args)  # type: ignore[arg-type]

    async with chatbot(memory, model) as bot, Stuttering(memory.data) as there, chatbot(there, model) as other:
        message = user("hello")
        running = await bot.start(OWNER, "c", message)
        joined = await other.start(OWNER, "c", message)
        waiting = asyncio.create_task(joined.message())
        await until(lambda: there.failures == 0)
        gate.open()
        assert await waiting == await running.message()


# --- recovery ---


async def abandoned(memory: MemoryStore, conversation: str, text: str) -> Answer:
    """An answer whose maker is gone, with that checkpoint."""
    turn = await memory.begin_turn(OWNER, conversation, [user("hello")], create=True, lease=0.001)
    assert turn.answer is not None
    await memory.checkpoint(OWNER, conversation, turn.answer.id, turn.answer.token, text, lease=0.001)
    return turn.answer


async def test_recover_closes_what_dead_processes_left(memory: MemoryStore, bot: Chatbot) -> None:
    left = {name: await abandoned(memory, name, f"half of {name}") for name in ("a", "b")}
    await asyncio.sleep(0.01)
    messages = await bot.recover()
    assert {(m.id, m.text, m.status) for m in messages} == {
        (answer.id, f"half of {name}", "incomplete") for name, answer in left.items()
    }
    assert await bot.recover() == []


async def test_recover_closes_any_number(memory: MemoryStore, bot: Chatbot) -> None:
    for number in range(230):
        await abandoned(memory, f"c{number}", "half")
    await asyncio.sleep(0.01)
    assert len(await bot.recover()) == 230


async def test_the_log_may_know_more_than_the_last_checkpoint(memory: MemoryStore) -> None:
    """A log that several processes share outlives the maker; it is ended once, by whoever recovers."""
    log = MemoryEventLog()
    answer = await abandoned(memory, "c", "half an ")
    await log.publish(answer.id, Event(seq=1, type="created", answer=answer.id, question=answer.question))
    await log.publish(answer.id, Event(seq=2, type="delta", answer=answer.id, text="half an answer"))
    await asyncio.sleep(0.01)
    async with (
        chatbot(memory, ScriptedModel(), events=log) as bot,
        chatbot(memory, ScriptedModel(), events=log) as other,
    ):
        following = asyncio.create_task(resumed(other, answer.id, after=1))
        await asyncio.sleep(0)
        await asyncio.gather(bot.recover(), other.recover(), bot.recover())
        events = await following
        assert [(e.seq, e.type) for e in events] == [(2, "delta"), (3, "incomplete")]
        assert events[-1].message is not None
        assert events[-1].message.text == "half an answer"
        assert await resumed(bot, answer.id, after=1) == events


async def test_a_log_whose_maker_died_between_store_and_log_is_ended(memory: MemoryStore) -> None:
    log = MemoryEventLog()
    turn = await memory.begin_turn(OWNER, "c", [user("hello")], create=True)
    answer = turn.answer
    assert answer is not None
    await log.publish(answer.id, Event(seq=1, type="created", answer=answer.id, question=answer.question))
    await log.publish(answer.id, Event(seq=2, type="delta", answer=answer.id, text="all"))
    async with (
        chatbot(memory, ScriptedModel(), events=log) as bot,
        chatbot(memory, ScriptedModel(), events=log) as other,
    ):
        early = asyncio.create_task(resumed(other, answer.id))
        await asyncio.sleep(0.01)
        await memory.finish_turn(OWNER, "c", answer.id, answer.token, text="all")
        message = await memory.message(OWNER, "c", answer.id)
        for events in (await resumed(bot, answer.id), await early):
            check_events(events, message)
            assert events[-1].type == "completed"


async def test_a_turn_that_closes_a_dead_answer_ends_its_log(memory: MemoryStore) -> None:
    log = MemoryEventLog()
    answer = await abandoned(memory, "c", "")
    await log.publish(answer.id, Event(seq=1, type="created", answer=answer.id, question=answer.question))
    await log.publish(answer.id, Event(seq=2, type="delta", answer=answer.id, text="said"))
    await asyncio.sleep(0.01)
    async with chatbot(memory, ScriptedModel(), events=log) as bot:
        await bot.ask(OWNER, "c", "next", wait=0)
        events = await resumed(bot, answer.id)
        assert (events[-1].type, len(events)) == ("incomplete", 3)
    assert [m.text for m in await memory.tail(OWNER, "c")] == ["hello", "said", "next", SAID]


async def test_a_process_that_takes_its_own_answer_for_dead_ends_it_once(
    memory: MemoryStore, model: ScriptedModel
) -> None:
    """It was paused past its lease; its sweep wakes before its answer does."""
    gate = Gate()
    model.script("one ", gate, "two")
    async with chatbot(memory, model, checkpoint_every=1000.0, lease=3000.0) as bot:
        running = await bot.start(OWNER, "c", "hello")
        await gate.reached.wait()
        await asyncio.sleep(0.001)
        memory._clock = lambda: time.time() + 10_000
        (message,) = await bot.recover()
        assert (message.text, message.status) == ("one ", "incomplete")
        events = await collect(running)
        check_events(events, message)
        assert (events[-1].type, events[-1].code) == ("incomplete", "lease_lost")
        assert await running.message() == message
        await until(lambda: model.streaming == 0)
    assert [m.text for m in await memory.tail(OWNER, "c")] == ["hello", "one "]


async def test_sweeps_go_on_through_failures_and_end_with_the_chatbot(memory: MemoryStore) -> None:
    class Stuttering(MemoryStore):
        calls = 0

        async def recover(self, **kwargs: object) -> list[object]:  # type: ignore[override]
            self.calls += 1
            if self.calls < 3:
                raise errors.StoreBusy("held") if self.calls == 1 else RuntimeError("a bug")
            return await super().recover(**kwargs)  # type: ignore[arg-type, return-value]

    store = Stuttering(MemoryData())
    bot = chatbot(store, ScriptedModel())
    answer = await abandoned(store, "c", "half")
    sweeping = asyncio.create_task(bot.sweep_forever(0.001))
    await until(lambda: _is_stored(store, answer.id))
    await bot.close()
    await sweeping


async def _is_stored(store: MemoryStore, id: str) -> bool:
    return not await store.answers(OWNER, "c") and (await store.message(OWNER, "c", id)).status == "incomplete"
