"""The ``daram`` command: its parts, and how errors are said."""

from __future__ import annotations

import logging
import os
import traceback
from importlib.metadata import version
from typing import IO, Any, Final

import click

from daram.cli.accounts import key, user
from daram.cli.care import backup, check, erase, migrate, purge, restore
from daram.cli.chat import chat
from daram.cli.conversations import delete, list_, rename, search, show
from daram.cli.docs import docs
from daram.cli.doctor import config, doctor
from daram.cli.models import model
from daram.cli.move import copy, export, import_
from daram.cli.serve import serve
from daram.errors import ConfigError, DaramError

INTERRUPTED: Final = 130  # what a shell reports of a program that Ctrl-C ended


def _debugging() -> bool:
    return os.environ.get("DARAM_DEBUG", "").lower() not in ("", "0", "off", "no", "false")


class _OneLine(logging.Formatter):
    """What the library has to say while a command runs: a line each, and with DARAM_DEBUG=1 where it arose."""

    def format(self, record: logging.LogRecord) -> str:
        if _debugging():
            return super().format(record)
        error = record.exc_info[1] if record.exc_info else None
        said = f"{record.getMessage()}: {type(error).__name__}: {error}" if error else record.getMessage()
        return f"daram: {' '.join(said.split())}"


class Failure(click.ClickException):
    """An error as the terminal says it: one line, and with DARAM_DEBUG=1 where it arose."""

    def __init__(self, cause: Exception) -> None:
        super().__init__(" ".join(str(cause).split()) or type(cause).__name__)
        self.cause = cause

    def show(self, file: IO[Any] | None = None) -> None:
        """Print it."""
        debug = _debugging()
        if debug:
            click.echo("".join(traceback.format_exception(self.cause)), file=file, err=True, nl=False)
        if isinstance(self.cause, DaramError):
            line = f"daram: {self.message}"
        else:
            line = f"daram: {type(self.cause).__name__}: {self.message}"
            line += "" if debug else " (DARAM_DEBUG=1 shows where)"
        click.echo(line, file=file, err=True)


class Misconfigured(Failure):
    """A setting that cannot be used: the same exit code as click's for a wrong flag."""

    exit_code = 2


class Terminal(click.Group):
    """A group whose errors are one line each."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; what it raises becomes a ``Failure``."""
        try:
            return super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit, click.Abort, BrokenPipeError):
            raise  # click's own: usage, end, end of input, a reader that has gone
        except KeyboardInterrupt:
            click.echo(err=True)
            raise click.exceptions.Exit(INTERRUPTED) from None
        except ConfigError as error:
            raise Misconfigured(error) from error
        except Exception as error:
            raise Failure(error) from error


@click.group(cls=Terminal, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(version("daram"), prog_name="daram")
def cli() -> None:
    """A chat that remembers.

    Settings come from flags and the environment; "daram config" shows them.
    """


_CONVERSATIONS = (chat, list_, show, search, rename, delete)
_STORE = (copy, export, import_, check, migrate, backup, restore, purge, erase)
OF_A_STORE: Final = (*_CONVERSATIONS[1:], docs, *_STORE, doctor, config)
"""What somebody else's command line can offer for a store of theirs (Django's manage.py)."""
for command in (serve, user, key, *_CONVERSATIONS, docs, *_STORE, model, doctor, config):
    cli.add_command(command)


def main() -> None:
    """Run the command line and exit."""
    handler = logging.StreamHandler()
    handler.setFormatter(_OneLine("daram: %(levelname)s %(name)s: %(message)s"))
    logging.getLogger("daram").addHandler(handler)
    logging.getLogger("daram").propagate = False
    cli(prog_name="daram")
