"""``daram user``, ``daram key``: who may come in by the browser and by the API."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click
import msgspec

from daram.cli.common import moment, one_line, printable, with_settings
from daram.errors import InvalidInput, MissingExtra
from daram.settings import Settings

if TYPE_CHECKING:
    from daram.service.accounts.models import ApiKey

_NEEDED = ("argon2", "django", "ninja")
_as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
_password_stdin = click.option("--password-stdin", is_flag=True, help="Read the password from the standard input.")


@contextmanager
def _accounts(settings: Settings) -> Iterator[None]:
    """The accounts, open for use. Raises ``MissingExtra`` or ``ConfigError``."""
    if any(importlib.util.find_spec(name) is None for name in _NEEDED):
        raise MissingExtra("Accounts", "serve")
    from daram.service.accounts.setup import close_accounts, prepare_accounts

    prepare_accounts(settings)
    try:
        yield
    finally:
        close_accounts()


def _read_password(from_stdin: bool) -> str:
    if not from_stdin:
        if not sys.stdin.isatty():
            raise click.UsageError("there is nobody to ask; say --password-stdin and give the password that way")
        asked: str = click.prompt("Password", hide_input=True, confirmation_prompt="Once more", err=True)
        return asked
    # One line, as the tools that print passwords write it; a blank within it belongs to it.
    given = sys.stdin.readline().rstrip("\r\n")
    if not given:
        raise InvalidInput("password", "the standard input holds none")
    return given


# --- users ----------------------------------------------------------------------------------------------------------


@click.group()
def user() -> None:
    """Who may log in."""


@user.command()
@click.argument("name")
@click.option("--email", metavar="ADDRESS", default="", help="An e-mail address to log in with as well.")
@click.option("--admin", is_flag=True, help="May administer users, keys and conversations.")
@_password_stdin
@click.option("--no-password", is_flag=True, help="Comes in by API keys and by links only.")
@with_settings("data")
def add(settings: Settings, name: str, email: str, admin: bool, password_stdin: bool, no_password: bool) -> None:
    """Add a user.

    Without --password-stdin the terminal asks for the password.
    """
    if password_stdin and no_password:
        raise click.UsageError("--password-stdin and --no-password exclude each other")
    password = None if no_password else _read_password(password_stdin)
    with _accounts(settings):
        from daram.service.accounts.people import add_user

        added = add_user(name, password=password, email=email, admin=admin)
        click.echo(f"{added.username} is added{' as an administrator' if admin else ''}", err=True)


@user.command("list")
@_as_json
@with_settings("data")
def list_users(settings: Settings, as_json: bool) -> None:
    """List the users.

    In a pipe: name, e-mail address, state and last login, separated by tabs.
    """
    with _accounts(settings):
        from daram.service.accounts.models import User

        users = list(User.objects.order_by("username"))
    found = [
        {
            "name": each.username,
            "email": each.email,
            "admin": each.is_staff,
            "active": each.is_active,
            "owner": each.owner,
            "last_login": each.last_login,
        }
        for each in users
    ]
    if as_json:
        click.echo(msgspec.json.encode(found))
        return
    rows = []
    for each in users:
        state = "inactive" if not each.is_active else "admin" if each.is_staff else "user"
        rows.append((each.username, each.email, state, moment(each.last_login) if each.last_login else "never"))
    _print(("name", "e-mail", "state", "last login"), rows)


@user.command()
@click.argument("name")
@_password_stdin
@with_settings("data")
def password(settings: Settings, name: str, password_stdin: bool) -> None:
    """Set the password of a user; all their sessions end."""
    chosen = _read_password(password_stdin)
    with _accounts(settings):
        from daram.service.accounts.people import find_user, set_password

        found = find_user(name)
        set_password(found, chosen)
        click.echo(f"The password of {found.username} is set", err=True)


@user.command()
@click.argument("name")
@with_settings("data", "host", "port")
def link(settings: Settings, name: str) -> None:
    """Print a link that logs a user in, once, within 15 minutes."""
    with _accounts(settings):
        from daram.service.accounts.people import find_user, make_login_link

        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        click.echo((settings.public_url or f"http://{host}:{settings.port}") + make_login_link(find_user(name)))


# --- keys -----------------------------------------------------------------------------------------------------------


@click.group()
def key() -> None:
    """Keys for the API."""


@key.command()
@click.argument("name")
@click.option(
    "--scope",
    type=click.Choice(["read", "write", "admin"]),
    default="write",
    show_default=True,
    metavar="SCOPE",
    help="What it may do: read, write (and read), admin (and both).",
)
@click.option("--label", metavar="TEXT", default="", help="What it is for.")
@click.option("--days", type=click.IntRange(1, 36500), metavar="N", help="After how many days it stops working.")
@with_settings("data")
def create(settings: Settings, name: str, scope: str, label: str, days: int | None) -> None:
    """Make a key of the user NAME and print it, and nothing else.

    It is shown this once: only a digest of it is kept.
    """
    with _accounts(settings):
        from datetime import timedelta

        from django.utils import timezone

        from daram.service.accounts.keys import create_key
        from daram.service.accounts.people import find_user

        expires = None if days is None else timezone.now() + timedelta(days=days)
        _, secret = create_key(find_user(name), name=label, scopes=[scope], expires_at=expires)
        click.echo(secret)


@key.command("list")
@click.argument("name", required=False)
@_as_json
@with_settings("data")
def list_keys(settings: Settings, name: str | None, as_json: bool) -> None:
    """List the keys, of all users or of the user NAME, the newest first.

    In a pipe: prefix, user, scopes, label, last use and state, separated by tabs.
    """
    with _accounts(settings):
        from daram.service.accounts.models import ApiKey
        from daram.service.accounts.people import find_user

        wanted = ApiKey.objects.select_related("user")
        keys = list(wanted if name is None else wanted.filter(user=find_user(name)))
    found = [
        {
            "prefix": each.prefix,
            "user": each.user.username,
            "scopes": each.scopes.split(),
            "label": each.name,
            "created_at": each.created_at,
            "last_used_at": each.last_used_at,
            "expires_at": each.expires_at,
            "revoked_at": each.revoked_at,
        }
        for each in keys
    ]
    if as_json:
        click.echo(msgspec.json.encode(found))
        return
    rows = []
    for each in keys:
        used = moment(each.last_used_at) if each.last_used_at else "never"
        rows.append((each.prefix, each.user.username, each.scopes, one_line(each.name or "-"), used, _state(each)))
    _print(("prefix", "user", "scopes", "label", "last used", "state"), rows)


@key.command()
@click.argument("prefix")
@with_settings("data")
def revoke(settings: Settings, prefix: str) -> None:
    """Revoke the key with this PREFIX, at once and for good."""
    with _accounts(settings):
        from daram.service.accounts import keys
        from daram.service.accounts.models import ApiKey

        # A whole key is taken, too: who has found one wants it revoked. It is not said again.
        known = "-".join(prefix.split("-")[:2])
        found = ApiKey.objects.filter(prefix=known).first()
        if found is None:
            raise InvalidInput("PREFIX", "there is no such key; daram key list shows them")
        keys.revoke(found)
        click.echo(f"{found.prefix} is revoked", err=True)


def _state(each: ApiKey) -> str:
    if each.revoked_at is not None:
        return "revoked"
    if each.over:
        return "expired"
    return "works" if each.works else "user inactive"


def _print(columns: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
    if not sys.stdout.isatty():
        for row in rows:
            click.echo("\t".join(row))
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    for column in columns:
        table.add_column(column)
    for row in rows:
        table.add_row(*(Text(printable(cell)) for cell in row))
    Console().print(table)
