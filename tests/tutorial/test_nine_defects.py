"""The nine defects of the second tutorial: each story is told of its design, where it fails, and of Daram, where it
holds.

``xfail`` is strict: should a story hold of the tutorial's design, it does not show the defect, and the test fails.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from tests.tutorial.design import OFFICIAL, Clock
from tests.tutorial.houses import Daram, House, Missing, Tutorial, opened
from tests.unit.chat_script import Gate, ScriptedModel

from daram.chat.grounding import NOT_SAID
from daram.errors import DaramError, ModelUnavailable

ANN = "ann"
LESSON = "Squirrels hide acorns under oak trees and find them again by smell."


def told_of(*failing: type[Exception]) -> Callable[[Any], Any]:
    """The story of both houses; in the tutorial's it fails by one of these."""
    wrong = pytest.mark.xfail(raises=failing or AssertionError, strict=True, reason="the tutorial's design")
    return pytest.mark.parametrize(
        "house", [pytest.param(Tutorial, marks=wrong, id="tutorial"), pytest.param(Daram, id="daram")], indirect=True
    )


@pytest.fixture
def model() -> ScriptedModel:
    model = ScriptedModel()
    model.prefers_notes = True  # questions are searched for as they were asked
    return model


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def house(
    request: pytest.FixtureRequest, model: ScriptedModel, clock: Clock, tmp_path: Path, in_process: None
) -> AsyncIterator[House]:
    async with opened(request.param, model, clock, tmp_path) as house:
        await house.put_reference(1, "Squirrels", LESSON)
        yield house


def prompt(model: ScriptedModel) -> str:
    """What the model was asked last."""
    return "\n".join(message.text for message in model.calls[-1])


@told_of()
async def test_1_a_chat_that_was_silent_for_601_seconds_goes_on(house: House, model: ScriptedModel, clock: Clock):
    chat = await house.begin(ANN, "call the squirrel tuna")
    clock.now += 601.0
    await house.say(ANN, chat, "what is it called?")
    assert "call the squirrel tuna" in prompt(model)
    assert len(await house.history(ANN, chat)) == 4


@told_of()
async def test_2_a_new_chat_never_continues_another(house: House, model: ScriptedModel):
    first = await house.begin(ANN, "call the squirrel tuna")
    second = await house.begin(ANN, "what is it called?")
    assert second != first
    assert "call the squirrel tuna" not in prompt(model)
    assert len(await house.history(ANN, second)) == 2


@told_of(AssertionError, pytest.fail.Exception)
async def test_3_a_deleted_chat_is_gone_at_once_and_no_turn_brings_it_back(house: House):
    chat = await house.begin(ANN, "call the squirrel tuna")
    await house.say(ANN, chat, "and on")
    await house.delete(ANN, chat)
    with pytest.raises(Missing):
        await house.history(ANN, chat)
    with pytest.raises(Missing):
        await house.say(ANN, chat, "what is it called?")
    with pytest.raises(Missing):
        await house.history(ANN, chat)


@told_of()
async def test_4a_two_turns_at_once_are_both_kept(house: House, model: ScriptedModel):
    chat = await house.begin(ANN, "hello")
    gate = Gate()
    model.script(gate, "answer A")
    model.script("answer B")
    one = asyncio.create_task(house.say(ANN, chat, "turn A"))
    await gate.reached.wait()
    two = asyncio.create_task(house.say(ANN, chat, "turn B"))
    if not house.queues:
        await two
    gate.open()
    await asyncio.gather(one, two)
    said = await house.history(ANN, chat)
    assert said[2:] == ["turn A", "answer A", "turn B", "answer B"]


@told_of()
async def test_4b_what_a_turn_writes_does_not_grow_with_the_chat(house: House):
    chat = await house.begin(ANN, "hello")

    async def cost(turns: int) -> float:
        before = house.written()
        for number in range(turns):
            await house.say(ANN, chat, f"message {number:04} of a chat that goes on and on")
        return (house.written() - before) / turns

    await cost(40)  # until the window is full
    early = await cost(10)
    await cost(150)
    assert await cost(10) < early * 1.2


class Bomb:
    """What runs when it is unpickled."""

    went_off = False

    def __reduce__(self) -> tuple[Callable[[], None], tuple[()]]:
        return go_off, ()


def go_off() -> None:
    """What somebody who can write to the cache has run."""
    Bomb.went_off = True


@told_of()
async def test_5_nothing_in_the_cache_is_ever_run(house: House, model: ScriptedModel):
    Bomb.went_off = False
    chat = await house.begin(ANN, "call the squirrel tuna")
    await house.say(ANN, chat, "and on")
    house.plant(Bomb())
    await house.say(ANN, chat, "what is it called?")
    assert not Bomb.went_off
    assert "call the squirrel tuna" in prompt(model)


@told_of()
async def test_6_a_chat_is_given_its_title_once(house: House, model: ScriptedModel):
    chat = await house.begin(ANN, "call the squirrel tuna")
    for text in ("what is it called?", "and the otter?"):
        await house.say(ANN, chat, text)
    await house.finish()
    assert len(model.title_calls) == 1
    assert "otter" not in str(model.title_calls)


@told_of(UnboundLocalError)
async def test_7a_a_new_chat_about_documents_is_answered_and_says_what_they_do_not(house: House, model: ScriptedModel):
    await house.put_documents(7, LESSON)
    chat = await house.begin(ANN, "Where do squirrels hide acorns?", OFFICIAL, 7)
    assert LESSON in prompt(model)
    assert await house.say(ANN, chat, "What is the capital of Mongolia?") == NOT_SAID["en"]


@told_of(pytest.fail.Exception)
@pytest.mark.parametrize(("category", "title_no"), [("LESSONS", 99), ("NONSENSE", 1)])
async def test_7b_a_title_that_is_not_there_is_named_and_not_answered_from_nothing(
    house: House, model: ScriptedModel, category: str, title_no: int
):
    with pytest.raises(Missing) as error:
        await house.begin(ANN, "What does it say?", category, title_no)
    assert (str(title_no) if category == "LESSONS" else category) in str(error.value)
    assert model.calls == []


@told_of()
async def test_8_what_the_user_said_is_kept_though_the_model_fails(house: House, model: ScriptedModel):
    chat = await house.begin(ANN, "hello")
    model.script(ModelUnavailable("the model is down"))
    with pytest.raises(DaramError):
        await house.say(ANN, chat, "call the squirrel tuna")
    assert "call the squirrel tuna" in await house.history(ANN, chat)
    await house.say(ANN, chat, "what is it called?")
    assert "call the squirrel tuna" in prompt(model)


@told_of()
async def test_9_a_corrected_reference_reaches_the_next_turn_of_old_chats(house: House, model: ScriptedModel):
    chat = await house.begin(ANN, "Where do squirrels hide acorns?")
    assert LESSON in prompt(model)
    corrected = LESSON.replace("oak", "beech")
    await house.put_reference(1, "Squirrels", corrected)
    await house.say(ANN, chat, "Where do squirrels hide acorns, again?")
    assert corrected in prompt(model)
    assert LESSON not in prompt(model)
    assert LESSON not in " ".join(await house.history(ANN, chat))
