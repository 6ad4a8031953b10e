"""What the pages of the accounts ask for."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib.auth.password_validation import password_validators_help_texts, validate_password
from django.core.exceptions import ValidationError
from django.utils.translation import gettext_lazy as _

from daram.service.accounts.models import SCOPES, User


class PlainForm(forms.Form):
    """A form whose labels are words, without a colon."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, label_suffix="", **kwargs)


class LoginForm(PlainForm):
    """A name and a password."""

    username = forms.CharField(
        label=_("User name or e-mail address"),
        max_length=254,
        widget=forms.TextInput(
            attrs={"autocomplete": "username", "autocapitalize": "none", "spellcheck": "false", "autofocus": True}
        ),
    )
    password = forms.CharField(
        label=_("Password"),
        max_length=4096,
        strip=False,
        widget=forms.PasswordInput(attrs={"autocomplete": "current-password"}),
    )


class PasswordForm(PlainForm):
    """A new password, twice, and the present one of a user who has one."""

    present = forms.CharField(
        label=_("Present password"),
        max_length=4096,
        strip=False,
        widget=forms.PasswordInput(attrs={"autocomplete": "current-password"}),
    )
    new = forms.CharField(
        label=_("New password"),
        max_length=4096,
        strip=False,
        widget=forms.PasswordInput(attrs={"autocomplete": "new-password"}),
    )
    again = forms.CharField(
        label=_("New password, once more"),
        max_length=4096,
        strip=False,
        widget=forms.PasswordInput(attrs={"autocomplete": "new-password"}),
    )

    def __init__(self, user: User, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.user = user
        self.rules = password_validators_help_texts()
        if not user.has_usable_password():  # somebody who came by a link sets the first one
            del self.fields["present"]

    def clean(self) -> dict[str, Any]:
        """The passwords, if the two are equal and strong enough."""
        given: dict[str, Any] = super().clean() or {}
        new = given.get("new")
        if new and given.get("again") and new != given["again"]:
            self.add_error("again", ValidationError(_("The two passwords differ.")))
        elif new:
            try:
                validate_password(new, self.user)
            except ValidationError as error:
                self.add_error("new", error)
        return given


class KeyForm(PlainForm):
    """A new API key."""

    name = forms.CharField(
        label=_("Name"),
        max_length=100,
        required=False,
        help_text=_("What it is for: only you see this."),
        widget=forms.TextInput(attrs={"autocomplete": "off"}),
    )
    scope = forms.ChoiceField(label=_("Scopes"), initial="write")

    def __init__(self, user: User, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        words = {
            "read": _("read conversations"),
            "write": _("read and write conversations"),
            "admin": _("read and write, and administer"),
        }
        self.fields["scope"].choices = [(scope, words[scope]) for scope in SCOPES if scope != "admin" or user.is_staff]

    def clean_name(self) -> str:
        """The name, on one line."""
        name: str = self.cleaned_data["name"]
        if not name.isprintable():
            raise ValidationError(_("Printable characters only."))
        return name
