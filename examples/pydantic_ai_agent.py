"""A Pydantic AI agent whose conversation is kept in Daram.

pip install "daram[pydantic-ai]" "pydantic-ai-slim[openai]"
python examples/pydantic_ai_agent.py "From now on a squirrel is called a tuna."
"""

import asyncio
import os
import sys

from pydantic_ai import Agent
from pydantic_ai.conversation import Conversation

import daram
from daram.adapters.pydantic_ai import DaramConversationStore

agent = Agent(
    os.environ.get("PYDANTIC_AI_MODEL", "openai:gpt-5-mini"), instructions="Answer briefly.", defer_model_check=True
)


async def main(text: str) -> str:
    async with daram.open(os.environ.get("DARAM_URL", "sqlite:///daram.db")) as memory:
        store = DaramConversationStore(memory, owner="alice")
        conversation = await store.load("forest", limit=50) or Conversation(conversation_id="forest")
        result = await agent.run(text, conversation=conversation)
        await store.save(result)
        return str(result.output)


if __name__ == "__main__":
    print(asyncio.run(main(" ".join(sys.argv[1:]) or "Hello!")))
