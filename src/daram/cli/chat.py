"""``daram chat``: the conversation in the terminal, or in a pipe: one line in, one answer out."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator

import click

from daram.cli.common import STORE_FLAGS, with_settings
from daram.cli.session import Session
from daram.errors import DaramError
from daram.settings import Settings


@click.command()
@click.option("--conversation", metavar="NAME", help="Go on with this one (id or title); begun where there is none.")
@click.option(
    "--docs", metavar="COLLECTION", multiple=True, help="Answer from this collection of documents (may be repeated)."
)
@with_settings(*STORE_FLAGS, "model")
def chat(settings: Settings, conversation: str | None, docs: tuple[str, ...]) -> None:
    """Chat in the terminal; /help says what can be done there.

    In a pipe: one line in, one answer out.
    """
    from anyio.from_thread import start_blocking_portal

    from daram.config import open_chatbot

    interactive = sys.stdin.isatty()
    with start_blocking_portal() as portal, portal.wrap_async_context_manager(open_chatbot(settings)) as opened:
        session = Session(portal, *opened, owner=settings.owner, interactive=interactive)
        session.begin(conversation, docs)
        failed = _talk(session, _prompted(session) if interactive else _piped())
    if failed and not interactive:
        raise click.exceptions.Exit(1)


def _talk(session: Session, lines: Iterator[str]) -> bool:
    """Handle line after line; returns whether one failed."""
    failed = False
    for line in lines:
        try:
            if not session.handle(line):
                break
        except DaramError as error:
            # The conversation goes on: a message that was stored is kept, and its turn can be tried again.
            click.echo(f"daram: {' '.join(str(error).split())}", err=True)
            failed = True
    return failed


def _prompted(session: Session) -> Iterator[str]:
    """The lines that are typed. The second Ctrl-C in a row leaves; one that stopped an answer was the first."""
    with contextlib.suppress(ImportError):  # line editing and history, where the system has them
        import readline  # noqa: F401
    interrupted = False
    while True:
        try:
            yield input("you> ")
            interrupted = session.stopped
        except EOFError:
            click.echo(err=True)
            return
        except KeyboardInterrupt:
            click.echo(err=True)
            if interrupted:
                return
            click.echo("(Ctrl-C again, Ctrl-D or /quit leaves)", err=True)
            interrupted = True


def _piped() -> Iterator[str]:
    # What is not UTF-8 becomes lone surrogates, which the store refuses with an error that says so.
    for raw in sys.stdin.buffer:
        yield raw.decode("utf-8", "surrogateescape").rstrip("\r\n")
