"""Adds to sessions of every adapter until it is killed. Run by test_faults.py: ``python crash_sessions.py URL``.

After each round it prints its number: everything up to there has been acknowledged.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import sys
from typing import Any

from langchain_core.messages import AIMessage, HumanMessage
from llama_index.core.llms import ChatMessage
from pydantic_ai.conversation import Conversation
from pydantic_ai.messages import ModelRequest, ModelResponse, TextPart, UserPromptPart

import daram
from daram.adapters.langchain import DaramChatMessageHistory
from daram.adapters.llama_index import DaramChatStore
from daram.adapters.openai_agents import DaramSession
from daram.adapters.pydantic_ai import DaramConversationStore

SESSIONS = ("agents", "langchain", "llama", "pydantic")


async def add(memory: Any, text: str) -> None:
    """A question and its answer, by each adapter to its own session."""
    answer = f"to {text}"
    await DaramSession(memory, "ann", "agents").add_items(
        [{"role": "user", "content": text}, {"role": "assistant", "content": answer}]
    )
    history = DaramChatMessageHistory("langchain", owner="ann", memory=memory)
    await history.aadd_messages([HumanMessage(text), AIMessage(answer)])
    chats = DaramChatStore(memory, owner="ann")
    for role, said in (("user", text), ("assistant", answer)):
        await chats.async_add_message("llama", ChatMessage(role=role, content=said))
    store = DaramConversationStore(memory, owner="ann")
    known = await store.load("pydantic")
    new = [ModelRequest(parts=[UserPromptPart(text)]), ModelResponse(parts=[TextPart(answer)])]
    conversation = known or Conversation(conversation_id="pydantic")
    conversation.messages = [*conversation.messages, *new]
    await store.save(conversation)


async def main(url: str) -> None:
    async with await daram.open(url) as memory:
        for number in itertools.count():
            await add(memory, str(number))
            os.write(1, f"{number}\n".encode())


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
