"""What only the PostgreSQL engine does with documents."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from msgspec import structs
from tests.postgres import DOCUMENTS, Databases, check_passages

from daram.store.documents import Scope
from daram.store.documents_engine import STAGED_SECONDS
from daram.store.postgres import check, documents
from daram.store.postgres.engine import PostgresStore
from daram.testing.suite.documents import MODEL, add, document, found, passage, publish


def rows(databases: Databases, where: Path) -> dict[str, int]:
    """How many rows each table of documents has."""
    with databases.server.connect(databases.name(where)) as connection:
        return {name: connection.execute(f"SELECT count(*) FROM daram.{name}").fetchone()[0] for name in DOCUMENTS}


async def test_what_was_never_published_is_purged_after_a_day(databases: Databases, tmp_path: Path) -> None:
    async with PostgresStore(await asyncio.to_thread(databases.url, tmp_path)) as store:
        stored = await add(store, "d", "published")
        await store.stage_passages("ann", "c", "d", "old", [passage(0, "nut", [1, 0])])
        await store.stage_passages("ann", "c", "d", "new", [passage(0, "nut", [1, 0])])
        with databases.server.connect(databases.name(tmp_path)) as connection:
            connection.execute(
                "UPDATE daram.revision SET staged_at = staged_at - %s WHERE name IN ('old', 'r')",
                ((STAGED_SECONDS + 1) * 1_000_000,),
            )
        await store.purge()
        assert rows(databases, tmp_path) == {"document": 1, "revision": 2, "passage": 2, "passage_vector": 1}
        assert await found(store, "published") == ["published"]
        assert (await store.publish_document(stored, "new", expect=stored.etag)).passages == 1


async def test_nothing_is_left_of_what_was_replaced_or_deleted(databases: Databases, tmp_path: Path) -> None:
    async with PostgresStore(await asyncio.to_thread(databases.url, tmp_path)) as store:
        stored = await store.put_document(document())
        for revision in ("a", "b"):
            await store.stage_passages("ann", "c", "d", "beside", [passage(0, "nut", [1, 0])])
            stored = await publish(store, stored, "one", "two", revision=revision)
        assert rows(databases, tmp_path) == {"document": 1, "revision": 1, "passage": 2, "passage_vector": 0}
        assert (await store.describe())["documents"].startswith("1,")
        await store.delete_document("ann", "c", "d")
        assert set(rows(databases, tmp_path).values()) == {0}


async def test_the_commonest_terms_choose_nothing(
    databases: Databases, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(documents, "_CHOSEN", 20)
    monkeypatch.setattr(documents, "_PROBED", 10)
    async with PostgresStore(await asyncio.to_thread(databases.url, tmp_path)) as store:
        texts = [f"the common forest {i}" for i in range(100)]
        texts[40] += " walnut"
        texts[60] += " walnut"
        await add(store, "d", *texts)
        assert await found(store, "common walnut") == [texts[40], texts[60]]
        assert len(await found(store, "common")) == 20  # where there is nothing else, they do
        assert await found(store, "common walnut", any_word=False) == [texts[40], texts[60]]


DAMAGE = [
    ("DELETE FROM document", "table revision"),
    ("UPDATE document SET live = NULL", "table revision"),
    ("UPDATE revision SET staged_at = 0 WHERE staged", "table revision"),
    ("DELETE FROM revision", "table passage"),
    ("DELETE FROM passage WHERE seq % 2 = 1", "table passage_vector"),
    ("UPDATE passage_vector SET value = '' WHERE seq = 1", "table passage_vector"),
    ("UPDATE passage_vector SET place = 7 WHERE seq = 1", "table passage_vector"),
    ("DELETE FROM passage_vector WHERE seq = 1", "table document"),
    ("UPDATE passage SET text = 'other words' WHERE seq = 1", "the index of documents"),
    ("UPDATE passage SET terms = NULL WHERE seq = 1", "the index of documents"),
]


@pytest.mark.parametrize(("damage", "where"), DAMAGE)
async def test_check_finds_and_mends(databases: Databases, tmp_path: Path, damage: str, where: str) -> None:
    async with PostgresStore(await asyncio.to_thread(databases.url, tmp_path)) as store:
        stored = await store.put_document(document())
        for revision in ("r", "staged"):
            some = [passage(i, f"acorn {i}", [1, 0, 0, 0]) for i in range(4)]
            await store.stage_passages("ann", "c", "d", revision, some)
            if revision == "r":
                stored = await store.publish_document(structs.replace(stored, embedder=MODEL), "r", expect=stored.etag)
        assert await store.check() == []
        with databases.server.connect(databases.name(tmp_path)) as connection:
            connection.execute(b"SET search_path = daram")
            connection.execute(damage.encode())
        assert where in {problem.where for problem in await store.check()}
        mended = await store.check(repair=True)
        lost = [problem for problem in mended if not problem.repaired]
        assert lost == await store.check()
        assert all("read them again" in problem.what for problem in lost)
        if lost:
            assert damage.startswith(("DELETE FROM revision", "DELETE FROM passage WHERE", "UPDATE document"))
        else:
            check_passages(databases, tmp_path)


async def test_check_goes_through_many_pages(
    databases: Databases, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(check, "_PAGE", 3)
    async with PostgresStore(await asyncio.to_thread(databases.url, tmp_path)) as store:
        for i in range(6):
            await add(store, f"d{i}", "acorn", "", "nut", owner=f"o{i % 2}")
        with databases.server.connect(databases.name(tmp_path)) as connection:
            connection.execute(b"UPDATE daram.passage SET length = 7 WHERE seq <> 1")
        assert [(p.what[:2], p.repaired) for p in await store.check(repair=True)] == [("12", True)]
        assert await store.check() == []


async def test_vectors_that_are_lost_are_made_again(databases: Databases, tmp_path: Path) -> None:
    async with PostgresStore(await asyncio.to_thread(databases.url, tmp_path)) as store:
        stored = await store.put_document(document())
        await store.stage_passages("ann", "c", "d", "r", [passage(i, "nut", [1, 0, 0, 0]) for i in range(3)])
        await store.publish_document(structs.replace(stored, embedder=MODEL), "r", expect=stored.etag)
        with databases.server.connect(databases.name(tmp_path)) as connection:
            connection.execute(b"DELETE FROM daram.passage_vector WHERE seq = 1")
        assert await store.unembedded(MODEL) == []
        assert all(problem.repaired for problem in await store.check(repair=True))
        missing = await store.unembedded(MODEL)
        assert [place.seq for place in missing] == [1]
        await store.put_vectors(MODEL, [(missing[0], passage(1, "", [0, 1, 0, 0]).vector or b"")])
        assert (await store.get_document("ann", "c", "d")).embedder == MODEL
        near = await store.nearest_passages([Scope("ann", "c")], [0, 1, 0, 0], MODEL, limit=1)
        assert [hit.passage.seq for hit in near] == [1]
