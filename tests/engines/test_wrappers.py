"""What stands between a program and an engine: the wrapper, the faults by script, the synchronous face as a store."""

from __future__ import annotations

import asyncio

import pytest

from daram import sync
from daram.errors import NotFound, OutcomeUnknown, StoreClosed, StoreFull, StoreUnavailable, SyncInAsync, Unsupported
from daram.memory import Memory
from daram.model import user
from daram.store.base import Store, SupportsRecords
from daram.store.memory import MemoryStore
from daram.store.wrapper import StoreWrapper
from daram.testing import AsyncOverSync, FaultyStore
from daram.testing.faulty import Fault


def without_records() -> Store:
    """An engine that has the operations of ``Store`` and no others."""

    class Bare(Store):
        def __init__(self) -> None:
            self._engine = MemoryStore()

    for name in Store.__abstractmethods__:

        def forward(self: Bare, *args: object, _name: str = name, **kwargs: object) -> object:
            return getattr(self._engine, _name)(*args, **kwargs)

        setattr(Bare, name, forward)
    Bare.__abstractmethods__ = frozenset()
    return Bare()


@pytest.mark.parametrize("wrapper", [StoreWrapper, FaultyStore])
async def test_a_wrapper_around_an_engine_without_records_refuses_them(wrapper: type[StoreWrapper]) -> None:
    store = wrapper(without_records())
    await store.append("ann", "c", [user("x")], create=True)
    assert [m.text for m in await store.tail("ann", "c")] == ["x"]
    with pytest.raises(Unsupported, match="Bare"):
        await store.get_record("ann", "n", "k")
    with pytest.raises(Unsupported, match="Bare"):
        await store.put_record("ann", "n", "k", b"")
    with pytest.raises(Unsupported, match="Bare"):
        await store.delete_record("ann", "n", "k")
    with pytest.raises(Unsupported, match="Bare"):
        await store.scan_records("ann", "n")
    with pytest.raises(Unsupported, match="Bare keeps no documents; they need SQLite or PostgreSQL"):
        await store.get_document("ann", "c", "d")


async def test_planned_faults_happen_in_order_and_once() -> None:
    store = FaultyStore(MemoryStore())
    store.plan("append", Fault(kind="raise"), None, Fault(kind="act then raise"))
    with pytest.raises(StoreUnavailable):
        await store.append("ann", "c", [user("a")], create=True)
    with pytest.raises(NotFound):
        await store.get("ann", "c")
    await store.append("ann", "c", [user("b", id="b")], create=True)
    assert store.pending == {"append": 1}
    with pytest.raises(OutcomeUnknown):
        await store.append("ann", "c", [user("c", id="c")])
    assert store.pending == {}
    done = await store.append("ann", "c", [user("c", id="c")])
    assert done.etag == done.previous_etag
    assert [m.text for m in await store.tail("ann", "c")] == ["b", "c"]
    assert store.calls == ["append", "get", "append", "append", "append", "tail"]


async def test_a_lasting_fault_lasts_until_it_is_healed() -> None:
    store = FaultyStore(MemoryStore())
    store.always("put_record", Fault(kind="raise", error=lambda: StoreFull("no space")))
    assert isinstance(store, SupportsRecords)
    for _ in range(3):
        with pytest.raises(StoreFull, match="no space"):
            await store.put_record("ann", "n", "k", b"")
    store.heal()
    await store.put_record("ann", "n", "k", b"")


@pytest.mark.parametrize(("kind", "stored"), [("hang", []), ("act then hang", ["x"])])
async def test_a_call_that_hangs_can_be_cancelled(kind: str, stored: list[str]) -> None:
    store = FaultyStore(MemoryStore())
    await store.create("ann", id="c")
    store.plan("append", Fault(kind=kind))  # type: ignore[arg-type]
    task = asyncio.ensure_future(store.append("ann", "c", [user("x")]))
    done, _ = await asyncio.wait([task], timeout=0.05)
    assert not done
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert [m.text for m in await store.tail("ann", "c")] == stored


async def test_a_delayed_call_comes_in_the_end() -> None:
    store = FaultyStore(MemoryStore())
    store.plan("create", Fault(kind="delay", seconds=0.001))
    assert (await store.create("ann", id="c")).id == "c"


def test_faults_of_unknown_operations_are_refused() -> None:
    for name in ("appendd", "_records", "inner"):
        with pytest.raises(ValueError, match=name):
            FaultyStore(MemoryStore()).plan(name, Fault(kind="raise"))


async def test_the_synchronous_face_as_a_store_raises_what_the_face_raises() -> None:
    face = sync.Memory(Memory(MemoryStore(), "memory://"))
    store = AsyncOverSync(face)
    with pytest.raises(SyncInAsync):
        face.get("ann", "c")
    with pytest.raises(NotFound):
        await store.get("ann", "c")
    await store.close()
    await store.close()
    with pytest.raises(StoreClosed):
        await store.get("ann", "c")
