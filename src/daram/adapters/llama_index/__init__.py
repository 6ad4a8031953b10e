"""LlamaIndex's chat store on a Daram store: a key is a conversation.

::

    chat = ChatMemoryBuffer.from_defaults(chat_store=DaramChatStore(memory, owner="alice"), chat_store_key="forest")
"""

from daram.adapters.versions import require

require(
    "the adapter for LlamaIndex", "llama_index.core", "llama-index-core", "llama-index", oldest="0.14.8", below="0.15"
)

from daram.adapters.llama_index.chat_store import DaramChatStore

__all__ = ["DaramChatStore"]
