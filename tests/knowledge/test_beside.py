"""Conversations in an engine that keeps no documents, the documents in another store beside it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

import daram
from daram.errors import ConfigError, NotFound, Unsupported
from daram.knowledge.documents import Documents
from daram.memory import Memory
from daram.testing.servers.redis import RedisServer

TEXT = "Employees earn two days of paid leave. 직원은 유급 휴가를 이틀 받는다.".encode()

pytestmark = pytest.mark.usefixtures("in_process")


@pytest.fixture
def beside(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/documents.db"


@pytest.fixture
async def memory(redis_server: RedisServer, beside: str) -> AsyncIterator[Memory]:
    redis_server.flush()
    async with daram.open(redis_server.url_of(), documents=beside) as memory:
        yield memory


async def held(url: str) -> tuple[int, int]:
    """Documents of ann's conversation in the store beside, and her records."""
    async with daram.open(url) as library:
        documents = await library.list_documents("ann", "conversation:work")
        records = [await library.scan_records("ann", name) for name in ("documents.binding", "documents.file")]
        return len(documents.items), sum(len(page.items) for page in records)


async def test_an_upload_is_found_and_goes_with_its_conversation(memory: Memory, beside: str) -> None:
    documents = Documents(memory)
    await memory.create("ann", id="work")
    document = await documents.attach("ann", "work", TEXT, name="leave.txt", wait=True)
    assert document.state == "ready"
    where = daram.Scope("ann", "conversation:work")
    for question in ("How many days of paid leave?", "유급 휴가"):
        assert (await documents.search("ann", question, where)).answers
    binding = await documents.binding("ann", "work")
    assert binding is not None and binding.uploads
    assert (await held(beside))[0] == 1
    await memory.delete("ann", "work")
    assert await held(beside) == (0, 0)
    with pytest.raises(NotFound):
        await documents.get("ann", where, document.id)


async def test_an_owner_who_is_erased_is_gone_from_both(memory: Memory, beside: str) -> None:
    documents = Documents(memory)
    await memory.create("ann", id="work")
    await documents.attach("ann", "work", TEXT, name="leave.txt", wait=True)
    await documents.add("ann", "handbook", TEXT, name="leave.txt", wait=True)
    assert await memory.delete_owner("ann") == 1
    assert await held(beside) == (0, 0)
    assert not await documents.list_collections("ann")


async def test_what_expired_conversations_held_is_swept_from_the_store_beside(memory: Memory, beside: str) -> None:
    documents = Documents(memory)
    await memory.create("ann", id="work")
    await documents.attach("ann", "work", TEXT, name="leave.txt", wait=True)
    await memory.inner.delete("ann", "work")  # as the server does with what has expired: nobody here hears of it
    assert (await held(beside))[0] == 1
    await memory.purge()
    assert await held(beside) == (0, 0)


async def test_without_one_beside_it_is_said_what_to_set(redis_server: RedisServer) -> None:
    async with daram.open(redis_server.url_of()) as memory:
        with pytest.raises(Unsupported, match="set DARAM_DOCUMENTS to the URL of one"):
            Documents(memory)
    with pytest.raises(ConfigError, match="RedisStore keeps no documents; name an SQLite or a PostgreSQL store"):
        await daram.open("memory://", documents=redis_server.url_of())
