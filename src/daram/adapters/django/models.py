"""What of the store has permissions in Django. There are no tables behind these: the store is asked."""

from __future__ import annotations

from daram.adapters.django.abstract import AbstractRunningAnswer, AbstractStoredConversation


class StoredConversation(AbstractStoredConversation):
    """A conversation of the store."""


class RunningAnswer(AbstractRunningAnswer):
    """An answer that is being made."""
