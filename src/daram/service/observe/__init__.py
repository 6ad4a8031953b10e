"""What the service tells of itself: the id of each request, logs, figures, traces; never a secret, never a text."""
