"""What goes through Django's middleware: login, account, administration, the API for sessions."""

from __future__ import annotations

from django.contrib import admin
from django.urls import URLPattern, URLResolver, include, path, re_path

from daram.service.configure import configured
from daram.service.files import static_file
from daram.service.native_api.api import api as native
from daram.service.native_api.api import not_there


def _external() -> list[URLPattern | URLResolver]:
    """Of allauth nothing but the two addresses of the protocol: its own logins would count no attempts."""
    if not configured().oidc_url:
        return []
    return [path("login/", include("allauth.socialaccount.providers.openid_connect.urls"))]


urlpatterns: list[URLPattern | URLResolver] = [
    path("", include("daram.service.accounts.urls")),
    path("admin/", admin.site.urls),
    path("api/", native.urls),
    re_path("^api/", not_there),
    *_external(),
    path("static/<path:path>", static_file),
]
