"""Files that are dropped into the page: from the request to the disk, to where Chainlit looks for those of a tab.

Chainlit would hold a whole file in memory, and refuse one that is too large with the size of its own configuration.
"""

from __future__ import annotations

import asyncio
import errno
import mimetypes
import shutil
from pathlib import Path
from typing import Final
from uuid import uuid4

from chainlit.server import validate_file_upload
from chainlit.session import WebsocketSession
from fastapi import UploadFile as Checked
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.types import Scope

from daram.ui import gate
from daram.ui.strings import words

PATH: Final = "/project/file"


class Uploads:
    """What takes the files; ``limit``: the bytes that one may have."""

    def __init__(self, limit: int) -> None:
        self._limit = limit

    async def take(self, request: Request) -> Response:
        """Take a file into the tab that the query names, which must be the visitor's own: asked before it is read."""
        id = request.query_params.get("session_id", "")
        session = WebsocketSession.get_by_id(id)
        if session is None:
            return _refusal("There is no such session.", 404)
        if session.user is None or session.user.identifier != gate.owner():
            return _refusal("This session is somebody else's.", 401)
        try:
            async with request.form(max_files=1, max_fields=1) as form:
                file = form.get("file")
                if not isinstance(file, UploadFile) or not file.filename:
                    return _refusal("The form has no file.", 400)
                if (file.size or 0) > self._limit:
                    return _refusal(self._too_large(request.scope), 413)
                validate_file_upload(Checked(file.file, size=file.size, filename=file.filename, headers=file.headers))
                kept = await asyncio.to_thread(_keep, file, session.files_dir)
        except ClientDisconnect:  # the user thought better of it
            return Response(status_code=400)
        except (ValueError, HTTPException) as error:
            return _refusal(error.detail if isinstance(error, HTTPException) else str(error), 400)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            return _refusal(words(request.headers.get("accept-language")).no_space, 507)
        if WebsocketSession.get_by_id(id) is not session:  # it ended meanwhile, and its directory went with it
            await asyncio.to_thread(kept.unlink, missing_ok=True)
            return _refusal("There is no such session.", 404)
        found = {"id": kept.stem, "path": kept, "name": file.filename, "type": _kind(file), "size": file.size}
        session.files[kept.stem] = found
        return JSONResponse({"id": kept.stem})

    def detail(self, scope: Scope, limit: int) -> str | None:
        """What the page is to say of a request that was refused for having more than ``limit`` bytes."""
        is_ours = scope["path"].endswith(PATH) and limit > self._limit
        return self._too_large(scope) if is_ours else None

    def _too_large(self, scope: Scope) -> str:
        return words(Request(scope).headers.get("accept-language")).file_too_large(self._limit)


def _kind(file: UploadFile) -> str:
    return file.content_type or "application/octet-stream"


def _keep(file: UploadFile, directory: Path) -> Path:
    """Copy a file that has arrived to where Chainlit has those of a tab, under a name of its own."""
    directory.mkdir(exist_ok=True)
    path = directory / f"{uuid4()}{mimetypes.guess_extension(_kind(file)) or ''}"
    try:
        with path.open("wb") as target:
            shutil.copyfileobj(file.file, target)
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    return path


def _refusal(detail: str, status: int) -> JSONResponse:
    return JSONResponse({"detail": detail}, status)
