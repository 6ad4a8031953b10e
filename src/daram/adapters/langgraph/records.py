"""What is known of LangGraph threads: as it is stored, and what this process remembers of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import msgspec

from daram.adapters.langgraph import layout
from daram.adapters.langgraph import messages as lists
from daram.adapters.langgraph.recent import Recent
from daram.model import UNSET, Unset

_HEADS: Final = 1024

Typed = tuple[str, bytes]


class Place(msgspec.Struct, frozen=True, array_like=True):
    """Where a list of messages is: behind which segment, whether there is a delta, how many segments count.

    ``skip``: how many messages of the first of these (or else of the tail) do not; ``front``: the segment in front of
    them all ("": none).
    """

    block: str
    delta: bool
    segments: int
    skip: int
    front: str


class CheckpointRecord(msgspec.Struct, frozen=True, array_like=True):
    """A checkpoint as it is stored. Each channel is in one of ``inline``, ``blobs`` and ``messages``.

    ``hidden``: pruned, but the channels of a later one are built on it.
    """

    id: str
    parent: str | None
    body: Typed
    metadata: Typed
    inline: dict[str, Typed]
    blobs: list[str]
    messages: dict[str, Place]
    hidden: bool = False


class WriteRecord(msgspec.Struct, frozen=True, array_like=True):
    """The writes of one task: (index, channel, type, bytes, path of the task) of each."""

    task: str
    writes: list[tuple[int, str, str, bytes, str]]


class ThreadRecord(msgspec.Struct, frozen=True, array_like=True):
    """That there is a thread, and a namespace in it."""

    thread: str
    ns: str


class Space(NamedTuple):
    """A namespace of checkpoints of a thread of an owner."""

    owner: str
    thread: str
    ns: str

    @property
    def key(self) -> str:
        """What the keys of all its records begin with."""
        return layout.space_key(self.thread, self.ns)

    def config(self, id: str, *, named: bool) -> dict[str, Any]:
        """The config of one of its checkpoints; ``named``: with the owner, whom the next call could not know."""
        found = {"thread_id": self.thread, "checkpoint_ns": self.ns, "checkpoint_id": id}
        return {"configurable": {**found, "owner": self.owner} if named else found}


class Head(NamedTuple):
    """A checkpoint that is stored, and the versions of its channels: what the next one is compared with."""

    record: CheckpointRecord
    versions: Mapping[str, Any]


class Origin(NamedTuple):
    """Where a chain of checkpoints begins, as far back as a process has put it.

    ``root``: with the thread, by the mark of a deletion that the run knew of (None: there was none).
    """

    id: str
    root: bool
    mark: bytes | Unset | None


class Memo:
    """Of this process: the checkpoints seen last, the spaces and runs known to be registered, and the messages."""

    def __init__(self) -> None:
        self.messages = lists.Cache()
        self._heads: Recent[Head] = Recent(_HEADS)
        self._known: Recent[bool] = Recent(16 * _HEADS)
        self._origins: Recent[Origin] = Recent(16 * _HEADS)
        self._begun: Recent[tuple[bytes | None]] = Recent(_HEADS)

    def head(self, space: Space, id: str) -> Head | None:
        """A checkpoint, if it was seen."""
        return self._heads.get((*space, id))

    def keep_head(self, space: Space, head: Head) -> None:
        """Keep a checkpoint."""
        self._heads.keep((*space, head.record.id), head)

    def registered(self, space: Space, run: str = "") -> None:
        """Remember that this process has registered the space, or a run in it: a checkpoint does not say so."""
        self._known.keep((*space, run), True)

    def knows(self, space: Space, run: str = "") -> bool:
        """Whether the space, or the run in it, is registered for certain."""
        return self._known.get((*space, run)) is not None

    def begins(self, space: Space, mark: bytes | None) -> None:
        """Remember by which mark of a deletion a run has found no thread."""
        self._begun.keep(space, (mark,))

    def begun(self, space: Space) -> bytes | Unset | None:
        """The mark by which the last run began here, if it is known."""
        found = self._begun.get(space)
        return UNSET if found is None else found[0]

    def follows(self, space: Space, id: str, parent: str | None) -> None:
        """Remember behind what this process puts a checkpoint: where its chain begins, however long it is."""
        found = Origin(id, True, self.begun(space)) if parent is None else self.origin(space, parent)
        self._origins.keep((*space, id), found)

    def origin(self, space: Space, id: str) -> Origin:
        """Where the chain of a checkpoint begins, as far as this process has put it: with the checkpoint, if not."""
        return self._origins.get((*space, id)) or Origin(id, False, UNSET)

    def is_gone(self, space: Space) -> None:
        """Remember that nothing is in a space: another process may have deleted its thread.

        What followed what is kept: a run may be on it still. And of a thread whose subgraph begins, everything else.
        """
        if space.ns:
            self._known.drop((*space, ""))
        else:
            self.forget(space.owner, space.thread)

    def forget(self, owner: str, thread: str) -> None:
        """Let go of everything of a thread, but for what followed what: a run may be on it still."""
        self._heads.forget(owner, thread)
        self._known.forget(owner, thread)
        self.messages.forget(owner, layout.thread_key(thread))
