"""The tutorial's documents are read in the process of the test."""

from tests.knowledge.conftest import in_process

__all__ = ["in_process"]
