"""References: whole in the prompt where they fit, in passages where not; a corrected text reaches old chats."""

from __future__ import annotations

import pytest
from tests.knowledge.test_turn import Quiet
from tests.knowledge.texts import left
from tests.unit.chat_script import chatbot

from daram import errors
from daram.knowledge.access import Reader
from daram.knowledge.documents import Documents
from daram.memory import Memory

pytestmark = pytest.mark.usefixtures("in_process")

ANN, TRIP = "ann", "trip"
ADMIN = Reader("root", admin=True)
SHORT = "Lesson one. A squirrel hides acorns under oak trees."
LONG = "\n\n".join(
    f"Lesson {number}. Animal number {number} hides its {food} under a tree."
    for number, food in enumerate(["acorns", *["straw"] * 400, "marbles"])
)


async def put(documents: Documents, text: str, title_no: str | int = 1, title: str = "Animals") -> None:
    await documents.put_reference(ADMIN, "lessons", title_no, title, text, owner="official")


async def test_a_text_that_fits_is_given_whole_and_cited(memory: Memory, documents: Documents):
    await put(documents, SHORT)
    await documents.bind(ANN, TRIP, reference=("lessons", 1))
    model = Quiet("Acorns [1].")
    chat = chatbot(memory, model, documents=documents)
    answer = await chat.ask(ANN, TRIP, "Tell me about it.")
    assert SHORT in model.calls[0][-1].text
    (part,) = answer.parts
    assert {key: part.data[key] for key in ("kind", "category", "title_no", "title", "n")} == {
        "kind": "reference",
        "category": "lessons",
        "title_no": "1",
        "title": "Animals",
        "n": 1,
    }
    await chat.close()


async def test_a_text_that_does_not_fit_is_searched(memory: Memory, documents: Documents):
    await put(documents, LONG)
    await documents.bind(ANN, TRIP, reference=("lessons", 1))
    model = Quiet("A marble [1].", context_tokens=2048)
    chat = chatbot(memory, model, documents=documents)
    answer = await chat.ask(ANN, TRIP, "Which animal hides its marbles?")
    prompt = model.calls[0][-1].text
    assert "marbles under a tree" in prompt
    assert LONG not in prompt
    assert answer.parts[0].data["category"] == "lessons"
    assert "marbles" in answer.parts[0].data["quote"]
    await chat.close()


async def test_a_passage_of_a_long_text_is_cited_by_its_place_in_that_text(memory: Memory, documents: Documents):
    straw = "Straw is dry and gold in the late sun of the harvest.\n\n\n"  # blank lines that its loader does not count
    marmot = "The marmot whistles at noon on its mountain."
    text = straw * 2600 + marmot + "\n\n\n" + straw * 100
    await put(documents, text)
    await documents.bind(ANN, TRIP, reference=("lessons", 1))
    chat = chatbot(memory, Quiet("At noon [1]."), documents=documents)
    (part,) = (await chat.ask(ANN, TRIP, "When does the marmot whistle on its mountain?")).parts
    passage = text[part.data["start"] : part.data["end"]]
    assert marmot in passage
    assert passage == part.data["quote"]
    await chat.close()


@pytest.mark.parametrize("context_tokens", [8192, 600])
async def test_a_corrected_text_reaches_the_next_turn_of_old_chats(
    memory: Memory, documents: Documents, context_tokens: int
):
    filler = " ".join(["Straw is dry."] * 200) if context_tokens == 600 else ""
    await put(documents, f"The squirrel hides acorns. {filler}")
    await documents.bind(ANN, TRIP, reference=("lessons", "1"))
    model = Quiet("Acorns [1].", "Hazelnuts [1].", context_tokens=context_tokens)
    chat = chatbot(memory, model, documents=documents)
    await chat.ask(ANN, TRIP, "What does the squirrel hide?")
    await put(documents, f"The squirrel hides hazelnuts. {filler}")
    answer = await chat.ask(ANN, TRIP, "What does the squirrel hide?")
    assert "hazelnuts" in model.calls[1][-1].text
    assert "hides acorns" not in model.calls[1][-1].text
    assert "hazelnuts" in answer.parts[0].data["quote"]
    assert all("hides" not in message.text for message in await memory.tail(ANN, TRIP) if message.role == "assistant")
    await chat.close()


async def test_what_is_not_there_is_named(memory: Memory, documents: Documents):
    await put(documents, SHORT)
    with pytest.raises(errors.NotFound, match="poems") as category:
        await documents.bind(ANN, TRIP, reference=("poems", 1))
    assert category.value.what == "category"
    with pytest.raises(errors.NotFound, match="lessons/2") as title:
        await documents.bind(ANN, TRIP, reference=("lessons", 2))
    assert title.value.what == "title"
    with pytest.raises(errors.NotFound):
        await memory.get(ANN, TRIP)  # nothing was made of it
    await documents.bind(ANN, TRIP, reference=("lessons", 1))
    await documents.remove_reference(ADMIN, "lessons", 1, owner="official")
    model = Quiet()
    chat = chatbot(memory, model, documents=documents)
    with pytest.raises(errors.NotFound, match="lessons"):
        await chat.ask(ANN, TRIP, "What does the squirrel hide?")
    assert model.calls == []
    assert (await memory.tail(ANN, TRIP))[0].text == "What does the squirrel hide?"  # it is kept
    await chat.close()


async def test_who_may_change_and_read_them(documents: Documents):
    with pytest.raises(errors.NotAllowed):
        await documents.put_reference(ANN, "lessons", 1, "Mine", SHORT, owner="official")
    with pytest.raises(errors.NotFound):
        await documents.put_reference(ANN, "lessons", 1, "Theirs", SHORT, owner="bob")
    await put(documents, SHORT)
    await documents.put_reference(ANN, "lessons", 1, "My own", "Mine.")
    assert (await documents.reference(ANN, "lessons", 1)).title == "My own"
    assert (await documents.reference("bob", "lessons", 1)).title == "Animals"


async def test_texts_are_listed_replaced_and_deleted_to_the_last(memory: Memory, documents: Documents):
    for number in (1, 2):
        await documents.put_reference(ANN, "lessons", number, f"Lesson {number}", LONG)
    await documents.put_reference(ANN, "poems", 1, "Poem", SHORT)
    listed = (await documents.references.list(ANN, "lessons")).items
    assert [(reference.title_no, reference.title) for reference in listed] == [("1", "Lesson 1"), ("2", "Lesson 2")]
    await documents.put_reference(ANN, "poems", 1, "Poem", SHORT + " More.")
    assert (await documents.references.text(await documents.reference(ANN, "poems", 1)))[1] == SHORT + " More."
    assert len((await memory.scan_records(ANN, "documents.reference.text", "poems/")).items) == 1
    for category, number in (("lessons", 1), ("lessons", 2), ("poems", 1)):
        await documents.remove_reference(ANN, category, number)
    await documents.ingester.sweep()
    assert await left(memory, ANN) == set()


@pytest.mark.parametrize(
    ("category", "number", "text"), [("a/b", 1, "x"), ("a", "1/2", "x"), ("", 1, "x"), ("a", 1, " "), ("a", "1\n", "x")]
)
async def test_what_cannot_be_one_is_refused(documents: Documents, category: str, number: str | int, text: str):
    with pytest.raises(errors.InvalidInput):
        await documents.put_reference(ANN, category, number, "Title", text)
