"""The documents of a process, and chats that are answered from them, from any thread and any event loop."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator

from daram import sync
from daram.adapters.django.faces import afollow, blocking, follow, hopping, same
from daram.adapters.django.signals import conversation_deleted
from daram.chat.titled import TitledChats, TitledTurn, Told
from daram.knowledge.access import Reader, reader
from daram.knowledge.collections import Collections
from daram.knowledge.documents import Documents
from daram.knowledge.files import Files
from daram.knowledge.references import References

# --- documents ------------------------------------------------------------------------------------------------------


class SyncDocuments(sync.Documents):
    """The documents of this process, for synchronous code: see ``daram.Documents``. They are read in the background,
    and close at the exit.
    """

    def start(self, interval: float = 30.0) -> None:
        """Nothing: they are being read."""

    def close(self) -> None:
        """Nothing: they belong to the process."""


class AsyncFiles:
    """``Documents.files``, for asynchronous code."""

    def __init__(self, inner: Files) -> None:
        self.inner = inner

    put = hopping(Files.put, same)
    get = hopping(Files.get, same)
    list = hopping(Files.list, same)
    write_to = hopping(Files.write_to, same)
    delete = hopping(Files.delete, same)


class AsyncCollections:
    """``Documents.collections``, for asynchronous code."""

    def __init__(self, inner: Collections) -> None:
        self.inner = inner

    find = hopping(Collections.find, same)
    get = hopping(Collections.get, same)
    list = hopping(Collections.list, same)
    update = hopping(Collections.update, same)


class AsyncReferences:
    """``Documents.references``, for asynchronous code."""

    def __init__(self, inner: References) -> None:
        self.inner = inner

    get = hopping(References.get, same)
    list = hopping(References.list, same)
    text = hopping(References.text, same)


class AsyncDocuments:
    """The documents of this process, for asynchronous code: see ``daram.Documents``."""

    def __init__(self, inner: Documents) -> None:
        self.inner = inner
        self.files = AsyncFiles(inner.files)
        self.collections = AsyncCollections(inner.collections)
        self.references = AsyncReferences(inner.references)

    add = hopping(Documents.add, same)
    add_file = hopping(Documents.add_file, same)
    attach = hopping(Documents.attach, same)
    get = hopping(Documents.get, same)
    list = hopping(Documents.list, same)
    remove = hopping(Documents.remove, same)
    passages = hopping(Documents.passages, same)
    progress = hopping(Documents.progress, same)
    wait = hopping(Documents.wait, same)
    create = hopping(Documents.create, same)
    list_collections = hopping(Documents.list_collections, same)
    delete_collection = hopping(Documents.delete_collection, same)
    search = hopping(Documents.search, same)
    bind = hopping(Documents.bind, same)
    binding = hopping(Documents.binding, same)
    reference = hopping(Documents.reference, same)
    put_reference = hopping(Documents.put_reference, same)
    remove_reference = hopping(Documents.remove_reference, same)


# --- chats about titles ---------------------------------------------------------------------------------------------


class SyncTitledTurn:
    """A turn of a chat whose question is stored, for synchronous code: see ``daram.chat.titled.TitledTurn``."""

    def __init__(self, inner: TitledTurn) -> None:
        self.inner = inner
        self.chat = inner.chat

    reply = blocking(TitledTurn.reply, same)

    def told(self) -> Iterator[Told]:
        """The events of the answer. Leaving them does not stop it."""
        return follow(self.inner.told())


class AsyncTitledTurn:
    """A turn of a chat whose question is stored, for asynchronous code: see ``daram.chat.titled.TitledTurn``."""

    def __init__(self, inner: TitledTurn) -> None:
        self.inner = inner
        self.chat = inner.chat

    reply = hopping(TitledTurn.reply, same)

    def told(self) -> AsyncGenerator[Told, None]:
        """The events of the answer. Leaving them does not stop it."""
        return afollow(self.inner.told())


class SyncTitledChats:
    """Chats about titles, for synchronous code: see ``daram.chat.titled.TitledChats``."""

    def __init__(self, inner: TitledChats) -> None:
        self.inner = inner

    begin = blocking(TitledChats.begin, SyncTitledTurn)
    go_on = blocking(TitledChats.go_on, SyncTitledTurn)
    list = blocking(TitledChats.list, same)
    get = blocking(TitledChats.get, same)
    _delete = blocking(TitledChats.delete, same)

    def delete(self, who: Reader | str, chat: str) -> None:
        """See ``TitledChats.delete``; tells ``conversation_deleted``."""
        self._delete(who, chat)
        conversation_deleted.send_robust(type(self), owner=reader(who).owner, conversation=chat)


class AsyncTitledChats:
    """Chats about titles, for asynchronous code: see ``daram.chat.titled.TitledChats``."""

    def __init__(self, inner: TitledChats) -> None:
        self.inner = inner

    begin = hopping(TitledChats.begin, AsyncTitledTurn)
    go_on = hopping(TitledChats.go_on, AsyncTitledTurn)
    list = hopping(TitledChats.list, same)
    get = hopping(TitledChats.get, same)
    _delete = hopping(TitledChats.delete, same)

    async def delete(self, who: Reader | str, chat: str) -> None:
        """See ``TitledChats.delete``; tells ``conversation_deleted``."""
        await self._delete(who, chat)
        await conversation_deleted.asend_robust(type(self), owner=reader(who).owner, conversation=chat)
