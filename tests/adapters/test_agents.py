"""Each framework's own agent with a model that follows a script, on every engine."""

from __future__ import annotations

import os
import warnings
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.prompts import ChatPromptTemplate, MessagesPlaceholder
from langchain_core.runnables.history import RunnableWithMessageHistory
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command, interrupt
from llama_index.core.agent.workflow import FunctionAgent
from llama_index.core.base.llms.types import ChatMessage, ChatResponse, LLMMetadata, ToolCallBlock
from llama_index.core.llms.function_calling import FunctionCallingLLM
from llama_index.core.llms.llm import ToolSelection
from llama_index.core.llms.mock import MockLLM
from llama_index.core.memory import ChatMemoryBuffer

os.environ.setdefault("OPENAI_AGENTS_DISABLE_TRACING", "1")

from agents import Agent, Runner, RunState, function_tool
from openai.types.responses import ResponseFunctionToolCall
from tests.adapters.agents_scripted import Scripted as ScriptedModel
from tests.adapters.agents_scripted import says

from daram.adapters.langchain import DaramChatMessageHistory
from daram.adapters.langgraph import DaramSaver
from daram.adapters.llama_index import DaramChatStore
from daram.adapters.openai_agents import DaramSession
from daram.memory import Memory

QUESTION, ANSWER = "what is a squirrel called?", "a tuna"
THREAD: Any = {"configurable": {"thread_id": "t"}}


class Scripted(BaseChatModel):
    """Gives one answer after the other, and keeps what it was asked."""

    answers: list[AIMessage]
    asked: list[list[BaseMessage]] = []  # noqa: RUF012  # pydantic copies it

    @property
    def _llm_type(self) -> str:
        return "scripted"

    def _generate(self, messages: list[BaseMessage], *args: Any, **kwargs: Any) -> ChatResult:
        self.asked.append(list(messages))
        return ChatResult(generations=[ChatGeneration(message=self.answers.pop(0))])

    def bind_tools(self, tools: Sequence[Any], **kwargs: Any) -> Any:
        return self


def look(at: str) -> str:
    """Look."""
    return f"{at} is called a tuna"


def ask(at: str) -> str:
    """Ask a person first."""
    return f"{at}: {interrupt(f'may I look at {at}?')}"


def wants(*calls: tuple[str, str]) -> AIMessage:
    made: Any = [{"name": name, "args": {"at": at}, "id": f"c{i}-{at}"} for i, (name, at) in enumerate(calls)]
    return AIMessage("", tool_calls=made)


def agent(saver: Any, *answers: AIMessage) -> tuple[Any, Scripted]:
    from langchain.agents import create_agent

    model = Scripted(answers=list(answers))
    return create_agent(model, [look, ask], checkpointer=saver), model


def shown(messages: Sequence[BaseMessage]) -> list[tuple[str, str]]:
    return [(message.type, message.text) for message in messages]


async def test_langchains_agent_calls_two_tools_at_once_and_remembers(memory: Memory) -> None:
    seen = []
    kept = InMemorySaver()
    for saver in (lambda: DaramSaver(memory, owner="ann"), lambda: kept):
        first, _ = agent(saver(), wants(("look", "squirrel"), ("look", "oak")), AIMessage(ANSWER))
        await first.ainvoke({"messages": [HumanMessage(QUESTION)]}, THREAD)
        second, model = agent(saver(), AIMessage("I said: a tuna"))  # as if the process had been started again
        await second.ainvoke({"messages": [HumanMessage("again?")]}, THREAD)
        seen.append(shown(model.asked[-1]))
    assert seen[0] == seen[1]
    assert seen[0] == [
        ("human", QUESTION),
        ("ai", ""),
        ("tool", "squirrel is called a tuna"),
        ("tool", "oak is called a tuna"),
        ("ai", ANSWER),
        ("human", "again?"),
    ]
    assert [m.role for m in await memory.tail("ann", "t")] == [
        *("user", "assistant", "tool", "tool", "assistant"),
        *("user", "assistant"),
    ]


async def test_langchains_agent_is_interrupted_in_a_tool_resumed_and_sent_back_in_time(memory: Memory) -> None:
    stopped, _ = agent(DaramSaver(memory, owner="ann"), wants(("ask", "oak"), ("look", "squirrel")))
    found = await stopped.ainvoke({"messages": [HumanMessage(QUESTION)]}, THREAD)
    assert [each.value for each in found["__interrupt__"]] == ["may I look at oak?"]

    resumed, model = agent(DaramSaver(memory, owner="ann"), AIMessage(ANSWER))
    events = [event async for event in resumed.astream(Command(resume="yes"), THREAD, stream_mode="updates")]
    names = [name for event in events for name in event if name != "__metadata__"]
    assert names == ["tools", "tools", "model"]
    tools = [message for message in model.asked[0] if isinstance(message, ToolMessage)]
    assert [message.text for message in tools] == ["oak: yes", "squirrel is called a tuna"]

    history = [state async for state in resumed.aget_state_history(THREAD)]
    before = next(state for state in history if state.next == ("model",) and len(state.values["messages"]) == 1)
    other, model = agent(DaramSaver(memory, owner="ann"), AIMessage("I do not look"))
    await other.ainvoke(None, before.config)
    assert shown(model.asked[0]) == [("human", QUESTION)]
    state = await other.aget_state(THREAD)
    assert shown(state.values["messages"]) == [("human", QUESTION), ("ai", "I do not look")]
    assert [m.text for m in await memory.tail("ann", "t")] == [QUESTION, "I do not look"]
    assert len((await other.aget_state(history[0].config)).values["messages"]) == 5  # what was is still there


async def test_langchains_chain_with_a_history(memory: Memory) -> None:
    model = Scripted(answers=[AIMessage("noted"), AIMessage(ANSWER)])
    prompt = ChatPromptTemplate.from_messages([MessagesPlaceholder("history"), ("human", "{input}")])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # LangChain deprecates the class
        chain = RunnableWithMessageHistory(
            prompt | model,
            lambda session_id: DaramChatMessageHistory(session_id, owner="ann", window=4, memory=memory),
            input_messages_key="input",
            history_messages_key="history",
        )
    config: Any = {"configurable": {"session_id": "s"}}
    await chain.ainvoke({"input": "a squirrel is called a tuna"}, config)
    chunks = [chunk.text async for chunk in chain.astream({"input": QUESTION}, config)]
    assert "".join(chunks) == ANSWER
    assert shown(model.asked[1]) == [("human", "a squirrel is called a tuna"), ("ai", "noted"), ("human", QUESTION)]
    assert [m.text for m in await memory.tail("ann", "s")][-2:] == [QUESTION, ANSWER]


# --- the OpenAI Agents SDK ---


def calls(name: str) -> list[Any]:
    return [ResponseFunctionToolCall(type="function_call", call_id="c1", name=name, arguments='{"at": "squirrel"}')]


async def test_the_agents_sdks_run_is_streamed(memory: Memory) -> None:
    model = ScriptedModel(calls("look"), says(ANSWER), says("again: a tuna"))
    worker: Any = Agent(name="a", model=model, tools=[function_tool(look)])
    streamed = Runner.run_streamed(worker, QUESTION, session=DaramSession(memory, "ann", "s"))
    kinds = [event.type async for event in streamed.stream_events()]
    assert "run_item_stream_event" in kinds
    assert streamed.final_output == ANSWER
    again = await Runner.run(worker, "again?", session=DaramSession(memory, "ann", "s"))
    assert again.final_output == "again: a tuna"
    assert [item.get("type", item.get("role")) for item in model.asked[2]] == [
        *("user", "function_call", "function_call_output", "message"),
        "user",
    ]


async def test_the_agents_sdks_run_is_interrupted_and_resumed(memory: Memory) -> None:
    model = ScriptedModel(calls("look"), says(ANSWER))
    worker: Any = Agent(name="a", model=model, tools=[function_tool(look, needs_approval=True)])
    stopped = await Runner.run(worker, QUESTION, session=DaramSession(memory, "ann", "s"))
    assert len(stopped.interruptions) == 1
    state: Any = await RunState.from_string(worker, stopped.to_state().to_string())
    state.approve(state.get_interruptions()[0])
    resumed = await Runner.run(worker, state, session=DaramSession(memory, "ann", "s"))
    assert resumed.final_output == ANSWER
    items: list[Any] = await DaramSession(memory, "ann", "s").get_items()
    assert [item.get("type", item.get("role")) for item in items] == [
        *("user", "function_call", "function_call_output", "message")
    ]


# --- LlamaIndex ---


class ScriptedLlama(MockLLM, FunctionCallingLLM):
    """Its like, ``MockFunctionCallingLLM``, is not in the oldest release."""

    answers: list[ChatMessage]
    asked: list[list[str]]

    @property
    def metadata(self) -> LLMMetadata:
        return LLMMetadata(is_function_calling_model=True)

    async def astream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> Any:
        self.asked.append([f"{message.role.value}: {message.content}" for message in messages])

        async def stream() -> AsyncIterator[ChatResponse]:
            message = self.answers.pop(0)
            yield ChatResponse(message=message, delta=message.content or "")

        return stream()

    def _prepare_chat_with_tools(self, tools: Any, user_msg: Any = None, chat_history: Any = None, **_: Any) -> Any:
        return {"messages": [*(chat_history or []), *([user_msg] if user_msg else [])]}

    def get_tool_calls_from_response(self, response: ChatResponse, *args: Any, **kwargs: Any) -> list[ToolSelection]:
        return [
            ToolSelection(tool_id=block.tool_call_id, tool_name=block.tool_name, tool_kwargs=block.tool_kwargs)
            for block in response.message.blocks
            if isinstance(block, ToolCallBlock)
        ]


@pytest.mark.filterwarnings("ignore::pydantic.warnings.PydanticDeprecationWarning")  # LlamaIndex's own
async def test_llama_indexs_agent_calls_a_tool_and_remembers(memory: Memory) -> None:
    asked: list[list[str]] = []
    call = ToolCallBlock(tool_call_id="c1", tool_name="look", tool_kwargs={"at": "squirrel"})
    wanted = ChatMessage(role="assistant", blocks=[call])
    told, again = (ChatMessage(role="assistant", content=text) for text in (ANSWER, "I said: a tuna"))
    for question, answers in ((QUESTION, [wanted, told]), ("again?", [again])):
        said = answers[-1].content
        worker = FunctionAgent(tools=[look], llm=ScriptedLlama.model_construct(answers=answers, asked=asked))
        buffer = ChatMemoryBuffer.from_defaults(
            chat_store=DaramChatStore(memory, owner="ann"), chat_store_key="s", token_limit=1000
        )
        found = await worker.run(user_msg=question, memory=buffer)
        assert str(found) == said
    assert asked[-1][0] == f"user: {QUESTION}"
    assert asked[-1][-1] == "user: again?"
    assert "tool: squirrel is called a tuna" in asked[-1]
    assert f"assistant: {ANSWER}" in asked[-1]
