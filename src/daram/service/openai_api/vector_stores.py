"""``/v1/vector_stores``: the collections of documents, as OpenAI's libraries call them.

Those of the caller's groups and the official ones are among them, as ``group:NAME:ID`` and ``official:ID``.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated, Any, Final, NamedTuple

import msgspec
from django.http import HttpRequest, HttpResponse
from ninja import Query, Router

from daram.errors import Conflict, InvalidInput, NotFound
from daram.knowledge.access import Reader
from daram.knowledge.collections import Collection
from daram.knowledge.documents import Documents
from daram.knowledge.fuse import Found
from daram.model import UNSET
from daram.service.accounts.auth import require
from daram.service.openai_api import schemas
from daram.service.openai_api import vector_schemas as shapes
from daram.service.openai_api.files import page
from daram.service.openai_api.idempotency import Draw, once
from daram.service.openai_api.library import find_collection, library_of, public_id
from daram.service.openai_api.pages import Order, list_object
from daram.service.openai_api.reply import memory_of, reply
from daram.service.openai_api.vector_schemas import chunking_of, file_object
from daram.store.documents import Document, Scope

router = Router(tags=["vector stores"])
_READ: Final = require("read")
_WRITE: Final = require("write")
_WHAT: Final = "vector store"

Json = dict[str, Any]
Limit = Annotated[int, Query(20, ge=1, le=100)]


class _Listed(NamedTuple):
    """A collection, and what the caller calls it."""

    id: str
    collection: Collection


# --- vector stores --------------------------------------------------------------------------------------------------


@router.post("/vector_stores", auth=_WRITE, response={200: shapes.VectorStoreOut, **schemas.REFUSALS})
async def create_vector_store(request: HttpRequest, payload: shapes.VectorStoreIn | None = None) -> HttpResponse:
    """Make a vector store, with files where there are any."""
    given = payload or shapes.VectorStoreIn()
    documents, who = await library_of(request)
    memory, owner = memory_of(request)
    chunking = chunking_of(given.chunking_strategy)
    for id in given.file_ids or ():
        await documents.files.get(owner, id)

    async def work(draw: Draw) -> HttpResponse:
        id = draw("vs")
        try:
            made = await documents.create(
                who,
                id=id,
                name=given.name or id,
                description=given.description or "",
                chunking=chunking,
                metadata=given.metadata,
            )
        except Conflict:  # an earlier try of this request made it
            made = await documents.collections.get(owner, id)
        for file in given.file_ids or ():
            await documents.add_file(who, id, file)
        return reply(await _object(documents, who, made))

    async def again(draw: Draw) -> HttpResponse:
        return reply(await _object(documents, who, await documents.collections.get(owner, draw("vs"))))

    return await once(memory, owner, request, work, again)


@router.get("/vector_stores", auth=_READ, response={200: shapes.VectorStoreList, **schemas.REFUSALS})
async def list_vector_stores(
    request: HttpRequest,
    limit: Limit,
    after: str | None = None,
    before: str | None = None,
    order: Order = "desc",
) -> HttpResponse:
    """All that the caller may read: their own, those of their groups, the official ones; the newest first."""
    documents, who = await library_of(request)
    found = [
        _Listed(public_id(who.owner, Scope(one.owner, one.id)), one)
        for one in sorted(await documents.list_collections(who), key=lambda one: (one.created_at, one.id))
    ]
    shown, more = page(_in_front(found, before, order, _WHAT), limit=limit, after=after, order=order, what=_WHAT)
    data = [await _object(documents, who, one.collection) for one in shown]
    return reply(list_object(data, has_more=more))


@router.get("/vector_stores/{vector_store_id}", auth=_READ, response={200: shapes.VectorStoreOut, **schemas.REFUSALS})
async def retrieve_vector_store(request: HttpRequest, vector_store_id: str) -> HttpResponse:
    """One vector store."""
    documents, who = await library_of(request)
    return reply(await _object(documents, who, await _find(documents, who, vector_store_id)))


@router.post("/vector_stores/{vector_store_id}", auth=_WRITE, response={200: shapes.VectorStoreOut, **schemas.REFUSALS})
async def update_vector_store(
    request: HttpRequest, vector_store_id: str, payload: shapes.VectorStoreChanges
) -> HttpResponse:
    """Change its name or its metadata (as a whole)."""
    documents, who = await library_of(request)
    memory, owner = memory_of(request)
    given = payload.model_dump(exclude_unset=True)

    async def work(_draw: Draw) -> HttpResponse:
        found = await _find(documents, who, vector_store_id, write=True)
        changed = await documents.collections.update(
            found.owner,
            found.id,
            name=given.get("name") or UNSET,
            metadata=(given["metadata"] or {}) if "metadata" in given else UNSET,
        )
        return reply(await _object(documents, who, changed))

    return await once(memory, owner, request, work, work)


@router.delete(
    "/vector_stores/{vector_store_id}", auth=_WRITE, response={200: shapes.VectorStoreDeleted, **schemas.REFUSALS}
)
async def delete_vector_store(request: HttpRequest, vector_store_id: str) -> HttpResponse:
    """Delete a vector store with all that is found through it; uploaded files stay."""
    documents, who = await library_of(request)
    found = await _find(documents, who, vector_store_id, write=True)
    await documents.delete_collection(who, Scope(found.owner, found.id))
    return reply({"id": vector_store_id, "object": "vector_store.deleted", "deleted": True})


@router.post(
    "/vector_stores/{vector_store_id}/search", auth=_READ, response={200: shapes.SearchPage, **schemas.REFUSALS}
)
async def search_vector_store(request: HttpRequest, vector_store_id: str, payload: shapes.SearchIn) -> HttpResponse:
    """The passages that bear on a question, the best first."""
    documents, who = await library_of(request)
    found = await _find(documents, who, vector_store_id)
    least = shapes.threshold_of(payload.ranking_options)
    queries = [payload.query] if isinstance(payload.query, str) else payload.query
    how = documents.retrieval
    how = msgspec.structs.replace(
        how, passages=payload.max_num_results, candidates=max(how.candidates, payload.max_num_results)
    )
    passages: dict[tuple[str, int], Found] = {}
    for query in queries:
        result = await documents.search(who, query, Scope(found.owner, found.id), how=how)
        for passage in result.passages:
            place = (passage.document, passage.first)
            if place not in passages or passages[place].score < passage.score:
                passages[place] = passage
    best = sorted(passages.values(), key=lambda passage: -passage.score)
    data = [shapes.result_object(passage) for passage in best if passage.score >= least][: payload.max_num_results]
    return reply(
        {
            "object": "vector_store.search_results.page",
            "search_query": queries,
            "data": data,
            "has_more": False,
            "next_page": None,
        }
    )


# --- their files ----------------------------------------------------------------------------------------------------


@router.post(
    "/vector_stores/{vector_store_id}/files", auth=_WRITE, response={200: shapes.StoreFileOut, **schemas.REFUSALS}
)
async def create_vector_store_file(
    request: HttpRequest, vector_store_id: str, payload: shapes.StoreFileIn
) -> HttpResponse:
    """Put an uploaded file into it. It is read in the background: ``status`` says how far that is."""
    documents, who = await library_of(request)
    memory, owner = memory_of(request)
    if payload.chunking_strategy is not None and payload.chunking_strategy.get("type") != "auto":
        raise InvalidInput("chunking_strategy", "is that of the vector store; give it when you make that one")
    attributes = shapes.attributes_of(payload.attributes)

    async def work(_draw: Draw) -> HttpResponse:
        found = await _find(documents, who, vector_store_id, write=True)
        document = await documents.add_file(who, Scope(found.owner, found.id), payload.file_id, metadata=attributes)
        return reply(file_object(vector_store_id, document))

    return await once(memory, owner, request, work, work)


@router.get(
    "/vector_stores/{vector_store_id}/files", auth=_READ, response={200: shapes.StoreFileList, **schemas.REFUSALS}
)
async def list_vector_store_files(
    request: HttpRequest,
    vector_store_id: str,
    limit: Limit,
    after: str | None = None,
    before: str | None = None,
    order: Order = "desc",
    filter: shapes.State | None = None,
) -> HttpResponse:
    """Its files, the newest first."""
    documents, who = await library_of(request)
    found = await _find(documents, who, vector_store_id)
    files = [document async for document in _documents(documents, who, Scope(found.owner, found.id))][::-1]
    if filter is not None:
        files = [document for document in files if shapes.STATES[document.state] == filter]
    data, more = page(_in_front(files, before, order, "file"), limit=limit, after=after, order=order, what="file")
    return reply(list_object([file_object(vector_store_id, document) for document in data], has_more=more))


@router.get(
    "/vector_stores/{vector_store_id}/files/{file_id}",
    auth=_READ,
    response={200: shapes.StoreFileOut, **schemas.REFUSALS},
)
async def retrieve_vector_store_file(request: HttpRequest, vector_store_id: str, file_id: str) -> HttpResponse:
    """One of its files."""
    documents, who = await library_of(request)
    return reply(file_object(vector_store_id, await _find_file(documents, who, vector_store_id, file_id)))


@router.delete(
    "/vector_stores/{vector_store_id}/files/{file_id}",
    auth=_WRITE,
    response={200: shapes.StoreFileDeleted, **schemas.REFUSALS},
)
async def delete_vector_store_file(request: HttpRequest, vector_store_id: str, file_id: str) -> HttpResponse:
    """Take a file out of it: nothing of it is found any more. The uploaded file stays."""
    documents, who = await library_of(request)
    found = await _find(documents, who, vector_store_id, write=True)
    await _find_file(documents, who, vector_store_id, file_id)
    await documents.remove(who, Scope(found.owner, found.id), file_id)
    return reply({"id": file_id, "object": "vector_store.file.deleted", "deleted": True})


@router.get(
    "/vector_stores/{vector_store_id}/files/{file_id}/content",
    auth=_READ,
    response={200: shapes.ContentPage, **schemas.REFUSALS},
)
async def retrieve_vector_store_file_content(
    request: HttpRequest, vector_store_id: str, file_id: str, page: Annotated[int, Query(0, ge=0)]
) -> HttpResponse:
    """What was read of it, passage by passage, a hundred on a page."""
    documents, who = await library_of(request)
    document = await _find_file(documents, who, vector_store_id, file_id)
    where = Scope(document.owner, document.collection)
    passages = await documents.passages(who, where, file_id, after=page * _PAGE - 1, limit=_PAGE)
    more = len(passages) == _PAGE
    return reply(
        {
            "object": "vector_store.file_content.page",
            "data": [{"type": "text", "text": passage.text} for passage in passages],
            "has_more": more,
            "next_page": str(page + 1) if more else None,
        }
    )


_PAGE: Final = 100


# --- what they share ------------------------------------------------------------------------------------------------


async def _find(documents: Documents, who: Reader, id: str, *, write: bool = False) -> Collection:
    return await find_collection(documents, who, id, what=_WHAT, write=write)


async def _find_file(documents: Documents, who: Reader, store: str, id: str) -> Document:
    found = await _find(documents, who, store)
    try:
        return await documents.get(who, Scope(found.owner, found.id), id)
    except NotFound:
        raise NotFound("file", id) from None


def _in_front(found: list[Any], before: str | None, order: Order, what: str) -> list[Any]:
    """Of what was found, the oldest first, that which comes in front of ``before`` in this order."""
    if before is None:
        return found
    place = next((place for place, one in enumerate(found) if one.id == before), None)
    if place is None:
        raise NotFound(what, before)
    return found[:place] if order == "asc" else found[place + 1 :]


async def _documents(documents: Documents, who: Reader, scope: Scope) -> AsyncIterator[Document]:
    """All documents of a collection, the newest first."""
    cursor = None
    while True:
        found = await documents.list(who, scope, limit=100, cursor=cursor)
        for document in found.items:
            yield document
        cursor = found.next_cursor
        if cursor is None:
            return


async def _object(documents: Documents, who: Reader, found: Collection) -> Json:
    """A vector store as the API shows it."""
    scope = Scope(found.owner, found.id)
    files = [document async for document in _documents(documents, who, scope)]
    return shapes.store_object(found, public_id(who.owner, scope), files)
