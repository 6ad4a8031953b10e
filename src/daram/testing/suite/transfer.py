"""``SupportsTransfer``: a conversation leaves one store and arrives in another exactly as it was."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from daram.errors import Conflict, Gone, InvalidInput, NotFound
from daram.model import ROOT, Conversation, LogEntry, Message, Part, Record, assistant, user
from daram.store.base import Store, SupportsTransfer
from daram.testing.suite.base import ANN, BEN, LONG, OpenMore, Suite, begin, exchange, finish, names, say, search

_FUTURE = datetime(2201, 1, 1, 12, 30, 15, 123456, tzinfo=UTC)


async def branched(store: Store, id: str = "c") -> None:
    """A conversation with all there is: branches, a distant answer, tombstones, parts, metadata."""
    await store.create(ANN, id=id, title="다람쥐", metadata={"k": "v"}, expires_at=_FUTURE)
    await exchange(store, "q1", id=id)
    rich = Message(
        id="rich",
        role="assistant",
        text="see",
        parts=(Part(type="image", id="p", data={"url": "x", "n": [1, None, 2.5]}),),
        status="cancelled",
        model="m",
        tokens=3,
        usage={"input_tokens": 7},
        metadata={"a": "b"},
        created_at=datetime(2020, 2, 3, 4, 5, 6, 789, tzinfo=UTC),
    )
    await store.append(ANN, id, [user("q2", id="q2"), rich])
    # An answer that goes to the end of its branch, behind what was said meanwhile.
    answer = await begin(store, "q3", id=id)
    await store.append(ANN, id, [user("meanwhile", id="meanwhile")])
    await finish(store, answer)
    await say(store, "other", id=id, parent="q1!")
    await say(store, "another", id=id, parent=ROOT)
    await say(store, "secret", "kept", id=id)
    await store.delete_message(ANN, id, "secret")
    await store.use_branch(ANN, id, "rich")
    await store.update(ANN, id, pinned=True, archived=True)


async def read(store: SupportsTransfer, id: str = "c", owner: str = ANN, limit: int = 100) -> list[LogEntry]:
    """The whole log."""
    found: list[LogEntry] = []
    while page := await store.log(owner, id, after=found[-1].message.seq if found else 0, limit=limit):
        assert len(page) <= limit
        found += page
    return found


def as_loaded(value: Conversation) -> Conversation:
    """Without what a load draws anew."""
    return msgspec.structs.replace(value, etag="")


class TransferTests(Suite):
    async def test_the_log_holds_every_message_of_every_branch(self, store: Store) -> None:
        moving = self.with_transfer(store)
        await branched(store)
        entries = await read(moving, limit=3)
        assert [e.message.seq for e in entries] == list(range(1, 12))
        by_id = {e.message.id: e for e in entries}
        ids = {0: None} | {e.message.seq: e.message.id for e in entries}
        assert all(ids[e.parent] == e.message.parent for e in entries)
        assert by_id["rich"].message == await store.message(ANN, "c", "rich")
        assert ids[by_id["q3!"].question or 0] == "q3"
        assert ids[by_id["q3!"].parent] == "meanwhile"
        assert by_id["q1!"].question is None
        assert [e.message.id for e in entries if e.deleted] == ["secret"]
        old = by_id["secret"].message
        assert (old.text, old.parts, old.metadata, old.role) == ("", (), {}, "user")
        leaves = [ids[seq] for seq in await moving.leaves(ANN, "c")]
        assert leaves == ["q3!", "kept", "other"]
        assert (await store.get(ANN, "c")).head == "q3!"

    async def test_an_empty_and_a_straight_conversation(self, store: Store) -> None:
        moving = self.with_transfer(store)
        await store.create(ANN, id="c")
        assert await moving.log(ANN, "c") == []
        assert await moving.leaves(ANN, "c") == []
        await say(store, "a", "b")
        assert await moving.leaves(ANN, "c") == [2]

    @pytest.mark.parametrize("chunk", [1, 4, 100])
    async def test_a_loaded_conversation_is_what_it_was(self, store: Store, open_more: OpenMore, chunk: int) -> None:
        moving = self.with_transfer(store)
        await branched(store)
        before, entries, leaves = await store.get(ANN, "c"), await read(moving), await moving.leaves(ANN, "c")
        path = (await store.messages(ANN, "c")).items
        await store.delete(ANN, "c")
        with pytest.raises(NotFound):
            await moving.log(ANN, "c")
        loaded = await self.load(moving, before, entries, leaves, chunk)
        assert loaded.etag not in ("", before.etag)
        for handle in (store, await open_more()):
            there = self.with_transfer(handle)
            assert await handle.get(ANN, "c") == loaded
            assert as_loaded(loaded) == as_loaded(before)
            assert await read(there) == entries
            assert await there.leaves(ANN, "c") == leaves
            assert (await handle.messages(ANN, "c")).items == path
            assert await handle.tail(ANN, "c", 100) == path
            assert names(await handle.branches(ANN, "c", "q2")) == ["q2", "other"]
            assert names(await handle.branches(ANN, "c", "q1")) == ["q1", "another"]

    async def test_life_goes_on_after_a_load(self, store: Store) -> None:
        moving = self.with_transfer(store)
        await branched(store)
        before, entries, leaves = await store.get(ANN, "c"), await read(moving), await moving.leaves(ANN, "c")
        await store.delete(ANN, "c")
        await self.load(moving, before, entries, leaves, 5)
        again = await store.begin_turn(ANN, "c", [user("q3", id="q3")], lease=LONG)
        assert again.state == "finished"
        assert again.message is not None
        assert again.message.id == "q3!"
        with pytest.raises(Gone):
            await say(store, "secret")
        changed = await store.use_branch(ANN, "c", "another")
        assert (changed.head, changed.version) == ("kept", before.version + 1)
        added = await say(store, "new")
        assert (added.messages[0].seq, added.parent) == (12, "kept")
        assert [hit.id for hit in await search(store, "meanwhile")] == ["meanwhile"]
        assert await search(store, "secret") == []
        assert (await store.use_branch(ANN, "c", "q1!")).head == "q3!"

    async def test_what_is_being_loaded_is_not_there(self, store: Store) -> None:
        moving = self.with_transfer(store)
        await branched(store)
        before, entries = await store.get(ANN, "c"), await read(moving)
        await store.delete(ANN, "c")
        await moving.load(before, entries[:6], more=True)
        with pytest.raises(NotFound):
            await store.get(ANN, "c")
        with pytest.raises(NotFound):
            await moving.log(ANN, "c")
        assert (await store.list(ANN)).items == []
        assert [each for page in await self.scanned(moving, 100) for each in page] == []
        assert await search(store, "see") == []
        with pytest.raises(Gone):
            await say(store, "x")

    async def test_a_load_that_was_given_up_is_begun_again(self, store: Store) -> None:
        moving = self.with_transfer(store)
        await branched(store)
        before, entries, leaves = await store.get(ANN, "c"), await read(moving), await moving.leaves(ANN, "c")
        await store.delete(ANN, "c")
        first = await moving.load(before, entries[:6], more=True)
        second = await moving.load(before, entries[:4], more=True)
        with pytest.raises(Conflict):
            await moving.load(before, entries[6:], leaves=leaves, expect=first.etag)
        await moving.load(before, entries[4:], leaves=leaves, expect=second.etag)
        assert await read(moving) == entries

    async def test_the_purge_takes_what_was_given_up(self, store: Store) -> None:
        moving = self.with_transfer(store)
        await branched(store)
        before, entries, leaves = await store.get(ANN, "c"), await read(moving), await moving.leaves(ANN, "c")
        await store.delete(ANN, "c")
        begun = await moving.load(before, entries[:6], more=True)
        assert await store.purge() == 1
        with pytest.raises(Conflict):
            await moving.load(before, entries[6:], leaves=leaves, expect=begun.etag)
        await store.create(ANN, id="c")
        await say(store, "a")
        assert names(await store.tail(ANN, "c")) == ["a"]

    async def test_a_load_replaces_only_what_its_caller_saw(self, store: Store) -> None:
        moving = self.with_transfer(store)
        await say(store, "a", "b")
        old, entries = await store.get(ANN, "c"), await read(moving)
        with pytest.raises(Conflict):
            await moving.load(old, entries, leaves=[2])
        await say(store, "newer")
        with pytest.raises(Conflict):
            await moving.load(old, entries, leaves=[2], expect=old.etag)
        assert names(await store.tail(ANN, "c")) == ["a", "b", "newer"]
        seen = await store.get(ANN, "c")
        await moving.load(old, entries, leaves=[2], expect=seen.etag)
        assert names(await store.tail(ANN, "c")) == ["a", "b"]
        assert await search(store, "newer") == []
        with pytest.raises(NotFound):
            await store.message(ANN, "c", "newer")

    async def test_an_empty_conversation_is_loaded(self, store: Store) -> None:
        moving = self.with_transfer(store)
        before = await store.create(ANN, id="c", title="t")
        await store.delete(ANN, "c")
        loaded = await moving.load(before, [])
        assert as_loaded(await store.get(ANN, "c")) == as_loaded(before)
        assert loaded.etag != before.etag

    @pytest.mark.parametrize(
        ("field", "change"),
        [
            ("last_seq", {"last_seq": 3}),
            ("version", {"version": -1}),
            ("title", {"title": "x" * 501}),
            ("owner", {"owner": ""}),
        ],
    )
    async def test_a_wrong_conversation_is_named(self, store: Store, field: str, change: dict[str, object]) -> None:
        moving = self.with_transfer(store)
        await say(store, "a", "b", id="old")
        old, entries = await store.get(ANN, "old"), await read(moving, "old")
        with pytest.raises(InvalidInput, match=field):
            await moving.load(msgspec.structs.replace(old, **({"id": "c"} | change)), entries, leaves=[2])
        with pytest.raises(NotFound):
            await store.get(ANN, "c")

    @pytest.mark.parametrize("leaves", [[], [3], [2, 2], [0]])
    async def test_wrong_leaves_are_named(self, store: Store, leaves: list[int]) -> None:
        moving = self.with_transfer(store)
        await say(store, "a", "b", id="old")
        old, entries = await store.get(ANN, "old"), await read(moving, "old")
        with pytest.raises(InvalidInput, match="leaves"):
            await moving.load(msgspec.structs.replace(old, id="c"), entries, leaves=leaves)

    @pytest.mark.parametrize("change", [{"parent": 2}, {"parent": 3}, {"parent": -1}, {"question": 2}])
    async def test_a_wrong_entry_is_named(self, store: Store, change: dict[str, int]) -> None:
        moving = self.with_transfer(store)
        await say(store, "a", "b", id="old")
        old, entries = await store.get(ANN, "old"), await read(moving, "old")
        bad = [entries[0], msgspec.structs.replace(entries[1], **change)]
        with pytest.raises(InvalidInput, match=next(iter(change))):
            await moving.load(msgspec.structs.replace(old, id="c"), bad, leaves=[2])
        with pytest.raises(InvalidInput, match="seq"):
            await moving.load(msgspec.structs.replace(old, id="c"), entries[::-1], leaves=[2])
        twice = msgspec.structs.replace(entries[1].message, id="a")
        bad = [entries[0], msgspec.structs.replace(entries[1], message=twice)]
        with pytest.raises((Conflict, InvalidInput)):
            await moving.load(msgspec.structs.replace(old, id="c"), bad, leaves=[2])
        with pytest.raises(NotFound):
            await store.get(ANN, "c")

    async def test_a_scan_finds_everybodys(self, store: Store) -> None:
        moving = self.with_transfer(store)
        wanted = {(owner, f"c{n}") for owner in (ANN, BEN) for n in range(7)}
        for owner, id in sorted(wanted):
            await say(store, "x", id=id, owner=owner)
        await store.create(ANN, id="late", expires_at=datetime(2001, 1, 1, tzinfo=UTC))
        await say(store, "x", id="gone")
        await store.delete(ANN, "gone")
        for limit in (1, 3, 14, 100):
            found = [each for page in await self.scanned(moving, limit) for each in page]
            assert {(each.owner, each.id) for each in found} == wanted
            assert all([each == await store.get(each.owner, each.id) for each in found])

    async def test_a_scan_of_records_finds_everybodys(self, store: Store) -> None:
        moving, records = self.with_transfer(store), self.with_records(store)
        now = datetime.now(UTC)
        wanted: dict[tuple[str, str, str], Record] = {}
        for owner in (ANN, BEN):
            for key in ("a", "b", "다람쥐"):
                for space in ("n", "m"):
                    end = None if key == "a" else now + timedelta(days=1)
                    wanted[owner, space, key] = await records.put_record(owner, space, key, b"\xff", expires_at=end)
        await records.put_record(ANN, "n", "late", b"", expires_at=datetime(2001, 1, 1, tzinfo=UTC))
        for limit in (1, 5, 100):
            found: dict[tuple[str, str, str], Record] = {}
            cursor = None
            while True:
                page = await moving.scan_all_records(limit=limit, cursor=cursor)
                found |= {(each.owner, each.record.namespace, each.record.key): each.record for each in page.items}
                cursor = page.next_cursor
                if cursor is None:
                    break
            assert found == wanted

    async def test_a_cursor_of_another_list_is_refused(self, store: Store) -> None:
        moving = self.with_transfer(store)
        with pytest.raises(InvalidInput, match="cursor"):
            await moving.scan(cursor="AAAA")
        with pytest.raises(InvalidInput, match="cursor"):
            await moving.scan_all_records(cursor="AAAA")

    async def test_trees_of_all_shapes_arrive(self, store: Store) -> None:
        moving = self.with_transfer(store)
        dice = random.Random(7)
        for number in range(5):
            id = f"t{number}"
            await store.create(ANN, id=id)
            for n in range(12):
                parent = None if n == 0 else dice.choice([None, None, ROOT, f"m{dice.randrange(n)}"])
                make = dice.choice([user, assistant])
                await store.append(ANN, id, [make(f"m{n}", id=f"m{n}")], parent=parent)
                if dice.random() < 0.3:
                    await store.use_branch(ANN, id, f"m{dice.randrange(n + 1)}")
            before, entries, leaves = await store.get(ANN, id), await read(moving, id), await moving.leaves(ANN, id)
            copy = msgspec.structs.replace(before, id=f"{id}-copy")
            await self.load(moving, copy, entries, leaves, 5)
            assert await moving.leaves(ANN, copy.id) == leaves
            for n in range(12):
                ways = [(await store.use_branch(ANN, which, f"m{n}")).head for which in (id, copy.id)]
                assert ways[0] == ways[1]
                assert names(await store.tail(ANN, id)) == names(await store.tail(ANN, copy.id))

    async def load(
        self, moving: SupportsTransfer, value: Conversation, entries: list[LogEntry], leaves: list[int], size: int
    ) -> Conversation:
        """Load in chunks of ``size``."""
        expect: str | None = None
        done = value
        for begin_at in range(0, len(entries), size):
            more = begin_at + size < len(entries)
            chunk = entries[begin_at : begin_at + size]
            done = await moving.load(value, chunk, leaves=() if more else leaves, expect=expect, more=more)
            expect = done.etag
        return done

    async def scanned(self, moving: SupportsTransfer, limit: int) -> list[list[Conversation]]:
        """All pages; an engine may give a page that is empty and not the last."""
        found = []
        cursor = None
        while True:
            page = await moving.scan(limit=limit, cursor=cursor)
            assert len(page.items) <= limit or limit < 100
            found.append(page.items)
            cursor = page.next_cursor
            if cursor is None:
                return found
