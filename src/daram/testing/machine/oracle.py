"""What a store should hold, told a second time and as naively as possible: lists of (id, parent, text).

It shares no code with any engine, so that the in-memory engine, with which the others are compared, is itself checked.
Messages are user messages whose content is their text; ``predict…`` says how a call must end: ``ok``, ``same`` (nothing
changed), or the name of the error.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

Key = tuple[str, str]
Batch = Sequence[tuple[str, str]]
"""Ids and texts."""


@dataclass(frozen=True)
class Line:
    """One message. ``question``: of an answer that a turn made."""

    id: str
    parent: str | None
    text: str
    role: str = "user"
    status: str = "complete"
    question: str | None = None


@dataclass
class Running:
    """An answer row. ``holder`` numbers the call that was given its token."""

    id: str
    question: str
    anew: bool
    holder: int
    late: bool
    text: str = ""
    cancel: bool = False


@dataclass
class Story:
    """One conversation. ``used``: the leaves, the one last used last; ``unused``: those that never were, by age."""

    lines: list[Line] = field(default_factory=list)
    deleted: set[str] = field(default_factory=set)
    running: list[Running] = field(default_factory=list)
    used: list[str] = field(default_factory=list)
    unused: list[str] = field(default_factory=list)
    head: str | None = None
    version: int = 0
    title: str | None = None

    def line(self, id: str | None) -> Line | None:
        return next((line for line in self.lines if line.id == id), None)

    def path(self, leaf: str | None) -> list[Line]:
        """From the first message to ``leaf``, the deleted included."""
        found: list[Line] = []
        while (line := self.line(leaf)) is not None:
            found.insert(0, line)
            leaf = line.parent
        return found

    def above(self, id: str, leaf: str | None) -> bool:
        return id in [line.id for line in self.path(leaf)]

    def visible(self, leaf: str | None) -> list[Line]:
        return [line for line in self.path(leaf) if line.id not in self.deleted]

    def siblings(self, id: str) -> list[str]:
        line = self.line(id)
        assert line is not None
        return [other.id for other in self.lines if other.parent == line.parent and other.id not in self.deleted]

    def has(self, id: str) -> bool:
        return self.line(id) is not None and id not in self.deleted

    def end_of(self, id: str) -> str:
        """The leaf last used at or under ``id``."""
        return next(leaf for leaf in reversed(self.unused + self.used) if self.above(id, leaf))

    def add(self, lines: Sequence[Line], parent: str | None, *, head: bool) -> None:
        self.lines += lines
        leaf = lines[-1].id
        if parent in self.used:
            self.used[self.used.index(parent)] = leaf
        else:
            self.unused = [other for other in self.unused if other != parent] + [leaf]
        if head:
            self.use(leaf)
        self.version += 1

    def use(self, leaf: str) -> None:
        self.unused = [other for other in self.unused if other != leaf]
        self.used = [other for other in self.used if other != leaf] + [leaf]
        self.head = leaf

    def chain(self, batch: Batch, parent: str | None) -> list[Line]:
        found = []
        for id, text in batch:
            found.append(Line(id, parent, text))
            parent = id
        return found

    # --- how calls must end ---

    def predict_batch(self, batch: Batch, parent: str | None, expected: bool) -> str:
        """Of an append to this conversation. ``parent``: None, "" or an id; ``expected``: whether ``expect`` is met."""
        if any(id in self.deleted for id, _ in batch):
            return "Gone"
        taken = [line.id for line in self.lines] + [running.id for running in self.running]
        if any(id in taken for id, _ in batch):
            return "same" if self._is_repeated(batch, parent) else "Conflict"
        return self.predict_place(parent, expected)

    def _is_repeated(self, batch: Batch, parent: str | None) -> bool:
        places = [i for i, line in enumerate(self.lines) if line.id == batch[0][0]]
        if not places:
            return False
        before = self.lines[places[0]].parent
        if parent is not None and parent != (before or ""):
            return False
        return self.lines[places[0] : places[0] + len(batch)] == self.chain(batch, before)

    def predict_place(self, parent: str | None, expected: bool) -> str:
        if not expected:
            return "Conflict"
        if parent and self.line(parent) is None:
            return "NotFound"
        return "Gone" if parent and parent in self.deleted else "ok"

    def place(self, parent: str | None) -> str | None:
        return self.head if parent is None else parent or None

    def blocker(self, place: str | None) -> Running | None:
        above = [line.id for line in self.path(place)]
        return next((running for running in self.running if running.question in above), None)

    def answer_to(self, question: str) -> Line | None:
        for line in reversed(self.lines):
            direct = line.role == "assistant" and line.question is None and line.parent == question
            ended = line.status in ("complete", "cancelled") and line.id not in self.deleted
            if ended and (line.question == question or direct):
                return line
        return None

    # --- answers ---

    def close(self, running: Running, text: str, status: str) -> Line:
        """The running answer becomes a message."""
        in_use = self.above(running.question, self.head)
        end = self.head if in_use else self.end_of(running.question)
        parent = running.question if running.anew else end
        self.running.remove(running)
        line = Line(running.id, parent, text, "assistant", status, running.question)
        self.add([line], parent, head=in_use)
        return line

    def close_late(self) -> list[str]:
        late = [running for running in self.running if running.late]
        for running in late:
            self.close(running, running.text, "incomplete")
        return [running.id for running in late]

    def delete(self, id: str) -> None:
        self.deleted.add(id)
        self.lines = [replace(line, text="") if line.id == id else line for line in self.lines]
        self.version += 1


class Oracle:
    """All conversations of all owners."""

    def __init__(self) -> None:
        self.stories: dict[Key, Story] = {}
        self.recent: list[Key] = []  # the one with the newest message last
        self.tombstones: set[Key] = set()
        self.expired: set[Key] = set()

    def make(self, key: Key) -> Story:
        self.tombstones.discard(key)
        self.expired.discard(key)
        self.stories[key] = Story()
        self.touch(key)
        return self.stories[key]

    def touch(self, key: Key) -> None:
        self.recent = [other for other in self.recent if other != key] + [key]

    def bury(self, key: Key) -> None:
        self.stories.pop(key, None)
        self.expired.discard(key)
        self.tombstones.add(key)

    def expire(self, key: Key) -> None:
        del self.stories[key]
        self.expired.add(key)

    def listed(self, owner: str) -> list[str]:
        return [id for who, id in reversed(self.recent) if who == owner and (who, id) in self.stories]

    def predict_append(self, key: Key, batch: Batch, parent: str | None, expected: bool, create: bool) -> str:
        story = self.stories.get(key)
        if story is None:
            if key in self.tombstones:
                return "Gone"
            return Story().predict_batch(batch, parent, expected) if create else "NotFound"
        return story.predict_batch(batch, parent, expected)

    def append(self, key: Key, batch: Batch, parent: str | None) -> Story:
        story = self.stories.get(key) or self.make(key)
        place = story.place(parent)
        story.add(story.chain(batch, place), place, head=True)
        self.touch(key)
        return story

    def begin(
        self, key: Key, batch: Batch, parent: str | None, expected: int | None, create: bool, answer_id: str
    ) -> tuple[str, str | None]:
        """Begin a turn: how it must end (a state or an error), and its question. ``again``: the caller's own row.

        ``expected``: the version that must be there. The answer row itself is opened by ``open_row``.
        """
        if key not in self.stories and not batch:
            return ("Gone" if key in self.tombstones else "NotFound"), None
        while True:
            story = self.stories.get(key)
            met = expected is None or expected == (story.version if story else 0)
            outcome = self.predict_append(key, batch, parent, met, create) if batch else None
            if outcome in ("Gone", "Conflict", "NotFound"):
                return outcome, None
            story = story or Story()
            if outcome == "ok":
                place, question = story.place(parent), None
            elif outcome == "same":
                place = question = batch[-1][0]
                if row := next((r for r in story.running if r.question == question and not r.late), None):
                    return ("again" if row.id == answer_id else "running"), question
                if story.answer_to(question):
                    return "finished", question
            else:
                if (outcome := story.predict_place(parent, met)) != "ok":
                    return outcome, None
                place = question = parent or story.head
                if question is None:
                    return "NotFound", None
                if question in story.deleted:
                    return "Gone", None
                if any((r.id, r.question, r.late) == (answer_id, question, False) for r in story.running):
                    return "again", question
            blocker = story.blocker(place)
            if blocker is None:
                break
            if not blocker.late:
                return "ConversationBusy", None
            story.close_late()
            self.touch(key)
        if answer_id in story.deleted:
            return "Gone", None
        if story.line(answer_id) or any(r.id == answer_id for r in story.running):
            return "Conflict", None
        if question is None:
            self.append(key, batch, parent)
            question = batch[-1][0]
        return "started", question
