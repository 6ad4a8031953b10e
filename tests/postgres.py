"""The PostgreSQL server that the tests share: started once, a migrated database in it is the template of all others."""

from __future__ import annotations

import time
from base64 import urlsafe_b64encode
from collections.abc import Iterator

import pytest
from psycopg import sql

from daram import ids, sync
from daram.testing.servers import PostgresServer
from daram.testing.suite.base import RawMessage
from daram.text.analyzer import index_terms

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

    def settled(self, key: object, at_most: int) -> None:
        """Wait until clients have so few sessions in that database: they end in their own time."""
        query = "SELECT query FROM pg_stat_activity WHERE datname = %s AND backend_type = 'client backend'"
        deadline = time.monotonic() + 60
        with self.server.connect() as watcher:
            while len(last := watcher.execute(query, (self.name(key),)).fetchall()) > at_most:
                assert time.monotonic() < deadline, f"more than {at_most} sessions stay; what each said last: {last}"
                time.sleep(0.01)

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


def check_passages(databases: Databases, key: object) -> None:
    """Raise AssertionError unless passages, their terms and their vectors say the same, and all belong to something."""
    with databases.server.connect(databases.name(key)) as connection:

        def rows(query: str) -> list[tuple[object, ...]]:
            return connection.execute(query.encode()).fetchall()

        published = "SELECT owner, collection, document, id, name FROM daram.revision WHERE NOT staged"
        live = "SELECT owner, collection, id, live, revision FROM daram.document WHERE live IS NOT NULL"
        assert set(rows(published)) == set(rows(live))
        counts = "SELECT live, passages FROM daram.document WHERE passages > 0"
        have = "SELECT revision, count(*) FROM daram.passage JOIN daram.revision ON id = revision WHERE NOT staged"
        assert set(rows(counts)) == set(rows(have + " GROUP BY revision"))
        staged = {id for (id,) in rows("SELECT id FROM daram.revision")}
        assert {id for (id,) in rows("SELECT revision FROM daram.passage")} <= staged
        vectors = set(rows("SELECT revision, seq FROM daram.passage_vector"))
        assert vectors <= set(rows("SELECT revision, seq FROM daram.passage"))
        stored = "SELECT owner, collection, p.text, tsvector_to_array(terms) FROM daram.passage p"
        for owner, collection, text, terms in rows(stored + " JOIN daram.revision ON id = revision"):
            fence = urlsafe_b64encode(ids.conversation_key(str(owner), str(collection))[:3]).decode()
            assert isinstance(terms, list)
            assert set(terms) == {fence + term for term in index_terms(str(text)).split()}


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
