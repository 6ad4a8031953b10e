"""The chatbot: conversations that are kept, answered by a model. What happens in a turn: see ``daram.chat.turn``."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from types import TracebackType
from typing import Final, Self

from daram.chat.choices import Choices, chosen
from daram.chat.events import Event, EventLog, MemoryEventLog
from daram.chat.generation import Generation, Setup
from daram.chat.prompt import Prompter
from daram.chat.recover import again_and_again, sweep
from daram.chat.running import Running
from daram.chat.title import OnTitle, Titler, answered_question
from daram.chat.turn import Turns
from daram.errors import ChatbotClosed, InvalidInput, NotFound, WrongLoop
from daram.llm.base import ChatModel, Options
from daram.model import ROOT, Message, user
from daram.store import validate
from daram.store.base import Store
from daram.store.validate import Limits

log = logging.getLogger(__name__)

_PAGE: Final = 50
# Owners whose titles may be missing; beyond that the oldest are forgotten.
_OWNERS: Final = 1000
_OF_A_MODEL: Final = ("name", "context_tokens", "prefers_notes", "stream", "count_tokens", "ready", "close")


class _Home:
    """What lives on one event loop: turns, titles, and the log of their events."""

    def __init__(self, setup: Setup, turns: Turns, titler: Titler | None, events: EventLog) -> None:
        self.setup = setup
        self.pid = os.getpid()
        self.loop = asyncio.get_running_loop()
        self.turns = turns
        self.titler = titler
        self.events = events


# After a fork the parent's tasks are of no use, but letting go of them would make asyncio complain.
_left_behind: list[_Home] = []


class Chatbot:
    """A chatbot over a ``memory`` (any ``Store``) and a ``model``; neither is closed with it.

    ``system``: the system prompt (None: Daram's, "": none); ``window``: how many recent messages a turn reads;
    ``titles``: whether the model names conversations; ``lease``: how long an answer stays its maker's without a sign
    of life, and ``checkpoint_every``: the time from the end of one checkpoint to the next, in seconds; ``wait``: how
    long a turn waits for the answer before it, in seconds; ``events``: the event log (default: in memory, for one
    process); ``on_title`` is called with (owner, conversation, title).

    It belongs to the event loop of its first call; after a fork, or when that loop is closed, it begins anew.
    """

    def __init__(
        self,
        memory: Store,
        model: ChatModel,
        *,
        system: str | None = None,
        window: int = 20,
        options: Options = Options(),
        titles: bool = True,
        lease: float = 30.0,
        checkpoint_every: float = 1.0,
        wait: float = 30.0,
        events: EventLog | None = None,
        on_title: OnTitle | None = None,
    ) -> None:
        if missing := [name for name in _OF_A_MODEL if not hasattr(model, name)]:
            raise InvalidInput("model", f"is no ChatModel: it has no {', '.join(missing)}")
        self.memory = memory
        self.model = model
        self._limits = _limits(memory)
        self._system = system
        self._window = validate.whole(window, "window", 1, 1000)
        self.options = options
        self._titles = titles
        self._lease = validate.seconds(lease, "lease")
        self._checkpoint_every = validate.seconds(checkpoint_every, "checkpoint_every")
        if self._checkpoint_every * 2 > self._lease:
            raise InvalidInput("lease", f"must be at least twice checkpoint_every ({checkpoint_every:g} s)")
        self._wait = _waiting_time(wait)
        self._events = events
        self._on_title = on_title
        self._home: _Home | None = None
        self._closed = False
        self._owners: dict[str, None] = {}

    # --- turns ---

    async def start(
        self,
        owner: str,
        conversation: str,
        message: str | Message,
        *,
        parent: str | None = None,
        create: bool = True,
        wait: float | None = None,
        before: Sequence[Message] = (),
        answer_id: str | None = None,
        choices: Choices = Choices(),
    ) -> Running:
        """Begin a turn: returns once message and answer row are durable; the answer is made in a task of its own.

        ``message``: a text, or a message with its id: the same one again joins its running answer, returns the finished
        one, or has a failed or incomplete one made anew. ``parent``: the message to follow, an earlier one to edit what
        came behind it (``daram.ROOT`` to edit the first). ``create``: make the conversation if there is none.
        ``before``: messages of any role that are stored with it, in front of it (results of tools, instructions).
        ``answer_id``: the id that the answer is to have. ``choices``: what this turn has of its own.

        Raises ``MessageTooLong`` (nothing was stored), ``ConversationBusy`` if the branch is not free after ``wait``
        seconds, and what ``Store.begin_turn`` raises.
        """
        home = self._here()
        self._check_names(owner, conversation, parent)
        question = _question(message, self._limits)
        if choices.titled:
            self._remember(owner)
        return await home.turns.take(
            owner,
            conversation,
            question,
            new=True,
            parent=parent,
            create=create,
            wait=self._patience(wait),
            before=before,
            answer_id=answer_id,
            setup=chosen(home.setup, choices, self._system),
        )

    async def regenerate(
        self,
        owner: str,
        conversation: str,
        question: str | None = None,
        *,
        wait: float | None = None,
        answer_id: str | None = None,
        choices: Choices = Choices(),
    ) -> Running:
        """Answer a stored message of the user anew, beside the earlier answers (default: the last one on the branch).

        ``answer_id``, ``choices``: see ``start``. Raises ``NotFound``, ``ConversationBusy``.
        """
        home = self._here()
        self._check_names(owner, conversation, question)
        asked = await self._stored_question(owner, conversation, question)
        self._remember(owner)
        return await home.turns.take(
            owner,
            conversation,
            asked,
            new=False,
            parent=asked.id,
            create=False,
            wait=self._patience(wait),
            answer_id=answer_id,
            setup=chosen(home.setup, choices, self._system),
        )

    async def ask(
        self,
        owner: str,
        conversation: str,
        message: str | Message,
        *,
        parent: str | None = None,
        create: bool = True,
        wait: float | None = None,
    ) -> Message:
        """A whole turn: ``start``, then wait for the answer. Raises ``ModelError`` if it failed.

        Cancelling the call does not stop the answer.
        """
        running = await self.start(owner, conversation, message, parent=parent, create=create, wait=wait)
        return await running.message()

    async def cancel(self, owner: str, conversation: str, answer_id: str | None = None) -> int:
        """Stop one or all running answers of the conversation, in whatever process; what they said is kept.

        Returns how many were asked to stop. Raises ``NotFound``.
        """
        home = self._here()
        stopped = [g for g in home.turns.find(owner, conversation, answer_id) if g.stop("cancelled")]
        if answer_id is not None and stopped:
            return 1  # it is made here: nobody else needs to be told
        return max(await self.memory.cancel_turn(owner, conversation, answer_id), len(stopped))

    def running(self, owner: str) -> int:
        """How many answers this process is making for that owner."""
        home = self._here()
        return sum(generation.owner == owner for generation in home.turns.generations.values())

    async def resume(
        self, owner: str, conversation: str, answer_id: str, *, after: int = 0
    ) -> AsyncGenerator[Event, None]:
        """The events of an answer with ``seq > after``, wherever it is made; the last one is terminal.

        Where the log does not know the answer (it was made by another process, or before a restart), one terminal event
        with the number ``after + 1`` holds the stored answer, as soon as it is stored. Raises ``NotFound``.
        """
        home = self._here()
        validate.whole(after, "after", 0, 1 << 53)
        found = home.turns.find(owner, conversation, answer_id)
        follower = home.turns.follower
        events = follower.here(found[0], after) if found else follower.stored(owner, conversation, answer_id, after)
        async with aclosing(events):
            async for event in events:
                yield event

    # --- after a crash ---

    async def recover(self) -> list[Message]:
        """Close the answers that dead processes left behind: they are kept as ``incomplete``, and returned.

        Also makes up for titles that a crash lost, in the background. To be called at start and from time to time.
        """
        home = self._here()
        messages, answers = await sweep(self.memory, home.events, home.turns.generations)
        for answer in answers:
            self._remember(answer.owner)
        if home.titler is not None and home.titler.make_up(list(self._owners)):
            self._owners.clear()
        return messages

    async def sweep_forever(self, interval: float = 30.0) -> None:
        """``recover`` every ``interval`` seconds until cancelled; a failed sweep is logged. For servers."""
        await again_and_again(self.recover, validate.seconds(interval, "interval"))

    # --- life ---

    async def close(self, drain: float = 10.0) -> None:
        """Wait at most ``drain`` seconds for running answers and titles, keep the other answers as ``incomplete``.

        A second call is harmless. Close it before the memory.
        """
        if self._closed:
            return
        self._closed = True
        home = self._home
        if home is None or home.pid != os.getpid() or home.loop is not asyncio.get_running_loop():
            return
        deadline = home.loop.time() + drain
        await home.turns.drain(drain)
        if home.titler is not None:
            await home.titler.settle(deadline - home.loop.time())
        if self._events is None:
            await home.events.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    # --- helpers ---

    def _here(self) -> _Home:
        """What lives on the running loop."""
        if self._closed:
            raise ChatbotClosed("this chatbot was closed; make another one")
        home = self._home
        if home is not None:
            if home.pid != os.getpid():
                _left_behind.append(home)
            elif home.loop is asyncio.get_running_loop():
                return home
            elif not home.loop.is_closed():
                raise WrongLoop("this chatbot is in use on another event loop; make one for this loop")
        self._home = self._make_home()
        return self._home

    def _make_home(self) -> _Home:
        events = MemoryEventLog() if self._events is None else self._events
        titler = Titler(self.memory, self.model, self._on_title) if self._titles else None
        setup = Setup(
            memory=self.memory,
            model=self.model,
            log=events,
            prompter=Prompter(self.memory, self.model, system=self._system, options=self.options, window=self._window),
            options=self.options,
            window=self._window,
            lease=self._lease,
            checkpoint_every=self._checkpoint_every,
            limit=self._limits.message_bytes,
        )

        def began(owner: str, conversation: str) -> None:
            if titler is not None:
                titler.began(owner, conversation)

        def ended(generation: Generation) -> None:
            if titler is not None:
                titler.ended(generation.owner, generation.conversation)
                if generation.titled and (first := self._first_question(generation)) is not None:
                    titler.want(generation.owner, generation.conversation, first)

        return _Home(setup, Turns(setup, began=began, ended=ended), titler, events)

    def _first_question(self, generation: Generation) -> Message | None:
        """The question, if this was the first turn of its branch to be answered."""
        answer, tail = generation.message, generation.tail
        if answer is None or len(tail) >= self._window > 1:
            return None
        before = answered_question(tail)
        return generation.question if before is None and answer.status != "failed" else None

    async def _stored_question(self, owner: str, conversation: str, question: str | None) -> Message:
        if question is not None:
            message = await self.memory.message(owner, conversation, question)
            if message.role != "user":
                raise InvalidInput("question", f"{question!r} is not a message of the user")
            return message
        cursor = None
        while True:
            page = await self.memory.messages(owner, conversation, limit=_PAGE, cursor=cursor, order="desc")
            for message in page.items:
                if message.role == "user":
                    return message
            cursor = page.next_cursor
            if cursor is None:
                raise NotFound("message of the user", conversation)

    def _check_names(self, owner: str, conversation: str, message_id: str | None) -> None:
        validate.name(owner, "owner", self._limits.owner_chars)
        validate.name(conversation, "conversation", self._limits.conversation_id_chars)
        if message_id not in (None, ROOT):
            validate.name(message_id, "message_id", self._limits.message_id_chars)

    def _patience(self, wait: float | None) -> float:
        return self._wait if wait is None else _waiting_time(wait)

    def _remember(self, owner: str) -> None:
        self._owners.pop(owner, None)
        self._owners[owner] = None
        if len(self._owners) > _OWNERS:
            del self._owners[next(iter(self._owners))]


def _question(message: str | Message, limits: Limits) -> Message:
    """What the caller said as a message that can be stored."""
    if isinstance(message, str):
        message = user(message)
    message = validate.message(message, "message", limits)
    if message.role == "assistant":
        raise InvalidInput(
            "message.role", f'must be "user" (or "tool": the result of a call; or "system"), not {message.role!r}'
        )
    return message


def _waiting_time(wait: float) -> float:
    return 0.0 if wait == 0 else validate.seconds(wait, "wait")


def _limits(memory: Store) -> Limits:
    """The store's bounds, through its wrappers; stores without bounds get the default ones."""
    store: object = memory
    while store is not None:
        limits = getattr(store, "limits", None)
        if isinstance(limits, Limits):
            return limits
        store = getattr(store, "inner", None)
    return Limits()
