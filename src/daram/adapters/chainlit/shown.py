"""The steps of a thread as the page shows them: messages, and the runs and tools around them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any, Final, cast

from daram.adapters.chainlit import records as side
from daram.adapters.chainlit import steps
from daram.model import Message

if TYPE_CHECKING:
    from chainlit.step import StepDict

_SIDE_STEPS: Final = 1000


async def shown_steps(
    records: side.SideRecords,
    owner: str,
    thread: str,
    messages: list[Message],
    kept: side.Kind,
    note: Callable[[Message], str],
) -> list[StepDict]:
    """The messages with what is kept beside them (``kept``: the steps of the thread), each behind its run."""
    beside = await kept.of(message.id for message in messages)
    around = _Around(thread, {message.id for message in messages})
    await around.read(records, owner, kept, [value.get("parentId") for value in reversed(beside.values())])
    found = around.found
    for message in messages:
        step = steps.from_message(thread, message, note(message), beside.get(message.id))
        parent = step.get("parentId")
        if parent and not around.add(parent):
            step["parentId"] = parent = None  # the page drops a step whose parent it does not have
        if parent is None and message.role == "assistant":
            run = steps.run_of(thread, message.id, step.get("createdAt"))
            step["parentId"] = run["id"]
            found.append(run)
        found.append(step)
    return found


async def give_opinions(thread: str, shown: list[StepDict], opinions: Iterable[side.Kind]) -> None:
    """Add to the steps what the user thinks of them."""
    for kind in opinions:
        given = await kind.of(step["id"] for step in shown)
        for step in shown:
            if (opinion := given.get(step["id"])) is not None:
                step["feedback"] = {
                    "forId": step["id"],
                    "id": steps.key(thread, step["id"]),
                    "value": opinion["value"],
                    "comment": opinion["comment"],
                }


class _Around:
    """Steps beside the messages, at most 1,000. ``found`` is in the order in which the page wants them."""

    def __init__(self, thread: str, messages: set[str]) -> None:
        self._thread = thread
        self._seen = messages  # a run may hang below the message that began it
        self._steps: dict[str, dict[str, Any]] = {}
        self._children: dict[str, list[str]] = {}
        self.found: list[StepDict] = []

    async def read(self, records: side.SideRecords, owner: str, kept: side.Kind, wanted: Iterable[str | None]) -> None:
        """Read these steps, those above them and those below them, one storey after the other."""
        below: dict[str, list[str]] = defaultdict(list)
        if kept.whole:
            for value in kept.values():
                if "id" in value and value.get("parentId"):
                    below[value["parentId"]].append(value["id"])
        asked = set(self._seen)
        storey = list(dict.fromkeys(id for id in wanted if id and id not in asked))
        while storey and (room := _SIDE_STEPS - len(self._steps)) > 0:
            asked.update(storey)
            found = await kept.of(storey[:room])
            # Without an id it is what is beside a message that is not shown.
            fresh = {id: value for id, value in found.items() if "id" in value}
            self._steps |= fresh
            if not kept.whole:
                children = await side.each(partial(records.scan, owner, side.CHILD, self._thread), list(fresh))
                for id, listed in zip(fresh, children, strict=True):
                    below[id] = [steps.load(child.value)["id"] for child in listed]
            self._children |= {id: below[id] for id in fresh}
            near = [value.get("parentId") for value in fresh.values()] + [child for id in fresh for child in below[id]]
            storey = list(dict.fromkeys(id for id in near if id and id not in asked))
        for children_of in self._children.values():
            children_of.sort(key=lambda id: (self._steps.get(id, {}).get("createdAt") or "", id))

    def add(self, step_id: str) -> bool:
        """Add a step, those above it and those below it; whether it is there."""
        if step_id in self._seen:
            return True
        step = self._steps.get(step_id)
        if step is None:
            return False
        self._seen.add(step_id)
        parent = step.get("parentId")
        if parent and not self.add(parent):
            step["parentId"] = None
        self.found.append(cast("StepDict", {"threadId": self._thread, "input": "", "output": "", **step}))
        for child in self._children[step_id]:
            self.add(child)
        return True
