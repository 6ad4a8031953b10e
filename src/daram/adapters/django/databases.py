"""From an alias of ``DATABASES`` to the URL of the store that lies beside the project's tables."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from django.core.exceptions import ImproperlyConfigured
from django.db import connections
from django.db.utils import ConnectionDoesNotExist

from daram.errors import ConfigError, MissingExtra


def store_url(alias: str) -> str:
    """The store of the database ``alias``, as it is now (Django's test runner renames databases).

    PostgreSQL: that database, in a schema of Daram's own. SQLite: a file of its own beside it (``db.sqlite3``:
    ``db.daram.db``), since a Daram file is never opened by another SQLite library; where Django keeps it in memory, so
    does Daram. Raises ``ConfigError`` for another database, and ``MissingExtra``.
    """
    try:
        connection = connections[alias]
    except ConnectionDoesNotExist:
        raise ConfigError(f"DATABASES has no {alias!r}; there are: {', '.join(connections)}") from None
    except ImproperlyConfigured as error:
        raise ConfigError(f"DATABASES[{alias!r}]: {error}") from error
    if connection.vendor == "postgresql":
        return postgres_url(connection.settings_dict)
    if connection.vendor == "sqlite":
        return _sqlite(alias, connection)
    raise ConfigError(
        f"DATABASES[{alias!r}] is {connection.display_name}, where Daram cannot keep conversations; set "
        'DARAM["STORE"] to a URL (sqlite:///…, postgresql://…, redis://…), or DARAM["DATABASE"] to another alias'
    )


def _sqlite(alias: str, connection: Any) -> str:
    name = str(connection.settings_dict["NAME"])
    if connection.is_in_memory_db():
        return "memory://"
    if name.startswith("file:"):
        raise ConfigError(f'DATABASES[{alias!r}] is the URI {name!r}; name a file for Daram in DARAM["STORE"]')
    return "sqlite:///" + quote(str(Path(name).absolute().with_suffix(".daram.db")), safe="/:\\")


def postgres_url(said: dict[str, Any]) -> str:
    """The URL of an entry of ``DATABASES``, for libpq. Raises ``MissingExtra``."""
    if find_spec("psycopg") is None:
        raise MissingExtra("a store on PostgreSQL", "postgres")
    from psycopg.pq import Conninfo

    host, port = str(said.get("HOST") or ""), str(said.get("PORT") or "")
    known = {option.keyword.decode() for option in Conninfo.get_defaults()}
    # Django's own options (pool, isolation_level, …) are not libpq's.
    options = {name: str(value) for name, value in (said.get("OPTIONS") or {}).items() if name in known}
    login = "".join(
        (quote(str(said.get("USER") or ""), safe=""), _after(":", quote(str(said.get("PASSWORD") or ""), safe="")))
    )
    if host.startswith("/") or "," in host or not host:  # a directory of sockets, several hosts, or libpq's own choice
        options |= {name: value for name, value in (("host", host), ("port", port)) if value}
        place = ""
    else:
        place = (f"[{host}]" if ":" in host else host) + _after(":", port)
    query = _after("?", urlencode(options, quote_via=quote))
    return f"postgresql://{login}{'@' if login else ''}{place}/{quote(str(said.get('NAME') or ''), safe='')}{query}"


def _after(sign: str, text: str) -> str:
    return f"{sign}{text}" if text else ""
