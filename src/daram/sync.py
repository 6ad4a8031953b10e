"""The synchronous face: every public operation for code without an event loop, from any thread.

One background thread runs an event loop (the portal) on which the async store lives; a call hands its coroutine over
and waits. Called on a running event loop, which it would block, it raises ``SyncInAsync``.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import threading
from collections.abc import Awaitable, Callable, Coroutine
from types import TracebackType
from typing import Any, Concatenate, Generic, ParamSpec, Protocol, Self, TypeVar, overload

from daram import memory as _memory
from daram.errors import SyncInAsync
from daram.knowledge import collections as _collections
from daram.knowledge import documents as _documents
from daram.knowledge import files as _files
from daram.knowledge import references as _references
from daram.knowledge.retrieve import Retrieval
from daram.llm.base import Embedder

P = ParamSpec("P")
R = TypeVar("R")


class Portal:
    """A daemon thread with an event loop that runs as long as the process."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, name="daram-portal", daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, R]) -> R:
        """Run a coroutine on the portal's loop and wait for what it returns or raises."""
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return asyncio.run_coroutine_threadsafe(work, self.loop).result()
        work.close()
        raise SyncInAsync("a synchronous call on a running event loop would block it; await the async face there")


_portal: Portal | None = None
# The parent's, in a forked child: of no use, but letting go of its loop would have asyncio complain of its tasks.
_left_behind: list[Portal] = []
_lock = threading.Lock()


def portal() -> Portal:
    """The portal of this process, started at the first call."""
    global _portal
    with _lock:
        if _portal is None:
            _portal = Portal()
        return _portal


def _forget() -> None:
    # In a forked child: the thread stayed in the parent.
    global _portal, _lock
    if _portal is not None:
        _left_behind.append(_portal)
    _portal = None
    _lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)

# Before the executors that closing needs are shut down, which is earlier than what ``atexit`` runs.
at_exit: Callable[[Callable[[], None]], object] = getattr(threading, "_register_atexit", atexit.register)
"""Have something called at the end of the process, while the portal still works."""


class _HasInner(Protocol):
    @property
    def inner(self) -> Any: ...


class _Face(Generic[P, R]):
    """An async method of what is ``inner``, called synchronously, with the signature that it has there."""

    def __init__(self, method: Callable[Concatenate[Any, P], Awaitable[R]]) -> None:
        self._method = method
        self.__doc__ = method.__doc__

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    @overload
    def __get__(self, face: None, owner: type) -> Self: ...
    @overload
    def __get__(self, face: _HasInner, owner: type) -> Callable[P, R]: ...
    def __get__(self, face: _HasInner | None, owner: type) -> Self | Callable[P, R]:
        if face is None:
            return self

        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            async def work() -> R:
                return await self._method(face.inner, *args, **kwargs)

            return portal().run(work())

        call.__name__ = self._name
        call.__doc__ = self.__doc__
        return call


class Memory:
    """``daram.Memory`` for synchronous code; ``inner`` is the async one. Usable from any thread, and in ``with``."""

    def __init__(self, inner: _memory.Memory) -> None:
        self.inner = inner

    create = _Face(_memory.Memory.create)
    get = _Face(_memory.Memory.get)
    list = _Face(_memory.Memory.list)
    update = _Face(_memory.Memory.update)
    delete = _Face(_memory.Memory.delete)
    delete_owner = _Face(_memory.Memory.delete_owner)
    purge = _Face(_memory.Memory.purge)
    append = _Face(_memory.Memory.append)
    tail = _Face(_memory.Memory.tail)
    messages = _Face(_memory.Memory.messages)
    message = _Face(_memory.Memory.message)
    delete_message = _Face(_memory.Memory.delete_message)
    branches = _Face(_memory.Memory.branches)
    use_branch = _Face(_memory.Memory.use_branch)
    begin_turn = _Face(_memory.Memory.begin_turn)
    checkpoint = _Face(_memory.Memory.checkpoint)
    finish_turn = _Face(_memory.Memory.finish_turn)
    cancel_turn = _Face(_memory.Memory.cancel_turn)
    answers = _Face(_memory.Memory.answers)
    recover = _Face(_memory.Memory.recover)
    search = _Face(_memory.Memory.search)
    get_record = _Face(_memory.Memory.get_record)
    put_record = _Face(_memory.Memory.put_record)
    delete_record = _Face(_memory.Memory.delete_record)
    scan_records = _Face(_memory.Memory.scan_records)
    put_document = _Face(_memory.Memory.put_document)
    get_document = _Face(_memory.Memory.get_document)
    list_documents = _Face(_memory.Memory.list_documents)
    unfinished_documents = _Face(_memory.Memory.unfinished_documents)
    stage_passages = _Face(_memory.Memory.stage_passages)
    publish_document = _Face(_memory.Memory.publish_document)
    discard_revision = _Face(_memory.Memory.discard_revision)
    delete_document = _Face(_memory.Memory.delete_document)
    delete_collection = _Face(_memory.Memory.delete_collection)
    passages = _Face(_memory.Memory.passages)
    search_passages = _Face(_memory.Memory.search_passages)
    nearest_passages = _Face(_memory.Memory.nearest_passages)
    unembedded = _Face(_memory.Memory.unembedded)
    put_vectors = _Face(_memory.Memory.put_vectors)
    scan_documents = _Face(_memory.Memory.scan_documents)
    passage_vectors = _Face(_memory.Memory.passage_vectors)
    load_document = _Face(_memory.Memory.load_document)
    scan = _Face(_memory.Memory.scan)
    log = _Face(_memory.Memory.log)
    leaves = _Face(_memory.Memory.leaves)
    load = _Face(_memory.Memory.load)
    scan_all_records = _Face(_memory.Memory.scan_all_records)
    describe = _Face(_memory.Memory.describe)
    close = _Face(_memory.Memory.close)

    @property
    def url(self) -> str:
        """The URL that it was opened with."""
        return self.inner.url

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<daram.sync.Memory {type(self.inner.inner).__name__}>"


def open(
    url: str = _memory.DEFAULT_URL, cache: str | None = None, *, cache_key: bytes = b"", documents: str | None = None
) -> Memory:
    """``daram.open`` for synchronous code; see there."""

    async def work() -> _memory.Memory:
        return await _memory.open(url, cache, cache_key=cache_key, documents=documents)

    return Memory(portal().run(work()))


# --- documents ------------------------------------------------------------------------------------------------------


class Files:
    """``Documents.files`` for synchronous code: originals and their bytes, by owner; nobody is asked who may."""

    def __init__(self, inner: _files.Files) -> None:
        self.inner = inner

    put = _Face(_files.Files.put)
    get = _Face(_files.Files.get)
    list = _Face(_files.Files.list)
    write_to = _Face(_files.Files.write_to)
    delete = _Face(_files.Files.delete)


class Collections:
    """``Documents.collections`` for synchronous code: what they are called, by owner; nobody is asked who may."""

    def __init__(self, inner: _collections.Collections) -> None:
        self.inner = inner

    find = _Face(_collections.Collections.find)
    get = _Face(_collections.Collections.get)
    list = _Face(_collections.Collections.list)
    update = _Face(_collections.Collections.update)


class References:
    """``Documents.references`` for synchronous code: texts by (category, title_no); nobody is asked who may."""

    def __init__(self, inner: _references.References) -> None:
        self.inner = inner

    get = _Face(_references.References.get)
    list = _Face(_references.References.list)
    text = _Face(_references.References.text)


class Documents:
    """``daram.Documents`` for synchronous code; ``inner`` is the async one. Usable from any thread.

    In ``with`` documents are read in the background, as by ``start``; without it with ``wait=True``.
    """

    def __init__(self, inner: _documents.Documents) -> None:
        self.inner = inner
        self.files = Files(inner.files)
        self.collections = Collections(inner.collections)
        self.references = References(inner.references)

    add = _Face(_documents.Documents.add)
    add_file = _Face(_documents.Documents.add_file)
    attach = _Face(_documents.Documents.attach)
    get = _Face(_documents.Documents.get)
    list = _Face(_documents.Documents.list)
    describe = _Face(_documents.Documents.describe)
    cancel = _Face(_documents.Documents.cancel)
    remove = _Face(_documents.Documents.remove)
    passages = _Face(_documents.Documents.passages)
    progress = _Face(_documents.Documents.progress)
    wait = _Face(_documents.Documents.wait)
    create = _Face(_documents.Documents.create)
    list_collections = _Face(_documents.Documents.list_collections)
    delete_collection = _Face(_documents.Documents.delete_collection)
    search = _Face(_documents.Documents.search)
    bind = _Face(_documents.Documents.bind)
    binding = _Face(_documents.Documents.binding)
    reference = _Face(_documents.Documents.reference)
    put_reference = _Face(_documents.Documents.put_reference)
    remove_reference = _Face(_documents.Documents.remove_reference)
    close = _Face(_documents.Documents.close)

    @property
    def retrieval(self) -> Retrieval:
        """How is searched where nothing else is said."""
        return self.inner.retrieval

    def start(self, interval: float = 30.0) -> None:
        """Read what is waiting in the background, also what a crash left behind, until ``close``."""

        async def work() -> None:
            self.inner.start(interval)

        portal().run(work())

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def documents(memory: Memory, embedder: Embedder | None = None, **settings: Any) -> Documents:
    """``daram.Documents`` over a memory, for synchronous code; see there."""
    return Documents(_documents.Documents(memory.inner, embedder, **settings))
