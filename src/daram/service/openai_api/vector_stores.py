"""``/v1/vector_stores``: the collections of documents, as OpenAI's libraries call them.

Those of the caller's groups and the official ones are among them, as ``group:NAME:ID`` and ``official:ID``.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated, Any, Final, NamedTuple

from django.http import HttpRequest, HttpResponse
from ninja import Query as Param
from ninja import Router

from daram.errors import Conflict, NotFound
from daram.knowledge import expiry
from daram.knowledge.access import Reader
from daram.knowledge.base import library
from daram.knowledge.collections import Collection
from daram.knowledge.documents import Documents
from daram.knowledge.fuse import Found
from daram.knowledge.retrieve import Query
from daram.knowledge.rewrite import queries
from daram.model import UNSET
from daram.service import runtime
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
from daram.store.paging import items

router = Router(tags=["vector stores"])
_READ: Final = require("read")
_WRITE: Final = require("write")
_WHAT: Final = "vector store"

Json = dict[str, Any]
Limit = Annotated[int, Param(20, ge=1, le=100)]


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
                expires_days=None if given.expires_after is None else given.expires_after.days,
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
    """Change its name, its metadata (as a whole) or when it expires."""
    documents, who = await library_of(request)
    memory, owner = memory_of(request)
    given = payload.model_dump(exclude_unset=True)
    days = payload.expires_after

    async def work(_draw: Draw) -> HttpResponse:
        found = await _find(documents, who, vector_store_id, write=True)
        changed = await documents.collections.update(
            found.owner,
            found.id,
            name=given.get("name") or UNSET,
            metadata=(given["metadata"] or {}) if "metadata" in given else UNSET,
            expires_days=(None if days is None else days.days) if "expires_after" in given else UNSET,
        )
        await expiry.note(library(memory), changed)
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
    most = payload.max_num_results or _RESULTS
    how, least = shapes.ranked(documents.retrieval, payload.ranking_options, most)
    found = await expiry.use(documents.collections, found)
    asked = [payload.query] if isinstance(payload.query, str) else payload.query
    if payload.rewrite_query:
        chosen = runtime.current().model
        model = None if chosen.prefers_notes else chosen  # a small model words badly and slowly
        wordings = [await queries(query, (), model, three_ways=True) for query in asked]
    else:
        wordings = [[Query(query)] for query in asked]
    passages: dict[tuple[str, int], Found] = {}
    for wording in wordings:
        result = await documents.search(who, wording, Scope(found.owner, found.id), how=how, filters=payload.filters)
        for passage in result.passages:
            place = (passage.document, passage.first)
            if place not in passages or passages[place].score < passage.score:
                passages[place] = passage
    best = list(passages.values())
    if len(asked) > 1:  # of one question they stand in the order of their ranking
        best.sort(key=lambda passage: -passage.score)
    best = [passage for passage in best if passage.score >= least][:most]
    said = await documents.said_of(best)
    data = [shapes.result_object(passage, said[passage.scope, passage.document]) for passage in best]
    return reply(
        {
            "object": "vector_store.search_results.page",
            "search_query": [query.text for wording in wordings for query in wording],
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
    chunking = shapes.given_chunking(payload.chunking_strategy)
    attributes = None if payload.attributes is None else shapes.attributes_of(payload.attributes)

    async def work(_draw: Draw) -> HttpResponse:
        found = await expiry.use(documents.collections, await _find(documents, who, vector_store_id, write=True))
        scope = Scope(found.owner, found.id)
        document = await documents.add_file(who, scope, payload.file_id, metadata=attributes, chunking=chunking)
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
    return page_of_files(vector_store_id, files, limit=limit, after=after, before=before, order=order, filter=filter)


def page_of_files(
    store: str,
    files: list[Document],
    *,
    limit: int,
    after: str | None,
    before: str | None,
    order: Order,
    filter: shapes.State | None,
) -> HttpResponse:
    """A page of the files of a vector store or a batch; ``files``: all of them, the oldest first.

    The file that a page begins behind may be of another state than those that are asked for: it may have changed.
    """
    shown = _in_front(files, before, order, "file")
    if after is not None:
        shown, _ = page(shown, limit=len(shown), after=after, order=order, what="file")
        shown = shown if order == "asc" else shown[::-1]
    if filter is not None:
        shown = [document for document in shown if shapes.state_of(document) == filter]
    data, more = page(shown, limit=limit, after=None, order=order, what="file")
    return reply(list_object([file_object(store, document) for document in data], has_more=more))


@router.get(
    "/vector_stores/{vector_store_id}/files/{file_id}",
    auth=_READ,
    response={200: shapes.StoreFileOut, **schemas.REFUSALS},
)
async def retrieve_vector_store_file(request: HttpRequest, vector_store_id: str, file_id: str) -> HttpResponse:
    """One of its files."""
    documents, who = await library_of(request)
    return reply(file_object(vector_store_id, await _find_file(documents, who, vector_store_id, file_id)))


@router.post(
    "/vector_stores/{vector_store_id}/files/{file_id}",
    auth=_WRITE,
    response={200: shapes.StoreFileOut, **schemas.REFUSALS},
)
async def update_vector_store_file(
    request: HttpRequest, vector_store_id: str, file_id: str, payload: shapes.StoreFileChanges
) -> HttpResponse:
    """Change its attributes, as a whole. It is not read again."""
    documents, who = await library_of(request)
    memory, owner = memory_of(request)
    attributes = shapes.attributes_of(payload.attributes)

    async def work(_draw: Draw) -> HttpResponse:
        found = await _find(documents, who, vector_store_id, write=True)
        await _find_file(documents, who, vector_store_id, file_id)
        changed = await documents.describe(who, Scope(found.owner, found.id), file_id, attributes)
        return reply(file_object(vector_store_id, changed))

    return await once(memory, owner, request, work, work)


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
    request: HttpRequest, vector_store_id: str, file_id: str, page: Annotated[int, Param(0, ge=0)]
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
_RESULTS: Final = 10


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


def _documents(documents: Documents, who: Reader, scope: Scope) -> AsyncIterator[Document]:
    """All documents of a collection, the newest first."""
    return items(lambda cursor: documents.list(who, scope, limit=100, cursor=cursor))


async def _object(documents: Documents, who: Reader, found: Collection) -> Json:
    """A vector store as the API shows it."""
    scope = Scope(found.owner, found.id)
    files = [document async for document in _documents(documents, who, scope)]
    return shapes.store_object(found, public_id(who.owner, scope), files)
