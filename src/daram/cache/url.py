"""From a URL to a cache, imported only when it is asked for."""

from __future__ import annotations

from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from daram.cache.base import Cache
from daram.errors import ConfigError

_KNOWN = "memory://, redis://host:6379/0 (rediss://, unix://) or django:alias"
_REDIS = ("redis", "rediss", "unix")


def cache_from_url(url: str) -> Cache:
    """The cache for a URL, or for several with a comma between, the nearest first (``memory://,redis://host:6379/0``).

    Options: ``?ttl=SECONDS`` (600) for all, ``?max_bytes=N`` (64 MiB) for ``memory://``. Raises ``ConfigError``, and
    ``MissingExtra`` where a package is not installed.
    """
    tiers = [_one(part.strip()) for part in url.split(",")]
    if len(tiers) == 1:
        return tiers[0]
    from daram.cache.tiered import TieredCache

    return TieredCache(tiers)


def _one(url: str) -> Cache:
    if url.startswith("django:") and "//" not in url:
        from daram.cache.django import DjangoCache

        return DjangoCache(url.removeprefix("django:") or "default")
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError as error:
        raise ConfigError(f"the cache's URL {url.rpartition('@')[2]!r} cannot be read: {error}") from None
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    ttl = _number(options, "ttl", 600, 1, 30 * 86_400)
    if parts.scheme == "memory":
        from daram.cache.memory import MemoryCache

        max_bytes = int(_number(options, "max_bytes", 64 << 20, 1 << 16, 1 << 40))
        if options:
            raise ConfigError(f"unknown option {', '.join(sorted(options))} in the cache's URL {url!r}")
        return MemoryCache(max_bytes=max_bytes, ttl=ttl)
    if parts.scheme in _REDIS:
        from daram.cache.redis import RedisCache

        return RedisCache(urlunsplit(parts._replace(query=urlencode(options))), ttl=ttl)
    raise ConfigError(f"no cache for {parts.scheme or url!r}: write {_KNOWN}, several with a comma between")


def _number(options: dict[str, str], name: str, default: float, low: float, high: float) -> float:
    said = options.pop(name, None)
    if said is None:
        return default
    try:
        value = float(said)
    except ValueError:
        value = low - 1
    if not low <= value <= high:
        raise ConfigError(f"{name}={said} in the cache's URL must be a number from {low:,} to {high:,}")
    return value
