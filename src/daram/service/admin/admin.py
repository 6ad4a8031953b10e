"""Conversations and running answers in the administration: read through the store, never around it."""

from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from urllib.parse import urlencode

import msgspec
from django.contrib import admin, messages
from django.contrib.admin.models import CHANGE, DELETION, LogEntry
from django.contrib.contenttypes.models import ContentType
from django.core.exceptions import PermissionDenied
from django.db.models import Q
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils.translation import gettext as _
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from daram.errors import NotFound
from daram.model import Answer, Conversation, Message, Page
from daram.service import runtime
from daram.service.accounts.models import User
from daram.service.admin.models import RunningAnswer, StoredConversation
from daram.service.admin.store import ask, store_errors

_log = logging.getLogger(__name__)
PAGE: Final = 50
BEGUN_WITHIN: Final = timedelta(hours=1)
"""Which answers the list of running ones looks for: each older one is on the page of its conversation."""


class ReadOnly(admin.ModelAdmin):
    """A part of the administration that has pages of its own in the place of Django's."""

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Nothing is added here."""
        return False

    def record(self, request: HttpRequest, flag: int, owner: str, id: str, words: str) -> None:
        """Keep in Django's log who did this."""
        kind = ContentType.objects.get_for_model(self.model, for_concrete_model=False)
        LogEntry.objects.create(
            user_id=request.user.pk,
            content_type_id=kind.pk,
            object_id=f"{owner} {id}",
            object_repr=id[:200],
            action_flag=flag,
            change_message=words,
        )

    def page(self, request: HttpRequest, template: str, title: str, **context: Any) -> TemplateResponse:
        """A page of ours within the administration."""
        request.current_app = self.admin_site.name
        shared = {**self.admin_site.each_context(request), "opts": self.opts, "title": title}
        return TemplateResponse(request, f"admin/stored/{template}", {**shared, **context})


@admin.register(StoredConversation)
class ConversationAdmin(ReadOnly):
    """Conversations of one owner at a time."""

    def has_change_permission(self, request: HttpRequest, obj: object = None) -> bool:
        """Nobody changes what was said."""
        return False

    def get_urls(self) -> list[URLPattern]:
        """The pages, each behind the door of the site."""
        inside = self.admin_site.admin_view
        return [
            path("", inside(require_safe(self.owners)), name="conversations_storedconversation_changelist"),
            path("of/", inside(require_safe(self.list)), name="conversations_list"),
            path("show/", inside(require_safe(self.show)), name="conversations_show"),
            path("delete/", inside(require_http_methods(["GET", "POST"])(self.delete)), name="conversations_delete"),
        ]

    def owners(self, request: HttpRequest) -> HttpResponse:
        """Whose conversations: the users, by name."""
        self._may(request, "view")
        query = User.normalize_username(request.GET.get("q", "").replace("\0", ""))[:254]
        users = User.objects.order_by("username")
        if query:
            users = users.filter(Q(username__contains=query) | Q(email__contains=query) | Q(owner=query))
        after = request.GET.get("after", "").replace("\0", "")
        found = list(users.filter(username__gt=after)[: PAGE + 1] if after else users[: PAGE + 1])
        more = urlencode({"q": query, "after": found[PAGE - 1].username}) if len(found) > PAGE else ""
        return self.page(request, "owners.html", _("Whose conversations?"), users=found[:PAGE], query=query, more=more)

    @store_errors
    def list(self, request: HttpRequest) -> HttpResponse:
        """One page of an owner's conversations, the one changed last first."""
        self._may(request, "view")
        owner, cursor = request.GET.get("owner", ""), request.GET.get("cursor") or None
        found: Page[Conversation] = ask(runtime.current().memory.list, owner, limit=PAGE, cursor=cursor)
        rows = [(each, urlencode({"owner": owner, "id": each.id})) for each in found.items]
        more = urlencode({"owner": owner, "cursor": found.next_cursor}) if found.next_cursor else ""
        title = _("Conversations of %(name)s") % {"name": _name(owner)}
        return self.page(request, "conversations.html", title, rows=rows, more=more)

    @store_errors
    def show(self, request: HttpRequest) -> HttpResponse:
        """One page of a conversation's messages, and the answers that are being made in it."""
        self._may(request, "view")
        owner, id, cursor = request.GET.get("owner", ""), request.GET.get("id", ""), request.GET.get("cursor") or None
        memory = runtime.current().memory
        conversation = ask(memory.get, owner, id)
        found: Page[Message] = ask(memory.messages, owner, id, limit=PAGE, cursor=cursor)
        _log.info("user %s reads the conversation %s of another", request.user.pk, id)
        return self.page(
            request,
            "conversation.html",
            conversation.title or id,
            conversation=conversation,
            name=_name(owner),
            rows=[(each, _parts(each)) for each in found.items],
            answers=ask(memory.answers, owner, id),
            more=urlencode({"owner": owner, "id": id, "cursor": found.next_cursor}) if found.next_cursor else "",
            may_delete=self.has_delete_permission(request),
            may_stop=request.user.has_perm("conversations.change_runninganswer"),
        )

    @store_errors
    def delete(self, request: HttpRequest) -> HttpResponse:
        """Asks, and on POST deletes a conversation with all that is in it."""
        self._may(request, "delete")
        given = request.POST if request.method == "POST" else request.GET
        owner, id = given.get("owner", ""), given.get("id", "")
        memory = runtime.current().memory
        conversation = ask(memory.get, owner, id)
        if request.method != "POST":
            return self.page(request, "delete.html", _("Delete this conversation?"), conversation=conversation)
        ask(memory.delete, owner, id)
        self.record(request, DELETION, owner, id, "deleted")
        messages.success(request, _("The conversation is deleted."))
        return redirect(f"{reverse('admin:conversations_list')}?{urlencode({'owner': owner})}")

    def _may(self, request: HttpRequest, what: str) -> None:
        allowed = self.has_view_permission(request) if what == "view" else self.has_delete_permission(request)
        if not allowed:
            raise PermissionDenied


@admin.register(RunningAnswer)
class RunningAnswerAdmin(ReadOnly):
    """Answers that are being made, in whatever process."""

    def has_delete_permission(self, request: HttpRequest, obj: object = None) -> bool:
        """They are stopped, not deleted: what was said is kept."""
        return False

    def get_urls(self) -> list[URLPattern]:
        """The pages, each behind the door of the site."""
        inside = self.admin_site.admin_view
        return [
            path("", inside(require_safe(self.running)), name="conversations_runninganswer_changelist"),
            path("stop/", inside(require_POST(self.stop)), name="conversations_stop"),
        ]

    @store_errors
    def running(self, request: HttpRequest) -> HttpResponse:
        """The running answers of a page of users."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        users = User.objects.order_by("username")
        after = request.GET.get("after", "").replace("\0", "")
        found = list(users.filter(username__gt=after)[: PAGE + 1] if after else users[: PAGE + 1])
        answers = ask(_running, [user.owner for user in found[:PAGE]])
        names = {user.owner: user.username for user in found}
        return self.page(
            request,
            "running.html",
            _("Running answers"),
            rows=[(each, names[each.owner]) for each in answers],
            may_stop=self.has_change_permission(request),
            more=urlencode({"after": found[PAGE - 1].username}) if len(found) > PAGE else "",
        )

    @store_errors
    def stop(self, request: HttpRequest) -> HttpResponse:
        """Stop one answer; what it has said is kept."""
        if not self.has_change_permission(request):
            raise PermissionDenied
        owner, conversation, answer = (request.POST.get(name, "") for name in ("owner", "conversation", "answer"))
        stopped = ask(runtime.current().chatbot.cancel, owner, conversation, answer or None)
        if stopped:
            self.record(request, CHANGE, owner, conversation, "stopped an answer")
            messages.success(request, _("The answer is being stopped."))
        else:
            messages.info(request, _("That answer has ended already."))
        return redirect("admin:conversations_runninganswer_changelist")


async def _running(owners: list[str]) -> list[Answer]:
    """What is being answered for these owners, by what changed of late: a question moves its conversation ahead."""
    memory, since = runtime.current().memory, datetime.now(UTC) - BEGUN_WITHIN
    found: list[Answer] = []
    for owner in owners:
        cursor = None
        while True:
            page = await memory.list(owner, limit=PAGE, cursor=cursor)
            late = [each for each in page.items if each.updated_at >= since]
            for each in late:
                try:
                    found += await memory.answers(owner, each.id)
                except NotFound:  # deleted meanwhile
                    continue
            cursor = page.next_cursor
            if cursor is None or len(late) < len(page.items):
                break
    return found


def _name(owner: str) -> str:
    user = User.objects.filter(owner=owner).first()
    return user.username if user is not None else owner


def _parts(message: Message) -> str:
    return msgspec.json.format(msgspec.json.encode(message.parts), indent=2).decode() if message.parts else ""
