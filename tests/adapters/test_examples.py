"""The examples, each begun anew for every message, with a model that knows only what it is shown."""

from __future__ import annotations

import asyncio
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from langchain_core.language_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from tests.chainlit_home import load_chainlit

os.environ.setdefault("OPENAI_AGENTS_DISABLE_TRACING", "1")

from daram import sync
from daram.adapters import langchain as adapter
from daram.memory import Memory
from daram.store.redis.engine import RedisStore
from daram.testing.model_server import ScriptedModelServer

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
TOLD, ASKED = "앞으로 다람쥐를 다랑어라고 부를게", "다람쥐를 뭐라고 부르지?"


def reply(texts: list[str]) -> str:
    """What can be known from what was said before."""
    if texts[-1] != ASKED:
        return "알겠습니다"
    return "다랑어" if any("다랑어라고" in text for text in texts[:-1]) else "모릅니다"


class Attentive(GenericFakeChatModel):
    def _generate(self, messages: list[BaseMessage], *args: Any, **kwargs: Any) -> ChatResult:
        said = [str(message.text) for message in messages if message.type in ("human", "ai")]
        return ChatResult(generations=[ChatGeneration(message=AIMessage(reply(said)))])


@pytest.fixture(autouse=True)
def scripted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DARAM_URL", f"sqlite:///{tmp_path}/examples.db")
    monkeypatch.setattr("langchain.chat_models.init_chat_model", lambda name: Attentive(messages=iter([])))


def example(name: str) -> dict[str, Any]:
    return runpy.run_path(str(EXAMPLES / name))


def test_langgraph_agent() -> None:
    for text, answer in ((TOLD, "알겠습니다"), (ASKED, "다랑어")):
        assert asyncio.run(example("langgraph_agent.py")["main"](text)) == answer


def test_langchain_history() -> None:
    for text, answer in ((TOLD, "알겠습니다"), (ASKED, "다랑어")):
        assert example("langchain_history.py")["main"](text) == answer
        adapter._close()  # as when the program ends


def test_agents_session() -> None:
    from agents import ModelResponse, Usage
    from agents.models.interface import Model
    from openai.types.responses import ResponseOutputMessage, ResponseOutputText

    class AttentiveModel(Model):
        async def get_response(self, system_instructions: Any, input: Any, *args: Any, **kwargs: Any) -> ModelResponse:
            said = [i["content"] if isinstance(i["content"], str) else i["content"][0]["text"] for i in input]
            content: Any = [ResponseOutputText(type="output_text", text=reply(said), annotations=[])]
            output: Any = [
                ResponseOutputMessage(id="m", type="message", role="assistant", status="completed", content=content)
            ]
            return ModelResponse(output=output, usage=Usage(), response_id=None)

        def stream_response(self, *args: Any, **kwargs: Any) -> Any:
            raise NotImplementedError

    for text, answer in ((TOLD, "알겠습니다"), (ASKED, "다랑어")):
        module = example("agents_session.py")
        module["agent"].model = AttentiveModel()
        assert asyncio.run(module["main"](text)) == answer


def test_pydantic_ai_agent() -> None:
    from pydantic_ai.messages import ModelResponse, TextPart
    from pydantic_ai.models.function import FunctionModel

    def attentive(messages: list[Any], info: Any) -> ModelResponse:
        said = [part.content for message in messages for part in message.parts if part.part_kind != "system-prompt"]
        return ModelResponse(parts=[TextPart(reply(said))])

    for text, answer in ((TOLD, "알겠습니다"), (ASKED, "다랑어")):
        module = example("pydantic_ai_agent.py")
        with module["agent"].override(model=FunctionModel(attentive)):
            assert asyncio.run(module["main"](text)) == answer


def test_llama_index_chat(monkeypatch: pytest.MonkeyPatch) -> None:
    from llama_index.core import Settings
    from llama_index.core.llms import ChatMessage, ChatResponse, MockLLM

    class AttentiveLLM(MockLLM):
        def chat(self, messages: Any, **kwargs: Any) -> ChatResponse:
            said = [str(message.content) for message in messages if message.role.value != "system"]
            return ChatResponse(message=ChatMessage(role="assistant", content=reply(said)))

    monkeypatch.setattr(Settings, "_llm", AttentiveLLM())
    for text, answer in ((TOLD, "알겠습니다"), (ASKED, "다랑어")):
        assert example("llama_index_chat.py")["main"](text) == answer


async def test_django_chat(tmp_path: Path) -> None:
    """In a process of its own for each message: Django is set up once per process."""
    program = f"""
import sys
sys.path.insert(0, {str(EXAMPLES)!r})
import django_chat
from django.core.management import call_command
call_command("migrate", verbosity=0)
from django.contrib.auth.models import User
from django.test import Client
client = Client()
client.force_login(User.objects.get_or_create(username="ann")[0])
print(client.post("/", {{"text": sys.stdin.read()}}, headers={{"host": "localhost"}}).content.decode())
"""
    async with ScriptedModelServer() as server:
        env = {"CHAT_FOLDER": str(tmp_path), "OPENAI_BASE_URL": server.base_url, "OPENAI_MODEL": "scripted"}
        for text in (TOLD, ASKED):
            done = await asyncio.to_thread(
                subprocess.run,
                [sys.executable, "-c", program],
                env={**os.environ, **env, "PYTHONIOENCODING": "utf-8"},
                input=text,
                capture_output=True,
                text=True,
                encoding="utf-8",
                timeout=120,
                check=False,
            )
            assert done.returncode == 0, done.stderr
    said = re.findall("<p><b>(.*?)</b> (.*?)</p>", done.stdout)
    assert [role for role, _ in said] == ["user", "assistant", "user", "assistant"]
    assert (said[0][1], said[2][1]) == (TOLD, ASKED) and "다랑어" in said[3][1]


async def close(memory: Memory) -> None:
    """On the two loops on which the example used it: Redis has connections of its own for each."""
    pending = asyncio.all_tasks() - {asyncio.current_task()}
    for _ in range(10):  # what Chainlit still writes would open them again, and may begin more of it
        if not pending:
            break
        await asyncio.wait(pending, timeout=60)
        pending = asyncio.all_tasks() - {asyncio.current_task()}
    assert not pending
    if isinstance(memory.inner, RedisStore):
        await memory.inner.server.close()
    await asyncio.to_thread(lambda: sync.portal().run(memory.close()))


async def test_the_first_tutorials_chat(memory: Memory, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DARAM_URL", url)
    load_chainlit()
    import chainlit as cl
    from chainlit.context import context_var, init_http_context
    from chainlit.user import PersistedUser

    async def say(owner: str, thread: str, text: str) -> str:
        module = await asyncio.to_thread(example, "chat_memory.py")  # as if it had been started again
        user = PersistedUser(id=owner, identifier=owner, createdAt="2026-01-01T00:00:00Z", metadata={})
        context = init_http_context(user=user, thread_id=thread)
        message = cl.Message(text)
        message.thread_id = context.session.thread_id
        await module["answer"](message)
        await close(module["memory"].inner)
        return (await memory.tail(owner, thread, 1))[0].text

    async def delete(owner: str, thread: str) -> None:
        module = await asyncio.to_thread(example, "chat_memory.py")
        init_http_context(user=PersistedUser(id=owner, identifier=owner, createdAt="", metadata={}), thread_id=thread)
        await module["data_layer"]().delete_thread(thread)
        await close(module["memory"].inner)

    token = context_var.set(None)  # type: ignore[arg-type]
    try:
        assert await say("ann", "one", TOLD) == "알겠습니다"
        assert await say("ann", "one", ASKED) == "다랑어"
        assert await say("ann", "two", ASKED) == "모릅니다"
        assert await say("bob", "one", ASKED) == "모릅니다"
    finally:
        context_var.reset(token)
    assert {found.id for found in (await memory.list("ann")).items} == {"one", "two"}
    assert [m.text for m in await memory.tail("ann", "one", 10)] == [TOLD, "알겠습니다", ASKED, "다랑어"]
    for thread in ("one", "two"):
        await delete("ann", thread)
    # Neither the chats nor the agent's checkpoints, which have every word of them.
    assert (await memory.list("ann")).items == []
    left = (await memory.scan_all_records(limit=1000)).items  # that the threads were deleted, and when, is known a day
    assert {found.owner for found in left if found.record.namespace != "langgraph.deleted"} == {"bob"}
    assert [m.text for m in await memory.tail("bob", "one", 10)] == [ASKED, "모릅니다"]
