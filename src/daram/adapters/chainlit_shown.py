"""The steps of a thread as the page shows them: messages, and the runs and tools around them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final, cast

from daram.adapters import chainlit_records as side
from daram.adapters import chainlit_steps as steps
from daram.model import Message

if TYPE_CHECKING:
    from chainlit.step import StepDict

_SIDE_STEPS: Final = 1000


async def shown_steps(
    records: side.SideRecords, owner: str, thread: str, messages: list[Message], note: Callable[[Message], str]
) -> list[StepDict]:
    """The messages with what is kept beside them, each behind the run that it belongs to, and the user's opinions."""
    around = _Around(records, owner, thread, {message.id for message in messages})
    found = around.found
    has_steps = await records.any(owner, side.STEP, thread)
    for message in messages:
        beside = await records.get(owner, side.STEP, thread, message.id) if has_steps else None
        step = steps.from_message(thread, message, note(message), beside)
        parent = step.get("parentId")
        if parent and not await around.add(parent):
            step["parentId"] = parent = None  # the page drops a step whose parent it does not have
        if parent is None and message.role == "assistant":
            run = steps.run_of(thread, message.id, step.get("createdAt"))
            step["parentId"] = run["id"]
            found.append(run)
        found.append(step)
    opinions = {record.key: record.value async for record in records.scan(owner, side.FEEDBACK, thread)}
    for step in found:
        key = steps.key(thread, step["id"])
        if key in opinions:
            given = steps.load(opinions[key])
            step["feedback"] = {
                "forId": step["id"], "id": key, "value": given["value"], "comment": given["comment"]
            }  # fmt: skip
    return found


class _Around:
    """Steps beside the messages, at most 1,000. ``found`` is in the order in which the page wants them."""

    def __init__(self, records: side.SideRecords, owner: str, thread: str, messages: set[str]) -> None:
        self._records = records
        self._owner = owner
        self._thread = thread
        self._seen = messages  # a run may hang below the message that began it
        self._room = _SIDE_STEPS
        self.found: list[StepDict] = []

    async def add(self, step_id: str) -> bool:
        """Add a step, those above it and those below it; whether it is there."""
        if step_id in self._seen:
            return True
        step = await self._records.get(self._owner, side.STEP, self._thread, step_id)
        if step is None or "id" not in step or not self._room:  # without: what is beside a message that is not shown
            return False
        self._seen.add(step_id)
        self._room -= 1
        parent = step.get("parentId")
        if parent and not await self.add(parent):
            step["parentId"] = None
        self.found.append(cast("StepDict", {"threadId": self._thread, "input": "", "output": "", **step}))
        async for child in self._records.scan(self._owner, side.CHILD, self._thread, step_id):
            await self.add(steps.load(child.value)["id"])
        return True
