"""One answer while it is being made: from the open answer row to its end, in a task of its own.

Three things go on at once: the *pump* asks the model and hears what it says, the *relay* tells it to the event log, the
*keeper* stores it now and then, which renews the lease and brings a wish to cancel. Only the pump is ever interrupted,
so that what was told and what is stored are the same text.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Final, Literal

import msgspec

from daram.chat.clean import TextStream, clean_name, clean_parts, clean_usage
from daram.chat.ending import End, store_end
from daram.chat.events import Event, EventLog, EventType, terminal_type
from daram.chat.prompt import Prompter
from daram.chat.verdict import verdict
from daram.errors import Conflict, ContextOverflow, DaramError, LeaseLost, ModelError, NotFound
from daram.llm.base import ChatModel, Delta, Finish, Options
from daram.model import Answer, Message, Part, Status
from daram.store.base import Store

log = logging.getLogger(__name__)

Why = Literal["cancelled", "closing", "lost"]
"""Who ends an answer early: its user, this process, or another process that took it for dead."""

# How long a model may take to let go of a generation that was stopped, and a store to read an answer that was lost, in
# seconds; then they are left to themselves.
_GRACE: Final = 5.0
# All answers of a process store their text at so many moments of a second (of ``checkpoint_every``), a little early: a
# store commits what comes together at once.
_TOGETHER: Final = 4
# A loop that is late tells seldomer: events with words are that many times its lag further apart, so that there is more
# in each; and at most so many seconds.
_LAGS: Final = 4
_LONGEST: Final = 2.0
# Parts, usage and metadata share the message's limit with the text; this much is kept for what is not parts or text.
_OVERHEAD: Final = 4096
# Tasks that outlived their answer: the loop alone would not keep them.
_stragglers: Final[set[asyncio.Task[None]]] = set()


class Setup(msgspec.Struct, frozen=True, kw_only=True):
    """What an answer is made with. ``lease``, ``checkpoint_every`` in seconds, ``limit`` in bytes; ``titled``: whether
    its conversation may be named after it."""

    memory: Store
    model: ChatModel
    log: EventLog
    prompter: Prompter
    options: Options
    window: int
    lease: float
    checkpoint_every: float
    limit: int
    titled: bool = True


class Generation:
    """An answer that this process makes.

    ``finished`` is set when all is over; then ``message`` is the answer as stored, or ``error`` says what went wrong
    (for an answer that failed: both).
    """

    def __init__(
        self,
        setup: Setup,
        answer: Answer,
        question: Message,
        tail: Sequence[Message],
        *,
        renewed: float,
        released: Callable[[Generation], None],
        pace: Callable[[], float],
    ) -> None:
        self.id = answer.id
        self.owner = answer.owner
        self.conversation = answer.conversation
        self.question = question
        self.tail = tail
        self.titled = setup.titled
        self.finished = asyncio.Event()
        self.message: Message | None = None
        self.error: DaramError | None = None
        self._setup = setup
        self._token = answer.token
        self._released = released
        self._pace = pace  # how far apart events with words are to be now, in seconds
        self._loop = asyncio.get_running_loop()
        self._clock = self._loop.time
        self._renewed = renewed  # when the call that last renewed the lease was made
        self._give_up: float | None = None
        self._wake = asyncio.Event()
        self._why: Why | None = None
        # What the model said.
        room = max(setup.limit - _OVERHEAD, setup.limit // 2)
        self._room = room
        self._cleaner = TextStream(room)
        self._told: list[str] = []  # the words of each event
        self._news: list[str] = []  # what no event has told
        self._parts: list[Part] = []
        self._usage: dict[str, int] | None = None
        self._model = clean_name(setup.model.name)
        self._heard = False
        self._finish: Finish | None = None
        self._failure: DaramError | None = None
        self._over = False
        # What was told and stored of it.
        self._seq = 0
        self._next = 0.0  # when more words may be told
        self._lag = 0.0  # how late the loop was to tell the last ones
        self._due: asyncio.TimerHandle | None = None  # wakes the relay when words that wait may be told
        self._muted = False
        self._stored = ""

    # --- for others ---

    def belongs(self, owner: str, conversation: str) -> bool:
        """Whether it is an answer in that conversation of that owner."""
        return (self.owner, self.conversation) == (owner, conversation)

    def stop(self, why: Why, *, give_up: float | None = None) -> bool:
        """End it early; returns whether it ends for that reason. ``give_up``: until when to try to store it."""
        if give_up is not None:
            self._give_up = give_up
        if why == "lost" or (self._why is None and not self._over):
            self._why = why
            self._wake.set()
        return self._why == why

    async def result(self) -> Message:
        """Wait for the end: the answer as stored. Raises what made it fail."""
        await self.finished.wait()
        if self.error is not None:
            raise self.error.with_traceback(None)
        if self.message is None:
            raise LeaseLost(self.id)
        return self.message

    async def announce(self) -> None:
        """Tell that the question is durable. To be awaited before anybody hears of the answer."""
        await self._tell("created", question=self.question.id)

    async def run(self) -> None:
        """Make the answer; never raises."""
        pump = asyncio.create_task(self._pump())
        keeper = asyncio.create_task(self._keep())
        try:
            try:
                await self._relay()
            except asyncio.CancelledError:  # the loop is being shut down: store what there is
                self.stop("closing")
            if self._why is not None:
                pump.cancel()
            if self._due is not None:
                self._due.cancel()
            keeper.cancel()
            try:
                await self._end()
            except asyncio.CancelledError:
                await self._end()  # the first try may have got through; a second one is harmless
        finally:
            self._released(self)
            self.finished.set()
            pump.cancel()
            _, late = await asyncio.wait({pump, keeper}, timeout=_GRACE)
            for straggler in late:
                log.warning("the model %s did not let go of answer %s in %g s", self._model, self.id, _GRACE)
                _stragglers.add(straggler)
                straggler.add_done_callback(_stragglers.discard)

    # --- the pump: what the model says ---

    async def _pump(self) -> None:
        try:
            prompter = self._setup.prompter
            context = await prompter.build(self.owner, self.conversation, self.question, self.tail)
            try:
                await self._stream(context.messages)
            except ContextOverflow:
                smaller = None if self._heard else await prompter.halve(context)
                if smaller is None:
                    raise
                log.info("the context of answer %s was too long for the model; once more with half of it", self.id)
                await self._stream(smaller.messages)
        except DaramError as error:
            self._fail(error)
        except Exception as error:
            log.exception("the model's plug-in failed on answer %s", self.id)
            self._fail(ModelError(f"the model's plug-in failed: {type(error).__name__}: {error}"))
        finally:
            self._over = True
            self._wake.set()

    async def _stream(self, messages: Sequence[Message]) -> None:
        deltas = self._setup.model.stream(messages, self._setup.options)
        try:
            async for delta in deltas:
                self._hear(delta)
                if self._over:
                    return
                await asyncio.sleep(0)  # a model that never waits must not keep everybody else waiting
        finally:
            if (aclose := getattr(deltas, "aclose", None)) is not None:
                await aclose()

    def _hear(self, delta: Delta) -> None:
        self._heard = True
        if delta.text:
            self._news.append(self._cleaner.feed(delta.text))
        self._parts.extend(delta.parts)
        self._usage = clean_usage(delta.usage) or self._usage
        self._model = clean_name(delta.model) or self._model
        self._finish = delta.finish
        self._over = delta.finish is not None or self._cleaner.full
        if self._due is None or self._over:
            self._wake.set()

    def _fail(self, error: DaramError) -> None:
        if self._over:  # a whole answer is not spoilt by what happens while the model tidies up
            log.debug("after the end of answer %s: %s", self.id, error)
        else:
            self._failure = error

    # --- the relay: telling it ---

    async def _relay(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            if self._why is not None:
                return
            over = self._over
            if not over and self._clock() < self._next:
                self._due = self._loop.call_at(self._next, self._tell_later)
                continue
            await self._tell_news()
            if over:
                return
            self._next = self._clock() + min(self._pace() + _LAGS * self._lag, _LONGEST)
            self._lag = 0.0

    def _tell_later(self) -> None:
        self._due = None
        self._lag = max(self._clock() - self._next, 0.0)
        self._wake.set()

    async def _tell_news(self) -> None:
        heard = len(self._news)
        text = "".join(self._news)
        if text and await self._tell("delta", text=text):
            del self._news[:heard]
            self._told.append(text)

    def _text(self) -> str:
        return "".join((*self._told, *self._news))

    async def _tell(
        self,
        type: EventType,
        *,
        text: str = "",
        question: str | None = None,
        message: Message | None = None,
        error: DaramError | None = None,
        code: str | None = None,
    ) -> bool:
        if self._muted:
            return False
        event = Event(
            seq=self._seq + 1,
            type=type,
            answer=self.id,
            text=text,
            question=question,
            message=message,
            error=None if error is None else str(error),
            code=code or (None if error is None else error.code),
        )
        try:
            await self._setup.log.publish(self.id, event)
        except Conflict:  # somebody ended the log for us: whose the answer is, the store will say
            self._muted = True
            return False
        except Exception:  # the answer is worth more than its events; what was not told goes with the next one
            log.exception("event %d of answer %s was not published", event.seq, self.id)
            return False
        self._seq += 1
        return True

    # --- the keeper: storing it ---

    async def _keep(self) -> None:
        setup = self._setup
        step = setup.checkpoint_every / _TOGETHER
        while True:
            called = self._clock()
            await asyncio.sleep((called + setup.checkpoint_every) // step * step - called)
            called = self._clock()
            text = self._text()
            try:
                async with asyncio.timeout(setup.lease):
                    cancel = await setup.memory.checkpoint(
                        self.owner, self.conversation, self.id, self._token, text, lease=setup.lease
                    )
            except (LeaseLost, NotFound):
                self.stop("lost")
                return
            except Exception as error:  # the next one holds this one's text too
                log.warning("a checkpoint of answer %s failed, the answer goes on: %s", self.id, error, exc_info=True)
                continue
            self._renewed, self._stored = called, text
            if cancel:
                self.stop("cancelled")

    # --- the end ---

    async def _end(self) -> None:
        if self._why != "lost":
            self._news.append(self._cleaner.end())
            await self._tell_news()
            status, failure, metadata = self._verdict()
            try:
                self.message = await self._store(status, metadata)
            except (LeaseLost, NotFound):
                pass
            except Exception as error:
                log.exception("answer %s could not be stored", self.id)
                self.error = error if isinstance(error, DaramError) else DaramError(f"{type(error).__name__}: {error}")
                self._released(self)
                await self._tell("failed", error=self.error)
                return
            else:
                self.error = failure
                self._released(self)
                await self._tell(terminal_type(status), message=self.message, error=failure)
                return
        lost = LeaseLost(self.id)
        log.warning("%s", lost)
        try:
            async with asyncio.timeout(_GRACE):
                self.message = await self._setup.memory.message(self.owner, self.conversation, self.id)
        except Exception as error:
            log.info("answer %s cannot be read: %s", self.id, error, exc_info=True)
            self.error = lost
        self._released(self)
        status = "incomplete" if self.message is None else self.message.status
        await self._tell(terminal_type(status), message=self.message, error=lost)

    def _verdict(self) -> tuple[Status, DaramError | None, dict[str, str]]:
        if self._why == "cancelled":
            return "cancelled", None, {}
        if self._why == "closing":
            return "incomplete", None, {}
        said = bool(self._parts or self._told) or any(self._news)
        return verdict(self._model, self._failure, self._finish, cut=self._cleaner.full, said=said)

    async def _store(self, status: Status, metadata: dict[str, str]) -> Message:
        """Finish the turn while the lease lasts: until then nobody else may close it."""
        setup = self._setup
        text = self._text()
        parts, whole = clean_parts(self._parts, self._room - len(text.encode()))
        if not whole and status == "complete":
            status, metadata = "incomplete", {"finish": "length"}
        end = End(
            text=text,
            status=status,
            parts=parts,
            model=self._model,
            usage=self._usage,
            metadata=metadata,
            tokens=await self._tokens(text),
        )
        deadline = self._renewed + setup.lease

        def give_up() -> float:
            return deadline if self._give_up is None else min(deadline, self._give_up)

        place = (self.owner, self.conversation, self.id, self._token)
        return await store_end(setup.memory, place, end, stored=self._stored, give_up=give_up)

    async def _tokens(self, text: str) -> int | None:
        if self._usage and "output_tokens" in self._usage:
            return self._usage["output_tokens"]
        try:
            return await self._setup.prompter.count(text)
        except Exception:  # a figure for information only
            log.exception("the model %s cannot count the tokens of answer %s", self._model, self.id)
            return None
