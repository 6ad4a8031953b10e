"""From a stored file to passages that are found: read, cut, embedded, staged, and published at one stroke.

Whatever ends the work, the document stays ``waiting`` or ``reading`` in the store until it is published or has failed,
and its lease runs out: the next sweep, of whatever process, begins it anew under another revision.
"""

from __future__ import annotations

import asyncio
import logging
import re
import tempfile
from collections import deque
from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing
from pathlib import Path
from typing import Final, cast

import msgspec

from daram import ids
from daram.errors import Conflict, DaramError, DocumentError, InvalidInput, MissingExtra, ModelError, NotFound
from daram.knowledge import expiry, extract
from daram.knowledge.base import Library
from daram.knowledge.collections import Collections
from daram.knowledge.embedding import embed_missing, name_of, vectors
from daram.knowledge.files import Files, StoredFile
from daram.knowledge.leases import Lease, Work, forget, lease_key, progress
from daram.llm.base import Embedder
from daram.store.documents import Document, Passage
from daram.text.chunk import Chunk, Chunker, Chunking, Unit
from daram.text.load import LoadLimits

log = logging.getLogger(__name__)

_STAGED: Final = 200  # passages in one call
_EMBEDDED: Final = 1000  # passages in one sweep, about
_LEASE: Final = 60.0
_ATTEMPTS: Final = 3
_ERROR_CHARS: Final = 1_000
_CUT: Final = re.compile(r"/(\d+)\.(\d+)\.(characters|tokens)$")
CANCELLED: Final = "cancelled before it was read"
"""The error of a document that is not to be read any more."""
_FIRST_POLL: Final = 0.02
_SLOWEST_POLL: Final = 1.0


class Ingester:
    """Reads what is waiting. ``embedder``: None leaves passages without vectors; ``workers``: documents at a time."""

    def __init__(
        self,
        store: Library,
        files: Files,
        collections: Collections,
        embedder: Embedder | None = None,
        *,
        limits: LoadLimits = LoadLimits(),
        workers: int = 2,
        lease: float = _LEASE,
    ) -> None:
        self._store = store
        self._files = files
        self._collections = collections
        self._embedder = embedder
        self._limits = limits
        self._workers = workers
        self._lease = lease
        self._news = asyncio.Event()
        self._readers = extract.Readers(workers)
        self._runs = False
        self._waited: dict[tuple[str, str], asyncio.Task[bool]] = {}

    # --- one document ---

    async def add(self, document: Document, file: StoredFile, how: Chunking) -> Document:
        """Have a stored file read as ``document``, in place of what that was made from before.

        Where the same bytes were read already, or are being read, cut in the same way, nothing is read; another title
        and other metadata are taken.
        """
        digest = digest_of(file, how)
        while True:
            former = await self._find(document)
            if former is not None and former.digest == digest and former.state != "failed":
                told = msgspec.structs.replace(
                    former, title=document.title or former.title, metadata=document.metadata or former.metadata
                )
                if told != former:
                    try:
                        former = await self._store.put_document(told, expect=former.etag)
                    except Conflict:
                        continue
                if former.source != file.id:
                    await self._files.drop(file.owner, file.id)
                return former
            # Noted first, so that a crash from here on leaves no bytes behind that nobody asks for.
            old = None if former is None or former.source == file.id else await self._original(former)
            if old is not None:
                await self._files.note(old)
            waiting = msgspec.structs.replace(
                document, digest=digest, bytes=file.bytes, source=file.id, state="waiting", error=None
            )
            try:
                stored = await self._store.put_document(waiting, expect=None if former is None else former.etag)
            except Conflict:  # somebody else added it, or it was published, at the same moment
                continue
            if file.until == "document":
                await self._files.settle(file)
            if old is not None:
                await self._files.drop(old.owner, old.id)
            self._news.set()
            return stored

    async def read(self, document: Document) -> bool:
        """Read a document that waits; False where another process is at it. What is wrong with it is stored with it.

        Raises only what says that the store cannot be used now; the document then waits for the next try.
        """
        lease = await Lease.take(self._store, document.owner, lease_key(document), self._lease)
        if lease is None:
            return False
        try:
            async with lease.held():
                await self._read(document, lease)
        except (Conflict, NotFound) as error:
            log.info("document %s changed while it was read: %s", document.id, error)
            await self._discard(document, lease.work.revision)
        finally:
            # Only what ends the process leaves it behind, and counts as an attempt.
            await asyncio.shield(lease.release())
        return True

    async def wait(self, document: Document) -> Document:
        """Read it, or wait until whoever is at it has; returns it as it is then. Raises ``NotFound``.

        Whoever gives up waiting does not end the reading as long as ``run`` runs.
        """
        pause = _FIRST_POLL
        while True:
            found = await self._store.get_document(document.owner, document.collection, document.id)
            if found.state in ("ready", "failed"):
                return found
            if not await self._read_for_all(found):
                await asyncio.sleep(pause)
                pause = min(pause * 2, _SLOWEST_POLL)

    async def _read_for_all(self, document: Document) -> bool:
        """As ``read``; as long as ``run`` runs on a task that goes on without whoever waits for it."""
        if not self._runs:
            return await self.read(document)
        which = (document.owner, lease_key(document))
        task = self._waited.get(which)
        if task is None:
            task = self._waited[which] = asyncio.create_task(self.read(document))
            task.add_done_callback(lambda done: self._ended(which, done))
        await asyncio.wait([task])
        return not task.cancelled() and task.result()

    def _ended(self, which: tuple[str, str], done: asyncio.Task[bool]) -> None:
        del self._waited[which]
        if not done.cancelled() and (error := done.exception()) is not None:  # perhaps nobody is left to hear it
            log.info("a document could not be read, it waits for the next try: %s", error)

    async def progress(self, document: Document) -> Work | None:
        """How far the reading of a document is; None where nobody is at it."""
        return await progress(self._store, document.owner, lease_key(document))

    async def delete(self, owner: str, collection: str, id: str) -> None:
        """Delete a document, its passages, and its original where that is its own. Raises ``NotFound``."""
        document = await self._store.get_document(owner, collection, id)
        original = await self._original(document)
        if original is not None:
            await self._files.note(original, 0)
        await self._store.delete_document(owner, collection, id)
        await forget(self._store, document)
        if original is not None:
            await self._files.drop(original.owner, original.id)

    async def cancel(self, document: Document) -> Document:
        """Have a document that is not read yet not be read; one that is stays as it is. Raises ``NotFound``."""
        while True:
            found = await self._store.get_document(document.owner, document.collection, document.id)
            if found.state not in ("waiting", "reading"):
                return found
            cancelled = msgspec.structs.replace(found, state="failed", error=CANCELLED)
            try:  # whoever reads it meets a conflict, and gives up what he has staged
                return await self._store.put_document(cancelled, expect=found.etag)
            except Conflict:
                continue

    # --- all ---

    async def run(self, interval: float = 30.0) -> None:
        """``sweep`` whenever something was added here, and every ``interval`` seconds, until cancelled."""
        self._runs = True
        try:
            async with self._readers.kept():
                await self._sweep_again_and_again(interval)
        finally:
            self._runs = False
            for task in (waited := list(self._waited.values())):
                task.cancel()
            await asyncio.gather(*waited, return_exceptions=True)

    async def _sweep_again_and_again(self, interval: float) -> None:
        while True:
            try:
                await self.sweep()
            except DaramError as error:
                log.warning("documents could not be read, trying again in %g s: %s", interval, error)
            try:
                async with asyncio.timeout(interval):
                    await self._news.wait()
            except TimeoutError:
                await self._readers.rest()

    async def sweep(self) -> int:
        """Read everything that waits, by whomever it was left, and what is added here meanwhile, and embed some of what
        has no vectors; returns how many documents were read."""
        async with self._readers.kept():
            count = await self._read_all()
        await self._files.sweep()
        await expiry.sweep(self._store, self._files, self._collections)
        embedder = self._embedder
        # In parts: what was added meanwhile is not to wait until all is embedded.
        if embedder is not None and await embed_missing(self._store, embedder, at_most=_EMBEDDED) >= _EMBEDDED:
            self._news.set()
        return count

    async def _read_all(self) -> int:
        count = 0
        found: deque[Document] = deque()
        cursor: str | None = None
        more = True
        busy: dict[asyncio.Task[bool], tuple[str, str]] = {}
        try:
            while True:
                # Looked for anew where something was added: beside a long document there may be room for a short one.
                if not found and (more or self._news.is_set()):
                    if not more or cursor is None:
                        cursor = None
                        self._news.clear()
                    page = await self._store.unfinished_documents(limit=100, cursor=cursor)
                    found.extend(page.items)
                    cursor = page.next_cursor
                    more = cursor is not None
                while found and len(busy) < self._workers:
                    document = found.popleft()
                    which = (document.owner, lease_key(document))
                    if which not in busy.values():
                        busy[asyncio.create_task(self.read(document))] = which
                if found or not more:
                    if not busy:
                        return count
                    for task in await self._first(busy, or_news=not found):
                        del busy[task]
                        count += task.result()
        finally:
            for task in busy:
                task.cancel()
            await asyncio.gather(*busy, return_exceptions=True)

    async def _first(self, busy: Iterable[asyncio.Task[bool]], *, or_news: bool) -> set[asyncio.Task[bool]]:
        """Those that are done, once one is or (``or_news``) something was added."""
        news = [asyncio.create_task(self._news.wait())] if or_news else []
        try:
            await asyncio.wait([*busy, *news], return_when=asyncio.FIRST_COMPLETED)
        finally:
            for one in news:
                one.cancel()
        return {task for task in busy if task.done()}

    # --- reading ---

    async def _read(self, document: Document, lease: Lease) -> None:
        if lease.former is not None:
            await self._discard(document, lease.former.revision)
        document = await self._store.get_document(document.owner, document.collection, document.id)
        if document.state not in ("waiting", "reading"):
            return
        revision = "rev_" + ids.uuid7()
        await lease.renew(msgspec.structs.replace(lease.work, revision=revision))
        error: str | None = None
        if lease.work.attempts > _ATTEMPTS:
            error = f"{document.name}: reading it ended with the program itself, {_ATTEMPTS} times"
        else:
            reading = msgspec.structs.replace(document, state="reading")
            document = await self._store.put_document(reading, expect=document.etag)
            try:
                await self._stage(document, revision, lease)
            except (DocumentError, MissingExtra, InvalidInput) as problem:
                error = str(problem)
            except (DaramError, asyncio.CancelledError):
                await asyncio.shield(self._discard(document, revision))
                raise
            except Exception as problem:
                log.exception("document %s of %s could not be read", document.id, document.owner)
                error = f"{document.name}: {type(problem).__name__}: {problem}"
        if error is not None:
            await self._discard(document, revision)
            failed = msgspec.structs.replace(document, state="failed", error=error[:_ERROR_CHARS])
            await self._store.put_document(failed, expect=document.etag)
            return
        by = None if self._embedder is None else name_of(self._embedder)
        ready = msgspec.structs.replace(document, state="ready", error=None, embedder=by)
        await self._store.publish_document(ready, revision, expect=document.etag)
        original = await self._original(document)
        if original is not None and original.until == "read":
            await self._files.drop(original.owner, original.id)

    async def _stage(self, document: Document, revision: str, lease: Lease) -> None:
        original = await self._files.get(document.owner, document.source or "")
        how = chunking_of(document) or Chunking()
        staged = 0
        batch: list[Chunk] = []
        with tempfile.TemporaryDirectory(prefix="daram-") as directory:
            path = Path(directory, "original")
            await self._files.write_to(original, path)
            async with aclosing(self._chunks(document, path, how)) as chunks:
                async for some in chunks:
                    batch += some
                    while len(batch) >= _STAGED:
                        staged = await self._put(document, revision, lease, batch[:_STAGED], staged)
                        del batch[:_STAGED]
        if batch:
            staged = await self._put(document, revision, lease, batch, staged)
        if not staged:
            raise DocumentError(document.name, "holds no text (a scan has to go through text recognition first)")

    async def _chunks(self, document: Document, path: Path, how: Chunking) -> AsyncGenerator[list[Chunk], None]:
        chunker = Chunker(how)
        sections = self._readers.sections(path, name=document.name, media_type=document.media_type, limits=self._limits)
        async with aclosing(sections):
            async for section in sections:
                yield await asyncio.to_thread(chunker.feed, section)
        yield await asyncio.to_thread(chunker.end)

    async def _put(self, document: Document, revision: str, lease: Lease, batch: list[Chunk], first: int) -> int:
        made: list[bytes] | list[None] = [None] * len(batch)
        if self._embedder is not None:
            try:
                made = await vectors(self._embedder, [chunk.text for chunk in batch])
            except ModelError as error:  # found by words now, and by meaning after the next sweep
                log.warning("no vectors for passages of %s: %s", document.id, error)
        passages = [
            Passage(
                seq=first + place,
                text=chunk.text,
                start=chunk.start,
                end=chunk.end,
                page=chunk.page,
                heading=chunk.heading,
                vector=vector,
            )
            for place, (chunk, vector) in enumerate(zip(batch, made, strict=True))
        ]
        await self._store.stage_passages(document.owner, document.collection, document.id, revision, passages)
        staged = first + len(batch)
        await lease.renew(msgspec.structs.replace(lease.work, passages=staged, page=batch[-1].page))
        return staged

    # --- helpers ---

    async def _find(self, document: Document) -> Document | None:
        try:
            return await self._store.get_document(document.owner, document.collection, document.id)
        except NotFound:
            return None

    async def _original(self, document: Document) -> StoredFile | None:
        """The file that belongs to the document, if one does."""
        if not (document.source or "").startswith("file-"):
            return None
        file = await self._files.find(document.owner, document.source or "")
        return None if file is None or file.until == "deleted" else file

    async def _discard(self, document: Document, revision: str) -> None:
        if revision:
            await self._store.discard_revision(document.owner, document.collection, document.id, revision)


def digest_of(file: StoredFile, how: Chunking) -> str:
    """What tells whether a document has to be read again: its bytes, and how they are cut."""
    return f"sha256:{file.digest}/{how.size}.{how.overlap}.{how.unit}"


def chunking_of(document: Document) -> Chunking | None:
    """How a document is cut, as its digest says; None where it does not."""
    found = _CUT.search(document.digest)
    if found is None:
        return None
    return Chunking(size=int(found[1]), overlap=int(found[2]), unit=cast(Unit, found[3]))
