"""Made by Django's ``makemigrations``; a test finds models that have none."""
