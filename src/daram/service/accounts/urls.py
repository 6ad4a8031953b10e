"""Where the pages of the accounts are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.urls import URLPattern, path, re_path

from daram.service.accounts import views


def _page(route: str, view: Callable[..., Any], name: str) -> URLPattern:
    """A page that is there with and without a slash at the end; its name leads to the one without."""
    return re_path(rf"^{route}/?$", view, name=name)


urlpatterns = [
    _page("login", views.log_in, "login"),
    _page("login/link", views.log_in_by_link, "login-link"),
    _page("logout", views.log_out, "logout"),
    path("account/", views.account, name="account"),  # without the slash Django leads there
    _page("account/password", views.password, "password"),
    _page("account/keys", views.keys, "keys"),
    _page(r"account/keys/(?P<id>[0-9]{1,20})/revoke", views.revoke_key, "revoke-key"),
]
