"""API keys: what they look like, what is kept of them, whom they let in, and what everybody else is told."""

from __future__ import annotations

import asyncio
import hmac
import logging
import re
import sqlite3
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.service.people import make_person, person, service_settings

from daram.errors import InvalidInput


@pytest.fixture(autouse=True)
def _service(tmp_path_factory: pytest.TempPathFactory) -> None:
    service_settings(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """An API with a route for each scope, as an ASGI application without middleware."""
    service_settings(tmp_path_factory.mktemp("data"))
    from django.core.handlers.asgi import ASGIHandler
    from django.http import HttpRequest
    from django.urls import path
    from ninja import NinjaAPI

    from daram.service.accounts.auth import KeyAuth, caller_of, handle_refusals, require

    api = NinjaAPI(auth=KeyAuth(), urls_namespace="test-keys", docs_url=None)
    handle_refusals(api)

    async def whoami(request: HttpRequest) -> dict[str, Any]:
        caller = caller_of(request)
        return {"owner": caller.owner, "scopes": sorted(caller.scopes)}

    for scope in ("read", "write", "admin"):
        api.get(f"/{scope}", auth=require(scope), url_name=scope)(whoami)
    api.get("/default", url_name="default")(whoami)

    class Urls:
        urlpatterns = (path("t/", api.urls),)

    class Handler(ASGIHandler):
        async def get_response_async(self, request: Any) -> Any:
            request.urlconf = Urls
            return await super().get_response_async(request)

        def load_middleware(self, is_async: bool = False) -> None:
            from django.test.utils import override_settings

            with override_settings(MIDDLEWARE=[]):
                super().load_middleware(is_async)

    return Handler()


def accounts_file() -> Path:
    """The file of the accounts of this test process."""
    from django.conf import settings

    return Path(settings.DATABASES["default"]["NAME"])


async def ask(api: Any, route: str, headers: dict[str, str] | None = None) -> httpx.Response:
    transport = httpx.ASGITransport(api)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        return await client.get(f"/t/{route}", headers=headers)


async def test_a_key_lets_its_user_in_and_no_further_than_its_scopes(api: Any) -> None:
    reader, writer = await person("read"), await person("write")
    for route, who, status in (
        ("default", reader, 200),
        ("read", reader, 200),
        ("write", reader, 403),
        ("read", writer, 200),
        ("write", writer, 200),
        ("admin", writer, 403),
    ):
        answer = await ask(api, route, who.headers)
        assert answer.status_code == status, (route, answer.text)
        if status == 200:
            assert answer.json()["owner"] == who.owner
        else:
            error = answer.json()["error"]
            assert error["code"] == "missing_scope" and route in error["message"]
            assert set(error) == {"message", "type", "param", "code"}


async def test_admin_counts_only_while_the_user_is_of_the_staff(api: Any) -> None:
    boss = await person("admin", is_staff=True)
    assert (await ask(api, "admin", boss.headers)).status_code == 200
    boss.user.is_staff = False
    await boss.user.asave()
    assert (await ask(api, "admin", boss.headers)).status_code == 403
    assert (await ask(api, "write", boss.headers)).status_code == 200


async def test_whatever_is_wrong_with_a_key_the_refusal_is_the_same(api: Any) -> None:
    from django.utils import timezone

    from daram.service.accounts.keys import revoke

    revoked, expired, inactive, good = [await person() for _ in range(4)]
    await in_thread(revoke, revoked.key_row)
    expired.key_row.expires_at = timezone.now() - timedelta(seconds=1)
    await expired.key_row.asave()
    inactive.user.is_active = False
    await inactive.user.asave()
    prefix, secret = good.key.rsplit("-", 1)
    wrong = [
        revoked.key,
        expired.key,
        inactive.key,
        f"{prefix}-{'a' * 43}",
        f"daram-{'0' * 10}-{secret}",
        good.key + "x",
        good.key[:-1],
        good.key.upper(),
        f"{good.key} {good.key}",
        "sk-" + "a" * 20,
        "!" * 20,
        "%00",
    ]
    answers = [await ask(api, "read", {"Authorization": f"Bearer {key}"}) for key in wrong]
    assert {answer.status_code for answer in answers} == {401}
    assert len({answer.content for answer in answers}) == 1
    error = answers[0].json()["error"]
    assert error["code"] == "invalid_api_key" and error["type"] == "invalid_request_error"
    assert all(answer.headers["www-authenticate"] == "Bearer" for answer in answers)
    assert (await ask(api, "read", good.headers)).status_code == 200


async def test_without_a_key_the_caller_is_told_how_to_send_one(api: Any) -> None:
    someone = await person()
    for headers in ({}, {"Authorization": ""}, {"Authorization": "Bearer "}, {"Authorization": f"Basic {someone.key}"}):
        answer = await ask(api, "read", headers)
        assert answer.status_code == 401
        assert "Authorization: Bearer" in answer.json()["error"]["message"]
    # Not in the URL either: URLs stand in logs.
    assert (await ask(api, f"read?api_key={someone.key}")).status_code == 401
    assert (await ask(api, "read", {"Authorization": f"bearer  {someone.key} "})).status_code == 200


async def in_thread(function: Any, *args: Any) -> Any:
    from daram.service.accounts.auth import in_accounts

    return await in_accounts(function, *args)


def test_only_a_digest_is_kept_and_keys_differ() -> None:
    someone = make_person()
    row, key = someone.key_row, someone.key
    assert re.fullmatch(r"daram-[a-z0-9]{10}-[A-Za-z0-9]{43}", key)
    secret = key.rsplit("-", 1)[1]
    row.refresh_from_db()
    kept = [str(getattr(row, field.attname)) for field in row._meta.fields]
    assert not [value for value in kept if secret in value]
    assert row.prefix in key and key not in repr(row) + str(row)
    assert make_person().key_row.prefix != row.prefix


def test_a_secret_is_compared_in_constant_time_whether_or_not_the_prefix_exists(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from daram.service.accounts import keys

    compared: list[tuple[int, int]] = []
    compare = hmac.compare_digest

    def spy(a: str, b: str) -> bool:
        compared.append((len(a), len(b)))
        return compare(a, b)

    monkeypatch.setattr(keys.hmac, "compare_digest", spy)
    someone = make_person()
    prefix = someone.key.rsplit("-", 1)[0]
    for text in (someone.key, f"{prefix}-{'a' * 43}", f"daram-{'0' * 10}-{'a' * 43}", "nonsense", ""):
        keys.find_key(text)
    assert compared == [(64, 64)] * 5


def test_last_use_is_written_at_most_once_a_minute() -> None:
    from django.db import connection
    from django.test.utils import CaptureQueriesContext
    from django.utils import timezone

    from daram.service.accounts.keys import find_key, touch

    someone = make_person()
    row = find_key(someone.key)
    assert row is not None and row.last_used_at is None
    touch(row)
    row = find_key(someone.key)
    assert row is not None and row.last_used_at is not None
    with CaptureQueriesContext(connection) as queries:
        touch(row)
    assert len(queries) == 0
    # Another process noted it since this one read the row: the newer time stands.
    later = timezone.now()
    row.last_used_at = later - timedelta(hours=1)
    type(row).objects.filter(pk=row.pk).update(last_used_at=later)
    touch(row)
    row.refresh_from_db()
    assert row.last_used_at == later


async def test_a_database_that_cannot_be_written_does_not_lock_callers_out(
    api: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from django.db import OperationalError

    from daram.service.accounts import auth

    def full(_key: Any) -> None:
        raise OperationalError("database or disk is full")

    monkeypatch.setattr(auth, "touch", full)
    someone = await person()
    with caplog.at_level(logging.WARNING):
        assert (await ask(api, "read", someone.headers)).status_code == 200
    assert someone.key_row.prefix in caplog.text
    assert someone.key.rsplit("-", 1)[1] not in caplog.text


async def test_who_writes_to_the_accounts_keeps_no_caller_waiting(api: Any) -> None:
    """The bound is far below SQLite's own patience here, a minute, and far above what a slow disk takes."""
    someone = await person()
    with sqlite3.connect(accounts_file(), isolation_level=None) as writer:
        writer.execute("BEGIN IMMEDIATE")
        async with asyncio.timeout(40):
            assert (await ask(api, "read", someone.headers)).status_code == 200
        writer.execute("ROLLBACK")
    writer.close()
    await someone.key_row.arefresh_from_db()
    assert someone.key_row.last_used_at is None
    assert (await ask(api, "read", someone.headers)).status_code == 200
    await someone.key_row.arefresh_from_db()
    assert someone.key_row.last_used_at is not None


async def test_accounts_that_do_not_answer_are_not_a_fault_of_the_caller(
    api: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from django.db import InterfaceError, OperationalError

    from daram.service.accounts import auth

    someone = await person()
    for kind in (OperationalError, InterfaceError):

        def gone(_token: str, kind: Any = kind) -> None:
            raise kind("server accounts.example closed the connection")

        monkeypatch.setattr(auth, "find_key", gone)
        answer = await ask(api, "read", someone.headers)
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        error = answer.json()["error"]
        assert (error["type"], error["code"]) == ("server_error", "accounts_unavailable")
        assert "accounts.example" not in answer.text and "accounts.example" in caplog.text


@pytest.mark.parametrize("scopes", [(), ("all",), ("read", "delete")])
def test_scopes_that_do_not_exist_are_refused(scopes: tuple[str, ...]) -> None:
    from daram.service.accounts.keys import create_key

    someone = make_person()
    with pytest.raises(InvalidInput, match="scopes"):
        create_key(someone.user, scopes=scopes)


def test_only_the_staff_gets_admin_keys_and_wider_scopes_include_the_narrower() -> None:
    from daram.service.accounts.keys import create_key

    with pytest.raises(InvalidInput, match="administrators"):
        create_key(make_person().user, scopes=["admin"])
    boss = make_person(is_staff=True)
    assert create_key(boss.user, scopes=["admin"])[0].scopes == "read write admin"
    assert create_key(boss.user, scopes=["write"])[0].scopes == "read write"
    assert create_key(boss.user, scopes=["read"])[0].scopes == "read"
    with pytest.raises(InvalidInput, match="name"):
        create_key(boss.user, name="a\nb")


def test_revoking_twice_keeps_the_first_time() -> None:
    from daram.service.accounts.keys import find_key, revoke

    someone = make_person()
    revoke(someone.key_row)
    someone.key_row.refresh_from_db()
    first = someone.key_row.revoked_at
    revoke(someone.key_row)
    someone.key_row.refresh_from_db()
    assert first is not None and someone.key_row.revoked_at == first
    assert find_key(someone.key) is None


def test_the_data_directory_holds_no_key_in_the_clear(tmp_path: Path) -> None:
    from daram.service.configure import accounts_file, configured

    someone = make_person()
    file = accounts_file(configured())
    assert file is not None
    for part in file.parent.iterdir():
        assert someone.key.rsplit("-", 1)[1].encode() not in part.read_bytes()
