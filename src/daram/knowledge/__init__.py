"""Documents that answers are grounded in: taking them in, the index over them, and finding passages."""
