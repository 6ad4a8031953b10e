"""The Django application: ``"daram.adapters.django"`` in ``INSTALLED_APPS``."""

from __future__ import annotations

from django.apps import AppConfig
from django.core import checks
from django.utils.translation import gettext_lazy as _

from daram.adapters.django.checks import check_settings


class DaramConfig(AppConfig):
    """Conversations in the administration, commands and checks. Nothing is opened until somebody asks for it."""

    name = "daram.adapters.django"
    label = "daram"
    verbose_name = _("Conversations")
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Have ``manage.py check`` look at ``DARAM``."""
        checks.register(check_settings)
