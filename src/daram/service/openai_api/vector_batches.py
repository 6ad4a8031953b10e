"""``/v1/vector_stores/{id}/file_batches``: files that are put into a vector store together."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Final

from django.http import HttpRequest, HttpResponse
from ninja import Router

from daram.errors import InvalidInput, NotFound
from daram.knowledge import expiry
from daram.knowledge.access import Reader
from daram.knowledge.batches import Batch
from daram.knowledge.documents import Documents
from daram.service.accounts.auth import require
from daram.service.openai_api import schemas
from daram.service.openai_api import vector_schemas as shapes
from daram.service.openai_api.idempotency import Draw, once
from daram.service.openai_api.library import find_collection, library_of
from daram.service.openai_api.pages import Order
from daram.service.openai_api.reply import memory_of, reply
from daram.service.openai_api.vector_stores import Limit, page_of_files
from daram.store.documents import Scope

router = Router(tags=["vector stores"])
_READ: Final = require("read")
_WRITE: Final = require("write")
_AT_ONCE: Final = 8


@router.post(
    "/vector_stores/{vector_store_id}/file_batches", auth=_WRITE, response={200: shapes.BatchOut, **schemas.REFUSALS}
)
async def create_file_batch(request: HttpRequest, vector_store_id: str, payload: shapes.BatchIn) -> HttpResponse:
    """Put several files into it. One of an unreadable kind fails by itself; one that is not there refuses all."""
    documents, who = await library_of(request)
    memory, owner = memory_of(request)
    wanted = _wanted(payload)
    for id in wanted:
        await documents.files.get(owner, id)

    async def work(draw: Draw) -> HttpResponse:
        found = await find_collection(documents, who, vector_store_id, what="vector store", write=True)
        found = await expiry.use(documents.collections, found)
        batch = await documents.batches.create(Scope(found.owner, found.id), list(wanted), id=draw("vsfb"))
        room = asyncio.Semaphore(_AT_ONCE)

        async def add(id: str, given: shapes.StoreFileIn) -> None:
            async with room:
                with suppress(NotFound):  # it was deleted meanwhile
                    await documents.add_file(
                        who,
                        batch.scope,
                        id,
                        metadata=None if given.attributes is None else shapes.attributes_of(given.attributes),
                        chunking=shapes.given_chunking(given.chunking_strategy),
                        refuse=False,
                    )

        try:
            async with asyncio.TaskGroup() as tasks:
                for id, given in wanted.items():
                    tasks.create_task(add(id, given))
        except ExceptionGroup as group:
            raise group.exceptions[0] from None  # the others are of the same kind, or were cancelled for it
        return await _shown(documents, vector_store_id, batch)

    return await once(memory, owner, request, work, work)


@router.get(
    "/vector_stores/{vector_store_id}/file_batches/{batch_id}",
    auth=_READ,
    response={200: shapes.BatchOut, **schemas.REFUSALS},
)
async def retrieve_file_batch(request: HttpRequest, vector_store_id: str, batch_id: str) -> HttpResponse:
    """One batch, and how far its files are."""
    documents, who = await library_of(request)
    return await _shown(documents, vector_store_id, await _find(documents, who, vector_store_id, batch_id))


@router.post(
    "/vector_stores/{vector_store_id}/file_batches/{batch_id}/cancel",
    auth=_WRITE,
    response={200: shapes.BatchOut, **schemas.REFUSALS},
)
async def cancel_file_batch(request: HttpRequest, vector_store_id: str, batch_id: str) -> HttpResponse:
    """Do not read what of it is not read yet."""
    documents, who = await library_of(request)
    memory, owner = memory_of(request)

    async def work(_draw: Draw) -> HttpResponse:
        batch = await _find(documents, who, vector_store_id, batch_id, write=True)
        files = await documents.batches.documents(batch)
        if any(shapes.state_of(document) == "in_progress" for document in files):
            batch = await documents.batches.cancel(batch)
            for document in files:
                with suppress(NotFound):
                    await documents.cancel(who, batch.scope, document.id)
        return await _shown(documents, vector_store_id, batch)

    return await once(memory, owner, request, work, work)


@router.get(
    "/vector_stores/{vector_store_id}/file_batches/{batch_id}/files",
    auth=_READ,
    response={200: shapes.StoreFileList, **schemas.REFUSALS},
)
async def list_file_batch_files(
    request: HttpRequest,
    vector_store_id: str,
    batch_id: str,
    limit: Limit,
    after: str | None = None,
    before: str | None = None,
    order: Order = "desc",
    filter: shapes.State | None = None,
) -> HttpResponse:
    """Its files, the newest first."""
    documents, who = await library_of(request)
    batch = await _find(documents, who, vector_store_id, batch_id)
    files = await documents.batches.documents(batch)
    files.sort(key=lambda document: (document.created_at, document.id))
    return page_of_files(vector_store_id, files, limit=limit, after=after, before=before, order=order, filter=filter)


def _wanted(payload: shapes.BatchIn) -> dict[str, shapes.StoreFileIn]:
    """What is to be put in, by the ids of the files; the last word on one counts. Raises ``InvalidInput``."""
    if (payload.file_ids is None) == (payload.files is None):
        raise InvalidInput("file_ids", "must be given, or else 'files'")
    if payload.files is not None:
        for i, given in enumerate(payload.files):
            shapes.given_chunking(given.chunking_strategy, f"files[{i}].chunking_strategy")
            shapes.attributes_of(given.attributes, f"files[{i}].attributes")
        return {given.file_id: given for given in payload.files}
    shapes.given_chunking(payload.chunking_strategy)
    shapes.attributes_of(payload.attributes)
    more = {"attributes": payload.attributes, "chunking_strategy": payload.chunking_strategy}
    return {id: shapes.StoreFileIn(file_id=id, **more) for id in payload.file_ids or ()}


async def _find(documents: Documents, who: Reader, store: str, id: str, *, write: bool = False) -> Batch:
    found = await find_collection(documents, who, store, what="vector store", write=write)
    return await documents.batches.get(Scope(found.owner, found.id), id)


async def _shown(documents: Documents, store: str, batch: Batch) -> HttpResponse:
    return reply(shapes.batch_object(store, batch, await documents.batches.documents(batch)))
