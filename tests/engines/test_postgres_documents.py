"""What only the PostgreSQL engine does with documents."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from tests.postgres import DOCUMENTS, Databases

from daram.store.documents_engine import STAGED_SECONDS
from daram.store.postgres import documents
from daram.store.postgres.engine import PostgresStore
from daram.testing.suite.documents import add, document, found, passage, publish


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
    monkeypatch.setattr(documents, "COMMON", 20)
    async with PostgresStore(await asyncio.to_thread(databases.url, tmp_path)) as store:
        texts = [f"the common forest {i}" for i in range(100)]
        texts[40] += " walnut"
        texts[60] += " walnut"
        await add(store, "d", *texts)
        assert await found(store, "common walnut") == [texts[40], texts[60]]
        assert len(await found(store, "common")) == 20  # where there is nothing else, they do
        assert await found(store, "common walnut", any_word=False) == [texts[40], texts[60]]
