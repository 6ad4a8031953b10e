"""What the rules of the state machine share: the stores, the model, the oracle; how a call is made on all of them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any, ClassVar, NamedTuple, TypeVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant

from daram.model import Appended, Message, Page
from daram.store.base import Order, Store
from daram.testing.machine.compare import Call, Outcome, outcome
from daram.testing.machine.oracle import Key, Oracle

T = TypeVar("T")
OpenStore = Callable[[], Awaitable[Store]]
PageCall = Callable[[Store, str | None], Awaitable[Page[Any]]]

LONG = 36_000.0
SHORT = 0.000_5
PAST = datetime(2001, 1, 1, tzinfo=UTC)

HANDLE = st.integers(0, 1)
KEYS: list[Key] = [("ann", "c"), ("ann", "d"), ("ben", "c")]
KEY = st.sampled_from([KEYS[0], KEYS[0], KEYS[0], *KEYS])
OWNER = st.sampled_from(["ann", "ben"])
# Few names, so that they collide; "new" is one that was never used.
NAME = st.sampled_from(["new"] * 6 + ["m0", "m1", "m2", "m3", "a0"])
ANSWER = st.sampled_from(["new"] * 5 + ["a0", "a1", "m0"])
WORD = st.sampled_from(["squirrel", "다람쥐"])
PAIR = st.tuples(NAME, WORD)
BATCH = st.lists(PAIR, min_size=1, max_size=3, unique_by=lambda pair: pair if pair[0] == "new" else pair[0])
NEW = st.lists(st.tuples(st.just("new"), WORD), min_size=1, max_size=3)
PLACE = st.sampled_from(["head"] * 5 + ["known"] * 6 + ["root", "unknown"])
EXPECT = st.sampled_from([None] * 10 + ["version", "etag", "old version", "old etag"])
MOSTLY = st.sampled_from([True] * 5 + [False])
RARELY = st.sampled_from([False] * 5 + [True])
LATE = st.sampled_from([False, False, True])
PICK = st.integers(0, 50)
LIMIT = st.integers(1, 6)
ORDER: st.SearchStrategy[Order] = st.sampled_from(["asc", "desc"])


Plan = list[tuple[str, str]]
"""A batch of user messages: ids and texts."""


class Held(NamedTuple):
    """What a caller of ``begin_turn`` holds; ``tokens``: what the store (0) and the model (1) gave."""

    number: int
    key: Key
    id: str
    tokens: tuple[str, str]


class Sent(NamedTuple):
    """A batch that was sent once, to be sent again."""

    key: Key
    plan: Plan
    parent: str | None


class Expect(NamedTuple):
    """An ``expect``: the version that it stands for (None: none given), and the argument for each side."""

    version: int | None = None
    arguments: tuple[int | str | None, int | str | None] = (None, None)


class Place(NamedTuple):
    """Where the next page goes on: behind the message ``last``, read on the branch of ``leaf``."""

    last: str | None = None
    leaf: str | None = None
    cursors: tuple[str | None, str | None] = (None, None)


def messages_of(plan: Plan) -> list[Message]:
    return [Message(id=id, role="user", text=text) for id, text in plan]


class Machine(RuleBasedStateMachine):
    """Two handles on one store; ``new_place`` and ``open_model`` are filled in by ``run_machine``."""

    new_place: ClassVar[Callable[[], OpenStore]]
    open_model: ClassVar[Callable[[], Store] | None]
    steps: ClassVar[int] = 0
    """How many calls were made in all examples together."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.open_store = type(self).new_place()
        self.stores = [self.run(self.open_store()) for _ in range(2)]
        open_model = type(self).open_model
        self.model = None if open_model is None else open_model()
        self.oracle = Oracle()
        self.held: list[Held] = []
        self.sent: list[Sent] = []
        self.etags: dict[Key, list[tuple[int, str, str]]] = {}
        self.places: dict[tuple[Key, Order], Place] = {}
        self.names = 0

    def run(self, work: Awaitable[T]) -> T:
        async def wait() -> T:
            return await work

        return self.loop.run_until_complete(wait())

    def teardown(self) -> None:
        try:
            for store in [*self.stores, *([self.model] if self.model else [])]:
                self.run(store.close())
        finally:
            self.loop.run_until_complete(self.loop.shutdown_default_executor())
            self.loop.close()

    # --- steps that rules share ---

    def both(self, handle: int, call: Call) -> tuple[Outcome, Outcome | None]:
        """The call on the store and on the model; both must end alike."""
        type(self).steps += 1
        found = self.run(outcome(self.stores[handle], call, 0))
        if self.model is None:
            return found, None
        wanted = self.run(outcome(self.model, call, 1))
        assert found.plain() == wanted.plain()
        return found, wanted

    def on_every_page(self, handle: int, call: PageCall) -> list[Any]:
        """All items of a paged list; ``call`` gets the cursor."""
        found: list[Any] = []
        cursors: tuple[str | None, str | None] = (None, None)

        def next_page(store: Store, side: int) -> Awaitable[Page[Any]]:
            return call(store, cursors[side])

        while True:
            real, model = self.both(handle, next_page)
            found += real.value.items
            cursors = (real.value.next_cursor, model.value.next_cursor if model else None)
            if cursors[0] is None:
                return found

    def fresh(self, name: str) -> str:
        if name != "new":
            return name
        self.names += 1
        return f"n{self.names}"

    def plan(self, pairs: Plan) -> Plan:
        return [(self.fresh(name), text) for name, text in pairs]

    def parent(self, key: Key, place: str, pick: int) -> str | None:
        story = self.oracle.stories.get(key)
        if place == "known" and story is not None and story.lines:
            return story.lines[pick % len(story.lines)].id
        return {"head": None, "root": "", "unknown": "nobody"}.get(place)

    def some_key(self, key: Key, wild: bool) -> Key:
        """The key, or one that is there (unless ``wild``): what is missing is soon tested."""
        there = [other for other in KEYS if other in self.oracle.stories]
        return key if wild or key in there or not there else there[0]

    def message_id(self, key: Key, pick: int) -> str:
        return self.parent(key, "known", pick) or "nobody"

    def expectation(self, key: Key, kind: str | None, pick: int) -> Expect:
        story = self.oracle.stories.get(key)
        version = story.version if story else 0
        if kind is None:
            return Expect()
        if kind in ("version", "old version"):
            version -= kind == "old version"
            return Expect(version, (version, version))
        seen = self.etags.get(key, [])
        if not seen:
            return Expect(-1, ("0" * 16, "0" * 16))
        version, real, model = seen[-1] if kind == "etag" else seen[pick % len(seen)]
        return Expect(version, (real, model))

    def forget(self, key: Key) -> None:
        """The conversation is not what it was: cursors and etags of before say nothing."""
        self.etags.pop(key, None)
        self.places = {where: place for where, place in self.places.items() if where[0] != key}

    # --- the beginning ---

    @initialize(leaf=st.sampled_from(["m1", "m3", "m4"]))
    def a_forked_conversation(self, leaf: str) -> None:
        """So that no example is about nothing: m0 m1, m0 m2 m3, m0 m2 m4."""
        for names, parent in ((["m0", "m1"], None), (["m2", "m3"], "m0"), (["m4"], "m2")):
            sent = Sent(KEYS[0], [(name, "squirrel") for name in names], parent)

            def append(store: Store, _: int, sent: Sent = sent) -> Awaitable[Appended]:
                return store.append(*sent.key, messages_of(sent.plan), parent=sent.parent, create=True)

            found, _ = self.both(0, append)
            assert found.kind == "ok"
            self.oracle.append(*sent)
            self.sent.append(sent)
        found, _ = self.both(1, lambda s, _: s.use_branch(*KEYS[0], leaf))
        story = self.oracle.stories[KEYS[0]]
        story.use(leaf)
        story.version += 1
        assert found.kind == "ok"

    @invariant()
    def everything_is_as_told(self) -> None:
        handle = type(self).steps % 2
        for key in KEYS:

            def get(store: Store, _: int, key: Key = key) -> Awaitable[Any]:
                return store.get(*key)

            def answers(store: Store, _: int, key: Key = key) -> Awaitable[Any]:
                return store.answers(*key)

            def tail_of(store: Store, _: int, key: Key = key) -> Awaitable[Any]:
                return store.tail(*key, 1000)

            story = self.oracle.stories.get(key)
            real, model = self.both(handle, get)
            if story is None:
                assert real.kind == "NotFound"
                continue
            now = real.value
            assert (now.version, now.last_seq, now.head) == (story.version, len(story.lines), story.head)
            assert now.title == story.title
            rows, _ = self.both(handle, answers)
            assert [(row.id, row.question, row.text, row.cancel) for row in rows.value] == [
                (row.id, row.question, row.text, row.cancel) for row in story.running
            ]
            seen = self.etags.setdefault(key, [])
            if seen and seen[-1][1] == now.etag:
                continue  # nothing has changed
            assert now.etag not in [etag for _, etag, _ in seen]
            seen.append((now.version, now.etag, model.value.etag if model else ""))
            tail, _ = self.both(handle, tail_of)
            assert [(m.id, m.parent, m.text, m.role, m.status) for m in tail.value] == [
                (line.id, line.parent, line.text, line.role, line.status) for line in story.visible(story.head)
            ]
