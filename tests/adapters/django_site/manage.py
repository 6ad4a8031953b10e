"""A Django project as others have it, for tests/adapters/test_django.py."""

import os
import sys

from django.core.management import execute_from_command_line

if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "site_app.settings")
    execute_from_command_line(sys.argv)
