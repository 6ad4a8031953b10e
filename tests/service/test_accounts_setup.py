"""Setting the accounts up: files for their owner only, tables made once however many processes start, plain errors."""

from __future__ import annotations

import json
import os
import sqlite3
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from daram import ids
from daram.errors import ConfigError
from daram.settings import Settings
from daram.testing.servers import PostgresServer

ROOT = Path(__file__).resolve().parents[2]
START = """
import json, sys
from pathlib import Path
from daram.settings import Settings
from daram.service.accounts.setup import prepare_accounts
sys.stdin.readline()  # all begin at once
settings = Settings.from_env()
prepare_accounts(settings)
from django.conf import settings as django
from django.contrib.auth.models import Group
from daram.service.accounts.people import local_user
from daram.service.accounts.keys import create_key, find_key
user = local_user("local")
key = create_key(user)[1]
assert find_key(key).user.owner == "local"
found = {name: getattr(django, name) for name in %r}
found |= {"user": user.pk, "permissions": Group.objects.get().permissions.count()}
print(json.dumps(found))
"""
NAMES = (
    "SECRET_KEY",
    "DEBUG",
    "ALLOWED_HOSTS",
    "SESSION_COOKIE_NAME",
    "SESSION_COOKIE_SECURE",
    "CSRF_COOKIE_NAME",
    "CSRF_COOKIE_SECURE",
    "CSRF_TRUSTED_ORIGINS",
)


def start(environment: dict[str, str], times: int = 1) -> list[subprocess.Popen[str]]:
    """So many processes that set the accounts up, and wait for the sign to begin."""
    path = os.pathsep.join([str(ROOT / "src"), *filter(None, [os.environ.get("PYTHONPATH")])])
    return [
        subprocess.Popen(
            [sys.executable, "-W", "error", "-c", START % (NAMES,)],
            env={**os.environ, **environment, "PYTHONPATH": path},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(times)
    ]


def ends(processes: list[subprocess.Popen[str]]) -> list[tuple[int, str, str]]:
    """Let them begin; their exit codes and what they said."""
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    said = [process.communicate(timeout=240) for process in processes]
    return [(process.returncode, *texts) for process, texts in zip(processes, said, strict=True)]


def run(environment: dict[str, str], times: int = 1) -> list[dict[str, Any]]:
    """What so many processes found, all of which must succeed."""
    found = []
    for code, out, error in ends(start(environment, times)):
        assert code == 0, error
        found.append(json.loads(out))
    return found


def test_several_processes_start_at_once_on_nothing(tmp_path: Path) -> None:
    data = tmp_path / "data"
    found = run({"DARAM_DATA": str(data)}, 4)
    assert len({each["SECRET_KEY"] for each in found}) == 1 and len(found[0]["SECRET_KEY"]) >= 80
    assert len({each["user"] for each in found}) == 1
    assert found[0]["DEBUG"] is False and found[0]["permissions"] > 0
    assert stat.S_IMODE(data.stat().st_mode) == 0o700
    modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in data.iterdir()}
    assert set(modes.values()) == {0o600}, modes
    assert {"secret-key", "accounts.sqlite3"} <= set(modes) and not [name for name in modes if "secret-key." in name]

    # And again, on what is there: the same key, the same user.
    again = run({"DARAM_DATA": str(data)})[0]
    assert again["SECRET_KEY"] == found[0]["SECRET_KEY"] and again["user"] == found[0]["user"]


@pytest.mark.parametrize("is_first", [True, False])
def test_a_process_that_ended_behind_its_last_migration_is_made_up_for(tmp_path: Path, is_first: bool) -> None:
    whole = run({"DARAM_DATA": str(tmp_path)})[0]
    with sqlite3.connect(tmp_path / "accounts.sqlite3") as database:
        if is_first:
            database.execute("DELETE FROM auth_group_permissions")
            database.execute("DELETE FROM auth_group")
        one = "(SELECT id FROM auth_permission WHERE codename = 'view_storedconversation')"
        database.execute(f"DELETE FROM auth_group_permissions WHERE permission_id IN {one}")
        database.execute(f"DELETE FROM auth_permission WHERE id IN {one}")
    database.close()
    assert run({"DARAM_DATA": str(tmp_path)})[0]["permissions"] == whole["permissions"]


def test_several_processes_start_at_once_on_an_empty_postgresql(
    postgres_server: PostgresServer, tmp_path: Path
) -> None:
    name = "accounts_" + ids.uuid7()
    postgres_server.run(f"CREATE DATABASE {name}")
    environment = {"DARAM_DATA": str(tmp_path), "DATABASE_URL": postgres_server.url_of(name)}
    found = run(environment, 3)
    assert len({each["user"] for each in found}) == 1
    assert not (tmp_path / "accounts.sqlite3").exists()


def test_behind_https_cookies_are_for_tls_and_this_host_only(tmp_path: Path) -> None:
    (found,) = run(
        {
            "DARAM_DATA": str(tmp_path),
            "DARAM_PUBLIC_URL": "https://Chat.Example.org",
            "DARAM_ALLOWED_HOSTS": "chat2.example.org,.example.net",
            "DARAM_SECRET_KEY": "k" * 50,
        }
    )
    assert found["SESSION_COOKIE_NAME"].startswith("__Host-daram-") and found["SESSION_COOKIE_SECURE"]
    assert found["CSRF_COOKIE_NAME"].startswith("__Host-") and found["CSRF_COOKIE_SECURE"]
    assert found["CSRF_TRUSTED_ORIGINS"] == ["https://chat.example.org"]
    assert {"chat.example.org", "chat2.example.org", ".example.net", "localhost"} <= set(found["ALLOWED_HOSTS"])
    assert "*" not in found["ALLOWED_HOSTS"]
    assert found["SECRET_KEY"] == "k" * 50 and not (tmp_path / "secret-key").exists()


def test_the_name_of_the_cookie_tells_nothing_of_the_secret(tmp_path: Path) -> None:
    """It differs by the accounts: two services on one machine, and one of several processes."""
    from daram.service.configure import _django

    def named(data: str = "one", **given: str) -> str:
        settings = Settings(data=tmp_path / data, secret_key=given.pop("secret", "k" * 50), **given)
        return str(_django(settings)["SESSION_COOKIE_NAME"])

    assert named() == named(secret="s" * 50) != named("two")
    shared = "postgresql://ann:{}@db/accounts"
    assert named(accounts=shared.format("old")) == named("two", accounts=shared.format("new")) != named()


def test_what_a_newer_daram_wrote_is_left_alone(tmp_path: Path) -> None:
    run({"DARAM_DATA": str(tmp_path)})
    with sqlite3.connect(tmp_path / "accounts.sqlite3") as database:
        database.execute("INSERT INTO django_migrations (app, name, applied) VALUES ('accounts', '9999_later', '2099')")
    database.close()
    ((code, _, error),) = ends(start({"DARAM_DATA": str(tmp_path)}))
    assert code != 0 and "newer Daram (9999_later)" in error


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("sqlite:///{missing}/accounts.sqlite3", "cannot be opened"),
        ("sqlite:///{text}", "not a database"),
        ("postgresql://u:secret-password@127.0.0.1:1/none", "cannot be opened"),
    ],
)
def test_what_cannot_be_opened_is_said_in_a_line(tmp_path: Path, url: str, said: str) -> None:
    text = tmp_path / "text"
    text.write_text("nothing of a database\n" * 100)
    address = url.format(missing=tmp_path / "missing", text=text)
    ((code, _, error),) = ends(start({"DARAM_DATA": str(tmp_path / "data"), "DATABASE_URL": address}))
    last = error.strip().splitlines()[-1]
    assert code != 0 and "daram.errors.ConfigError: DATABASE_URL" in last and said in last
    assert "secret-password" not in last


def test_a_secret_key_that_is_none_is_refused(tmp_path: Path) -> None:
    from daram.service.configure import secret_key

    file = tmp_path / "secret-key"
    file.write_text("short\n")
    with pytest.raises(ConfigError, match="no secret key"):
        secret_key(file)
    file.write_bytes(b"\xff" * 100)
    with pytest.raises(ConfigError, match="cannot be made or read"):
        secret_key(file)
    with pytest.raises(ConfigError, match="cannot be made or read"):
        secret_key(tmp_path / "missing" / "secret-key")


def test_django_is_set_up_once(tmp_path: Path) -> None:
    from tests.service.people import service_settings

    from daram.service.configure import configure

    service_settings(tmp_path)
    service_settings(tmp_path / "another")  # only the data directory differs: the accounts are the same
    with pytest.raises(ConfigError, match="other settings"):
        configure(Settings(data=tmp_path))


def test_no_change_of_the_tables_lacks_its_migration(tmp_path: Path) -> None:
    from tests.service.people import service_settings

    service_settings(tmp_path)
    from django.core.management import call_command

    call_command("makemigrations", check=True, dry_run=True, verbosity=0)


def test_django_finds_nothing_to_criticise(tmp_path: Path) -> None:
    from tests.service.people import service_settings

    service_settings(tmp_path)
    from django.core.management import call_command

    call_command("check", fail_level="WARNING")


def test_a_write_ahead_log_is_kept_only_where_sqlite_resets_it_safely(monkeypatch: pytest.MonkeyPatch) -> None:
    from daram.service.configure import journal_mode

    for version, mode in (
        ((3, 40, 1), "truncate"),
        ((3, 44, 6), "wal"),
        ((3, 45, 0), "truncate"),
        ((3, 50, 6), "truncate"),
        ((3, 50, 7), "wal"),
        ((3, 51, 2), "truncate"),
        ((3, 51, 3), "wal"),
        ((3, 54, 0), "wal"),
    ):
        monkeypatch.setattr(sqlite3, "sqlite_version_info", version)
        assert journal_mode() == mode, version
