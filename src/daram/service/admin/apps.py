"""The Django applications of the administration: the site itself, and what it shows of the store."""

from __future__ import annotations

from django.apps import AppConfig
from django.contrib.admin.apps import AdminConfig
from django.utils.translation import gettext_lazy as _


class SiteConfig(AdminConfig):
    """Django's administration with our login in front of it."""

    default_site = "daram.service.admin.site.Site"


class ConversationsConfig(AppConfig):
    """Conversations and running answers."""

    name = "daram.service.admin"
    label = "conversations"
    verbose_name = _("Conversations")
    default_auto_field = "django.db.models.BigAutoField"
