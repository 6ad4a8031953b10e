"""What the house itself has noted of an owner, gone with him."""

from __future__ import annotations

from typing import Final

import msgspec

from daram.knowledge.base import HOUSE, UPLOADS, Library, decode
from daram.knowledge.bindings import BOUND
from daram.knowledge.expiry import EXPIRING

_NOTES: Final = (UPLOADS, BOUND, EXPIRING)


class _Note(msgspec.Struct):
    owner: str


async def forget_owner(store: Library, owner: str) -> None:
    """Delete the notes that name an owner, whose own records are gone: of uploads under way, of what is to expire."""
    for namespace in _NOTES:
        cursor = None
        while True:
            page = await store.scan_records(HOUSE, namespace, limit=500, cursor=cursor)
            for record in page.items:
                if decode(record.value, _Note, f"note {record.key!r}").owner == owner:
                    await store.delete_record(HOUSE, namespace, record.key)
            cursor = page.next_cursor
            if cursor is None:
                break
