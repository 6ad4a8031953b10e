"""LangChain's chat history and chat models, with LangChain's own classes around them."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from langchain_core.language_models import GenericFakeChatModel
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    ChatMessage,
    FunctionMessage,
    HumanMessage,
    HumanMessageChunk,
    SystemMessage,
    ToolMessage,
)
from langchain_core.prompts import ChatPromptTemplate, MessagesPlaceholder
from pydantic import Field
from tests.faults.children import environment

import daram
from daram import sync
from daram.adapters import langchain
from daram.adapters.langchain import DaramChatMessageHistory
from daram.errors import (
    ContextOverflow,
    Gone,
    InvalidInput,
    ModelBroken,
    ModelError,
    ModelRateLimited,
    ModelRefused,
    ModelTimeout,
    ModelUnavailable,
    StoreUnavailable,
    SyncInAsync,
)
from daram.llm.base import Options
from daram.llm.langchain import LangChainModel
from daram.memory import Memory
from daram.store.wrapper import StoreWrapper
from daram.text.tokens import TokenCounter

EVERY_KIND: list[BaseMessage] = [
    SystemMessage("be brief"),
    HumanMessage(
        [{"type": "text", "text": "이건 뭐야?"}, {"type": "image", "base64": "aGk=", "mime_type": "image/png"}]
    ),
    AIMessage(
        "",
        tool_calls=[{"name": "look", "args": {"at": [1, {"x": None}]}, "id": "c1", "type": "tool_call"}],
        invalid_tool_calls=[{"name": "bad", "args": "{", "id": "c2", "error": "no", "type": "invalid_tool_call"}],
        usage_metadata={"input_tokens": 5, "output_tokens": 2, "total_tokens": 7},
        response_metadata={"model_name": "m", "finish_reason": "tool_calls"},
        additional_kwargs={"refusal": None, "deep": {"er": [1.5, {}, []]}},
        name="bot",
        id="run-1",
    ),
    ToolMessage("a squirrel", tool_call_id="c1", artifact={"raw": b"\x00\xff"}, status="error"),
    AIMessage([{"type": "text", "text": "It is "}, {"type": "text", "text": "다람쥐"}], extra_field=3),
    ChatMessage("on stage", role="narrator"),
    FunctionMessage("4", name="add"),
    # What looks as if it were ours, a number of any length, and a key of somebody else's.
    AIMessage("", tool_calls=[{"name": "put", "args": {"$bytes": "abc"}, "id": "c3", "type": "tool_call"}]),
    AIMessage("", additional_kwargs={"a": {"$dict": {"$bytes": 1}}, "n": 2**70, "b": [{"$json": "x"}, b"\x00"]}),
    HumanMessage([{"$bytes": "aGk=", "type": "x"}, {"type": "text", "text": "\ud83d"}]),
    AIMessageChunk("piece", id="run-2"),
    HumanMessageChunk("half"),
    HumanMessage(""),
]


async def test_every_kind_of_message_comes_back_as_it_was(memory: Memory) -> None:
    history = DaramChatMessageHistory("s", owner="ann", memory=memory)
    await history.aadd_messages(EVERY_KIND)
    found = await DaramChatMessageHistory("s", owner="ann", memory=memory).aget_messages()
    assert found == EVERY_KIND
    assert [type(m) for m in found] == [type(m) for m in EVERY_KIND]
    assert await DaramChatMessageHistory("s", owner="bob", memory=memory).aget_messages() == []
    shown = await memory.tail("ann", "s", 20)
    assert shown[1].text == "이건 뭐야?"
    assert shown[2].usage == {"input_tokens": 5, "output_tokens": 2}
    assert [part.data["call_id"] for part in shown[3].parts if part.type == "tool_result"] == ["c1"]


async def test_what_other_doors_wrote_is_read(memory: Memory) -> None:
    call = daram.Part(type="tool_call", data={"call_id": "c", "name": "look", "arguments": '{"x": 1}'})
    bad = daram.Part(type="tool_call", data={"call_id": "d", "name": "look", "arguments": "[1]"})
    await memory.append(
        "ann",
        "s",
        [daram.user("hi"), daram.assistant("", parts=[call, bad]), daram.tool("a squirrel", call_id="c")],
        create=True,
    )
    user, assistant, tool = await DaramChatMessageHistory("s", owner="ann", memory=memory).aget_messages()
    assert isinstance(user, HumanMessage) and user.content == "hi"
    assert isinstance(assistant, AIMessage) and assistant.tool_calls[0]["args"] == {"x": 1}
    assert assistant.invalid_tool_calls[0]["args"] == "[1]"
    assert isinstance(tool, ToolMessage) and (tool.content, tool.tool_call_id) == ("a squirrel", "c")


async def test_windows(memory: Memory) -> None:
    whole = DaramChatMessageHistory("s", owner="ann", memory=memory, window=None)
    said: list[BaseMessage] = [HumanMessage(f"word {n}") for n in range(250)]
    await whole.aadd_messages(said)
    assert await whole.aget_messages() == said
    for window in (1, 50, 200, 230):
        part = DaramChatMessageHistory("s", owner="ann", memory=memory, window=window)
        assert await part.aget_messages() == said[-window:]
    few = await DaramChatMessageHistory("s", owner="ann", memory=memory, tokens=60).aget_messages()
    assert 0 < len(few) < 20 and few == said[-len(few) :]
    assert await DaramChatMessageHistory("s", owner="ann", memory=memory, tokens=1).aget_messages() == []
    await whole.aadd_messages(EVERY_KIND[1:5])
    for window in (2, 3, 4):
        found = await DaramChatMessageHistory("s", owner="ann", memory=memory, window=window).aget_messages()
        assert isinstance(found[0], ToolMessage) is False
        assert len(found) == (1 if window == 2 else window)


async def test_a_budget_of_tokens_bounds_what_is_read(memory: Memory) -> None:
    read = 0

    class Counting(StoreWrapper):
        async def messages(self, *args: Any, **kwargs: Any) -> Any:
            nonlocal read
            page = await super().messages(*args, **kwargs)
            read += len(page.items)
            return page

        async def tail(self, *args: Any, **kwargs: Any) -> Any:
            nonlocal read
            found = await super().tail(*args, **kwargs)
            read += len(found)
            return found

    said: list[BaseMessage] = [HumanMessage(f"word {n}") for n in range(1000)]
    await DaramChatMessageHistory("s", owner="ann", memory=memory).aadd_messages(said)
    each = TokenCounter().message(daram.user("word 100"))
    for tokens, bound in ((100, 20), (1500, 400), (4, 0), (100_000, 1000)):
        read = 0
        history = DaramChatMessageHistory("s", owner="ann", memory=Counting(memory), window=None, tokens=tokens)
        found = await history.aget_messages()
        count = min(tokens // each, 1000)
        assert found == said[1000 - count :]
        assert read <= bound
    history = DaramChatMessageHistory("s", owner="ann", memory=memory, window=300, tokens=100_000)
    assert await history.aget_messages() == said[-300:]


async def test_two_writers_keep_everything(memory: Memory) -> None:
    async def write(name: str) -> None:
        history = DaramChatMessageHistory("s", owner="ann", memory=memory)
        for n in range(10):
            await history.aadd_messages([HumanMessage(f"{name} {n}"), AIMessage(f"to {name} {n}")])

    await asyncio.gather(write("a"), write("b"))
    found = [m.text for m in await DaramChatMessageHistory("s", owner="ann", memory=memory).aget_messages()]
    assert len(found) == 40
    assert all(b == f"to {a}" for a, b in zip(found[::2], found[1::2], strict=True))


async def test_clearing_and_deleting(memory: Memory) -> None:
    history = DaramChatMessageHistory("s", owner="ann", memory=memory)
    await history.aclear()
    await history.aadd_messages([HumanMessage("one")])
    await history.aclear()
    assert await history.aget_messages() == []
    await history.aadd_messages([HumanMessage("two")])
    assert [m.text for m in await history.aget_messages()] == ["two"]
    await memory.delete("ann", "s")
    assert await history.aget_messages() == []
    with pytest.raises(Gone):
        await history.aadd_messages([HumanMessage("three")])


async def test_what_cannot_be_kept_is_said() -> None:
    async with daram.open("memory://") as memory:
        history = DaramChatMessageHistory("s", memory=memory)
        with pytest.raises(InvalidInput, match="JSON"):
            await history.aadd_messages([HumanMessage("x", additional_kwargs={"a": object()})])
        assert await history.aget_messages() == []
        with pytest.raises(InvalidInput, match="window"):
            DaramChatMessageHistory("s", memory=memory, window=0)


class Recording(GenericFakeChatModel):
    """Answers in turn, and keeps what it was asked."""

    asked: list[list[BaseMessage]] = Field(default_factory=list)

    def _generate(self, messages: list[BaseMessage], *args: Any, **kwargs: Any) -> Any:
        self.asked.append(messages)
        return super()._generate(messages, *args, **kwargs)


def chain_of(model: Any, url: str) -> Any:
    """LangChain's own chain, whose histories are opened by their URL."""
    from langchain_core.runnables.history import RunnableWithMessageHistory

    prompt = ChatPromptTemplate.from_messages([MessagesPlaceholder("history"), ("human", "{input}")])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # LangChain deprecates the class
        return RunnableWithMessageHistory(
            prompt | model,
            lambda session_id: DaramChatMessageHistory(session_id, url=url, owner="ann"),
            input_messages_key="input",
            history_messages_key="history",
        )


@pytest.fixture
def closed() -> Iterator[None]:
    """What is opened by its URL stays open until the process ends: not beside the tests behind this one."""
    yield
    langchain._close()


@pytest.mark.usefixtures("closed")
def test_in_langchains_own_chain_by_url(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/daram.db"
    model = Recording(messages=iter([AIMessage("알겠습니다"), AIMessage("다랑어")]))
    chain = chain_of(model, url)
    config: Any = {"configurable": {"session_id": "s"}}
    chain.invoke({"input": "앞으로 다람쥐를 다랑어라고 부를게"}, config)
    assert chain.invoke({"input": "다람쥐를 뭐라고 부르지?"}, config).content == "다랑어"
    assert [m.text for m in model.asked[1]] == [
        "앞으로 다람쥐를 다랑어라고 부를게",
        "알겠습니다",
        "다람쥐를 뭐라고 부르지?",
    ]
    with sync.open(url) as memory:
        assert [m.role for m in memory.tail("ann", "s", 10)] == ["user", "assistant", "user", "assistant"]


@pytest.mark.usefixtures("closed")
async def test_in_langchains_own_chain_by_url_in_async_code(url: str) -> None:
    model = Recording(messages=iter([AIMessage("알겠습니다"), AIMessage("다랑어")]))
    chain = chain_of(model, url)
    config: Any = {"configurable": {"session_id": "s"}}
    await chain.ainvoke({"input": "다람쥐는 다랑어"}, config)
    await chain.ainvoke({"input": "다람쥐는?"}, config)
    assert [m.text for m in model.asked[1]] == ["다람쥐는 다랑어", "알겠습니다", "다람쥐는?"]
    history = DaramChatMessageHistory("s", url=url, owner="ann")
    assert [m.text for m in await asyncio.to_thread(lambda: history.messages)][-1] == "다랑어"  # the face beside it
    await history.aclear()
    with pytest.raises(SyncInAsync):
        _ = history.messages


@pytest.mark.usefixtures("closed")
async def test_the_store_at_a_url_is_opened_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    real = daram.memory.open

    def open(url: str) -> Any:
        opened.append(url)
        return real(url)

    monkeypatch.setattr("daram.memory.open", open)
    url = f"sqlite:///{tmp_path}/not-yet/daram.db"
    histories = [DaramChatMessageHistory(f"s{n}", url=url, owner="ann") for n in range(4)]
    assert opened == []
    with pytest.raises(StoreUnavailable):
        await histories[0].aget_messages()
    (tmp_path / "not-yet").mkdir()
    opened.clear()
    leaves = asyncio.create_task(histories[0].aget_messages())
    stays = [asyncio.create_task(history.aget_messages()) for history in histories[1:]]
    await asyncio.sleep(0)
    leaves.cancel()  # which is nothing to the others
    assert await asyncio.gather(*stays, asyncio.to_thread(lambda: histories[0].messages)) == [[]] * 4
    assert opened == [url]


SYNC_USE = """
history.add_messages([HumanMessage("hi")])
print(len(history.messages))
"""
ASYNC_USE = """
async def use():
    await history.aadd_messages([HumanMessage("hi")])
    return len(await history.aget_messages())
print(asyncio.run(use()))
"""


@pytest.mark.parametrize("use", [SYNC_USE, ASYNC_USE], ids=["sync", "async"])
def test_what_was_opened_by_its_url_is_closed_at_the_end(url: str, use: str) -> None:
    code = f"""
import asyncio
import sys
from langchain_core.messages import HumanMessage
from daram.adapters.langchain import DaramChatMessageHistory
history = DaramChatMessageHistory("s", url=sys.argv[1], owner="ann")
{use}
"""
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error::ResourceWarning", "-c", code, url],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.stdout == "1\n", done.stderr
    for sign in ("Traceback", "unclosed", "Task was destroyed"):
        assert sign not in done.stderr, done.stderr


# --- models -----------------------------------------------------------------------------------------------------------


async def test_a_chat_model_of_langchain_answers_in_daram() -> None:
    model = Recording(messages=iter([AIMessage("I will"), AIMessage("a tuna")]))
    async with daram.open("memory://") as memory:
        async with daram.Chatbot(memory, LangChainModel(model, name="fake"), titles=False) as bot:
            for text in ("a squirrel is a tuna", "what is a squirrel?"):
                answer = (await bot.ask("ann", "c", text)).text
        stored = await memory.tail("ann", "c", 10)
    assert answer == "a tuna"
    assert [(m.role, m.text) for m in stored][-1] == ("assistant", "a tuna")
    assert any("a squirrel is a tuna" in m.text for m in model.asked[1])


class Failing(GenericFakeChatModel):
    error: Any = None

    def _generate(self, messages: list[BaseMessage], *args: Any, **kwargs: Any) -> Any:
        raise self.error


class Status(Exception):
    def __init__(self, status: int, text: str = "no") -> None:
        super().__init__(text)
        self.status_code = status


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (Status(429), ModelRateLimited),
        (Status(401), ModelRefused),
        (Status(503), ModelUnavailable),
        (Status(400, "maximum context length is 8"), ContextOverflow),
        (TimeoutError(), ModelTimeout),
        (ConnectionRefusedError(), ModelUnavailable),
        (KeyError("x"), ModelBroken),
    ],
)
async def test_its_errors_are_darams(error: Exception, kind: type[ModelError]) -> None:
    model = LangChainModel(Failing(messages=iter([]), error=error))
    with pytest.raises(kind):
        async for _ in model.stream([daram.user("hi")]):
            pass


async def test_tool_calls_and_usage_come_last() -> None:
    class Calling(GenericFakeChatModel):
        def _stream(self, messages: Sequence[BaseMessage], *args: Any, **kwargs: Any) -> Any:
            from langchain_core.outputs import ChatGenerationChunk

            assert kwargs["temperature"] == 0.5
            for piece in ('{"a', '": 1}'):
                chunk = {"name": "look" if "a" in piece else None, "args": piece, "id": "c", "index": 0}
                yield ChatGenerationChunk(message=AIMessageChunk("", tool_call_chunks=[chunk]))
            usage: Any = {"input_tokens": 3, "output_tokens": 4, "total_tokens": 7}
            yield ChatGenerationChunk(message=AIMessageChunk("ok", usage_metadata=usage))

    model = LangChainModel(Calling(messages=iter([])))
    deltas = [delta async for delta in model.stream([daram.user("hi")], Options(temperature=0.5))]
    assert "".join(delta.text for delta in deltas) == "ok"
    assert deltas[-1].finish == "tool_calls"
    assert deltas[-1].parts[0].data == {"call_id": "c", "name": "look", "arguments": '{"a": 1}'}
    assert deltas[-1].usage == {"input_tokens": 3, "output_tokens": 4}
