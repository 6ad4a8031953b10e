"""API keys: made, found by what a request brings, revoked.

A key is ``daram-PREFIX-SECRET``. The prefix finds the row and may be shown; the secret is 256 random bits, of which
SHA-256 is kept. A slow hash (Argon2) guards passwords, which people choose and which can be guessed; nobody guesses
256 random bits, however fast the hash, and a slow one would cost every request 50 ms and let anybody keep the
processors busy with wrong keys.
"""

from __future__ import annotations

import hmac
import re
import secrets
import string
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Final

from django.db import IntegrityError, connection, transaction
from django.db.models import Q
from django.utils import timezone

from daram.errors import InvalidInput
from daram.service.accounts.models import SCOPES, ApiKey, User

_PREFIX_CHARACTERS: Final = string.ascii_lowercase + string.digits
_SECRET_CHARACTERS: Final = string.ascii_letters + string.digits
_KEY: Final = re.compile(r"(daram-[a-z0-9]{10})-([A-Za-z0-9]{43})", re.ASCII)
_NOBODY: Final = "0" * 64
"""The digest of no secret that anybody knows: what a key with an unknown prefix is compared with."""

USED_EVERY: Final = timedelta(minutes=1)
"""How exact ``last_used_at`` is: a write for each request would make every read of the API a write."""


def digest(secret: str) -> str:
    """What is kept of a random secret."""
    return sha256(secret.encode()).hexdigest()


def check_scopes(scopes: Iterable[str]) -> list[str]:
    """The scopes in their order, with what they include (``write`` includes ``read``, ``admin`` both).

    Raises ``InvalidInput`` for none and for one that does not exist.
    """
    wanted = set(scopes)
    if not wanted or not wanted.issubset(SCOPES):
        raise InvalidInput("scopes", f"allowed are {', '.join(SCOPES)}; at least one")
    return list(SCOPES[: 1 + max(SCOPES.index(scope) for scope in wanted)])


def create_key(
    user: User, *, name: str = "", scopes: Iterable[str] = ("write",), expires_at: datetime | None = None
) -> tuple[ApiKey, str]:
    """A new key of this user: its row, and the key itself, which can never be shown again. Raises ``InvalidInput``."""
    allowed = check_scopes(scopes)
    if "admin" in allowed and not user.is_staff:
        raise InvalidInput("scopes", f"admin is for administrators only, and {user.username} is none")
    if len(name) > 100 or not (name.isprintable()):
        raise InvalidInput("name", "at most 100 printable characters")
    while True:
        prefix = "daram-" + _draw(_PREFIX_CHARACTERS, 10)
        secret = _draw(_SECRET_CHARACTERS, 43)
        key = ApiKey(
            user=user,
            name=name,
            prefix=prefix,
            digest=digest(secret),
            scopes=" ".join(allowed),
            expires_at=expires_at,
        )
        try:
            with transaction.atomic():
                key.save(force_insert=True)
        except IntegrityError:
            if not ApiKey.objects.filter(prefix=prefix).exists():
                raise
        else:
            return key, f"{prefix}-{secret}"


def find_key(text: str) -> ApiKey | None:
    """The key that this text is, with its user, if it works now. Every refusal takes the same steps."""
    matched = _KEY.fullmatch(text)
    prefix, secret = matched.groups() if matched else ("", "")
    key = ApiKey.objects.select_related("user").filter(prefix=prefix).first()
    same = hmac.compare_digest(digest(secret), key.digest if key is not None else _NOBODY)
    return key if same and key is not None and key.works else None


def touch(key: ApiKey) -> None:
    """Note that it was used, at most once in ``USED_EVERY``, whatever number of processes serve.

    Does not wait while somebody else writes to an SQLite file: then it raises ``DatabaseError``, and the next request
    notes it.
    """
    now = timezone.now()
    if key.last_used_at is not None and key.last_used_at > now - USED_EVERY:
        return
    stale = Q(last_used_at=None) | Q(last_used_at__lte=now - USED_EVERY)
    with _impatient():
        ApiKey.objects.filter(stale, pk=key.pk).update(last_used_at=now)


@contextmanager
def _impatient() -> Iterator[None]:
    """Within, SQLite waits a moment for another writer, not a minute: a request waits behind this."""
    if connection.vendor != "sqlite":
        yield
        return
    with connection.cursor() as cursor:
        (patience,) = cursor.execute("PRAGMA busy_timeout").fetchone()
        cursor.execute("PRAGMA busy_timeout = 100")
        try:
            yield
        finally:
            cursor.execute("PRAGMA busy_timeout = %d" % patience)  # noqa: UP031  # a number; it takes no parameters


def revoke(key: ApiKey) -> None:
    """From now on it opens nothing; when it was first revoked stays as it is."""
    ApiKey.objects.filter(pk=key.pk, revoked_at=None).update(revoked_at=timezone.now())


def _draw(characters: str, length: int) -> str:
    return "".join(secrets.choice(characters) for _ in range(length))
