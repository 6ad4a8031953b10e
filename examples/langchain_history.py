"""A chat history for a program on plain LangChain: the last 50 messages go to the model, all of them are kept.

pip install "daram[langchain]" langchain langchain-openai
python examples/langchain_history.py "From now on a squirrel is called a tuna."
"""

import os
import sys

from langchain.chat_models import init_chat_model
from langchain_core.messages import HumanMessage

from daram.adapters.langchain import DaramChatMessageHistory


def main(text: str) -> str:
    history = DaramChatMessageHistory(
        "forest", url=os.environ.get("DARAM_URL", "sqlite:///daram.db"), owner="alice", window=50
    )
    model = init_chat_model(os.environ.get("MODEL", "openai:gpt-4.1-mini"))
    history.add_messages([HumanMessage(text)])  # before the model is asked: it is kept whatever happens then
    answer = model.invoke(history.messages)
    history.add_messages([answer])
    return answer.text


if __name__ == "__main__":
    print(main(" ".join(sys.argv[1:]) or "Hello!"))
