"""What only the SQLite engine does with documents: what its file holds, what a search looks at, and what it costs."""

from __future__ import annotations

import asyncio
import sys
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random
from typing import Any

import apsw
import pytest
from msgspec import structs
from tests.faults.checks import check_file, check_passages
from tests.faults.test_sqlite_erasure import Secrets, contents, remains

from daram.errors import StoreReadOnly, Unsupported
from daram.store.documents import Document, Scope
from daram.store.documents_engine import STAGED_SECONDS
from daram.store.sqlite import passage_search, signs
from daram.store.sqlite.engine import SqliteStore
from daram.testing.suite.documents import MODEL, SCOPE, add, document, found, passage, publish, said


@pytest.fixture
def path(tmp_path: Path) -> Iterator[Path]:
    """The file, which is looked at from below when the test is over."""
    path = tmp_path / "daram.db"
    yield path
    check_file(path)
    check_passages(path)


def count(path: Path, table: str) -> int:
    db = apsw.Connection(str(path))
    try:
        return int(db.execute(f"SELECT count(*) FROM {table}").get)  # type: ignore[arg-type]
    finally:
        db.close()


async def test_what_was_never_published_is_purged_after_a_day(path: Path) -> None:
    now = 1_000_000_000_000
    store = SqliteStore(path, clock=lambda: now)
    stored = await store.put_document(document())
    await store.stage_passages("ann", "c", "d", "r", [passage(0, "never published")])
    now += (STAGED_SECONDS - 1) * 1_000_000
    await store.purge()
    await store.stage_passages("ann", "c", "d", "r", [passage(1, "still at it")])
    now += STAGED_SECONDS * 1_000_000
    await store.purge()
    done = await store.publish_document(stored, "r", expect=stored.etag)
    assert done.passages == 2
    await store.stage_passages("ann", "c", "d", "s", [passage(0, "never published")])
    now += (STAGED_SECONDS + 1) * 1_000_000
    await store.purge()
    assert (await store.publish_document(done, "s", expect=done.etag)).passages == 0
    await store.close()
    assert count(path, "passage") == 0


@pytest.mark.parametrize("seed", range(2))
async def test_deleted_passages_are_nowhere(path: Path, seed: int) -> None:
    secrets = Secrets(seed)
    kept: set[str] = set()
    async with SqliteStore(path) as store:
        for i in range(30):
            words = [secrets.word() for _ in range(6)]
            stored = await store.put_document(
                document(f"d{i}", collection=f"c{i % 4}", owner="ann" if i % 2 else "ben")
            )
            where = (stored.owner, stored.collection, stored.id)
            texts = [secrets.text(word) for word in words]
            stored = await publish(store, stored, *texts[:4])
            if i % 5 == 0:  # replaced
                stored = await publish(store, stored, texts[4], revision="next")
                words = words[4:5]
            elif i % 5 == 1:
                await store.delete_document(*where)
                words = []
            elif i % 5 == 2:  # begun, and given up
                await store.stage_passages(*where, "next", [passage(0, texts[5])])
                await store.discard_revision(*where, "next")
                words = words[:4]
            else:
                words = words[:4]
            if stored.owner == "ann" and stored.collection != "c1":
                kept.update(words)
        await store.delete_owner("ben")
        await store.delete_collection("ann", "c1")
        hits = {hit.passage.text for hit in await store.search_passages([Scope("ann", "c3")], "filler1 filler2 secret")}
        assert hits
    assert contents(path) == kept
    assert remains(path.parent) == kept


async def test_much_is_removed_in_steps_and_found_by_nothing(path: Path) -> None:
    async with SqliteStore(path) as store:
        stored = await store.put_document(document())
        for revision in ("old", "new"):
            for start in range(0, 900, 300):
                some = [passage(start + i, f"{revision} nut", [1, i, 0, 0]) for i in range(300)]
                await store.stage_passages("ann", "c", "d", revision, some)
            ready = structs.replace(stored, embedder=MODEL)
            stored = await store.publish_document(ready, revision, expect=stored.etag)
        assert set(await found(store, "nut")) == {"new nut"}
        assert await found(store, "old") == []
        near = await store.nearest_passages([SCOPE], [1, 0, 0, 0], MODEL, limit=1000)
        assert len(near) == 900
        async with asyncio.timeout(120):
            while count(path, "passage") > 900 or count(path, "vector") > 900 or count(path, "revision") > 1:
                await asyncio.sleep(0.05)


async def test_the_commonest_terms_choose_nothing_in_a_large_collection(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(passage_search, "_COUNTED", 20)
    monkeypatch.setattr(passage_search, "_CHOSEN", 10)
    async with SqliteStore(path) as store:
        texts = [f"the common forest {i}" for i in range(100)]
        texts[40] += " walnut"
        texts[60] += " walnut"
        await add(store, "d", *texts)
        assert await found(store, "common walnut") == [texts[40], texts[60]]
        assert len(await found(store, "common")) == 20  # where there is nothing else, they do
        assert await found(store, "common walnut", any_word=False) == [texts[40], texts[60]]
        # In a small collection all do.
        await add(store, "d", "common", "walnut", "leaf", collection="small")
        assert set(await found(store, "common walnut", Scope("ann", "small"))) == {"common", "walnut"}


async def test_the_bits_find_what_the_vectors_say(path: Path) -> None:
    """Recall of the first ten, on vectors in clusters as those of texts are."""
    random = Random(3)
    size, dimensions = 3000, 64

    def near(center: list[float], spread: float) -> list[float]:
        return [x + random.gauss(0, spread) for x in center]

    centers = [[random.gauss(0, 1) for _ in range(dimensions)] for _ in range(60)]
    vectors = [near(centers[i % 60], 0.7) for i in range(size)]
    async with SqliteStore(path, synchronous="OFF") as store:
        stored = await store.put_document(document())
        unit: list[array[float]] = []
        for start in range(0, size, 500):
            some = [passage(start + i, "x", vectors[start + i]) for i in range(500)]
            unit += [array("f", p.vector) for p in some if p.vector is not None]
            await store.stage_passages("ann", "c", "d", "r", some)
        await store.publish_document(structs.replace(stored, embedder=MODEL), "r", expect=stored.etag)
        right = 0
        for i in range(20):
            asked = near(centers[i], 0.5)
            cosines = [sum(a * b for a, b in zip(asked, vector, strict=True)) for vector in unit]
            best = sorted(range(size), key=lambda n: -cosines[n])[:10]
            hits = await store.nearest_passages([SCOPE], asked, MODEL, limit=10)
            right += len(set(best) & {hit.passage.seq for hit in hits})
        assert right >= 0.95 * 200


async def test_without_numpy_words_are_found(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with SqliteStore(path) as store:
        stored = await store.put_document(document())
        await store.stage_passages("ann", "c", "d", "r", [passage(0, "acorn", [1, 0, 0, 0])])
        await store.publish_document(structs.replace(stored, embedder=MODEL), "r", expect=stored.etag)
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, "numpy", None)
            assert await found(store, "acorn") == ["acorn"]
            with pytest.raises(Unsupported, match=r"daram\[documents\]"):
                await store.nearest_passages([SCOPE], [1, 0, 0, 0], MODEL)
        assert said(await store.nearest_passages([SCOPE], [1, 0, 0, 0], MODEL)) == ["acorn"]


async def test_a_file_that_is_read_only_is_searched(path: Path) -> None:
    async with SqliteStore(path) as store:
        await add(store, "d", "acorn")
    async with SqliteStore(path, read_only=True) as store:
        assert await found(store, "acorn") == ["acorn"]
        with pytest.raises(StoreReadOnly):
            await add(store, "e", "acorn")


async def test_a_backup_has_the_documents(path: Path, tmp_path: Path) -> None:
    async with SqliteStore(path) as store:
        stored = await add(store, "d", "acorn")
        await store.backup(str(tmp_path / "backup.db"))
        await store.delete_document("ann", "c", "d")
        await add(store, "e", "acorn that came later")
        await store.restore(str(tmp_path / "backup.db"))
        assert await found(store, "acorn") == ["acorn"]
        again = await store.get_document("ann", "c", "d")
        assert again.etag != stored.etag
        assert structs.replace(again, etag=stored.etag) == stored


@pytest.mark.parametrize(
    ("damage", "where"),
    [
        ("DELETE FROM document", "table revision"),
        ("DELETE FROM revision", "table passage"),
        ("DELETE FROM passage WHERE id & 1", "table vector"),
        ("DELETE FROM passage_search WHERE rowid & 1", "the index of documents"),
        ("UPDATE passage SET text = 'other words'", "the index of documents"),
    ],
)
async def test_check_finds_and_mends(tmp_path: Path, damage: str, where: str) -> None:
    path = tmp_path / "daram.db"
    async with SqliteStore(path) as store:
        stored: Document = await store.put_document(document())
        await store.stage_passages("ann", "c", "d", "r", [passage(i, f"acorn {i}", [1, 0, 0, 0]) for i in range(4)])
        await store.publish_document(structs.replace(stored, embedder=MODEL), "r", expect=stored.etag)
        assert await store.check() == []
    db = apsw.Connection(str(path))
    db.execute(damage)
    db.close()
    async with SqliteStore(path) as store:
        assert where in {problem.where for problem in await store.check()}
        mended: list[Any] = await store.check(repair=True)
        assert all(p.repaired for p in mended if p.where != "table document")
    async with SqliteStore(path) as store:
        assert {p.where for p in await store.check()} <= {"table document"}
    check_file(path)


async def test_the_signs_are_read_once_and_never_stale(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever changes what a search by meaning finds is seen by the next one, of this process and of another."""
    read: list[object] = []
    real = signs._pieces

    def pieces(db: apsw.Connection, *what: Any) -> Iterator[signs.Piece]:
        read.append(what)
        return real(db, *what)

    monkeypatch.setattr(signs, "_pieces", pieces)
    async with SqliteStore(path) as store, SqliteStore(path) as other:

        async def near(vector: Sequence[float] = (1, 0, 0, 0)) -> list[str]:
            return sorted(said(await store.nearest_passages([SCOPE], vector, MODEL)))

        async def add_one(id: str, text: str) -> None:
            stored = await other.put_document(document(id))
            await other.stage_passages("ann", "c", id, "r", [passage(0, text, [1, 0, 0, 0])])
            assert text not in await near()  # staged only
            await other.publish_document(structs.replace(stored, embedder=MODEL), "r", expect=stored.etag)

        await add_one("d", "acorn")
        assert await near() == ["acorn"]
        count = len(read)
        assert await near() == ["acorn"]
        await other.create("ann")  # what is said changes nothing
        await other.put_document(structs.replace(await other.get_document("ann", "c", "d"), title="Forest"))
        assert await near([0, 1, 0, 0]) == ["acorn"]
        assert len(read) == count
        await add_one("e", "walnut")
        assert await near() == ["acorn", "walnut"]
        await add(other, "f", "beech")  # without a vector
        assert await near() == ["acorn", "walnut"]
        missing = await other.unembedded(MODEL)
        await other.put_vectors(MODEL, [(place, array("f", [1, 0, 0, 0]).tobytes()) for place in missing])
        assert await near() == ["acorn", "beech", "walnut"]
        await store.backup(str(path.with_name("backup.db")))
        await other.delete_document("ann", "c", "e")
        assert await near() == ["acorn", "beech"]
        await other.delete_owner("ann")
        assert await near() == []


async def test_collections_that_are_most_of_all_hide_nothing_of_theirs(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are not asked for in the index; where others fill the candidates, they are."""
    monkeypatch.setattr(passage_search, "_SPARE", 1)
    async with SqliteStore(path, synchronous="OFF") as store:
        await add(store, "d", "acorn and some more words that make it long", *("leaf",) * 9)
        await add(store, "e", *("acorn",) * 5, collection="other")
        assert await found(store, "acorn") == ["acorn and some more words that make it long"]


async def test_how_many_have_a_common_term_is_judged_by_where_the_counted_ones_end(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(passage_search, "_COUNTED", 20)
    async with SqliteStore(path, synchronous="OFF") as store:
        for i in range(50):  # many small documents, then a large one
            await add(store, f"d{i}", "leaf" if i % 2 else "forest")
        await add(store, "large", *("forest", "leaf") * 100)
    db = apsw.Connection(str(path))
    judged = passage_search._statistics(db, [("forest", True), ("walnut", True)])
    db.close()
    assert judged.documents == 250
    assert 100 <= judged.having[0] <= 150  # 125 have it; of the revisions the counted ones are the greater part
    assert judged.having[1] == 0
