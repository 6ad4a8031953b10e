"""What Chainlit wants kept beside the messages, as records of the owner: one namespace per kind, one key per thing."""

from __future__ import annotations

import asyncio
from base64 import b64encode
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

from daram.adapters import chainlit_steps as steps
from daram.errors import Conflict, TooLarge
from daram.model import UNSET, Record
from daram.store.base import SupportsRecords

if TYPE_CHECKING:
    from chainlit.element import Element, ElementDict

USER: Final = "chainlit.user"
SESSION: Final = "chainlit.session"
STEP: Final = "chainlit.step"
CHILD: Final = "chainlit.child"
FEEDBACK: Final = "chainlit.feedback"
ELEMENT: Final = "chainlit.element"
CONTENT: Final = "chainlit.content"
FAVORITE: Final = "chainlit.favorite"
OF_A_THREAD: Final = (SESSION, STEP, CHILD, FEEDBACK, ELEMENT, CONTENT, FAVORITE)

_SCAN_ITEMS: Final = 1000
_CONTENT_BYTES: Final = 3 << 20
_INLINE_BYTES: Final = 8 << 20


class SideRecords:
    """Objects by (owner, namespace, ids)."""

    def __init__(self, records: SupportsRecords) -> None:
        self._records = records

    async def get(self, owner: str, namespace: str, *ids: str) -> dict[str, Any] | None:
        """The object, or None."""
        record = await self._records.get_record(owner, namespace, steps.key(*ids))
        return None if record is None else steps.load(record.value)

    async def put(self, owner: str, namespace: str, ids: tuple[str, ...], value: object, *, new: bool = False) -> None:
        """Store the object as a whole. ``new``: where there is none yet; else what is there stays."""
        try:
            await self._records.put_record(
                owner, namespace, steps.key(*ids), steps.dump(value), expect=None if new else UNSET
            )
        except Conflict:
            if not new:
                raise

    async def delete(self, owner: str, namespace: str, *ids: str) -> bool:
        """Delete it; whether it was there."""
        return await self._records.delete_record(owner, namespace, steps.key(*ids))

    async def delete_key(self, owner: str, namespace: str, key: str) -> bool:
        """Delete by a key as ``scan`` gives it; whether it was there."""
        return await self._records.delete_record(owner, namespace, key)

    async def any(self, owner: str, namespace: str, *ids: str) -> bool:
        """Whether there is anything below these ids."""
        return bool((await self._records.scan_records(owner, namespace, steps.key(*ids) + "/", limit=1)).items)

    async def scan(self, owner: str, namespace: str, *ids: str, limit: int = _SCAN_ITEMS) -> AsyncIterator[Record]:
        """The records below these ids (without ids: all), at most ``limit``, read 100 at a time."""
        prefix = steps.key(*ids) + "/" if ids else ""
        cursor = None
        while limit > 0:
            page = await self._records.scan_records(owner, namespace, prefix, limit=min(100, limit), cursor=cursor)
            for record in page.items:
                yield record
            limit -= len(page.items)
            cursor = page.next_cursor
            if cursor is None:
                return

    async def merge_session(self, owner: str, thread: str, metadata: dict[str, Any], tags: list[str] | None) -> None:
        """Add to what Chainlit says of a thread; None removes an entry. What says nothing is not kept."""
        for _ in range(5):
            record = await self._records.get_record(owner, SESSION, steps.key(thread))
            known = steps.load(record.value) if record else {}
            merged = {**known.get("metadata", {}), **metadata}
            wanted: dict[str, Any] = {
                "metadata": {name: value for name, value in merged.items() if value not in (None, {}, [])},
                "tags": known.get("tags") if tags is None else tags,
            }
            if wanted == known or (record is None and not wanted["metadata"] and not wanted["tags"]):
                return
            try:
                await self._records.put_record(
                    owner, SESSION, steps.key(thread), steps.dump(wanted), expect=record.etag if record else None
                )
            except Conflict:
                continue  # another tab was faster: add to what it wrote
            return

    async def clear_thread(self, owner: str, thread: str) -> None:
        """Delete everything that was kept beside a thread."""
        await self.delete(owner, SESSION, thread)
        for namespace in OF_A_THREAD:
            while found := [record.key async for record in self.scan(owner, namespace, thread)]:
                for key in found:
                    await self.delete_key(owner, namespace, key)

    # --- elements: what they are in one record, their content in another ---

    async def put_element(self, owner: str, element: Element) -> None:
        """Keep an element with its content; raises ``TooLarge`` above 3 MiB."""
        ids = (element.thread_id, element.id)
        content = element.content.encode() if isinstance(element.content, str) else element.content
        if content is None and element.path:
            content = await asyncio.to_thread(Path(element.path).read_bytes)
        if content is not None:
            if len(content) > _CONTENT_BYTES:
                raise TooLarge(f"element {element.name!r:.80}", len(content), _CONTENT_BYTES, "bytes")
            await self._records.put_record(owner, CONTENT, steps.key(*ids), content)
        # Chainlit's key leads to a file of the session, which will be gone.
        await self.put(owner, ELEMENT, ids, {**element.to_dict(), "chainlitKey": None})

    async def elements(self, owner: str, thread: str, shown: set[str]) -> list[ElementDict]:
        """The elements of the steps shown; contents of up to 8 MiB in all are in their ``url``."""
        found: list[ElementDict] = []
        room = _INLINE_BYTES
        async for record in self.scan(owner, ELEMENT, thread):
            if steps.load(record.value).get("forId") in shown:
                element, used = await self._with_content(owner, record, room)
                found.append(element)
                room -= used
        return found

    async def element(self, owner: str, thread: str, element_id: str) -> ElementDict | None:
        """One element with its content, or None."""
        record = await self._records.get_record(owner, ELEMENT, steps.key(thread, element_id))
        return None if record is None else (await self._with_content(owner, record, _INLINE_BYTES))[0]

    async def delete_element(self, owner: str, thread: str, element_id: str) -> None:
        """Delete an element with its content, if it is there."""
        for namespace in (ELEMENT, CONTENT):
            await self.delete(owner, namespace, thread, element_id)

    async def _with_content(self, owner: str, record: Record, room: int) -> tuple[ElementDict, int]:
        element = steps.load(record.value)
        content = None if element.get("url") else await self._records.get_record(owner, CONTENT, record.key)
        if content is None or len(content.value) > room:
            return cast("ElementDict", element), 0
        mime = element.get("mime") or "application/octet-stream"
        element["url"] = f"data:{mime};base64,{b64encode(content.value).decode()}"
        return cast("ElementDict", element), len(content.value)
