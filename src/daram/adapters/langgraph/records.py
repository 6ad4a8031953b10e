"""What is known of LangGraph threads: as it is stored, and what this process remembers of it."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import msgspec

from daram.adapters.langgraph import layout
from daram.adapters.langgraph import messages as lists
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
        self._lock = threading.Lock()
        self._heads: OrderedDict[tuple[Space, str], Head] = OrderedDict()
        self._known: OrderedDict[tuple[Space, str], None] = OrderedDict()
        self._origins: OrderedDict[tuple[Space, str], Origin] = OrderedDict()
        self._begun: OrderedDict[Space, bytes | None] = OrderedDict()

    def head(self, space: Space, id: str) -> Head | None:
        """A checkpoint, if it was seen."""
        with self._lock:
            return self._heads.get((space, id))

    def keep_head(self, space: Space, head: Head) -> None:
        """Keep a checkpoint."""
        with self._lock:
            self._heads[space, head.record.id] = head
            while len(self._heads) > _HEADS:
                self._heads.popitem(last=False)

    def registered(self, space: Space, run: str = "") -> None:
        """Remember that this process has registered the space, or a run in it: a checkpoint does not say so."""
        with self._lock:
            self._known[space, run] = None
            while len(self._known) > 16 * _HEADS:
                self._known.popitem(last=False)

    def knows(self, space: Space, run: str = "") -> bool:
        """Whether the space, or the run in it, is registered for certain."""
        with self._lock:
            return (space, run) in self._known

    def begins(self, space: Space, mark: bytes | None) -> None:
        """Remember by which mark of a deletion a run has found no thread."""
        with self._lock:
            self._begun[space] = mark
            while len(self._begun) > _HEADS:
                self._begun.popitem(last=False)

    def begun(self, space: Space) -> bytes | Unset | None:
        """The mark by which the last run began here, if it is known."""
        with self._lock:
            return self._begun.get(space, UNSET)

    def follows(self, space: Space, id: str, parent: str | None) -> None:
        """Remember behind what this process puts a checkpoint: where its chain begins, however long it is."""
        with self._lock:
            if parent is None:
                found = Origin(id, True, self._begun.get(space, UNSET))
            else:
                found = self._origins.get((space, parent), Origin(parent, False, UNSET))
            self._origins[space, id] = found
            while len(self._origins) > 16 * _HEADS:
                self._origins.popitem(last=False)

    def origin(self, space: Space, id: str) -> Origin:
        """Where the chain of a checkpoint begins, as far as this process has put it: with the checkpoint, if not."""
        with self._lock:
            return self._origins.get((space, id), Origin(id, False, UNSET))

    def forget(self, owner: str, thread: str) -> None:
        """Let go of everything of a thread, but for what followed what: a run may be on it still."""
        with self._lock:
            for at in [at for at in self._heads if at[0][:2] == (owner, thread)]:
                del self._heads[at]
            for known in [known for known in self._known if known[0][:2] == (owner, thread)]:
                del self._known[known]
        self.messages.forget(owner, layout.thread_key(thread))
