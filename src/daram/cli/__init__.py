"""The terminal: ``daram …``."""

from daram.cli.app import main

__all__ = ["main"]
