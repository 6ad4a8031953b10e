"""Login at an OpenID Connect provider. django-allauth speaks the protocol (state, PKCE, token); who comes in is decided
here.

Somebody is known by issuer and subject. At the first login they become the user with their e-mail address, if the
provider says that it verified it and nobody else came from there as that user; or a new user, where
``DARAM_OIDC_SIGNUP`` is on.
"""

from __future__ import annotations

import logging
import re
import unicodedata
from typing import Any

from allauth.core.exceptions import ImmediateHttpResponse
from allauth.socialaccount.adapter import DefaultSocialAccountAdapter
from allauth.socialaccount.models import SocialLogin
from django.contrib.auth import login
from django.db import IntegrityError, transaction
from django.http import HttpRequest
from django.shortcuts import redirect, render
from django.utils.translation import gettext as _

from daram import ids
from daram.errors import InvalidInput
from daram.service.accounts.forms import LoginForm
from daram.service.accounts.models import ExternalLogin, User
from daram.service.accounts.people import add_user
from daram.service.accounts.views import BACKEND, safe_path, sso
from daram.service.configure import configured

_log = logging.getLogger(__name__)


class Adapter(DefaultSocialAccountAdapter):
    """Takes over where the provider has said who it is: allauth's own accounts and pages are not used."""

    def pre_social_login(self, request: HttpRequest, sociallogin: SocialLogin) -> None:
        """Log the user in, or say why not."""
        subject = str(sociallogin.account.uid)
        claims = _said(sociallogin.account.extra_data)
        addresses = [each.email for each in sociallogin.email_addresses if each.verified is True and each.email]
        # In the form that users have, a full-width letter or the Kelvin sign is a plain one: another mailbox's.
        if not unicodedata.is_normalized("NFKC", str(claims.get("email") or "")):
            addresses = []
        user = _known(subject) or _connected(subject, addresses) or _new(subject, addresses, claims)
        if user is None or not user.is_active:
            _log.warning("a login by OpenID Connect was refused: %s", "inactive" if user else "unknown")
            raise ImmediateHttpResponse(_refuse(request, _("There is no account for you here yet."), 403))
        login(request, user, backend=BACKEND)
        _log.info("user %s logged in by OpenID Connect", user.pk)
        raise ImmediateHttpResponse(redirect(safe_path(request, str(sociallogin.state.get("next") or ""))))

    def on_authentication_error(
        self,
        request: HttpRequest,
        provider: Any,
        error: Any = None,
        exception: Exception | None = None,
        extra_context: dict[str, Any] | None = None,
    ) -> None:
        """Back to the login page, with a sentence. What the provider said stands in the log only."""
        _log.warning("a login by OpenID Connect failed: %s %s", error, type(exception).__name__)
        raise ImmediateHttpResponse(_refuse(request, _("The login there did not succeed. Try again."), 401))


def _said(data: dict[str, Any]) -> dict[str, Any]:
    """The claims, out of what allauth keeps of the provider's answers."""
    found: dict[str, Any] = data.get("userinfo") or data.get("id_token") or data
    return found


def _issuer() -> str:
    return configured().oidc_url or ""


def _known(subject: str) -> User | None:
    found = ExternalLogin.objects.select_related("user").filter(issuer=_issuer(), subject=subject).first()
    return found.user if found is not None else None


def _connected(subject: str, addresses: list[str]) -> User | None:
    """The user with a verified address of theirs, from now on known by the subject.

    Who is known by another subject already is not theirs: the address has changed hands.
    """
    known = ExternalLogin.objects.filter(issuer=_issuer()).values("user")
    for address in addresses:
        found = User.objects.filter(email=User.normalize_username(address))
        user: User | None = found.exclude(pk__in=known).first()
        if user is not None:
            return _remember(user, subject)
    return None


def _new(subject: str, addresses: list[str], claims: dict[str, Any]) -> User | None:
    """A new user, named as the provider names them, if that name is free."""
    if not configured().oidc_signup:
        return None
    wanted = re.sub(r"[^\w.+-]", "-", User.normalize_username(str(claims.get("preferred_username") or "")))[:100]
    email = User.normalize_username(addresses[0]) if addresses else ""
    if User.objects.filter(email=email).exists():  # somebody's who had the address before
        email = ""
    for name in filter(None, (wanted, f"{wanted or 'user'}-{ids.uuid7()[-8:]}")):
        try:
            with transaction.atomic():
                return _remember(add_user(name, email=email), subject)
        except InvalidInput:  # taken
            continue
    return None


def _remember(user: User, subject: str) -> User | None:
    try:
        with transaction.atomic():
            ExternalLogin.objects.create(user=user, issuer=_issuer(), subject=subject)
    except IntegrityError:  # two logins at once
        return _known(subject)
    return user


def _refuse(request: HttpRequest, words: str, status: int) -> Any:
    form = LoginForm(None)
    context = {"form": form, "next": "/", "sso": sso(), "problem": words}
    return render(request, "accounts/login.html", context, status=status)
