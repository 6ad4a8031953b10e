"""Chats as the rows of a ChatHistory table keep them: one JSON list per chat.

The list opens with ``{"SYSTEM": "init conversation"}``; then ``{"id_user": 1, "USER": "…"}`` and
``{"id_ai": 1, "AI": "…"}`` take turns. A file is such a list, or what Django's ``dumpdata`` writes of the table.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from daram.errors import ConfigError, InvalidInput
from daram.model import Message, Role
from daram.transfer.foreign import Histories, History, Naming, collect

_OPENING: Final = "init conversation"
_KINDS: Final[tuple[tuple[str, str, Role], ...]] = (("USER", "id_user", "user"), ("AI", "id_ai", "assistant"))


async def chat_history(file: str, prefix: str | None = None) -> Histories:
    """The chats of a file; ``prefix``: in front of their ids. Raises ``ConfigError``, ``InvalidInput``."""
    path = Path(file)
    try:
        found = json.loads(path.read_text("utf-8"))  # noqa: ASYNC240  # one file, before anything else goes on
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise InvalidInput(file, f"is no JSON: {error}") from None
    if _is_chat(found):
        yield _history((prefix or "") + path.stem, found)
        return
    if not isinstance(found, list) or not all(isinstance(row, dict) and "fields" in row for row in found):
        raise InvalidInput(file, "is neither one chat (a list of entries) nor the output of Django's dumpdata")
    for row in found:
        fields = {name: _opened(value) for name, value in row["fields"].items()}
        chat = next((value for value in fields.values() if _is_chat(value)), None)
        if chat is None:
            continue  # a row of another table
        history = _history((prefix or "") + str(row.get("pk")), chat)
        if isinstance(fields.get("title"), str):
            history.title = fields["title"][:500] or None
        if fields.get("user") is not None:
            history.owner = str(fields["user"])
        about = fields.get("content_info")
        if isinstance(about, dict):
            history.metadata = {k: str(v)[:512] for k, v in list(about.items())[:16] if v is not None}
        yield history


def _opened(value: Any) -> Any:
    """JSON within JSON: a text column that holds the list."""
    if isinstance(value, str) and value.lstrip()[:1] in ("[", "{"):
        try:
            return json.loads(value)
        except ValueError:
            return value
    return value


def _is_chat(value: Any) -> bool:
    keys = {"SYSTEM", "USER", "AI"}
    return isinstance(value, list) and bool(value) and all(isinstance(e, dict) and keys & e.keys() for e in value)


def _history(session: str, entries: list[dict[str, Any]]) -> History:
    history = History(session)
    naming = Naming(session)
    taken: set[str] = set()
    for place, entry in enumerate(entries):
        if "SYSTEM" in entry:
            if entry["SYSTEM"] != _OPENING or place:
                collect(history, Message(id=naming.name(entry), role="system", text=str(entry["SYSTEM"])))
            continue
        for key, number, role in _KINDS:
            if key in entry:
                id = f"{number}_{entry[number]}" if entry.get(number) is not None else naming.name(entry)
                if id in taken:  # numbers that were given twice
                    id = naming.name(entry)
                taken.add(id)
                collect(history, Message(id=id, role=role, text=str(entry[key])))
    return history
