"""Writes the pages of docs/reference that are made from the code: the settings and the command line (`make docs`)."""

from __future__ import annotations

import inspect
from pathlib import Path

import click

from daram.cli.app import cli
from daram.settings import variables

DOCS = Path(__file__).resolve().parent.parent / "docs" / "reference"
CONFIGURATION = """\
# Configuration

<!-- Made from the code by `make docs`: change it there. -->

Daram reads its settings from flags and, where there is no flag, from environment variables; an empty variable counts as
not set. A value that cannot be used is refused at the start, with the name of the variable and what is allowed.
`daram config` prints the settings in effect, secrets masked; `daram doctor` says what they lead to and points out
mistyped variables.
"""
COMMAND_LINE = """\
# The command line

<!-- Made from the code by `make docs`: change it there. -->

A flag that is a setting has an environment variable, which stands behind it in brackets; see
[Configuration](configuration.md). An error is one line on stderr; `DARAM_DEBUG=1` shows where in the code it arose. The
exit code is 0, 1 where something failed, 2 for a wrong flag or setting, 130 after Ctrl-C.
"""


def configuration() -> str:
    """The page of all settings."""
    lines = [
        CONFIGURATION,
        "| Variable | Flag | What it is for | Allowed | Default |",
        "|---|---|---|---|---|",
    ]
    for variable in variables().values():
        flag = f"`{variable.flag}`" if variable.flag else ""
        cells = (f"`{variable.name}`", flag, variable.about, variable.kind.allowed, variable.default)
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def command_line() -> str:
    """The page of all commands. It is not what `--help` prints: that differs from one release of click to the next."""
    sections = [COMMAND_LINE]
    for path, command in _commands(cli, ["daram"]):
        arguments = [item for item in command.params if isinstance(item, click.Argument)]
        options = [item for item in command.params if isinstance(item, click.Option)]
        usage = " ".join([*path, *(["[OPTIONS]"] if options else []), *map(_argument, arguments)])
        if isinstance(command, click.Group):
            usage += " COMMAND"
        sections.append(f"## {' '.join(path)}\n\n`{usage}`\n\n{inspect.cleandoc(command.help or '')}\n")
        if options:
            rows = [f"| `{_option(item)}` | {_words(item)} |" for item in options]
            sections.append("\n".join(["| Option | What it does |", "|---|---|", *rows]) + "\n")
    return "\n".join(sections)


def _argument(item: click.Argument) -> str:
    name = (item.name or "").upper()
    return (name if item.required else f"[{name}]") + ("..." if item.nargs == -1 else "")


def _option(item: click.Option) -> str:
    value = "" if item.is_flag else f" {item.metavar or item.type.name.upper()}"
    return ", ".join(item.opts) + value


def _words(item: click.Option) -> str:
    default = f" Default: {item.default}." if item.show_default else ""
    return f"{item.help}{default}".replace("|", "\\|")


def _commands(command: click.Command, path: list[str]) -> list[tuple[list[str], click.Command]]:
    found = [(path, command)]
    if isinstance(command, click.Group):
        for name in sorted(command.commands):
            found += _commands(command.commands[name], [*path, name])
    return found


PAGES = {"configuration.md": configuration, "cli.md": command_line}

if __name__ == "__main__":
    for name, page in PAGES.items():
        (DOCS / name).write_text(page(), "utf-8")
