"""The PostgreSQL server that the tests share: started once, a migrated database in it is the template of all others."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from psycopg import sql

from daram import ids, sync
from daram.testing.servers import PostgresServer
from daram.testing.suite.base import RawMessage

TEMPLATE = "daram_template"
DOCUMENTS = ("document", "revision", "passage", "passage_vector")


class Databases:
    """Databases with Daram's schema in them, one for each name that is asked for in a test.

    Making one takes longer than most tests, so they are emptied behind a test and used again.
    """

    def __init__(self, server: PostgresServer) -> None:
        self.server = server
        self._used: dict[object, str] = {}
        self._free: list[str] = []
        server.run(f"CREATE DATABASE {TEMPLATE}")
        sync.open(server.url_of(TEMPLATE)).close()

    def name(self, key: object) -> str:
        """The database of a test (by whatever it is known by); at the first call it is empty."""
        if key not in self._used:
            self._used[key] = self._free.pop() if self._free else self.server.database(TEMPLATE)
        return self._used[key]

    def url(self, key: object, *, port: int | None = None) -> str:
        """The URL of that database; ``port``: of a proxy in front of the server."""
        return self.server.url_of(self.name(key), port=port)

    def empty(self) -> None:
        """Forget what the test did."""
        while self._used:
            name = self._used.popitem()[1]
            with self.server.connect(name) as connection:
                for table in ("conversation", "tombstone", "message", "leaf", "answer", "record", *DOCUMENTS):
                    connection.execute(sql.SQL("DELETE FROM daram.{}").format(sql.Identifier(table)))
            self._free.append(name)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    with PostgresServer() as server:
        yield server


@pytest.fixture(scope="session")
def postgres_template(postgres_server: PostgresServer) -> Databases:
    return Databases(postgres_server)


@pytest.fixture
def databases(postgres_template: Databases) -> Iterator[Databases]:
    yield postgres_template
    postgres_template.empty()


def stored_messages(databases: Databases, key: object, owner: str, id: str) -> list[RawMessage]:
    """The rows of a conversation, read past the store."""
    with databases.server.connect(databases.name(key)) as connection:
        rows = connection.execute(
            "SELECT m.seq, m.id, p.id, m.role, m.text FROM daram.message m"
            " LEFT JOIN daram.message p ON p.conversation = m.conversation AND p.seq = m.parent"
            " WHERE m.conversation = %s ORDER BY m.seq",
            (ids.conversation_key(owner, id),),
        )
        return [RawMessage(*row) for row in rows]
