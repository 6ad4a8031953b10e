"""The service: accounts, and the HTTP API over the same conversations (Django)."""
