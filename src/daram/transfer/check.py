"""Do the conversations of a store keep what is promised of them? Any engine, through its own reads."""

from __future__ import annotations

from daram.errors import NotFound
from daram.memory import Memory
from daram.model import Conversation, Problem
from daram.store.base import SupportsCheck, SupportsTransfer
from daram.store.wrapper import engine_of
from daram.transfer.bring import Changed, InStore
from daram.transfer.copy import Progress, Report, scanned


async def check(
    store: Memory, *, repair: bool = False, progress: Progress = lambda _: None
) -> tuple[Report, list[Problem]]:
    """Look through the engine's own tables first (and ``repair`` them), then through every conversation."""
    report = Report()
    problems: list[Problem] = []
    engine = engine_of(store)
    if isinstance(engine, SupportsCheck):
        problems += await engine.check(repair=repair)
    if isinstance(engine, SupportsTransfer):
        async for page in scanned(store):
            for found in page:
                problems += await _conversation(store, found)
                report.conversations += 1
                report.messages += found.last_seq
                progress(report)
    return report, problems


async def _conversation(store: Memory, found: Conversation) -> list[Problem]:
    where = f"conversation {found.id!r} of {found.owner!r}"
    for _ in range(3):
        try:
            source = await InStore.open(store, found.owner, found.id)
            wrong = await _read(source)
            if wrong:
                await source.check()  # what is written to meanwhile may look wrong
        except NotFound:
            return []
        except Changed:
            continue
        return [Problem(where=where, what=what) for what in wrong]
    return []


async def _read(source: InStore) -> list[str]:
    value, wrong = source.conversation, []
    ends: set[int] = set()
    seq = 0
    head: str | None = None
    try:
        async for chunk in source.entries():
            for entry in chunk:
                seq += 1
                if entry.message.seq != seq:
                    wrong.append(f"message {seq} is missing: {entry.message.seq} follows {seq - 1}")
                    seq = entry.message.seq
                if not 0 <= entry.parent < seq:
                    wrong.append(f"message {seq} follows {entry.parent}, which is not before it")
                if (entry.message.parent is None) != (entry.parent == 0):
                    wrong.append(f"message {seq} follows {entry.parent}, which is not there")
                if entry.question is not None and not 0 < entry.question < seq:
                    wrong.append(f"message {seq} answers {entry.question}, which is not before it")
                ends.discard(entry.parent)
                ends.add(seq)
                if source.leaves and seq == source.leaves[0]:
                    head = entry.message.id
    except Changed:
        wrong.append(f"the log ends at {seq}, but last_seq is {value.last_seq}")
    if ends != set(source.leaves) or len(ends) != len(source.leaves):
        wrong.append(
            f"its branches end at {sorted(ends)[:10]}, but {sorted(source.leaves)[:10]} are kept as their ends"
        )
    if value.head != head:
        wrong.append(f"its head is {value.head!r}, but the branch last used ends at {head!r}")
    if value.version < len(ends):
        wrong.append(f"its version is {value.version}, less than the {len(ends)} changes that its branches took")
    return wrong
