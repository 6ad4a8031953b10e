"""What fails under a turn: the model at each stage, the store at each stage, the lease, the context."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from functools import partial

import pytest
from tests.unit.chat_script import OWNER, SAID, Gate, ScriptedModel, chatbot, check_events, collect, until

from daram import errors, user
from daram.chat import Chatbot, Event, MemoryEventLog
from daram.llm.base import Delta, Options
from daram.store.memory import MemoryStore
from daram.testing.faulty import Fault, FaultyStore


@pytest.fixture
async def memory() -> AsyncIterator[MemoryStore]:
    async with MemoryStore() as store:
        yield store


@pytest.fixture
def model() -> ScriptedModel:
    return ScriptedModel()


def fails(*errors: Exception) -> list[Fault]:
    """Calls that do nothing and raise these."""
    return [Fault(kind="raise", error=partial(_same, error)) for error in errors]


def done_but(error: Exception) -> Fault:
    """A call that is done, whose caller gets this."""
    return Fault(kind="act then raise", error=partial(_same, error))


def _same(error: Exception) -> Exception:
    return error


# --- the model ---

_FAILURES = [
    errors.ModelUnavailable("no model is set up"),
    errors.ModelRefused("401"),
    errors.ModelRateLimited("429", 3.0),
    errors.ModelTimeout("silent for 60 s"),
    errors.ModelBroken("cut"),
]


@pytest.mark.parametrize("error", _FAILURES, ids=lambda e: e.code)
@pytest.mark.parametrize("said", ["", "half an answer"])
async def test_a_model_that_fails(
    memory: MemoryStore, model: ScriptedModel, error: errors.ModelError, said: str
) -> None:
    model.script(said, error)
    async with chatbot(memory, model) as bot:
        running = await bot.start(OWNER, "c", "hello")
        events = await collect(running)
        with pytest.raises(type(error), match=str(error)):
            await running.message()
        # What it said is kept, marked as what it is.
        question, answer = await memory.tail(OWNER, "c")
        assert (question.text, answer.text, answer.status) == ("hello", said, "failed")
        assert answer.metadata == {"error": error.code}
        check_events(events, answer)
        assert (events[-1].type, events[-1].error, events[-1].code) == ("failed", str(error), error.code)
        # The turn can be had again, and the message is not stored twice.
        assert (await bot.ask(OWNER, "c", user("hello", id=question.id))).text == SAID
        assert [m.text for m in await memory.tail(OWNER, "c")] == ["hello", SAID]
        assert [m.text for m in model.calls[-1]][1:] == ["hello"]  # and the failed answer is not shown to the model


async def test_a_bug_in_the_plug_in_is_an_error_of_the_model(memory: MemoryStore, model: ScriptedModel) -> None:
    model.script("half", KeyError("choices"))
    async with chatbot(memory, model) as bot:
        running = await bot.start(OWNER, "c", "hello")
        with pytest.raises(errors.ModelError, match="KeyError"):
            await running.message()
        assert (await collect(running))[-1].code == "model"
    assert (await memory.tail(OWNER, "c"))[-1].text == "half"


async def test_a_plug_in_that_yields_rubbish(memory: MemoryStore) -> None:
    class Rubbish(ScriptedModel):
        async def stream(self, messages: object, options: Options = Options()) -> AsyncIterator[Delta]:
            yield "not a delta"  # type: ignore[misc]

    async with chatbot(memory, Rubbish()) as bot:
        with pytest.raises(errors.ModelError, match="AttributeError"):
            await bot.ask(OWNER, "c", "hello")


async def test_a_stream_that_ends_before_it_began(memory: MemoryStore, model: ScriptedModel) -> None:
    model.finish = None
    model.script()
    async with chatbot(memory, model) as bot:
        with pytest.raises(errors.ModelBroken, match="before it had said anything"):
            await bot.ask(OWNER, "c", "hello")


async def test_an_error_behind_the_end_does_not_spoil_the_answer(memory: MemoryStore, model: ScriptedModel) -> None:
    model.finish = None
    model.script("whole", Delta(finish="stop"), errors.ModelBroken("cut"))

    class Sloppy(ScriptedModel):
        async def stream(self, messages: object, options: Options = Options()) -> AsyncIterator[Delta]:
            try:
                yield Delta(text="whole")
                yield Delta(finish="stop")
            finally:
                raise errors.ModelBroken("the connection could not be closed")

    async with chatbot(memory, Sloppy()) as bot:
        answer = await bot.ask(OWNER, "c", "hello")
    assert (answer.text, answer.status) == ("whole", "complete")


async def test_a_model_that_does_not_let_go_is_left_behind(
    memory: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("daram.chat.generation._GRACE", 0.01)
    gate = Gate()

    class Clinging(ScriptedModel):
        async def stream(self, messages: object, options: Options = Options()) -> AsyncIterator[Delta]:
            try:
                yield Delta(text="word")
                await asyncio.Event().wait()
            finally:
                await gate._pass()

    async with chatbot(memory, Clinging()) as bot:
        running = await bot.start(OWNER, "c", "hello")
        await until(lambda: _told(bot, running.answer_id, "word"))
        assert await bot.cancel(OWNER, "c") == 1
        assert (await running.message()).status == "cancelled"
        await gate.reached.wait()
    gate.open()
    await asyncio.sleep(0)


async def _told(bot: Chatbot, answer_id: str, text: str) -> bool:
    assert bot._home is not None
    known = await bot._home.events.text(answer_id)
    return known is not None and known[0] == text


# --- the context ---


async def test_a_context_that_is_too_long_is_halved_once(memory: MemoryStore, model: ScriptedModel) -> None:
    async with chatbot(memory, model) as bot:
        for word in ("one", "two", "three"):
            await bot.ask(OWNER, "c", word)
        model.script(errors.ContextOverflow("8192 tokens at most"))
        assert (await bot.ask(OWNER, "c", "four")).text == SAID
        long, short = model.calls[-2:]
        assert len(short) < len(long)
        assert short[-1].text == "four"


async def test_a_context_that_stays_too_long_fails(memory: MemoryStore, model: ScriptedModel) -> None:
    model.script(SAID)
    model.script(errors.ContextOverflow("too long"))
    model.script(errors.ContextOverflow("still too long"))
    async with chatbot(memory, model) as bot:
        await bot.ask(OWNER, "c", "one")
        with pytest.raises(errors.ContextOverflow, match="still too long"):
            await bot.ask(OWNER, "c", "two")
        assert len(model.calls) == 3
        assert (await memory.tail(OWNER, "c"))[-1].metadata == {"error": "context_overflow"}


async def test_an_overflow_with_nothing_to_leave_out_fails_at_once(memory: MemoryStore, model: ScriptedModel) -> None:
    model.script(errors.ContextOverflow("too long"))
    async with chatbot(memory, model) as bot:
        with pytest.raises(errors.ContextOverflow):
            await bot.ask(OWNER, "c", "one")
    assert len(model.calls) == 1


# --- the store ---


@pytest.mark.parametrize(
    "error",
    [errors.StoreBusy("held"), errors.StoreFull("disk"), errors.StoreReadOnly("ro"), errors.StoreUnavailable("gone")],
    ids=lambda e: e.code,
)
async def test_a_turn_that_cannot_be_stored_is_not_begun(
    memory: MemoryStore, model: ScriptedModel, error: errors.StoreError
) -> None:
    store = FaultyStore(memory)
    store.plan("begin_turn", *fails(error))
    message = user("hello")
    async with chatbot(store, model) as bot:
        with pytest.raises(type(error)):
            await bot.start(OWNER, "c", message)
        assert model.calls == []
        assert (await bot.ask(OWNER, "c", message)).text == SAID


async def test_a_turn_whose_begin_is_unknown_is_asked_again(memory: MemoryStore, model: ScriptedModel) -> None:
    store = FaultyStore(memory)
    store.plan("begin_turn", *fails(errors.OutcomeUnknown("lost before")))
    store.plan("begin_turn", done_but(errors.OutcomeUnknown("lost behind")))
    async with chatbot(store, model) as bot:
        assert (await bot.ask(OWNER, "c", "hello")).text == SAID
        again = FaultyStore(memory)
        again.plan("begin_turn", done_but(errors.OutcomeUnknown("lost behind")))
    async with chatbot(again, model) as bot:
        assert (await (await bot.regenerate(OWNER, "c")).message()).text == SAID
    assert [m.text for m in await memory.tail(OWNER, "c")] == ["hello", SAID]


async def test_a_begin_that_stays_unknown_is_an_error(memory: MemoryStore, model: ScriptedModel) -> None:
    store = FaultyStore(memory)
    store.plan("begin_turn", *fails(*[errors.OutcomeUnknown("lost")] * 5))
    async with chatbot(store, model) as bot:
        with pytest.raises(errors.OutcomeUnknown):
            await bot.start(OWNER, "c", "hello")


async def test_a_checkpoint_that_fails_does_not_stop_the_answer(memory: MemoryStore, model: ScriptedModel) -> None:
    store, gate = FaultyStore(memory), Gate()
    store.plan("checkpoint", *fails(errors.StoreBusy("held"), errors.StoreFull("disk"), RuntimeError("a bug")))
    model.script("one ", gate, "two")
    async with chatbot(store, model) as bot:
        running = await bot.start(OWNER, "c", "hello")
        await until(lambda: not store.pending)
        await until(lambda: _checkpointed(memory, "one "))
        gate.open()
        assert (await running.message()).text == "one two"


async def _checkpointed(memory: MemoryStore, text: str) -> bool:
    return [answer.text for answer in await memory.answers(OWNER, "c")] == [text]


async def test_a_finish_is_tried_again_while_the_lease_lasts(memory: MemoryStore, model: ScriptedModel) -> None:
    store = FaultyStore(memory)
    store.plan("finish_turn", *fails(errors.StoreBusy("held"), errors.StoreFull("disk")))
    store.plan("finish_turn", done_but(errors.OutcomeUnknown("lost behind")))
    async with chatbot(store, model) as bot:
        running = await bot.start(OWNER, "c", "hello")
        answer = await running.message()
        check_events(await collect(running), answer)
    assert [m.text for m in await memory.tail(OWNER, "c")] == ["hello", SAID]
    assert store.calls.count("finish_turn") == 4


@pytest.mark.parametrize(
    ("error", "lease"),
    [(errors.StoreReadOnly("ro"), 5.0), (errors.StoreFull("disk"), 0.05), (RuntimeError("a bug"), 5.0)],
    ids=["for ever", "until the lease ends", "bug"],
)
async def test_a_finish_that_cannot_be_stored_is_told_and_recovered_later(
    memory: MemoryStore, model: ScriptedModel, error: Exception, lease: float
) -> None:
    store, gate = FaultyStore(memory), Gate()
    store.always("finish_turn", *fails(error))
    model.script("one ", gate, "two")
    async with chatbot(store, model, lease=lease) as bot:
        running = await bot.start(OWNER, "c", "hello")
        await until(lambda: _checkpointed(memory, "one "))
        gate.open()
        with pytest.raises((errors.StoreError, errors.DaramError)):
            await running.message()
        events = await collect(running)
        assert (events[-1].type, events[-1].message) == ("failed", None)
        assert "".join(e.text for e in events) == "one two"
        # Later: the store is well again and the lease has ended. The log knows more than the last checkpoint.
        store.heal()
        memory._clock = lambda: _later()
        (message,) = await bot.recover()
        assert (message.text, message.status) == ("one two", "incomplete")
        assert await collect(running) == events  # one terminal event, not two


def _later() -> float:
    import time

    return time.time() + 1000


async def test_a_store_that_hangs_holds_an_answer_no_longer_than_its_lease(
    memory: MemoryStore, model: ScriptedModel
) -> None:
    store = FaultyStore(memory)
    store.always("finish_turn", Fault(kind="hang"))
    store.always("checkpoint", Fault(kind="hang"))
    async with chatbot(store, model, lease=0.05) as bot:
        running = await bot.start(OWNER, "c", "hello")
        with pytest.raises(errors.OutcomeUnknown):
            await running.message()
        events = await collect(running)
        assert (events[-1].type, events[-1].code) == ("failed", "outcome_unknown")


async def test_a_store_that_hangs_does_not_keep_the_chatbot_from_closing(
    memory: MemoryStore, model: ScriptedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("daram.chat.turn._LAST_WRITE", 0.01)
    monkeypatch.setattr("daram.chat.turn._LAST_WAIT", 0.01)
    store, gate = FaultyStore(memory), Gate()
    store.plan("begin_turn", None)
    store.always("begin_turn", Fault(kind="hang"))
    store.always("finish_turn", Fault(kind="hang"))
    model.script("one ", gate)
    bot = chatbot(store, model, lease=1000.0)
    first = await bot.start(OWNER, "c", "hello")
    await gate.reached.wait()
    beginning = asyncio.create_task(bot.start(OWNER, "d", "hello"))
    await asyncio.sleep(0.01)
    await bot.close(drain=0.01)
    with pytest.raises(errors.ChatbotClosed):
        await beginning
    with pytest.raises(errors.OutcomeUnknown):
        await first.message()
    assert [task for task in asyncio.all_tasks() if task is not asyncio.current_task()] == []


async def test_an_answer_that_the_store_refuses_is_kept_as_far_as_it_went(
    memory: MemoryStore, model: ScriptedModel
) -> None:
    store, gate = FaultyStore(memory), Gate()
    store.plan("finish_turn", *fails(errors.InvalidInput("answer", "this store takes short answers only")))
    model.script("one ", gate, "two")
    async with chatbot(store, model) as bot:
        running = await bot.start(OWNER, "c", "hello")
        await until(lambda: _checkpointed(memory, "one "))
        gate.open()
        await running.events().aclose()
        answer = (await collect(running))[-1].message
    assert answer is not None
    assert (answer.text, answer.status, answer.metadata) == ("one ", "failed", {"error": "invalid_input"})


async def test_a_search_that_fails_costs_the_notes_only(memory: MemoryStore, model: ScriptedModel) -> None:
    store = FaultyStore(memory)
    store.plan("search", *fails(errors.StoreBusy("held")))
    async with chatbot(store, model, window=1) as bot:
        assert (await bot.ask(OWNER, "c", "hello")).text == SAID
    assert store.calls.count("search") == 1


# --- the lease ---


async def test_an_answer_that_was_taken_over_writes_nothing(memory: MemoryStore, model: ScriptedModel) -> None:
    """Another process finds the lease run out and closes the answer; its maker then lives on."""
    gate = Gate()
    model.script("one ", gate, "two")
    async with chatbot(memory, model) as bot:
        running = await bot.start(OWNER, "c", "hello")
        await until(lambda: _checkpointed(memory, "one "))
        async with MemoryStore(memory.data, clock=_later) as other:
            (message,) = await other.recover()
        gate.open()
        events = await collect(running)
        assert message.text == "one "
        assert (events[-1].type, events[-1].message, events[-1].code) == ("incomplete", message, "lease_lost")
        assert [e.seq for e in events] == list(range(1, len(events) + 1))
        assert await running.message() == message
    assert (await memory.tail(OWNER, "c"))[-1] == message


async def test_a_deleted_conversation_ends_its_answer(memory: MemoryStore, model: ScriptedModel) -> None:
    model.script("one ", Gate())
    async with chatbot(memory, model) as bot:
        running = await bot.start(OWNER, "c", "hello")
        await memory.delete(OWNER, "c")
        events = await collect(running)
        assert (events[-1].type, events[-1].message) == ("incomplete", None)
        with pytest.raises(errors.LeaseLost):
            await running.message()
        await until(lambda: model.streaming == 0)
        with pytest.raises(errors.NotFound):
            await memory.get(OWNER, "c")
        with pytest.raises(errors.NotFound):
            await anext(bot.resume(OWNER, "c", running.answer_id))


async def test_a_lease_lost_at_the_finish(memory: MemoryStore, model: ScriptedModel) -> None:
    store = FaultyStore(memory)
    store.plan("finish_turn", *fails(errors.LeaseLost("x")))
    store.plan("message", *fails(errors.StoreBusy("held")))
    async with chatbot(store, model) as bot:
        running = await bot.start(OWNER, "c", "hello")
        events = await collect(running)
        assert (events[-1].type, events[-1].message) == ("incomplete", None)
        with pytest.raises(errors.LeaseLost):
            await running.message()


# --- the event log ---


async def test_a_log_that_fails_does_not_stop_the_answer(memory: MemoryStore, model: ScriptedModel) -> None:
    class Broken(MemoryEventLog):
        async def publish(self, answer_id: str, event: Event) -> None:
            raise errors.StoreUnavailable("the log's server is down")

    async with chatbot(memory, model, events=Broken()) as bot:
        running = await bot.start(OWNER, "c", "hello")
        answer = await running.message()
        assert answer.text == SAID
        (event,) = await collect(running)  # the stored answer, since the log has nothing
        assert (event.type, event.message) == ("completed", answer)


async def test_when_log_and_store_fail_the_client_is_told(memory: MemoryStore, model: ScriptedModel) -> None:
    class Broken(MemoryEventLog):
        async def publish(self, answer_id: str, event: Event) -> None:
            raise errors.StoreUnavailable("the log's server is down")

    store = FaultyStore(memory)
    store.always("finish_turn", *fails(errors.StoreReadOnly("ro")))
    async with chatbot(store, model, events=Broken()) as bot:
        running = await bot.start(OWNER, "c", "hello")
        (event,) = await collect(running)
        assert (event.seq, event.type, event.code, event.message) == (1, "failed", "store_read_only", None)


async def test_what_was_not_told_is_told_with_the_next_event(memory: MemoryStore, model: ScriptedModel) -> None:
    class Flaky(MemoryEventLog):
        failures = 1

        async def publish(self, answer_id: str, event: Event) -> None:
            if event.type == "delta" and self.failures:
                self.failures -= 1
                raise errors.StoreBusy("the log's server is slow")
            await super().publish(answer_id, event)

    gate = Gate()
    model.script("one ", gate, "two")
    async with chatbot(memory, model, events=Flaky()) as bot:
        running = await bot.start(OWNER, "c", "hello")
        await gate.reached.wait()
        await asyncio.sleep(0.01)
        gate.open()
        check_events(await collect(running), await running.message())
