"""Chainlit's data layer on a Daram store: threads are conversations, message steps are messages.

::

    @cl.data_layer
    def data_layer():
        return DaramDataLayer(memory)

What Chainlit wants kept beside the messages (other steps, elements, feedback, users, what a session was set to) is kept
in records. Every list is paged in the store; opening a thread reads its last messages, never all of them.
"""

from daram.adapters.versions import require

require("the data layer for Chainlit", "chainlit", "chainlit", "chainlit", oldest="2.12", below="2.13")

from daram.adapters.chainlit.layer import DaramDataLayer

__all__ = ["DaramDataLayer"]
