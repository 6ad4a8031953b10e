"""What the pages of the administration about the store share."""

from __future__ import annotations

from typing import Any, Final

from django.contrib import admin
from django.contrib.admin.models import LogEntry
from django.contrib.contenttypes.models import ContentType
from django.http import HttpRequest
from django.template.response import TemplateResponse

PAGE: Final = 50


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
