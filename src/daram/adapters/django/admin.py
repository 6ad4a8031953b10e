"""Conversations and running answers in a project's administration."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.contrib.auth import get_user_model
from django.core.exceptions import FieldDoesNotExist, ValidationError
from django.db.models import Q

from daram.adapters.django.conf import OWNER_PREFIX, owner_of
from daram.adapters.django.life import get_chatbot, get_memory
from daram.adapters.django.models import RunningAnswer, StoredConversation
from daram.adapters.django.stored import ConversationPages, Person, RunningPages, StorePages


class _OfProject(StorePages):
    """The project's own store and users."""

    def store(self) -> Any:
        """The store of this process."""
        return get_memory()

    def stop_answer(self, owner: str, conversation: str, answer: str | None) -> int:
        """By the chatbot: an answer of this process ends at once."""
        return get_chatbot().cancel(owner, conversation, answer)

    def people(self, query: str, after: str, limit: int) -> list[Person]:
        """The project's users."""
        model = get_user_model()
        name, email = model.USERNAME_FIELD, _email_field(model)
        users = model._default_manager.order_by(name)
        if query:
            fits = Q(**{f"{name}__icontains": query})
            if email:
                fits |= Q(**{f"{email}__icontains": query})
            users = users.filter(fits)
        if after:
            users = users.filter(**{f"{name}__gt": after})
        return [
            Person(user.get_username(), getattr(user, email) if email else "", owner_of(user)) for user in users[:limit]
        ]

    def name_of(self, owner: str) -> str:
        """The user's name, where the owner is made as by default."""
        if owner.startswith(OWNER_PREFIX):
            try:
                user = get_user_model()._default_manager.filter(pk=owner.removeprefix(OWNER_PREFIX)).first()
            except (ValueError, ValidationError):  # what cannot be a key
                user = None
            if user is not None and owner_of(user) == owner:
                return str(user.get_username())
        return owner


def _email_field(model: Any) -> str:
    try:
        name: str = model.get_email_field_name()
        model._meta.get_field(name)
    except (AttributeError, FieldDoesNotExist):  # a user model of the project's own, without one
        return ""
    return name


@admin.register(StoredConversation)
class ConversationAdmin(_OfProject, ConversationPages):
    """Conversations of one owner at a time."""


@admin.register(RunningAnswer)
class RunningAnswerAdmin(_OfProject, RunningPages):
    """Answers that are being made, in whatever process."""
