"""Chats about titles, where the doors do not show it: repeated and broken tries, waiting, other people's titles."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from tests.knowledge.texts import SQUIRREL
from tests.unit.chat_script import Gate, ScriptedModel, chatbot

import daram
from daram import ids
from daram.chat.titled import TitledChats, Told
from daram.errors import AnswerLate, InvalidInput, ModelRefused, NotFound, TooLarge, Unsupported
from daram.knowledge.documents import Documents
from daram.memory import Memory

ADMIN = daram.Reader("root", admin=True)
ANN = "ann"
BOOK = ("books", 1)


@pytest.fixture
def model() -> ScriptedModel:
    model = ScriptedModel()
    model.prefers_notes = True  # questions are searched for as they were asked
    return model


@pytest.fixture
async def chats(
    memory: Memory, documents: Documents, model: ScriptedModel, in_process: None
) -> AsyncIterator[TitledChats]:
    await documents.put_reference(ADMIN, *BOOK, "Squirrels", SQUIRREL, owner="official")
    bot = chatbot(memory, model, documents=documents)
    yield TitledChats(bot, delayed=0.05, failed=0.0)
    await bot.close()


async def heard(chats: TitledChats, chat: str, text: str) -> list[Told]:
    turn = await chats.go_on(ANN, chat, text)
    return [told async for told in turn.told()]


async def test_a_try_is_repeated_with_the_same_ids(chats: TitledChats, model: ScriptedModel) -> None:
    named = {"chat": ids.conversation_id(), "question": ids.message_id()}
    first = await (await chats.begin(ANN, *BOOK, "What do squirrels hide?", **named)).reply()
    again = await (await chats.begin(ANN, *BOOK, "What do squirrels hide?", **named)).reply()
    assert (first, len(model.calls)) == (again, 1)
    assert len((await chats.get(ANN, named["chat"]))["conversation"]) == 2


async def test_a_crash_before_the_chat_was_bound(chats: TitledChats, memory: Memory, model: ScriptedModel) -> None:
    """It is answered from its title, never from nothing."""
    await memory.create(ANN, id="broken", metadata={"category": "books", "title_no": "1"})
    await (await chats.go_on(ANN, "broken", "What do squirrels hide?")).reply()
    assert SQUIRREL in model.calls[-1][-1].text
    await memory.create(ANN, id="lost", metadata={"category": "books", "title_no": "2"})
    with pytest.raises(NotFound, match="books/2"):
        await chats.go_on(ANN, "lost", "What do squirrels hide?")


async def test_a_first_question_that_is_refused_leaves_no_chat(chats: TitledChats) -> None:
    with pytest.raises(InvalidInput, match="user_input"):
        await chats.begin(ANN, *BOOK, " \n")
    with pytest.raises(TooLarge):
        await chats.begin(ANN, *BOOK, "x" * (2 << 20))
    for _ in range(2):  # under an id that the next try has too
        with pytest.raises(TooLarge):
            await chats.begin(ANN, *BOOK, "x" * (2 << 20), chat="mine")
    assert (await chats.list(ANN))["chats"] == []


async def test_a_title_of_a_group_that_was_left(chats: TitledChats, documents: Documents) -> None:
    editor = daram.Reader(ANN, ("editors",))
    await documents.put_reference(editor, "drafts", 1, "Draft", SQUIRREL, owner="group:editors")
    turn = await chats.begin(editor, "drafts", 1, "What do squirrels hide?")
    await turn.reply()
    with pytest.raises(NotFound, match="drafts/1"):
        await chats.go_on(ANN, turn.chat, "And now?")
    with pytest.raises(NotFound, match="drafts"):
        await chats.begin(ANN, "drafts", 1, "And now?")


async def test_the_events_of_an_answer_that_keeps_one_waiting(chats: TitledChats, model: ScriptedModel) -> None:
    gate = Gate()
    model.script(gate, "Acorns.")
    turn = await chats.begin(ANN, *BOOK, "What do squirrels hide?")
    names = []
    async for told in turn.told():
        names.append(told.name)
        if told.name == "delayed":
            [running] = (await chats.get(ANN, turn.chat))["conversation"][1:]
            assert (running["id_ai"], running["state"]) == (turn.running.answer_id, "delayed")
            gate.open()
    assert (names.count("delayed"), names[-1], told.data["AI"]) == (1, "done", "Acorns.")


async def test_whole_answers_that_come_late_or_too_late(
    memory: Memory, documents: Documents, model: ScriptedModel, in_process: None
) -> None:
    await documents.put_reference(ADMIN, *BOOK, "Squirrels", SQUIRREL, owner="official")
    bot = chatbot(memory, model, documents=documents)
    turn = await TitledChats(bot, delayed=1e-9, failed=0.0).begin(ANN, *BOOK, "What do squirrels hide?")
    assert (await turn.reply())["state"] == "delayed"
    gate = Gate()
    model.script(gate, "Acorns.")
    late = await TitledChats(bot, delayed=0.0, failed=0.05).go_on(ANN, turn.chat, "And then?")
    with pytest.raises(AnswerLate, match=r"0\.05 seconds"):
        await late.reply()
    stopped = await late.running.message()
    assert stopped.status == "cancelled"
    said = (await TitledChats(bot).get(ANN, turn.chat))["conversation"]
    assert [entry["USER"] for entry in said if "USER" in entry] == ["What do squirrels hide?", "And then?"]
    await bot.close()


async def test_what_went_wrong_inside_is_not_told(chats: TitledChats, model: ScriptedModel) -> None:
    chat = (await (await chats.begin(ANN, *BOOK, "What do squirrels hide?")).reply())["id"]
    model.script(ModelRefused("the key sk-123 was refused"))
    events = await heard(chats, chat, "And then?")
    assert (events[-1].name, events[-1].code) == ("failed", "model_refused")
    assert "sk-123" not in events[-1].words


async def test_without_documents_there_are_chats_but_no_turns(memory: Memory, model: ScriptedModel) -> None:
    bot = chatbot(memory, model)
    chats = TitledChats(bot)
    await memory.create(ANN, id="other")
    assert [chat["id"] for chat in (await chats.list(ANN))["chats"]] == ["other"]
    with pytest.raises(Unsupported):
        await chats.go_on(ANN, "other", "Hello?")
    await bot.close()
