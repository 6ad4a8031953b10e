"""The order of Chainlit's writes: it begins each by a task of its own, which nobody waits for and nobody hears of."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from contextlib import suppress
from contextvars import ContextVar, Token
from typing import Any, Final

from daram.adapters.appending import outcome
from daram.errors import DaramError, InvalidInput, OutcomeUnknown

log = logging.getLogger(__name__)

_AGAIN: Final = (0.1, 0.3, 1.0, 3.0, 5.0)  # seconds before another try
_TRY: Final = 10.0  # seconds that one try may take: a call that hangs must not hold up its line for ever
_CLOSING: Final = 10.0  # seconds that closing waits for what was begun
_ALL: Final = ""

Thread = tuple[str, str]

_deleting: ContextVar[Thread | None] = ContextVar("daram_chainlit_deleting", default=None)


class Lines:
    """First come, first served: lines by thread (owner, id) and name, which do not wait for one another.

    A place is taken at once, before anything is waited for: tasks begin in the order in which they were made.
    """

    def __init__(self) -> None:
        self._ends: dict[Thread, dict[str, asyncio.Future[None]]] = {}
        self._deleted: dict[Thread, asyncio.Event] = {}

    def enter(self, thread: Thread, *names: str) -> Place:
        """A place at the end of these lines. Without names, to delete the thread: behind all that there are, which do
        not try again, and ahead of all that come. Raises ``InvalidInput`` where that is being done by the caller."""
        if _deleting.get() == thread:
            raise InvalidInput("deleted", f"must not write to thread {thread[1]!r}, whose deletion waits for it")
        ends = self._ends.setdefault(thread, {})
        if names:
            before = [ends[name] for name in (*names, _ALL) if name in ends]
        else:
            before = list(ends.values())
            ends.clear()
            if deleted := self._deleted.pop(thread, None):
                deleted.set()
        place = Place(before, self._deleted.setdefault(thread, asyncio.Event()), deletes=None if names else thread)
        mine = names or (_ALL,)
        ends.update(dict.fromkeys(mine, place.left))
        place.left.add_done_callback(lambda left: self._forget(thread, mine, left))
        return place

    def _forget(self, thread: Thread, names: tuple[str, ...], left: asyncio.Future[None]) -> None:
        ends = self._ends.get(thread, {})
        for name in names:
            if ends.get(name) is left:
                del ends[name]
        if not ends:
            self._ends.pop(thread, None)
            self._deleted.pop(thread, None)

    async def empty(self) -> None:
        """Wait until nobody is in line, for 10 s at most."""
        loop = asyncio.get_running_loop()
        until = loop.time() + _CLOSING
        await asyncio.sleep(0)  # tasks that were made and have not begun
        while (waiting := [end for ends in self._ends.values() for end in ends.values()]) and loop.time() < until:
            await asyncio.wait(waiting, timeout=until - loop.time())
            await asyncio.sleep(0)


class Place:
    """A place in line: ``async with`` waits for its turn, and lets the next ones on.

    ``deleted``: somebody behind it is about to delete the thread. ``deletes``: the thread that is deleted from here.
    """

    def __init__(self, before: list[asyncio.Future[None]], deleted: asyncio.Event, *, deletes: Thread | None) -> None:
        self._before = before
        self._deletes = deletes
        self._token: Token[Thread | None] | None = None
        self.deleted = deleted
        self.left: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def __aenter__(self) -> None:
        try:
            if self._before:
                await asyncio.wait(self._before)
        except asyncio.CancelledError:
            self.leave()
            raise
        if self._deletes is not None:
            self._token = _deleting.set(self._deletes)

    async def __aexit__(self, *error: object) -> None:
        if self._token is not None:
            _deleting.reset(self._token)
        self.leave()

    def leave(self) -> None:
        """Let the next ones on, once those before have left too: one who gives up may do so before his turn."""
        if self.left.done():
            return
        for one in self._before:
            if not one.done():
                one.add_done_callback(lambda _: self.leave())
                return
        self.left.set_result(None)


async def persevere(
    what: str, work: Callable[[], Coroutine[Any, Any, None]], deleted: asyncio.Event, *, once: bool = False
) -> None:
    """Do what may be done twice, again where that may help, for 10 s or so; then say what was lost, and raise.

    ``deleted``: once it is set there is no other try: what was to be stored goes with its thread.
    ``once``: somebody waits who can try again themselves.
    Where it is cancelled, what was begun is finished first: the next in line must find it done.
    """
    stored = False

    async def attempt() -> None:
        nonlocal stored
        await _in_time(work)
        stored = True

    pauses = iter(() if once else _AGAIN)
    try:
        while not deleted.is_set():
            try:
                await outcome(attempt())
                return
            except DaramError as error:
                pause = next(pauses, None)
                if pause is None or not error.retryable:
                    raise
                log.warning("%s is to be stored again in %s s: %s", what, pause, error)
            with suppress(TimeoutError):
                await asyncio.wait_for(deleted.wait(), pause)
    except BaseException as error:
        if not stored:  # a caller who is cancelled while it is stored loses nothing
            # Nobody else hears of a defect: Chainlit does not look at what its tasks raise.
            log.error(
                "%s was not stored: %s",
                what,
                str(error) or type(error).__name__,
                exc_info=not isinstance(error, DaramError),
            )
        raise
    log.info("%s was not stored: the thread is being deleted", what)


async def _in_time(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    limit = asyncio.timeout(_TRY)
    try:
        async with limit:
            await work()
    except TimeoutError as error:
        if not limit.expired():
            raise
        raise OutcomeUnknown(f"the store did not answer for {_TRY:g} s") from error
