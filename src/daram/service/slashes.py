"""Ids with a slash in a URL: ``/v1/conversations/a%2Fb``.

Servers decode a path before anybody can tell such a slash from one that parts the path. Between here and the operation
it is a character that no id can have.
"""

from __future__ import annotations

from typing import Final
from urllib.parse import unquote

from starlette.types import Scope

__all__ = ["hidden", "shown"]

_SLASH: Final = "\x00"
_FLAG: Final = "daram.slashes"


def hidden(scope: Scope) -> Scope:
    """The request with the slashes that came as ``%2F`` hidden in its path."""
    raw: bytes = scope.get("raw_path") or b""
    if b"%2f" not in raw.lower() or b"%00" in raw:
        return scope
    parts = raw.decode("latin-1").split("/")
    path = "/".join(unquote(part).replace("/", _SLASH) for part in parts)
    return {**scope, "path": path, _FLAG: True}


def shown(scope: Scope, id: str) -> str:
    """A part of the path as its client meant it."""
    return id.replace(_SLASH, "/") if scope.get(_FLAG) else id
