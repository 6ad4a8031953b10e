"""Documents from one store into another: what is said of them, their passages and vectors, exactly.

Files, collections, references and bindings are records, and come as records do. A document is put in place at one
stroke; until then what the target had of it is found there. Nothing is read or embedded anew.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from typing import Final, Literal, NamedTuple

import msgspec

from daram.errors import Conflict, NotFound, StoreCorrupt, Unsupported
from daram.knowledge.base import LEASES, UPLOADS, Library, library
from daram.knowledge.files import Files
from daram.memory import Memory
from daram.store.documents import Document, Passage, Scope, Unembedded
from daram.store.paging import pages

PASSING: Final = frozenset({LEASES})
"""Records of who is at which work: that does not move with the work."""
CHANGING: Final = frozenset({UPLOADS})
"""Records of the house that say what is under way: the source's are taken whatever the target has."""

_PAGE: Final = 100
_TRIES: Final = 5
_COPYING: Final = "is being copied; run the copy again"

Outcome = Literal["new", "replaced", "equal", "kept", "gone", "changing"]
"""As for conversations (``daram.transfer.bring``); ``kept``: the target's was changed later than the source's."""


class Embedded(NamedTuple):
    """A passage with its vector, and the model that made it."""

    passage: Passage
    embedder: str | None

    def of(self, embedder: str | None) -> Passage:
        """The passage, with its vector where that model made it."""
        return self.passage if self.embedder == embedder else msgspec.structs.replace(self.passage, vector=None)


async def keeps_documents(store: Memory) -> Library | None:
    """The store as one that keeps documents, or None."""
    try:
        return library(store)
    except Unsupported:
        return None


def scanned_documents(store: Library) -> AsyncIterator[list[Document]]:
    """All documents, page by page."""
    return pages(lambda cursor: store.scan_documents(limit=_PAGE, cursor=cursor))


async def embedded(store: Library, document: Document) -> AsyncIterator[list[Embedded]]:
    """The published passages of a document with their vectors, some at a time. Raises ``NotFound``."""
    where = (document.owner, document.collection, document.id)
    after = -1
    while page := await store.passages(*where, after=after, limit=_PAGE):
        vectors = {v.seq: v for v in await store.passage_vectors(*where, after=after, limit=_PAGE)}
        found = []
        for passage in page:
            vector = vectors.get(passage.seq)
            with_it = passage if vector is None else msgspec.structs.replace(passage, vector=vector.vector)
            found.append(Embedded(with_it, None if vector is None else vector.embedder))
        yield found
        after = page[-1].seq


async def bring_document(source: Library, target: Library, found: Document, *, replace: bool = False) -> Outcome:
    """Bring one document, that the target may have already. Raises ``StoreCorrupt``, ``InvalidInput``."""
    where = (found.owner, found.collection, found.id)
    for _ in range(_TRIES):
        try:
            found = await source.get_document(*where)
        except NotFound:
            return "gone"
        there = await _find(target, where)
        if there is not None:
            if same_document(there, found):
                if found.embedder is None and there.embedder is None:
                    await _fill_in(source, target, found)
                return "equal"
            if not replace and _changed(there) > _changed(found):
                return "equal" if _was_read_there(there, found) else "kept"
        try:
            done = await _write(source, target, found, there)
            if there is not None:
                await _drop_original(target, there, done)
            await _verify(source, target, found, done)
        except (Conflict, NotFound):
            continue  # somebody changed it meanwhile, here or there: look again
        return "new" if there is None else "replaced"
    return "changing"


def same_document(a: Document, b: Document) -> bool:
    """Whether two documents are of the same state. A revision has one content; vectors each store may make itself."""
    return _state(a) == _state(b)


async def _write(source: Library, target: Library, found: Document, there: Document | None) -> Document:
    """Raises ``Conflict`` and ``NotFound`` where either side changed meanwhile."""
    if found.state == "reading":  # who reads it here does not read it there
        found = msgspec.structs.replace(found, state="waiting")
    where = (found.owner, found.collection, found.id)
    if there is None:
        begun = msgspec.structs.replace(found, state="failed", error=_COPYING, revision=None, passages=0, embedder=None)
        there = await target.load_document(begun, expect=None)
    main = found.embedder
    if found.revision is not None and there.revision != found.revision:
        main = main or await _usual_embedder(source, found)
        await target.discard_revision(*where, found.revision)
        async for some in embedded(source, found):
            await target.stage_passages(*where, found.revision, [one.of(main) for one in some])
    if (await source.get_document(*where)).etag != found.etag:
        raise Conflict(f"document {found.id!r} changed while it was read")
    done = await target.load_document(msgspec.structs.replace(found, embedder=main), expect=there.etag)
    if found.embedder is None and main is not None:
        await _fill_in(source, target, found)
    return done


async def _fill_in(source: Library, target: Library, found: Document) -> None:
    """Of a document that is between two models: the vectors that the target has not, whichever made them."""
    scope, revision = Scope(found.owner, found.collection), found.revision or ""
    after = -1
    while page := await source.passage_vectors(*scope, found.id, after=after, limit=_PAGE):
        last = page[-1].seq
        there = await target.passage_vectors(*scope, found.id, after=after, limit=min(last - after, 1000))
        have = {vector.seq for vector in there}
        for embedder in dict.fromkeys(vector.embedder for vector in page if vector.seq not in have):
            given = [
                (Unembedded(scope=scope, document=found.id, revision=revision, seq=v.seq, text=""), v.vector)
                for v in page
                if v.embedder == embedder and v.seq not in have
            ]
            await target.put_vectors(embedder, given)
        after = last


async def _verify(source: Library, target: Library, found: Document, done: Document) -> None:
    """Read it back from both sides. Raises ``StoreCorrupt``, and ``Conflict`` where one of them changed meanwhile."""
    theirs = embedded(target, done)
    is_same = True
    async for wanted in embedded(source, found):
        there: list[Embedded] = await anext(theirs, [])
        # The target may have embedded them by a model of its own since.
        is_same = is_same and len(wanted) == len(there) and all(map(_is_equal, wanted, there))
    is_same = is_same and not await anext(theirs, [])
    where = (done.owner, done.collection, done.id)
    if (await source.get_document(*where)).etag != found.etag:
        raise Conflict(f"document {done.id!r} changed while it was read")
    if not is_same and (await target.get_document(*where)).etag == done.etag:
        raise StoreCorrupt(f"document {done.id!r} was read back as something else than was written; run daram check")


def _is_equal(wanted: Embedded, there: Embedded) -> bool:
    if wanted.embedder == there.embedder:
        return wanted.passage == there.passage
    return all(
        getattr(wanted.passage, name) == getattr(there.passage, name)
        for name in ("seq", "text", "start", "end", "page", "heading")
    )


async def _usual_embedder(source: Library, found: Document) -> str | None:
    """The model that made most of the vectors of a document that is between two."""
    count: Counter[str] = Counter()
    after = -1
    while page := await source.passage_vectors(found.owner, found.collection, found.id, after=after, limit=1000):
        count.update(vector.embedder for vector in page)
        after = page[-1].seq
    return count.most_common(1)[0][0] if count else None


async def _drop_original(target: Library, former: Document, done: Document) -> None:
    """What the target's document was made from before goes with it, where it was its own."""
    if former.source in (None, done.source) or not former.source.startswith("file-"):
        return
    await Files(target).drop(former.owner, former.source)


async def _find(store: Library, where: tuple[str, str, str]) -> Document | None:
    try:
        return await store.get_document(*where)
    except NotFound:
        return None


def _state(document: Document) -> Document:
    state = "waiting" if document.state == "reading" else document.state
    return msgspec.structs.replace(document, etag="", embedder=None, state=state)


def _was_read_there(there: Document, found: Document) -> bool:
    """Whether the target has read the same bytes by itself, since it was given what waited to be read."""
    keep = {"state": "", "error": None, "revision": None, "passages": 0, "updated_at": None}
    same = msgspec.structs.replace(_state(there), **keep) == msgspec.structs.replace(_state(found), **keep)
    return same and there.state == "ready"


def _changed(document: Document) -> float:
    assert document.updated_at is not None  # the store gave it
    return document.updated_at.timestamp()
