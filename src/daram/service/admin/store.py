"""How the administration asks the store, and says what the store refuses."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import wraps
from typing import Any, ParamSpec, TypeVar

from asgiref.sync import async_to_sync
from django.contrib import admin
from django.http import Http404, HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.utils.translation import gettext as _

from daram.errors import DaramError, InvalidInput, NotFound

P = ParamSpec("P")
R = TypeVar("R")


def ask(call: Callable[P, Awaitable[R]], *args: P.args, **kwargs: P.kwargs) -> R:
    """What the store answers, on the loop that serves: these views run on threads beside it."""
    found: R = async_to_sync(call)(*args, **kwargs)
    return found


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
