"""What of the store has permissions in Django, for the applications that show it. There are no tables behind these."""

from __future__ import annotations

from django.db import models
from django.utils.translation import gettext_lazy as _


class AbstractStoredConversation(models.Model):
    """A conversation of the store."""

    class Meta:
        abstract = True
        managed = False
        default_permissions = ("view", "delete")
        verbose_name = _("conversation")
        verbose_name_plural = _("conversations")


class AbstractRunningAnswer(models.Model):
    """An answer that is being made."""

    class Meta:
        abstract = True
        managed = False
        default_permissions = ("view", "change")
        verbose_name = _("running answer")
        verbose_name_plural = _("running answers")
