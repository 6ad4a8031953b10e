"""A Django project in one file whose users each have a chat that remembers, beside the project's own tables.

pip install "daram[django]"
export OPENAI_API_KEY=…  OPENAI_MODEL=gpt-5-mini
python examples/django_chat.py migrate
python examples/django_chat.py createsuperuser
python examples/django_chat.py runserver     # and log in at http://127.0.0.1:8000/admin/, then open /

A whole project with its tests: docs/how-to/django.md.
"""

import os
import sys
from pathlib import Path

import django
from django.conf import settings

FOLDER = Path(os.environ.get("CHAT_FOLDER", "."))
APPS = ("admin", "auth", "contenttypes", "messages", "sessions", "staticfiles")
SHARED = ("django.contrib.auth.context_processors.auth", "django.contrib.messages.context_processors.messages")

settings.configure(
    DEBUG=True,
    SECRET_KEY=os.environ.get("SECRET_KEY", "for this machine alone"),
    ROOT_URLCONF=__name__,
    STATIC_URL="/static/",
    LOGIN_URL="/admin/login/",
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": FOLDER / "db.sqlite3"}},
    INSTALLED_APPS=[*(f"django.contrib.{name}" for name in APPS), "daram.adapters.django"],
    MIDDLEWARE=[
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.middleware.csrf.CsrfViewMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
        "django.contrib.messages.middleware.MessageMiddleware",
    ],
    TEMPLATES=[
        {
            "BACKEND": "django.template.backends.django.DjangoTemplates",
            "APP_DIRS": True,
            "OPTIONS": {"context_processors": ["django.template.context_processors.request", *SHARED]},
        }
    ],
    DARAM={name: os.environ.get(name) for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "OPENAI_MODEL")},
)

django.setup()

from django.contrib import admin  # noqa: E402  # Django wants its settings first
from django.contrib.auth.decorators import login_required  # noqa: E402
from django.http import HttpResponse  # noqa: E402
from django.middleware.csrf import get_token  # noqa: E402
from django.urls import path  # noqa: E402
from django.utils.html import format_html, format_html_join  # noqa: E402

from daram.adapters.django import get_chatbot, get_memory, owner_of  # noqa: E402
from daram.errors import NotFound  # noqa: E402


@login_required
def chat(request):
    owner = owner_of(request.user)
    if request.method == "POST":
        get_chatbot().ask(owner, "chat", request.POST["text"])
    try:
        said = get_memory().tail(owner, "chat", 20)
    except NotFound:
        said = []
    lines = format_html_join("", "<p><b>{}</b> {}</p>", ((message.role, message.text) for message in said))
    form = '<form method="post"><input type="hidden" name="csrfmiddlewaretoken" value="{}"><input name="text"></form>'
    return HttpResponse(lines + format_html(form, get_token(request)))


urlpatterns = [path("", chat), path("admin/", admin.site.urls)]

if __name__ == "__main__":
    from django.core.management import execute_from_command_line

    execute_from_command_line(sys.argv)
