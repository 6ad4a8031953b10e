"""Users: added, found, and let in by a link."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from datetime import timedelta
from typing import Final

from django.apps import apps
from django.contrib.auth import get_permission_codename
from django.contrib.auth.models import Group, Permission
from django.contrib.auth.password_validation import validate_password
from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction
from django.utils import timezone

from daram.errors import InvalidInput
from daram.service.accounts.keys import digest
from daram.service.accounts.models import LoginLink, User

ADMINISTRATORS: Final = "administrators"
ADMINISTRATED: Final = ("accounts", "conversations")
"""The Django applications whose permissions the group of administrators has."""

LINK_LIFE: Final = timedelta(minutes=15)


def missing_permissions(using: str = "default") -> set[tuple[str, str]]:
    """The permissions of ``ADMINISTRATED`` that are not there yet: labels of applications, and their names."""
    wanted = {
        (label, get_permission_codename(action, model._meta))
        for label in ADMINISTRATED
        for model in apps.get_app_config(label).get_models()
        for action in model._meta.default_permissions
    }
    known = Permission.objects.using(using).filter(content_type__app_label__in=ADMINISTRATED)
    return wanted - set(known.values_list("content_type__app_label", "codename"))


def add_user(name: str, *, password: str | None = None, email: str = "", admin: bool = False) -> User:
    """A new user; without a password they come in by key or link only. Raises ``InvalidInput`` that names the field."""
    user = User(username=name, email=email, is_staff=admin)
    user.clean()
    if password is None:
        user.set_unusable_password()
    else:
        _check("password", lambda: validate_password(password, user))
        user.set_password(password)
    _check("user", lambda: user.full_clean(exclude=["password"]))
    try:
        with transaction.atomic():
            user.save(force_insert=True)
            if admin:
                user.groups.add(Group.objects.get(name=ADMINISTRATORS))
    except IntegrityError as error:  # another process was faster than our check
        raise InvalidInput("name", "there is a user with this name or e-mail address already") from error
    return user


def set_password(user: User, password: str) -> None:
    """Give the user another password; their sessions end with the old one. Raises ``InvalidInput``."""
    _check("password", lambda: validate_password(password, user))
    user.set_password(password)
    user.save(update_fields=["password"])


def find_user(name: str) -> User:
    """The user with this user name or e-mail address. Raises ``InvalidInput`` where there is none."""
    name = User.normalize_username(name)
    user: User | None = User.objects.filter(**{"email" if "@" in name else "username": name}).first()
    if user is None:
        raise InvalidInput("user", f"there is no {name!r}; daram user list shows who there is")
    return user


def local_user(owner: str) -> User:
    """Whoever sits at this machine: the user of the conversations from before there were accounts.

    Made where there is none, without a password, and may do everything: they have the files of this server anyway.
    """
    if (user := _of(owner)) is not None:
        return user
    for name in ("local", f"local-{secrets.token_hex(4)}"):
        try:
            with transaction.atomic():
                user = User(username=name, owner=owner, is_staff=True, is_superuser=True)
                user.set_unusable_password()
                user.save(force_insert=True)
                return user
        except IntegrityError:
            # Either somebody has the name, or another process has just made this user.
            if (found := _of(owner)) is not None:
                return found
    raise InvalidInput("owner", f"no user could be made for {owner!r}")


def make_login_link(user: User) -> str:
    """The path of a link that logs this user in, once, within ``LINK_LIFE``. Only a digest of it is kept."""
    now = timezone.now()
    LoginLink.objects.filter(expires_at__lte=now).delete()
    token = secrets.token_urlsafe(32)
    LoginLink.objects.create(user=user, digest=digest(token), expires_at=now + LINK_LIFE)
    return f"/login/link?token={token}"  # not in the path, which logs hold


def linked_user(token: str) -> User | None:
    """Whom the link would log in; None where it was used, has expired, or never was."""
    link = _link(token)
    return link.user if link is not None else None


def use_login_link(token: str) -> User | None:
    """Whom the link logs in, this once. Of several who use it at the same moment one gets in."""
    link = _link(token)
    if link is None:
        return None
    deleted, _ = LoginLink.objects.filter(pk=link.pk).delete()
    return link.user if deleted else None


def _of(owner: str) -> User | None:
    user: User | None = User.objects.filter(owner=owner).first()
    return user


def _link(token: str) -> LoginLink | None:
    found = LoginLink.objects.select_related("user").filter(digest=digest(token), expires_at__gt=timezone.now())
    link: LoginLink | None = found.filter(user__is_active=True).first()
    return link


def _check(field: str, check: Callable[[], object]) -> None:
    try:
        check()
    except ValidationError as error:
        raise InvalidInput(field, " ".join(error.messages)) from error
