"""What the writer does while nobody waits for it: feeding the search index, and wiping what was deleted out of it."""

from __future__ import annotations

import time

import apsw

from daram.store.sqlite import index, passages
from daram.store.sqlite.rows import one

# So many documents wait for the index at most before a commit takes them along.
_PENDING = 256
# While there is always something to write, the index is wiped one step in so many seconds.
_WIPE_EVERY = 1.0


class Upkeep:
    """Keeps count of what is to be done, by this process's own writes; all but ``is_due`` in the writer's thread."""

    def __init__(self) -> None:
        self._unindexed = 0
        self._stale = False
        self._no_wipe_before = 0.0
        self._dead = False
        self._stale_passages = False

    def look(self, db: apsw.Connection) -> None:
        """Find what an earlier process left to do."""
        row = one(db, "upkeep")
        assert row is not None
        self._unindexed, self._stale = row[0], bool(row[1])
        row = one(db, "documents_upkeep")
        assert row is not None
        self._dead, self._stale_passages = bool(row[0]), bool(row[1])

    def added(self, count: int) -> None:
        """So many messages were written."""
        self._unindexed += count

    def removed(self) -> None:
        """Messages were deleted."""
        self._stale = True

    def unpublished(self) -> None:
        """Passages may have been given up."""
        self._dead = self._stale_passages = True

    def is_due(self, idle: bool) -> bool:
        """Whether ``run`` has something to do; with ``idle`` False only what should not wait for silence."""
        if idle:
            return self._unindexed > 0 or self._is_untidy
        return self._unindexed > _PENDING or (self._is_untidy and time.monotonic() >= self._no_wipe_before)

    @property
    def _is_untidy(self) -> bool:
        return self._stale or self._dead or self._stale_passages

    def run(self, db: apsw.Connection) -> None:
        """One step, in a transaction of its own that takes some tens of milliseconds at most."""
        if self._is_untidy and (not self._unindexed or time.monotonic() >= self._no_wipe_before):
            if self._stale:
                self._stale = index.wipe(db, index.MESSAGES)
            elif self._dead:
                self._dead = passages.sweep(db)
            else:
                self._stale_passages = index.wipe(db, index.PASSAGES)
            self._no_wipe_before = time.monotonic() + _WIPE_EVERY
        else:
            self.feed(db)

    def feed(self, db: apsw.Connection) -> None:
        """Take some documents into the index."""
        count, is_done = index.feed(db)
        self._unindexed = 0 if is_done else max(1, self._unindexed - count)
