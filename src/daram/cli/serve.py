"""``daram serve``: the chat page in the browser."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import ipaddress
import socket
from typing import TYPE_CHECKING

import click

from daram.cli.common import STORE_FLAGS, StatusLine, with_settings
from daram.config import make_model
from daram.errors import ConfigError, MissingExtra
from daram.settings import Settings

if TYPE_CHECKING:
    from daram.llm.base import ChatModel

GRACE = 10  # seconds that open connections get at the end


@click.command()
@with_settings(*STORE_FLAGS, "model", "host", "port")
def serve(settings: Settings) -> None:
    """Open the chat page, on this machine only."""
    if any(importlib.util.find_spec(name) is None for name in ("chainlit", "starlette", "uvicorn")):
        raise MissingExtra("The chat page", "serve")
    listener = _listen(settings.host, settings.port)
    with contextlib.suppress(KeyboardInterrupt):  # Ctrl-C is how it ends
        if not asyncio.run(_serve(settings, listener)):
            raise click.exceptions.Exit(1)


async def _serve(settings: Settings, listener: socket.socket) -> bool:
    """Serve until a signal; returns whether it ever began."""
    import uvicorn

    from daram.ui.app import create_app

    host, port = listener.getsockname()[:2]
    url = f"http://{f'[{host}]' if ':' in host else host}:{port}/"
    model = make_model(settings)
    telling: asyncio.Task[None] | None = None

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            nonlocal telling
            await super().startup(sockets)
            if self.started:
                click.echo(f"The conversations are in {settings.shown()['DARAM_STORE']}", err=True)
                click.echo(f"The chat page is at {url} (Ctrl-C ends it)")
                telling = asyncio.create_task(_tell(model))

    try:
        application = create_app(settings, model=model)
        server = Server(uvicorn.Config(application, log_level="warning", timeout_graceful_shutdown=GRACE))
        await server.serve([listener])
        return server.started
    finally:
        if telling is not None:
            telling.cancel()
        await model.close()


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


def _listen(host: str, port: int) -> socket.socket:
    """A socket on the loopback interface. Raises ``ConfigError`` for any other, or where the port is taken."""
    try:
        address = ipaddress.ip_address("127.0.0.1" if host == "localhost" else host.strip("[]"))
    except ValueError as error:
        raise ConfigError(f"DARAM_HOST: {host!r} is not an address; allowed: 127.0.0.1, ::1, localhost") from error
    if not address.is_loopback:
        raise ConfigError(
            f"DARAM_HOST: {host} can be reached from other machines, but this page knows no users: whoever reached it "
            "could read and write everything. It listens on 127.0.0.1, ::1 or localhost only; from another machine, "
            "come through an SSH tunnel (ssh -L)"
        )
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
