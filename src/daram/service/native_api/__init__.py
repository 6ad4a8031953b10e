"""What the pages ask of the service, with the session of a login instead of an API key."""
