"""Work that one process at a time does: a record that says who, until when, and how far it is."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Self

import msgspec

from daram import ids
from daram.errors import Conflict, DaramError
from daram.knowledge.base import LEASES, Library, decode, digest_key, encode
from daram.store.documents import Document

log = logging.getLogger(__name__)


class Work(msgspec.Struct, frozen=True):
    """What a lease's record says: until when it holds (Unix seconds), how often the work was begun, what is done."""

    token: str
    until: float
    attempts: int = 1
    revision: str = ""
    passages: int = 0
    page: int | None = None


class Lease:
    """A lease that this process holds. ``former``: the work as whoever had it before left it."""

    def __init__(self, store: Library, owner: str, key: str, seconds: float, work: Work, etag: str) -> None:
        self.work = work
        self.former: Work | None = None
        self._store = store
        self._owner = owner
        self._key = key
        self._seconds = seconds
        self._etag = etag
        self._writing = asyncio.Lock()

    @classmethod
    async def take(cls, store: Library, owner: str, key: str, seconds: float) -> Self | None:
        """The lease, or None while another holds it."""
        record = await store.get_record(owner, LEASES, key)
        former = None if record is None else decode(record.value, Work, f"lease {key!r}")
        now = time.time()
        if former is not None and former.until > now:
            return None
        work = Work(ids.etag(), now + seconds, 1 if former is None else former.attempts + 1)
        try:
            taken = await store.put_record(
                owner, LEASES, key, encode(work), expect=None if record is None else record.etag
            )
        except Conflict:
            return None
        lease = cls(store, owner, key, seconds, work, taken.etag)
        lease.former = former
        return lease

    async def renew(self, work: Work | None = None) -> None:
        """Hold it for longer, and say how far the work is. Raises ``Conflict`` where another took it."""
        async with self._writing:
            until = time.time() + self._seconds
            self.work = msgspec.structs.replace(self.work if work is None else work, until=until)
            record = await self._store.put_record(self._owner, LEASES, self._key, encode(self.work), expect=self._etag)
            self._etag = record.etag

    async def release(self) -> None:
        """Let go of it."""
        async with self._writing:
            try:
                await self._store.delete_record(self._owner, LEASES, self._key, expect=self._etag)
            except DaramError as error:  # it runs out by itself
                log.debug("lease %s was not given back: %s", self._key, error)

    @asynccontextmanager
    async def held(self) -> AsyncIterator[None]:
        """Renewed while the block runs, which is cancelled, with ``Conflict``, if another takes it."""
        task = asyncio.current_task()
        assert task is not None
        lost = False

        async def keep() -> None:
            nonlocal lost
            while True:
                await asyncio.sleep(self._seconds / 4)
                try:
                    await self.renew()
                except Conflict:
                    lost = True
                    task.cancel()
                    return
                except DaramError as error:  # there is time for three more tries
                    log.warning("lease %s could not be renewed: %s", self._key, error)

        keeper = asyncio.create_task(keep())
        try:
            yield
        except asyncio.CancelledError:
            if not lost:
                raise
            task.uncancel()
            raise Conflict(f"the lease {self._key} was taken over by another process") from None
        finally:
            keeper.cancel()
            await asyncio.gather(keeper, return_exceptions=True)


async def progress(store: Library, owner: str, key: str) -> Work | None:
    """How far the work under a lease is; None where nobody does it."""
    record = await store.get_record(owner, LEASES, key)
    return None if record is None else decode(record.value, Work, f"lease {key!r}")


def lease_key(document: Document) -> str:
    """The key of the lease under which a document is read."""
    return digest_key(document.collection, document.id)


async def forget(store: Library, document: Document) -> None:
    """Remove what a process that died left of its reading of a document, which is deleted."""
    key = lease_key(document)
    if await store.get_record(document.owner, LEASES, key) is not None:
        await store.delete_record(document.owner, LEASES, key)
