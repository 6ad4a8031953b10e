"""What all test classes share: the hooks that an engine fills in, fixtures, and short names for common steps."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import ClassVar, NamedTuple, TypeVar

import pytest
import pytest_asyncio

from daram.errors import Unsupported
from daram.model import Answer, Appended, Hit, Message, Page, Turn, user
from daram.store.base import Store, SupportsRecords, SupportsTransfer
from daram.store.documents import SupportsDocuments

T = TypeVar("T")

ANN = "ann"
BEN = "ben"
LONG = 36_000.0
"""A lease, in seconds, that no test outlives however slow the machine is."""
SHORT = 0.001
"""A lease, in seconds, that ``expire`` waits out."""

OpenMore = Callable[[], Awaitable[Store]]


class RawMessage(NamedTuple):
    """A row as it is stored; ``parent`` is an id, None for a first message; ``text`` is empty once deleted."""

    seq: int
    id: str
    parent: str | None
    role: str
    text: str


class Suite:
    """The hooks."""

    records: ClassVar[bool] = True
    """Whether the engine has records."""
    documents: ClassVar[bool] = True
    """Whether the engine has documents."""
    vectors: ClassVar[bool] = True
    """Whether it can search their vectors here."""
    searches_everywhere: ClassVar[bool] = True
    """Whether the engine searches all conversations of an owner, or else in one conversation only."""
    transfers: ClassVar[bool] = True
    """Whether the engine can be moved as a whole (``SupportsTransfer``)."""
    writers: ClassVar[int] = 32
    """How many tasks write at once in the tests of concurrency."""
    appends: ClassVar[int] = 10
    """How many appends each of them makes."""
    conversations: ClassVar[int] = 20
    """Among how many conversations they spread them."""

    pytestmark = pytest.mark.asyncio

    async def open_store(self, where: Path) -> Store:
        """Open the data at ``where`` (an empty directory when called first)."""
        raise NotImplementedError(f"{type(self).__name__} must define open_store")

    async def raw_messages(self, where: Path, owner: str, id: str) -> list[RawMessage] | None:
        """All rows of a conversation by seq, the deleted included, read past the store; None: cannot look."""
        return None

    @pytest_asyncio.fixture
    async def open_more(self, tmp_path: Path) -> AsyncIterator[OpenMore]:
        """Opens further handles on the data of the test, which are closed at its end."""
        opened: list[Store] = []

        async def open_one() -> Store:
            opened.append(await self.open_store(tmp_path))
            return opened[-1]

        yield open_one
        for store in reversed(opened):
            await store.close()

    @pytest_asyncio.fixture
    async def store(self, open_more: OpenMore) -> Store:
        """A store without data."""
        return await open_more()

    async def raw(self, where: Path, owner: str, id: str) -> list[RawMessage]:
        """``raw_messages``; skips the test where the engine has no such hook."""
        rows = await self.raw_messages(where, owner, id)
        if rows is None:
            pytest.skip(f"{type(self).__name__} does not define raw_messages")
        return rows

    def needs_search_everywhere(self) -> None:
        """Skips a test about several conversations where the engine says that it searches one at a time."""
        if not self.searches_everywhere:
            pytest.skip(f"{type(self).__name__} says that it searches one conversation at a time")

    def with_records(self, store: Store) -> SupportsRecords:
        """The store's records; skips the test where the engine says that it has none."""
        if not self.records:
            pytest.skip(f"{type(self).__name__} says that it has no records")
        assert isinstance(store, SupportsRecords)
        return store

    def with_documents(self, store: Store) -> SupportsDocuments:
        """The store's documents; skips the test where the engine says that it has none."""
        if not self.documents:
            pytest.skip(f"{type(self).__name__} says that it has no documents")
        assert isinstance(store, SupportsDocuments)
        return store

    def needs_vectors(self) -> None:
        """Skips a test about vectors where the engine says that it cannot search them here."""
        if not self.vectors:
            pytest.skip(f"{type(self).__name__} says that it cannot search vectors")

    def with_transfer(self, store: Store) -> SupportsTransfer:
        """The store's operations of moving; skips the test where the engine says that it has none."""
        if not self.transfers:
            pytest.skip(f"{type(self).__name__} says that it cannot be moved as a whole")
        assert isinstance(store, SupportsTransfer)
        return store


def texts(messages: list[Message]) -> list[str]:
    """The texts of messages."""
    return [m.text for m in messages]


def names(messages: list[Message]) -> list[str]:
    """The ids of messages."""
    return [m.id for m in messages]


async def say(store: Store, *words: str, id: str = "c", owner: str = ANN, parent: str | None = None) -> Appended:
    """Append user messages whose ids are their texts; the conversation is made where it is missing."""
    return await store.append(owner, id, [user(w, id=w) for w in words], parent=parent, create=True)


async def begin(store: Store, question: str, *, id: str = "c", lease: float = LONG) -> Answer:
    """Begin a turn with one new message (id and text ``question``); the answer's id is ``question`` and ``!``."""
    turn = await store.begin_turn(
        ANN, id, [user(question, id=question)], answer_id=f"{question}!", create=True, lease=lease
    )
    return started(turn)


async def finish(store: Store, answer: Answer, text: str = "done") -> Appended:
    """Finish an answer as complete."""
    return await store.finish_turn(answer.owner, answer.conversation, answer.id, answer.token, text=text)


async def exchange(store: Store, question: str, text: str | None = None, *, id: str = "c") -> Appended:
    """A whole turn: the question and its answer (id: ``question`` and ``!``)."""
    return await finish(store, await begin(store, question, id=id), f"{question}!" if text is None else text)


def started(turn: Turn) -> Answer:
    """The answer of a turn that is the caller's to make."""
    assert turn.state == "started"
    assert turn.answer is not None
    assert turn.answer.token
    return turn.answer


async def search(store: Store, query: str, *, owner: str = ANN, limit: int = 20, any_word: bool = False) -> list[Hit]:
    """Search all conversations of an owner; where the engine searches one at a time, in each of them."""
    try:
        return await store.search(owner, query, limit=limit, any_word=any_word)
    except Unsupported:
        found: list[Hit] = []
        for each in (await store.list(owner, limit=100)).items:
            found += await store.search(owner, query, conversation=each.id, limit=limit, any_word=any_word)
        return sorted(found, key=lambda hit: hit.score, reverse=True)[:limit]


async def expire() -> None:
    """Wait until a lease of ``SHORT`` seconds has run out."""
    await asyncio.sleep(20 * SHORT)


async def pages(call: Callable[[str | None], Awaitable[Page[T]]]) -> list[list[T]]:
    """The items of all pages of a list; ``call`` gets the cursor."""
    found: list[list[T]] = []
    cursor: str | None = None
    while True:
        page = await call(cursor)
        found.append(page.items)
        cursor = page.next_cursor
        if cursor is None:
            return found
        assert page.items, "an empty page that is not the last"
        assert len(found) < 1000, "the pages have no end"
