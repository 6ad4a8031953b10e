"""Where the pages of the accounts are."""

from __future__ import annotations

from django.urls import path

from daram.service.accounts import views

urlpatterns = [
    path("login", views.log_in, name="login"),
    path("login/link", views.log_in_by_link, name="login-link"),
    path("logout", views.log_out, name="logout"),
    path("account/", views.account, name="account"),
    path("account/password", views.password, name="password"),
    path("account/keys", views.keys, name="keys"),
    path("account/keys/<int:id>/revoke", views.revoke_key, name="revoke-key"),
]
