"""What the page shows of citations, without the page."""

from __future__ import annotations

import pytest
from tests.knowledge.test_turn import ANN, TRIP, bot
from tests.knowledge.texts import SQUIRREL

import daram
from daram.knowledge.access import Reader
from daram.knowledge.documents import Documents
from daram.memory import Memory
from daram.model import Part
from daram.store.documents import Scope
from daram.ui.library import Library, elements
from daram.ui.strings import ENGLISH

pytestmark = pytest.mark.usefixtures("in_process")


async def test_a_reference_that_was_given_whole_opens_whole_as_it_is_today(memory: Memory, documents: Documents):
    text = "\n\n".join(f"Squirrel number {number} hides its acorns well." for number in range(100))
    await documents.put_reference(ANN, "lessons", 1, "Animals", text)
    await documents.bind(ANN, TRIP, reference=("lessons", 1))
    chat, _ = bot(memory, documents, "They do [1].", context_tokens=32_768)
    answer = await chat.ask(ANN, TRIP, "What do the squirrels hide?")
    await chat.close()
    library = Library(memory, documents)
    shown = await library.passage(ANN, TRIP, answer.id, 1, ENGLISH)
    assert "number 99" in shown
    assert ENGLISH.changed_since not in shown
    await documents.put_reference(ANN, "lessons", 1, "Animals", "Nothing more is known.")
    shown = await library.passage(ANN, TRIP, answer.id, 1, ENGLISH)
    assert ENGLISH.changed_since in shown
    assert "number 0" in shown
    assert "number 99" not in shown


async def test_what_is_no_longer_his_opens_as_it_was_quoted_and_no_further(memory: Memory):
    groups = {"bob": ["editors"]}

    async def of(owner: str) -> list[str]:
        return groups.get(owner, [])

    documents = Documents(memory, groups=of)
    where = Scope("group:editors", "animals")
    bob = Reader("bob", groups=("editors",))
    await documents.add(bob, where, SQUIRREL.encode(), name="a.txt", wait=True)
    await documents.bind(bob, TRIP, [where])
    chat, _ = bot(memory, documents, "Under oaks [1].")
    answer = await chat.ask("bob", TRIP, "Where does the squirrel hide acorns?")
    await chat.close()
    library = Library(memory, documents)
    assert ENGLISH.changed_since not in await library.passage("bob", TRIP, answer.id, 1, ENGLISH)
    groups.clear()
    assert ENGLISH.changed_since in await library.passage("bob", TRIP, answer.id, 1, ENGLISH)
    with pytest.raises(daram.NotFound):
        await library.passage("eve", TRIP, answer.id, 1, ENGLISH)


async def test_citations_of_others_are_left_alone(memory: Memory, documents: Documents):
    own = (Part(type="citation", data={"doc": "d"}), Part(type="citation"), Part(type="citation", data={"n": "1"}))
    said = daram.assistant("It is said elsewhere [1].", parts=own)
    assert elements(TRIP, said) == []
    assert ENGLISH.note(said) == ""
