"""What several of these tests run on: the service in processes of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.postgres import Databases
from tests.service.processes import House, opened

from daram.testing.servers import RedisServer


@pytest.fixture
async def alone(tmp_path: Path) -> AsyncIterator[House]:
    """On SQLite, the log of events in the memory of the process."""
    async with opened(tmp_path) as found:
        yield found


@pytest.fixture
async def pair(tmp_path: Path, databases: Databases, redis_server: RedisServer) -> AsyncIterator[House]:
    """On PostgreSQL and Redis."""
    redis_server.flush()
    async with opened(tmp_path, DARAM_STORE=databases.url("pair"), DARAM_REDIS=redis_server.url) as found:
        yield found
    redis_server.flush()
