"""What the house itself has noted of an owner, gone with him."""

from __future__ import annotations

from typing import Final

import msgspec

from daram.knowledge.base import HOUSE, UPLOADS, Library, decode, records_of
from daram.knowledge.bindings import BOUND
from daram.knowledge.expiry import EXPIRING

_NOTES: Final = (UPLOADS, BOUND, EXPIRING)


class _Note(msgspec.Struct):
    owner: str


async def forget_owner(store: Library, owner: str) -> None:
    """Delete the notes that name an owner, whose own records are gone: of uploads under way, of what is to expire."""
    for namespace in _NOTES:
        async for record in records_of(store, HOUSE, namespace, 500):
            if decode(record.value, _Note, f"note {record.key!r}").owner == owner:
                await store.delete_record(HOUSE, namespace, record.key)
