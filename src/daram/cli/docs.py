"""``daram docs``: documents that answers come from: put in, listed, searched, removed."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from daram.cli.citations import place_words
from daram.cli.common import STORE_FLAGS, StatusLine, one_line, opened_documents, printable, with_settings
from daram.cli.places import Place, place_flags
from daram.cli.references import reference
from daram.errors import DaramError, InvalidInput, NotFound
from daram.settings import Settings
from daram.store.paging import items

if TYPE_CHECKING:
    from daram.knowledge.access import Reader
    from daram.knowledge.collections import Collection
    from daram.knowledge.documents import Documents
    from daram.knowledge.fetch import Fetcher, Network
    from daram.knowledge.files import Until
    from daram.knowledge.retrieve import Result
    from daram.store.documents import Document, Scope

PAGE = 100
_as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.group()
def docs() -> None:
    """Documents that answers come from."""


docs.add_command(reference)


# --- add ------------------------------------------------------------------------------------------------------------


@docs.command()
@click.argument("sources", metavar="FILE...", nargs=-1, required=True)
@place_flags
@click.option("--title", metavar="T", help="What the document is called; with --title-no, what that title is called.")
@click.option("--keep", is_flag=True, help="Keep the original too, not only its text.")
@click.option("--sitemap", is_flag=True, help="The URLs are sitemaps: add all pages that they name.")
@click.option(
    "--at-most", type=click.IntRange(1), metavar="N", default=1000, show_default=True, help="Pages of a sitemap."
)
@click.option(
    "--allow-network",
    "allowed",
    metavar="CIDR",
    multiple=True,
    help="Fetch from this network too, although it is not public.",
)
@with_settings(*STORE_FLAGS)
def add(
    settings: Settings,
    sources: tuple[str, ...],
    title: str | None,
    keep: bool,
    sitemap: bool,
    at_most: int,
    allowed: tuple[str, ...],
    **place: object,
) -> None:
    """Put documents into a collection, and wait until they are read.

    FILE is a file, or a URL, which is fetched. The same name again replaces that document. What was taken in when
    Ctrl-C is pressed is read at the next start. In a pipe: id, state, number of passages and name, separated by tabs.
    """
    where = msgspec.convert(place, Place)
    where.check()
    if title is not None and where.title_no is None and (len(sources) > 1 or sitemap):
        raise click.UsageError("--title is the title of one document")
    networks = [_network(text) for text in allowed]
    adding = _Adding(settings, where, title, keep)
    try:
        asyncio.run(adding.run(sources, sitemap=sitemap, at_most=at_most, networks=networks))
    except KeyboardInterrupt:
        if adding.waiting:
            click.echo(f"\n{adding.waiting} are kept and not read yet: they are read at the next start.", err=True)
        raise
    if adding.failed:
        raise click.exceptions.Exit(1)


def _network(text: str) -> Network:
    import ipaddress

    try:
        return ipaddress.ip_network(text)
    except ValueError as error:
        raise click.BadParameter(f"{error}", param_hint="--allow-network") from None


class _Adding:
    """One run of ``daram docs add``: everything is taken in first, then waited for."""

    def __init__(self, settings: Settings, place: Place, title: str | None, keep: bool) -> None:
        self._settings = settings
        self._reader = place.reader(settings.owner)
        self._scope = place.scope(settings.owner)
        # A title number is the collection's, and so is its title.
        self._title = title if place.title_no is None else None
        self._collection = title if place.title_no is not None else None
        self._until: Until = "document" if keep else "read"
        self._status = StatusLine() if sys.stderr.isatty() else None
        self.waiting = 0
        self.failed = False

    async def run(self, sources: Sequence[str], *, sitemap: bool, at_most: int, networks: Sequence[Network]) -> None:
        """Do it; what fails is said, and the rest goes on."""
        from daram.knowledge.fetch import Fetcher, FetchLimits, is_url

        files = [Path(source) for source in sources if not is_url(source)]
        if sitemap and files:
            raise InvalidInput("FILE", f"{files[0]} is no URL; --sitemap is for URLs")
        if twins := sorted({file.name for file in files if sum(other.name == file.name for other in files) > 1}):
            raise InvalidInput("FILE", f"two files are called {twins[0]!r}: one would replace the other")
        added: list[Document] = []
        async with (
            opened_documents(self._settings, reading=True) as documents,
            Fetcher(FetchLimits(pages=at_most), allow=networks) as fetcher,
        ):
            await self._name_collection(documents)
            for source in sources:
                for one in await self._pages(fetcher, source) if sitemap else [source]:
                    self._show(f"{one} …")
                    try:
                        added.append(await self._take(documents, fetcher, one))
                    except DaramError as error:
                        self._fail(str(error))
                    self.waiting = len(added)
            for document in added:
                self._say(await self._read(documents, document))
                self.waiting -= 1

    async def _name_collection(self, documents: Documents) -> None:
        if self._collection is None:
            return
        await documents.collections.ensure(*self._scope)
        await documents.collections.update(*self._scope, name=self._collection)

    async def _pages(self, fetcher: Fetcher, source: str) -> list[str]:
        self._show(f"{source} …")
        try:
            return await fetcher.sitemap(source)
        except DaramError as error:
            self._fail(str(error))
            return []

    async def _take(self, documents: Documents, fetcher: Fetcher, source: str) -> Document:
        from daram.knowledge.fetch import is_url

        if not is_url(source):
            path = _checked(source)
            return await documents.add(self._reader, self._scope, path, title=self._title, until=self._until)
        async with fetcher.open(source) as page:
            # By the URL that was asked for: fetched again, it replaces what it was.
            return await documents.add(
                self._reader,
                self._scope,
                page.pieces,
                name=source,
                title=self._title,
                media_type=page.media_type,
                until=self._until,
            )

    async def _read(self, documents: Documents, document: Document) -> Document:
        reading = asyncio.create_task(documents.wait(document))
        try:
            while not reading.done():
                if self._status is not None:
                    work = await documents.progress(document)
                    page = "" if work is None or work.page is None else f", page {work.page:,}"
                    count = "" if work is None else f": {work.passages:,} passages{page}"
                    left = f" ({self.waiting - 1} more)" if self.waiting > 1 else ""
                    self._show(f"reading {document.name}{count}{left}")
                await asyncio.wait([reading], timeout=0.3)
            return reading.result()
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)

    def _show(self, text: str) -> None:
        if self._status is not None:
            self._status.show(one_line(text))

    def _fail(self, text: str) -> None:
        self.failed = True
        if self._status is not None:
            self._status.clear()
        click.echo(f"daram: {' '.join(text.split())}", err=True)

    def _say(self, document: Document) -> None:
        if self._status is not None:
            self._status.clear()
        if document.state == "failed":
            self._fail(document.error or f"{document.name}: cannot be read")
        elif sys.stdout.isatty():
            click.echo(f"{one_line(document.name)}: {document.passages:,} passages")
        if not sys.stdout.isatty():
            click.echo(_row(document))


def _checked(source: str) -> Path:
    path = Path(source)
    if not path.is_file():
        raise InvalidInput("FILE", f"{source!r} is {'a directory' if path.is_dir() else 'not there'}")
    return path


def _row(document: Document) -> str:
    return f"{document.id}\t{document.state}\t{document.passages}\t{one_line(document.name)}"


# --- list, remove, search -------------------------------------------------------------------------------------------


@docs.command("list")
@place_flags
@_as_json
@with_settings(*STORE_FLAGS)
def list_(settings: Settings, as_json: bool, **place: object) -> None:
    """List the collections, or the documents of one.

    In a pipe, separated by tabs: the owner, id and name of a collection; the id, state, number of passages and name of
    a document.
    """
    where = msgspec.convert(place, Place)
    where.check()
    if where.named:
        found = asyncio.run(_documents(settings, where))
        if as_json:
            click.echo(msgspec.json.encode(found))
        for document in [] if as_json else found:
            if sys.stdout.isatty():
                count = f"{document.passages:,} passages" if document.state == "ready" else document.state
                error = f" ({one_line(document.error)})" if document.error else ""
                click.echo(f"{one_line(document.name)}: {count}{error}")
            else:
                click.echo(_row(document))
        return
    collections = asyncio.run(_collections(settings, where))
    if as_json:
        click.echo(msgspec.json.encode(collections))
        return
    for collection in collections:
        click.echo(f"{collection.owner}\t{collection.id}\t{one_line(collection.name)}")
    if not collections and sys.stdout.isatty():
        click.echo("No documents yet: daram docs add puts some in.", err=True)


async def _documents(settings: Settings, place: Place) -> list[Document]:
    who, scope = place.reader(settings.owner), place.scope(settings.owner)
    async with opened_documents(settings) as documents:
        found = [d async for d in items(lambda cursor: documents.list(who, scope, limit=PAGE, cursor=cursor))]
        if not found:
            await documents.collections.get(*scope)  # a name that is not there is said, not listed as empty
    return found


async def _collections(settings: Settings, place: Place) -> list[Collection]:
    async with opened_documents(settings) as documents:
        return await documents.list_collections(place.reader(settings.owner))


@docs.command()
@click.argument("names", metavar="[NAME]...", nargs=-1)
@place_flags
@click.option("--all", "everything", is_flag=True, help="Remove the collection with all its documents.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@with_settings(*STORE_FLAGS)
def remove(settings: Settings, names: tuple[str, ...], everything: bool, yes: bool, **place: object) -> None:
    """Remove documents from a collection, by name or id; nothing of them is left."""
    where = msgspec.convert(place, Place)
    where.check()
    if everything == bool(names):
        raise click.UsageError("say the NAMEs of documents, or --all")
    scope = where.scope(settings.owner)
    if everything and not yes:
        if not sys.stdin.isatty():
            raise click.UsageError("there is nobody to ask; say --yes to remove without being asked")
        click.confirm(f"Remove the collection {scope.collection!r} with all its documents?", abort=True, err=True)

    async def run() -> int:
        who = where.reader(settings.owner)
        async with opened_documents(settings) as documents:
            if everything:
                return await documents.delete_collection(who, scope)
            found = [await _find(documents, who, scope, name) for name in names]
            for document in found:
                await documents.remove(who, scope, document.id)
            return len(found)

    count = asyncio.run(run())
    click.echo(f"{count} {'document is' if count == 1 else 'documents are'} removed", err=True)


async def _find(documents: Documents, who: Reader, scope: Scope, name: str) -> Document:
    from daram.knowledge.documents import document_id

    for id in (document_id(name), name):
        try:
            return await documents.get(who, scope, id)
        except (NotFound, InvalidInput):
            continue
    raise NotFound("document", name)


@docs.command()
@click.argument("words", nargs=-1, required=True)
@place_flags
@click.option(
    "--limit", type=click.IntRange(1, 100), metavar="N", default=5, show_default=True, help="How many, the best first."
)
@_as_json
@with_settings(*STORE_FLAGS)
def search(settings: Settings, words: tuple[str, ...], limit: int, as_json: bool, **place: object) -> None:
    """Search documents for what bears on a question: in one collection, or in all.

    In a pipe: score (0 to 1), document, place and text, separated by tabs.
    """
    where = msgspec.convert(place, Place)
    where.check()
    result = asyncio.run(_search(settings, " ".join(words), where, limit))
    if as_json:
        click.echo(msgspec.json.encode(result))
        return
    for found in result.passages:
        text = printable(" ".join(found.text.split()))
        place_ = place_words(found.page, found.heading)
        name = one_line(found.title or found.name)
        if sys.stdout.isatty():
            click.echo(click.style(f"{found.score:.2f}  {name}{place_ and f', {place_}'}", bold=True))
            click.echo(f"  {text[:300]}{'…' if len(text) > 300 else ''}")
        else:
            click.echo(f"{found.score:.4f}\t{name}\t{place_}\t{text}")
    if not result.passages:
        click.echo("Nothing found.", err=True)
    elif not result.answers:
        click.echo("The documents do not seem to say: no passage is surely about that.", err=True)


async def _search(settings: Settings, query: str, place: Place, limit: int) -> Result:
    async with opened_documents(settings) as documents:
        where = place.scope(settings.owner) if place.named else None
        if where is not None:
            await documents.collections.get(*where)
        how = msgspec.structs.replace(
            documents.retrieval, passages=limit, candidates=max(limit, documents.retrieval.candidates)
        )
        return await documents.search(place.reader(settings.owner), query, where, how=how)
