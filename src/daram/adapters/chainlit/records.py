"""What Chainlit wants kept beside the messages, as records of the owner: one namespace per kind, one key per thing."""

from __future__ import annotations

import asyncio
import time
from base64 import b64encode
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

from daram.adapters.chainlit import steps
from daram.errors import Conflict, TooLarge
from daram.model import UNSET, Page, Record
from daram.store.base import SupportsRecords

if TYPE_CHECKING:
    from chainlit.element import Element, ElementDict

USER: Final = "chainlit.user"
SESSION: Final = "chainlit.session"
STEP: Final = "chainlit.step"
CHILD: Final = "chainlit.child"
FEEDBACK: Final = {0: "chainlit.feedback.0", 1: "chainlit.feedback.1"}  # by value: who asks for one reads no other
ELEMENT: Final = "chainlit.element"
ELEMENT_OF: Final = "chainlit.element-of"  # by the step that an element belongs to
CONTENT: Final = "chainlit.content"
FAVORITE: Final = "chainlit.favorite"
OF_A_THREAD: Final = (SESSION, STEP, CHILD, *FEEDBACK.values(), ELEMENT, ELEMENT_OF, CONTENT, FAVORITE)

_SCAN_ITEMS: Final = 1000
_TO_DELETE: Final = 100
_CONTENTS: Final = 4  # of up to 3 MiB each
_AT_ONCE: Final = 16
_CONTENT_BYTES: Final = 3 << 20
_INLINE_BYTES: Final = 8 << 20


T = TypeVar("T")
R = TypeVar("R")


async def each(work: Callable[[T], Awaitable[R]], items: Sequence[T]) -> list[R]:
    """What the work gives for each of the items, some at once."""
    found: list[R] = []
    for start in range(0, len(items), _AT_ONCE):
        found += await asyncio.gather(*(work(item) for item in items[start : start + _AT_ONCE]))
    return found


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
        """Delete by a record's key; whether it was there."""
        return await self._records.delete_record(owner, namespace, key)

    async def any(self, owner: str, namespace: str, *ids: str) -> bool:
        """Whether there is anything below these ids."""
        return bool((await self._records.scan_records(owner, namespace, steps.key(*ids) + "/", limit=1)).items)

    async def scan(self, owner: str, namespace: str, *ids: str, limit: int | None = None) -> list[Record]:
        """The records below these ids (without ids: all), at most 1,000."""
        return list((await self._scan(owner, namespace, ids, limit)).items)

    async def kind(self, owner: str, namespace: str, *ids: str) -> Kind:
        """What is kept of one kind below these ids."""
        return Kind(self, owner, namespace, ids, await self._scan(owner, namespace, ids))

    async def _scan(self, owner: str, namespace: str, ids: tuple[str, ...], limit: int | None = None) -> Page[Record]:
        prefix = steps.key(*ids) + "/" if ids else ""
        return await self._records.scan_records(owner, namespace, prefix, limit=limit or _SCAN_ITEMS)

    async def merge_session(self, owner: str, thread: str, metadata: dict[str, Any], tags: list[str] | None) -> None:
        """Add to what Chainlit says of a thread; None removes an entry. Raises ``Conflict`` where others are faster
        all the time."""
        for left in reversed(range(5)):
            record = await self._records.get_record(owner, SESSION, steps.key(thread))
            known = steps.load(record.value) if record else {}
            merged = {**known.get("metadata", {}), **metadata}
            wanted: dict[str, Any] = {
                "metadata": {name: value for name, value in merged.items() if value is not None},
                "tags": known.get("tags") if tags is None else tags,
            }
            if wanted == known or (record is None and not wanted["metadata"] and not wanted["tags"]):
                return
            try:
                await self._records.put_record(
                    owner, SESSION, steps.key(thread), steps.dump(wanted), expect=record.etag if record else None
                )
                return
            except Conflict:  # another tab was faster: add to what it wrote
                if not left:
                    raise

    async def clear_thread(self, owner: str, thread: str) -> None:
        """Delete everything that was kept beside a thread."""
        await self.delete(owner, SESSION, thread)
        while found := await self.scan(owner, ELEMENT, thread, limit=_TO_DELETE):
            keys = [record.key for record in found]
            for namespace in (CONTENT, ELEMENT):  # under the same keys: nobody reads the files to delete them
                await each(partial(self.delete_key, owner, namespace), keys)
        for namespace in OF_A_THREAD:
            # Of the contents those are left whose element was not stored any more.
            limit = _CONTENTS if namespace == CONTENT else _TO_DELETE
            while found := await self.scan(owner, namespace, thread, limit=limit):
                await each(partial(self.delete_key, owner, namespace), [record.key for record in found])

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
        if element.for_id:
            of_step = (element.thread_id, element.for_id, element.id)
            await self.put(owner, ELEMENT_OF, of_step, {"id": element.id})
        # One that changes stays where it is among the others.
        known = await self.get(owner, ELEMENT, *ids) if element.updatable else None
        # Chainlit's key leads to a file of the session, which will be gone.
        shown = {**element.to_dict(), "chainlitKey": None}
        size = None if content is None else len(content)
        at = time.time_ns() if known is None else known["at"]
        await self.put(owner, ELEMENT, ids, {"element": shown, "bytes": size, "at": at})

    async def elements(self, owner: str, thread: str, kept: Kind, shown: list[str]) -> list[ElementDict]:
        """Those of the elements ``kept`` in a thread that belong to the steps shown, in the order in which they came.

        Contents of up to 8 MiB in all are in their ``url``, of the last ones.
        """
        place = {id: number for number, id in enumerate(shown)}
        if kept.whole:
            found = [value for value in kept.values() if value["element"].get("forId") in place]
        else:
            index = await each(partial(self.scan, owner, ELEMENT_OF, thread), shown)
            ids = [steps.load(record.value)["id"] for records in index for record in records]
            found = list((await kept.of(ids)).values())
        found.sort(key=lambda value: (place.get(value["element"].get("forId"), 0), value["at"]))
        room = _INLINE_BYTES
        inline: list[dict[str, Any]] = []
        for value in reversed(found):
            if value["bytes"] is not None and value["bytes"] <= room:
                room -= value["bytes"]
                inline.append(value["element"])
        await each(partial(self._fill, owner, thread), inline)
        return [cast("ElementDict", value["element"]) for value in found]

    async def element(self, owner: str, thread: str, element_id: str) -> ElementDict | None:
        """One element with its content, or None."""
        value = await self.get(owner, ELEMENT, thread, element_id)
        if value is None:
            return None
        if value["bytes"] is not None:
            await self._fill(owner, thread, value["element"])
        return cast("ElementDict", value["element"])

    async def delete_element(self, owner: str, thread: str, element_id: str) -> None:
        """Delete an element with its content, if it is there."""
        value = await self.get(owner, ELEMENT, thread, element_id)
        for namespace in (CONTENT, ELEMENT):
            await self.delete(owner, namespace, thread, element_id)
        if value is not None and (step := value["element"].get("forId")):
            await self.delete(owner, ELEMENT_OF, thread, step, element_id)

    async def delete_elements_of(self, owner: str, thread: str, step: str) -> None:
        """Delete the elements of a step, what leads to each of them last: who is cut off finds it again.

        One that was sent again with another step is that step's.
        """
        while found := await self.scan(owner, ELEMENT_OF, thread, step):
            for record in found:
                element = steps.load(record.value)["id"]
                value = await self.get(owner, ELEMENT, thread, element)
                if value is None or value["element"].get("forId") == step:
                    await self.delete_element(owner, thread, element)
                await self.delete_key(owner, ELEMENT_OF, record.key)

    async def _fill(self, owner: str, thread: str, element: dict[str, Any]) -> None:
        content = None
        if not element.get("url"):
            content = await self._records.get_record(owner, CONTENT, steps.key(thread, element["id"]))
        if content is not None:
            mime = element.get("mime") or "application/octet-stream"
            element["url"] = f"data:{mime};base64,{b64encode(content.value).decode()}"


class Kind:
    """What is kept of one kind below some ids: the first 1,000 things by one call, others when they are asked for."""

    def __init__(
        self, records: SideRecords, owner: str, namespace: str, ids: tuple[str, ...], page: Page[Record]
    ) -> None:
        self._records = records
        self._where = (owner, namespace, *ids)
        self._ids = ids
        self._known = {record.key: record.value for record in page.items}
        self.whole = page.next_cursor is None

    def values(self) -> Iterator[dict[str, Any]]:
        """Those that the one call gave: all of them if it is ``whole``."""
        return map(steps.load, self._known.values())

    async def of(self, ids: Iterable[str]) -> dict[str, dict[str, Any]]:
        """Those that are there of these ids, by id."""
        wanted = {id: steps.key(*self._ids, id) for id in ids}
        found = {id: steps.load(self._known[key]) for id, key in wanted.items() if key in self._known}
        if not self.whole:
            others = [id for id in wanted if id not in found]
            values = await each(partial(self._records.get, *self._where), others)
            found |= {id: value for id, value in zip(others, values, strict=True) if value is not None}
        return found

    async def any_below(self, id: str) -> bool:
        """Whether there is anything below this id."""
        if self.whole:
            return steps.key(*self._ids, id) in self._parents
        return await self._records.any(*self._where, id)

    @cached_property
    def _parents(self) -> set[str]:
        return {key.rpartition("/")[0] for key in self._known}
