"""``daram docs reference``: texts that are kept under a category and the number of a title."""

from __future__ import annotations

import asyncio
import sys
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from daram.cli.common import STORE_FLAGS, moment, one_line, opened_documents, with_settings
from daram.errors import DocumentError
from daram.settings import Settings

if TYPE_CHECKING:
    from daram.knowledge.access import Reader
    from daram.knowledge.references import Reference

_WHOLE = ("", ".txt", ".text", ".md", ".markdown", ".rst", ".log")  # taken as they are written
_category = click.option("--category", metavar="C", required=True, help="Its category.")
_title_no = click.option("--title-no", metavar="N", required=True, help="The number of its title in the category.")
_own = click.option("--own", is_flag=True, help="The owner's own; without it, it is official: for everybody.")


def _who(settings: Settings, own: bool) -> tuple[Reader, str]:
    from daram.knowledge.access import OFFICIAL, Reader

    # Whoever can open the store may change what is official.
    return Reader(settings.owner, admin=True), settings.owner if own else OFFICIAL


@click.group()
def reference() -> None:
    """Texts by category and title: given to the model whole where they fit."""


@reference.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@_category
@_title_no
@click.option("--title", metavar="T", help="What it is called; the name of the file where none is said.")
@_own
@with_settings(*STORE_FLAGS)
def add(settings: Settings, file: Path, category: str, title_no: str, title: str | None, own: bool) -> None:
    """Keep the text of FILE as a reference, in place of what stood there.

    Old chats read it at their next turn.
    """
    who, owner = _who(settings, own)

    text = _text(file)

    async def run() -> Reference:
        async with opened_documents(settings, reading=True) as documents:
            return await documents.put_reference(who, category, title_no, title or file.stem, text, owner=owner)

    stored = asyncio.run(run())
    words = f"{stored.category}/{stored.title_no} is {one_line(stored.title)} ({stored.chars:,} characters)"
    click.echo(words, err=True)


def _text(file: Path) -> str:
    if file.suffix.lower() not in _WHOLE:
        return asyncio.run(_read(file))
    try:
        return file.read_text("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DocumentError(file.name, f"is not UTF-8 (byte {error.start:,})") from None


async def _read(file: Path) -> str:
    from daram.knowledge import extract

    async with aclosing(extract.Readers().sections(file, name=file.name)) as sections:
        return "\n\n".join([section.text async for section in sections])


@reference.command("list")
@click.option("--category", metavar="C", help="Only those of this category.")
@_own
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@with_settings(*STORE_FLAGS)
def list_(settings: Settings, category: str | None, own: bool, as_json: bool) -> None:
    """List the references.

    In a pipe: category, number, title and number of characters, separated by tabs.
    """
    _, owner = _who(settings, own)

    async def run() -> list[Reference]:
        async with opened_documents(settings) as documents:
            return [found async for found in documents.references.all(owner, category)]

    found = asyncio.run(run())
    if as_json:
        click.echo(msgspec.json.encode(found))
        return
    if not found and sys.stdout.isatty():
        click.echo("None here yet: daram docs reference add puts one in.", err=True)
    for one in found:
        if sys.stdout.isatty():
            changed = moment(one.updated_at)
            click.echo(f"{one.category}/{one.title_no}: {one_line(one.title)} ({one.chars:,} characters, {changed})")
        else:
            click.echo(f"{one.category}\t{one.title_no}\t{one_line(one.title)}\t{one.chars}")


@reference.command()
@_category
@_title_no
@_own
@with_settings(*STORE_FLAGS)
def remove(settings: Settings, category: str, title_no: str, own: bool) -> None:
    """Remove a reference."""
    who, owner = _who(settings, own)

    async def run() -> None:
        async with opened_documents(settings) as documents:
            await documents.remove_reference(who, category, title_no, owner=owner)

    asyncio.run(run())
    click.echo(f"{category}/{title_no} is removed", err=True)
