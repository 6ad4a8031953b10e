"""What goes through Django's middleware: login, account, administration."""

from __future__ import annotations

from django.contrib import admin
from django.urls import URLPattern, URLResolver, include, path

from daram.service.configure import configured
from daram.service.files import static_file


def _external() -> list[URLPattern | URLResolver]:
    """Of allauth nothing but the two addresses of the protocol: its own logins would count no attempts."""
    if not configured().oidc_url:
        return []
    return [path("login/", include("allauth.socialaccount.providers.openid_connect.urls"))]


urlpatterns: list[URLPattern | URLResolver] = [
    path("", include("daram.service.accounts.urls")),
    path("admin/", admin.site.urls),
    *_external(),
    path("static/<path:path>", static_file),
]
