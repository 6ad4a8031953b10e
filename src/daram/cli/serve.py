"""``daram serve``: the service, with the chat page in the browser and the API."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import ipaddress
import os
import socket
import sys
from typing import TYPE_CHECKING

import click

from daram.cli.common import STORE_FLAGS, StatusLine, with_settings
from daram.config import make_model
from daram.errors import ConfigError, MissingExtra
from daram.settings import Settings

if TYPE_CHECKING:
    from daram.llm.base import ChatModel
    from daram.service.asgi import Service

GRACE = 15  # seconds that open connections get beyond the time that running answers get: a slow disk takes some
_NEEDED = ("argon2", "chainlit", "django", "ninja", "starlette", "uvicorn")


@click.command()
@with_settings(*STORE_FLAGS, "model", "host", "port")
def serve(settings: Settings) -> None:
    """Open the chat page and the API; on this machine only, unless accounts are set up and hosts allowed."""
    if any(importlib.util.find_spec(name) is None for name in _NEEDED):
        raise MissingExtra("The service", "serve")
    listener = _listen(settings)
    with contextlib.suppress(KeyboardInterrupt):  # Ctrl-C is how it ends
        if not asyncio.run(_serve(settings, listener)):
            raise click.exceptions.Exit(1)


async def _serve(settings: Settings, listener: socket.socket) -> bool:
    """Serve until a signal; returns whether it ever began."""
    import uvicorn

    from daram.service.asgi import create_app
    from daram.service.door import door
    from daram.service.observe import logs, traces

    logs.set_up(settings.log)
    traces.set_up()
    model = make_model(settings)
    telling: asyncio.Task[None] | None = None

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            nonlocal telling
            await super().startup(sockets)
            if self.started:
                await _say_where(settings, listener)
                telling = asyncio.create_task(_tell(model))

        async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
            # While connections are still open: whoever follows an answer hears how it ends.
            draining = asyncio.create_task(service.drain())
            await super().shutdown(sockets)
            await draining

    try:
        service: Service = create_app(settings, model=model)
        server = Server(door(service, settings, grace=GRACE))
        await server.serve([listener])
        return server.started
    finally:
        if telling is not None:
            telling.cancel()
        await model.close()


async def _say_where(settings: Settings, listener: socket.socket) -> None:
    host, port = listener.getsockname()[:2]
    own = f"http://{f'[{host}]' if ':' in host else host}:{port}"
    click.echo(f"The conversations are in {settings.shown()['DARAM_STORE']}", err=True)
    if not ipaddress.ip_address(host).is_loopback:
        click.echo(f"Daram is at {settings.public_url or own}/ (Ctrl-C ends it)")
        return
    from daram.service.accounts.auth import in_accounts
    from daram.service.accounts.people import local_user, make_login_link

    local = await in_accounts(local_user, settings.owner)
    click.echo(f"Daram is at {settings.public_url or own}/ (Ctrl-C ends it)")
    if settings.public_url or settings.allowed_hosts or _is_kept():
        # It would let whoever reads the log administer the service, from wherever it can be reached.
        click.echo(f"To log in as this machine's user: daram user link {local.username}")
        return
    link = await in_accounts(make_login_link, local)
    click.echo(f"To log in, open this link once, within 15 minutes: {own}{link}")


def _is_kept() -> bool:
    """Whether what is said goes to systemd's journal, which others may read, too."""
    try:
        out = os.fstat(sys.stdout.fileno())
    except (OSError, ValueError):
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{out.st_dev}:{out.st_ino}"


async def _tell(model: ChatModel) -> None:
    """Say how far the model is, until it is ready."""
    status = StatusLine()
    pause = 1.0
    while (doing := await model.ready()) is not None:
        status.show(f"Model: {doing}")
        await asyncio.sleep(pause)
        pause = min(pause * 1.2, 10.0)
    status.show(f"Model: {model.name} is ready")
    status.keep()


def _listen(settings: Settings) -> socket.socket:
    """A socket on the address. Raises ``ConfigError`` where others could reach it and nobody said that they may."""
    host, port = settings.host, settings.port
    try:
        address = ipaddress.ip_address("127.0.0.1" if host == "localhost" else host.strip("[]"))
    except ValueError as error:
        raise ConfigError(
            f"DARAM_HOST: {host!r} is not an address; allowed: 127.0.0.1, ::1, localhost, or an address of this machine"
        ) from error
    if not address.is_loopback:
        _check_open_to_others(settings)
    family = socket.AF_INET6 if address.version == 6 else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((str(address), port))
    except OSError as error:
        listener.close()
        raise ConfigError(
            f"DARAM_PORT: port {port} of {address} cannot be had ({error.strerror}); "
            "choose another one with --port, or --port 0 for any that is free"
        ) from error
    return listener


def _check_open_to_others(settings: Settings) -> None:
    """What there must be before other machines may come."""
    people = "make somebody who can log in: daram user add NAME --admin --password-stdin"
    missing = ""
    if not (settings.allowed_hosts or settings.public_url):
        missing = f"say under which names they come, with DARAM_ALLOWED_HOSTS or DARAM_PUBLIC_URL, and {people}"
    elif not (settings.oidc_url or _has_passwords(settings)):
        missing = people
    if missing:
        raise ConfigError(
            f"DARAM_HOST: {settings.host} can be reached from other machines. Before that, {missing}. "
            "For yourself alone leave DARAM_HOST at 127.0.0.1 and come through an SSH tunnel (ssh -L)"
        )


def _has_passwords(settings: Settings) -> bool:
    from daram.service.accounts.setup import prepare_accounts

    prepare_accounts(settings)
    from django.contrib.auth.hashers import is_password_usable
    from django.db import connection

    from daram.service.accounts.models import User

    try:
        hashes = User.objects.filter(is_active=True).values_list("password", flat=True)
        return any(found and is_password_usable(found) for found in hashes)
    finally:
        connection.close()
