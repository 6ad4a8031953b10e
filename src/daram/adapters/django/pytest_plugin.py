"""For ``pytest_plugins``: the fixture ``daram_store``."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from daram.adapters.django.faces import SyncMemory
from daram.adapters.django.test import fresh_store


@pytest.fixture
def daram_store() -> Iterator[SyncMemory]:
    """An empty store in the place of the project's, and a ``ScriptedModel`` in the place of its model."""
    with fresh_store() as memory:
        yield memory
