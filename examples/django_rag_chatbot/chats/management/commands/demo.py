"""``manage.py demo``: tables, some lessons, somebody who can log in, and the server."""

import secrets
from pathlib import Path

from django.conf import settings
from django.contrib.auth import get_user_model
from django.core.management import BaseCommand, call_command
from rest_framework.authtoken.models import Token

import daram
from daram.adapters.django import get_documents

LESSONS = Path(settings.BASE_DIR, "lessons")
REFERENCES = {
    ("BOOKS", 1): ("Squirrels", "squirrels.md"),
    ("BOOKS", 2): ("다람쥐", "squirrels.ko.md"),
}
OFFICIAL_DOCS = {1: ["querysets.md", "querysets.ko.md"]}


class Command(BaseCommand):
    help = "Prepare everything and serve it, so that one can try it."

    def add_arguments(self, parser):
        parser.add_argument("address", nargs="?", default="127.0.0.1:8000")
        parser.add_argument("--prepare", action="store_true", help="Do not serve.")

    def handle(self, address, prepare, **options):
        call_command("migrate", verbosity=0)
        load()
        user, made = get_user_model().objects.get_or_create(username="demo")
        if made:
            password = secrets.token_urlsafe(12)
            user.set_password(password)
            user.save()
            self.stdout.write(f"User: demo, password: {password}")
        token, _ = Token.objects.get_or_create(user=user)
        self.stdout.write(f"Token: {token.key}")
        self.stdout.flush()
        if not prepare:
            call_command("runserver", address, use_reloader=False)


def load():
    """Put the lessons in; those that have not changed stay as they are."""
    documents, admin = get_documents(), daram.Reader("demo", admin=True)
    for (category, title_no), (title, file) in REFERENCES.items():
        text = Path(LESSONS, file).read_text("utf-8")
        documents.put_reference(admin, category, title_no, title, text, owner="official")
    for title_no, files in OFFICIAL_DOCS.items():
        for file in files:
            documents.add(admin, daram.Scope("official", str(title_no)), Path(LESSONS, file), wait=True)
