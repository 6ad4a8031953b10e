"""Titles: after the first answered turn, by the model or without it, never in the way, never over the user's own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from tests.unit.chat_script import OWNER, Gate, ScriptedModel, chatbot, until

from daram import errors, user
from daram.chat import Chatbot
from daram.chat.title import MAX_CHARS, clean_title, plain_title
from daram.llm.base import Delta
from daram.store.memory import MemoryStore


@pytest.fixture
async def memory() -> AsyncIterator[MemoryStore]:
    async with MemoryStore() as store:
        yield store


@pytest.fixture
def model() -> ScriptedModel:
    return ScriptedModel()


@pytest.fixture
async def bot(memory: MemoryStore, model: ScriptedModel) -> AsyncIterator[Chatbot]:
    async with chatbot(memory, model, titles=True) as bot:
        yield bot


async def title(memory: MemoryStore, conversation: str = "c") -> str | None:
    return (await memory.get(OWNER, conversation)).title


async def titled(memory: MemoryStore, conversation: str = "c") -> bool:
    return await title(memory, conversation) is not None


async def settled(bot: Chatbot) -> None:
    assert bot._home is not None
    assert bot._home.titler is not None
    await bot._home.titler.settle(1000.0)


async def test_the_first_turn_gives_the_title_and_no_other_one_does(memory: MemoryStore, model: ScriptedModel) -> None:
    told: list[tuple[str, str, str]] = []

    async def on_title(owner: str, conversation: str, title: str) -> None:
        told.append((owner, conversation, title))

    model.titles = [['Title: "Squirrels and fish".']]
    async with chatbot(memory, model, titles=True, on_title=on_title) as bot:
        for word in ("what is a squirrel?", "and a fish?", "thanks"):
            await bot.ask(OWNER, "c", word)
            await settled(bot)
    assert await title(memory) == "Squirrels and fish"
    assert told == [(OWNER, "c", "Squirrels and fish")]
    (asked,) = model.title_calls
    assert asked[-1].text == "Message: what is a squirrel?\nTitle:"


async def test_a_title_does_not_hold_up_the_answer_or_the_next_turn(
    bot: Chatbot, memory: MemoryStore, model: ScriptedModel
) -> None:
    gate = Gate()
    model.titles = [[gate], ["Squirrels"]]
    await bot.ask(OWNER, "c", "one")
    await gate.reached.wait()
    running = await bot.start(OWNER, "c", "two", wait=0)
    await running.message()
    assert model.most_streaming == 1  # the title made way for the turn
    await settled(bot)
    assert await title(memory) == "Squirrels"
    assert [call[-1].text for call in model.title_calls] == ["Message: one\nTitle:"] * 2


async def test_a_title_makes_way_only_so_often(bot: Chatbot, memory: MemoryStore, model: ScriptedModel) -> None:
    gates = [Gate(), Gate(), Gate()]
    model.titles = [[gate] for gate in gates]
    await bot.ask(OWNER, "c", "one two three")
    for gate in gates:
        await gate.reached.wait()
        await bot.ask(OWNER, "c", "and on")
    await settled(bot)
    assert await title(memory) == "one two three"


async def test_the_title_that_the_user_gave_stays(bot: Chatbot, memory: MemoryStore, model: ScriptedModel) -> None:
    gate = Gate()
    model.titles = [[gate, "The model's"]]
    await bot.ask(OWNER, "c", "one")
    await gate.reached.wait()
    await memory.update(OWNER, "c", title="The user's")
    gate.open()
    await settled(bot)
    assert await title(memory) == "The user's"


async def test_a_conversation_that_has_a_title_costs_no_call(
    bot: Chatbot, memory: MemoryStore, model: ScriptedModel
) -> None:
    await memory.create(OWNER, id="c", title="The user's")
    await bot.ask(OWNER, "c", "one")
    await settled(bot)
    assert model.title_calls == []


@pytest.mark.parametrize(
    "said",
    [
        [errors.ModelUnavailable("down")],
        ["half", errors.ModelBroken("cut")],
        [KeyError("a bug")],
        [""],
        ["..."],
        ["word " * 40],
        ["다람쥐 이야기"],
    ],
    ids=["down", "cut", "bug", "empty", "dots", "rambling", "another language"],
)
async def test_without_a_usable_answer_the_message_is_the_title(
    bot: Chatbot, memory: MemoryStore, model: ScriptedModel, said: list[str]
) -> None:
    model.titles = [said]
    await bot.ask(OWNER, "c", "  What is\na squirrel?  ")
    await settled(bot)
    assert await title(memory) == "What is a squirrel?"
    assert model.streaming == 0


async def test_a_model_that_never_ends_a_title_is_stopped(
    bot: Chatbot, memory: MemoryStore, model: ScriptedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("daram.chat.title._TIMEOUT", 0.02)
    model.titles = [[Gate()]]
    await bot.ask(OWNER, "c", "What is a squirrel?")
    await settled(bot)
    assert await title(memory) == "What is a squirrel?"
    assert model.streaming == 0


async def test_the_first_line_is_enough(bot: Chatbot, memory: MemoryStore, model: ScriptedModel) -> None:
    model.titles = [[Delta(text="\n\n# Squirrels\n"), Gate()]]  # what comes behind is not waited for
    await bot.ask(OWNER, "c", "What is a squirrel?")
    await settled(bot)
    assert await title(memory) == "Squirrels"


async def test_a_turn_that_failed_has_no_title_until_one_is_answered(
    bot: Chatbot, memory: MemoryStore, model: ScriptedModel
) -> None:
    model.script(errors.ModelUnavailable("down"))
    with pytest.raises(errors.ModelUnavailable):
        await bot.ask(OWNER, "c", "one")
    await settled(bot)
    assert await title(memory) is None
    await bot.ask(OWNER, "c", "two")
    await settled(bot)
    assert await title(memory) == "A title"


async def test_a_stopped_answer_has_a_title_too(bot: Chatbot, memory: MemoryStore, model: ScriptedModel) -> None:
    gate = Gate()
    model.script("one ", gate)
    await bot.start(OWNER, "c", "hello")
    await gate.reached.wait()
    await bot.cancel(OWNER, "c")
    await until(lambda: titled(memory))
    assert await title(memory) == "A title"


async def test_a_deleted_conversation_stays_deleted(bot: Chatbot, memory: MemoryStore, model: ScriptedModel) -> None:
    gate = Gate()
    model.titles = [[gate, "A title"]]
    await bot.ask(OWNER, "c", "one")
    await gate.reached.wait()
    await memory.delete(OWNER, "c")
    gate.open()
    await settled(bot)
    with pytest.raises(errors.NotFound):
        await memory.get(OWNER, "c")


async def test_a_listener_that_fails_is_no_harm(memory: MemoryStore, model: ScriptedModel) -> None:
    async def on_title(owner: str, conversation: str, title: str) -> None:
        raise RuntimeError("the page is gone")

    async with chatbot(memory, model, titles=True, on_title=on_title) as bot:
        await bot.ask(OWNER, "c", "one")
        await settled(bot)
        assert await title(memory) == "A title"


async def test_closing_gives_up_titles_and_the_next_sweep_finds_them(memory: MemoryStore, model: ScriptedModel) -> None:
    model.titles = [[Gate()]]
    async with chatbot(memory, model, titles=True) as bot:
        await bot.ask(OWNER, "c", "one")
        await until(lambda: len(model.title_calls) == 1)
        await bot.close(drain=0.01)
    assert await title(memory) is None
    assert model.streaming == 0
    # What a door wrote by itself is not named, nor is what nobody answered.
    await memory.append(OWNER, "imported", [user("x")], create=True)
    async with chatbot(memory, model, titles=True) as bot:
        await bot.ask(OWNER, "other", "hello")
        await bot.recover()
        await settled(bot)
        await settled(bot)
    assert await title(memory) == "A title"
    assert await title(memory, "imported") is None


async def test_a_recovered_answer_brings_the_title_of_its_conversation(
    memory: MemoryStore, model: ScriptedModel
) -> None:
    turn = await memory.begin_turn(OWNER, "c", [user("hello there")], create=True, model="scripted", lease=0.001)
    assert turn.answer is not None
    await asyncio.sleep(0.01)
    async with chatbot(memory, model, titles=True) as bot:
        await bot.recover()
        await until(lambda: titled(memory))
    assert await title(memory) == "A title"


async def test_while_the_model_is_not_ready_no_title_is_looked_for(memory: MemoryStore, model: ScriptedModel) -> None:
    class Loading(ScriptedModel):
        async def ready(self) -> str | None:
            return "loading"

    async with chatbot(memory, model) as bot:
        await bot.ask(OWNER, "c", "one")
    loading = Loading()
    async with chatbot(memory, loading, titles=True) as bot:
        bot._remember(OWNER)
        await bot.recover()
        await settled(bot)
    assert loading.title_calls == []
    assert await title(memory) is None


async def test_a_korean_message_is_asked_for_in_korean(bot: Chatbot, memory: MemoryStore, model: ScriptedModel) -> None:
    model.titles = [["다람쥐의 새 이름"]]
    await bot.ask(OWNER, "c", "앞으로 다람쥐를\n다랑어라고 부를게.")
    await settled(bot)
    assert model.title_calls[0][-1].text == "메시지: 앞으로 다람쥐를 다랑어라고 부를게.\n제목:"
    assert await title(memory) == "다람쥐의 새 이름"


# --- cleaning ---


@pytest.mark.parametrize(
    ("said", "wanted"),
    [
        ("Squirrels", "Squirrels"),
        ('"Squirrels and fish."', "Squirrels and fish"),
        ("Title: Squirrels", "Squirrels"),
        ("**Title:** Squirrels", "Squirrels"),
        ('The title is: "Squirrels"', "Squirrels"),
        ("# Squirrels\nand more", "Squirrels"),
        ("- *Squirrels*", "Squirrels"),
        ("Learning C#.", "Learning C#"),
        ("## About .NET and C#", "About .NET and C#"),
        ('"Squirrels".', "Squirrels"),
        ("1. Squirrels", "Squirrels"),
        ("[Squirrels](https://example.org)", "Squirrels"),
        ("<|im_start|>Squirrels<|im_end|>\nmore", "Squirrels"),
        ("Squir\x00rels\u202e", "Squir rels"),
        ("\u201cWhat's new in C++?\u201d", "What's new in C++?"),
        ("   ", None),
        ("?!", None),
        ("x" * (MAX_CHARS + 1), None),
        ("다람쥐", None),
        ("リスの話", None),
    ],
)
def test_what_a_model_says_becomes_a_title(said: str, wanted: str | None) -> None:
    assert clean_title(said, "What is a squirrel?") == wanted


@pytest.mark.parametrize(
    ("said", "wanted"),
    [
        ("제목: 「다람쥐 이야기」", "다람쥐 이야기"),
        ("다람쥐 이야기입니다.", "다람쥐 이야기입니다"),
        ("Python 리스트 정렬", "Python 리스트 정렬"),
        ("About squirrels", None),
    ],
)
def test_a_korean_message_has_a_korean_title(said: str, wanted: str | None) -> None:
    assert clean_title(said, "다람쥐가 무엇인지 알려 줘") == wanted


def test_a_message_of_both_languages_may_have_a_title_of_either() -> None:
    question = "Translate 다람쥐 into English, please"
    assert clean_title("Translating 다람쥐", question) == "Translating 다람쥐"
    assert clean_title("A translation", question) == "A translation"


@pytest.mark.parametrize(
    ("message", "wanted"),
    [
        ("Hello", "Hello"),
        ("  two\n lines\x00 ", "two lines"),
        ("", None),
        ("?!", None),
        ("word " * 40, ("word " * 15).rstrip() + "…"),
        ("다" * 200, "다" * (MAX_CHARS - 1) + "…"),
        ("lone \ud800", "lone"),
    ],
)
def test_a_message_as_a_title(message: str, wanted: str | None) -> None:
    title = plain_title(message)
    assert title == wanted
    assert title is None or len(title) <= MAX_CHARS
