"""The pages of the accounts: login and logout, password, API keys. Plain forms, no scripts."""

from __future__ import annotations

import ipaddress
import logging
from http import HTTPStatus

from django.contrib.auth import authenticate, login, logout, update_session_auth_hash
from django.contrib.auth.decorators import login_required
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils.http import url_has_allowed_host_and_scheme
from django.utils.translation import gettext as _
from django.views.decorators.cache import never_cache
from django.views.decorators.debug import sensitive_post_parameters
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from daram.service.accounts import throttle
from daram.service.accounts.forms import KeyForm, LoginForm, PasswordForm
from daram.service.accounts.keys import create_key, revoke
from daram.service.accounts.models import ApiKey, User
from daram.service.accounts.people import linked_user, use_login_link
from daram.service.configure import configured
from daram.settings import Settings

_log = logging.getLogger(__name__)
BACKEND = "daram.service.accounts.backend.NameOrEmail"


@sensitive_post_parameters()
@never_cache
@require_http_methods(["GET", "HEAD", "POST"])
def log_in(request: HttpRequest) -> HttpResponse:
    """The login page. Whatever is wrong with name or password, the answer is the same."""
    onward = _onward(request)
    if request.user.is_authenticated and request.method != "POST":
        return redirect(onward)
    form = LoginForm(request.POST or None)
    status, wait = HTTPStatus.OK, 0
    if request.method == "POST":
        status = HTTPStatus.BAD_REQUEST
        if form.is_valid():
            name, address = form.cleaned_data["username"], _address(request)
            wait = throttle.may_try(name, address)
            if not wait:
                user = authenticate(request, username=name, password=form.cleaned_data["password"])
                if user is not None:
                    throttle.succeeded(name, address)
                    login(request, user)  # draws a new session key: one that was planted before opens nothing
                    _log.info("user %s logged in from %s", user.pk, address)
                    return redirect(onward)
            status, error = _refused(wait)
            form.add_error(None, error)
            # Not the name: people type their password there.
            _log.warning("a login from %s was refused (%s)", address, "too many" if wait else "wrong")
    context = {"form": form, "next": onward, "sso": sso(), "local": _is_local(configured())}
    response = render(request, "accounts/login.html", context, status=status)
    if wait:
        response.headers["Retry-After"] = str(wait)
    return response


@sensitive_post_parameters()
@never_cache
@require_http_methods(["GET", "HEAD", "POST"])
def log_in_by_link(request: HttpRequest) -> HttpResponse:
    """A link that logs in once. Opening it asks; only the button uses it up: browsers fetch links ahead."""
    if request.method != "POST":
        token = request.GET.get("token", "")
        user = linked_user(token)
        context = {"who": user, "token": token}
        return render(request, "accounts/link.html", context, status=200 if user else 404)
    user = use_login_link(request.POST.get("token", ""))
    if user is None:
        return render(request, "accounts/link.html", {"who": None}, status=404)
    login(request, user, backend=BACKEND)
    _log.info("user %s logged in by a link from %s", user.pk, _address(request))
    return redirect("/")


@never_cache
@require_http_methods(["GET", "HEAD", "POST"])
def log_out(request: HttpRequest) -> HttpResponse:
    """Ends the session on POST; a mere link to here asks first: other sites must not be able to log people out."""
    if request.method != "POST":
        return render(request, "accounts/logout.html")
    logout(request)
    return redirect("login")


@never_cache
@require_safe
@login_required
def account(request: HttpRequest) -> HttpResponse:
    """Who is logged in, and where to go from here."""
    return render(request, "accounts/account.html")


@sensitive_post_parameters()
@never_cache
@require_http_methods(["GET", "HEAD", "POST"])
@login_required
def password(request: HttpRequest) -> HttpResponse:
    """Change the password. Every other session of the user ends with it."""
    user = _user(request)
    form = PasswordForm(user, request.POST or None)
    status, done = HTTPStatus.OK, False
    if request.method == "POST":
        status = HTTPStatus.BAD_REQUEST
        if form.is_valid() and _is_present(request, form):
            user.set_password(form.cleaned_data["new"])
            user.save(update_fields=["password"])
            update_session_auth_hash(request, user)
            _log.info("user %s changed the password", user.pk)
            status, done, form = HTTPStatus.OK, True, PasswordForm(user)
    return render(request, "accounts/password.html", {"form": form, "done": done}, status=status)


@sensitive_post_parameters()
@never_cache
@require_http_methods(["GET", "HEAD", "POST"])
@login_required
def keys(request: HttpRequest) -> HttpResponse:
    """The user's API keys; POST makes one, and the page that answers it is the only place where it ever stands."""
    user = _user(request)
    form = KeyForm(user, request.POST or None, initial={"scope": "write"})
    status, made, secret = HTTPStatus.OK, None, ""
    if request.method == "POST":
        status = HTTPStatus.BAD_REQUEST
        if form.is_valid():
            made, secret = create_key(user, name=form.cleaned_data["name"], scopes=[form.cleaned_data["scope"]])
            _log.info("user %s made the key %s", user.pk, made.prefix)
            status, form = HTTPStatus.CREATED, KeyForm(user, initial={"scope": "write"})
    context = {"form": form, "keys": user.api_keys.all(), "made": made, "secret": secret}
    return render(request, "accounts/keys.html", context, status=status)


@require_POST
@login_required
def revoke_key(request: HttpRequest, id: str) -> HttpResponse:
    """Revoke a key of one's own; anybody else's is as unknown as one that never was."""
    number = int(id)
    if number > 2**63 - 1:
        raise Http404
    key = get_object_or_404(ApiKey, pk=number, user=_user(request))
    revoke(key)
    _log.info("user %s revoked the key %s", key.user_id, key.prefix)
    return redirect("keys")


def _user(request: HttpRequest) -> User:
    user: User = request.user
    return user


def _address(request: HttpRequest) -> str:
    return str(request.META.get("REMOTE_ADDR") or "")


def _onward(request: HttpRequest) -> str:
    """Where to go after the login: only ever a path of this server, whatever the link said."""
    return safe_path(request, request.POST.get("next") or request.GET.get("next") or "")


def safe_path(request: HttpRequest, wanted: str) -> str:
    """The path, if it is one of this server; else the front page."""
    host = {request.get_host()}
    if url_has_allowed_host_and_scheme(wanted, host, require_https=request.is_secure()) and wanted.startswith("/"):
        return wanted
    return "/"


def sso() -> str:
    """What the OpenID Connect provider is called; empty where there is none."""
    settings = configured()
    return settings.oidc_name if settings.oidc_url else ""


def _is_local(settings: Settings) -> bool:
    """Whether only this machine comes here: its user has a link in the terminal, and maybe no password."""
    if settings.public_url or settings.allowed_hosts:
        return False
    host = settings.host.strip("[]")
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _refused(wait: int) -> tuple[HTTPStatus, str]:
    if wait:
        minutes = -(-wait // 60)
        text = _("Too many attempts. Try again in %(minutes)d min.") % {"minutes": minutes}
        return HTTPStatus.TOO_MANY_REQUESTS, text
    return HTTPStatus.UNAUTHORIZED, _("This name and password do not belong together. Check both and try again.")


def _is_present(request: HttpRequest, form: PasswordForm) -> bool:
    """Whether the present password is right, where there is one: a session that was left open must not be enough."""
    if "present" not in form.fields:
        return True
    name, address = form.user.username, _address(request)
    wait = throttle.may_try(name, address)
    if not wait and form.user.check_password(form.cleaned_data["present"]):
        throttle.succeeded(name, address)
        return True
    form.add_error("present", _refused(wait)[1] if wait else _("This is not your present password."))
    return False
