"""What ``make bench-peers`` measures: the stores that frameworks bring, and Daram's adapters in their place.

Each is opened as its documentation shows, with the durability that it ships with. A turn reads what the model needs
(the last 20 messages where the store can do that, else all) and adds two messages of 200 characters. LangGraph's turn
is a whole run of a graph, since the framework loads the whole state for each run.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from functools import cache
from itertools import count, islice
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Protocol, TypedDict

import daram
from bench.sizes import prose

WINDOW = 20
# In so many steps a thread with a delta channel is filled.
_FILLS = 100
OWNER = "bench"
Engine = Literal["SQLite", "PostgreSQL", "Redis"]
ENGINES: tuple[Engine, ...] = ("SQLite", "PostgreSQL", "Redis")


class Kept(Protocol):
    """A store that is open, with conversations by name."""

    async def fill(self, name: str, length: int) -> None:
        """Put so many messages into a new conversation."""
        ...

    async def turn(self, name: str) -> object:
        """One turn in it."""
        ...

    async def add(self, name: str) -> object:
        """What a turn writes; nothing is read first where the store can do without."""
        ...


class Place(NamedTuple):
    """Where a store may write: a path that is free, or a server's host, port and (PostgreSQL) database."""

    engine: Engine
    path: Path
    port: int = 0
    database: str = ""

    def url(self, driver: str = "") -> str:
        """Its URL: Daram's without a driver, else SQLAlchemy's."""
        if self.engine == "SQLite":
            return f"sqlite{'+' if driver else ''}{driver}:///{self.path}"
        if self.engine == "Redis":
            return f"redis://127.0.0.1:{self.port}/0"
        return f"postgresql{'+' if driver else ''}{driver}://daram@127.0.0.1:{self.port}/{self.database}"


Opener = Callable[[Place, AsyncExitStack], Awaitable[Kept]]


@cache
def _texts() -> list[str]:
    return list(islice(prose(), 5_000))


def text(number: int) -> str:
    """200 characters like prose: what repeats itself some databases compress."""
    return _texts()[number % len(_texts())]


_turns = count()


def pair() -> range:
    """The numbers of the next turn's two messages: no two turns say the same."""
    first = 2 * next(_turns)
    return range(first, first + 2)


def said(numbers: Iterable[int]) -> list[Any]:
    """LangChain's messages."""
    from langchain_core.messages import AIMessage, HumanMessage

    return [(HumanMessage if n % 2 == 0 else AIMessage)(text(n)) for n in numbers]


async def opened(place: Place, stack: AsyncExitStack) -> daram.Memory:
    """A store of Daram."""
    return await stack.enter_async_context(await daram.open(place.url()))


# --- LangGraph: savers ---


class Graph:
    """A graph whose only node answers. ``delta``: its messages are in the framework's beta ``DeltaChannel``."""

    def __init__(self, saver: Any, *, delta: bool = False) -> None:
        from langgraph.graph import START, MessagesState, StateGraph

        builder = StateGraph(_delta_state() if delta else MessagesState)
        builder.add_node("answer", lambda state: {"messages": said([2 * len(state["messages"]) + 1])})
        builder.add_edge(START, "answer")
        self._graph = builder.compile(checkpointer=saver)
        self._delta = delta

    async def fill(self, name: str, length: int) -> None:
        # What a delta channel costs is how many steps wrote it.
        step = max(1, length // _FILLS) if self._delta else length
        for start in range(0, length, step):
            messages = said(range(start, min(length, start + step)))
            await self._graph.aupdate_state(_thread(name), {"messages": messages}, as_node="answer")

    async def turn(self, name: str) -> object:
        return await self._graph.ainvoke({"messages": said(pair()[:1])}, _thread(name))

    add = turn


@cache
def _delta_state() -> Any:
    from langchain_core.messages import AnyMessage
    from langgraph.channels.delta import DeltaChannel
    from langgraph.graph.message import _messages_delta_reducer

    return TypedDict("State", {"messages": Annotated[list[AnyMessage], DeltaChannel(_messages_delta_reducer)]})


def _thread(name: str) -> Any:
    return {"configurable": {"thread_id": name}}


@asynccontextmanager
async def memory_saver(place: Place) -> AsyncIterator[Any]:
    """The framework's own in memory."""
    from langgraph.checkpoint.memory import InMemorySaver

    yield InMemorySaver()


@asynccontextmanager
async def daram_saver(place: Place) -> AsyncIterator[Any]:
    """``DaramSaver``."""
    from daram.adapters.langgraph import DaramSaver

    async with daram.open(place.url()) as memory:
        yield DaramSaver(memory, owner=OWNER)


@asynccontextmanager
async def sqlite_saver(place: Place) -> AsyncIterator[Any]:
    """The framework's own on SQLite."""
    from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver

    async with AsyncSqliteSaver.from_conn_string(str(place.path)) as saver:
        await saver.setup()
        yield saver


@asynccontextmanager
async def postgres_saver(place: Place) -> AsyncIterator[Any]:
    """The framework's own on PostgreSQL."""
    from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver

    async with AsyncPostgresSaver.from_conn_string(place.url()) as saver:
        await saver.setup()
        yield saver


@asynccontextmanager
async def redis_saver(place: Place) -> AsyncIterator[Any]:
    """The framework's own on Redis."""
    from langgraph.checkpoint.redis.aio import AsyncRedisSaver

    async with AsyncRedisSaver.from_conn_string(place.url()) as saver:
        await saver.asetup()
        yield saver


def graph(saver: Callable[[Place], AbstractAsyncContextManager[Any]], *, delta: bool) -> Opener:
    """How a graph on that saver is opened."""

    async def open(place: Place, stack: AsyncExitStack) -> Kept:
        return Graph(await stack.enter_async_context(saver(place)), delta=delta)

    return open


# --- the OpenAI Agents SDK: sessions ---


class Sessions:
    """A session per name."""

    def __init__(self, make: Callable[[str], Any]) -> None:
        self._make = make
        self._made: dict[str, Any] = {}

    def _session(self, name: str) -> Any:
        if name not in self._made:
            self._made[name] = self._make(name)
        return self._made[name]

    async def fill(self, name: str, length: int) -> None:
        await self._session(name).add_items(_items(range(length)))

    async def turn(self, name: str) -> object:
        found = await self._session(name).get_items(WINDOW)
        await self.add(name)
        return found

    async def add(self, name: str) -> None:
        await self._session(name).add_items(_items(pair()))


def _items(numbers: Iterable[int]) -> list[Any]:
    return [{"role": ("user", "assistant")[n % 2], "content": text(n)} for n in numbers]


async def daram_session(place: Place, stack: AsyncExitStack) -> Kept:
    """``DaramSession``."""
    from daram.adapters.openai_agents import DaramSession

    memory = await opened(place, stack)
    return Sessions(lambda name: DaramSession(memory, OWNER, name))


async def sqlite_session(place: Place, stack: AsyncExitStack) -> Kept:
    """The SDK's own on SQLite."""
    from agents import SQLiteSession

    def make(name: str) -> SQLiteSession:
        session = SQLiteSession(name, place.path)
        stack.callback(session.close)
        return session

    return Sessions(make)


async def sqlalchemy_session(place: Place, stack: AsyncExitStack) -> Kept:
    """The SDK's own on SQLAlchemy."""
    from agents.extensions.memory import SQLAlchemySession
    from sqlalchemy.ext.asyncio import create_async_engine

    engine = create_async_engine(place.url("aiosqlite" if place.engine == "SQLite" else "asyncpg"))
    stack.push_async_callback(engine.dispose)
    return Sessions(lambda name: SQLAlchemySession(name, engine=engine, create_tables=True))


async def redis_session(place: Place, stack: AsyncExitStack) -> Kept:
    """The SDK's own on Redis."""
    from agents.extensions.memory import RedisSession
    from redis.asyncio import Redis

    client = Redis.from_url(place.url())
    stack.push_async_callback(client.aclose)
    return Sessions(lambda name: RedisSession(name, redis_client=client))


# --- LangChain: histories ---


class Histories:
    """A history per name, through the methods that it has of its own: asynchronous ones, or not."""

    def __init__(self, make: Callable[[str], Any], *, sync: bool = True) -> None:
        self._make = make
        self._made: dict[str, Any] = {}
        self._sync = sync

    def _history(self, name: str) -> Any:
        if name not in self._made:
            self._made[name] = self._make(name)
        return self._made[name]

    async def _add(self, name: str, messages: list[Any]) -> None:
        if self._sync:
            self._history(name).add_messages(messages)
        else:
            await self._history(name).aadd_messages(messages)

    async def fill(self, name: str, length: int) -> None:
        await self._add(name, said(range(length)))

    async def turn(self, name: str) -> object:
        history = self._history(name)
        found = history.messages if self._sync else await history.aget_messages()
        await self.add(name)
        return found

    async def add(self, name: str) -> None:
        await self._add(name, said(pair()))


async def daram_history(place: Place, stack: AsyncExitStack) -> Kept:
    """``DaramChatMessageHistory`` with a window."""
    from daram.adapters.langchain import DaramChatMessageHistory

    memory = await opened(place, stack)
    return Histories(lambda name: DaramChatMessageHistory(name, owner=OWNER, window=WINDOW, memory=memory), sync=False)


async def sql_history(place: Place, stack: AsyncExitStack) -> Kept:
    """The community's on SQLAlchemy."""
    from langchain_community.chat_message_histories import SQLChatMessageHistory
    from sqlalchemy import create_engine

    engine = create_engine(place.url("" if place.engine == "SQLite" else "psycopg"))
    stack.callback(engine.dispose)
    return Histories(lambda name: SQLChatMessageHistory(name, connection=engine))


async def community_redis_history(place: Place, stack: AsyncExitStack) -> Kept:
    """The community's on Redis."""
    from langchain_community.chat_message_histories import RedisChatMessageHistory

    return Histories(lambda name: RedisChatMessageHistory(name, url=place.url()))


async def redis_history(place: Place, stack: AsyncExitStack) -> Kept:
    """That of langchain-redis."""
    from langchain_redis import RedisChatMessageHistory

    # With redis-py 8's own choice (RESP3) it fails at the second session: it reads the index's description as a list.
    return Histories(lambda name: RedisChatMessageHistory(name, redis_url=f"{place.url()}?protocol=2"))


# --- LlamaIndex: chat stores ---


class Chats:
    """A chat store, through its asynchronous methods where it has some of its own."""

    def __init__(self, store: Any, *, sync: bool) -> None:
        self._store = store
        self._sync = sync

    async def fill(self, name: str, length: int) -> None:
        messages = [_llama(n) for n in range(length)]
        if self._sync:
            self._store.set_messages(name, messages)
        else:
            await self._store.aset_messages(name, messages)

    async def turn(self, name: str) -> object:
        found = self._store.get_messages(name) if self._sync else await self._store.aget_messages(name)
        await self.add(name)
        return found

    async def add(self, name: str) -> None:
        for n in pair():
            if self._sync:
                self._store.add_message(name, _llama(n))
            else:
                await self._store.async_add_message(name, _llama(n))


def _llama(number: int) -> Any:
    from llama_index.core.llms import ChatMessage

    return ChatMessage(role=("user", "assistant")[number % 2], content=text(number))


async def daram_chats(place: Place, stack: AsyncExitStack) -> Kept:
    """``DaramChatStore`` with a window."""
    from daram.adapters.llama_index import DaramChatStore

    return Chats(DaramChatStore(await opened(place, stack), owner=OWNER, window=WINDOW), sync=False)


async def llama_sqlite(place: Place, stack: AsyncExitStack) -> Kept:
    """LlamaIndex's on SQLite."""
    from llama_index.storage.chat_store.sqlite import SQLiteChatStore

    return Chats(SQLiteChatStore.from_uri(place.url()), sync=True)


async def llama_postgres(place: Place, stack: AsyncExitStack) -> Kept:
    """LlamaIndex's on PostgreSQL."""
    from llama_index.storage.chat_store.postgres import PostgresChatStore

    store = PostgresChatStore.from_params(
        connection_string=place.url("psycopg"), async_connection_string=place.url("asyncpg")
    )
    return Chats(store, sync=True)


async def llama_redis(place: Place, stack: AsyncExitStack) -> Kept:
    """LlamaIndex's on Redis."""
    from llama_index.storage.chat_store.redis import RedisChatStore

    return Chats(RedisChatStore(redis_url=place.url()), sync=True)
