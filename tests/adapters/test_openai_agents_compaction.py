"""The SDK's compaction of a session loses nothing, whoever adds meanwhile and whenever a process ends."""

from __future__ import annotations

import asyncio
import inspect
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import IO, Any

import agents.memory.session
import pytest
from agents import Agent, Runner
from agents.extensions.memory import EncryptedSession
from agents.memory import OpenAIResponsesCompactionSession, SessionSettings, openai_responses_compaction_session
from tests.adapters.agents_scripted import Answering, user
from tests.adapters.crash_compaction import Compacting, texts
from tests.adapters.dying import Dying
from tests.faults.children import environment

import daram
from daram.adapters.openai_agents import DaramSession
from daram.errors import Conflict, Gone, InvalidInput, OutcomeUnknown, StoreUnavailable, Unsupported
from daram.memory import Memory
from daram.model import ROOT, Message, Part
from daram.store.wrapper import StoreWrapper

CHILD = Path(__file__).with_name("crash_compaction.py")

HOOKED = pytest.mark.skipif(
    not hasattr(agents.memory.session, "_CompactionSnapshot"), reason="in this release runs clear and add again"
)
REPLACED = pytest.mark.skipif(
    "_atomic_replace_items" not in inspect.getsource(openai_responses_compaction_session),
    reason="compaction by hand clears and adds again in this release",
)
BY_HAND: Any = {"force": True, "compaction_mode": "input"}


def said(*rounds: int) -> list[Any]:
    return [item for n in rounds for item in (user(f"{n}"), {"role": "assistant", "content": f"to {n}"})]


def every(rounds: int) -> list[str]:
    return sorted(f"{to}{n}" for n in range(rounds) for to in ("", "to "))


async def kept(memory: Memory) -> list[str]:
    """The texts that are in the session, and see that nothing else is stored."""
    items: list[Any] = await DaramSession(memory, "ann", "s").get_items()
    left = [entry.message for entry in await memory.log("ann", "s", limit=1000) if not entry.deleted]
    assert len(left) == len(items)
    return sorted(texts(items))


async def test_by_hand_in_any_release(memory: Memory) -> None:
    inner = DaramSession(memory, "ann", "s")
    session = OpenAIResponsesCompactionSession("s", inner, client=Compacting())  # type: ignore[arg-type]
    await session.add_items(said(*range(6)))
    await session.run_compaction(BY_HAND)
    assert [item["type"] for item in await inner.get_items()] == ["compaction"]  # type: ignore[typeddict-item]
    await session.add_items(said(6))
    assert await kept(memory) == every(7)
    assert await memory.search("ann", "5", conversation="s") == []


@HOOKED
@pytest.mark.parametrize("limit", [None, 7])
async def test_runs_compact_by_themselves_what_they_have_read(memory: Memory, limit: int | None) -> None:
    inner = DaramSession(memory, "ann", "s", session_settings={"limit": limit})
    await inner.add_items(said(*range(20)))
    client = Compacting()
    model = Answering()
    for n in range(20, 40):
        # A session for each run, as a server makes them.
        session = OpenAIResponsesCompactionSession(
            "s",
            DaramSession(memory, "ann", "s", session_settings={"limit": limit}),
            client=client,  # type: ignore[arg-type]
            compaction_mode="input",
            should_trigger_compaction=lambda context: len(context["compaction_candidate_items"]) >= 3,
        )
        await Runner.run(Agent(name="a", model=model), str(n), session=session)
    assert client.times >= 4
    assert await kept(memory) == every(40)
    if limit is not None:
        assert max(len(asked) for asked in model.asked) == 8


@REPLACED
@pytest.mark.parametrize("limit", [None, 4])
async def test_what_another_adds_during_a_compaction_is_kept(memory: Memory, limit: int | None) -> None:
    other = DaramSession(memory, "ann", "s")

    class Slow(Compacting):
        async def compact(self, **kwargs: Any) -> Any:
            if not self.times:
                await other.add_items(said(6))
            return await super().compact(**kwargs)

    class Beside(StoreWrapper):
        """Somebody adds behind the last look, just before the commit."""

        late = False

        async def _add(self) -> None:
            if self.late:
                self.late = False
                await other.add_items(said(7))

        async def append(self, *args: Any, **kwargs: Any) -> Any:
            await self._add()
            return await super().append(*args, **kwargs)

        async def load(self, *args: Any, **kwargs: Any) -> Any:
            await self._add()
            return await super().load(*args, **kwargs)

    store = Beside(memory)
    await other.add_items(said(*range(6)))
    inner = DaramSession(store, "ann", "s", session_settings=SessionSettings(limit=limit))
    session = OpenAIResponsesCompactionSession("s", inner, client=Slow())  # type: ignore[arg-type]
    with pytest.raises(Conflict, match="once more"):
        await session.run_compaction(BY_HAND)
    assert await other.get_items() == said(*range(7))
    store.late = True
    with pytest.raises(Conflict, match="once more"):
        await session.run_compaction(BY_HAND)
    assert await other.get_items() == said(*range(8))
    await memory.update("ann", "s", title="Trees")
    await session.run_compaction(BY_HAND)
    assert await kept(memory) == every(8)
    assert (await memory.get("ann", "s")).title == "Trees"


@REPLACED
@pytest.mark.parametrize("limit", [None, 4])
async def test_a_compaction_is_all_or_nothing(memory: Memory, limit: int | None) -> None:
    """Killed behind any of its writes, it leaves what was there or what it makes of it; the next one tidies up."""

    class NeverEmpty(Dying):
        async def delete(self, *args: Any, **kwargs: Any) -> None:
            raise AssertionError("whoever reads now finds nothing")

    def compacting(store: Any) -> OpenAIResponsesCompactionSession:
        inner = DaramSession(store, "ann", "s", session_settings=SessionSettings(limit=limit))
        return OpenAIResponsesCompactionSession("s", inner, client=Compacting())  # type: ignore[arg-type]

    plain = DaramSession(memory, "ann", "s")
    await plain.add_items(said(*range(3)))
    died, rounds = True, 2
    while died:
        rounds += 1
        before = await plain.get_items()
        dying = NeverEmpty(memory)
        dying.lives = rounds - 3
        try:
            await compacting(dying).run_compaction(BY_HAND)
            died = False
        except ConnectionAbortedError:
            died = True
        items: list[Any] = await plain.get_items()
        assert sorted(texts(items)) == every(rounds)
        assert items == before or len(items) < len(before)
        await plain.add_items(said(rounds))
    assert rounds > 6
    await compacting(memory).run_compaction(BY_HAND)
    assert await kept(memory) == every(rounds + 1)


@REPLACED
@pytest.mark.parametrize("committed", [True, False])
@pytest.mark.parametrize("limit", [None, 4])
async def test_a_compaction_whose_outcome_is_unknown_is_there_once(
    memory: Memory, limit: int | None, committed: bool
) -> None:
    other = DaramSession(memory, "ann", "s")

    class Lossy(StoreWrapper):
        """Each kind of write loses its connection once, and somebody adds before it is back."""

        lost: set[str] = set()  # noqa: RUF012

        async def _lose(self, name: str, write: Callable[..., Awaitable[Any]], *args: Any, **kwargs: Any) -> Any:
            if name in self.lost:
                return await write(*args, **kwargs)
            self.lost = {*self.lost, name}
            if committed:
                await write(*args, **kwargs)
                if name in ("append", "load"):
                    await other.add_items(said(6))
            raise OutcomeUnknown("the connection was cut")

        async def append(self, *args: Any, **kwargs: Any) -> Any:
            return await self._lose("append", super().append, *args, **kwargs)

        async def load(self, *args: Any, **kwargs: Any) -> Any:
            return await self._lose("load", super().load, *args, **kwargs)

        async def delete_message(self, *args: Any, **kwargs: Any) -> Any:
            return await self._lose("delete", super().delete_message, *args, **kwargs)

        async def put_record(self, *args: Any, **kwargs: Any) -> Any:
            return await self._lose("put", super().put_record, *args, **kwargs)

    await other.add_items(said(*range(6)))
    inner = DaramSession(Lossy(memory), "ann", "s", session_settings=SessionSettings(limit=limit))
    session = OpenAIResponsesCompactionSession("s", inner, client=Compacting())  # type: ignore[arg-type]
    await session.run_compaction(BY_HAND)
    items: list[Any] = await other.get_items()
    assert sorted(texts(items)) == every(7 if committed else 6)
    assert [item.get("type") for item in items].count("compaction") == 1
    await session.run_compaction(BY_HAND)
    assert await kept(memory) == every(7 if committed else 6)


@REPLACED
async def test_one_process_compacts_and_is_killed_while_another_adds(url: str) -> None:
    async with await daram.open(url) as memory:
        session = DaramSession(memory, "ann", "s")
        await session.add_items(said(*range(10)))
        rounds = 10
        with subprocess.Popen([sys.executable, str(CHILD), url], env=environment(), stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            try:
                assert await asyncio.to_thread(_until, process.stdout, b"0\n")
                reading = asyncio.ensure_future(asyncio.to_thread(_until, process.stdout, b"40\n"))
                while not reading.done():
                    await session.add_items(said(rounds))
                    rounds += 1
                    await asyncio.sleep(0.03)
                assert await reading
            finally:
                process.kill()
        items: list[Any] = await session.get_items()
        found = texts(items)
        assert sorted(found) == every(rounds)
        assert len(items) < len(found)


def _until(pipe: IO[bytes], line: bytes) -> bool:
    return any(said == line for said in pipe)


@HOOKED
async def test_what_cannot_take_the_place_of_the_session_leaves_it_as_it_is(memory: Memory) -> None:
    session = DaramSession(memory, "ann", "s")
    await session.add_items(said(*range(6)))
    assert (await session._get_compaction_snapshot(4)).complete is False
    whole = await session._get_compaction_snapshot(100)
    for snapshot, start in ((await session._get_compaction_snapshot(4), 1), (whole, 12), (whole, -1)):
        assert not await snapshot.replace_suffix(start, said(*range(51)) if start == 1 else said(9))
    for bad in ([], said(*range(51))):
        assert not await whole.replace_suffix(0, bad)
        await session._read_compaction_items(None)
        with pytest.raises(InvalidInput):
            await session._atomic_replace_items(bad)
    for key, limit in (("t", None), ("s", 0), ("s", 1)):  # a summary behind all that it covers says it twice
        nothing = DaramSession(memory, "ann", key, session_settings={"limit": limit})
        assert (await nothing._read_compaction_items(None))[0] == []
        with pytest.raises(Conflict, match="nothing to compact"):
            await nothing._atomic_replace_items(said(9))
    turn = await memory.begin_turn("ann", "s", [daram.user("a page asks")])
    await session._read_compaction_items(None)
    with pytest.raises(Conflict, match="answer"):
        await session._atomic_replace_items(said(9))
    assert turn.answer is not None
    await memory.cancel_turn("ann", "s")
    assert (await session.get_items())[:12] == said(*range(6))

    class Mine(DaramSession):
        """Its items may be others outside than inside."""

    mine = Mine(memory, "ann", "s")
    assert await mine._get_compaction_snapshot(4) is None
    assert not await mine._atomic_replace_items(said(9))
    assert await mine._read_compaction_items(2) == (await mine.get_items(2), False)


@REPLACED
@pytest.mark.parametrize("limit", [None, 4])
async def test_under_another_session_compaction_by_hand_replaces_nothing(memory: Memory, limit: int | None) -> None:
    """An EncryptedSession reads by itself, so that nobody knows what the compaction was shown."""

    class Slow(Compacting):
        async def compact(self, **kwargs: Any) -> Any:
            await encrypted(None).add_items(said(6))
            return await super().compact(**kwargs)

    def encrypted(limit: int | None) -> Any:
        inner = DaramSession(memory, "ann", "s", session_settings={"limit": limit})
        compacting = OpenAIResponsesCompactionSession("s", inner, client=Slow())  # type: ignore[arg-type]
        return EncryptedSession("s", compacting, encryption_key="k" * 32)

    await encrypted(None).add_items(said(*range(6)))
    with pytest.raises(Unsupported, match="by hand"):
        await encrypted(limit).run_compaction(BY_HAND)
    # Nor is what an earlier reading showed taken for what this one did.
    used = DaramSession(memory, "ann", "s")
    await used._read_compaction_items(None)
    items = await used.get_items()
    assert await used._atomic_replace_items(items)
    with pytest.raises(Unsupported, match="by hand"):
        await used._atomic_replace_items(items)
    assert texts(await encrypted(None).get_items(1000)) == texts(said(*range(7)))


@HOOKED
async def test_under_another_session_runs_compact() -> None:
    client = Compacting()
    async with daram.open("memory://") as memory:
        for n in range(9):
            inner = OpenAIResponsesCompactionSession(
                "s",
                DaramSession(memory, "ann", "s", session_settings={"limit": 6}),
                client=client,  # type: ignore[arg-type]
                compaction_mode="input",
                should_trigger_compaction=lambda context: len(context["compaction_candidate_items"]) >= 3,
            )
            session: Any = EncryptedSession("s", inner, encryption_key="k" * 32)
            await Runner.run(Agent(name="a", model=Answering()), str(n), session=session)
        assert client.times >= 2
        assert sorted(texts(await session.get_items(1000))) == every(9)


@REPLACED
async def test_what_is_not_on_the_branch_in_use_is_left_alone(memory: Memory) -> None:
    session = DaramSession(memory, "ann", "s")
    await memory.append("ann", "s", [Message(id="a", role="user", text="0"), daram.assistant("to 0")], create=True)
    await memory.delete_message("ann", "s", "a")
    await memory.append("ann", "s", [Message(id="b", role="user", text="1"), daram.assistant("to 1")], parent=ROOT)
    await session._read_compaction_items(None)
    assert await session._atomic_replace_items(said(2))
    assert await session.get_items() == said(2)
    entries = await memory.log("ann", "s")
    assert [entry.message.text for entry in entries if not entry.deleted] == ["to 0", "2", "to 2"]
    assert (await memory.get("ann", "s")).last_seq == 6
    for gone in ("a", "b"):
        with pytest.raises(Gone):
            await memory.append("ann", "s", [Message(id=gone, role="user", text="again")])


@HOOKED
async def test_what_a_compaction_was_not_shown_stays(memory: Memory) -> None:
    image = Part(type="image", data={"url": "https://example.org/tuna.png"})
    await memory.append(
        "ann", "s", [Message(role="user", text="look", parts=(image,)), daram.assistant("")], create=True
    )
    session = DaramSession(memory, "ann", "s")
    await session.add_items(said(1))
    await memory.append("ann", "s", [Message(role="user", parts=(image,))])
    await session.add_items(said(2, 3))
    assert await session._read_compaction_items(None) == (said(2, 3), False)
    snapshot = await session._get_compaction_snapshot(100)
    assert (snapshot.items, snapshot.complete) == (said(2, 3), False)
    assert await snapshot.replace_suffix(0, said(4))
    found = await memory.tail("ann", "s", 20)
    assert [message.text for message in found] == ["look", "", "1", "to 1", "", "4", "to 4"]
    assert [message.parts for message in found if message.parts] == [(image,), (image,)]


@HOOKED
async def test_what_was_replaced_is_deleted_by_a_later_compaction_whoever_was_beside(memory: Memory) -> None:
    """One cannot delete; one puts its note, and comes to its commit behind others; one never comes to it."""

    async def compact(store: Any, items: list[Any], key: str = "s") -> bool:
        snapshot = await DaramSession(store, "ann", key)._get_compaction_snapshot(100)
        return bool(await snapshot.replace_suffix(2, items))

    class Failing(StoreWrapper):
        async def delete_message(self, *args: Any, **kwargs: Any) -> Any:
            raise StoreUnavailable("the disk is gone")

    class Lost(StoreWrapper):
        async def append(self, *args: Any, **kwargs: Any) -> Any:
            raise ConnectionAbortedError("the process is gone")

    noted, go = asyncio.Event(), asyncio.Event()

    class Late(StoreWrapper):
        """It dies behind its commit."""

        async def append(self, *args: Any, **kwargs: Any) -> Any:
            noted.set()
            await go.wait()
            await super().append(*args, **kwargs)
            raise ConnectionAbortedError("the process is gone")

    await DaramSession(memory, "ann", "s").add_items(said(0, 1))
    assert await compact(Failing(memory), said(2))
    assert await compact(Failing(memory), said(3))  # the note of the first stays
    late = asyncio.ensure_future(compact(Late(memory), said(4)))
    await noted.wait()
    with pytest.raises(ConnectionAbortedError):
        await compact(Lost(memory), said(5))
    go.set()
    with pytest.raises(ConnectionAbortedError):
        await late
    await DaramSession(memory, "ann", "s").pop_item()
    await DaramSession(memory, "ann", "s/t").add_items(said(0, 1))
    assert await compact(Failing(memory), said(2), "s/t")
    assert await compact(memory, said(6))
    assert await kept(memory) == ["0", "6", "to 0", "to 6"]
    assert len((await memory.scan_records("ann", "adapters.replaced")).items) == 1  # of the other one
    assert await compact(memory, said(3), "s/t")
    assert not (await memory.scan_records("ann", "adapters.replaced")).items
