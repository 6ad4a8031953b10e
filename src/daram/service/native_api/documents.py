"""``/api/collections``, ``/api/documents``, ``/api/references``: what chats are answered from, and who may change it.

A collection is called by its id; one that is shared has in front by what it is: ``group:NAME:ID``, ``official:ID``.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated, Any, Final

from django.http import HttpRequest, HttpResponse
from ninja import File, Form, Query, Router, UploadedFile

from daram.errors import Conflict, InvalidInput
from daram.knowledge.access import GROUP, OFFICIAL, Reader
from daram.knowledge.collections import CONVERSATION, Collection
from daram.knowledge.documents import Documents
from daram.knowledge.references import Reference
from daram.model import UNSET
from daram.service.accounts.auth import require
from daram.service.native_api.document_schemas import (
    ChunkingIn,
    CollectionChanges,
    CollectionIn,
    CollectionList,
    CollectionOut,
    DocumentList,
    DocumentOut,
    FoundList,
    PassageList,
    ReferenceIn,
    ReferenceItem,
    ReferenceList,
    ReferenceOut,
)
from daram.service.openai_api import schemas
from daram.service.openai_api.idempotency import Draw, once
from daram.service.openai_api.library import find_collection, library_of, public_id, scope_of
from daram.service.openai_api.reply import memory_of, reply
from daram.service.uploads import pieces
from daram.store.documents import Document, Scope
from daram.text.chunk import Chunking

router = Router(tags=["documents"])
_READ: Final = require("read", either=True)
_WRITE: Final = require("write", either=True)

Json = dict[str, Any]
Limit = Annotated[int, Query(20, ge=1, le=100)]


# --- collections ----------------------------------------------------------------------------------------------------


@router.get("/collections", auth=_READ, response={200: CollectionList, **schemas.REFUSALS})
async def list_collections(request: HttpRequest) -> HttpResponse:
    """All collections that the caller may read."""
    documents, who = await library_of(request)
    return reply({"data": [_collection(who, found) for found in await documents.list_collections(who)]})


@router.post("/collections", auth=_WRITE, response={201: CollectionOut, **schemas.REFUSALS})
async def create_collection(request: HttpRequest, payload: CollectionIn) -> HttpResponse:
    """Make a collection."""
    documents, who = await library_of(request)
    if payload.owner is None and (payload.id or "").startswith((f"{OFFICIAL}:", GROUP)):
        raise InvalidInput("id", "may not begin like that of a shared collection; say whose it is as owner")
    memory, owner = memory_of(request)

    async def work(draw: Draw) -> HttpResponse:
        drawn = draw("col")
        try:
            made = await documents.create(
                who,
                id=payload.id or drawn,
                owner=payload.owner,
                name=payload.name,
                description=payload.description or "",
                chunking=Chunking() if payload.chunking is None else _chunking(payload.chunking),
                metadata=payload.metadata,
            )
        except Conflict:
            if not draw.again:
                raise
            made = await documents.collections.get(payload.owner or owner, payload.id or drawn)
        return reply(_collection(who, made), 201)

    return await once(memory, owner, request, work, work)


@router.get("/collections/{collection_id}", auth=_READ, response={200: CollectionOut, **schemas.REFUSALS})
async def retrieve_collection(request: HttpRequest, collection_id: str) -> HttpResponse:
    """One collection."""
    documents, who = await library_of(request)
    return reply(_collection(who, await find_collection(documents, who, collection_id)))


@router.patch("/collections/{collection_id}", auth=_WRITE, response={200: CollectionOut, **schemas.REFUSALS})
async def update_collection(request: HttpRequest, collection_id: str, payload: CollectionChanges) -> HttpResponse:
    """Change what is given."""
    documents, who = await library_of(request)
    found = await find_collection(documents, who, collection_id, write=True)
    changed = await documents.collections.update(
        found.owner,
        found.id,
        name=UNSET if payload.name is None else payload.name,
        description=UNSET if payload.description is None else payload.description,
        chunking=UNSET if payload.chunking is None else _chunking(payload.chunking),
        metadata=UNSET if payload.metadata is None else payload.metadata,
    )
    return reply(_collection(who, changed))


@router.delete("/collections/{collection_id}", auth=_WRITE, response={204: None, **schemas.REFUSALS})
async def delete_collection(request: HttpRequest, collection_id: str) -> HttpResponse:
    """Delete a collection with its documents."""
    documents, who = await library_of(request)
    found = await find_collection(documents, who, collection_id, write=True)
    await documents.delete_collection(who, Scope(found.owner, found.id))
    return HttpResponse(status=204)


# --- documents ------------------------------------------------------------------------------------------------------


@router.get("/collections/{collection_id}/documents", auth=_READ, response={200: DocumentList, **schemas.REFUSALS})
async def list_documents(
    request: HttpRequest, collection_id: str, limit: Limit, cursor: str | None = None
) -> HttpResponse:
    """The documents of a collection, the newest first."""
    documents, who = await library_of(request)
    found = await find_collection(documents, who, collection_id)
    page = await documents.list(who, Scope(found.owner, found.id), limit=limit, cursor=cursor)
    data = [await document_object(documents, who, document) for document in page.items]
    return reply({"data": data, "next_cursor": page.next_cursor})


@router.post("/collections/{collection_id}/documents", auth=_WRITE, response={201: DocumentOut, **schemas.REFUSALS})
async def add_document(
    request: HttpRequest, collection_id: str, file: File[UploadedFile], title: Form[str | None] = None
) -> HttpResponse:
    """Upload a document; it is read in the background. The same name again replaces exactly that document."""
    documents, who = await library_of(request)
    found = await find_collection(documents, who, collection_id, write=True)
    added = await documents.add(
        who,
        Scope(found.owner, found.id),
        pieces(file),
        name=file.name or "",
        title=title,
        media_type=file.content_type,
    )
    return reply(await document_object(documents, who, added), 201)


@router.get(
    "/collections/{collection_id}/documents/{document_id}",
    auth=_READ,
    response={200: DocumentOut, **schemas.REFUSALS},
)
async def retrieve_document(request: HttpRequest, collection_id: str, document_id: str) -> HttpResponse:
    """A document, and how far it is read."""
    documents, who = await library_of(request)
    document = await documents.get(who, await _readable(documents, who, collection_id), document_id)
    return reply(await document_object(documents, who, document))


@router.delete(
    "/collections/{collection_id}/documents/{document_id}", auth=_WRITE, response={204: None, **schemas.REFUSALS}
)
async def delete_document(request: HttpRequest, collection_id: str, document_id: str) -> HttpResponse:
    """Delete a document: nothing of it is left."""
    documents, who = await library_of(request)
    found = await find_collection(documents, who, collection_id, write=True)
    await documents.remove(who, Scope(found.owner, found.id), document_id)
    return HttpResponse(status=204)


@router.get(
    "/collections/{collection_id}/documents/{document_id}/passages",
    auth=_READ,
    response={200: PassageList, **schemas.REFUSALS},
)
async def list_passages(
    request: HttpRequest,
    collection_id: str,
    document_id: str,
    limit: Limit,
    after: Annotated[int, Query(-1, ge=-1)],
    revision: str | None = None,
) -> HttpResponse:
    """The passages behind number ``after``, in order: what a citation opens, if they are of its ``revision`` still."""
    documents, who = await library_of(request)
    where = await _readable(documents, who, collection_id)
    found = await documents.passages(who, where, document_id, after=after, limit=limit + 1)
    document = await documents.get(who, where, document_id)
    if revision is not None and document.revision != revision:
        raise Conflict(f"document {document_id!r} has been replaced since: its passages are others now")
    data = [
        {
            "seq": passage.seq,
            "text": passage.text,
            "start": passage.start,
            "end": passage.end,
            "page": passage.page,
            "heading": list(passage.heading),
        }
        for passage in found[:limit]
    ]
    shown = await document_object(documents, who, document)
    return reply({"document": shown, "data": data, "has_more": len(found) > limit})


@router.get("/documents/search", auth=_READ, response={200: FoundList, **schemas.REFUSALS})
async def search_documents(
    request: HttpRequest,
    q: Annotated[str, Query(..., min_length=1, max_length=1000)],
    collection: Annotated[list[str], Query([], max_length=20)],
) -> HttpResponse:
    """The passages that bear on a question, in these collections, or in all that the caller may read."""
    documents, who = await library_of(request)
    where = [await _readable(documents, who, id) for id in collection]
    result = await documents.search(who, q, where or None)
    data = [
        {
            "collection": public_id(who.owner, found.scope),
            "document": found.document,
            "name": found.name,
            "title": found.title,
            "text": found.text,
            "start": found.start,
            "end": found.end,
            "seq": found.first,
            "last_seq": found.last,
            "page": found.page,
            "heading": list(found.heading),
            "score": found.score,
        }
        for found in result.passages
    ]
    return reply({"data": data, "answers": result.answers})


# --- references -----------------------------------------------------------------------------------------------------


@router.get("/references", auth=_READ, response={200: ReferenceList, **schemas.REFUSALS})
async def list_references(request: HttpRequest, category: str | None = None) -> HttpResponse:
    """All references that the caller may read, or those of a category."""
    documents, who = await library_of(request)
    return reply({"data": [_reference(who, found) async for found in _references(documents, who, category)]})


@router.put("/references/{category}/{title_no}", auth=_WRITE, response={200: ReferenceItem, **schemas.REFUSALS})
async def put_reference(request: HttpRequest, category: str, title_no: str, payload: ReferenceIn) -> HttpResponse:
    """Store or correct a text; the next turn of every chat about it reads it as it is then."""
    documents, who = await library_of(request)
    stored = await documents.put_reference(who, category, title_no, payload.title, payload.text, owner=payload.owner)
    return reply(_reference(who, stored))


@router.get("/references/{category}/{title_no}", auth=_READ, response={200: ReferenceOut, **schemas.REFUSALS})
async def retrieve_reference(
    request: HttpRequest, category: str, title_no: str, owner: str | None = None
) -> HttpResponse:
    """A reference with its text: the caller's own, or else their groups', or else the official one."""
    documents, who = await library_of(request)
    if owner is None:
        found = await documents.reference(who, category, title_no)
    else:
        who.check_read(owner or who.owner, "title", f"{category}/{title_no}")
        found = await documents.references.get(owner or who.owner, category, title_no)
    found, text = await documents.references.text(found)
    return reply({**_reference(who, found), "text": text})


@router.delete("/references/{category}/{title_no}", auth=_WRITE, response={204: None, **schemas.REFUSALS})
async def delete_reference(
    request: HttpRequest, category: str, title_no: str, owner: str | None = None
) -> HttpResponse:
    """Delete a reference of the caller's own, or of ``owner``."""
    documents, who = await library_of(request)
    await documents.remove_reference(who, category, title_no, owner=owner or None)
    return HttpResponse(status=204)


# --- what they share ------------------------------------------------------------------------------------------------


async def document_object(documents: Documents, who: Reader, document: Document) -> Json:
    """A document as the API shows it."""
    reading = document.state in ("waiting", "reading")
    work = await documents.progress(document) if reading else None
    return {
        "id": document.id,
        "collection": public_id(who.owner, Scope(document.owner, document.collection)),
        "name": document.name,
        "title": document.title,
        "media_type": document.media_type,
        "bytes": document.bytes,
        "state": document.state,
        "error": document.error,
        "revision": document.revision,
        "passages": document.passages,
        "progress": None if work is None else {"passages": work.passages, "page": work.page},
        "created_at": 0 if document.created_at is None else int(document.created_at.timestamp()),
        "updated_at": 0 if document.updated_at is None else int(document.updated_at.timestamp()),
    }


async def _readable(documents: Documents, who: Reader, id: str) -> Scope:
    """The collection of that id; that of a conversation has no record."""
    if id.startswith(CONVERSATION):
        return scope_of(who, id)
    found = await find_collection(documents, who, id)
    return Scope(found.owner, found.id)


async def _references(documents: Documents, who: Reader, category: str | None) -> AsyncIterator[Reference]:
    for owner in who.owners():
        async for found in documents.references.all(owner, category):
            yield found


def _chunking(given: ChunkingIn) -> Chunking:
    return Chunking(size=given.size, overlap=given.overlap, unit=given.unit)


def _collection(who: Reader, found: Collection) -> Json:
    return {
        "id": public_id(who.owner, Scope(found.owner, found.id)),
        "name": found.name,
        "description": found.description,
        "shared": None if found.owner == who.owner else found.owner,
        "chunking": {"size": found.chunking.size, "overlap": found.chunking.overlap, "unit": found.chunking.unit},
        "metadata": found.metadata,
        "created_at": int(found.created_at.timestamp()),
    }


def _reference(who: Reader, found: Reference) -> Json:
    return {
        "category": found.category,
        "title_no": found.title_no,
        "title": found.title,
        "shared": None if found.owner == who.owner else found.owner,
        "chars": found.chars,
        "updated_at": int(found.updated_at.timestamp()),
    }
