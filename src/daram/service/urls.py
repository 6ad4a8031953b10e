"""What goes through Django's middleware: login, account, administration."""

from __future__ import annotations

from django.contrib import admin
from django.urls import URLPattern, URLResolver, include, path

from daram.service.files import static_file

urlpatterns: list[URLPattern | URLResolver] = [
    path("", include("daram.service.accounts.urls")),
    path("admin/", admin.site.urls),
    path("static/<path:path>", static_file),
]
