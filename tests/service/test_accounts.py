"""The pages of the accounts: login, its throttling, logout, password, keys."""

from __future__ import annotations

import dataclasses
import html
import re
from typing import Any

import pytest
from tests.service.people import Person, make_person, service_settings, session_cookie

from daram import ids

PASSWORD = "hazelnuts-in-the-snow"


@pytest.fixture(autouse=True)
def _service(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    service_settings(tmp_path_factory.mktemp("data"))
    from daram.service.accounts import backend

    monkeypatch.setattr(backend.Argon2, "time_cost", 1)
    monkeypatch.setattr(backend.Argon2, "memory_cost", 8)


@pytest.fixture
def someone() -> Person:
    name = "squirrel-" + ids.uuid7()
    return make_person(username=name, email=f"{name}@example.org", password=PASSWORD)


class Browser:
    """Django's test client that sends what a form of the page would: its CSRF token, from its own address."""

    def __init__(self, language: str = "en") -> None:
        from django.test import Client

        number = int(ids.uuid7()[-6:], 16)
        self.address = f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"
        self.client = Client(
            enforce_csrf_checks=True, REMOTE_ADDR=self.address, HTTP_HOST="localhost", HTTP_ACCEPT_LANGUAGE=language
        )

    def get(self, path: str, **headers: str) -> Any:
        return self.client.get(path, headers=headers)

    def post(self, path: str, data: dict[str, str] | None = None, *, page: str | None = None, **headers: str) -> Any:
        """Send the form at ``page`` (the path itself, by default)."""
        data = {**(data or {}), "csrfmiddlewaretoken": self.token(page or path)}
        return self.client.post(path, data, headers=headers)

    def token(self, page: str) -> str:
        found = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', self.get(page).content.decode())
        assert found is not None
        return found[1]

    def log_in(self, name: str, password: str = PASSWORD, **more: str) -> Any:
        return self.post("/login", {"username": name, "password": password, **more})

    @property
    def session(self) -> str | None:
        cookie = self.client.cookies.get(session_cookie())
        return cookie.value if cookie is not None else None

    def is_in(self) -> bool:
        return self.get("/account/").status_code == 200


def follow(browser: Browser, link: str) -> Any:
    return browser.post("/login/link", {"token": link.partition("=")[2]}, page=link)


def text(response: Any) -> str:
    return html.unescape(response.content.decode())


# --- login ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["{username}", "{email}", " {upper} ", "{upper_email}"])
def test_people_log_in_by_name_or_address(someone: Person, name: str) -> None:
    user = someone.user
    given = name.format(
        username=user.username, email=user.email, upper=user.username.upper(), upper_email=user.email.upper()
    )
    browser = Browser()
    assert not browser.is_in()
    answer = browser.log_in(given)
    assert answer.status_code == 302 and answer.headers["Location"] == "/"
    assert browser.is_in()


def test_a_session_that_was_planted_before_the_login_is_not_the_one_after_it(someone: Person) -> None:
    """Session fixation: the key that an attacker made and planted must not become a logged-in one."""
    attacker, victim = Browser(), Browser()
    attacker.log_in(make_person(password=PASSWORD).user.username)
    planted = attacker.session
    assert planted
    token = victim.token("/login")
    victim.client.cookies[session_cookie()] = planted
    data = {"username": someone.user.username, "password": PASSWORD, "csrfmiddlewaretoken": token}
    assert victim.client.post("/login", data).status_code == 302
    assert victim.session and victim.session != planted
    assert str(someone.user.username) not in text(attacker.get("/account/"))

    # An anonymous session, likewise.
    other, mallory = Browser(), Browser()
    session = mallory.client.session
    session["basket"] = 1
    session.save()
    planted = session.session_key
    other.client.cookies[session_cookie()] = planted
    other.log_in(someone.user.username)
    assert other.session != planted
    mallory.client.cookies[session_cookie()] = planted
    assert not mallory.is_in()


def test_an_unknown_user_and_a_wrong_password_look_the_same(someone: Person) -> None:
    from daram.service.accounts.people import add_user

    inactive = make_person(password=PASSWORD, is_active=False).user.username
    linked = add_user("l" + ids.uuid7()).username
    given = [
        (someone.user.username, "wrong"),
        ("nobody-" + ids.uuid7(), "wrong"),
        ("nobody@example.org", PASSWORD),
        (inactive, PASSWORD),
        (linked, "!"),
    ]
    pages = set()
    for name, password in given:
        answer = Browser().log_in(name, password)
        assert answer.status_code == 401
        assert password not in re.findall(r'value="([^"]*)"', text(answer))
        pages.add(re.sub(r'value="[^"]*"', "", text(answer)))
    assert len(pages) == 1


def test_an_unknown_user_costs_as_many_hashes_as_a_wrong_password(
    someone: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same time class, without a clock: Argon2 runs once for each attempt."""
    from daram.service.accounts.backend import Argon2, NameOrEmail

    runs = []
    params, encode = Argon2.params, Argon2.encode
    monkeypatch.setattr(Argon2, "encode", lambda self, *args: runs.append("made") or encode(self, *args))
    verify = Argon2.verify
    monkeypatch.setattr(Argon2, "verify", lambda self, *args: runs.append("verified") or verify(self, *args))
    assert params
    for name in (someone.user.username, "nobody", "nobody@example.org"):
        runs.clear()
        assert NameOrEmail().authenticate(None, name, "wrong") is None
        assert len(runs) == 1, (name, runs)


@pytest.mark.parametrize(
    "onward",
    [
        "https://evil.example/",
        "//evil.example/",
        "///evil.example",
        "http:///evil.example",
        "\\\\evil.example",
        "/\\evil.example",
        "javascript:alert(1)",
        "\x08//evil.example",
        "https:evil.example",
        "evil.example",
        "/ok\r\nSet-Cookie: a=b",
    ],
)
def test_the_login_leads_to_paths_of_this_server_only(someone: Person, onward: str) -> None:
    browser = Browser()
    answer = browser.log_in(someone.user.username, next=onward)
    assert answer.status_code == 302
    location = answer.headers["Location"]
    assert location.startswith("/") and not re.match(r"[/\\]{2}", location)
    assert not re.search(r"[\r\n\x00]", location) and "a" not in browser.client.cookies


def test_the_login_leads_back_to_where_one_wanted_to_go(someone: Person) -> None:
    browser = Browser()
    answer = browser.get("/account/keys")
    assert answer.headers["Location"] == "/login?next=/account/keys"
    page = browser.get(answer.headers["Location"])
    assert 'name="next" value="/account/keys"' in page.content.decode()
    assert browser.log_in(someone.user.username, next="/account/keys").headers["Location"] == "/account/keys"
    assert browser.get("/login?next=/account/").headers["Location"] == "/account/"


def test_what_is_typed_comes_back_as_text() -> None:
    page = Browser().log_in('"><script>alert(1)</script>', "wrong").content.decode()
    assert "<script" not in page and "&lt;script&gt;" in page


@pytest.mark.parametrize("data", [{}, {"username": "a"}, {"password": "b"}, {"username": "\x00", "password": "b"}])
def test_a_form_that_lacks_something_is_refused(data: dict[str, str]) -> None:
    assert Browser().post("/login", data).status_code == 400


# --- throttling -----------------------------------------------------------------------------------------------------


def test_guessing_is_slowed_down_and_nobody_else_is_locked_out(someone: Person) -> None:
    from daram.service.accounts.throttle import PER_ACCOUNT

    name, guesser, other_name = someone.user.username, Browser(), make_person(password=PASSWORD).user.username
    for _ in range(PER_ACCOUNT):
        assert guesser.log_in(name, "wrong").status_code == 401
    answer = guesser.log_in(name.upper(), "wrong")
    assert answer.status_code == 429 and 0 < int(answer.headers["Retry-After"]) <= 900
    assert guesser.log_in(name).status_code == 429  # not even the right one: guessing must not pay
    assert Browser().log_in(name).status_code == 302  # the owner, from elsewhere
    assert guesser.log_in(other_name).status_code == 302  # somebody else behind the same address


def test_the_window_ends(someone: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    from django.utils import timezone

    from daram.service.accounts import throttle

    name, browser = someone.user.username, Browser()
    for _ in range(throttle.PER_ACCOUNT + 1):
        browser.log_in(name, "wrong")
    assert browser.log_in(name).status_code == 429

    class Later:
        @staticmethod
        def now() -> Any:
            return timezone.now() + throttle.WINDOW

    monkeypatch.setattr(throttle, "timezone", Later)
    assert browser.log_in(name).status_code == 302


def test_one_address_cannot_try_all_names_and_leaves_no_rows_without_end() -> None:
    from daram.service.accounts.models import LoginAttempts
    from daram.service.accounts.throttle import PER_ADDRESS, may_try

    before = LoginAttempts.objects.count()
    address = "2001:db8:" + ids.uuid7()[-4:] + ":1::"
    waits = [may_try(f"name-{number}", f"{address}{number % 7 + 1:x}") for number in range(PER_ADDRESS + 20)]
    assert waits[:PER_ADDRESS] == [0] * PER_ADDRESS and all(waits[PER_ADDRESS:])
    assert LoginAttempts.objects.count() == before + PER_ADDRESS + 1


def test_who_logs_in_again_and_again_is_not_throttled(someone: Person) -> None:
    from daram.service.accounts.throttle import PER_ADDRESS, may_try, succeeded

    for _ in range(PER_ADDRESS + 5):
        assert may_try("a", "192.0.2.1") == 0
        succeeded("a", "192.0.2.1")


def test_a_login_removes_what_is_over(someone: Person) -> None:
    from datetime import timedelta

    from django.contrib.sessions.models import Session
    from django.utils import timezone

    from daram.service.accounts.models import LoginAttempts

    old = timezone.now() - timedelta(days=1)
    session, key = ids.uuid7(), ids.uuid7()
    Session.objects.create(session_key=session, session_data="", expire_date=old)
    LoginAttempts.objects.create(key=key, failures=3, since=old)
    Browser().log_in(someone.user.username)
    assert not Session.objects.filter(session_key=session).exists()
    assert not LoginAttempts.objects.filter(key=key).exists()


def test_attempts_at_once_are_counted_before_they_are_made() -> None:
    from concurrent.futures import ThreadPoolExecutor

    from django.db import connection

    from daram.service.accounts.throttle import PER_ACCOUNT, may_try

    name = ids.uuid7()

    def attempt(_: int) -> int:
        try:
            return may_try(name, "192.0.2.9")
        finally:
            connection.close()

    with ThreadPoolExecutor(8) as threads:
        waits = list(threads.map(attempt, range(24)))
    assert waits.count(0) == PER_ACCOUNT


# --- CSRF, methods, headers ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/login", "/logout", "/account/keys", "/account/password", "/account/keys/1/revoke"])
def test_every_form_needs_its_token(someone: Person, path: str) -> None:
    browser = Browser()
    browser.log_in(someone.user.username)
    assert browser.client.post(path, {}).status_code == 403
    forged = {"csrfmiddlewaretoken": "a" * 64}
    assert browser.client.post(path, forged).status_code == 403
    assert browser.post(path, page="/account/", origin="https://evil.example").status_code == 403
    assert browser.is_in()


def test_the_csrf_token_changes_with_the_login(someone: Person) -> None:
    browser = Browser()
    browser.get("/login")
    before = browser.client.cookies[session_cookie(csrf=True)].value
    browser.log_in(someone.user.username)
    assert browser.client.cookies[session_cookie(csrf=True)].value != before


def test_pages_tell_browsers_to_stay_at_home_and_keep_nothing(someone: Person) -> None:
    browser = Browser()
    browser.log_in(someone.user.username)
    for path in ("/login", "/account/", "/account/keys", "/account/password", "/logout", "/login/link/x", "/missing"):
        headers = browser.get(path).headers
        policy = headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy and "unsafe" not in policy and "http" not in policy
        assert headers["X-Frame-Options"] == "DENY" and headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Referrer-Policy"] == "same-origin" and headers["Cross-Origin-Opener-Policy"] == "same-origin"
        assert "no-store" in headers["Cache-Control"]
        page = browser.get(path).content.decode()
        assert not re.search(r"<script|<style|\sstyle=|\son\w+=|https?://", page), path
    cookie = browser.client.cookies[session_cookie()]
    assert cookie["httponly"] and cookie["samesite"] == "Lax" and cookie["path"] == "/"


def test_a_foreign_host_name_is_refused() -> None:
    browser = Browser()
    for host in ("evil.example", "localhost.evil.example", "localhost@evil.example", "127.0.0.1\r\nx: y"):
        assert browser.get("/login", host=host).status_code == 400
    # Nor does a proxy's header change it: no proxy was configured.
    page = browser.get("/account/", x_forwarded_host="evil.example", x_forwarded_proto="https")
    assert "evil" not in page.headers["Location"]


# --- logout ---------------------------------------------------------------------------------------------------------


def test_a_link_does_not_log_out_but_the_button_does(someone: Person) -> None:
    browser = Browser()
    browser.log_in(someone.user.username)
    session = browser.session
    assert browser.get("/logout").status_code == 200 and browser.is_in()
    assert browser.post("/logout").headers["Location"] == "/login"
    assert not browser.is_in()
    browser.client.cookies[session_cookie()] = session
    assert not browser.is_in()  # it is gone from the server, too


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ({}, True),
        ({"host": "localhost"}, True),
        ({"host": "::1"}, True),
        ({"host": "0.0.0.0"}, False),
        ({"public_url": "https://chat.example.org"}, False),
        ({"allowed_hosts": ("chat.example.org",)}, False),
    ],
)
def test_this_machines_user_is_told_of_the_link_in_the_terminal(
    given: dict[str, Any], shown: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    from daram.service.accounts import views

    settings = dataclasses.replace(views.configured(), **{"host": "127.0.0.1", **given})
    monkeypatch.setattr(views, "configured", lambda: settings)
    english, korean = (text(Browser(language).get("/login")) for language in ("en", "ko"))
    assert ("The terminal in which Daram was started shows a link" in english) == shown
    assert ("Daram을 시작한 터미널에" in korean) == shown
    assert ("<code>daram user link local</code>" in english) == shown


# --- link -----------------------------------------------------------------------------------------------------------


def test_a_link_logs_in_once() -> None:
    from daram.service.accounts.models import LoginLink
    from daram.service.accounts.people import local_user, make_login_link

    user = local_user("local-" + ids.uuid7())
    path = make_login_link(user)
    assert not LoginLink.objects.filter(digest__in=[path.partition("=")[2]]).exists()  # only a digest is kept
    browser = Browser()
    for _ in range(2):  # looking at it, as browsers do ahead of a click, uses nothing up
        page = browser.get(path)
        assert page.status_code == 200 and user.username in text(page)
    token = {"token": path.partition("=")[2]}
    assert browser.client.post("/login/link", token).status_code == 403
    answer = browser.post("/login/link", token, page=path)
    assert answer.status_code == 302 and browser.is_in()
    again = Browser()
    assert again.get(path).status_code == 404
    assert again.post("/login/link", token, page="/login").status_code == 404
    assert not again.is_in()


def test_a_link_does_not_live_long(monkeypatch: pytest.MonkeyPatch) -> None:
    from django.utils import timezone

    from daram.service.accounts import people

    path = people.make_login_link(make_person().user)
    token = path.partition("=")[2]
    assert people.linked_user(token) is not None

    class Later:
        @staticmethod
        def now() -> Any:
            return timezone.now() + people.LINK_LIFE

    monkeypatch.setattr(people, "timezone", Later)
    assert people.linked_user(token) is None and people.use_login_link(token) is None


def test_a_link_of_an_inactive_user_opens_nothing() -> None:
    from daram.service.accounts.people import make_login_link, use_login_link

    who = make_person()
    path = make_login_link(who.user)
    who.user.is_active = False
    who.user.save()
    assert use_login_link(path.partition("=")[2]) is None


@pytest.mark.parametrize("query", ["", "?token=", "?token=x", "?token=%00", "?token=%ff%fe", "?token=" + "a" * 5000])
def test_a_link_that_never_was(query: str) -> None:
    assert Browser().get(f"/login/link{query}").status_code == 404


def test_the_local_user_is_one_and_keeps_the_conversations_from_before() -> None:
    from daram.service.accounts.models import User
    from daram.service.accounts.people import local_user

    owner = "local-" + ids.uuid7()
    user = local_user(owner)
    assert user.owner == owner and local_user(owner).pk == user.pk
    assert user.is_staff and user.is_superuser and not user.has_usable_password()
    assert User.objects.filter(owner=owner).count() == 1


# --- password -------------------------------------------------------------------------------------------------------


def test_a_new_password_ends_the_other_sessions(someone: Person) -> None:
    here, elsewhere = Browser(), Browser()
    here.log_in(someone.user.username)
    elsewhere.log_in(someone.user.username)
    session = here.session
    new = "acorns-under-the-oak"
    answer = here.post("/account/password", {"present": PASSWORD, "new": new, "again": new})
    assert answer.status_code == 200 and "is set" in text(answer)
    assert here.is_in() and here.session != session
    assert not elsewhere.is_in()
    assert Browser().log_in(someone.user.username).status_code == 401
    assert Browser().log_in(someone.user.username, new).status_code == 302


@pytest.mark.parametrize(
    ("present", "new", "again", "said"),
    [
        ("wrong", "acorns-under-the-oak", "acorns-under-the-oak", "not your present password"),
        (PASSWORD, "acorns-under-the-oak", "acorns-under-the-elm", "differ"),
        (PASSWORD, "short", "short", "too short"),
        (PASSWORD, "password123", "password123", "too common"),
        (PASSWORD, "8347529834752", "8347529834752", "numeric"),
        (PASSWORD, "", "", "required"),
    ],
)
def test_a_bad_new_password_is_refused(someone: Person, present: str, new: str, again: str, said: str) -> None:
    browser = Browser()
    browser.log_in(someone.user.username)
    answer = browser.post("/account/password", {"present": present, "new": new, "again": again})
    assert answer.status_code == 400 and said in text(answer)
    assert PASSWORD not in text(answer)
    assert Browser().log_in(someone.user.username).status_code == 302


def test_an_open_session_is_not_enough_to_guess_the_password(someone: Person) -> None:
    from daram.service.accounts.throttle import PER_ACCOUNT

    browser = Browser()
    browser.log_in(someone.user.username)
    new = "acorns-under-the-oak"
    for _ in range(PER_ACCOUNT):
        browser.post("/account/password", {"present": "wrong", "new": new, "again": new})
    answer = browser.post("/account/password", {"present": PASSWORD, "new": new, "again": new})
    assert answer.status_code == 400 and "Too many" in text(answer)


def test_who_came_by_a_link_sets_a_first_password() -> None:
    from daram.service.accounts.people import add_user, make_login_link

    user = add_user("p" + ids.uuid7())
    browser = Browser()
    follow(browser, make_login_link(user))
    page = text(browser.get("/account/password"))
    assert "Present password" not in page
    new = "acorns-under-the-oak"
    assert browser.post("/account/password", {"new": new, "again": new}).status_code == 200
    assert Browser().log_in(user.username, new).status_code == 302
    assert "Present password" in text(browser.get("/account/password"))


# --- keys -----------------------------------------------------------------------------------------------------------


def test_a_key_is_shown_once_and_can_be_revoked(someone: Person) -> None:
    from daram.service.accounts.keys import find_key

    browser = Browser()
    browser.log_in(someone.user.username)
    answer = browser.post("/account/keys", {"name": "<b>laptop</b>", "scope": "read"})
    assert answer.status_code == 201
    keys = re.findall(r"daram-[a-z0-9]{10}-[A-Za-z0-9]{43}", text(answer))
    assert len(keys) == 1
    row = find_key(keys[0])
    assert row is not None and row.user_id == someone.user.pk and row.scopes == "read"
    page = browser.get("/account/keys")
    assert keys[0] not in text(page) and row.prefix in text(page)
    assert "<b>laptop" not in page.content.decode()
    assert browser.post(f"/account/keys/{row.pk}/revoke", page="/account/keys").status_code == 302
    assert find_key(keys[0]) is None
    assert "revoked" in text(browser.get("/account/keys"))


def test_nobody_sees_or_revokes_the_keys_of_others(someone: Person) -> None:
    from daram.service.accounts.keys import find_key

    browser, other = Browser(), make_person()
    browser.log_in(someone.user.username)
    assert other.key_row.prefix not in text(browser.get("/account/keys"))
    foreign = browser.post(f"/account/keys/{other.key_row.pk}/revoke", page="/account/keys")
    missing = browser.post(f"/account/keys/{2**40}/revoke", page="/account/keys")
    beyond = browser.post(f"/account/keys/{10**30}/revoke", page="/account/keys")
    assert foreign.status_code == missing.status_code == beyond.status_code == 404
    tokens = re.compile(r'value="\w{64}"')  # masked anew for each page
    assert tokens.sub("", text(foreign)) == tokens.sub("", text(missing))
    assert find_key(other.key) is not None


def test_admin_keys_are_offered_to_the_staff_only(someone: Person) -> None:
    browser = Browser()
    browser.log_in(someone.user.username)
    assert 'value="admin"' not in browser.get("/account/keys").content.decode()
    assert browser.post("/account/keys", {"name": "", "scope": "admin"}).status_code == 400
    boss = Browser()
    boss.log_in(make_person(password=PASSWORD, is_staff=True).user.username)
    assert boss.post("/account/keys", {"name": "", "scope": "admin"}).status_code == 201


def test_secrets_are_never_logged(someone: Person, caplog: pytest.LogCaptureFixture) -> None:
    from daram.service.accounts.people import make_login_link

    caplog.set_level(0)
    browser = Browser()
    browser.log_in(someone.user.username, "a-wrong-password")
    browser.log_in("typed-my-password-here", "x")
    browser.log_in(someone.user.username)
    page = text(browser.post("/account/keys", {"name": "", "scope": "write"}))
    (key,) = re.findall(r"daram-[a-z0-9]{10}-[A-Za-z0-9]{43}", page)
    link = make_login_link(someone.user)
    browser.client.post("/login/link", {"token": link.partition("=")[2]})  # without the form's token
    follow(Browser(), link)
    browser.post("/account/password", {"present": "wrong-present", "new": "fresh-new-one", "again": "fresh-new-one"})
    assert "logged in" in caplog.text and "made the key" in caplog.text
    secrets = [PASSWORD, "a-wrong-password", "typed-my-password-here", key.rsplit("-", 1)[1], "wrong-present"]
    secrets += ["fresh-new-one", link.partition("=")[2], str(browser.session)]
    assert not [secret for secret in secrets if secret in caplog.text]


# --- languages, files -----------------------------------------------------------------------------------------------


def test_every_page_is_there_with_and_without_a_slash_at_the_end(someone: Person) -> None:
    from daram.service.accounts.urls import urlpatterns

    browser = Browser()
    browser.log_in(someone.user.username)
    names = [pattern.name for pattern in urlpatterns if pattern.name != "revoke-key"]
    assert {"login", "login-link", "logout", "account", "password", "keys"} <= set(names)
    for path in ("/login", "/login/link", "/logout", "/account", "/account/password", "/account/keys"):
        seen = []
        for url in (path, f"{path}/"):
            found = (Browser() if path == "/login" else browser).client.get(url, follow=True)
            seen.append((found.status_code, len(found.content), found.headers["Content-Type"]))
        assert seen[0] == seen[1], path
        assert seen[0][0] != 404 or path == "/login/link"  # it needs a token
    assert (
        browser.get("/account/keys/1/revoke").status_code == browser.get("/account/keys/1/revoke/").status_code == 405
    )
    assert browser.get("/admin").headers["Location"] == "/admin/"


def test_static_files_come_from_their_folders_only() -> None:
    browser = Browser()
    sheet = browser.get("/static/daram/accounts.css")
    assert sheet.status_code == 200 and sheet.headers["Content-Type"].startswith("text/css")
    assert browser.get("/static/daram/accounts.css", if_none_match=sheet.headers["ETag"]).status_code == 304
    assert browser.get("/static/daram/squirrel.svg").headers["Content-Type"] == "image/svg+xml"
    assert browser.get("/static/admin/css/base.css").status_code == 200
    for path in (
        "..%2f__init__.py",
        "../configure.py",
        "daram/../../models.py",
        "daram",
        "daram/",
        "%00",
        "/etc/passwd",
    ):
        assert browser.get(f"/static/{path}").status_code in (400, 404), path


def test_the_group_of_administrators_is_there_when_all_of_its_permissions_are() -> None:
    """A service that starts beside this one takes its being there for the end of the set-up."""
    from django.contrib.auth.models import Group, Permission
    from django.core.management import call_command
    from django.db import transaction

    from daram.service.accounts.apps import _administrators
    from daram.service.accounts.people import ADMINISTRATORS

    group = Group.objects.filter(name=ADMINISTRATORS)
    with transaction.atomic():
        group.delete()
        Permission.objects.filter(codename="view_storedconversation").delete()
        _administrators("default")
        assert not group.exists()
    call_command("migrate", verbosity=0, interactive=False)
    assert group.get().permissions.filter(codename="view_storedconversation").exists()
