"""Rules: conversations and messages."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from daram.store.base import Order
from daram.testing.machine.base import (
    BATCH,
    EXPECT,
    HANDLE,
    KEY,
    KEYS,
    LIMIT,
    MOSTLY,
    NEW,
    ORDER,
    OWNER,
    PAST,
    PICK,
    PLACE,
    RARELY,
    WORD,
    Expect,
    Machine,
    Place,
    Plan,
    Sent,
    messages_of,
)
from daram.testing.machine.oracle import Key
from daram.testing.suite.base import search


class MessageRules(Machine):
    """Everything but turns."""

    # --- conversations ---

    @rule(handle=HANDLE, key=KEY, expired=RARELY)
    def create(self, handle: int, key: Key, expired: bool) -> None:
        end = PAST if expired else None
        found, _ = self.both(handle, lambda s, _: s.create(key[0], id=key[1], expires_at=end))
        assert found.kind == ("Conflict" if key in self.oracle.stories else "ok")
        if found.kind == "ok":
            self.forget(key)
            self.oracle.make(key)
            if expired:
                self.oracle.expire(key)

    @rule(handle=HANDLE, key=KEY, title=WORD, expire=RARELY)
    def update(self, handle: int, key: Key, title: str, expire: bool) -> None:
        changes: dict[str, Any] = {"expires_at": PAST} if expire else {"title": title}
        found, _ = self.both(handle, lambda s, _: s.update(*key, **changes))
        story = self.oracle.stories.get(key)
        assert found.kind == ("NotFound" if story is None else "ok")
        if story is None:
            return
        story.version += 1
        if expire:
            self.forget(key)
            self.oracle.expire(key)
        else:
            story.title = title

    @rule(handle=HANDLE, key=KEY, sure=RARELY)
    def delete(self, handle: int, key: Key, sure: bool) -> None:
        if not sure and key == KEYS[0]:
            return  # it would be the end of most examples
        found, _ = self.both(handle, lambda s, _: s.delete(*key))
        assert found.kind == ("ok" if key in self.oracle.stories else "NotFound")
        if found.kind == "ok":
            self.forget(key)
            self.oracle.bury(key)

    @rule(handle=HANDLE, owner=st.sampled_from(["ben", "ben", "ben", "nobody", "ann"]))
    def delete_owner(self, handle: int, owner: str) -> None:
        keys = [key for key in {*self.oracle.stories, *self.oracle.expired} if key[0] == owner]
        found, _ = self.both(handle, lambda s, _: s.delete_owner(owner))
        assert found.value == len(keys)
        for key in keys:
            self.forget(key)
            self.oracle.bury(key)

    @rule(handle=HANDLE)
    def purge(self, handle: int) -> None:
        found, _ = self.both(handle, lambda s, _: s.purge())
        assert found.value == len(self.oracle.expired)
        self.oracle.expired.clear()

    @rule(handle=HANDLE, key=KEY, purge=st.booleans(), create=st.booleans())
    def expire_and_go_on(self, handle: int, key: Key, purge: bool, create: bool) -> None:
        if key == KEYS[0]:
            return  # it would be the end of most examples
        self.append_at_the_head(handle, key, [("new", "squirrel")], 1)
        self.update(handle, key, "", True)
        if purge:
            self.purge(handle)
        if create:
            self.create(1 - handle, key, False)
        self.append_at_the_head(handle, key, [("new", "squirrel")], 3)
        self.page(handle, key, "asc", 6, True)

    @rule(handle=HANDLE, owner=OWNER, limit=LIMIT)
    def list_conversations(self, handle: int, owner: str, limit: int) -> None:
        found = self.on_every_page(handle, lambda s, cursor: s.list(owner, limit=limit, cursor=cursor))
        assert [conversation.id for conversation in found] == self.oracle.listed(owner)

    # --- messages ---

    @rule(handle=HANDLE, key=KEY, pairs=BATCH, place=PLACE, expect=EXPECT, pick=PICK, create=MOSTLY, window=LIMIT)
    def append(
        self,
        handle: int,
        key: Key,
        pairs: Plan,
        place: str,
        expect: str | None,
        pick: int,
        create: bool,
        window: int,
    ) -> None:
        sent = Sent(key, self.plan(pairs), self.parent(key, place, pick))
        self._append(handle, sent, self.expectation(key, expect, pick), create, window)
        self.sent.append(sent)

    @rule(handle=HANDLE, key=KEY, pairs=NEW, window=LIMIT)
    def append_at_the_head(self, handle: int, key: Key, pairs: Plan, window: int) -> None:
        sent = Sent(key, self.plan(pairs), None)
        self._append(handle, sent, Expect(), True, window)
        self.sent.append(sent)

    @rule(handle=HANDLE, key=KEY, pairs=NEW, pick=PICK, window=LIMIT)
    def edit(self, handle: int, key: Key, pairs: Plan, pick: int, window: int) -> None:
        key = self.some_key(key, False)
        sent = Sent(key, self.plan(pairs), self.parent(key, "known", pick))
        self._append(handle, sent, Expect(), True, window)
        self.sent.append(sent)

    @precondition(lambda self: self.sent)
    @rule(handle=HANDLE, pick=PICK, window=LIMIT)
    def append_again(self, handle: int, pick: int, window: int) -> None:
        self._append(handle, self.sent[-1 - pick % len(self.sent)], Expect(), False, window)

    def _append(self, handle: int, sent: Sent, expect: Expect, create: bool, window: int) -> None:
        key, plan, parent = sent
        story = self.oracle.stories.get(key)
        met = expect.version is None or expect.version == (story.version if story else 0)
        wanted = self.oracle.predict_append(key, plan, parent, met, create)
        found, _ = self.both(
            handle,
            lambda s, side: s.append(
                *key,
                messages_of(plan),
                parent=parent,
                expect=expect.arguments[side],
                create=create,
                window=window,
            ),
        )
        assert found.kind == ("ok" if wanted == "same" else wanted)
        if wanted == "ok":
            if story is None:
                self.forget(key)
            story = self.oracle.append(key, plan, parent)
        if found.kind == "ok":
            assert story is not None
            done = found.value
            assert (done.etag == done.previous_etag) == (wanted == "same")
            assert done.version == story.version
            assert [(m.id, m.text) for m in done.messages] == plan
            assert [m.id for m in done.tail] == [line.id for line in story.visible(plan[-1][0])][-window:]

    @rule(handle=HANDLE, key=KEY, pick=PICK, wild=RARELY)
    def delete_message(self, handle: int, key: Key, pick: int, wild: bool) -> None:
        key = self.some_key(key, wild)
        id = self.message_id(key, pick)
        found, _ = self.both(handle, lambda s, _: s.delete_message(*key, id))
        story = self.oracle.stories.get(key)
        assert found.kind == ("ok" if story is not None and story.has(id) else "NotFound")
        if story is not None and found.kind == "ok":
            story.delete(id)

    @rule(handle=HANDLE, key=KEY, pick=PICK, wild=RARELY)
    def use_branch(self, handle: int, key: Key, pick: int, wild: bool) -> None:
        key = self.some_key(key, wild)
        id = self.message_id(key, pick)
        found, _ = self.both(handle, lambda s, _: s.use_branch(*key, id))
        story = self.oracle.stories.get(key)
        assert found.kind == ("ok" if story is not None and story.has(id) else "NotFound")
        if story is not None and found.kind == "ok":
            story.use(story.end_of(id))
            story.version += 1
            assert (found.value.head, found.value.version) == (story.head, story.version)

    @rule(handle=HANDLE, key=KEY, pick=PICK, wild=RARELY)
    def look_at_a_message(self, handle: int, key: Key, pick: int, wild: bool) -> None:
        key = self.some_key(key, wild)
        id = self.message_id(key, pick)
        one, _ = self.both(handle, lambda s, _: s.message(*key, id))
        all, _ = self.both(handle, lambda s, _: s.branches(*key, id))
        story = self.oracle.stories.get(key)
        assert one.kind == all.kind == ("ok" if story is not None and story.has(id) else "NotFound")
        if story is not None and one.kind == "ok":
            line = story.line(id)
            assert line is not None
            assert (one.value.text, one.value.parent, one.value.status) == (line.text, line.parent, line.status)
            assert one.value.seq == 1 + story.lines.index(line)
            assert [m.id for m in all.value] == story.siblings(id)

    @rule(handle=HANDLE, key=KEY, order=ORDER, limit=LIMIT, again=RARELY)
    def page(self, handle: int, key: Key, order: Order, limit: int, again: bool) -> None:
        """One page, going on where the last one ended (unless ``again``), whatever happened in between."""
        key = self.some_key(key, again)
        last, leaf, cursors = Place() if again else self.places.pop((key, order), Place())
        real, model = self.both(
            handle, lambda s, side: s.messages(*key, limit=limit, cursor=cursors[side], order=order)
        )
        story = self.oracle.stories.get(key)
        if story is None:
            assert real.kind == "NotFound"
            return
        if last is None or (order == "asc" and story.above(last, story.head)):
            leaf = story.head
        ids = [line.id for line in story.path(leaf)]
        if last is not None:
            ids = ids[ids.index(last) + 1 :] if order == "asc" else ids[: ids.index(last)]
        if order == "desc":
            ids.reverse()
        living = [id for id in ids if id not in story.deleted]
        assert [m.id for m in real.value.items] == living[:limit]
        assert (real.value.next_cursor is None) == (len(living) <= limit)
        if real.value.next_cursor is not None:
            later = (real.value.next_cursor, model.value.next_cursor if model else None)
            self.places[key, order] = Place(living[limit - 1], leaf, later)

    @rule(handle=HANDLE, order=ORDER, limit=LIMIT, pick=PICK)
    def page_across_a_switch(self, handle: int, order: Order, limit: int, pick: int) -> None:
        key = self.some_key(KEYS[0], False)
        self.page(handle, key, order, limit, True)
        self.use_branch(1 - handle, key, pick, False)
        self.page(handle, key, order, limit, False)

    @rule(handle=HANDLE, owner=OWNER, word=WORD)
    def search(self, handle: int, owner: str, word: str) -> None:
        found, _ = self.both(handle, lambda s, _: search(s, word, owner=owner, limit=1000))
        assert sorted((hit.conversation, hit.id) for hit in found.value) == sorted(
            (key[1], line.id)
            for key, story in self.oracle.stories.items()
            if key[0] == owner
            for line in story.lines
            if word in line.text
        )

    # --- life ---

    @rule(handle=HANDLE)
    def open_again(self, handle: int) -> None:
        self.run(self.stores[handle].close())
        self.stores[handle] = self.run(self.open_store())
