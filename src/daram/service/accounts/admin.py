"""Users and API keys in the administration."""

from __future__ import annotations

from typing import Any

from django.contrib import admin, messages
from django.contrib.auth.admin import UserAdmin
from django.contrib.auth.forms import AdminUserCreationForm
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils.decorators import method_decorator
from django.utils.html import format_html
from django.utils.http import urlencode
from django.utils.translation import gettext_lazy as _
from django.views.decorators.csrf import csrf_protect

from daram.adapters.django.stored import store_errors
from daram.service import runtime
from daram.service.accounts.keys import revoke
from daram.service.accounts.models import ApiKey, User
from daram.service.admin.store import ask


class NewUserForm(AdminUserCreationForm):
    """A user to be added."""

    class Meta(AdminUserCreationForm.Meta):
        model = User
        fields = ("username", "email")


@admin.register(User)
class AccountAdmin(UserAdmin):
    """Users. Administrators who are no superusers can neither touch superusers nor become one."""

    add_form = NewUserForm
    list_display = ("username", "email", "is_active", "is_staff", "last_login", "conversations")
    list_filter = ("is_staff", "is_superuser", "is_active")
    search_fields = ("username", "email", "owner")
    ordering = ("username",)
    readonly_fields = ("owner", "last_login", "date_joined", "conversations")
    fieldsets = (
        (None, {"fields": ("username", "email", "password", "is_active")}),
        (_("Permissions"), {"fields": ("is_staff", "is_superuser", "groups")}),
        (_("In the store"), {"fields": ("owner", "conversations")}),
        (_("Dates"), {"fields": ("last_login", "date_joined")}),
    )
    add_fieldsets = ((None, {"fields": ("username", "email", "usable_password", "password1", "password2")}),)
    filter_horizontal = ()

    @admin.display(description=_("conversations"))
    def conversations(self, user: User) -> str:
        """The way to what the store keeps for this user."""
        if not user.pk:
            return ""
        address = f"{reverse('admin:conversations_list')}?{urlencode({'owner': user.owner})}"
        return str(format_html('<a href="{}">{}</a>', address, _("conversations")))

    @store_errors
    @method_decorator(csrf_protect)
    def delete_view(self, request: HttpRequest, object_id: str, extra_context: Any = None) -> HttpResponse:
        """Delete a user with all that the store keeps of theirs.

        Not in one transaction, as the inherited view has it: nobody could log in while the store is at it, and that the
        user may do nothing any more would be known to nobody else.
        """
        answer: HttpResponse = self._delete_view(request, object_id, extra_context)
        return answer

    @store_errors
    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> HttpResponse:
        """The list, whose actions delete users, too."""
        answer: HttpResponse = super().changelist_view(request, extra_context)
        return answer

    def delete_model(self, request: HttpRequest, obj: User) -> None:
        """First they may do nothing any more, then what is in the store goes: what was written in between, or without
        its user, nobody could find again. Raises ``StoreError``; then they stay, without access.
        """
        User.objects.filter(pk=obj.pk).update(is_active=False)
        ask(runtime.current().memory.delete_owner, obj.owner)
        super().delete_model(request, obj)

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> None:
        """Each of them."""
        for user in queryset:
            self.delete_model(request, user)

    def get_readonly_fields(self, request: HttpRequest, obj: User | None = None) -> tuple[str, ...]:
        """What this administrator may look at only."""
        fields: tuple[str, ...] = tuple(super().get_readonly_fields(request, obj))
        return fields if request.user.is_superuser else (*fields, "is_superuser")

    def has_change_permission(self, request: HttpRequest, obj: User | None = None) -> bool:
        """Superusers are changed by superusers."""
        return bool(super().has_change_permission(request, obj)) and _may_touch(request, obj)

    def has_delete_permission(self, request: HttpRequest, obj: User | None = None) -> bool:
        """Superusers are deleted by superusers."""
        return bool(super().has_delete_permission(request, obj)) and _may_touch(request, obj)


def _may_touch(request: HttpRequest, user: User | None) -> bool:
    return user is None or not user.is_superuser or bool(request.user.is_superuser)


@admin.register(ApiKey)
class KeyAdmin(admin.ModelAdmin):
    """API keys: looked at and revoked. Users make their own; nobody is shown one that exists."""

    list_display = ("prefix", "user", "name", "scopes", "created_at", "last_used_at", "expires_at", "revoked_at")
    list_filter = ("revoked_at",)
    list_select_related = ("user",)
    search_fields = ("prefix", "user__username")
    fields = ("prefix", "user", "name", "scopes", "created_at", "last_used_at", "expires_at", "revoked_at")
    readonly_fields = fields
    actions = ("revoke_selected",)

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Keys are made on the account page and in the terminal."""
        return False

    @admin.action(description=_("Revoke the chosen keys"), permissions=["change"])
    def revoke_selected(self, request: HttpRequest, queryset: QuerySet[Any]) -> None:
        """Revoke them, at once and for good."""
        for key in queryset:
            revoke(key)
            self.log_change(request, key, "revoked")
        messages.success(request, _("The keys are revoked."))
