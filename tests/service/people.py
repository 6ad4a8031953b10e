"""Users and keys for tests of the service, in one database of accounts for each test process.

Django is set up once per process. So every test here that runs the service in its own process takes its settings from
``service_settings``, and makes the people it needs: their names are drawn, so that no test meets those of another one.
"""

from __future__ import annotations

import atexit
import shutil
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

from daram import ids
from daram.settings import Settings


@cache
def _accounts() -> str:
    folder = tempfile.mkdtemp(prefix="daram-accounts-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return "sqlite:///" + quote(str(Path(folder) / "accounts.sqlite3"))


def service_settings(data: Path, **given: Any) -> Settings:
    """Settings with this data directory and the accounts of this test process, which are ready for use."""
    from daram.service.accounts.setup import prepare_accounts
    from daram.service.configure import configure

    settings = Settings(data=data, accounts=_accounts(), **given)
    configure(settings)
    _without_fsync()
    prepare_accounts(settings)
    return settings


@cache
def _without_fsync() -> None:
    """These accounts end with their tests: that a power cut would take them costs nothing, waiting for a disk does."""
    from django.db import connections

    connections.databases["default"]["OPTIONS"]["init_command"] = "PRAGMA synchronous=OFF; PRAGMA journal_mode=MEMORY"


@dataclass(frozen=True, kw_only=True)
class Person:
    """A user (``user``: the Django object) with a key of theirs."""

    user: Any
    key: str
    key_row: Any

    @property
    def owner(self) -> str:
        return str(self.user.owner)

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.key}"}


def make_person(*scopes: str, password: str | None = None, **fields: Any) -> Person:
    """A new user with a key; ``service_settings`` comes first. Synchronous: see ``person`` for tests on a loop."""
    from daram.service.accounts.keys import create_key
    from daram.service.accounts.models import User

    fields.setdefault("username", "user-" + ids.uuid7())
    user = User.objects.create_user(password=password, **fields)
    row, key = create_key(user, scopes=scopes or ("write",))
    return Person(user=user, key=key, key_row=row)


async def person(*scopes: str, **fields: Any) -> Person:
    """``make_person`` for tests that run on an event loop."""
    from daram.service.accounts.auth import in_accounts

    return await in_accounts(make_person, *scopes, **fields)


def session_cookie(csrf: bool = False) -> str:
    """The name of the session's cookie, or of the one against forged forms."""
    from django.conf import settings

    return str(settings.CSRF_COOKIE_NAME if csrf else settings.SESSION_COOKIE_NAME)


def log_in(who: Person) -> dict[str, str]:
    """The cookie of a browser in which they are logged in."""
    from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY
    from django.contrib.sessions.backends.db import SessionStore

    session = SessionStore()
    session[SESSION_KEY] = str(who.user.pk)
    session[BACKEND_SESSION_KEY] = "daram.service.accounts.backend.NameOrEmail"
    session[HASH_SESSION_KEY] = who.user.get_session_auth_hash()
    session.save()
    return {session_cookie(): session.session_key}
