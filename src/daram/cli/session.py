"""One sitting at the terminal: which conversation is open, the slash commands, and an answer as it comes in."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import re
import signal
import sys
from collections.abc import Awaitable, Callable, Iterator
from enum import Enum
from types import FrameType
from typing import TYPE_CHECKING

import click

from daram import ids
from daram.chat.events import TERMINAL, Event
from daram.cli.citations import notes
from daram.cli.common import StatusLine, collection_named, find, moment, one_line, printable
from daram.errors import InvalidInput, NotFound, Unsupported

if TYPE_CHECKING:
    from anyio.from_thread import BlockingPortal

    from daram.chat import Chatbot, Running
    from daram.llm.base import ChatModel
    from daram.memory import Memory
    from daram.model import Conversation, Message


class Key(Enum):
    """What was pressed while an answer came in."""

    CTRL_C = "ctrl-c"


News = Event | str | Key | None  # an event of the answer, a line about the model, Ctrl-C, the end
HELP = """\
/new [TITLE]   begin another conversation
/list          list the conversations
/open NAME     go on with one: its number in the list, its id or its title
/retry         have the last message answered anew
/quit          leave (so does Ctrl-D); Ctrl-C stops an answer and keeps what was said
//...          a message that begins with a slash"""
LISTED = 20
SHOWN = 6


class Session:
    """Runs in the main thread, where Ctrl-C arrives; what is asynchronous runs in the portal's."""

    def __init__(
        self,
        portal: BlockingPortal,
        memory: Memory,
        model: ChatModel,
        chatbot: Chatbot,
        *,
        owner: str,
        interactive: bool,
    ) -> None:
        self.portal = portal
        self.memory = memory
        self.model = model
        self.chatbot = chatbot
        self.owner = owner
        self.interactive = interactive
        self.conversation = ids.conversation_id()
        self.stopped = False  # whether Ctrl-C ended the last answer
        self._listed: list[str] = []
        self._docs: tuple[str, ...] = ()

    def begin(self, name: str | None, docs: tuple[str, ...] = ()) -> None:
        """Open the conversation NAME, begin it where there is none; without a name begin a new one.

        ``docs``: the collections that it, and each one begun here, is answered from.
        """
        self._note(f"Model: {self.model.name}. /help says what can be done here.")
        self._docs = docs
        self._begin(name)
        self._bind()

    def _begin(self, name: str | None) -> None:
        if name is None:
            return
        try:
            self._open(name)
        except NotFound:
            if name.startswith("conv_"):  # an id that is not there is a mistake, not a title
                raise
            self._new(name)

    def handle(self, line: str) -> bool:
        """Do what a line says; returns False where it ends the sitting. Raises a ``DaramError`` where that failed."""
        command = re.fullmatch(r"/(\w+)(?:\s+(.*))?", line.strip())
        if command is None:
            text = line.removeprefix("/") if line.startswith("//") else line
            if text.strip():
                self._answer(lambda: self.chatbot.start(self.owner, self.conversation, text))
            return True
        name, argument = command[1].lower(), command[2]
        if name in ("quit", "exit"):
            return False
        if name == "help":
            click.echo(HELP)
        elif name == "new":
            self._new(argument)
        elif name == "list":
            self._list()
        elif name == "open" and argument:
            self._open(argument)
        elif name == "retry":
            self._answer(lambda: self.chatbot.regenerate(self.owner, self.conversation))
        else:
            raise InvalidInput(f"/{name}", "no such command, or something is missing; /help lists them")
        return True

    # --- conversations ---

    def _new(self, title: str | None) -> None:
        self.conversation = ids.conversation_id()
        if title:
            self.portal.call(self._create, title)
        self._bind()
        self._note("A new conversation.")

    def _bind(self) -> None:
        if self._docs:
            self.portal.call(self._bound_to, self._docs)

    async def _bound_to(self, names: tuple[str, ...]) -> None:
        from daram.knowledge.access import Reader
        from daram.knowledge.base import NO_DOCUMENTS

        documents = self.chatbot.documents
        if documents is None:
            raise Unsupported(NO_DOCUMENTS)
        who = Reader(self.owner)
        readable = await documents.list_collections(who)
        scopes = [collection_named(readable, name) for name in names]
        await documents.bind(who, self.conversation, scopes)

    async def _create(self, title: str) -> None:
        await self.memory.create(self.owner, id=self.conversation, title=title)

    def _list(self) -> None:
        found = self.portal.call(self._page)
        self._listed = [conversation.id for conversation in found]
        for number, conversation in enumerate(found, 1):
            here = "*" if conversation.id == self.conversation else " "
            click.echo(f"{number:3}{here} {moment(conversation.updated_at)}  {one_line(conversation.title)}")

    async def _page(self) -> list[Conversation]:
        return (await self.memory.list(self.owner, limit=LISTED)).items

    def _open(self, name: str) -> None:
        if name.isdecimal() and 0 < int(name) <= len(self._listed):
            name = self._listed[int(name) - 1]
        conversation = self.portal.call(find, self.memory, self.owner, name)
        self.conversation = conversation.id
        self._note(f"{one_line(conversation.title)} ({conversation.id})")
        if self.interactive:
            for message in self.portal.call(self.memory.tail, self.owner, conversation.id, SHOWN):
                status = "" if message.status == "complete" else f" ({message.status})"
                click.echo(f"{_speaker(message.role)}{status}> {printable(message.text)}")
                for note in notes(message):
                    click.echo(f"  {note}")

    # --- an answer ---

    def _answer(self, start: Callable[[], Awaitable[Running]]) -> None:
        """Print an answer as it comes in. Ctrl-C stops it and keeps what was said; a second one leaves."""
        news: queue.SimpleQueue[News] = queue.SimpleQueue()
        task = self.portal.start_task_soon(_follow, start, self.model, news)
        printed = _Printed(self.interactive)
        status = StatusLine()
        answer = ""
        self.stopped = False
        with _interrupts(news):
            while (item := _next(news)) is not None:
                if item is Key.CTRL_C:
                    if not answer:
                        raise KeyboardInterrupt
                    self.stopped = True
                    self.portal.call(self.chatbot.cancel, self.owner, self.conversation, answer)
                    continue
                if isinstance(item, str):
                    status.show(item)
                    continue
                status.clear()
                answer = item.answer
                printed.add(item.text)
                if item.type in TERMINAL:
                    printed.end(item.message)
                    if item.type in ("cancelled", "incomplete"):
                        click.echo("[stopped; what was said is kept]" if self.stopped else f"[{item.type}]", err=True)
        status.clear()
        running = task.result()
        if self.stopped and not self.interactive:
            raise KeyboardInterrupt  # in a pipe nobody is there to go on
        message = self.portal.call(running.message)  # raises the model's error, where it failed
        # Beside the answer, which is all that a pipe is given.
        for note in notes(message):
            click.echo(note, err=True)

    def _note(self, text: str) -> None:
        if self.interactive:
            click.echo(text, err=True)


class _Printed:
    """The answer on stdout: piece by piece, then exactly one end of line."""

    def __init__(self, interactive: bool) -> None:
        self._prompt = f"{_speaker('assistant')}> " if interactive else ""
        self._text = ""

    def add(self, text: str) -> None:
        if text:
            click.echo(("" if self._text else self._prompt) + printable(text), nl=False)
            sys.stdout.flush()
            self._text += text

    def end(self, message: Message | None) -> None:
        # Of an answer that another process made there was no event but the last one.
        if message is not None and message.text.startswith(self._text):
            self.add(message.text[len(self._text) :])
        if not self._text.endswith("\n"):
            click.echo()


def _speaker(role: str) -> str:
    return {"user": "you", "assistant": "daram"}.get(role, role)


@contextlib.contextmanager
def _interrupts(news: queue.SimpleQueue[News]) -> Iterator[None]:
    """The first Ctrl-C is an item in the queue, so that it cannot break off what is printed; the second raises."""
    came = False

    def interrupted(_number: int, _frame: FrameType | None) -> None:
        nonlocal came
        if came:
            raise KeyboardInterrupt
        came = True
        news.put(Key.CTRL_C)

    before = signal.getsignal(signal.SIGINT)
    if before is not signal.default_int_handler:  # ignored, or somebody else's
        yield
        return
    signal.signal(signal.SIGINT, interrupted)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _next(news: queue.SimpleQueue[News]) -> News:
    while True:
        with contextlib.suppress(queue.Empty):  # where waiting shuts Ctrl-C out, it is let in between two waits
            return news.get(timeout=0.2)


async def _follow(start: Callable[[], Awaitable[Running]], model: ChatModel, news: queue.SimpleQueue[News]) -> Running:
    """Put into the queue: the events of a turn; until its first word, what the model is doing; None at the end."""
    watching = asyncio.create_task(_watch(model, news))
    try:
        running = await start()
        async for event in running.events():
            if event.text:
                watching.cancel()
            news.put(event)
        return running
    finally:
        watching.cancel()
        news.put(None)


async def _watch(model: ChatModel, news: queue.SimpleQueue[News]) -> None:
    while True:
        await asyncio.sleep(0.5)
        doing = await model.ready()
        if doing is not None:
            news.put(doing)
