"""An agent of the OpenAI Agents SDK whose session is a Daram conversation.

pip install "daram[agents]"
python examples/agents_session.py "From now on a squirrel is called a tuna."
"""

import asyncio
import os
import sys

from agents import Agent, Runner

import daram
from daram.adapters.openai_agents import DaramSession

agent = Agent(name="Assistant", instructions="Answer briefly.")


async def main(text: str) -> str:
    async with daram.open(os.environ.get("DARAM_URL", "sqlite:///daram.db")) as memory:
        result = await Runner.run(agent, text, session=DaramSession(memory, "alice", "forest"))
        return str(result.final_output)


if __name__ == "__main__":
    print(asyncio.run(main(" ".join(sys.argv[1:]) or "Hello!")))
