"""``daram copy``, ``export``, ``import``: conversations as a whole, from store to store, into files and out of them."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, cast

import click

from daram.cli.common import with_settings
from daram.config import open_existing, open_memory
from daram.errors import ConfigError, StoreUnavailable
from daram.settings import Settings, mask

if TYPE_CHECKING:
    from daram.memory import Memory
    from daram.transfer.copy import Progress, Report

_replace = click.option(
    "--replace", is_flag=True, help="Replace also what the target changed on its own; its changes are lost."
)


@contextmanager
def shown(total: int | None = None) -> Iterator[Progress]:
    """What is done so far, on a terminal; ``total``: of messages, for a bar."""
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        BarColumn(),
        TextColumn("{task.fields[conversations]:,} conversations, {task.completed:,} messages"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=total, conversations=0)
        yield lambda report: bar.update(task, completed=report.messages, conversations=report.conversations)


async def _messages(store: Memory) -> int | None:
    """How many messages there are, where somebody watches the bar."""
    from daram.transfer.copy import scanned

    if not sys.stderr.isatty():
        return None
    return sum([conversation.last_seq async for page in scanned(store) for conversation in page])


@click.command()
@click.argument("source", metavar="FROM_URL")
@click.argument("target", metavar="TO_URL")
@_replace
def copy(source: str, target: str, replace: bool) -> None:
    """Copy all conversations, records and documents from one store into another.

    Both may be in use. What is there already is compared and skipped, so it is safe to run again, also after an
    interruption; what changed at FROM_URL since is brought up to date. Everything that is written is read back and
    compared. A conversation that TO_URL changed on its own is left alone and named. Ends with 1 where anything
    differs. Documents come with their passages and vectors: nothing is read or embedded anew.
    """

    async def run() -> Report:
        from daram.transfer.copy import copy as bring_all

        async with await open_existing(source) as old, await open_existing(target, new=True) as new:
            with shown(await _messages(old)) as progress:
                return await bring_all(old, new, replace=replace, progress=progress)

    report = asyncio.run(run())
    click.echo(f"{mask(source)}: {_held(report)}", err=True)
    _outcome(report)
    if report.extra:
        names = _few([f"{id} of {owner}" for owner, id in report.extra])
        click.echo(f"only at the target ({len(report.extra):,}): {names}", err=True)
    if report.extra_documents:
        names = _few(["/".join(name) for name in report.extra_documents])
        click.echo(f"documents only at the target ({len(report.extra_documents):,}): {names}", err=True)
    if report.documents_left:
        click.echo(f"not copied: {report.documents_left:,} documents; {mask(target)} keeps none", err=True)
    if not report.complete:
        raise click.exceptions.Exit(1)
    what = "Everything but the documents" if report.documents_left else "Everything"
    click.echo(f"{what} is at the target, read back and equal.", err=True)


@click.command("export")
@click.argument("file")
@click.option("--owner", metavar="OWNER", help="This owner's only.")
@click.option("--conversation", metavar="ID", help="This one only (of OWNER, or of DARAM_OWNER).")
@click.option("--force", is_flag=True, help="Replace FILE if it is there.")
@with_settings("data", "store")
def export(settings: Settings, file: str, owner: str | None, conversation: str | None, force: bool) -> None:
    """Write conversations and records into FILE ("-": to stdout), as JSON Lines.

    With all branches, tombstones, metadata and times; see the export format in the reference.
    """

    async def run(out: IO[bytes]) -> Report:
        from daram.transfer.files import export as write

        async with await open_memory(settings, new=False) as memory:
            whose = settings.owner if owner is None and conversation is not None else owner
            with shown(None if conversation else await _messages(memory)) as progress:
                return await write(memory, out, owner=whose, conversation=conversation, progress=progress)

    if file == "-":
        report = asyncio.run(run(sys.stdout.buffer))
    else:
        with written(Path(file), force) as out:
            report = asyncio.run(run(out))
    click.echo(_held(report), err=True)
    _outcome(report)
    if report.changing:
        raise click.exceptions.Exit(1)


@contextmanager
def written(path: Path, force: bool) -> Iterator[IO[bytes]]:
    """A new file for its owner alone, in its place once it is whole."""
    if path.exists() and not force:
        raise click.UsageError(f"{path} exists; name another file, or say --force to replace it")
    try:
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)  # mode 0600
    except OSError as error:
        raise StoreUnavailable(f"{path}: cannot be written ({error.strerror})") from error
    try:
        with os.fdopen(handle, "wb") as out:
            yield out
            out.flush()
            os.fsync(out.fileno())
        Path(name).replace(path)
    finally:
        Path(name).unlink(missing_ok=True)


@contextmanager
def seekable(file: str) -> Iterator[IO[bytes]]:
    """FILE, or what comes in on stdin, from a place that can be read twice."""
    if file == "-":
        with tempfile.TemporaryFile() as kept:
            shutil.copyfileobj(sys.stdin.buffer, kept)
            kept.seek(0)
            yield cast(IO[bytes], kept)
        return
    path = Path(file)
    if not path.is_file():
        raise ConfigError(f"{file}: is not there, or is no file; name a file, or - for stdin")
    with path.open("rb") as opened:
        yield opened


@click.command("import")
@click.argument("source", metavar="FILE|URL")
@click.option(
    "--from",
    "kind",
    type=click.Choice(["daram", "langchain-redis", "langchain-community-redis", "langchain-sql", "chathistory"]),
    default="daram",
    show_default=True,
    help="What it is: an export of Daram, or what another library keeps.",
)
@click.option("--owner", metavar="OWNER", help="Whose they become (default: as in the export; else DARAM_OWNER).")
@click.option("--session-is-owner", is_flag=True, help="Of other libraries: each session is an owner's own.")
@click.option("--prefix", metavar="TEXT", help="Of other libraries: what their keys or new ids begin with.")
@click.option("--table", metavar="NAME", help="langchain-sql: the table (default: message_store).")
@_replace
@with_settings("data", "store")
def import_(
    settings: Settings,
    source: str,
    kind: str,
    owner: str | None,
    session_is_owner: bool,
    prefix: str | None,
    table: str | None,
    replace: bool,
) -> None:
    """Bring in what `daram export` wrote ("-": from stdin), or what another library keeps.

    Safe to run again: what is stored already is compared and skipped. A wrong line is answered with its number and
    field; a wrong conversation is not stored in part.
    """
    if kind != "daram":
        from daram.cli.foreign import bring_in

        added = asyncio.run(
            bring_in(
                settings,
                kind,
                source,
                owner=owner or settings.owner,
                session_is_owner=session_is_owner,
                prefix=prefix,
                table=table,
            )
        )
        click.echo(
            f"{added.conversations:,} conversations, {added.messages:,} messages: {added.new:,} are new", err=True
        )
        for problem in added.problems:
            click.echo(f"left out: {problem}", err=True)
        if added.problems:
            raise click.exceptions.Exit(1)
        return

    async def run(file: IO[bytes]) -> Report:
        from daram.transfer.files import import_ as read

        async with await open_memory(settings) as memory:
            with shown() as progress:
                return await read(file, memory, owner=owner, replace=replace, progress=progress)

    with seekable(source) as file:
        report = asyncio.run(run(file))
    click.echo(_held(report), err=True)
    _outcome(report)
    if not report.complete:
        raise click.exceptions.Exit(1)


def _held(report: Report) -> str:
    held = f"{report.conversations:,} conversations, {report.messages:,} messages, {report.records:,} records"
    return held + (f", {report.documents:,} documents" if report.documents else "")


def _outcome(report: Report) -> None:
    said = [
        f"{count:,} {what}"
        for count, what in (
            (report.new, "new"),
            (report.replaced, "brought up to date"),
            (report.equal, "equal already"),
            (report.gone, "deleted meanwhile"),
            (report.records_written, "records written"),
            (report.documents_written, "documents put in place"),
            (report.documents_equal, "documents equal already"),
        )
        if count
    ]
    if said:
        click.echo(", ".join(said), err=True)
    if report.running:
        click.echo(f"{report.running:,} answers are being made and were not taken along: run it again later", err=True)
    names = [f"{id} of {owner}" for owner, id in report.kept]
    if names:
        click.echo(f"left alone, changed on its own at the target ({len(names):,}): {_few(names)}", err=True)
    if report.records_kept:
        names = ["/".join(name) for name in report.records_kept]
        click.echo(f"records left alone, with another value at the target ({len(names):,}): {_few(names)}", err=True)
    if report.documents_kept:
        names = ["/".join(name) for name in report.documents_kept]
        click.echo(f"documents left alone, changed later at the target ({len(names):,}): {_few(names)}", err=True)
    if report.documents_changing:
        names = ["/".join(name) for name in report.documents_changing]
        click.echo(f"documents that did not hold still ({len(names):,}): {_few(names)}", err=True)
    if report.changing:
        names = [f"{id} of {owner}" for owner, id in report.changing]
        click.echo(f"written to faster than it could be read ({len(names):,}): {_few(names)}", err=True)
    for owner, id, problem in report.failed:
        click.echo(f"refused by the target: {id} of {owner}: {problem}", err=True)


def _few(names: list[str]) -> str:
    return ", ".join(names[:10]) + (", …" if len(names) > 10 else "")
