"""The pipeline of a turn: wait until the branch is free, store the question with an answer row, make the answer."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from typing import Any, Final, TypeVar

from daram import ids
from daram.chat.events import Event
from daram.chat.generation import Generation, Setup
from daram.chat.lanes import Lanes, LaneTimeoutError
from daram.chat.recover import Closing, end_dead
from daram.chat.running import Follower, Running, State
from daram.errors import ChatbotClosed, ConversationBusy, OutcomeUnknown
from daram.model import Answer, Message, Turn
from daram.store.base import Store

log = logging.getLogger(__name__)

_T = TypeVar("_T")

# How often a turn asks whether the answer that another process makes has ended, in seconds.
_FIRST_POLL: Final = 0.05
_SLOWEST_POLL: Final = 1.0
# How often a begin whose outcome is unknown is repeated.
_REPEATS: Final = 5
# How many events with words all answers of a process together tell in a second, at most and about: a core tells no more
# beside its other work. Where many answers run, words that come shortly after one another are told as one event: of 200
# answers each tells every 50 ms, of 2,000 every 500 ms; those of a few tell every word as it comes.
_EVENTS: Final = 4_000
_FEW: Final = 20
# After the drain: how long answers may take to be stored, and then to let go, in seconds.
_LAST_WRITE: Final = 5.0
_LAST_WAIT: Final = 10.0


class Turns:
    """The turns of one chatbot on one event loop. ``began`` and ``ended`` are told of every answer made here."""

    def __init__(self, setup: Setup, *, began: Callable[[str, str], None], ended: Callable[[Generation], None]) -> None:
        self.generations: dict[str, Generation] = {}
        self._setup = setup
        self._memory: Store = setup.memory
        self._began = began
        self._ended = ended
        self._lanes = Lanes()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._closing = asyncio.Event()
        self._clock = asyncio.get_running_loop().time
        self.follower = Follower(setup.memory, setup.log, self._recover)

    async def take(
        self,
        owner: str,
        conversation: str,
        question: Message,
        *,
        new: bool,
        parent: str | None,
        create: bool,
        wait: float,
        before: Sequence[Message] = (),
        answer_id: str | None = None,
        setup: Setup | None = None,
    ) -> Running:
        """Begin a turn, or join the one that is repeated. ``new``: the question is to be stored, behind the messages
        ``before`` it; else it is stored and to be answered anew. ``setup``: what is chosen for this turn alone.
        """
        setup = setup or self._setup
        if new and parent is None and (known := self._answering(owner, conversation, question)):
            return self._handle(known, "running")
        deadline = self._clock() + wait
        answer_id = answer_id or ids.message_id()  # before the first try: a repeated one must be known for what it is
        pause = _FIRST_POLL
        try:
            with self._lanes.queue((owner, conversation, parent)) as place:
                await setup.prompter.check(question)
                await place.first(deadline)
                while True:
                    self._refuse_when_closing()
                    try:
                        batch = [*before, question] if new else []
                        begin = self._begin(setup, owner, conversation, question, batch, answer_id, parent, create)
                        # A caller who leaves now must not leave an answer row behind that nobody fills.
                        return await self._protect(self._spawn(begin))
                    except ConversationBusy as busy:
                        if self._clock() >= deadline:
                            raise
                        await self._wait_for(busy.answer_id, pause * random.uniform(0.5, 1.5), deadline)  # noqa: S311
                        pause = min(pause * 2, _SLOWEST_POLL)
        except LaneTimeoutError:
            self._refuse_when_closing()
            running = next((g.id for g in self.generations.values() if g.belongs(owner, conversation)), "")
            raise ConversationBusy(running) from None

    def find(self, owner: str, conversation: str, answer_id: str | None = None) -> list[Generation]:
        """The answers that this process makes in a conversation, or the one with that id."""
        return [
            generation
            for generation in self.generations.values()
            if generation.belongs(owner, conversation) and answer_id in (None, generation.id)
        ]

    async def drain(self, seconds: float) -> None:
        """Let nobody begin; wait for what is running; then end it, and wait until all tasks are gone."""
        self._closing.set()
        deadline = self._clock() + seconds
        while (busy := self._busy()) and (left := deadline - self._clock()) > 0:
            await asyncio.wait(busy, timeout=left, return_when=asyncio.FIRST_COMPLETED)
        for generation in self.generations.values():
            generation.stop("closing", give_up=self._clock() + _LAST_WRITE)
        if busy := self._busy():
            await asyncio.wait(busy, timeout=_LAST_WAIT)
        for generation in self.generations.values():
            generation.stop("closing", give_up=self._clock() + _LAST_WRITE)
        for task in (left_over := self._busy()):
            task.cancel()
        await asyncio.gather(*left_over, return_exceptions=True)

    # --- one turn ---

    async def _begin(
        self,
        setup: Setup,
        owner: str,
        conversation: str,
        question: Message,
        batch: Sequence[Message],
        answer_id: str,
        parent: str | None,
        create: bool,
    ) -> Running:
        called = self._clock()
        closing = Closing(setup.log)
        turn = await self._begin_turn(setup, owner, conversation, batch, answer_id, parent, create, closing)
        if closing.answers:
            await end_dead(closing, self._memory, self._setup.log, self.generations)
        if batch:
            question = turn.appended.messages[-1]
        if turn.message is not None:
            return self._elsewhere(owner, conversation, turn.message.id, question, "finished")
        assert turn.answer is not None
        if turn.state == "running":
            if (known := self.generations.get(turn.answer.id)) is not None:
                return self._handle(known, "running")
            return self._elsewhere(owner, conversation, turn.answer.id, question, "running")
        generation = self._generation(setup, turn.answer, question, turn.appended.tail, called)
        self._began(owner, conversation)
        await generation.announce()
        self._spawn(generation.run())
        return self._handle(generation, "started")

    async def _begin_turn(
        self,
        setup: Setup,
        owner: str,
        conversation: str,
        messages: Sequence[Message],
        answer_id: str,
        parent: str | None,
        create: bool,
        closing: Closing,
    ) -> Turn:
        for attempt in range(_REPEATS):
            try:
                return await self._memory.begin_turn(
                    owner,
                    conversation,
                    messages,
                    answer_id=answer_id,
                    parent=parent,
                    create=create,
                    window=setup.window,
                    model=setup.model.name,
                    lease=setup.lease,
                    partial=closing.partial,
                )
            except OutcomeUnknown as error:
                if attempt == _REPEATS - 1:
                    raise
                log.warning("whether the turn began is unknown, asking again: %s", error)
                await asyncio.sleep(_FIRST_POLL * 2**attempt)
        raise AssertionError("unreachable")

    def _generation(
        self, setup: Setup, answer: Answer, question: Message, tail: Sequence[Message], called: float
    ) -> Generation:
        generation = Generation(
            setup,
            answer,
            question,
            tail,
            renewed=called,
            released=self._release,
            pace=self._pace,
        )
        self.generations[generation.id] = generation
        return generation

    def _pace(self) -> float:
        """How far apart the events with words of one answer are to be, in seconds."""
        running = len(self.generations)
        return running / _EVENTS if running > _FEW else 0.0

    def _release(self, generation: Generation) -> None:
        if self.generations.pop(generation.id, None) is not None:
            self._ended(generation)

    # --- waiting ---

    async def _wait_for(self, answer_id: str, pause: float, deadline: float) -> None:
        """Until the answer that is in the way may have ended, at most until the deadline."""
        left = max(deadline - self._clock(), 0)
        waits = [asyncio.ensure_future(self._closing.wait())]
        if (generation := self.generations.get(answer_id)) is not None:
            waits.append(asyncio.ensure_future(generation.finished.wait()))
        else:
            left = min(left, pause)
        try:
            await asyncio.wait(waits, timeout=left, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
            await asyncio.gather(*waits, return_exceptions=True)

    def _refuse_when_closing(self) -> None:
        if self._closing.is_set():
            raise ChatbotClosed("this chatbot was closed while the turn had not begun")

    # --- helpers ---

    def _answering(self, owner: str, conversation: str, message: Message) -> Generation | None:
        """The answer to that very message, if this process makes it."""
        for generation in self.generations.values():
            if generation.belongs(owner, conversation) and generation.question.same_content(message):
                return generation
        return None

    def _handle(self, generation: Generation, state: State) -> Running:
        def events(after: int) -> AsyncGenerator[Event, None]:
            return self.follower.here(generation, after)

        return Running(generation.id, generation.question, state, events, generation.result)

    def _elsewhere(self, owner: str, conversation: str, answer_id: str, question: Message, state: State) -> Running:
        def events(after: int) -> AsyncGenerator[Event, None]:
            return self.follower.stored(owner, conversation, answer_id, after)

        async def result() -> Message:
            return await self.follower.result(owner, conversation, answer_id)

        return Running(answer_id, question, state, events, result)

    async def _recover(self, owner: str, conversation: str) -> None:
        closing = Closing(self._setup.log)
        await self._memory.recover(owner=owner, id=conversation, partial=closing.partial)
        await end_dead(closing, self._memory, self._setup.log, self.generations)

    async def _protect(self, task: asyncio.Task[_T]) -> _T:
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            if task.cancelled():  # by ``drain``, not by the caller
                self._refuse_when_closing()
            raise

    def _spawn(self, coroutine: Coroutine[Any, Any, _T]) -> asyncio.Task[_T]:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._reap)
        return task

    def _reap(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # its waiter may have left: nobody else will ask for it

    def _busy(self) -> set[asyncio.Task[Any]]:
        return {task for task in self._tasks if task is not asyncio.current_task()}
