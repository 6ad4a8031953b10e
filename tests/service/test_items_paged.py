"""Pages of items over every engine: behind any item, in both directions, along branches, over what was deleted."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.postgres import Databases
from tests.redis_servers import Places

import daram
from daram import ROOT, Memory, Message, Part
from daram.errors import NotFound
from daram.service.openai_api.items import items_of
from daram.service.openai_api.pages import Order, find_item, in_use, page_of_conversations, page_of_items
from daram.testing.servers import RedisServer

OWNER, ID = "ann", "conv_1"


@pytest.fixture(params=["memory", "sqlite", "cached", "postgres", "redis"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, str | None]:
    """Where the store is, and where its cache is."""
    if request.param == "memory":
        return "memory://", None
    if request.param == "postgres":
        databases: Databases = request.getfixturevalue("databases")
        return databases.url(tmp_path), None
    if request.param == "redis":
        server: RedisServer = request.getfixturevalue("redis_server")
        return Places(server).url(tmp_path), None
    return f"sqlite:///{tmp_path}/daram.db", "memory://" if request.param == "cached" else None


@pytest.fixture
async def memory(place: tuple[str, str | None]) -> AsyncIterator[Memory]:
    async with daram.open(*place) as opened:
        yield opened


def answer(id: str) -> Message:
    call = {"call_id": "c", "name": "f", "arguments": "{}"}
    parts = (Part(type="reasoning", data={"text": "hm"}), Part(type="tool_call", data=call))
    return Message(id=id, role="assistant", text=id, parts=parts)


async def furnish(memory: Memory) -> None:
    """q0 a0 q1 a1 … q4 a4, of which q2 is deleted and q4 was edited once."""
    await memory.create(OWNER, id=ID)
    for n in range(5):
        await memory.append(OWNER, ID, [daram.user(f"q{n}", id=f"q{n}"), answer(f"a{n}")])
    await memory.append(OWNER, ID, [daram.user("edited", id="e4")], parent="a3")
    await memory.delete_message(OWNER, ID, "q2")


async def shown(memory: Memory, order: Order, limit: int, after: str | None = None) -> list[str]:
    """All pages together, as ids."""
    found: list[str] = []
    while True:
        items, more = await page_of_items(memory, OWNER, ID, limit=limit, after=after, order=order)
        assert len(items) <= limit
        found += [item["id"] for item in items]
        if not more:
            return found
        assert len(items) == limit
        after = found[-1]


async def test_pages_of_items(memory: Memory) -> None:
    await furnish(memory)
    path = ["q0", "a0", "q1", "a1", "a2", "q3", "a3", "e4"]
    stored = [await memory.message(OWNER, ID, id) for id in path]
    ids = [item["id"] for message in stored for item in items_of(message)]
    assert len(ids) == len(set(ids)) == 4 * 3 + 4
    for limit in (1, 2, 5, 100):
        assert await shown(memory, "asc", limit) == ids
        assert await shown(memory, "desc", limit) == ids[::-1]
    for place, id in enumerate(ids):
        assert await shown(memory, "asc", 100, id) == ids[place + 1 :]
        assert await shown(memory, "desc", 100, id) == ids[:place][::-1]
        assert (await find_item(memory, OWNER, ID, id))[1]["id"] == id
    # Behind an item of another branch: back along that, and nothing in front.
    assert (await shown(memory, "desc", 100, "q4")) == ids[:-1][::-1]
    assert await shown(memory, "asc", 100, "q4") == []


async def test_which_branch_is_in_use(memory: Memory) -> None:
    await furnish(memory)

    async def used() -> set[str]:
        return {
            id
            for id in ("q0", "a3", "q4", "a4", "e4")
            if await in_use(memory, OWNER, ID, await memory.branches(OWNER, ID, id)) == id
        }

    assert await used() == {"q0", "a3", "e4"}
    await memory.use_branch(OWNER, ID, "q4")
    assert await used() == {"q0", "a3", "q4", "a4"}
    await memory.append(OWNER, ID, [daram.user("anew", id="r0")], parent=ROOT)
    assert await used() == set()


async def test_what_is_not_there(memory: Memory) -> None:
    await furnish(memory)
    for owner, conversation, item, what in (
        (OWNER, ID, "q2", "item"),
        (OWNER, ID, "rs_9_a0", "item"),
        (OWNER, ID, "fc_1_q2", "item"),
        (OWNER, "conv_2", "q0", "conversation"),
        ("ben", ID, "q0", "conversation"),
    ):
        with pytest.raises(NotFound) as caught:
            await find_item(memory, owner, conversation, item)
        assert caught.value.what == what
    with pytest.raises(NotFound):
        await page_of_items(memory, "ben", ID, limit=1, after=None, order="asc")


async def test_pages_of_conversations(memory: Memory) -> None:
    for n in range(7):
        await memory.create(OWNER, id=f"c{n}")
    await memory.append(OWNER, "c2", [daram.user("x")])
    wanted = ["c2", "c6", "c5", "c4", "c3", "c1", "c0"]
    for limit in (1, 3, 7):
        found: list[str] = []
        while True:
            after = found[-1] if found else None
            page = await page_of_conversations(memory, OWNER, limit=limit, after=after, cursor=None)
            found += [one.id for one in page.items]
            if page.next_cursor is None:
                break
        assert found == wanted
