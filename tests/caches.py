"""Every cache there is, by name, for the tests that all of them must pass."""

from __future__ import annotations

from collections.abc import Callable

from daram.cache.base import Cache
from daram.cache.django import DjangoCache
from daram.cache.memory import MemoryCache
from daram.cache.redis import RedisCache
from daram.cache.tiered import TieredCache

# Each is made from the URL of a server and what its keys begin with.
CACHES: dict[str, Callable[[str, str], Cache]] = {
    "memory": lambda url, prefix: MemoryCache(),
    "Redis": lambda url, prefix: RedisCache(url, prefix=prefix),
    "Django": lambda url, prefix: DjangoCache(django_alias(url), prefix=prefix),
    "memory, Redis": lambda url, prefix: TieredCache([MemoryCache(), RedisCache(url, prefix=prefix)]),
}


def django_alias(url: str) -> str:
    """Django's own cache in Redis, as a project would have it."""
    from django.conf import settings

    if not settings.configured:
        caches = {"default": "locmem.LocMemCache", "none": "dummy.DummyCache"}
        settings.configure(
            CACHES={alias: {"BACKEND": f"django.core.cache.backends.{name}"} for alias, name in caches.items()}
        )
    alias = f"server {url}"
    settings.CACHES[alias] = {"BACKEND": "django.core.cache.backends.redis.RedisCache", "LOCATION": url}
    return alias
