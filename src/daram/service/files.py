"""The style sheets, scripts and pictures of the pages, out of the installed packages."""

from __future__ import annotations

import mimetypes
from functools import lru_cache
from hashlib import sha256
from pathlib import Path

from django.contrib.staticfiles import finders
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseNotModified
from django.views.decorators.http import require_safe

_MAX_AGE = 600


@require_safe
def static_file(request: HttpRequest, path: str) -> HttpResponse:
    """A file that Django's finders know (they stay within their folders), with an ETag."""
    found = _read(path)
    if found is None:
        raise Http404
    content, kind, etag = found
    unchanged = request.headers.get("If-None-Match") == etag
    response = HttpResponseNotModified() if unchanged else HttpResponse(content, content_type=kind)
    response.headers["ETag"] = etag
    response.headers["Cache-Control"] = f"public, max-age={_MAX_AGE}"
    return response


@lru_cache(maxsize=512)
def _read(path: str) -> tuple[bytes, str, str] | None:
    found = finders.find(path)
    if not isinstance(found, str) or not Path(found).is_file():
        return None
    content = Path(found).read_bytes()
    kind = mimetypes.guess_type(path)[0] or "application/octet-stream"
    charset = "; charset=utf-8" if kind.startswith("text/") or kind == "application/javascript" else ""
    return content, kind + charset, f'"{sha256(content).hexdigest()[:20]}"'
