"""From a URL to an engine, imported only when it is asked for."""

from __future__ import annotations

import re
from importlib.util import find_spec
from urllib.parse import SplitResult, parse_qsl, quote, unquote, urlencode, urlsplit, urlunsplit

from daram.errors import ConfigError, MissingExtra
from daram.store.base import Store

_KNOWN = "sqlite:///path/to/file.db, postgresql://user:password@host/database, redis://host:6379/0 and memory://"
_REDIS = ("redis", "rediss", "unix", "redis+cluster", "rediss+cluster", "redis+sentinel")
_FLAGS = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}


def store_from_url(url: str) -> Store:
    """The engine for a URL, not opened yet.

    ``sqlite:///relative/or////absolute.db`` (as in SQLAlchemy; options ``?synchronous=FULL|NORMAL|OFF``,
    ``busy_timeout=SECONDS``, ``read_only=true``); ``postgresql://user:password@host:port/database`` (options
    ``?schema=NAME``, ``pool_size=N``, ``pool_wait=SECONDS``, ``timeout=SECONDS``, ``statement_timeout=SECONDS``, and
    all that libpq has); ``redis://user:password@host:6379/0`` (Redis or Valkey; ``rediss://`` with TLS, ``unix://`` and
    the path of a socket, ``redis+cluster://host:port``, ``rediss+cluster://``,
    ``redis+sentinel://host:26379,host2:26379/service``; options ``?timeout=SECONDS``, ``wait=REPLICAS``);
    ``memory://`` keeps nothing beyond the process. A plain path that ends in ``.db`` or ``.sqlite`` is an SQLite file
    too. Raises ``ConfigError``, and ``MissingExtra`` where the engine's driver is not installed.
    """
    if not url or not isinstance(url, str):
        raise ConfigError(f"the store's URL must be a string such as {_KNOWN}, not {url!r}")
    if "://" not in url and url.endswith((".db", ".sqlite", ".sqlite3")):
        url = f"sqlite:///{quote(url)}"  # characters that mean something in a URL may stand in a path
    try:
        parts = urlsplit(url)
        options = dict(parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query)))
    except ValueError as error:
        raise ConfigError(f"the store's URL {_masked(url)!r} cannot be read: {error}") from None
    if parts.scheme == "memory":
        from daram.store.memory import MemoryStore

        _no_more(options, url)
        return MemoryStore()
    if parts.scheme == "sqlite":
        if parts.fragment:
            raise ConfigError(f"the store's URL {url!r} has a #: write %23 where it belongs to the path of the file")
        return _sqlite(parts.netloc, parts.path, options, url)
    if parts.scheme in ("postgresql", "postgres"):
        return _postgres(parts, options)
    if parts.scheme in _REDIS:
        return _redis(parts, options, url)
    raise ConfigError(f"no engine for the store's URL {_masked(url)!r}: this Daram knows {_KNOWN}")


def _sqlite(host: str, path: str, options: dict[str, str], url: str) -> Store:
    from daram.store.sqlite.engine import SqliteStore

    path = unquote(path).removeprefix("/")
    if host or not path or path == ":memory:":
        raise ConfigError(
            f"the store's URL {url!r} names no file; write sqlite:///relative.db or sqlite:////absolute.db "
            "(three slashes and the path), or memory:// to keep nothing"
        )
    synchronous = options.pop("synchronous", "FULL").upper()
    if synchronous not in ("FULL", "NORMAL", "OFF"):
        raise ConfigError(f"synchronous={synchronous} in the store's URL must be FULL, NORMAL or OFF")
    busy_timeout = _number(options, "busy_timeout", 10, 0, 3600)
    flag = options.pop("read_only", "false").lower()
    if flag not in _FLAGS:
        raise ConfigError(f"read_only={flag} in the store's URL must be true or false")
    _no_more(options, url)
    return SqliteStore(path, synchronous=synchronous, busy_timeout=busy_timeout, read_only=_FLAGS[flag])  # type: ignore[arg-type]  # checked above


def _postgres(parts: SplitResult, options: dict[str, str]) -> Store:
    if find_spec("psycopg") is None:
        raise MissingExtra("PostgreSQL", "postgres")
    from daram.store.postgres.engine import PostgresStore

    schema = options.pop("schema", "daram")
    if not 0 < len(schema.encode()) <= 63 or schema.startswith("pg_"):
        raise ConfigError(f"schema={schema} in the store's URL must have 1 to 63 bytes and not begin with pg_")
    size = int(_number(options, "pool_size", 10, 1, 1000))
    wait = _number(options, "pool_wait", 10, 0, 3600)
    timeout = _number(options, "timeout", 30, 0.001, 86_400)
    if "statement_timeout" in options:
        # Sent when a connection is made; a pooler must be told to let it pass.
        limit = _number(options, "statement_timeout", 0, 0, 86_400)
        options["options"] = f"{options.get('options', '')} -c statement_timeout={int(limit * 1000)}".strip()
    conninfo = urlunsplit(("postgresql", parts.netloc, parts.path, urlencode(options, quote_via=quote), ""))
    return PostgresStore(conninfo, schema=schema, pool_size=size, pool_wait=wait, timeout=timeout)


def _redis(parts: SplitResult, options: dict[str, str], url: str) -> Store:
    if find_spec("redis") is None:
        raise MissingExtra("Redis", "redis")
    from daram.store.redis.engine import RedisStore

    timeout = _number(options, "timeout", 10, 0.001, 3600)
    wait = int(_number(options, "wait", 0, 0, 100))
    database = f"?db={int(_number(options, 'db', 0, 0, 1_000_000))}" if parts.scheme == "unix" else ""
    _no_more(options, url)
    place = f"{parts.scheme}://{parts.netloc}{parts.path}{database}"
    return RedisStore(place, timeout=timeout, wait=wait)


def _number(options: dict[str, str], name: str, default: float, low: float, high: float) -> float:
    given = options.pop(name, None)
    if given is None:
        return default
    try:
        value = float(given)
    except ValueError:
        value = low - 1
    if not low <= value <= high:
        raise ConfigError(f"{name}={given} in the store's URL must be a number from {low:g} to {high:g}")
    return value


def _no_more(options: dict[str, str], url: str) -> None:
    if options:
        raise ConfigError(f"unknown option {', '.join(sorted(options))} in the store's URL {_masked(url)!r}")


def _masked(url: str) -> str:
    """The URL without the password that it may hold."""
    url = re.sub(r"([?&]password=)[^&\s]+", r"\1***", url)
    head, at, tail = url.rpartition("@")
    scheme, sep, login = head.partition("://")
    return f"{scheme}{sep}{login.partition(':')[0]}:***@{tail}" if at and sep else url
