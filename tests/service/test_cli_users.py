"""``daram user`` and ``daram key``."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from tests.service.people import make_person, service_settings

from daram import ids
from daram.cli.app import cli

PASSWORD = "hazelnuts-in-the-snow"


@pytest.fixture(autouse=True)
def _service(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = service_settings(tmp_path_factory.mktemp("data"))
    monkeypatch.setenv("DARAM_DATA", str(settings.data))
    monkeypatch.setenv("DATABASE_URL", settings.accounts or "")
    from daram.service.accounts import backend

    monkeypatch.setattr(backend.Argon2, "memory_cost", 8)


def run(*args: str, given: str = "") -> Result:
    return CliRunner().invoke(cli, args, input=given, prog_name="daram")


def new_name() -> str:
    return "cli-" + ids.uuid7()


def added(*flags: str) -> str:
    name = new_name()
    result = run("user", "add", name, "--password-stdin", *flags, given=PASSWORD + "\n")
    assert result.exit_code == 0, result.output
    return name


def test_a_user_and_a_key_for_them() -> None:
    from daram.service.accounts.backend import NameOrEmail
    from daram.service.accounts.keys import find_key

    name = added("--email", f"{new_name()}@Example.org")
    user = NameOrEmail().authenticate(None, name, PASSWORD)
    assert user is not None and not user.is_staff and user.email.endswith("@example.org")
    result = run("key", "create", name, "--scope", "read", "--label", "laptop", "--days", "7")
    assert result.exit_code == 0
    key = result.stdout.removesuffix("\n")
    row = find_key(key)  # the key alone, nothing else, on stdout
    assert row is not None and row.user_id == user.pk and row.scopes == "read" and row.name == "laptop"
    assert row.expires_at is not None and 6 <= (row.expires_at - row.created_at).days <= 7

    listed = run("key", "list", name).stdout.rstrip("\n").split("\t")
    assert listed == [row.prefix, name, "read", "laptop", "never", "works"]
    assert key not in run("key", "list", "--json").stdout
    assert run("key", "revoke", row.prefix).exit_code == 0
    assert find_key(key) is None
    assert run("key", "list", name).stdout.rstrip("\n").endswith("revoked")


def test_an_administrator() -> None:
    name = added("--admin")
    (row,) = [each for each in json.loads(run("user", "list", "--json").stdout) if each["name"] == name]
    assert row["admin"] and row["active"] and row["owner"].startswith("user_")
    assert run("key", "create", name, "--scope", "admin").exit_code == 0
    refused = run("key", "create", added(), "--scope", "admin")
    assert refused.exit_code == 1 and "administrators only" in refused.stderr and not refused.stdout


def test_a_whole_key_is_revoked_and_not_said_again() -> None:
    who = make_person()
    result = run("key", "revoke", who.key)
    assert result.exit_code == 0 and who.key not in result.output
    who.key_row.refresh_from_db()
    assert who.key_row.revoked_at is not None


def test_a_link_and_a_password_for_who_forgot_theirs() -> None:
    from daram.service.accounts.backend import NameOrEmail
    from daram.service.accounts.people import linked_user

    name = new_name()
    assert run("user", "add", name, "--no-password").exit_code == 0
    link = run("user", "link", name).stdout.strip()
    assert link.startswith("http://127.0.0.1:8000/login/link?token=")
    user = linked_user(link.partition("=")[2])
    assert user is not None and user.username == name and not user.has_usable_password()
    assert run("user", "password", name, "--password-stdin", given=PASSWORD + "\r\n").exit_code == 0
    assert NameOrEmail().authenticate(None, name, PASSWORD) is not None


@pytest.mark.parametrize(
    ("args", "given", "code", "said"),
    [
        (("user", "add", "with space", "--no-password"), "", 1, "Letters, digits"),
        (("user", "add", "a@b.example", "--no-password"), "", 1, "Letters, digits"),
        (("user", "add", "new", "--email", "nonsense", "--no-password"), "", 1, "valid email"),
        (("user", "add", "new", "--password-stdin"), "", 1, "holds none"),
        (("user", "add", "new", "--password-stdin"), "short\n", 1, "too short"),
        (("user", "add", "new", "--password-stdin", "--no-password"), "x\n", 2, "exclude"),
        (("user", "add", "new"), "", 2, "--password-stdin"),
        (("user", "add", "n" * 151, "--no-password"), "", 1, "150"),
        (("key", "create", "nobody-at-all"), "", 1, "there is no 'nobody-at-all'"),
        (("key", "create", "nobody-at-all", "--scope", "all"), "", 2, "--scope"),
        (("key", "list", "nobody-at-all"), "", 1, "there is no"),
        (("key", "revoke", "daram-0000000000"), "", 1, "no such key"),
        (("user", "link", "nobody-at-all"), "", 1, "there is no"),
        (("user", "password", "nobody-at-all", "--password-stdin"), PASSWORD, 1, "there is no"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_line(args: tuple[str, ...], given: str, code: int, said: str) -> None:
    result = run(*args, given=given)
    assert result.exit_code == code and said in result.stderr
    assert "Traceback" not in result.output and not result.stdout


def test_a_name_is_taken_once_whatever_its_case() -> None:
    name = added()
    for again in (name, name.upper()):
        result = run("user", "add", again, "--no-password")
        assert result.exit_code == 1 and "already" in result.stderr


def test_the_commands_by_themselves_on_nothing(tmp_path: Path) -> None:
    """As a user runs them: a process each, no accounts yet, no output but the key."""
    environment = {**os.environ, "DARAM_DATA": str(tmp_path / "data"), "DATABASE_URL": ""}

    def daram(*args: str, given: str = "") -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-W", "error", "-m", "daram", *args]
        return subprocess.run(
            command, env=environment, input=given, capture_output=True, text=True, timeout=240, check=False
        )

    done = daram("user", "add", "alice", "--admin", "--password-stdin", given=PASSWORD + "\n")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "alice is added as an administrator\n")
    done = daram("key", "create", "alice")
    assert done.returncode == 0 and done.stdout.startswith("daram-") and len(done.stdout) == 61
    assert done.stderr == ""
    blocked = {"DATABASE_URL": "sqlite:///" + str(tmp_path / "missing" / "a.sqlite3")}
    environment |= blocked
    done = daram("user", "list")
    assert done.returncode == 2 and done.stderr.startswith("daram: DATABASE_URL: ") and done.stderr.count("\n") == 1
