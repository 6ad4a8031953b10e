"""What of the store has permissions in Django. There are no tables behind these: the store is asked."""

from __future__ import annotations

from django.db import models
from django.utils.translation import gettext_lazy as _

from daram.adapters.django.abstract import AbstractRunningAnswer, AbstractStoredConversation


class StoredConversation(AbstractStoredConversation):
    """A conversation of the store."""


class RunningAnswer(AbstractRunningAnswer):
    """An answer that is being made."""


class StoredCollection(models.Model):
    """A collection of documents."""

    class Meta:
        managed = False
        default_permissions = ("view", "add", "delete")
        verbose_name = _("collection of documents")
        verbose_name_plural = _("collections of documents")


class StoredReference(models.Model):
    """A text under a category and a number."""

    class Meta:
        managed = False
        default_permissions = ("view", "add", "delete")
        verbose_name = _("reference")
        verbose_name_plural = _("references")
