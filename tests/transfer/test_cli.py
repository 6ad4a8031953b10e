"""The commands: copy, export, import, check, migrate, backup, restore, purge, erase."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import apsw
import pytest
from click.testing import CliRunner, Result
from tests.redis_servers import Places

import daram
from daram.cli.app import cli
from daram.settings import Settings
from daram.store.documents import Document
from daram.testing.servers import RedisServer

Run = Callable[..., Result]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    def invoke(*arguments: str, input: bytes | None = None) -> Result:
        return CliRunner().invoke(cli, arguments, env={"DARAM_DATA": str(tmp_path / "data")}, input=input)

    return invoke


@pytest.fixture
def store(tmp_path: Path) -> str:
    """The URL of a store with something in it."""
    (tmp_path / "data").mkdir(mode=0o700)
    url = Settings(data=tmp_path / "data").store
    with daram.sync.open(url) as memory:
        for n in range(3):
            memory.append("local", f"c{n}", [daram.user(f"word{n}", id="a"), daram.assistant("b", id="b")], create=True)
        memory.append("kim", "k", [daram.user("other")], create=True)
        memory.put_record("kim", "n", "k", b"v")
    return url


def held(url: str) -> dict[tuple[str, str], list[str]]:
    with daram.sync.open(url) as memory:
        return {
            (owner, c.id): [m.text for m in memory.tail(owner, c.id)]
            for owner in ("local", "kim")
            for c in memory.list(owner).items
        }


def test_copy(run: Run, store: str, tmp_path: Path) -> None:
    other = f"sqlite:///{tmp_path}/other.db"
    result = run("copy", store, other)
    assert result.exit_code == 0, result.stderr
    assert "4 new" in result.stderr
    assert held(other) == held(store)
    assert "4 equal already" in run("copy", store, other).stderr
    with daram.sync.open(other) as memory:
        memory.append("local", "c1", [daram.user("mine")])
    result = run("copy", store, other)
    assert result.exit_code == 1
    assert "c1 of local" in result.stderr
    assert run("copy", store, other, "--replace").exit_code == 0
    assert held(other) == held(store)


def test_copy_takes_documents_along(run: Run, store: str, tmp_path: Path, redis_server: RedisServer) -> None:
    with daram.sync.open(store) as memory:
        memory.put_document(Document(id="d", owner="local", collection="c", name="d.txt", state="failed"))
    other = f"sqlite:///{tmp_path}/other.db"
    result = run("copy", store, other)
    assert result.exit_code == 0, result.stderr
    assert "1 documents put in place" in result.stderr
    assert "1 documents equal already" in run("copy", store, other).stderr
    with daram.sync.open(store) as memory:
        memory.delete_document("local", "c", "d")
    assert "documents only at the target (1): local/c/d" in run("copy", store, other).stderr
    kept = run("copy", other, Places(redis_server).url(tmp_path))
    assert kept.exit_code == 0, kept.stderr
    assert "not copied: 1 documents" in kept.stderr
    assert "Everything but the documents" in kept.stderr


def test_copy_from_nowhere_makes_nothing(run: Run, tmp_path: Path) -> None:
    result = run("copy", f"sqlite:///{tmp_path}/missing.db", f"sqlite:///{tmp_path}/other.db")
    assert result.exit_code == 2
    assert "no store" in result.stderr
    assert list(tmp_path.glob("*.db")) == []


def test_export_and_import(run: Run, store: str, tmp_path: Path) -> None:
    file = tmp_path / "kept.jsonl"
    assert run("export", str(file)).exit_code == 0
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    refused = run("export", str(file))
    assert refused.exit_code == 2
    assert "--force" in refused.stderr
    assert run("export", str(file), "--force").exit_code == 0
    before = held(store)
    assert run("erase", "local", "--yes").exit_code == 0
    assert run("erase", "kim", "--yes").exit_code == 0
    assert held(store) == {}
    assert "4 new" in run("import", str(file)).stderr
    assert held(store) == before
    assert "4 equal already" in run("import", str(file)).stderr


def test_export_and_import_in_a_pipe(run: Run, store: str) -> None:
    whole = run("export", "-").stdout_bytes
    assert [json.loads(line)["type"] for line in whole.splitlines()].count("conversation") == 4
    one = run("export", "-", "--conversation", "c1").stdout_bytes
    assert "1 new" in run("import", "-", "--owner", "lee", input=one).stderr
    with daram.sync.open(store) as memory:
        assert [m.text for m in memory.tail("lee", "c1")] == ["word1", "b"]
    bad = run("import", "-", input=whole.replace(b'"role":"user"', b'"role":"king"', 1))
    assert bad.exit_code == 1
    assert "line 3, role" in bad.stderr


def test_import_from_a_chat_history(run: Run, store: str, tmp_path: Path) -> None:
    file = tmp_path / "chat.json"
    file.write_text('[{"SYSTEM": "init conversation"}, {"id_user": 1, "USER": "hi"}, {"id_ai": 1, "AI": "yes"}]')
    result = run("import", "--from", "chathistory", str(file))
    assert "1 conversations, 2 messages: 2 are new" in result.stderr
    assert held(store)["local", "chat"] == ["hi", "yes"]


def test_check_finds_and_repairs(run: Run, store: str, tmp_path: Path) -> None:
    assert run("check").exit_code == 0
    apsw.Connection(str(tmp_path / "data" / "daram.db")).execute("DELETE FROM conversation WHERE id = 'k'")
    found = run("check", "--json")
    assert found.exit_code == 1
    assert {p["where"] for p in json.loads(found.stdout)["problems"]} == {"table message", "table doc"} or (
        "table message" in found.stdout
    )
    mended = run("check", "--repair")
    assert mended.exit_code == 0, mended.stdout
    assert "(repaired)" in mended.stdout
    assert run("check").stdout == ""


def test_check_does_not_make_a_store(run: Run, tmp_path: Path) -> None:
    assert run("check").exit_code == 2
    assert not (tmp_path / "data" / "daram.db").exists()


def test_migrate(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "data" / "daram.db"
    dry = run("migrate", "--dry-run")
    assert "schema 0" in dry.stdout
    assert "Would apply 1" in dry.stderr
    assert not file.exists()
    assert "Now it is schema" in run("migrate").stderr
    assert "nothing to do" in run("migrate").stderr
    assert "no schema" in run("migrate", "--store", "memory://").stderr


@pytest.mark.parametrize("command", [["erase", "kim", "--yes"], ["purge"], ["export", "FILE"], ["export", "-"]])
@pytest.mark.parametrize("folder", ["data", "missing"])
def test_a_typo_makes_no_store_and_is_no_success(run: Run, tmp_path: Path, command: list[str], folder: str) -> None:
    (tmp_path / "data").mkdir(mode=0o700)
    words = [str(tmp_path / "out") if word == "FILE" else word for word in command]
    result = run(*words, "--store", f"sqlite:///{tmp_path}/{folder}/missing.db")
    assert result.exit_code == 2
    assert "there is no store at" in result.stderr
    assert [path.name for path in tmp_path.rglob("*")] == ["data"]


def test_backup_and_restore(run: Run, store: str, tmp_path: Path) -> None:
    before, kept = held(store), tmp_path / "kept.db"
    assert run("backup", str(kept)).exit_code == 0
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert run("backup", str(kept)).exit_code == 2
    assert run("backup", str(kept), "--force").exit_code == 0
    run("erase", "local", "--yes")
    assert run("restore", str(kept)).exit_code == 2
    result = run("restore", str(kept), "--force")
    assert result.exit_code == 0, result.stderr
    assert "4 conversations" in result.stderr
    assert held(store) == before
    new = f"sqlite:///{tmp_path}/new.db"
    assert run("restore", str(kept), "--store", new).exit_code == 0
    assert held(new) == before


def test_a_damaged_store_can_be_replaced_by_a_backup(run: Run, store: str, tmp_path: Path) -> None:
    before = held(store)
    run("backup", str(tmp_path / "kept.db"))
    refused = run("restore", str(tmp_path / "missing.db"), "--force")
    assert refused.exit_code == 1
    assert held(store) == before


def test_backup_of_another_engine_says_what_to_do(run: Run) -> None:
    result = run("backup", "x.db", "--store", "memory://")
    assert result.exit_code == 1
    assert "daram export" in result.stderr


def test_purge(run: Run, store: str) -> None:
    with daram.sync.open(store) as memory:
        memory.create("local", id="late", expires_at=datetime(2001, 1, 1, tzinfo=UTC))
    assert run("purge").stderr == "1 expired conversations are deleted\n"
    assert run("purge").stderr == "0 expired conversations are deleted\n"


def test_erase_asks_and_takes_everything_of_one_owner(run: Run, store: str, tmp_path: Path) -> None:
    assert run("erase", "kim").exit_code == 2
    assert ("kim", "k") in held(store)
    assert "1 conversations of kim" in run("erase", "kim", "--yes").stderr
    assert len(held(store)) == 3
    with daram.sync.open(store) as memory:
        assert memory.get_record("kim", "n", "k") is None
        assert memory.search("kim", "other") == []


@pytest.mark.skipif(os.name == "nt", reason="modes of files are POSIX's")
def test_only_the_owner_reads_what_is_kept(tmp_path: Path) -> None:
    code = (
        "import os; os.umask(0)\n"
        "from daram.cli.app import main; import sys; sys.argv = ['daram', *sys.argv[1:]]; main()"
    )
    env = {**os.environ, "DARAM_DATA": str(tmp_path / "data")}
    for arguments in (["list"], ["backup", str(tmp_path / "b.db")], ["export", str(tmp_path / "e.jsonl")]):
        subprocess.run([sys.executable, "-c", code, *arguments], env=env, check=True, capture_output=True, timeout=120)
    assert stat.S_IMODE((tmp_path / "data").stat().st_mode) == 0o700
    files = [*(tmp_path / "data").iterdir(), tmp_path / "b.db", tmp_path / "e.jsonl"]
    assert len(files) >= 3
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}
