"""Django's sessions as the chat page knows them (``daram.ui.gate.Logins``)."""

from __future__ import annotations

from collections.abc import Callable

from django.conf import settings as django_settings
from django.contrib.auth import get_user, logout
from django.contrib.auth.signals import user_logged_out
from django.contrib.sessions.backends.db import SessionStore
from django.http import HttpRequest

from daram.service.accounts.auth import in_accounts
from daram.service.accounts.models import User
from daram.ui.gate import Visitor

__all__ = ["DjangoLogins"]


class DjangoLogins:
    """Who is logged in, by the key of a session. Each question goes to the database: what has ended has ended."""

    @property
    def cookie(self) -> str:
        """The name of the session's cookie."""
        return str(django_settings.SESSION_COOKIE_NAME)

    async def visitor(self, session: str) -> Visitor | None:
        """Whose session that is; None where there is none, or its user may not log in (any more)."""
        return await in_accounts(_visitor, session)

    async def log_out(self, session: str) -> None:
        """End it; whoever listens to ``on_log_out`` hears of it."""
        await in_accounts(_log_out, session)

    def on_log_out(self, listener: Callable[[str], None]) -> Callable[[], None]:
        """Call it with the session that ends, on whatever thread that is. Returns what ends the listening."""

        def heard(request: HttpRequest | None, **_: object) -> None:
            key = getattr(getattr(request, "session", None), "session_key", None)
            if key:
                listener(key)

        def stop() -> None:
            user_logged_out.disconnect(heard)

        user_logged_out.connect(heard, weak=False)
        return stop


def _request(session: str) -> HttpRequest:
    request = HttpRequest()
    request.session = SessionStore(session)
    return request


def _visitor(session: str) -> Visitor | None:
    user = get_user(_request(session))
    return Visitor(user.owner, user.get_username(), session) if isinstance(user, User) else None


def _log_out(session: str) -> None:
    request = _request(session)
    request.user = get_user(request)
    logout(request)
