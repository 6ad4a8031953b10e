"""From a URL to an engine, imported only when it is asked for."""

from __future__ import annotations

from urllib.parse import parse_qsl, unquote, urlsplit

from daram.errors import ConfigError
from daram.store.base import Store

_KNOWN = "sqlite:///path/to/file.db and memory://"
_FLAGS = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}


def store_from_url(url: str) -> Store:
    """The engine for a URL, not opened yet.

    ``sqlite:///relative/or////absolute.db`` (as in SQLAlchemy; options ``?synchronous=FULL|NORMAL|OFF``,
    ``busy_timeout=SECONDS``, ``read_only=true``); ``memory://`` keeps nothing beyond the process. A plain path that
    ends in ``.db`` or ``.sqlite`` is an SQLite file too. Raises ``ConfigError``.
    """
    if not url:
        raise ConfigError(f"the store's URL must be a string such as {_KNOWN}, not {url!r}")
    if "://" not in url and url.endswith((".db", ".sqlite", ".sqlite3")):
        url = f"sqlite:///{url}"
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
        return _sqlite(parts.netloc, parts.path, options, url)
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
    waiting = options.pop("busy_timeout", "10")
    try:
        busy_timeout = float(waiting)
    except ValueError:
        busy_timeout = -1.0
    if not 0 <= busy_timeout <= 3600:
        raise ConfigError(f"busy_timeout={waiting} in the store's URL must be seconds from 0 to 3600")
    flag = options.pop("read_only", "false").lower()
    if flag not in _FLAGS:
        raise ConfigError(f"read_only={flag} in the store's URL must be true or false")
    _no_more(options, url)
    return SqliteStore(path, synchronous=synchronous, busy_timeout=busy_timeout, read_only=_FLAGS[flag])  # type: ignore[arg-type]  # checked above


def _no_more(options: dict[str, str], url: str) -> None:
    if options:
        raise ConfigError(f"unknown option {', '.join(sorted(options))} in the store's URL {_masked(url)!r}")


def _masked(url: str) -> str:
    """The URL without the password that it may hold."""
    head, at, tail = url.rpartition("@")
    scheme, sep, login = head.partition("://")
    return f"{scheme}{sep}{login.partition(':')[0]}:***@{tail}" if at and sep else url
