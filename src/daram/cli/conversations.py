"""``daram list``, ``show``, ``search``, ``rename``, ``delete``: the conversations that are kept."""

from __future__ import annotations

import asyncio
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

import click
import msgspec

from daram.cli.citations import notes
from daram.cli.common import STORE_FLAGS, find, moment, one_line, printable, with_settings
from daram.config import open_memory
from daram.errors import StoreReadOnly
from daram.settings import Settings

if TYPE_CHECKING:
    from daram.model import Answer, Conversation, Hit, Message

PAGE = 100
_as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.command("list")
@click.option(
    "--limit", type=click.IntRange(1), metavar="N", default=20, show_default=True, help="How many, the newest first."
)
@_as_json
@with_settings(*STORE_FLAGS)
def list_(settings: Settings, limit: int, as_json: bool) -> None:
    """List the conversations, the one changed last first.

    In a pipe: id, time and title, separated by tabs.
    """
    found = asyncio.run(_list(settings, limit))
    if as_json:
        click.echo(msgspec.json.encode(found))
    elif not sys.stdout.isatty():
        for conversation in found:
            click.echo(f"{conversation.id}\t{conversation.updated_at.isoformat()}\t{one_line(conversation.title)}")
    elif not found:
        click.echo("No conversations yet: daram chat begins one.", err=True)
    else:
        _print_table(found)


async def _list(settings: Settings, limit: int) -> list[Conversation]:
    found: list[Conversation] = []
    cursor = None
    async with await open_memory(settings) as memory:
        while len(found) < limit:
            page = await memory.list(settings.owner, limit=min(PAGE, limit - len(found)), cursor=cursor)
            found += page.items
            cursor = page.next_cursor
            if cursor is None:
                break
    return found


def _print_table(found: list[Conversation]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    for column in ("title", "changed", "id"):
        table.add_column(column, no_wrap=column != "title")
    for conversation in found:
        title = one_line(conversation.title) + (" (archived)" if conversation.archived else "")
        table.add_row(Text(title), moment(conversation.updated_at), conversation.id)
    Console().print(table)


@click.command()
@click.argument("name")
@_as_json
@with_settings(*STORE_FLAGS)
def show(settings: Settings, name: str, as_json: bool) -> None:
    """Print a conversation.

    NAME is its id or its title. The branch in use is printed, oldest first.
    """
    conversation, messages, answers = asyncio.run(_show(settings, name))
    if as_json:
        document = {"conversation": conversation, "messages": messages, "answers": answers}
        click.echo(msgspec.json.encode(document))
        return
    click.echo(f"{one_line(conversation.title)} ({conversation.id})")
    for message in messages:
        status = "" if message.status == "complete" else f" ({message.status})"
        when = moment(message.created_at) if message.created_at else ""
        click.echo(f"\n[{when}] {message.role}{status}\n{printable(message.text)}")
        for note in notes(message):
            click.echo(note)
    for answer in answers:
        click.echo(f"\n[{moment(answer.created_at)}] assistant (being made)\n{printable(answer.text)}")


async def _show(settings: Settings, name: str) -> tuple[Conversation, list[Message], list[Answer]]:
    messages: list[Message] = []
    cursor = None
    async with await open_memory(settings) as memory:
        conversation = await find(memory, settings.owner, name)
        with suppress(StoreReadOnly):  # then what a dead process left is shown as it stands
            await memory.recover(owner=settings.owner, id=conversation.id)
        while True:
            page = await memory.messages(settings.owner, conversation.id, limit=PAGE, cursor=cursor)
            messages += page.items
            cursor = page.next_cursor
            if cursor is None:
                break
        return conversation, messages, await memory.answers(settings.owner, conversation.id)


@click.command()
@click.argument("words", nargs=-1, required=True)
@click.option("--conversation", metavar="NAME", help="Search this one only (its id or title).")
@click.option(
    "--limit", type=click.IntRange(1, 100), metavar="N", default=20, show_default=True, help="How many, the best first."
)
@_as_json
@with_settings(*STORE_FLAGS)
def search(settings: Settings, words: tuple[str, ...], conversation: str | None, limit: int, as_json: bool) -> None:
    """Search all messages for WORDS.

    In a pipe: conversation, message and text, separated by tabs.
    """
    hits = asyncio.run(_search(settings, " ".join(words), conversation, limit))
    if as_json:
        click.echo(msgspec.json.encode(hits))
    for hit in [] if as_json else hits:
        text = printable(" ".join(hit.text.split()))
        if sys.stdout.isatty():
            click.echo(click.style(f"{one_line(hit.title)} ({hit.conversation})", bold=True))
            click.echo(f"  {hit.message.role}: {text[:300]}{'…' if len(text) > 300 else ''}")
        else:
            click.echo(f"{hit.conversation}\t{hit.id}\t{text}")
    if not hits:
        click.echo("Nothing found.", err=True)


async def _search(settings: Settings, query: str, name: str | None, limit: int) -> list[Hit]:
    async with await open_memory(settings) as memory:
        within = None if name is None else (await find(memory, settings.owner, name)).id
        return await memory.search(settings.owner, query, conversation=within, limit=limit)


@click.command()
@click.argument("name")
@click.argument("title")
@with_settings(*STORE_FLAGS)
def rename(settings: Settings, name: str, title: str) -> None:
    """Give a conversation another title.

    NAME is its id or the title that it has.
    """

    async def run() -> Conversation:
        async with await open_memory(settings) as memory:
            conversation = await find(memory, settings.owner, name)
            return await memory.update(settings.owner, conversation.id, title=title)

    changed = asyncio.run(run())
    click.echo(f"{changed.id} is now {one_line(changed.title)}", err=True)


@click.command()
@click.argument("name")
@click.option("--yes", is_flag=True, help="Do not ask.")
@with_settings(*STORE_FLAGS)
def delete(settings: Settings, name: str, yes: bool) -> None:
    """Delete a conversation for good, with all its messages.

    NAME is its id or its title.
    """

    if not yes and not sys.stdin.isatty():
        raise click.UsageError("there is nobody to ask; say --yes to delete without being asked")

    async def run() -> Conversation:
        async with await open_memory(settings) as memory:
            conversation = await find(memory, settings.owner, name)
            if not yes:
                question = f"Delete {one_line(conversation.title)} ({conversation.id}) for good?"
                click.confirm(question, abort=True, err=True)
            await memory.delete(settings.owner, conversation.id)
            return conversation

    click.echo(f"{asyncio.run(run()).id} is deleted", err=True)
