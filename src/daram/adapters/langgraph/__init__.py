"""LangGraph's checkpoints and store on a Daram store.

::

    async with daram.open("sqlite:///daram.db") as memory:
        graph = builder.compile(checkpointer=DaramSaver(memory, owner="alice"), store=DaramStore(memory, owner="alice"))

Lists of messages are kept as what each step added, and a thread's messages are a conversation for the other doors. The
synchronous methods run on Daram's background loop: they may be called from any thread that runs no event loop itself.
"""

from daram.adapters.versions import require

require("the adapter for LangGraph", "langgraph", "langgraph", "langgraph", oldest="1.2", below="2")
require(
    "the adapter for LangGraph",
    "langgraph.checkpoint.base",
    "langgraph-checkpoint",
    "langgraph",
    oldest="4.3",
    below="5",
)

from daram.adapters.langgraph.saver import DaramSaver
from daram.adapters.langgraph.store import DaramStore

__all__ = ["DaramSaver", "DaramStore"]
