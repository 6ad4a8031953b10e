"""What the commands share: flags that are settings, names of conversations, text that a terminal can show."""

from __future__ import annotations

import functools
import re
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import TYPE_CHECKING, ParamSpec, TypeVar

import click

from daram.config import open_documents, open_memory
from daram.errors import InvalidInput, NotFound, Unsupported
from daram.settings import Settings, variables
from daram.store.paging import items

if TYPE_CHECKING:
    from daram.knowledge.collections import Collection
    from daram.knowledge.documents import Documents
    from daram.memory import Memory
    from daram.model import Conversation
    from daram.store.documents import Scope

P = ParamSpec("P")
R = TypeVar("R")
_FIGURES = re.compile(r"[\d.,]+")
_METAVARS = {"data": "DIR", "store": "URL"}
STORE_FLAGS = ("data", "store", "owner")

# C0 and C1 control characters: in a message they could move the cursor, rewrite what stands there, or worse.
_CONTROL = {
    code: "\N{REPLACEMENT CHARACTER}" for code in (*range(32), 127, *range(128, 160)) if chr(code) not in "\t\n"
}


def with_settings(*flags: str) -> Callable[[Callable[..., R]], Callable[..., R]]:
    """Give a command the flags of these settings, and the checked ``Settings`` as its first argument."""

    def decorate(function: Callable[..., R]) -> Callable[..., R]:
        @functools.wraps(function)
        def run(**given: object) -> R:
            chosen = {flag: given.pop(flag) for flag in flags}
            # Where somebody else runs the commands (Django's manage.py), they say what the settings are.
            known = click.get_current_context().find_object(Settings)
            settings = Settings.from_env(**chosen) if known is None else known.with_flags(**chosen)
            return function(settings, **given)

        command: Callable[..., R] = run
        table = variables()
        for flag in reversed(flags):
            variable = table[flag]
            words = f"{variable.about} [{variable.name}]".replace("`", "")
            command = click.option(variable.flag, flag, metavar=_METAVARS.get(flag, flag.upper()), help=words)(command)
        return command

    return decorate


def printable(text: str) -> str:
    """The text without what could drive a terminal; as it is where the output is a file or a pipe."""
    return text.translate(_CONTROL) if sys.stdout.isatty() else text


def one_line(text: str | None) -> str:
    """A title for a list: on one line, never empty."""
    return printable(" ".join((text or "").split())) or "(untitled)"


def moment(time: datetime) -> str:
    """A time as the user's clock shows it."""
    return time.astimezone().strftime("%Y-%m-%d %H:%M")


class StatusLine:
    """What is going on, on stderr: one line that changes on a terminal; elsewhere a line when more than figures did."""

    def __init__(self) -> None:
        self._terminal = sys.stderr.isatty()
        self._said = ""

    def show(self, text: str) -> None:
        """Say it, in the place of what was said before."""
        if self._terminal:
            click.echo(f"\r\x1b[K{text}", nl=False, err=True)
        elif _FIGURES.sub("", text) != _FIGURES.sub("", self._said):
            click.echo(text, err=True)
        self._said = text

    def clear(self) -> None:
        """Nothing is going on any more."""
        if self._terminal and self._said:
            click.echo("\r\x1b[K", nl=False, err=True)
        self._said = ""

    def keep(self) -> None:
        """Leave what was said, and begin a new line."""
        if self._terminal and self._said:
            click.echo(err=True)
        self._said = ""


@asynccontextmanager
async def opened_documents(settings: Settings, *, reading: bool = False) -> AsyncIterator[Documents]:
    """The documents of the store; with ``reading`` what waits is read meanwhile. Raises ``Unsupported``."""
    from daram.knowledge.base import NO_DOCUMENTS

    async with await open_memory(settings) as memory, open_documents(settings, memory, reading=reading) as documents:
        if documents is None:
            raise Unsupported(NO_DOCUMENTS)
        yield documents


def collection_named(collections: Sequence[Collection], name: str) -> Scope:
    """The collection with this id or, failing that, with exactly this name.

    Raises ``NotFound``, and ``InvalidInput`` where it names several.
    """
    from daram.store.documents import Scope

    named = [c for c in collections if c.id == name] or [c for c in collections if c.name == name]
    if len(named) > 1:
        which = ", ".join(f"{c.id} of {c.owner}" for c in named[:5])
        raise InvalidInput("collection", f"{name!r} names {len(named)} collections: {which}")
    if not named:
        raise NotFound("collection", name)
    return Scope(named[0].owner, named[0].id)


async def find(memory: Memory, owner: str, name: str) -> Conversation:
    """The conversation with this id or, failing that, with exactly this title.

    Raises ``NotFound``, and ``InvalidInput`` where several have the title.
    """
    try:
        return await memory.get(owner, name)
    except (NotFound, InvalidInput):  # what cannot be an id may still be a title
        pass
    listed = items(lambda cursor: memory.list(owner, limit=100, cursor=cursor))
    found = [conversation async for conversation in listed if conversation.title == name]
    if len(found) > 1:
        which = ", ".join(conversation.id for conversation in found[:5])
        raise InvalidInput("NAME", f"{len(found)} conversations have the title {name!r}; name one by its id: {which}")
    if not found:
        raise NotFound("conversation", name)
    return found[0]
