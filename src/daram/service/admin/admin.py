"""Conversations and running answers in the administration of the service."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from django.contrib import admin
from django.db.models import Q

from daram.adapters.django.stored import ConversationPages, Person, RunningPages, StorePages
from daram.service import runtime
from daram.service.accounts.models import User
from daram.service.admin import documents  # noqa: F401  # registers its pages: Django looks into this module only
from daram.service.admin.models import RunningAnswer, StoredConversation
from daram.service.admin.store import ask


class _Served:
    """The store for these views."""

    def __getattr__(self, name: str) -> Callable[..., Any]:
        return partial(ask, getattr(runtime.current().memory, name))


class _OfService(StorePages):
    """The store and the accounts of the service."""

    def store(self) -> Any:
        """The store of this process."""
        return _Served()

    def stop_answer(self, owner: str, conversation: str, answer: str | None) -> int:
        """By the chatbot: an answer of this process ends at once."""
        return ask(runtime.current().chatbot.cancel, owner, conversation, answer)

    def people(self, query: str, after: str, limit: int) -> list[Person]:
        """The users of the service."""
        users = User.objects.order_by("username")
        if query:
            query = User.normalize_username(query)
            users = users.filter(Q(username__contains=query) | Q(email__contains=query) | Q(owner=query))
        if after:
            users = users.filter(username__gt=after)
        return [Person(user.username, user.email, user.owner) for user in users[:limit]]

    def name_of(self, owner: str) -> str:
        """The user's name."""
        user = User.objects.filter(owner=owner).first()
        return user.username if user is not None else owner


@admin.register(StoredConversation)
class ConversationAdmin(_OfService, ConversationPages):
    """Conversations of one owner at a time."""


@admin.register(RunningAnswer)
class RunningAnswerAdmin(_OfService, RunningPages):
    """Answers that are being made, in whatever process."""
