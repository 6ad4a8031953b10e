"""Are the documents of a schema whole? What their tables, their terms and their vectors say of each other.

Tables are gone through a page at a time, so that no statement takes long, while others read and write. (Whether the
files of an index are sound is the server's own to tell: its extension ``amcheck``.)
"""

from __future__ import annotations

import builtins
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final, NamedTuple

from daram.model import Problem
from daram.store.documents import Scope
from daram.store.documents_engine import STAGED_SECONDS
from daram.store.postgres import schema
from daram.store.postgres.documents import fence_of, stored_terms
from daram.store.postgres.lanes import Row
from daram.store.postgres.transfer import PostgresTransfer
from daram.store.queries import load_queries
from daram.text.analyzer import index_terms

_QUERIES: Final = load_queries("daram.store.postgres", "check.sql")
_PAGE: Final = 500
_FIRST: Final = -(1 << 63)


class _Kind(NamedTuple):
    """A kind of problem: where it is, and what to say of so many rows; whether it can be mended without a guess."""

    where: str
    what: str
    mendable: bool = True


_REVISIONS: Final = _Kind("table revision", "{:,} rows belong to no document")
_STAGED: Final = _Kind("table revision", "{:,} were begun more than a day ago and never published")
_PASSAGES: Final = _Kind("table passage", "{:,} rows belong to no document")
_TERMS: Final = _Kind("the index of documents", "{:,} passages are in it with other words")
_VECTORS: Final = _Kind("table passage_vector", "{:,} rows belong to no passage, or are damaged")
_LACKING: Final = _Kind("table document", "{:,} documents lack passages: read them again", mendable=False)
_UNEMBEDDED: Final = _Kind("table document", "{:,} documents lack vectors")


class PostgresCare(PostgresTransfer):
    """The part of ``PostgresStore`` that looks after documents (``SupportsCheck``)."""

    async def check(self, *, repair: bool = False) -> builtins.list[Problem]:
        await self._open()
        found = await self._look_through(mend=False)
        left = found
        if repair and any(kind.mendable for kind in found):
            await self._look_through(mend=True)
            left = await self._look_through(mend=False)
        return [
            Problem(where=kind.where, what=kind.what.format(count), repaired=kind not in left)
            for kind, count in found.items()
        ]

    async def _look_through(self, *, mend: bool) -> Counter[_Kind]:
        """How many rows there are of each kind of problem. What one table loses another may lack: in this order."""
        found: Counter[_Kind] = Counter()
        for look in (self._look_at_revisions, self._look_at_passages, self._look_at_vectors, self._look_at_documents):
            await look(found, self._mend if mend else _leave)
        return found

    async def _look_at_revisions(self, found: Counter[_Kind], mend: _Mend) -> None:
        async for rows in self._pages("check_revisions", (_FIRST,), STAGED_SECONDS):
            orphans = [id for id, is_orphan, _ in rows if is_orphan]
            if orphans:
                found[_REVISIONS] += len(orphans)
                await mend("drop_orphan_revisions", orphans)
            old = sum(is_old and not is_orphan for _, is_orphan, is_old in rows)
            if old:
                found[_STAGED] += old
                await mend("drop_old_staged", STAGED_SECONDS)

    async def _look_at_passages(self, found: Counter[_Kind], mend: _Mend) -> None:
        async for rows in self._pages("check_passages", (_FIRST, _FIRST)):
            orphans = [revision for revision, _, owner, *_ in rows if owner is None]
            if orphans:
                found[_PASSAGES] += len(orphans)
                await mend("drop_orphan_passages", builtins.list(set(orphans)))
            wrong = []
            for revision, seq, owner, collection, text, length, terms in rows:
                if owner is not None:
                    made = index_terms(text)
                    wanted = stored_terms(fence_of(Scope(owner, collection)), made)
                    if length != made.count(" ") + 1 or set(terms or ()) != set((wanted or "").split()):
                        wrong.append((revision, seq, text, wanted, made.count(" ") + 1))
            if wrong:
                found[_TERMS] += len(wrong)
                await mend("index_passages_anew", *map(builtins.list, zip(*wrong, strict=True)))

    async def _look_at_vectors(self, found: Counter[_Kind], mend: _Mend) -> None:
        async for rows in self._pages("check_vectors", (_FIRST, _FIRST, _FIRST)):
            wrong = [key for *key, is_wrong in rows if is_wrong]
            if wrong:
                found[_VECTORS] += len(wrong)
                await mend("drop_wrong_vectors", *map(builtins.list, zip(*wrong, strict=True)))

    async def _look_at_documents(self, found: Counter[_Kind], mend: _Mend) -> None:
        async for rows in self._pages("check_documents", ("", "", "")):
            lacking = sum(not is_whole for *_, is_whole, _ in rows)
            if lacking:
                found[_LACKING] += lacking
            unembedded = [ref for *ref, _, is_embedded in rows if not is_embedded]
            if unembedded:
                found[_UNEMBEDDED] += len(unembedded)
                await mend("forget_embedders", *map(builtins.list, zip(*unembedded, strict=True)))

    async def _pages(self, name: str, position: tuple[Any, ...], *more: Any) -> AsyncIterator[builtins.list[Row]]:
        """The rows of a table in the order of its key, whose columns are the first ones."""
        query = schema.compose(_QUERIES[name], self.schema)
        while True:
            rows = await self.pool.fetch(query, (*position, _PAGE, *more), writes=False)
            if rows:
                yield rows
            if len(rows) < _PAGE:
                return
            position = rows[-1][: len(position)]

    async def _mend(self, name: str, *values: Any) -> None:
        await self.pool.fetch(schema.compose(_QUERIES[name], self.schema), values)


_Mend = Callable[..., Awaitable[None]]


async def _leave(name: str, *values: Any) -> None:
    """Mend nothing."""
