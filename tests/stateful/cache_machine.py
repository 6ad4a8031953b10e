"""A machine that does to a cache whatever can happen to one, while two processes take turns on the same conversations.

Every tail that a turn was given is compared with a walk over the engine's own messages, parent by parent.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, MutableMapping

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

import daram
from daram.cache.base import Cache
from daram.cache.breaker import Breaker
from daram.cache.cached import CachedStore
from daram.cache.entry import STAMP
from daram.ids import conversation_key
from daram.store.base import Store

OWNERS = ("ann", "bob")
CONVERSATIONS = ("c1", "c2")
WHO = st.sampled_from(OWNERS)
WHICH = st.sampled_from(CONVERSATIONS)
HANDLE = st.integers(0, 1)
WINDOW = st.integers(0, 7)


class HostileCache:
    """A shared cache that forgets, remembers too well, mixes up, garbles, hangs, and breaks half-way."""

    def __init__(self) -> None:
        self.values: MutableMapping[bytes, bytes] = {}
        self.past: list[dict[bytes, bytes]] = []
        self.mood = "well"

    def remember(self) -> None:
        self.past = [*self.past[-20:], dict(self.values)]

    async def _before(self) -> None:
        if self.mood == "dead":
            raise ConnectionError("no cache is listening")
        if self.mood == "paused":
            await asyncio.sleep(60)

    async def get(self, key: bytes) -> bytes | None:
        await self._before()
        return self.values.get(key)

    async def put(self, key: bytes, value: bytes) -> None:
        await self._before()
        self.values[key] = value

    async def swap(self, key: bytes, stamp: bytes, value: bytes) -> None:
        await self._before()
        if self.mood == "breaks before":
            raise ConnectionError("cut before the change")
        if self.mood == "tears":
            self.values[key] = value[: len(value) // 2]
            raise ConnectionError("cut in the middle of the change")
        found = self.values.get(key)
        if found is None or found[:STAMP] == stamp:
            self.values[key] = value
        else:
            self.values.pop(key, None)
        if self.mood == "breaks after":
            raise ConnectionError("cut behind the change")

    async def drop(self, key: bytes) -> None:
        await self._before()
        if self.mood == "breaks before":
            raise ConnectionError("cut before the change")
        self.values.pop(key, None)

    async def describe(self) -> str:
        return "hostile"

    async def close(self) -> None:
        self.values.clear()


class CacheMachine(RuleBasedStateMachine):
    """``open_engine`` gives the engine that both handles share; ``wrap`` makes a handle."""

    open_engine: Callable[[], Store]
    wrap: type[CachedStore] = CachedStore
    make_cache: Callable[[], HostileCache] = HostileCache
    budget = 0.002
    steps = 0

    def front(self) -> Cache:
        """What a handle asks."""
        return self.cache

    @initialize()
    def start(self) -> None:
        self.runner = asyncio.Runner()
        self.engine = type(self).open_engine()
        self.cache = type(self).make_cache()
        # The budget is the real thing, made short; the breaker never opens, so that no fault is kept from the cache.
        self.handles = [
            self.wrap(self.engine, self.front(), breaker=Breaker(budget=self.budget, failures=1 << 30))
            for _ in range(2)
        ]
        self.parents: dict[tuple[str, str, str], str | None] = {}
        self.running: list[tuple[str, str, str, str]] = []
        self.sent: list[tuple[str, str, list[daram.Message]]] = []

    def teardown(self) -> None:
        if hasattr(self, "runner"):
            self.runner.run(self.engine.close())
            self.runner.run(self.cache.close())
            self.runner.close()

    def do(self, work: object) -> object:
        self.cache.remember()
        try:
            return self.runner.run(work)  # type: ignore[arg-type]
        except (daram.NotFound, daram.Conflict, daram.ConversationBusy, daram.LeaseLost):
            return None

    async def check(self, owner: str, id: str, done: daram.Appended, window: int) -> None:
        """The tail is what the engine holds behind the batch, as far as the window goes."""
        if not done.messages:
            return
        want: list[daram.Message] = []
        at: str | None = done.messages[-1].id
        while at is not None and len(want) < window:
            message = await self.engine.message(owner, id, at)
            want.insert(0, message)
            at = message.parent
            while at is not None:  # deleted messages are stepped over; their parent is found by a neighbour
                try:
                    await self.engine.message(owner, id, at)
                    break
                except daram.NotFound:
                    at = self.parents.get((owner, id, at))
        assert done.tail == want

    def note(self, owner: str, id: str, done: daram.Appended) -> None:
        for message in done.messages:
            self.parents[owner, id, message.id] = message.parent

    async def batch(self, owner: str, id: str, n: int) -> list[daram.Message]:
        """Ids that come again when a conversation is deleted and made anew, with other texts."""
        try:
            last = (await self.engine.get(owner, id)).last_seq
        except daram.NotFound:
            last = 0
        return [daram.user(f"m{random.random()}", id=str(last + i)) for i in range(1, n + 1)]

    @invariant()
    def count(self) -> None:
        type(self).steps += 1

    # --- what users do ---

    @rule(h=HANDLE, owner=WHO, id=WHICH, n=st.integers(1, 3), window=WINDOW, create=st.booleans())
    def append(self, h: int, owner: str, id: str, n: int, window: int, create: bool) -> None:
        async def work() -> None:
            batch = await self.batch(owner, id, n)
            done = await self.handles[h].append(owner, id, batch, window=window, create=create)
            self.note(owner, id, done)
            self.sent.append((owner, id, batch))
            await self.check(owner, id, done, window)

        self.do(work())

    @rule(owner=WHO, id=WHICH, window=WINDOW)
    def append_both_at_once(self, owner: str, id: str, window: int) -> None:
        async def work() -> None:
            dones = await asyncio.gather(
                *(h.append(owner, id, [daram.user("x")], window=window, create=True) for h in self.handles)
            )
            for done in dones:
                self.note(owner, id, done)
                await self.check(owner, id, done, window)

        self.do(work())

    @precondition(lambda self: self.sent)
    @rule(h=HANDLE, data=st.data(), window=WINDOW)
    def repeat(self, h: int, data: st.DataObject, window: int) -> None:
        owner, id, batch = data.draw(st.sampled_from(self.sent))

        async def work() -> None:
            done = await self.handles[h].append(owner, id, batch, window=window)
            await self.check(owner, id, done, window)

        self.do(work())

    @rule(h=HANDLE, owner=WHO, id=WHICH, window=WINDOW, data=st.data())
    def edit(self, h: int, owner: str, id: str, window: int, data: st.DataObject) -> None:
        async def work() -> None:
            page = await self.engine.messages(owner, id, limit=50)
            parent = data.draw(st.sampled_from([daram.ROOT, *(m.id for m in page.items)]))
            done = await self.handles[h].append(owner, id, [daram.user("edited")], parent=parent, window=window)
            self.note(owner, id, done)
            await self.check(owner, id, done, window)

        self.do(work())

    @rule(h=HANDLE, owner=WHO, id=WHICH, window=WINDOW)
    def begin(self, h: int, owner: str, id: str, window: int) -> None:
        async def work() -> None:
            turn = await self.handles[h].begin_turn(owner, id, [daram.user("q")], window=window, create=True)
            self.note(owner, id, turn.appended)
            if turn.answer is not None and turn.state == "started":
                self.running.append((owner, id, turn.answer.id, turn.answer.token))
            await self.check(owner, id, turn.appended, window)

        self.do(work())

    @precondition(lambda self: self.running)
    @rule(h=HANDLE, data=st.data())
    def finish(self, h: int, data: st.DataObject) -> None:
        owner, id, answer, token = data.draw(st.sampled_from(self.running))
        self.running.remove((owner, id, answer, token))

        async def work() -> None:
            self.note(owner, id, await self.handles[h].finish_turn(owner, id, answer, token, text="a"))

        self.do(work())

    @rule(h=HANDLE, owner=WHO, id=WHICH, what=st.sampled_from(["title", "branch", "delete message"]), data=st.data())
    def change(self, h: int, owner: str, id: str, what: str, data: st.DataObject) -> None:
        async def work() -> None:
            if what == "title":
                await self.handles[h].update(owner, id, title="t")
                return
            page = await self.engine.messages(owner, id, limit=50)
            if not page.items:
                return
            message = data.draw(st.sampled_from(page.items))
            if what == "branch":
                siblings = await self.engine.branches(owner, id, message.id)
                await self.handles[h].use_branch(owner, id, data.draw(st.sampled_from(siblings)).id)
            else:
                await self.handles[h].delete_message(owner, id, message.id)

        self.do(work())

    @rule(h=HANDLE, owner=WHO, id=WHICH, again=st.booleans(), deaf=st.booleans())
    def delete(self, h: int, owner: str, id: str, again: bool, deaf: bool) -> None:
        """Deleted, and perhaps made again with as many messages, while the cache may hear nothing of it."""

        async def work() -> None:
            had = min((await self.engine.get(owner, id)).last_seq, 100)
            mood, self.cache.mood = self.cache.mood, "dead" if deaf else self.cache.mood
            await self.handles[h].delete(owner, id)
            if again:
                await self.handles[h].create(owner, id=id)
                if had:
                    self.note(owner, id, await self.handles[h].append(owner, id, await self.batch(owner, id, had)))
            self.cache.mood = mood

        self.do(work())

    @rule(h=HANDLE, owner=WHO, deaf=st.booleans())
    def erase(self, h: int, owner: str, deaf: bool) -> None:
        """Everything of an owner goes, while the cache may hear nothing of it."""

        async def work() -> None:
            mood, self.cache.mood = self.cache.mood, "dead" if deaf else self.cache.mood
            await self.handles[h].delete_owner(owner)
            self.cache.mood = mood

        self.do(work())

    @rule(h=HANDLE, owner=WHO, id=WHICH, n=st.integers(1, 3))
    def made_anew_behind_its_back(self, h: int, owner: str, id: str, n: int) -> None:
        """The cache holds the end of a conversation; deaf, it misses that another one has taken its place."""

        async def work() -> None:
            self.cache.mood = "well"
            for _ in range(2):
                batch = await self.batch(owner, id, n)
                self.note(owner, id, await self.handles[h].append(owner, id, batch, window=7, create=True))
            had = (await self.engine.get(owner, id)).last_seq
            self.cache.mood = "dead"
            await self.handles[h].delete(owner, id)
            await self.handles[h].create(owner, id=id)
            for _ in range(0, had, 100):
                some = await self.batch(owner, id, min(100, had - (await self.engine.get(owner, id)).last_seq))
                self.note(owner, id, await self.handles[h].append(owner, id, some))
            self.cache.mood = "well"
            done = await self.handles[1 - h].append(owner, id, await self.batch(owner, id, 1), window=7)
            self.note(owner, id, done)
            await self.check(owner, id, done, 7)

        self.do(work())

    # --- what happens to caches ---

    @rule(mood=st.sampled_from(["well", "well", "well", "dead", "paused", "tears", "breaks before", "breaks after"]))
    def mood(self, mood: str) -> None:
        self.cache.mood = mood

    @rule()
    def flush(self) -> None:
        self.cache.values.clear()

    @precondition(lambda self: self.cache.past)
    @rule(data=st.data())
    def roll_back(self, data: st.DataObject) -> None:
        self.cache.values = dict(data.draw(st.sampled_from(self.cache.past)))

    @rule(one=st.tuples(WHO, WHICH), other=st.tuples(WHO, WHICH))
    def mix_up(self, one: tuple[str, str], other: tuple[str, str]) -> None:
        a, b = conversation_key(*one), conversation_key(*other)
        if a in self.cache.values:
            self.cache.values[b] = self.cache.values[a]

    @rule(one=st.tuples(WHO, WHICH), at=st.integers(0, 400), byte=st.integers(0, 255))
    def garble(self, one: tuple[str, str], at: int, byte: int) -> None:
        key = conversation_key(*one)
        value = bytearray(self.cache.values.get(key, b""))
        if value:
            value[at % len(value)] = byte
            self.cache.values[key] = bytes(value)

    @rule(one=st.tuples(WHO, WHICH), junk=st.binary(max_size=60))
    def junk(self, one: tuple[str, str], junk: bytes) -> None:
        self.cache.values[conversation_key(*one)] = junk
