"""Outcomes of the same call on two stores, made comparable: without what each draws for itself (etags, tokens)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from daram.errors import ConversationBusy, DaramError, LeaseLost, NotFound
from daram.model import Answer, Appended, Hit, Page
from daram.store.base import Store

Side = int
"""0: the store under test; 1: the model."""
Call = Callable[[Store, Side], Awaitable[Any]]
_OWN = {"etag", "previous_etag", "token", "score", "next_cursor", "created_at", "updated_at", "lease_until"}


class Outcome(msgspec.Struct, frozen=True):
    """What a call returned, or the typed error that it raised."""

    value: Any = None
    error: DaramError | None = None

    @property
    def kind(self) -> str:
        """``ok`` or the name of the error."""
        return "ok" if self.error is None else type(self.error).__name__

    def plain(self) -> object:
        """To be compared with that of another store."""
        if self.error is None:
            return plain(self.value)
        detail: object = None
        if isinstance(self.error, NotFound):
            detail = (self.error.what, self.error.id)
        elif isinstance(self.error, ConversationBusy):
            detail = (self.error.answer_id, self.error.dead)
        elif isinstance(self.error, LeaseLost):
            detail = self.error.answer_id
        return (self.kind, detail)


async def outcome(store: Store, call: Call, side: Side) -> Outcome:
    """Make the call; errors that are not Daram's own go through."""
    try:
        return Outcome(await call(store, side))
    except DaramError as error:
        return Outcome(error=error)


def plain(value: object) -> object:
    """A value without what every store draws for itself; what can be told of that is told."""
    if isinstance(value, msgspec.Struct):
        found = {name: plain(item) for name, item in msgspec.structs.asdict(value).items() if name not in _OWN}
        if isinstance(value, Appended):
            found["changed"] = value.etag != value.previous_etag
        if isinstance(value, Page):
            found["more"] = value.next_cursor is not None
        if isinstance(value, Answer):
            found["held"] = bool(value.token)
        return found
    if isinstance(value, list):
        if value and isinstance(value[0], Hit):  # engines rank in their own ways
            value = sorted(value, key=lambda hit: (hit.conversation, hit.message.id))
        return [plain(item) for item in value]
    return value
