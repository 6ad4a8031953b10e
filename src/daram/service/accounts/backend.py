"""Who a user name (or e-mail address) and a password are, and how passwords are kept."""

from __future__ import annotations

from typing import Any

from django.contrib.auth.backends import ModelBackend
from django.contrib.auth.hashers import Argon2PasswordHasher
from django.http import HttpRequest

from daram.service.accounts.models import User


class Argon2(Argon2PasswordHasher):
    """Argon2id with 19 MiB, two passes, one lane: what OWASP's password storage cheat sheet asks for.

    Django's own figures take 100 MiB for each login: a few at once would fill a small machine.
    """

    time_cost = 2
    memory_cost = 19 * 1024  # KiB
    parallelism = 1


class NameOrEmail(ModelBackend):
    """Login by user name or e-mail address. An unknown one takes as long as a wrong password."""

    def authenticate(
        self, request: HttpRequest | None, username: str | None = None, password: str | None = None, **kwargs: Any
    ) -> User | None:
        """The user, or None."""
        if not username or not password:
            return None
        name = User.normalize_username(username)
        field = "email" if "@" in name else "username"
        user = User.objects.filter(**{field: name}).first()
        if user is None:
            User().set_password(password)  # what checking it would have cost
            return None
        return user if user.check_password(password) and self.user_can_authenticate(user) else None
