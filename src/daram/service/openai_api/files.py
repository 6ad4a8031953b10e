"""``/v1/files``: what is uploaded, to be put into vector stores."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing, suppress
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Annotated, Any, Final, Literal

from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from ninja import File, Form, Query, Router, Schema, UploadedFile

from daram.errors import Conflict, InvalidInput, NotFound
from daram.knowledge.documents import Documents
from daram.knowledge.files import StoredFile
from daram.service.accounts.auth import caller_of, require
from daram.service.openai_api import schemas
from daram.service.openai_api.idempotency import Draw, once
from daram.service.openai_api.library import documents_here
from daram.service.openai_api.pages import Order, list_object
from daram.service.openai_api.reply import memory_of, reply
from daram.service.uploads import pieces
from daram.store.paging import items

router = Router(tags=["files"])
_READ: Final = require("read")
_WRITE: Final = require("write")
_PURPOSE: Final = "purpose"
# Seconds that a file may be asked to stay: an hour to 30 days.
_LEAST: Final = 3_600
_MOST: Final = 2_592_000

Purpose = Literal["assistants", "batch", "fine-tune", "vision", "user_data", "evals"]
Limit = Annotated[int, Query(10_000, ge=1, le=10_000)]


class FileOut(Schema):
    """A file; times in seconds."""

    id: str
    object: Literal["file"]
    bytes: int
    created_at: int
    filename: str
    purpose: str
    status: Literal["processed"]
    expires_at: int | None


class FileList(schemas.ListOut):
    """Files."""

    data: list[FileOut]


class FileDeleted(Schema):
    """What is said of a deleted file."""

    id: str
    object: Literal["file"]
    deleted: Literal[True]


@router.post("/files", auth=_WRITE, response={200: FileOut, **schemas.REFUSALS})
async def create_file(request: HttpRequest, file: File[UploadedFile], purpose: Form[Purpose]) -> HttpResponse:
    """Upload a file. It stays until it is deleted, or until ``expires_after[seconds]`` have passed since its upload."""
    memory, owner = memory_of(request)
    documents = documents_here()
    seconds = _lifetime(request)
    name = file.name or ""

    async def work(draw: Draw) -> HttpResponse:
        id = draw("file").replace("_", "-", 1)
        with suppress(NotFound):
            return reply(_object(await documents.files.get(owner, id)))
        try:
            stored = await documents.files.put(
                owner,
                name,
                pieces(file),
                media_type=file.content_type,
                metadata={_PURPOSE: purpose},
                id=id,
                expires_at=None if seconds is None else datetime.now(UTC) + timedelta(seconds=seconds),
            )
        except Conflict:  # an earlier try of this request has stored it meanwhile
            stored = await documents.files.get(owner, id)
        return reply(_object(stored))

    told = b"" if "Idempotency-Key" not in request.headers else await _digest(file, name, f"{purpose} {seconds}")
    return await once(memory, owner, request, work, work, body=told)


@router.get("/files", auth=_READ, response={200: FileList, **schemas.REFUSALS})
async def list_files(
    request: HttpRequest, limit: Limit, after: str | None = None, order: Order = "desc", purpose: str | None = None
) -> HttpResponse:
    """The files, the newest first."""
    owner = caller_of(request).owner
    found = [file async for file in _all(documents_here(), owner) if purpose in (None, file.metadata.get(_PURPOSE, ""))]
    data, more = page(found, limit=limit, after=after, order=order, what="file")
    return reply(list_object([_object(file) for file in data], has_more=more))


@router.get("/files/{file_id}", auth=_READ, response={200: FileOut, **schemas.REFUSALS})
async def retrieve_file(request: HttpRequest, file_id: str) -> HttpResponse:
    """One file."""
    return reply(_object(await _find(documents_here(), caller_of(request).owner, file_id)))


@router.delete("/files/{file_id}", auth=_WRITE, response={200: FileDeleted, **schemas.REFUSALS})
async def delete_file(request: HttpRequest, file_id: str) -> HttpResponse:
    """Delete a file, and what was made of it in the caller's vector stores."""
    documents, owner = documents_here(), caller_of(request).owner
    await _find(documents, owner, file_id)
    await documents.files.forget_documents(owner, file_id)
    with suppress(NotFound):  # somebody else deleted it meanwhile
        await documents.files.delete(owner, file_id)
    return reply({"id": file_id, "object": "file", "deleted": True})


@router.get("/files/{file_id}/content", auth=_READ, response={200: str, **schemas.REFUSALS})
async def retrieve_file_content(request: HttpRequest, file_id: str) -> StreamingHttpResponse:
    """The bytes of a file."""
    documents = documents_here()
    file = await _find(documents, caller_of(request).owner, file_id)

    async def sent() -> AsyncIterator[bytes]:
        async with aclosing(documents.files.read(file)) as found:
            async for piece in found:
                yield piece

    response = StreamingHttpResponse(sent(), content_type="application/octet-stream")
    response.headers["Content-Length"] = str(file.bytes)
    response.headers["Content-Disposition"] = "attachment"
    response.headers["X-Content-Type-Options"] = "nosniff"
    return response


def _lifetime(request: HttpRequest) -> int | None:
    """How long a file is to stay, in seconds; None: until it is deleted. Raises ``InvalidInput``."""
    anchor, seconds = "expires_after[anchor]", "expires_after[seconds]"
    if unknown := request.POST.keys() - {_PURPOSE, anchor, seconds}:
        raise InvalidInput(min(unknown), "is not known here")
    if not request.POST.keys() & {anchor, seconds}:
        return None
    if request.POST.get(anchor) != "created_at":
        raise InvalidInput("expires_after.anchor", "must be 'created_at'")
    given = request.POST.get(seconds, "")
    if not (given.isascii() and given.isdigit() and len(given) < 9 and _LEAST <= int(given) <= _MOST):
        raise InvalidInput("expires_after.seconds", f"must be a whole number from {_LEAST:,} to {_MOST:,}")
    return int(given)


def page(found: list[Any], *, limit: int, after: str | None, order: Order, what: str) -> tuple[list[Any], bool]:
    """At most ``limit`` of what was found, the oldest first, in this order behind the one whose id is ``after``.

    Raises ``NotFound``.
    """
    ordered = found if order == "asc" else found[::-1]
    if after is not None:
        place = next((place for place, one in enumerate(ordered) if one.id == after), None)
        if place is None:
            raise NotFound(what, after)
        ordered = ordered[place + 1 :]
    return ordered[:limit], len(ordered) > limit


async def _all(documents: Documents, owner: str) -> AsyncIterator[StoredFile]:
    """The files that somebody uploaded as such, the oldest first: originals of documents come and go with those."""
    async for file in items(lambda cursor: documents.files.list(owner, cursor=cursor)):
        if file.until == "deleted":
            yield file


async def _find(documents: Documents, owner: str, id: str) -> StoredFile:
    file = await documents.files.get(owner, id)
    if file.until != "deleted":
        raise NotFound("file", id)
    return file


async def _digest(file: UploadedFile, name: str, purpose: str) -> bytes:
    """What tells this upload from another one."""
    digest = sha256(f"{len(name)} {name} {purpose} ".encode())
    async with aclosing(pieces(file)) as found:
        async for piece in found:
            digest.update(piece)
    return digest.digest()


def _object(file: StoredFile) -> dict[str, Any]:
    return {
        "id": file.id,
        "object": "file",
        "bytes": file.bytes,
        "created_at": int(file.created_at.timestamp()),
        "filename": file.name,
        "purpose": file.metadata.get(_PURPOSE, "assistants"),
        "status": "processed",
        "expires_at": None if file.expires_at is None else int(file.expires_at.timestamp()),
    }
