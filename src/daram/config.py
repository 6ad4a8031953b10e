"""Settings -> objects: the one place where everything is put together.

Plug-ins (engines, models) are imported only when a setting asks for them: a door starts fast, and says what to install
when it is asked for something that is not there.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from msgspec import structs

from daram.errors import ConfigError, MissingExtra
from daram.settings import OPENAI_URL, Settings, mask

if TYPE_CHECKING:
    from daram.chat import Chatbot
    from daram.chat.events import EventLog
    from daram.chat.title import OnTitle
    from daram.knowledge.bound import GroupsOf
    from daram.knowledge.documents import Documents
    from daram.llm.base import ChatModel, Embedder
    from daram.memory import Memory
    from daram.store.base import Store

__all__ = [
    "Settings",
    "make_chatbot",
    "make_embedder",
    "make_events",
    "make_model",
    "make_redis",
    "make_store",
    "open_chatbot",
    "open_documents",
    "open_existing",
    "open_memory",
    "prepare_data",
]


def prepare_data(settings: Settings) -> None:
    """Make the data directory where there is none, for its owner alone. Raises ``ConfigError``."""
    try:
        settings.data.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"DARAM_DATA: the data directory {settings.data} cannot be made ({error.strerror}); "
            "set DARAM_DATA (or --data) to a directory that you can write"
        ) from error


async def open_memory(settings: Settings, *, new: bool = True) -> Memory:
    """Open the store that the settings name, with its cache; unless ``new``, only if it is there.

    Raises ``ConfigError``, ``MissingExtra`` or a ``StoreError``.
    """
    from daram import memory

    if not new:
        await _must_exist(settings.store)
    prepare_data(settings)
    try:
        return await memory.open(
            settings.store,
            settings.cache,
            cache_key=(settings.cache_key or "").encode(),
            documents=settings.documents,
        )
    except ConfigError as error:
        raise ConfigError(f"{error} (set by DARAM_STORE, DARAM_CACHE and DARAM_DOCUMENTS, or --store)") from error


def make_store(url: str) -> Store:
    """The engine of a URL, without a cache, not opened yet. Raises ``ConfigError`` or ``MissingExtra``."""
    from daram.store.url import store_from_url

    return store_from_url(url)


async def open_existing(url: str, *, new: bool = False) -> Memory:
    """Open a store by its URL, without a cache; unless ``new``, only if it is there: a typo must not make one.

    Raises ``ConfigError``, ``MissingExtra`` or a ``StoreError``.
    """
    from daram import memory

    if not new:
        await _must_exist(url)
    return await memory.open(url)


async def _must_exist(url: str) -> None:
    from daram.store.base import SupportsMigrations

    store = make_store(url)
    try:
        if isinstance(store, SupportsMigrations) and (await store.schema_versions())[0] == 0:
            raise ConfigError(f"there is no store at {mask(url)}; check the URL")
    finally:
        await store.close()


def make_model(settings: Settings) -> ChatModel:
    """The language model that the settings name; where it is missing, one that says what to set or install."""
    name = settings.endpoint_model
    if name is None:
        return _local_model(settings)
    if not (settings.base_url or settings.api_key):
        return _no_model(
            f"DARAM_MODEL=openai:{name} needs to know where to ask: set OPENAI_API_KEY (for {OPENAI_URL}), "
            "or OPENAI_BASE_URL to an OpenAI-compatible endpoint of your own"
        )
    from daram.llm.openai import OpenAIModel

    known = {} if settings.context_tokens is None else {"context_tokens": settings.context_tokens}
    return OpenAIModel(
        name,
        base_url=settings.base_url or OPENAI_URL,
        api_key=settings.api_key,
        connect_timeout=settings.connect_timeout,
        read_timeout=settings.read_timeout,
        **known,
    )


def _local_model(settings: Settings) -> ChatModel:
    from daram.llm import weights
    from daram.llm.local import LocalModel, problem

    otherwise = "or set DARAM_MODEL=openai:NAME and OPENAI_BASE_URL (or OPENAI_API_KEY) to use an endpoint"
    cannot = problem()
    if cannot is not None:
        return _no_model(f"{cannot}; {otherwise}")
    path = settings.local_model or weights.find(settings.data)
    if path is None:
        return _no_model(f"the weights of the local model are not there: fetch them with daram model get; {otherwise}")
    return LocalModel(path, context_tokens=settings.context_tokens, threads=settings.threads)


def _no_model(reason: str) -> ChatModel:
    from daram.llm.absent import NoModel

    return NoModel(reason)


def make_embedder(settings: Settings) -> Embedder | None:
    """The embedding model that the settings name, None where there is none. Raises ``ConfigError``, ``MissingExtra``.

    Whoever makes it closes it.
    """
    if settings.embedder.startswith("openai:"):
        from daram.llm.embed_openai import OpenAIEmbedder

        return OpenAIEmbedder(
            settings.embedder.removeprefix("openai:"),
            base_url=settings.embedder_url or settings.base_url or OPENAI_URL,
            api_key=settings.embedder_key or (None if settings.embedder_url else settings.api_key),
            dimensions=settings.embedder_dimensions,
            connect_timeout=settings.connect_timeout,
            read_timeout=settings.read_timeout,
        )
    from daram.llm.embed_local import LocalEmbedder, installed

    if settings.embedder == "off" or (settings.embedder == "auto" and not installed()):
        return None
    return LocalEmbedder()


def make_events(settings: Settings) -> EventLog:
    """The log in which the events of running answers are kept. Raises ``ConfigError``, ``MissingExtra``."""
    if settings.redis is not None:
        from daram.chat.redis_events import RedisEventLog

        return RedisEventLog(settings.redis)
    from daram.chat.events import MemoryEventLog

    return MemoryEventLog()


def make_redis(settings: Settings, connections: int) -> Any:
    """A client of the Redis in ``DARAM_REDIS``, None where it is not set. Raises ``ConfigError``, ``MissingExtra``."""
    if settings.redis is None:
        return None
    from daram.chat.redis_events import connect

    try:
        return connect(settings.redis, connections)
    except ImportError as error:
        raise MissingExtra("DARAM_REDIS", "redis") from error


def make_chatbot(
    settings: Settings,
    memory: Memory,
    model: ChatModel,
    *,
    documents: Documents | None = None,
    events: EventLog | None = None,
    on_title: OnTitle | None = None,
) -> Chatbot:
    """The chatbot over a memory and a model, by the settings; ``on_title`` hears of the titles it makes.

    ``documents``: what conversations may be answered from (see ``open_documents``).

    ``events`` is not closed with it; None is a log of its own, in the memory of this process.
    """
    from daram.chat import Chatbot
    from daram.llm.base import Options

    return Chatbot(
        memory,
        model,
        system=settings.system,
        window=settings.window,
        options=Options(max_tokens=settings.max_tokens, temperature=settings.temperature),
        documents=documents,
        titles=settings.titles,
        lease=settings.lease,
        wait=settings.wait,
        events=events,
        on_title=on_title,
    )


@asynccontextmanager
async def open_documents(
    settings: Settings, memory: Memory, *, groups: GroupsOf | None = None, reading: bool = True
) -> AsyncIterator[Documents | None]:
    """The documents of a memory, with the embedding model that the settings name, read in the background while this is
    open (unless not ``reading``); ``groups`` tells the groups of an owner. None where the store keeps no documents.

    Raises ``ConfigError``, ``MissingExtra``.
    """
    from daram.errors import Unsupported
    from daram.knowledge.documents import Documents
    from daram.knowledge.retrieve import TUTORIAL, Retrieval

    embedder = make_embedder(settings)
    weights = settings.document_weights
    how = TUTORIAL if weights == "tutorial" else Retrieval()
    if "," in weights:
        words, vectors = map(float, weights.split(","))
        how = Retrieval(words=words, vectors=vectors)
    how = structs.replace(how, passages=settings.document_passages, threshold=settings.document_threshold)
    try:
        documents: Documents | None
        try:
            documents = Documents(memory, embedder, retrieval=how, groups=groups)
        except Unsupported:
            documents = None
        if documents is not None and reading:
            documents.start()
        try:
            yield documents
        finally:
            if documents is not None:
                await documents.close()
    finally:
        if embedder is not None:
            await embedder.close()


@asynccontextmanager
async def open_chatbot(settings: Settings) -> AsyncIterator[tuple[Memory, ChatModel, Chatbot]]:
    """All that a door needs, opened in order and closed in reverse. Answers of dead processes are closed first."""
    async with await open_memory(settings) as memory:
        model = make_model(settings)
        try:
            async with open_documents(settings, memory) as documents:
                chatbot = make_chatbot(settings, memory, model, documents=documents)
                try:
                    await chatbot.recover()
                    yield memory, model, chatbot
                finally:
                    await chatbot.close()
        finally:
            await model.close()
