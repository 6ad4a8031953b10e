"""Who calls the API: bearer keys or, for the native API, sessions; and refusals as OpenAI words them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final, ParamSpec, TypeVar

from django.contrib.auth.models import Group
from django.db import DatabaseError, Error, connection
from django.http import HttpRequest, JsonResponse
from django.middleware.csrf import CsrfViewMiddleware
from ninja import NinjaAPI
from ninja.security import HttpBearer

from daram.service.accounts.keys import find_key, touch
from daram.service.observe.request import admit

P = ParamSpec("P")
R = TypeVar("R")
_log = logging.getLogger(__name__)
_MISSING: Final = (
    "You didn't provide an API key. You need to provide your API key in an Authorization header using Bearer auth "
    "(i.e. Authorization: Bearer YOUR_KEY)."
)
# Not a word of what came: a key that is almost right would stand in the caller's logs.
_WRONG: Final = "Incorrect API key provided. You can make keys on the account page of this server."
_LOGGED_OUT: Final = "You are not logged in, or your login has ended. Log in at /login."
_NO_SESSION: Final = "not_logged_in"
_FORGED: Final = "The header X-CSRFToken is missing or wrong. GET /api/me gives the token; it changes with each login."
_UNAVAILABLE: Final = "The server cannot look up API keys at the moment. Try again."


@dataclass(frozen=True, kw_only=True)
class Caller:
    """Who makes a request: ``owner`` is whose conversations it is about; ``key_id`` is None for who is logged in."""

    user_id: int
    owner: str
    scopes: frozenset[str]
    key_id: int | None


class Refused(Exception):
    """The caller may not do this; ``response`` is what they are told, in OpenAI's shape."""

    def __init__(self, status: int, message: str, code: str | None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code

    def response(self) -> JsonResponse:
        """The answer to the request."""
        kind = "server_error" if self.status >= 500 else "invalid_request_error"
        error = {"message": str(self), "type": kind, "param": None, "code": self.code}
        again = {"Retry-After": "1"}
        bearer = {} if self.code == _NO_SESSION else {"WWW-Authenticate": "Bearer"}
        headers = {401: bearer, 429: again, 503: again}.get(self.status, {})
        return JsonResponse({"error": error}, status=self.status, headers=headers)


class KeyAuth(HttpBearer):
    """Bearer auth by API key, for ``NinjaAPI(auth=…)`` and for single operations; ``request.auth`` is the ``Caller``.

    A session cookie opens nothing under ``/v1``, so no page that a browser visits can call that API. The native API has
    the same operations for sessions (``by_session``), behind middleware and with a token against forged requests; with
    ``either`` a key opens them there too: no browser sends one by itself.
    """

    def __init__(self, scope: str = "read", *, either: bool = False) -> None:
        super().__init__()
        self.scope = scope
        self.either = either

    async def __call__(self, request: HttpRequest) -> Caller:
        """The caller, who may do what ``scope`` says. Raises ``Refused``."""
        if getattr(request, "by_session", False) and not (self.either and "Authorization" in request.headers):
            return await _logged_in(request, self.scope)
        if (token := _bearer(request.headers.get("Authorization", ""))) is None:
            raise Refused(401, _MISSING, None)
        return await self.authenticate(request, token)

    async def authenticate(self, request: HttpRequest, token: str) -> Caller:
        """The caller whose key this is. Raises ``Refused``."""
        caller = await _known(token)
        if caller is None:
            raise Refused(401, _WRONG, "invalid_api_key")
        return await _admitted(caller, self.scope)


async def _known(token: str) -> Caller | None:
    """Whose key this is, if it is one. Raises ``Refused`` where the accounts do not answer."""
    try:
        return await in_accounts(_look_up, token)
    except Error as error:
        _log.error("the accounts do not answer: %s: %s", type(error).__name__, error)
        raise Refused(503, _UNAVAILABLE, "accounts_unavailable") from None


def _bearer(header: str) -> str | None:
    """The key in a header ``Authorization``."""
    scheme, _, token = header.strip().partition(" ")
    return token.strip() or None if scheme.lower() == "bearer" else None


async def may_administer(header: str) -> bool:
    """Whether a header ``Authorization`` has a key with the scope ``admin``; where nobody can say, it has not."""
    if (token := _bearer(header)) is None:
        return False
    try:
        caller = await _known(token)
    except Refused:
        return False
    return caller is not None and "admin" in caller.scopes


async def _logged_in(request: HttpRequest, scope: str) -> Caller:
    """Whose session this is."""
    user = await request.auser()
    if not user.is_authenticated:
        raise Refused(401, _LOGGED_OUT, _NO_SESSION)
    if _is_forged(request):
        raise Refused(403, _FORGED, "csrf_failed")
    scopes = frozenset({"read", "write", "admin"} if user.is_staff else {"read", "write"})
    return await _admitted(Caller(user_id=user.pk, owner=user.owner, scopes=scopes, key_id=None), scope)


class _Csrf(CsrfViewMiddleware):
    """Says why a request is refused, instead of showing a page."""

    def _reject(self, request: HttpRequest, reason: str) -> str:
        return reason


def _is_forged(request: HttpRequest) -> bool:
    check = _Csrf(lambda _request: None)
    # The middleware has seen the request, but leaves views of this API alone.
    request.csrf_processing_done = False
    check.process_request(request)
    return check.process_view(request, _admitted, (), {}) is not None


async def _admitted(caller: Caller, scope: str) -> Caller:
    """The caller, who may do that, and now. Raises ``Refused``."""
    check_scope(caller, scope)
    if (problem := await admit(caller.user_id)) is not None:
        raise Refused(429, problem, "rate_limit_exceeded")
    return caller


def require(scope: str, *, either: bool = False) -> KeyAuth:
    """The ``auth=`` of an operation that needs a key with this scope; ``either``: where sessions do, a key does too."""
    return KeyAuth(scope, either=either)


def check_scope(caller: Caller, scope: str) -> None:
    """Raise ``Refused`` (403) where the caller's key lacks the scope."""
    if scope not in caller.scopes:
        text = f"You have insufficient permissions for this operation. Missing scopes: {scope}."
        raise Refused(403, text, "missing_scope")


def caller_of(request: HttpRequest) -> Caller:
    """Who makes this request, which went through ``KeyAuth``."""
    caller = getattr(request, "auth", None)
    if not isinstance(caller, Caller):
        raise TypeError("this operation has no KeyAuth")
    return caller


def handle_refusals(api: NinjaAPI) -> None:
    """Let the API answer ``Refused``."""

    @api.exception_handler(Refused)
    def _answer(_request: HttpRequest, error: Refused) -> JsonResponse:
        return error.response()


async def groups_of(owner: str) -> list[str]:
    """The names of the groups of a user, by whose conversations they have: their groups in the administration."""

    def work() -> list[str]:
        return list(Group.objects.filter(user__owner=owner).order_by("name").values_list("name", flat=True))

    return await in_accounts(work)


async def may_upload(token: str) -> bool:
    """Whether the key opens anything: asked before more of a request is read than anybody may send."""
    return await in_accounts(find_key, token) is not None


def _look_up(token: str) -> Caller | None:
    key = find_key(token)
    if key is None:
        return None
    try:
        touch(key)
    except DatabaseError as error:  # a note only: a full disk or a busy database must not lock callers out
        _log.warning("when key %s was used last could not be written: %s", key.prefix, type(error).__name__)
    return Caller(user_id=key.user.pk, owner=key.user.owner, scopes=key.scope_set, key_id=key.pk)


# --- threads --------------------------------------------------------------------------------------------------------

# Django's own threads live as long as one request, each with a new connection. These stay, and keep theirs.
_threads = ThreadPoolExecutor(4, thread_name_prefix="daram-accounts")


async def in_accounts(function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """What the function, which asks the database of the accounts, returns; it does not block the event loop."""

    def work() -> R:
        try:
            return function(*args, **kwargs)
        finally:
            # A server may have ended the connection meanwhile, and there it goes back to a pool; a file stays open.
            if connection.vendor != "sqlite" or connection.errors_occurred:
                connection.close()

    return await asyncio.get_running_loop().run_in_executor(_threads, work)
