"""Uploads of files: which requests they are, who may send more than others, how they are read without filling memory.

Django writes the body of a request to a file before anybody is asked who sends it. So more than ``DARAM_BODY_LIMIT`` is
taken only from who has shown a key or a login that works.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator
from typing import Any, Final

from django.core.exceptions import RequestDataTooBig
from django.core.files.uploadedfile import UploadedFile
from django.core.files.uploadhandler import SkipFile, TemporaryFileUploadHandler
from django.http import HttpRequest
from django.http.multipartparser import MultiPartParserError
from starlette.requests import Request
from starlette.types import Scope

from daram.errors import InvalidInput
from daram.knowledge.files import PIECE
from daram.service.accounts.auth import may_upload
from daram.ui.gate import Logins

__all__ = ["Allowance", "LargeFiles", "is_upload", "parts_of", "pieces"]

_PATHS: Final = re.compile(
    r"/v1/files|/api/collections/[^/]+/documents|/api/chats/[^/]+/files/|/chat/project/file"
    r"|/admin/conversations/storedcollection/add/"
)
_KIND: Final = "multipart/form-data"


def is_upload(scope: Scope) -> bool:
    """Whether the request brings a file to where files are taken."""
    if scope["type"] != "http" or scope["method"] != "POST" or not _PATHS.fullmatch(scope["path"]):
        return False
    kind = next((value for name, value in scope["headers"] if name == b"content-type"), b"")
    return bool(kind.lower().startswith(_KIND.encode()))


class Allowance:
    """How many bytes a request may bring beyond what all may: ``limit`` for a file of somebody who is known, else 0."""

    def __init__(self, limit: int, logins: Logins) -> None:
        self._limit = limit
        self._logins = logins

    async def __call__(self, scope: Scope) -> int:
        """The bytes that this request may bring."""
        if not is_upload(scope):
            return 0
        request = Request(scope)
        scheme, _, key = request.headers.get("authorization", "").strip().partition(" ")
        if scheme:
            known = scheme.lower() == "bearer" and await may_upload(key.strip())
        else:
            session = request.cookies.get(self._logins.cookie)
            known = session is not None and await self._logins.visitor(session) is not None
        return self._limit if known else 0


class LargeFiles(TemporaryFileUploadHandler):
    """Writes what is too large for memory to the disk where files are taken, and drops it elsewhere."""

    def new_file(self, *args: Any, **kwargs: Any) -> None:
        """Begin a file, or leave it out."""
        if self.request is None or not _PATHS.fullmatch(self.request.path):
            raise SkipFile
        super().new_file(*args, **kwargs)


async def parts_of(request: HttpRequest) -> None:
    """Read the parts of a form; its files go to the disk. Raises ``InvalidInput``, ``RequestDataTooBig``."""

    def read() -> None:
        request.upload_handlers = [TemporaryFileUploadHandler(request)]
        _ = request.FILES

    try:
        await asyncio.to_thread(read)
    except RequestDataTooBig:
        raise
    except MultiPartParserError as error:
        raise InvalidInput("body", f"is no multipart form: {error}") from None


async def pieces(file: UploadedFile) -> AsyncGenerator[bytes, None]:
    """The bytes of an uploaded file."""
    await asyncio.to_thread(file.seek, 0)
    while piece := await asyncio.to_thread(file.read, PIECE):
        yield piece
