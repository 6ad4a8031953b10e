"""What of the store has permissions in Django. There are no tables behind these: the store is asked."""

from __future__ import annotations

from django.db import models
from django.utils.translation import gettext_lazy as _


class StoredConversation(models.Model):
    """A conversation of the store."""

    class Meta:
        managed = False
        default_permissions = ("view", "delete")
        verbose_name = _("conversation")
        verbose_name_plural = _("conversations")


class RunningAnswer(models.Model):
    """An answer that is being made."""

    class Meta:
        managed = False
        default_permissions = ("view", "change")
        verbose_name = _("running answer")
        verbose_name_plural = _("running answers")
