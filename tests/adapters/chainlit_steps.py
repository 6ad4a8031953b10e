"""Steps as Chainlit makes them, and what it does before it calls the data layer."""

from __future__ import annotations

import uuid
from typing import Any

from tests.chainlit_home import load_chainlit

from daram.memory import Memory

load_chainlit()

from chainlit.context import init_http_context  # noqa: E402
from chainlit.types import Pagination, ThreadFilter  # noqa: E402
from chainlit.user import PersistedUser  # noqa: E402

from daram.adapters.chainlit import DaramDataLayer  # noqa: E402
from daram.adapters.chainlit import records as chainlit_records  # noqa: E402

ALICE = PersistedUser(id="alice", identifier="alice", createdAt="2026-01-01T00:00:00Z", metadata={})
BOB = PersistedUser(id="bob", identifier="bob", createdAt="2026-01-01T00:00:00Z", metadata={})


def enter(user: PersistedUser | None = ALICE, thread: str = "t1") -> None:
    """Do as Chainlit does before it calls the layer for this user and thread."""
    init_http_context(thread_id=thread, user=user)


def step(text: str, *, id: str | None = None, type: str = "user_message", thread: str = "t1", **more: Any) -> Any:
    """A step as Chainlit's ``to_dict`` gives it."""
    return {
        "id": id or str(uuid.uuid4()),
        "threadId": thread,
        "parentId": None,
        "name": "x",
        "type": type,
        "input": "",
        "output": text,
        "createdAt": "2026-01-01T00:00:00Z",
        "streaming": False,
        "isError": False,
        "metadata": {},
        "tags": None,
    } | more


def texts(thread: Any) -> list[str]:
    return [s["output"] for s in thread["steps"] if s["type"].endswith("_message")]


async def all_records(store: Memory, owner: str = "alice") -> list[str]:
    found = []
    for namespace in chainlit_records.OF_A_THREAD:
        page = await store.scan_records(owner, namespace, limit=1000)
        found += [f"{namespace} {record.key}" for record in page.items]
    return found


def at(second: int) -> str:
    return f"2026-01-01T00:00:{second:02}.000001Z"


async def pages(layer: DaramDataLayer, first: int, **filters: Any) -> list[Any]:
    """The threads of alice, page by page."""
    found, cursor = [], None
    while True:
        page = await layer.list_threads(Pagination(first=first, cursor=cursor), ThreadFilter(userId="alice", **filters))
        assert len(page.data) <= first
        found.append(page.data)
        if not page.pageInfo.hasNextPage:
            return found
        cursor = page.pageInfo.endCursor
        assert cursor
