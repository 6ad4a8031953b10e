"""An agent of LangChain that remembers: its checkpoints and its long-term memory are in Daram.

pip install "daram[langgraph]" langchain langchain-openai
python examples/langgraph_agent.py "From now on a squirrel is called a tuna."
python examples/langgraph_agent.py "What is a squirrel called?"
daram list --owner alice --db sqlite:///daram.db
"""

import asyncio
import os
import sys

from langchain.agents import create_agent
from langchain.chat_models import init_chat_model

import daram
from daram.adapters.langgraph import DaramSaver, DaramStore


async def main(text: str) -> str:
    async with daram.open(os.environ.get("DARAM_URL", "sqlite:///daram.db")) as memory:
        agent = create_agent(
            init_chat_model(os.environ.get("MODEL", "openai:gpt-4.1-mini")),
            checkpointer=DaramSaver(memory, owner="alice"),
            store=DaramStore(memory, owner="alice"),
        )
        said = {"messages": [{"role": "user", "content": text}]}
        state = await agent.ainvoke(said, {"configurable": {"thread_id": "forest"}})
        return state["messages"][-1].text


if __name__ == "__main__":
    print(asyncio.run(main(" ".join(sys.argv[1:]) or "Hello!")))
