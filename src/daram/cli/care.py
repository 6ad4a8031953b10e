"""``daram check``, ``migrate``, ``backup``, ``restore``, ``purge``, ``erase``: looking after a store."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from daram.cli.common import with_settings
from daram.cli.move import shown
from daram.config import make_store, open_existing, open_memory, prepare_data
from daram.errors import StoreError, Unsupported
from daram.settings import Settings, mask
from daram.store.base import Store, SupportsBackup, SupportsMigrations, SupportsPostSteps
from daram.store.wrapper import engine_of

if TYPE_CHECKING:
    from daram.model import Problem
    from daram.transfer.copy import Report


@click.command()
@click.option("--repair", is_flag=True, help="Put right what can be without a guess: the search index, orphans.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@with_settings("data", "store")
def check(settings: Settings, repair: bool, as_json: bool) -> None:
    """Check that the store is whole.

    The engine's own check, rows that belong to nothing, the search index against the messages, and of every
    conversation: messages without a gap, parents that exist, branches, head and version. Ends with 1 where anything
    is wrong and was not repaired.
    """

    async def run() -> tuple[Report, list[Problem]]:
        from daram.transfer.check import check as look

        async with await open_existing(settings.store) as memory:
            with shown() as progress:
                return await look(memory, repair=repair, progress=progress)

    report, problems = asyncio.run(run())
    if as_json:
        held = {"conversations": report.conversations, "messages": report.messages}
        click.echo(msgspec.json.encode({**held, "problems": problems}))
    else:
        for problem in problems:
            click.echo(f"{problem.where}: {problem.what}{' (repaired)' if problem.repaired else ''}")
        found = f"{len(problems):,} problems" if problems else "no problem"
        click.echo(f"{report.conversations:,} conversations, {report.messages:,} messages: {found}", err=True)
    if not all(problem.repaired for problem in problems):
        raise click.exceptions.Exit(1)


@click.command()
@click.option("--dry-run", is_flag=True, help="Only say what would be done.")
@click.option("--post", is_flag=True, help="Also take away what older releases use, when the last of them has ended.")
@with_settings("data", "store")
def migrate(settings: Settings, dry_run: bool, post: bool) -> None:
    """Bring the store to the schema of this Daram.

    Opening a store does it too; this says so, at a moment of your choosing. Make a backup before. On PostgreSQL an
    older release can go on beside a newer one, until --post.
    """

    async def run() -> None:
        prepare_data(settings)
        store = make_store(settings.store)
        try:
            if not isinstance(store, SupportsMigrations):
                click.echo(f"{mask(settings.store)}: this engine has no schema; there is nothing to do", err=True)
                return
            have, known = await store.schema_versions()
            click.echo(f"{mask(settings.store)}: schema {have}, this Daram has {known}")
            late = await store.post_steps() if isinstance(store, SupportsPostSteps) else []
            steps = [n for n in range(have + 1, known + 1) if n not in late]
            if post:
                steps = sorted({*steps, *late})
                late = []
            if not steps:
                click.echo("There is nothing to do.", err=True)
            elif dry_run:
                click.echo(f"Would apply {', '.join(map(str, steps))}.", err=True)
            else:
                if post and isinstance(store, SupportsPostSteps):
                    await store.migrate()
                await store.describe()  # opens it
                click.echo(f"Now it is schema {(await store.schema_versions())[0]}.", err=True)
            if late:
                numbers = ", ".join(map(str, late))
                click.echo(f"Left for --post, when no process of an older release runs any more: {numbers}.", err=True)
        finally:
            await store.close()

    asyncio.run(run())


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--force", is_flag=True, help="Replace FILE if it is there.")
@with_settings("data", "store")
def backup(settings: Settings, file: Path, force: bool) -> None:
    """Write the store as it is at this moment into FILE, while it is in use.

    For SQLite: FILE is a database that Daram opens as it is. Of other engines `daram export` writes everything.
    """
    if file.exists() and not force:
        raise click.UsageError(f"{file} exists; name another file, or say --force to replace it")

    async def run() -> None:
        async with await open_existing(settings.store) as memory:
            engine = _with_backup(memory, settings, "backup")
            staged = file.with_name(f".{file.name}.part")
            staged.unlink(missing_ok=True)
            await engine.backup(str(staged))
            await asyncio.to_thread(staged.replace, file)

    asyncio.run(run())
    click.echo(f"{file}: {file.stat().st_size:,} bytes", err=True)


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--force", is_flag=True, help="Replace all that the store holds.")
@with_settings("data", "store")
def restore(settings: Settings, file: Path, force: bool) -> None:
    """Put a backup in the place of the store.

    Every conversation gets a new etag, so that no cache takes what it knows for what is stored now. What came after
    the backup is lost: without --force nothing that is there is replaced.
    """

    async def run() -> int:
        prepare_data(settings)
        store = make_store(settings.store)
        try:
            engine = _with_backup(store, settings, "restore")
            there = isinstance(store, SupportsMigrations) and (await _schema(store, force)) > 0
            if there and not force:
                raise click.UsageError(f"{mask(settings.store)} exists; say --force to replace all that it holds")
            return await engine.restore(str(file))
        finally:
            await store.close()

    click.echo(f"{asyncio.run(run()):,} conversations are back", err=True)


async def _schema(store: SupportsMigrations, force: bool) -> int:
    try:
        return (await store.schema_versions())[0]
    except StoreError:
        if force:  # what is there cannot be read: a reason to restore
            return 1
        raise


def _with_backup(store: Store, settings: Settings, what: str) -> SupportsBackup:
    engine = engine_of(store)
    if not isinstance(engine, SupportsBackup):
        other = "daram export" if what == "backup" else "daram import"
        hint = ", or pg_dump and pg_restore" if settings.store.startswith("postgres") else ""
        raise Unsupported(f"daram {what} is for SQLite; for {mask(settings.store)} use {other}{hint}")
    return engine


@click.command()
@with_settings("data", "store")
def purge(settings: Settings) -> None:
    """Delete the conversations and records that have expired, and forget old tombstones.

    The server does it every hour.
    """

    async def run() -> int:
        from daram.chat.recover import purge_all

        async with await open_memory(settings, new=False) as memory:
            return await purge_all(memory)

    click.echo(f"{asyncio.run(run()):,} expired conversations are deleted", err=True)


@click.command()
@click.argument("owner")
@click.option("--yes", is_flag=True, help="Do not ask.")
@with_settings("data", "store")
def erase(settings: Settings, owner: str, yes: bool) -> None:
    """Delete everything of OWNER for good: conversations, messages, answers, records.

    From the engine, its search index and the cache that is set (DARAM_CACHE) at once; another process's cache
    forgets it when its time is over, and serves it to nobody until then. Backups and exports are yours to delete.
    """
    if not yes and not sys.stdin.isatty():
        raise click.UsageError("there is nobody to ask; say --yes to erase without being asked")
    if not yes:
        click.confirm(f"Delete everything of {owner} for good?", abort=True, err=True)

    async def run() -> int:
        async with await open_memory(settings, new=False) as memory:
            return await memory.delete_owner(owner)

    click.echo(f"{asyncio.run(run()):,} conversations of {owner} are deleted, and all else of theirs", err=True)
