"""What a setting is made of, and what its value may be: how its text is read, and how that is said."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from ipaddress import ip_network
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

_HOST = re.compile(r"\.?[a-z0-9_-]+(\.[a-z0-9_-]+)*\.?|\[?[0-9a-f:.]+\]?")  # a name or an address, in lower case


class Kind(NamedTuple):
    """What a value may be: ``read`` takes its text and raises ValueError where it is not what ``allowed`` says."""

    read: Callable[[str], Any]
    allowed: str


def numbers(read: Callable[[str], float], low: float, high: float, what: str) -> Kind:
    def checked(text: str) -> float:
        number = read(text)
        if not low <= number <= high:
            raise ValueError(text)
        return number

    return Kind(checked, f"{what} from {low:,} to {high:,}")


def whole(low: int, high: int, what: str = "a whole number") -> Kind:
    return numbers(int, low, high, what)


def seconds(low: float, high: float) -> Kind:
    return numbers(float, low, high, "seconds,")


def matching(pattern: str, allowed: str) -> Kind:
    def read(text: str) -> str:
        if not re.fullmatch(pattern, text):
            raise ValueError(text)
        return text

    return Kind(read, allowed)


def read_path(text: str) -> Path:
    try:
        return Path(text).expanduser().absolute()
    except RuntimeError as error:  # "~somebody", whom the system does not know
        raise ValueError(text) from error


def read_printable(text: str) -> str:
    if not text or not text.isprintable():
        raise ValueError(text)
    return text


def read_key(text: str) -> str:
    if len(text.encode()) > 64:
        raise ValueError(text)
    return text


def read_endpoint(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.port == 0:  # raises for what is no port
        raise ValueError(text)
    return text.rstrip("/")


def read_database(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme in ("postgresql", "postgres"):
        if parts.port == 0 or not parts.path.strip("/"):  # raises for what is no port
            raise ValueError(text)
    elif parts.scheme != "sqlite" or parts.netloc or len(parts.path) < 2:
        raise ValueError(text)
    return text


def read_origin(text: str) -> str:
    read = read_endpoint(text)
    parts = urlsplit(read)
    if parts.path or parts.query or parts.fragment or "@" in parts.netloc or not _HOST.fullmatch(parts.hostname or ""):
        raise ValueError(text)
    return read.lower()


def read_issuer(text: str) -> str:
    """What it says decides who may come in: over a network it must not be changed on the way."""
    read = read_endpoint(text)
    parts = urlsplit(read)
    if parts.scheme == "http" and parts.hostname not in ("localhost", "127.0.0.1", "::1"):
        raise ValueError(text)
    return read


def read_hosts(text: str) -> tuple[str, ...]:
    hosts = tuple(part.strip().lower() for part in text.split(",") if part.strip())
    if not hosts or not all(_HOST.fullmatch(host) for host in hosts):  # no "*": that is no check at all
        raise ValueError(text)
    return hosts


def read_switch(text: str) -> bool:
    if text.lower() in ("on", "true", "yes", "1"):
        return True
    if text.lower() in ("off", "false", "no", "0"):
        return False
    raise ValueError(text)


def read_networks(text: str) -> tuple[str, ...]:
    networks = tuple(filter(None, (part.strip() for part in text.split(","))))
    for network in networks:
        ip_network(network)
    return networks


def read_origins(text: str) -> tuple[str, ...]:
    origins = tuple(filter(None, (part.strip().lower().rstrip("/") for part in text.split(","))))
    for origin in origins:
        parts = urlsplit(read_endpoint(origin))
        if f"{parts.scheme}://{parts.netloc}" != origin:
            raise ValueError(text)
    return origins


def read_weights(text: str) -> str:
    if text in ("default", "tutorial"):
        return text
    words, vectors = (float(part) for part in text.split(","))
    if not (0 <= words <= 1 and 0 <= vectors <= 1 and words + vectors > 0):
        raise ValueError(text)
    return f"{words:g},{vectors:g}"


TEXT = Kind(str, "text")
SWITCH = Kind(read_switch, "`on`, `off`")


@dataclass(frozen=True, kw_only=True)
class Variable:
    """One setting: ``name`` of the environment variable, ``flag`` of the command line (empty: none), and its words."""

    name: str
    kind: Kind
    about: str
    default: str
    flag: str
    secret: bool


def setting(
    name: str,
    kind: Kind,
    about: str,
    *,
    default: Any = None,
    shown: str | None = None,
    flag: str = "",
    secret: bool = False,
) -> Any:
    """A field of ``Settings``. ``default`` may be a function; ``shown`` is how the default reads in the table."""
    words = f"`{as_text(default)}`" if shown is None else shown
    metadata = {"variable": Variable(name=name, kind=kind, about=about, default=words, flag=flag, secret=secret)}
    if callable(default):
        return field(default_factory=default, metadata=metadata)
    return field(default=default, metadata=metadata)


def as_text(value: object) -> str:
    """A value as it is written in the environment."""
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, tuple):
        return ",".join(value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def data_directory() -> Path:
    """Where the system keeps a user's data; the same for every clone, so that the conversations are found again."""
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local"
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Application Support"
    else:
        base = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(base).absolute() / "daram"
