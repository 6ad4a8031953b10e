"""Sessions of the OpenAI Agents SDK on a Daram store: a session is a conversation, an item is a message.

::

    session = DaramSession(memory, "alice", "holiday")
    result = await Runner.run(agent, "Where did I want to go?", session=session)
"""

from daram.adapters.versions import require

require("the adapter for the OpenAI Agents SDK", "agents", "openai-agents", "agents", oldest="0.20", below="1")

from daram.adapters.openai_agents.session import DaramSession

__all__ = ["DaramSession"]
