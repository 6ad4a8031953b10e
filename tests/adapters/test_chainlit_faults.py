"""What goes wrong under Chainlit's data layer: a process that is killed, a caller that is cancelled."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.chainlit_home import load_chainlit
from tests.faults.children import environment

import daram
from daram.errors import Conflict, InvalidInput, StoreUnavailable
from daram.memory import Memory
from daram.store.wrapper import StoreWrapper

load_chainlit()

from chainlit.context import init_http_context  # noqa: E402
from chainlit.types import Feedback  # noqa: E402
from chainlit.user import PersistedUser  # noqa: E402

from daram.adapters.chainlit import DaramDataLayer  # noqa: E402
from daram.adapters.chainlit import lines as chainlit_lines  # noqa: E402
from daram.adapters.chainlit import records as chainlit_records  # noqa: E402

CHILD = Path(__file__).with_name("crash_chainlit.py")


def step(text: str, id: str, type: str = "user_message", thread: str = "t1", **more: Any) -> Any:
    return {"id": id, "threadId": thread, "parentId": None, "type": type, "output": text, "name": "ann"} | more


async def shown(layer: DaramDataLayer, thread: str = "t1") -> list[str]:
    found: Any = await layer.get_thread(thread)
    return [s["output"] for s in found["steps"] if s["type"].endswith("_message")]


async def test_what_the_layer_acknowledged_outlives_kill(url: str, tmp_path: Path) -> None:
    async with await daram.open(url):
        pass  # the server has its tables before the child comes
    with subprocess.Popen(
        [sys.executable, str(CHILD), url, str(tmp_path / "home")],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd=tmp_path,
    ) as process:
        assert process.stdout is not None
        try:
            while await asyncio.to_thread(process.stdout.readline) != b"5\n":
                assert process.poll() is None
        finally:
            process.kill()
        told = process.stdout.read().split()
    acknowledged = int(told[-1]) if told else 5
    async with await daram.open(url) as memory:
        layer = DaramDataLayer(memory, owner="ann", history=1000)
        init_http_context(thread_id="told", user=None)
        texts = await shown(layer, "told")
        whole = [text for n in range(acknowledged + 1) for text in (f"ask {n}", f"said {n}")]
        begun = (f"ask {acknowledged + 1}", f"say {acknowledged + 1}", f"said {acknowledged + 1}")
        assert texts[: len(whole)] == whole and set(texts[len(whole) :]) <= set(begun)
        thread: Any = await layer.get_thread("told")
        assert {s["parentId"] for s in thread["steps"] if s["type"] == "run"} >= {
            f"user_message-{n}" for n in range(acknowledged + 1)
        }
        # Nobody acknowledged those that Chainlit sent, but what is there is all that came before.
        sent = [message.text for message in await memory.tail("ann", "sent", 1000)]
        assert sent == [f"{n // 3}.{n % 3}" for n in range(len(sent))] and len(sent) >= acknowledged
        # The process that takes over writes on, and what it writes once more is there once.
        await layer.create_step(step("ask 0", "user_message-0", thread="told"))
        await layer.create_step(step("on", "on", thread="told"))
        assert await shown(layer, "told") == [*texts, "on"]


class Gate(StoreWrapper):
    """Holds each append behind its commit until it is let go."""

    def __init__(self, inner: Memory) -> None:
        super().__init__(inner)
        self.stored = asyncio.Event()
        self.go = asyncio.Event()

    async def append(self, *args: Any, **kwargs: Any) -> Any:
        found = await super().append(*args, **kwargs)
        self.stored.set()
        await self.go.wait()
        return found


async def test_a_write_whose_caller_is_cancelled_is_whole_and_nobody_overtakes_it(memory: Memory) -> None:
    gate = Gate(memory)
    layer = DaramDataLayer(gate, owner="ann")
    init_http_context(thread_id="t1", user=None)
    first, second, third = (
        asyncio.create_task(layer.create_step(step(text, text, metadata={"is": text})))
        for text in ("first", "second", "third")
    )
    changed = asyncio.create_task(layer.update_step(step("first, changed", "first", metadata={"is": "changed"})))
    await gate.stored.wait()
    first.cancel()  # in the middle of its write
    second.cancel()  # in line
    await asyncio.sleep(0.05)
    assert second.done() and not first.done() and not third.done()
    assert [message.text for message in await memory.tail("ann", "t1")] == ["first"]
    gate.go.set()
    for cancelled in (first, second):
        with pytest.raises(asyncio.CancelledError):
            await cancelled
    await asyncio.gather(third, changed)
    assert [message.text for message in await memory.tail("ann", "t1")] == ["first", "third"]
    thread: Any = await layer.get_thread("t1")
    assert [(s["output"], s["metadata"]) for s in thread["steps"]] == [
        ("first, changed", {"is": "changed"}),
        ("third", {"is": "third"}),
    ]


class Away(StoreWrapper):
    """Answers nothing while it is ``away``, and the first append never where it ``hangs``."""

    away = False
    hangs = False

    async def _answer(self) -> None:
        if self.away:
            raise StoreUnavailable("nobody answers")

    async def append(self, *args: Any, **kwargs: Any) -> Any:
        await self._answer()
        if self.hangs:
            self.hangs = False
            await asyncio.Event().wait()
        return await super().append(*args, **kwargs)

    async def get(self, *args: Any, **kwargs: Any) -> Any:
        await self._answer()
        return await super().get(*args, **kwargs)


@pytest.fixture
def away(memory: Memory) -> Away:
    return Away(memory)


async def test_deleting_a_thread_waits_for_no_other_try(
    memory: Memory, away: Away, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chainlit_lines, "_AGAIN", (60.0,))
    layer = DaramDataLayer(away, owner="ann")
    init_http_context(thread_id="t1", user=None)
    await layer.create_step(step("hi", "first"))
    away.away = True
    late = [asyncio.create_task(layer.create_step(step("late", str(n)))) for n in range(5)]
    await asyncio.sleep(0.05)
    away.away = False
    async with asyncio.timeout(10):
        await layer.delete_thread("t1")
        await asyncio.gather(*late)
    assert (await memory.list("ann")).items == []


async def test_a_call_that_hangs_holds_nobody_up_for_ever(
    memory: Memory, away: Away, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chainlit_lines, "_TRY", 0.5)
    layer = DaramDataLayer(away, owner="ann")
    init_http_context(thread_id="t1", user=None)
    away.hangs = True
    async with asyncio.timeout(10):
        await asyncio.gather(*(layer.create_step(step(text, text)) for text in ("first", "second")))
    assert [message.text for message in await memory.tail("ann", "t1")] == ["first", "second"]


async def test_a_request_is_not_kept_waiting_for_another_try(away: Away, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chainlit_lines, "_AGAIN", (60.0,))
    layer = DaramDataLayer(away, owner="ann")
    user = PersistedUser(id="ann", identifier="ann", createdAt="2026-01-01T00:00:00Z", metadata={})
    init_http_context(thread_id="t1", user=user)
    away.away = True
    async with asyncio.timeout(10):
        with pytest.raises(StoreUnavailable):
            await layer.update_thread("t1", name="renamed")


class Slow(StoreWrapper):
    """Takes its time to keep an opinion or a favourite."""

    async def put_record(self, owner: str, namespace: str, *args: Any, **kwargs: Any) -> Any:
        if namespace in (*chainlit_records.FEEDBACK.values(), chainlit_records.FAVORITE):
            await asyncio.sleep(0.2)
        return await self._records().put_record(owner, namespace, *args, **kwargs)


async def test_an_opinion_or_a_favourite_that_is_being_kept_goes_with_its_thread(memory: Memory) -> None:
    layer = DaramDataLayer(Slow(memory), owner="ann")
    init_http_context(thread_id="t1", user=None)
    await layer.create_step(step("hi", "first"))
    late = (
        asyncio.create_task(layer.set_step_favorite(step("hi", "first"), True)),
        asyncio.create_task(layer.upsert_feedback(Feedback(forId="first", value=1, threadId="t1"))),
    )
    await asyncio.sleep(0.05)
    await layer.delete_thread("t1")
    await asyncio.gather(*late, return_exceptions=True)
    for namespace in chainlit_records.OF_A_THREAD:
        assert (await memory.scan_records("ann", namespace)).items == [], namespace


async def test_a_late_word_on_a_thread_does_not_bring_it_back(
    memory: Memory, away: Away, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chainlit_lines, "_AGAIN", (0.5,))
    layer = DaramDataLayer(away, owner="ann")
    init_http_context(thread_id="t1", user=None)
    await layer.create_step(step("hi", "first"))
    away.away = True
    late = asyncio.create_task(layer.update_thread("t1", name="hi", user_id="ann", metadata={"late": 1}))
    await asyncio.sleep(0.05)
    away.away = False
    await layer.delete_thread("t1")
    await late
    assert (await memory.list("ann")).items == []
    assert (await memory.scan_records("ann", chainlit_records.SESSION)).items == []


class Crowded(StoreWrapper):
    """Somebody is always faster."""

    async def put_record(self, *args: Any, expect: Any = None, **kwargs: Any) -> Any:
        raise Conflict("the record is not as expected")


async def test_what_is_said_of_a_thread_is_not_given_up_without_a_word(
    memory: Memory, caplog: pytest.LogCaptureFixture
) -> None:
    init_http_context(thread_id="t1", user=None)
    await memory.create("ann", id="t1")
    with pytest.raises(Conflict):
        await DaramDataLayer(Crowded(memory), owner="ann").update_thread("t1", metadata={"a": 1})
    assert "what was said of thread t1 was not stored" in caplog.text


class Half(StoreWrapper):
    """Keeps nothing of what is said of a thread, once: the thread is there by then. Meanwhile somebody deletes it."""

    told = False

    async def put_record(self, owner: str, namespace: str, *args: Any, **kwargs: Any) -> Any:
        if namespace == chainlit_records.SESSION and not self.told:
            self.told = True
            await self.inner.delete("ann", "t1")
            raise StoreUnavailable("nobody answers")
        return await self._records().put_record(owner, namespace, *args, **kwargs)


@pytest.mark.parametrize("there", [True, False])
async def test_another_try_does_not_bring_back_what_another_process_deleted(
    memory: Memory, there: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chainlit_lines, "_AGAIN", (0.01,))
    init_http_context(thread_id="t1", user=None)
    if there:
        await memory.create("ann", id="t1")
    layer = DaramDataLayer(Half(memory), owner="ann")
    await layer.update_thread("t1", name="hi", user_id="ann", tags=["one"])
    assert (await memory.list("ann")).items == []
    assert (await memory.scan_records("ann", chainlit_records.SESSION)).items == []


async def test_what_is_called_for_a_deletion_must_not_write_to_its_thread(memory: Memory) -> None:
    async def deleted(owner: str, thread: str) -> None:
        await layer.update_thread("t2", metadata={"another": thread})
        if not told:
            told.append(thread)
            await layer.update_thread(thread, metadata={"deleted": owner})

    told: list[str] = []
    layer = DaramDataLayer(memory, owner="ann", deleted=deleted)
    init_http_context(thread_id="t1", user=None)
    await memory.create("ann", id="t1")
    async with asyncio.timeout(10):  # each would wait for the other
        with pytest.raises(InvalidInput, match="must not write to thread 't1'"):
            await layer.delete_thread("t1")
        await layer.update_thread("t1", name="on", user_id="ann")
        await layer.delete_thread("t1")
    assert (await memory.list("ann")).items == []
