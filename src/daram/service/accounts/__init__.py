"""Who may come in: users, their API keys, their login."""
