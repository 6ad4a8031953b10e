"""What is stored brings nothing to life, half a checkpoint is none, and what is sealed stays unreadable."""

from __future__ import annotations

from typing import Any, TypedDict

import pytest
from langgraph.checkpoint.serde.encrypted import EncryptedSerializer
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from tests.adapters.graphs import Turned, chat, say, thread

import daram
from daram.adapters.langgraph import DaramSaver
from daram.adapters.langgraph.layout import Side
from daram.errors import ConfigError, NotFound, Unsupported
from daram.memory import Memory


@pytest.fixture
async def small() -> Any:
    async with daram.open("memory://") as memory:
        yield memory


async def test_a_checkpoint_without_one_of_its_parts_is_not_there(small: Memory) -> None:
    graph = chat(DaramSaver(small, owner="ann"))
    await say(graph, "one")
    known = {record.key for record in (await small.scan_records("ann", "langgraph.delta")).items}
    await say(graph, "two")
    # As a crash leaves it: the checkpoint arrived, what it added did not.
    for record in (await small.scan_records("ann", "langgraph.delta")).items:
        if record.key not in known:
            await small.delete_record("ann", "langgraph.delta", record.key)
    fresh = chat(DaramSaver(small, owner="ann"))
    state = await fresh.aget_state(thread("t"))
    texts = [m.text for m in state.values["messages"]]
    assert texts == ["one", "1: one", "two"]  # that it came in was a checkpoint before
    assert (await say(fresh, "three"))[:3] == [*texts[:2], "three"]


class Trap:
    sprung = 0

    def __init__(self, x: int = 0) -> None:
        Trap.sprung += 1
        self.x = x

    def model_dump(self) -> dict[str, int]:
        return {"x": self.x}


async def test_nothing_stored_comes_to_life_that_was_not_allowed(small: Memory) -> None:
    class Loose(TypedDict):
        thing: Any

    graph = chat(DaramSaver(small, owner="ann"), lambda state: {}, Loose)
    await graph.ainvoke({"thing": Trap()}, thread("t"))
    made = Trap.sprung
    assert (await graph.aget_state(thread("t"))).values["thing"] == {"x": 0}
    assert Trap.sprung == made
    allowed = chat(DaramSaver(small, owner="ann", types=[Trap]), lambda state: {}, Loose)
    assert isinstance((await allowed.aget_state(thread("t"))).values["thing"], Trap)


async def test_unsafe_serializers_and_stores_without_records_are_refused(small: Memory) -> None:
    for unsafe in (
        JsonPlusSerializer(pickle_fallback=True, allowed_msgpack_modules=None),
        JsonPlusSerializer(allowed_msgpack_modules=True),
    ):
        with pytest.raises(ConfigError):
            DaramSaver(small, serde=unsafe)
        with pytest.raises(ConfigError):
            DaramSaver(small, serde=EncryptedSerializer(Turned(), unsafe))

    with pytest.raises(Unsupported):
        DaramSaver(object())  # type: ignore[arg-type]


async def test_an_encrypting_serializer_leaves_nothing_readable(small: Memory) -> None:
    serde = EncryptedSerializer(Turned(), JsonPlusSerializer(allowed_msgpack_modules=None))
    for turn in range(20):
        texts = await say(chat(DaramSaver(small, owner="ann", serde=serde)), f"secret {turn}")
    assert len(texts) == 40
    with pytest.raises(NotFound):
        await small.get("ann", "t")
    for namespace in ("checkpoint", "write", "blob", "delta", "segment"):
        async for data in _opened(small, f"langgraph.{namespace}"):
            assert b"secret" not in data


async def _opened(memory: Memory, namespace: str) -> Any:
    async for _, data in Side(memory, "ann").scan(namespace, ""):
        yield data
