"""The Django application of the accounts."""

from __future__ import annotations

from typing import Any

from django.apps import AppConfig
from django.db import transaction
from django.db.models.signals import post_migrate
from django.utils.translation import gettext_lazy as _


class AccountsConfig(AppConfig):
    """Users, API keys, login links."""

    name = "daram.service.accounts"
    label = "accounts"
    verbose_name = _("Accounts")
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Let every migration see to the group of administrators."""
        post_migrate.connect(_administrators, dispatch_uid="daram.administrators")


def _administrators(using: str, **_: Any) -> None:
    # After each application's own: the group is made, whole, once all have theirs, so that where it is, all is done.
    from django.contrib.auth.models import Group, Permission

    from daram.service.accounts.people import ADMINISTRATED, ADMINISTRATORS, missing_permissions

    if missing_permissions(using):
        return
    permissions = Permission.objects.using(using).filter(content_type__app_label__in=ADMINISTRATED)
    with transaction.atomic(using):
        group, _made = Group.objects.using(using).get_or_create(name=ADMINISTRATORS)
        group.permissions.set(permissions)
