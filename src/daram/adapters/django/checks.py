"""What ``manage.py check`` says of ``DARAM``. Nothing is connected to: ``manage.py daram doctor`` does that."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from django.conf import settings as django_settings
from django.core.cache import caches
from django.core.checks import CheckMessage, Error, Warning
from django.db import connections

from daram import config
from daram.adapters.django import conf
from daram.cache.url import cache_from_url
from daram.errors import ConfigError, MissingExtra
from daram.settings import Settings

# Caches that others can write to, and which of their options says how values are written there.
_REDIS: Final = {
    "django_redis.cache.RedisCache": "SERIALIZER",
    "django.core.cache.backends.redis.RedisCache": "serializer",
}
_SAFE: Final = (
    'give django-redis the "SERIALIZER" "django_redis.serializers.msgpack.MSGPackSerializer", or Daram a cache of its '
    'own: "CACHE": "redis://…"'
)


def check_settings(**_: Any) -> list[CheckMessage]:
    """The settings, the store's URL and engine, the cache, what they need installed."""
    try:
        settings = conf.settings()
        conf.groups_teller()
        said = conf.given().get("OWNER")
        if said is not None and not callable(said):
            conf.imported("OWNER", said)
    except MissingExtra as error:
        return [Error(str(error), id="daram.E003")]
    except ConfigError as error:
        return [Error(str(error), hint='see settings.DARAM; "STORE" or "DATABASE" says where', id="daram.E001")]
    return [*_store(settings), *_cache(settings)]


def _store(settings: Settings) -> list[CheckMessage]:
    found = [*_engine("STORE", settings.store), *_engine("DOCUMENTS", settings.documents)]
    if not found and settings.store.startswith("memory:") and not django_settings.DEBUG and conf.given().get("STORE"):
        hint = 'name a store that keeps them in DARAM["STORE"] or DARAM["DATABASE"]'
        words = "every process keeps its conversations to itself, and until it ends"
        found.append(Warning(words, hint=hint, id="daram.W001"))
    return found


def _engine(name: str, url: str | None) -> list[CheckMessage]:
    if url is None:
        return []
    try:
        config.make_store(url)
    except MissingExtra as error:
        return [Error(str(error), id="daram.E003")]
    except ConfigError as error:
        return [Error(f'DARAM["{name}"]: {error}', id="daram.E001")]
    parts = urlsplit(url)
    if parts.scheme != "sqlite":
        return []
    file = os.path.realpath(unquote(parts.path).removeprefix("/"))
    for alias in connections:
        connection = connections[alias]
        at = str(connection.settings_dict["NAME"])
        if connection.vendor == "sqlite" and not connection.is_in_memory_db() and os.path.realpath(at) == file:
            words = (
                f'DARAM["{name}"] is the file of DATABASES[{alias!r}]; two SQLite libraries in one process damage it'
            )
            return [Error(words, hint="give Daram a file of its own", id="daram.E002")]
    return []


def _cache(settings: Settings) -> list[CheckMessage]:
    if settings.cache is None:
        return []
    try:
        cache_from_url(settings.cache)
    except MissingExtra as error:
        return [Error(str(error), id="daram.E003")]
    except ConfigError as error:
        return [Error(f'DARAM["CACHE"]: {error}', id="daram.E004")]
    named = [part.strip().removeprefix("django:") for part in settings.cache.split(",") if "//" not in part]
    return [
        Warning(
            f'DARAM["CACHE"]: CACHES[{alias!r}] unpickles what it finds: whoever can write to it can run code here',
            hint=_SAFE,
            id="daram.W002",
        )
        for alias in named
        if _unpickles(caches.settings[alias or "default"])
    ]


def _unpickles(said: Mapping[str, Any]) -> bool:
    option = _REDIS.get(said["BACKEND"])
    return option is not None and "pickle" in str(said.get("OPTIONS", {}).get(option, "pickle")).lower()
