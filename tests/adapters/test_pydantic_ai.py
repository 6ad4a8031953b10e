"""Pydantic AI's conversations on Daram's engines: its own agent loop, with a scripted model."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from pydantic_ai import Agent, BinaryContent, DeferredToolRequests, DeferredToolResults, ModelRetry, Tool, UserError
from pydantic_ai.conversation import Conversation
from pydantic_ai.conversation_store import ConversationConflict, InMemoryConversationStore
from pydantic_ai.messages import ModelMessage, ModelMessagesTypeAdapter, ModelResponse, TextPart, ToolCallPart
from pydantic_ai.models.function import AgentInfo, FunctionModel
from tests.adapters.dying import Dying

from daram.adapters.pydantic_ai import ENTRY, RECORD, DaramConversationStore
from daram.errors import OutcomeUnknown, Unsupported
from daram.memory import Memory
from daram.model import user
from daram.store.memory import MemoryStore
from daram.store.wrapper import StoreWrapper


def prompts(messages: list[ModelMessage]) -> list[str]:
    return [str(part.content) for message in messages for part in message.parts if part.part_kind == "user-prompt"]


def recall(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
    """It says what it was shown; where it may use a tool, it does so first."""
    last = messages[-1].parts[-1]
    if info.function_tools and last.part_kind == "user-prompt" and "weather" in str(last.content):
        return ModelResponse(parts=[ToolCallPart("weather", {"city": "서울"}, tool_call_id=f"call{len(messages)}")])
    said = f"{last.content}; " if last.part_kind == "tool-return" else ""
    return ModelResponse(parts=[TextPart(said + " | ".join(prompts(messages)))])


agent: Any = Agent(FunctionModel(recall), instructions="Be brief.")


@agent.tool_plain
def weather(city: str) -> str:
    return f"rain in {city}"


@pytest.fixture
def store(memory: Memory) -> DaramConversationStore:
    return DaramConversationStore(memory, owner="ann")


async def say(store: DaramConversationStore, id: str, text: Any, limit: int | None = None) -> str:
    conversation = await store.load(id, limit=limit) or Conversation(conversation_id=id)
    result = await agent.run(text, conversation=conversation)
    await store.save(result)
    return str(result.output)


async def texts(memory: Memory, id: str = "c") -> list[tuple[str, str]]:
    return [(message.role, message.text) for message in await memory.tail("ann", id, 100)]


async def test_an_agent_remembers_and_the_other_doors_see_it(store: DaramConversationStore, memory: Memory) -> None:
    assert await say(store, "c", "다람쥐는 다랑어") == "다람쥐는 다랑어"
    assert await say(store, "c", "the weather?") == "rain in 서울; 다람쥐는 다랑어 | the weather?"
    assert await texts(memory) == [
        ("user", "다람쥐는 다랑어"),
        ("assistant", "다람쥐는 다랑어"),
        ("user", "the weather?"),
        ("assistant", ""),
        ("tool", "rain in 서울"),
        ("assistant", "rain in 서울; 다람쥐는 다랑어 | the weather?"),
    ]
    again = DaramConversationStore(memory, owner="ann")
    assert await say(again, "c", "more", limit=2) == "more"  # a window with no question in it but this one
    loaded = await again.load("c")
    assert loaded is not None and len(loaded.messages) == 8 and loaded.usage.requests == 4
    assert await DaramConversationStore(memory, owner="bob").load("c") is None
    assert await again.load("nothing") is None


async def test_every_message_comes_back_as_it_was(store: DaramConversationStore) -> None:
    picture = BinaryContent(data=bytes(range(256)), media_type="image/png")
    await say(store, "c", ["look\x00 at this", picture])
    await say(store, "c", "the weather?")
    loaded, kept = await store.load("c"), InMemoryConversationStore()
    assert loaded is not None
    content = loaded.messages[0].parts[-1].content
    assert (content[0], content[1].data) == ("look\x00 at this", picture.data)
    await say(store, "d", "half \ud800")
    half = await store.load("d")
    assert half is not None and prompts(half.messages) == ["half \ud800"]
    beside = Conversation(messages=loaded.messages, conversation_id="c")
    await kept.save(beside)
    assert (await kept.load("c")).messages == loaded.messages  # type: ignore[union-attr]  # it is there
    assert (
        ModelMessagesTypeAdapter.validate_json(ModelMessagesTypeAdapter.dump_json(loaded.messages)) == loaded.messages
    )


async def test_a_save_writes_what_is_new_whatever_the_length(memory: Memory) -> None:
    class Counting(StoreWrapper):
        calls: list[str] = []  # noqa: RUF012  # of this test alone

        async def append(self, owner: str, id: str, messages: Any, **more: Any) -> Any:
            self.calls.append(f"append {len(messages)}")
            return await super().append(owner, id, messages, **more)

        async def messages(self, *args: Any, **more: Any) -> Any:
            self.calls.append(f"read {more['limit']}")
            return await super().messages(*args, **more)

        async def message(self, *args: Any, **more: Any) -> Any:
            self.calls.append("message")
            return await super().message(*args, **more)

    store = DaramConversationStore(Counting(memory), owner="ann")
    for number in range(20):
        Counting.calls.clear()
        await say(store, "c", str(number), limit=4)
        assert Counting.calls == (["read 4", "append 2"] if number else ["append 2"])


async def test_of_two_savers_one_is_told_and_leaves_nothing(store: DaramConversationStore, memory: Memory) -> None:
    await say(store, "c", "one")

    async def turn(number: int) -> bool:
        conversation = await store.load("c")
        result = await agent.run(f"turn {number}", conversation=conversation)
        try:
            await store.save(result)
        except ConversationConflict:
            return False
        return True

    async def until_kept(number: int) -> int:
        tries = 1
        while not await turn(number):
            tries += 1
        return tries

    tries = await asyncio.gather(*(until_kept(number) for number in range(6)))
    assert max(tries) > 1, "nobody was ever second: the race was not one"
    loaded = await store.load("c")
    assert loaded is not None
    assert sorted(prompts(loaded.messages)) == ["one", *(f"turn {number}" for number in range(6))]
    assert [text for role, text in await texts(memory) if role == "user"] == prompts(loaded.messages)
    stale = await store.load("c")
    await say(store, "c", "later")
    with pytest.raises(ConversationConflict):
        await store.save(stale)  # type: ignore[arg-type]  # it is there
    with pytest.raises(ConversationConflict):
        await store.save(Conversation(conversation_id="c"))


async def test_a_crash_between_the_messages_and_the_record(
    store: DaramConversationStore, memory: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    await say(store, "c", "one")
    put = type(memory).put_record

    async def dies(self: Memory, owner: str, namespace: str, *args: Any, **more: Any) -> Any:
        if namespace == RECORD:
            raise OSError("the power is gone")
        return await put(self, owner, namespace, *args, **more)

    with monkeypatch.context() as patch:
        patch.setattr(type(memory), "put_record", dies)
        with pytest.raises(OSError, match="power"):
            await say(store, "c", "lost")
        with pytest.raises(OSError, match="power"):
            await say(store, "new", "lost")
    assert await say(store, "c", "two") == "one | two"
    assert [text for role, text in await texts(memory) if role == "user"] == ["one", "two"]
    assert await say(store, "new", "found") == "found"


async def test_a_save_that_is_cancelled_is_finished_first(memory: Memory) -> None:
    class Gate(StoreWrapper):
        async def append(self, *args: Any, **kwargs: Any) -> Any:
            found = await super().append(*args, **kwargs)
            stored.set()
            await go.wait()
            return found

    stored, go = asyncio.Event(), asyncio.Event()
    saving = asyncio.ensure_future(say(DaramConversationStore(Gate(memory), owner="ann"), "c", "one"))
    await stored.wait()
    saving.cancel()
    await asyncio.sleep(0)
    go.set()
    with pytest.raises(asyncio.CancelledError):
        await saving
    assert await say(DaramConversationStore(memory, owner="ann"), "c", "two") == "one | two"
    assert len(await texts(memory)) == 4


async def test_branches_and_back(store: DaramConversationStore, memory: Memory) -> None:
    for text in ("one", "two", "three"):
        await say(store, "c", text)
    entries = await store.load_entries("c")
    assert entries is not None
    loaded = await store.load("c")
    assert loaded is not None
    edited = await store.branch("c", at=2, expected_revision=loaded.revision)
    await store.save(await agent.run("zwei", conversation=edited))
    assert [text for role, text in await texts(memory) if role == "user"] == ["one", "zwei"]
    now = await store.load("c")
    assert now is not None and prompts(now.messages) == ["one", "zwei"]
    (record,) = await store.list_conversations()
    assert record.branches == [entries[-1].id]
    back = await store.branch("c", from_entry=entries[-1].id, expected_revision=now.revision)
    assert prompts(back.messages) == ["one", "two", "three"]
    assert [text for role, text in await texts(memory) if role == "user"] == ["one", "two", "three"]
    with pytest.raises(ConversationConflict):
        await store.branch("c", at=0, expected_revision=now.revision)
    begun = await store.branch("c", at=0, expected_revision=back.revision)
    await store.save(await agent.run("anew", conversation=begun))
    assert [text for role, text in await texts(memory) if role == "user"] == ["anew"]
    assert (await store.read_entry(entries[1].id)).message == entries[1].message


async def test_a_fork_stands_by_itself_and_what_is_deleted_is_gone(
    store: DaramConversationStore, memory: Memory
) -> None:
    for text in ("one", "two"):
        await say(store, "c", text)
    entries = await store.load_entries("c")
    assert entries is not None
    await store.fork("c", at=2, new_conversation_id="f")
    assert await say(store, "f", "deux") == "one | deux"
    assert await say(store, "c", "three") == "one | two | three"
    await store.delete("c")
    assert await store.load("c") is None
    assert [conversation.id for conversation in (await memory.list("ann")).items] == ["f"]
    assert await say(store, "f", "trois") == "one | deux | trois"
    with pytest.raises(LookupError):
        await store.read_entry(entries[2].id)
    assert (await store.read_entry(entries[0].id)).message == entries[0].message  # of the fork
    await store.delete("f")
    for namespace in (ENTRY, RECORD):
        assert (await memory.scan_records("ann", namespace)).items == []
    with pytest.raises(UserError, match="not in the store"):
        await store.fork("c")
    assert await say(store, "c", "begun again") == "begun again"


async def test_a_deletion_that_was_cut_off_is_ended_by_whoever_looks(
    store: DaramConversationStore, memory: Memory
) -> None:
    async def load() -> None:
        assert await store.load("c") is None

    async def listing() -> None:
        assert await store.list_conversations() == []

    mortal = Dying(memory)
    looks: list[Callable[[], Awaitable[None]]] = [load, lambda: store.delete("c"), listing]
    for left in range(7):
        await say(store, "c", "one")
        mortal.lives = left
        try:
            await DaramConversationStore(mortal, owner="ann").delete("c")
        except ConnectionAbortedError:
            pass
        await looks[left % 3]()
        assert (await memory.list("ann")).items == []
        for namespace in (ENTRY, RECORD):
            assert (await memory.scan_records("ann", namespace)).items == []
    assert mortal.lives, "it was never let come to its end"


async def test_ending_a_deletion_spares_the_conversation_that_another_door_began_since(
    store: DaramConversationStore, memory: Memory
) -> None:
    class Killed(StoreWrapper):
        async def delete(self, *args: Any, **more: Any) -> Any:
            await super().delete(*args, **more)
            raise ConnectionAbortedError("the process is gone")

    await say(store, "c", "one")
    with pytest.raises(ConnectionAbortedError):
        await DaramConversationStore(Killed(memory), owner="ann").delete("c")
    await memory.create("ann", id="c")
    await memory.append("ann", "c", [user("precious")])
    assert await store.list_conversations() == []
    assert (await memory.scan_records("ann", RECORD)).items == []
    assert [message.text for message in await memory.tail("ann", "c")] == ["precious"]


async def test_writes_whose_outcome_is_unknown_are_there_once(memory: Memory) -> None:
    class Lossy(StoreWrapper):
        """Of every write the first reply is lost."""

        lost: set[str] = set()  # noqa: RUF012  # of this test alone

        async def _lose(self, name: str, found: Any) -> Any:
            self.lost ^= {name}
            if name in self.lost:
                raise OutcomeUnknown("the connection was cut behind the commit")
            return found

        async def create(self, *args: Any, **more: Any) -> Any:
            return await self._lose("create", await super().create(*args, **more))

        async def append(self, *args: Any, **more: Any) -> Any:
            return await self._lose("append", await super().append(*args, **more))

        async def use_branch(self, *args: Any, **more: Any) -> Any:
            return await self._lose("use_branch", await super().use_branch(*args, **more))

        async def delete(self, *args: Any, **more: Any) -> Any:
            return await self._lose("delete", await super().delete(*args, **more))

        async def put_record(self, owner: str, namespace: str, key: str, *args: Any, **more: Any) -> Any:
            found = await super().put_record(owner, namespace, key, *args, **more)
            return await self._lose(f"put {namespace} {key}", found)

        async def delete_record(self, owner: str, namespace: str, key: str, **more: Any) -> Any:
            found = await super().delete_record(owner, namespace, key, **more)
            return await self._lose(f"delete {namespace} {key}", found)

    store = DaramConversationStore(Lossy(memory), owner="ann")
    for text in ("one", "two"):
        await say(store, "c", text)
    loaded = await store.load("c")
    assert loaded is not None and prompts(loaded.messages) == ["one", "two"]
    begun = await store.branch("c", at=2, expected_revision=loaded.revision)
    assert prompts(begun.messages) == ["one"]
    await store.fork("c", new_conversation_id="f")
    await store.delete("c")
    assert [conversation.id for conversation in (await memory.list("ann")).items] == ["f"]
    assert await say(store, "f", "deux") == "one | deux"


async def test_a_save_on_top_of_one_whose_outcome_is_unknown_keeps_both(memory: Memory) -> None:
    other = DaramConversationStore(memory, owner="ann")

    class Lossy(StoreWrapper):
        async def put_record(self, owner: str, namespace: str, *args: Any, **more: Any) -> Any:
            found = await super().put_record(owner, namespace, *args, **more)
            if namespace == RECORD:
                await say(other, "c", "two")
                raise OutcomeUnknown("the connection was cut behind the commit")
            return found

    assert await say(DaramConversationStore(Lossy(memory), owner="ann"), "c", "one") == "one"
    assert await say(other, "c", "three") == "one | two | three"


async def test_what_is_read_is_bounded_by_what_is_asked_for(memory: Memory) -> None:
    class Counting(StoreWrapper):
        calls = 0

        async def messages(self, *args: Any, **more: Any) -> Any:
            self.calls += 1
            return await super().messages(*args, **more)

        async def message(self, *args: Any, **more: Any) -> Any:
            self.calls += 1
            return await super().message(*args, **more)

        async def get_record(self, *args: Any, **more: Any) -> Any:
            self.calls += 1
            return await super().get_record(*args, **more)

    counting = Counting(memory)
    store = DaramConversationStore(counting, owner="ann")
    for text in ("one", "two", "three"):
        await say(store, "c", text)
    first = (await memory.messages("ann", "c", limit=1)).items[0]
    parent = first.id
    for _ in range(3):  # another door goes on from the first message, and is the branch in use
        batch = [user(str(n)) for n in range(100)]
        await memory.append("ann", "c", batch, parent=parent)
        parent = batch[-1].id
    counting.calls = 0
    loaded = await store.load("c", limit=4)
    assert loaded is not None and prompts(loaded.messages) == ["two", "three"]
    assert counting.calls <= 6  # the record, a page, and the four
    counting.calls = 0
    loaded = await store.load("c")
    assert loaded is not None and prompts(loaded.messages) == ["one", "two", "three"]
    assert counting.calls <= 11  # the record, four pages, and those that the branch in use has not
    for n in range(30):
        await memory.create("ann", id=f"of another door {n}")
    counting.calls = 0
    assert [record.conversation_id for record in await store.list_conversations(limit=10)] == ["c"]
    assert not counting.calls
    # Off the branch in use, and something of it is deleted by another door, where a step back leads nowhere.
    await memory.use_branch("ann", "c", (await store.load_entries("c") or [])[-1].id)
    await memory.append("ann", "c", [user(str(n)) for n in range(10)])
    await memory.delete_message("ann", "c", (await store.load_entries("c") or [])[-2].id)
    loaded = await store.load("c", limit=4)
    assert loaded is not None and len(loaded.messages) == 4


async def test_lists_and_scopes(store: DaramConversationStore) -> None:
    for id, scope in (("a", "work"), ("b", None), ("c", "work")):
        await store.save(await agent.run(id, conversation=Conversation(conversation_id=id)), scope=scope)
    assert [record.conversation_id for record in await store.list_conversations()] == ["c", "b", "a"]
    assert [record.conversation_id for record in await store.list_conversations(scope="work", limit=1)] == ["c"]
    assert await store.load("a", scope="home") is None
    assert await store.load("a", scope="work") is not None
    await store.delete("a", scope="home")
    assert await store.load("a") is not None


async def test_what_a_run_waits_for_is_kept(store: DaramConversationStore) -> None:
    def call(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        last = messages[-1].parts[-1]
        if last.part_kind == "tool-return":
            return ModelResponse(parts=[TextPart(f"done: {last.content}")])
        return ModelResponse(parts=[ToolCallPart("fell", {"tree": "oak"}, tool_call_id="call1")])

    def fell(tree: str) -> str:
        if tree != "oak":
            raise ModelRetry("only oaks")
        return f"{tree} is down"

    careful: Any = Agent(
        FunctionModel(call), tools=[Tool(fell, requires_approval=True)], output_type=[str, DeferredToolRequests]
    )
    result = await careful.run("fell the oak", conversation=Conversation(conversation_id="c"))
    await store.save(result)
    loaded = await store.load("c")
    assert loaded is not None and loaded.deferred_tool_requests is not None
    assert loaded.deferred_tool_requests.approvals[0].tool_call_id == "call1"
    done = await careful.run(conversation=loaded, deferred_tool_results=DeferredToolResults(approvals={"call1": True}))
    await store.save(done)
    assert done.output == "done: oak is down"
    again = await store.load("c")
    assert again is not None and again.deferred_tool_requests is None


async def test_what_another_door_says_stays_beside(store: DaramConversationStore, memory: Memory) -> None:
    await say(store, "c", "one")
    await memory.append("ann", "c", [user("from the page")])
    assert await say(store, "c", "two") == "one | two"
    loaded = await store.load("c", limit=1)
    assert loaded is not None and len(loaded.messages) == 1
    await memory.create("ann", id="d")
    await memory.append("ann", "d", [user("from the page")])
    assert await store.load("d") is None
    assert await say(store, "d", "mine") == "mine"


def test_a_store_without_records_is_refused() -> None:
    class Bare:
        pass

    DaramConversationStore(MemoryStore(), owner="ann")
    with pytest.raises(Unsupported, match="Bare"):
        DaramConversationStore(Bare(), owner="ann")  # type: ignore[arg-type]  # that is the point
