"""``daram serve``: the chat page in the browser."""

from __future__ import annotations

import ipaddress
import socket

import click

from daram.cli.common import STORE_FLAGS, with_settings
from daram.errors import ConfigError, MissingExtra
from daram.settings import Settings

GRACE = 10  # seconds that open connections get at the end


@click.command()
@with_settings(*STORE_FLAGS, "model", "host", "port")
def serve(settings: Settings) -> None:
    """Open the chat page, on this machine only."""
    listener = _listen(settings.host, settings.port)
    try:
        import uvicorn

        from daram.ui.app import create_app
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("uvicorn", "chainlit", "starlette"):
            raise
        raise MissingExtra("The chat page", "serve") from error

    host, port = listener.getsockname()[:2]
    url = f"http://{f'[{host}]' if ':' in host else host}:{port}/"

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            if self.started:
                click.echo(f"Conversations: {settings.shown()['DARAM_STORE']}", err=True)
                click.echo(f"The chat page is at {url} (Ctrl-C ends it)")

    application = create_app(settings)
    config = uvicorn.Config(application, log_level="warning", timeout_graceful_shutdown=GRACE, ws="auto")
    server = Server(config)
    server.run(sockets=[listener])
    if not server.started:
        raise click.exceptions.Exit(1)


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
