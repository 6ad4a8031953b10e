"""Pages of Django's administration on a store: read through it, never around it. For this adapter and the service."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import wraps
from typing import Any, Final, NamedTuple
from urllib.parse import urlencode

import msgspec
from django.contrib import admin, messages
from django.contrib.admin.models import CHANGE, DELETION, LogEntry
from django.contrib.contenttypes.models import ContentType
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils.translation import gettext as _
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from daram.errors import DaramError, InvalidInput, NotFound
from daram.model import Answer, Conversation, Message, Page

_log = logging.getLogger(__name__)
PAGE: Final = 50
BEGUN_WITHIN: Final = timedelta(hours=1)
"""Which answers the list of running ones looks for: each older one is on the page of its conversation."""


class Person(NamedTuple):
    """Somebody whose conversations may be in the store."""

    name: str
    email: str
    owner: str


def store_errors(view: Callable[..., HttpResponse]) -> Callable[..., HttpResponse]:
    """What the store refuses, as a page: 404 for what is not there, 503 for the rest, in words."""

    @wraps(view)
    def answered(self: admin.ModelAdmin, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        try:
            return view(self, request, *args, **kwargs)
        except (NotFound, InvalidInput) as error:
            raise Http404(str(error)) from error
        except DaramError as error:
            shared = {**self.admin_site.each_context(request), "opts": self.opts, "title": _("The store")}
            context = {**shared, "problem": str(error)}
            return TemplateResponse(request, "admin/stored/problem.html", context, status=503)

    return answered


class OwnPages(admin.ModelAdmin):
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


class StorePages(OwnPages):
    """Pages about the conversations of a store.

    A subclass says where the store is and who the people are. The application's label goes into the names of addresses;
    its two models (``StoredConversation``, ``RunningAnswer``, without tables) are there for their permissions.
    """

    def store(self) -> Any:
        """The store, for synchronous code."""
        raise NotImplementedError

    def stop_answer(self, owner: str, conversation: str, answer: str | None) -> int:
        """Stop a running answer, in whatever process; how many were."""
        raise NotImplementedError

    def people(self, query: str, after: str, limit: int) -> list[Person]:
        """The users whose name, e-mail address or owner fits, behind the name ``after``, by name."""
        raise NotImplementedError

    def name_of(self, owner: str) -> str:
        """What whoever owns that is called; the owner itself, where nobody is known."""
        raise NotImplementedError

    def page(self, request: HttpRequest, template: str, title: str, **context: Any) -> TemplateResponse:
        """A page of ours, which knows the addresses of the others."""
        label = self.opts.app_label
        routes = {name: f"admin:{label}_{name}" for name in ("list", "show", "delete", "stop")}
        routes["owners"] = f"admin:{label}_storedconversation_changelist"
        return super().page(request, template, title, **{"routes": routes, **context})

    def some_people(self, request: HttpRequest, query: str = "") -> tuple[list[Person], str]:
        """A page of people, and the query of the next one ("": there is none)."""
        after = request.GET.get("after", "").replace("\0", "")
        found = self.people(query, after, PAGE + 1)
        more = urlencode({"q": query, "after": found[PAGE - 1].name}) if len(found) > PAGE else ""
        return found[:PAGE], more


class ConversationPages(StorePages):
    """Conversations of one owner at a time."""

    def has_change_permission(self, request: HttpRequest, obj: object = None) -> bool:
        """Nobody changes what was said."""
        return False

    def get_urls(self) -> list[URLPattern]:
        """The pages, each behind the door of the site."""
        inside, label = self.admin_site.admin_view, self.opts.app_label
        return [
            path("", inside(require_safe(self.owners)), name=f"{label}_storedconversation_changelist"),
            path("of/", inside(require_safe(self.list)), name=f"{label}_list"),
            path("show/", inside(require_safe(self.show)), name=f"{label}_show"),
            path("delete/", inside(require_http_methods(["GET", "POST"])(self.delete)), name=f"{label}_delete"),
        ]

    def owners(self, request: HttpRequest) -> HttpResponse:
        """Whose conversations: the users, by name."""
        self._may(request, "view")
        query = request.GET.get("q", "").replace("\0", "")[:254]
        people, more = self.some_people(request, query)
        return self.page(request, "owners.html", _("Whose conversations?"), people=people, query=query, more=more)

    @store_errors
    def list(self, request: HttpRequest) -> HttpResponse:
        """One page of an owner's conversations, the one changed last first."""
        self._may(request, "view")
        owner, cursor = request.GET.get("owner", ""), request.GET.get("cursor") or None
        found: Page[Conversation] = self.store().list(owner, limit=PAGE, cursor=cursor)
        rows = [(each, urlencode({"owner": owner, "id": each.id})) for each in found.items]
        more = urlencode({"owner": owner, "cursor": found.next_cursor}) if found.next_cursor else ""
        title = _("Conversations of %(name)s") % {"name": self.name_of(owner)}
        return self.page(request, "conversations.html", title, rows=rows, more=more)

    @store_errors
    def show(self, request: HttpRequest) -> HttpResponse:
        """One page of a conversation's messages, and the answers that are being made in it."""
        self._may(request, "view")
        owner, id, cursor = request.GET.get("owner", ""), request.GET.get("id", ""), request.GET.get("cursor") or None
        store = self.store()
        conversation: Conversation = store.get(owner, id)
        found: Page[Message] = store.messages(owner, id, limit=PAGE, cursor=cursor)
        _log.info("user %s reads the conversation %s of another", request.user.pk, id)
        return self.page(
            request,
            "conversation.html",
            conversation.title or id,
            conversation=conversation,
            name=self.name_of(owner),
            rows=[(each, _parts(each)) for each in found.items],
            answers=store.answers(owner, id),
            more=urlencode({"owner": owner, "id": id, "cursor": found.next_cursor}) if found.next_cursor else "",
            may_delete=self.has_delete_permission(request),
            may_stop=request.user.has_perm(f"{self.opts.app_label}.change_runninganswer"),
        )

    @store_errors
    def delete(self, request: HttpRequest) -> HttpResponse:
        """Asks, and on POST deletes a conversation with all that is in it."""
        self._may(request, "delete")
        given = request.POST if request.method == "POST" else request.GET
        owner, id = given.get("owner", ""), given.get("id", "")
        store = self.store()
        conversation = store.get(owner, id)
        if request.method != "POST":
            return self.page(request, "delete.html", _("Delete this conversation?"), conversation=conversation)
        store.delete(owner, id)
        self.record(request, DELETION, owner, id, "deleted")
        messages.success(request, _("The conversation is deleted."))
        return redirect(f"{reverse(f'admin:{self.opts.app_label}_list')}?{urlencode({'owner': owner})}")

    def _may(self, request: HttpRequest, what: str) -> None:
        allowed = self.has_view_permission(request) if what == "view" else self.has_delete_permission(request)
        if not allowed:
            raise PermissionDenied


class RunningPages(StorePages):
    """Answers that are being made, in whatever process."""

    def has_delete_permission(self, request: HttpRequest, obj: object = None) -> bool:
        """They are stopped, not deleted: what was said is kept."""
        return False

    def get_urls(self) -> list[URLPattern]:
        """The pages, each behind the door of the site."""
        inside, label = self.admin_site.admin_view, self.opts.app_label
        return [
            path("", inside(require_safe(self.running)), name=f"{label}_runninganswer_changelist"),
            path("stop/", inside(require_POST(self.stop)), name=f"{label}_stop"),
        ]

    @store_errors
    def running(self, request: HttpRequest) -> HttpResponse:
        """The running answers of a page of users."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        people, more = self.some_people(request)
        return self.page(
            request,
            "running.html",
            _("Running answers"),
            rows=[(answer, person.name) for person in people for answer in self._answers(person.owner)],
            may_stop=self.has_change_permission(request),
            more=more,
        )

    @store_errors
    def stop(self, request: HttpRequest) -> HttpResponse:
        """Stop one answer; what it has said is kept."""
        if not self.has_change_permission(request):
            raise PermissionDenied
        owner, conversation, answer = (request.POST.get(name, "") for name in ("owner", "conversation", "answer"))
        if self.stop_answer(owner, conversation, answer or None):
            self.record(request, CHANGE, owner, conversation, "stopped an answer")
            messages.success(request, _("The answer is being stopped."))
        else:
            messages.info(request, _("That answer has ended already."))
        return redirect(f"admin:{self.opts.app_label}_runninganswer_changelist")

    def _answers(self, owner: str) -> list[Answer]:
        """What is being answered, by what changed of late: a question moves its conversation ahead."""
        store, since = self.store(), datetime.now(UTC) - BEGUN_WITHIN
        found: list[Answer] = []
        cursor = None
        while True:
            page: Page[Conversation] = store.list(owner, limit=PAGE, cursor=cursor)
            late = [each for each in page.items if each.updated_at >= since]
            for each in late:
                try:
                    found += store.answers(owner, each.id)
                except NotFound:  # deleted meanwhile
                    continue
            cursor = page.next_cursor
            if cursor is None or len(late) < len(page.items):
                return found


def _parts(message: Message) -> str:
    return msgspec.json.format(msgspec.json.encode(message.parts), indent=2).decode() if message.parts else ""
