"""The steps of a thread as the page shows them: messages, and the runs and tools around them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from functools import partial
from heapq import heappop, heappush
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
    *,
    all_messages: bool,
) -> list[StepDict]:
    """The messages with what is kept beside them (``kept``: the steps of the thread), in the order of time, each behind
    its run. ``all_messages``: there are none in front of these."""
    beside = await kept.of(message.id for message in messages)
    shown = [steps.from_message(thread, message, note(message), beside.get(message.id)) for message in messages]
    around = _Around(thread, messages)
    since = "" if all_messages or not shown else shown[0].get("createdAt") or ""
    await around.read(records, owner, kept, [value.get("parentId") for value in reversed(beside.values())], since)
    found = around.found
    for message, step in zip(messages, shown, strict=True):
        around.until(step.get("createdAt") or "")
        parent = step.get("parentId")
        if parent and not around.add(parent):
            step["parentId"] = parent = None  # the page drops a step whose parent it does not have
        if parent is None and message.role == "assistant":
            run = steps.run_of(thread, message.id, step.get("createdAt"))
            step["parentId"] = run["id"]
            found.append(run)
        found.append(step)
        around.opens(message.id)
    around.until(None)
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

    def __init__(self, thread: str, messages: list[Message]) -> None:
        self._thread = thread
        self._messages = messages
        self._seen = {message.id for message in messages}
        self._steps: dict[str, dict[str, Any]] = {}
        self._children: dict[str, list[str]] = defaultdict(list)
        self._waiting: list[tuple[str, str]] = []  # a heap, by time: what hangs below something that was added
        self.found: list[StepDict] = []

    async def read(
        self, records: side.SideRecords, owner: str, kept: side.Kind, above: list[str | None], since: str
    ) -> None:
        """Read the steps above the messages and those below them, one storey after the other; also those since then
        that hang below nothing, unless one call did not give all the steps."""
        near = above
        if kept.whole:
            for value in kept.values():
                if "id" not in value:
                    continue  # what is beside a message
                if parent := value.get("parentId"):
                    self._children[parent].append(value["id"])
                elif (value.get("createdAt") or "") >= since:
                    near.append(value["id"])
                    self._wait(value)
        asked = set(self._seen)
        fresh = [message.id for message in self._messages if kept.whole or message.role == "user"]  # which begin runs
        while True:
            if not kept.whole:
                children = await side.each(partial(records.scan, owner, side.CHILD, self._thread), fresh)
                for id, listed in zip(fresh, children, strict=True):
                    self._children[id] = [steps.load(child.value)["id"] for child in listed]
            near += [child for id in fresh for child in self._children[id]]
            storey = list(dict.fromkeys(id for id in near if id and id not in asked))[: _SIDE_STEPS - len(self._steps)]
            if not storey:
                return
            asked.update(storey)
            # Without an id it is what is beside a message that is not shown.
            found = {id: value for id, value in (await kept.of(storey)).items() if "id" in value}
            self._steps |= found
            fresh = list(found)
            near = [value.get("parentId") for value in found.values()]

    def add(self, step_id: str) -> bool:
        """Add a step and those above it; whether it is there."""
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
        self.opens(step_id)
        return True

    def opens(self, id: str) -> None:
        """What hangs below this may come, each in its time."""
        for child in self._children[id]:
            if child in self._steps:
                self._wait(self._steps[child])

    def until(self, moment: str | None) -> None:
        """Add what came before then (None: what is left)."""
        while self._waiting and (moment is None or self._waiting[0][0] < moment):
            self.add(heappop(self._waiting)[1])

    def _wait(self, step: dict[str, Any]) -> None:
        heappush(self._waiting, (step.get("createdAt") or "", step["id"]))
