"""P2: nobody overwrites anybody. Many writers at once, through one handle and through several."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from itertools import pairwise
from typing import TypeVar

from daram.errors import Conflict, ConversationBusy, DaramError, Gone, NotFound
from daram.model import Appended, Conversation, Message, Turn, user
from daram.store.base import Store
from daram.testing.suite.base import ANN, LONG, OpenMore, Suite, begin, finish, pages, say, texts

T = TypeVar("T")


async def _outcomes(*calls: Awaitable[T]) -> tuple[list[T], list[DaramError]]:
    """What calls made at once returned, and what they raised (typed errors only)."""
    found = await asyncio.gather(*calls, return_exceptions=True)
    for one in found:
        if isinstance(one, BaseException) and not isinstance(one, DaramError):
            raise one
    errors = [one for one in found if isinstance(one, DaramError)]
    return [one for one in found if not isinstance(one, BaseException)], errors


def _batch(writer: int, i: int) -> list[Message]:
    return [user(f"{writer} {i} {j}", id=f"{writer}.{i}.{j}") for j in range(1 + (writer + i) % 3)]


async def _write(store: Store, id: str, writer: int, appends: int) -> list[Appended]:
    return [await store.append(ANN, id, _batch(writer, i), create=True, window=3) for i in range(appends)]


async def _check(store: Store, id: str, done: list[list[Appended]], start: int = 0) -> None:
    """Everything acknowledged is there once, in commit order, batch by batch; versions have no gap."""
    stored: list[Message] = []
    cursor: str | None = None
    while True:
        page = await store.messages(ANN, id, limit=1000, cursor=cursor)
        stored += page.items
        if (cursor := page.next_cursor) is None:
            break
    assert [m.seq for m in stored] == list(range(1, len(stored) + 1))
    assert [m.parent for m in stored] == [None, *(m.id for m in stored[:-1])]
    in_order = sorted((a for part in done for a in part), key=lambda a: a.version)
    assert [a.version for a in in_order] == list(range(start + 1, start + len(in_order) + 1))
    assert [m for a in in_order for m in a.messages] == stored[len(stored) - sum(len(a.messages) for a in in_order) :]
    for before, after in pairwise(in_order):
        assert after.previous_etag == before.etag
        assert after.parent == before.messages[-1].id
    for one in in_order:
        last = one.messages[-1].seq
        assert one.tail == stored[max(0, last - 3) : last]
    now = await store.get(ANN, id)
    assert (now.version, now.last_seq, now.head) == (start + len(in_order), len(stored), stored[-1].id)
    assert now.etag == in_order[-1].etag


class ConcurrencyTests(Suite):
    async def test_many_writers_on_one_conversation(self, store: Store) -> None:
        done = await asyncio.gather(*(_write(store, "c", w, self.appends) for w in range(self.writers)))
        assert sum(len(part) for part in done) == self.writers * self.appends
        await _check(store, "c", done)

    async def test_many_writers_through_several_handles(self, store: Store, open_more: OpenMore) -> None:
        stores = [store, await open_more(), await open_more()]
        done = await asyncio.gather(*(_write(stores[w % 3], "c", w, self.appends) for w in range(self.writers)))
        for one in stores:
            await _check(one, "c", done)

    async def test_many_writers_on_many_conversations(self, store: Store) -> None:
        done: dict[str, list[Appended]] = {}

        async def write(writer: int) -> None:
            for i in range(self.appends):
                id = f"c{(writer * self.appends + i * 7) % self.conversations}"
                appended = await store.append(ANN, id, _batch(writer, i), create=True, window=3)
                done.setdefault(id, []).append(appended)

        await asyncio.gather(*(write(writer) for writer in range(self.writers)))
        assert sum(len(part) for part in done.values()) == self.writers * self.appends
        for id, part in done.items():
            await _check(store, id, [part])
        listed = await pages(lambda cursor: store.list(ANN, limit=1000, cursor=cursor))
        assert sorted(c.id for page in listed for c in page) == sorted(done)

    async def test_readers_see_whole_batches(self, store: Store) -> None:
        await say(store, "first")
        writing = asyncio.gather(
            *(store.append(ANN, "c", [user(f"{i}a", id=f"{i}a"), user(f"{i}b", id=f"{i}b")]) for i in range(60))
        )
        lengths = []
        while not writing.done():
            found = await store.tail(ANN, "c", 1000)
            lengths.append(len(found))
            assert [m.seq for m in found] == list(range(1, len(found) + 1))
            assert len(found) % 2 == 1, "half a batch was seen"
            await asyncio.sleep(0)
        await writing
        assert lengths == sorted(lengths)

    async def test_of_equal_appends_at_once_one_is_stored(self, store: Store) -> None:
        batch = [user("a", id="a"), user("b", id="b")]
        done, errors = await _outcomes(
            *(store.append(ANN, "c", batch, create=True, window=5) for _ in range(self.writers))
        )
        assert errors == []
        assert sum(a.previous_etag != a.etag for a in done) == 1
        assert {(a.version, a.etag, a.parent) for a in done} == {(1, done[0].etag, None)}
        assert all(texts(a.tail) == ["a", "b"] for a in done)
        assert (await store.get(ANN, "c")).last_seq == 2

    async def test_of_different_appends_with_one_id_one_is_stored(self, store: Store) -> None:
        await store.create(ANN, id="c")
        done, errors = await _outcomes(
            *(store.append(ANN, "c", [user(f"text {i}", id="a")]) for i in range(self.writers))
        )
        assert len(done) == 1
        assert {type(e) for e in errors} == {Conflict}
        assert await store.tail(ANN, "c") == done[0].messages

    async def test_of_many_that_expect_the_same_one_wins(self, store: Store) -> None:
        made = await store.create(ANN, id="c")
        expected: list[int | str] = [0, 1, made.etag]
        for round, expect in enumerate(expected):
            done, errors = await _outcomes(
                *(store.append(ANN, "c", [user(str(i))], expect=expect) for i in range(self.writers))
            )
            assert len(done) == (1 if round < 2 else 0)
            assert {type(e) for e in errors} == {Conflict}
        assert (await store.get(ANN, "c")).version == 2

    async def test_of_many_that_create_one_wins(self, store: Store) -> None:
        done, errors = await _outcomes(*(store.create(ANN, id="c", title=str(i)) for i in range(self.writers)))
        assert len(done) == 1
        assert {type(e) for e in errors} == {Conflict}
        assert await store.get(ANN, "c") == done[0]

    async def test_of_many_turns_at_once_one_begins(self, store: Store, open_more: OpenMore) -> None:
        await store.create(ANN, id="c")
        stores = [store, await open_more()]
        done, errors = await _outcomes(
            *(stores[i % 2].begin_turn(ANN, "c", [user(str(i))], lease=LONG) for i in range(self.writers))
        )
        assert [t.state for t in done] == ["started"]
        assert {type(e) for e in errors} == {ConversationBusy}
        assert await store.tail(ANN, "c") == done[0].appended.messages

    async def test_of_equal_turns_at_once_one_begins_and_the_others_join(self, store: Store) -> None:
        done, errors = await _outcomes(
            *(store.begin_turn(ANN, "c", [user("q", id="q")], create=True, lease=LONG) for _ in range(self.writers))
        )
        assert errors == []
        assert sorted(t.state for t in done) == ["running"] * (self.writers - 1) + ["started"]
        assert len({_answer_id(t) for t in done}) == 1
        assert sum(1 for t in done if t.answer is not None and t.answer.token) == 1

    async def test_of_equal_finishes_at_once_one_is_stored(self, store: Store) -> None:
        answer = await begin(store, "q")
        done, errors = await _outcomes(*(finish(store, answer) for _ in range(8)))
        assert errors == []
        assert sum(a.previous_etag != a.etag for a in done) == 1
        assert texts(await store.tail(ANN, "c")) == ["q", "done"]

    async def test_appends_while_it_is_deleted(self, store: Store) -> None:
        await say(store, "first")
        appends = [store.append(ANN, "c", [user(str(i))], create=True) for i in range(20)]
        _, errors = await _outcomes(*appends[:10], store.delete(ANN, "c"), *appends[10:])
        assert {type(e) for e in errors} <= {Gone}
        for call in (store.get(ANN, "c"), store.tail(ANN, "c")):
            done, missing = await _outcomes(call)
            assert (done, [type(e) for e in missing]) == ([], [NotFound])

    async def test_all_kinds_of_changes_at_once(self, store: Store) -> None:
        await say(store, "a", "b", "c")
        await say(store, "x", parent="a")

        async def version(change: Awaitable[Appended | Conversation]) -> int:
            return (await change).version

        done, errors = await _outcomes(
            *(version(store.append(ANN, "c", [user(f"n{i}")])) for i in range(10)),
            *(version(store.update(ANN, "c", title=str(i))) for i in range(5)),
            *(version(store.use_branch(ANN, "c", id)) for id in ("b", "x", "c")),
            version(store.delete_message(ANN, "c", "c")),
            *(version(store.append(ANN, "c", [user(f"m{i}")], parent="b")) for i in range(3)),
        )
        assert {type(e) for e in errors} <= {NotFound}  # use_branch of "c" may come behind its deletion
        assert sorted(done) == list(range(3, 3 + len(done)))
        now = await store.get(ANN, "c")
        assert (now.version, now.last_seq) == (2 + len(done), 4 + 13)

    async def test_a_call_whose_caller_left_may_be_repeated(self, store: Store) -> None:
        await store.create(ANN, id="c")
        for i in range(20):
            batch = [user(f"{i}", id=f"m{i}")]
            task = asyncio.ensure_future(store.append(ANN, "c", batch))
            for _ in range(i % 5):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])
            assert (await store.append(ANN, "c", batch)).messages[0].text == f"{i}"
        assert texts(await store.tail(ANN, "c", 100)) == [str(i) for i in range(20)]
        assert (await store.get(ANN, "c")).version == 20


def _answer_id(turn: Turn) -> str:
    assert turn.answer is not None
    return turn.answer.id
