"""P8 down to the bytes: what was deleted is in no table, neither the text nor the terms of the search index."""

from __future__ import annotations

import asyncio
import re
import time
from pathlib import Path
from random import Random

import apsw
import pytest
from tests.faults.checks import check_file

import daram
from daram.store.sqlite.engine import SqliteStore

OWNER = "owner"


def remains(directory: Path) -> set[str]:
    """The secrets that are in any file of the directory."""
    return _secrets(b"".join(path.read_bytes() for path in directory.iterdir()))


def _secrets(data: bytes) -> set[str]:
    return {word.decode().lower() for word in re.findall(rb"(?i)secret[0-9a-z]{8}", data)}


def contents(path: Path) -> set[str]:
    """The secrets that are in any row of any table, those of the search index included."""
    db = apsw.Connection(str(path))
    found: set[str] = set()
    for (table,) in db.execute("SELECT name FROM sqlite_schema WHERE type = 'table' AND name <> 'search'").fetchall():
        for row in db.execute(f"SELECT * FROM {table}"):
            found.update(_secrets(b" ".join(v if isinstance(v, bytes) else str(v).encode() for v in row)))
    db.close()
    return found


def vacuum(path: Path) -> None:
    db = apsw.Connection(str(path))
    db.execute("VACUUM")
    db.close()


class Secrets:
    def __init__(self, seed: int) -> None:
        self.random = Random(seed)

    def word(self) -> str:
        return "secret" + "".join(self.random.choices("0123456789abcdef", k=8))

    def text(self, word: str) -> str:
        """A text with the word in it, now and then longer than a page."""
        size = self.random.choice([0, 5, 20, 100, 300, 3000])
        filler = [f"filler{self.random.randrange(500)}" for _ in range(size)]
        filler.insert(self.random.randint(0, size), word.capitalize())
        return " ".join(filler)


@pytest.mark.parametrize("seed", range(3))
async def test_deleted_messages_are_nowhere(tmp_path: Path, seed: int) -> None:
    secrets = Secrets(seed)
    deleted: set[str] = set()
    async with SqliteStore(tmp_path / "daram.db") as store:
        stored: list[tuple[str, str, str]] = []
        for i in range(400):
            word = secrets.word()
            metadata = {"note": word} if i % 3 == 0 else None
            message = daram.user(secrets.text(word), metadata=metadata)
            name = f"c{i % 7}"
            await store.append(OWNER, name, [message], create=True)
            stored.append((name, message.id, word))
            if i % 50 == 0:
                await store.search(OWNER, "filler1")  # some are deleted indexed, some before
        for name, id, word in stored:
            if secrets.random.random() < 0.6:
                await store.delete_message(OWNER, name, id)
                deleted.add(word)
    assert len(deleted) > 200
    assert deleted & contents(tmp_path / "daram.db") == set()
    # SQLite overwrites what is deleted (secure_delete), but not the copies that lie in the unused middle of a page
    # since it was split. They go when the page fills, and all at once with VACUUM.
    assert len(deleted & remains(tmp_path)) < len(deleted) / 10
    vacuum(tmp_path / "daram.db")
    assert deleted & remains(tmp_path) == set()
    assert [path.name for path in tmp_path.iterdir()] == ["daram.db"]
    check_file(tmp_path / "daram.db")


async def test_deleted_conversations_are_nowhere(tmp_path: Path) -> None:
    secrets = Secrets(9)
    words = {name: [secrets.word() for _ in range(30)] for name in ("kept", "deleted", "made anew")}
    async with SqliteStore(tmp_path / "daram.db") as store:
        for name, mine in words.items():
            await store.create(OWNER, id=name, title=mine[0], metadata={"note": mine[1]})
            await store.append(OWNER, name, [daram.user(secrets.text(word)) for word in mine[2:]])
        await store.search(OWNER, "filler1")
        await store.delete(OWNER, "deleted")
        await store.delete(OWNER, "made anew")
        await store.create(OWNER, id="made anew")
        assert [hit.conversation for hit in await store.search(OWNER, "secret")] == ["kept"] * 20
    vacuum(tmp_path / "daram.db")
    assert remains(tmp_path) == set(words["kept"])
    check_file(tmp_path / "daram.db")


async def test_a_deleted_owner_is_nowhere(tmp_path: Path) -> None:
    secrets = Secrets(11)
    kept, gone = secrets.word(), [secrets.word() for _ in range(60)]
    async with SqliteStore(tmp_path / "daram.db") as store:
        await store.append("other", "c", [daram.user(kept)], create=True)
        for i in range(25):
            await store.append(gone[i], f"c{i}", [daram.user(secrets.text(gone[i + 25]))], create=True)
            await store.put_record(gone[i], "users", "profile", gone[i].encode() * 50)
        await store.append(gone[50], "c", [daram.user(gone[51])], create=True)
        await store.search("other", "nothing")
        for owner in gone[:25] + gone[50:51]:
            assert await store.delete_owner(owner) == 1
        assert await store.delete_owner(gone[0]) == 0
    vacuum(tmp_path / "daram.db")
    assert remains(tmp_path) == {kept}
    check_file(tmp_path / "daram.db")


async def test_what_was_replaced_is_nowhere(tmp_path: Path) -> None:
    """Titles, records, the partial text of an answer."""
    secrets = Secrets(13)
    old, new = [secrets.word() for _ in range(4)], [secrets.word() for _ in range(4)]
    async with SqliteStore(tmp_path / "daram.db") as store:
        await store.create(OWNER, id="c", title=old[0])
        await store.update(OWNER, "c", title=new[0])
        await store.put_record(OWNER, "n", "k", old[1].encode() * 300)
        await store.put_record(OWNER, "n", "k", new[1].encode())
        turn = await store.begin_turn(OWNER, "c", [daram.user("question")])
        assert turn.answer is not None
        await store.checkpoint(OWNER, "c", turn.answer.id, turn.answer.token, secrets.text(old[2]))
        await store.finish_turn(OWNER, "c", turn.answer.id, turn.answer.token, text=new[2])
        await store.put_record(OWNER, "n", "deleted", old[3].encode())
        await store.delete_record(OWNER, "n", "deleted")
    vacuum(tmp_path / "daram.db")
    assert remains(tmp_path) == set(new[:3])


async def test_it_is_wiped_while_the_store_is_open(tmp_path: Path) -> None:
    """In the silence after a deletion, and even while there is never any silence."""
    secrets = Secrets(17)
    async with SqliteStore(tmp_path / "daram.db") as store:
        for quiet in (True, False):
            words = [secrets.word() for _ in range(300)]
            await store.append(OWNER, "c", [daram.user(word) for word in words[:100]], create=True)
            await store.append(OWNER, "c", [daram.user(word) for word in words[100:200]])
            await store.append(OWNER, "c", [daram.user(word) for word in words[200:]])
            await store.search(OWNER, "secret")
            await store.delete(OWNER, "c")
            await store.create(OWNER, id="c")
            deadline = time.monotonic() + 120
            while await store._read(lambda db: db.execute("SELECT stale FROM search_mark").get) != 0:
                assert time.monotonic() < deadline, "the index was never wiped"
                if quiet:
                    await asyncio.sleep(0.05)
                else:
                    # So many that new pieces of the index are written all the time.
                    for _ in range(20):
                        await store.append(OWNER, "d", [daram.user("noise") for _ in range(100)], create=True)
            left = await store._read(lambda db: b"".join(row[0] for row in db.execute("SELECT block FROM search_data")))
            assert b"secret" not in left
