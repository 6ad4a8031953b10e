"""What ends by itself, what is given up, and what goes with its owner."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner
from tests.postgres import Databases

import daram
from daram.cli.app import cli
from daram.errors import InvalidInput, NotFound
from daram.knowledge import expiry
from daram.knowledge.base import BLOBS, FILES, HOUSE, UPLOADS, library
from daram.knowledge.documents import Documents
from daram.knowledge.ingest import CANCELLED
from daram.memory import Memory
from daram.store.documents import Scope
from daram.transfer.copy import scanned_records
from daram.transfer.documents import scanned_documents

pytestmark = pytest.mark.usefixtures("in_process")
TEXT = b"The acorn is under the birch."


async def test_a_file_ends_with_what_was_made_of_it(memory: Memory, documents: Documents) -> None:
    end = datetime.now(UTC) + timedelta(hours=1)
    file = await documents.files.put("ann", "a.txt", TEXT, expires_at=end)
    await documents.create("ann", id="c")
    await documents.add_file("ann", "c", file.id, wait=True)
    await documents.ingester.sweep()
    assert (await documents.files.get("ann", file.id)).expires_at == end
    assert (await documents.search("ann", "acorn", "c")).passages
    # As an hour later.
    past = datetime.now(UTC) - timedelta(seconds=1)
    for namespace, key in ((FILES, file.id), (BLOBS, f"{file.id}/00000000")):
        record = await memory.get_record("ann", namespace, key)
        assert record is not None
        assert record.expires_at == end
        await memory.put_record("ann", namespace, key, record.value, expires_at=past)
    note = await memory.get_record(HOUSE, UPLOADS, file.id)
    assert note is not None
    due = msgspec.json.decode(note.value) | {"due": past.timestamp()}
    await memory.put_record(HOUSE, UPLOADS, file.id, msgspec.json.encode(due))
    with pytest.raises(NotFound):
        await documents.files.get("ann", file.id)
    await documents.ingester.sweep()
    assert (await documents.list("ann", "c")).items == []
    assert (await documents.search("ann", "acorn", "c")).passages == []
    assert await memory.get_record(HOUSE, UPLOADS, file.id) is None


async def test_a_collection_ends_where_nobody_uses_it(memory: Memory, documents: Documents) -> None:
    made = await documents.create("ann", id="c", expires_days=3)
    await documents.add("ann", "c", TEXT, name="a.txt", wait=True)
    used = await documents.collections.update("ann", "c", active_at=datetime.now(UTC) - timedelta(days=2))
    await documents.ingester.sweep()
    assert not used.expired
    assert len((await documents.list("ann", "c")).items) == 1
    active = (await expiry.use(documents.collections, used)).active_at
    assert active is not None
    assert active > made.created_at
    old = await documents.collections.update("ann", "c", active_at=datetime.now(UTC) - timedelta(days=3))
    assert old.expired
    with pytest.raises(InvalidInput, match="has expired"):
        await expiry.use(documents.collections, old)
    await documents.ingester.sweep()
    assert (await documents.list("ann", "c")).items == []
    assert (await memory.scan_records("ann", FILES)).items == []
    assert (await documents.collections.get("ann", "c")).expired  # it says so until it is deleted


async def test_what_waits_can_be_given_up(documents: Documents) -> None:
    document = await documents.add("ann", "c", TEXT, name="a.txt")
    cancelled = await documents.cancel("ann", "c", document.id)
    assert (cancelled.state, cancelled.error) == ("failed", CANCELLED)
    await documents.ingester.sweep()
    assert (await documents.get("ann", "c", document.id)).state == "failed"
    again = await documents.add("ann", "c", TEXT, name="a.txt", wait=True)
    assert (again.state, again.error) == ("ready", None)
    assert await documents.cancel("ann", "c", document.id) == again  # it is read: there is nothing to give up


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/daram.db"
    databases: Databases = request.getfixturevalue("databases")
    return databases.url(tmp_path)


@pytest.mark.parametrize("door", ["memory", "sync", "terminal"])
async def test_an_owner_goes_with_all_documents(place: str, door: str) -> None:
    async with daram.open(place) as memory:
        documents = Documents(memory)
        for owner in ("ann", "ben"):
            await memory.append(owner, "chat", [daram.user("hello")], create=True)
            await documents.create(owner, id="c", expires_days=3)
            await documents.add(owner, "c", TEXT, name="a.txt", wait=True)
            await documents.attach(owner, "chat", TEXT, name="b.txt", wait=True)
            end = datetime.now(UTC) + timedelta(days=1)
            file = await documents.files.put(owner, "f.txt", TEXT, expires_at=end)
            await documents.add_file(owner, "c", file.id, wait=True)
            await documents.batches.create(Scope(owner, "c"), [file.id])
            await documents.put_reference(owner, "BOOKS", 1, "One", "The acorn. " * 20)
    if door == "memory":
        async with daram.open(place) as memory:
            await memory.delete_owner("ann")
    elif door == "sync":

        def erase() -> None:
            with daram.sync.open(place) as blocking:
                blocking.delete_owner("ann")

        await asyncio.to_thread(erase)
    else:
        arguments = ["erase", "ann", "--yes", "--store", place]
        result = await asyncio.to_thread(CliRunner().invoke, cli, arguments)
        assert result.exit_code == 0, result.output
    async with daram.open(place) as memory:
        store = library(memory)
        left = [document.owner async for page in scanned_documents(store) for document in page]
        assert set(left) == {"ben"}
        records = [record async for page in scanned_records(memory) for record in page]
        assert {record.owner for record in records} == {"ben", HOUSE}
        assert not [record for record in records if b'"ann"' in record.record.value]
        scopes = [Scope("ann", "c"), Scope("ann", "conversation:chat")]
        assert await store.search_passages(scopes, "acorn") == []
        assert len(await store.search_passages([Scope("ben", "c")], "acorn")) == 2
