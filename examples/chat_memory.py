"""A chat page whose memory survives a restart: Chainlit + LangChain + Daram, on Redis.

    pip install "daram[chainlit,langgraph,redis]" langchain langchain-openai
    export OPENAI_API_KEY=…  CHAINLIT_AUTH_SECRET=$(chainlit create-secret | tail -1 | cut -d'"' -f2)
    chainlit run examples/chat_memory.py

Every user has conversations of their own (any name is let in: put your own login there), listed at the side, each to
be gone on with. DARAM_URL may as well be sqlite:///chat.db or postgresql://…; MODEL is any model that LangChain knows.
"""

import os

import chainlit as cl
from langchain.agents import create_agent
from langchain.chat_models import init_chat_model

import daram
from daram.adapters.chainlit import DaramDataLayer
from daram.adapters.langgraph import DaramSaver

memory = daram.sync.open(os.environ.get("DARAM_URL", "redis://localhost:6379/0"))
saver = DaramSaver(memory)
model = init_chat_model(os.environ.get("MODEL", "openai:gpt-4.1-mini"))
agent = create_agent(model, checkpointer=saver)


@cl.data_layer
def data_layer() -> DaramDataLayer:
    # The agent's messages are stored by its checkpoints, and a chat that is deleted takes those with it.
    return DaramDataLayer(memory, messages=False, deleted=lambda owner, id: saver.of(owner).adelete_thread(id))


@cl.password_auth_callback
async def login(name: str, password: str) -> cl.User:
    return cl.User(identifier=name)


@cl.on_chat_start
async def start() -> None:
    await cl.Message("저는 대화의 맥락을 고려해 답변할 수 있는 채팅봇입니다. 메시지를 입력하세요.").send()


@cl.on_chat_resume
async def resume(thread: dict) -> None:
    """The page shows what was said; the agent finds it by the thread's id."""


@cl.on_message
async def answer(message: cl.Message) -> None:
    user = cl.user_session.get("user")
    config = {"configurable": {"thread_id": message.thread_id, "owner": user.identifier}}
    reply = cl.Message("")
    said = {"messages": [{"role": "user", "content": message.content}]}
    async for piece, _ in agent.astream(said, config, stream_mode="messages"):
        await reply.stream_token(piece.text)
    await reply.send()
