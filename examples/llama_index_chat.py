"""A LlamaIndex chat engine whose history is kept in Daram.

pip install "daram[llama-index]" llama-index-llms-openai
python examples/llama_index_chat.py "From now on a squirrel is called a tuna."
"""

import os
import sys

from llama_index.core.chat_engine import SimpleChatEngine
from llama_index.core.memory import ChatMemoryBuffer

from daram import sync
from daram.adapters.llama_index import DaramChatStore


def main(text: str) -> str:
    with sync.open(os.environ.get("DARAM_URL", "sqlite:///daram.db")) as memory:
        history = ChatMemoryBuffer.from_defaults(
            chat_store=DaramChatStore(memory, owner="alice", window=50), chat_store_key="forest"
        )
        engine = SimpleChatEngine.from_defaults(memory=history, system_prompt="Answer briefly.")
        return str(engine.chat(text))


if __name__ == "__main__":
    print(main(" ".join(sys.argv[1:]) or "Hello!"))
