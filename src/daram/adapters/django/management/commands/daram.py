"""``manage.py daram COMMAND``: the commands of ``daram`` on the store of this project, by its settings."""

from __future__ import annotations

import argparse
from typing import Any

from click.exceptions import Abort, ClickException, Exit
from django.core.management.base import BaseCommand, CommandError, CommandParser

from daram.adapters.django import conf
from daram.cli.app import OF_A_STORE, Terminal
from daram.errors import DaramError


class Command(BaseCommand):
    """Hands its arguments on, as they are; what is printed and how it ends is the command's."""

    help = (
        "Look after this project's conversations: "
        + ", ".join(str(command.name) for command in OF_A_STORE)
        + ". Options of manage.py itself (--settings, …) come first; `manage.py daram COMMAND --help` says more."
    )
    requires_system_checks: list[str] = []  # noqa: RUF012  # as Django declares it

    def add_arguments(self, parser: CommandParser) -> None:
        """Whatever follows."""
        parser.add_argument("arguments", nargs=argparse.REMAINDER, metavar="COMMAND …")

    def handle(self, *args: Any, **options: Any) -> None:
        """Run the command. Raises ``CommandError`` with its exit code where it ends badly."""
        group = Terminal("daram", commands={str(command.name): command for command in OF_A_STORE})
        words = [*args, *options.get("arguments", ())] or ["--help"]
        try:
            ended = group.main(words, prog_name="manage.py daram", standalone_mode=False, obj=conf.settings())
        except ClickException as error:
            raise CommandError(error.format_message(), returncode=error.exit_code) from error
        except (Abort, DaramError) as error:
            raise CommandError(str(error) or "aborted", returncode=1) from error
        except Exit as error:
            ended = error.exit_code
        if ended:
            raise CommandError("it did not end well; see above", returncode=int(ended))
