"""``daram.open`` and what it gives: a store, ready for use, that owns what it opened."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import suppress
from types import TracebackType

from daram.cache.cached import CachedStore
from daram.cache.url import cache_from_url
from daram.errors import ConfigError, Unsupported
from daram.knowledge.base import library
from daram.knowledge.bindings import Bindings
from daram.knowledge.erase import forget_owner
from daram.knowledge.files import Files
from daram.store import validate
from daram.store.base import Store
from daram.store.documents import SupportsDocuments
from daram.store.url import store_from_url
from daram.store.wrapper import StoreWrapper

DEFAULT_URL = "sqlite:///daram.db"


class Memory(StoreWrapper):
    """Durable conversations: every operation of ``Store`` (see ``daram.store.base``), and records beside them.

    Made by ``daram.open``; to be closed when done (``async with`` does it). ``library``: the store that keeps the
    documents, where it is another one; what becomes of a conversation or an owner here, happens there too.
    """

    def __init__(self, inner: Store, url: str, *, library: StoreWrapper | None = None) -> None:
        super().__init__(inner)
        self.url = url
        self.library = library

    async def delete(self, owner: str, id: str) -> None:
        # What was uploaded into it first: if this ends in between, the conversation is still there to be deleted again.
        bindings = self._bindings()
        if bindings is not None:
            validate.name(id, "id", validate.Limits().conversation_id_chars)  # here it is an id, there a record's key
            await bindings.end(owner, id)
        await super().delete(owner, id)
        if bindings is not None:  # what came into it meanwhile
            await bindings.end(owner, id)

    async def delete_owner(self, owner: str) -> int:
        # Documents first, for the same reason.
        if self.library is not None:
            await self.library.delete_owner(owner)
        count = await super().delete_owner(owner)
        with suppress(Unsupported):
            await forget_owner(library(self), owner)
        return count

    async def purge(self, *, limit: int = 1000) -> int:
        count = await super().purge(limit=limit)
        if count < limit and (bindings := self._bindings()) is not None:  # once there is nothing more to purge
            await bindings.sweep()
        if self.library is not None:
            await self.library.purge(limit=limit)
        return count

    async def close(self) -> None:
        try:
            await super().close()
        finally:
            if self.library is not None:
                await self.library.close()

    def _documents(self) -> SupportsDocuments:
        return super()._documents() if self.library is None else self.library

    def _bindings(self) -> Bindings | None:
        try:
            store = library(self)
        except Unsupported:
            return None
        return Bindings(store, self, Files(store))

    def __repr__(self) -> str:
        return f"<daram.Memory {type(self.inner).__name__}>"


class Opening:
    """What ``daram.open`` returns: ``await`` it, or use it in ``async with``."""

    def __init__(self, url: str, cache: str | None, cache_key: bytes, documents: str | None) -> None:
        self._url = url
        self._cache = cache
        self._cache_key = cache_key
        self._documents = documents
        self._memory: Memory | None = None

    def __await__(self) -> Generator[object, None, Memory]:
        return self._open().__await__()

    async def __aenter__(self) -> Memory:
        self._memory = await self._open()
        return self._memory

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._memory is not None:
            await self._memory.close()

    async def _open(self) -> Memory:
        beside = None if self._documents is None else _library_at(self._documents)
        store = store_from_url(self._url)
        if self._cache is not None:
            store = CachedStore(store, cache_from_url(self._cache), secret=self._cache_key)
        memory = Memory(store, self._url, library=beside)
        try:
            await memory.describe()  # opens the engine: what is wrong with it is said here, not at the first message
            if beside is not None:
                await beside.describe()
        except BaseException:
            await memory.close()
            raise
        return memory


def _library_at(url: str) -> StoreWrapper:
    store = store_from_url(url)
    if not isinstance(store, SupportsDocuments):
        raise ConfigError(f"{type(store).__name__} keeps no documents; name an SQLite or a PostgreSQL store for them")
    return StoreWrapper(store)


def open(
    url: str = DEFAULT_URL, cache: str | None = None, *, cache_key: bytes = b"", documents: str | None = None
) -> Opening:
    """Open a store: ``memory = await daram.open(…)`` or ``async with daram.open(…) as memory``.

    ``cache``: where the ends of conversations are kept for turns (``memory://``, ``redis://…``, ``django:alias``,
    several with a comma between; None: nowhere); ``cache_key``: at most 64 secret bytes that keep others from writing
    there.

    ``documents``: the URL of an SQLite or PostgreSQL store that keeps the documents, where ``url`` names an engine that
    does not (Redis), or where they shall be elsewhere.

    ``url``: ``sqlite:///file.db`` (made if it is not there), ``memory://``. Raises ``ConfigError`` for a URL that
    cannot be used, and the children of ``StoreError`` for a store that cannot be opened.
    """
    return Opening(url, cache, cache_key, documents)
