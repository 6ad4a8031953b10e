"""Users, their API keys, and what the login needs. Conversations are not here: they live in Daram's store."""

from __future__ import annotations

import unicodedata
from typing import Any, Final

from django.contrib.auth.models import AbstractUser
from django.core.validators import RegexValidator
from django.db import models
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from daram import ids

SCOPES: Final = ("read", "write", "admin")
"""What a key may be allowed, each one more than the one before."""


def new_owner() -> str:
    """A fresh owner for the store: it says nothing about the user and never changes when the user's name does."""
    return "user_" + ids.uuid7()


class User(AbstractUser):
    """Somebody who logs in, by user name or e-mail address.

    Both are kept in one form (NFKC, lower case), so that nobody can be taken for somebody else. ``owner`` is whose the
    conversations in the store are: opaque, never another user's, never changed.
    """

    email: str  # Django's own field
    # No "@": otherwise one user's name could be another one's e-mail address, and a login could mean either.
    username = models.CharField(
        _("user name"),
        max_length=150,
        unique=True,
        validators=[RegexValidator(r"\A[\w.+-]+\Z", _("Letters, digits and . + - _ only."))],
        error_messages={"unique": _("There is a user with this name already.")},
    )
    owner = models.CharField(_("owner in the store"), max_length=256, unique=True, default=new_owner, editable=False)

    class Meta:
        verbose_name = _("user")
        verbose_name_plural = _("users")
        constraints = (
            models.UniqueConstraint(
                fields=("email",),
                condition=~models.Q(email=""),
                name="accounts_user_email_once",
                violation_error_message=_("There is a user with this e-mail address already."),
            ),
        )

    @classmethod
    def normalize_username(cls, username: str | None) -> str:
        """The one form of a user name or an e-mail address."""
        return unicodedata.normalize("NFKC", username or "").lower().strip()  # None: a form refused it already

    def clean(self) -> None:
        """Bring name and address to their one form."""
        self.username = self.normalize_username(self.username)
        self.email = self.normalize_username(self.email)

    def save(self, *args: Any, **kwargs: Any) -> None:
        """Save it, the names in their one form."""
        self.clean()
        super().save(*args, **kwargs)


class ApiKey(models.Model):
    """A key for the API. Only a digest of its secret is kept: who reads this table cannot use what stands in it."""

    user = models.ForeignKey(User, models.CASCADE, related_name="api_keys", verbose_name=_("user"))
    name = models.CharField(_("name"), max_length=100, blank=True)
    prefix = models.CharField(_("prefix"), max_length=32, unique=True, editable=False)
    digest = models.CharField(max_length=64, editable=False)
    scopes = models.CharField(_("scopes"), max_length=100)
    created_at = models.DateTimeField(_("created"), default=timezone.now, editable=False)
    last_used_at = models.DateTimeField(_("last used"), null=True, editable=False)
    expires_at = models.DateTimeField(_("expires"), null=True, blank=True)
    revoked_at = models.DateTimeField(_("revoked"), null=True, blank=True, editable=False)

    class Meta:
        verbose_name = _("API key")
        verbose_name_plural = _("API keys")
        ordering = ("-created_at", "-id")

    def __str__(self) -> str:
        return f"{self.prefix}…"

    @property
    def scope_set(self) -> frozenset[str]:
        """The scopes, of which ``admin`` counts only while its user is of the staff."""
        scopes = frozenset(self.scopes.split())
        return scopes if self.user.is_staff else scopes - {"admin"}

    @property
    def over(self) -> bool:
        """Whether it was revoked or has expired."""
        return self.revoked_at is not None or (self.expires_at is not None and self.expires_at <= timezone.now())

    @property
    def works(self) -> bool:
        """Whether it opens anything now: it is not over, and its user may log in."""
        return not self.over and bool(self.user.is_active)


class ExternalLogin(models.Model):
    """Who somebody is at an OpenID Connect provider: its issuer and its name for them, which never changes."""

    user = models.ForeignKey(User, models.CASCADE, related_name="+")
    issuer = models.CharField(max_length=300)
    subject = models.CharField(max_length=255)

    class Meta:
        constraints = (models.UniqueConstraint(fields=("issuer", "subject"), name="accounts_external_login_once"),)


class LoginLink(models.Model):
    """A link that logs in once, soon after it was made. Only the digest of its secret is kept."""

    user = models.ForeignKey(User, models.CASCADE, related_name="+")
    digest = models.CharField(max_length=64, unique=True)
    expires_at = models.DateTimeField(db_index=True)


class LoginAttempts(models.Model):
    """How many logins failed of late, from one address or for one account from one address (``key``: a digest)."""

    key = models.CharField(max_length=64, unique=True)
    failures = models.PositiveIntegerField()
    since = models.DateTimeField(db_index=True)
