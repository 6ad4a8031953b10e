"""Collections, documents and references in the administration: read and changed through the store."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from django.contrib import admin, messages
from django.contrib.admin.models import ADDITION, DELETION
from django.core.exceptions import PermissionDenied
from django.core.files.uploadedfile import TemporaryUploadedFile
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import URLPattern, path, reverse
from django.utils.translation import gettext as _
from django.views.decorators.http import require_POST, require_safe

from daram.adapters.django.stored import PAGE, OwnPages, store_errors
from daram.errors import DocumentError, InvalidInput, NotFound, Unsupported
from daram.knowledge.access import GROUP, OFFICIAL, Reader
from daram.knowledge.base import NO_DOCUMENTS
from daram.knowledge.documents import Documents
from daram.service import runtime
from daram.service.admin.models import StoredCollection, StoredReference
from daram.service.admin.store import ask
from daram.store.documents import Scope


class Shelf(OwnPages):
    """A part of the administration that shows what belongs to one owner, by default to everybody."""

    def has_change_permission(self, request: HttpRequest, obj: object = None) -> bool:
        """What is there is replaced or deleted."""
        return False

    def may(self, request: HttpRequest, what: str) -> bool:
        """Whether this user has the permission."""
        return bool(request.user.has_perm(f"conversations.{what}_{self.opts.model_name}"))

    def must(self, request: HttpRequest, what: str) -> None:
        """Raise ``PermissionDenied`` unless he has."""
        if not self.may(request, what):
            raise PermissionDenied

    def has_view_permission(self, request: HttpRequest, obj: object = None) -> bool:
        """Whoever may see it."""
        return self.may(request, "view")


@admin.register(StoredCollection)
class CollectionAdmin(Shelf):
    """Collections of one owner at a time, and their documents."""

    def get_urls(self) -> list[URLPattern]:
        """The pages, each behind the door of the site."""
        inside = self.admin_site.admin_view
        return [
            path("", inside(require_safe(self.list)), name="conversations_storedcollection_changelist"),
            path("show/", inside(require_safe(self.show)), name="documents_show"),
            path("add/", inside(require_POST(self.add)), name="documents_add"),
            path("remove/", inside(require_POST(self.remove)), name="documents_remove"),
            path("delete/", inside(require_POST(self.delete)), name="documents_delete"),
        ]

    @store_errors
    def list(self, request: HttpRequest) -> HttpResponse:
        """The collections of an owner."""
        self.must(request, "view")
        owner, cursor = request.GET.get("owner") or OFFICIAL, request.GET.get("cursor") or None
        found = ask(_documents().collections.list, owner, limit=PAGE, cursor=cursor)
        rows = [(each, urlencode({"owner": owner, "id": each.id})) for each in found.items]
        return self.page(
            request,
            "collections.html",
            _("Collections of documents"),
            owner=owner,
            rows=rows,
            more=_more(owner, found.next_cursor),
            may_add=self.may(request, "add"),
        )

    @store_errors
    def show(self, request: HttpRequest) -> HttpResponse:
        """The documents of a collection, with how far each is."""
        self.must(request, "view")
        owner, id = request.GET.get("owner", ""), request.GET.get("id", "")
        documents, cursor = _documents(), request.GET.get("cursor") or None
        collection = ask(documents.collections.get, owner, id)
        found = ask(documents.list, _who(request, owner), Scope(owner, id), limit=PAGE, cursor=cursor)
        return self.page(
            request,
            "collection.html",
            collection.name,
            collection=collection,
            rows=found.items,
            more=_more(owner, found.next_cursor, id=id),
            may_add=self.may(request, "add"),
            may_delete=self.may(request, "delete"),
        )

    @store_errors
    def add(self, request: HttpRequest) -> HttpResponse:
        """Take an uploaded file into a collection, made where there is none."""
        self.must(request, "add")
        owner, id, file = request.POST.get("owner", ""), request.POST.get("id", ""), request.FILES.get("file")
        if file is None or not file.name:
            raise InvalidInput("file", "none was sent")
        # A large one lies on the disk already.
        data = Path(file.temporary_file_path()) if isinstance(file, TemporaryUploadedFile) else file.read()
        try:
            ask(
                _documents().add,
                _who(request, owner),
                Scope(owner, id),
                data,
                name=file.name,
                media_type=file.content_type,
            )
        except DocumentError as error:
            messages.error(request, str(error))
        else:
            self.record(request, ADDITION, owner, id, f"added {file.name}")
            messages.success(request, _("The document is kept, and is being read."))
        return _to("admin:documents_show", owner=owner, id=id)

    @store_errors
    def remove(self, request: HttpRequest) -> HttpResponse:
        """Delete one document."""
        self.must(request, "delete")
        owner, id, document = (request.POST.get(name, "") for name in ("owner", "id", "document"))
        ask(_documents().remove, _who(request, owner), Scope(owner, id), document)
        self.record(request, DELETION, owner, document, f"deleted from {id}")
        messages.success(request, _("The document is deleted."))
        return _to("admin:documents_show", owner=owner, id=id)

    @store_errors
    def delete(self, request: HttpRequest) -> HttpResponse:
        """Delete a collection with its documents."""
        self.must(request, "delete")
        owner, id = request.POST.get("owner", ""), request.POST.get("id", "")
        ask(_documents().delete_collection, _who(request, owner), Scope(owner, id))
        self.record(request, DELETION, owner, id, "deleted")
        messages.success(request, _("The collection is deleted."))
        return _to("admin:conversations_storedcollection_changelist", owner=owner)


@admin.register(StoredReference)
class ReferenceAdmin(Shelf):
    """References of one owner at a time, and their texts."""

    def get_urls(self) -> list[URLPattern]:
        """The pages, each behind the door of the site."""
        inside = self.admin_site.admin_view
        return [
            path("", inside(require_safe(self.list)), name="conversations_storedreference_changelist"),
            path("show/", inside(require_safe(self.show)), name="references_show"),
            path("put/", inside(require_POST(self.put)), name="references_put"),
            path("delete/", inside(require_POST(self.delete)), name="references_delete"),
        ]

    @store_errors
    def list(self, request: HttpRequest) -> HttpResponse:
        """The references of an owner."""
        self.must(request, "view")
        owner, cursor = request.GET.get("owner") or OFFICIAL, request.GET.get("cursor") or None
        found = ask(_documents().references.list, owner, limit=PAGE, cursor=cursor)
        rows = [
            (each, urlencode({"owner": owner, "category": each.category, "title_no": each.title_no}))
            for each in found.items
        ]
        return self.page(
            request,
            "references.html",
            _("References"),
            owner=owner,
            rows=rows,
            more=_more(owner, found.next_cursor),
            may_add=self.may(request, "add"),
        )

    @store_errors
    def show(self, request: HttpRequest) -> HttpResponse:
        """A reference and its text, to be corrected."""
        self.must(request, "view")
        owner, category, number = (request.GET.get(name, "") for name in ("owner", "category", "title_no"))
        references = _documents().references
        reference, text = ask(references.text, ask(references.get, owner, category, number))
        return self.page(
            request,
            "reference.html",
            reference.title,
            reference=reference,
            text=text,
            may_add=self.may(request, "add"),
            may_delete=self.may(request, "delete"),
        )

    @store_errors
    def put(self, request: HttpRequest) -> HttpResponse:
        """Keep a text, in place of what stood there."""
        self.must(request, "add")
        given = {name: request.POST.get(name, "") for name in ("owner", "category", "title_no", "title", "text")}
        owner = given.pop("owner")
        try:
            kept = ask(_documents().put_reference, _who(request, owner), **given, owner=owner)
        except NotFound:
            raise
        except InvalidInput as error:
            messages.error(request, str(error))
            return _to("admin:conversations_storedreference_changelist", owner=owner)
        self.record(request, ADDITION, owner, f"{kept.category}/{kept.title_no}", "put")
        messages.success(request, _("The reference is kept."))
        return _to("admin:references_show", owner=owner, category=kept.category, title_no=kept.title_no)

    @store_errors
    def delete(self, request: HttpRequest) -> HttpResponse:
        """Delete a reference."""
        self.must(request, "delete")
        owner, category, number = (request.POST.get(name, "") for name in ("owner", "category", "title_no"))
        ask(_documents().remove_reference, _who(request, owner), category, number, owner=owner)
        self.record(request, DELETION, owner, f"{category}/{number}", "deleted")
        messages.success(request, _("The reference is deleted."))
        return _to("admin:conversations_storedreference_changelist", owner=owner)


def _documents() -> Documents:
    documents = runtime.current().documents
    if documents is None:
        raise Unsupported(NO_DOCUMENTS)
    return documents


def _who(request: HttpRequest, owner: str) -> Reader:
    """The administrator as one who may change what belongs to that owner."""
    if owner == OFFICIAL or owner.startswith(GROUP):
        group = (owner.removeprefix(GROUP),) if owner.startswith(GROUP) else ()
        return Reader(request.user.owner, group, admin=True)
    return Reader(owner)


def _more(owner: str, cursor: str | None, **fields: str) -> str:
    return urlencode({"owner": owner, **fields, "cursor": cursor}) if cursor else ""


def _to(name: str, **query: Any) -> HttpResponse:
    return redirect(f"{reverse(name)}?{urlencode(query)}")
