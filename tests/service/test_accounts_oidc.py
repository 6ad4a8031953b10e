"""Login at an OpenID Connect provider: the service in a process of its own, the provider scripted, HTTP between."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.service.oidc_provider import Provider

from daram import ids

ROOT = Path(__file__).resolve().parents[2]
# Django alone: neither store nor chat page have to do with the login. It says its port, and ends with its stdin.
SERVER = """
import os, sys, threading
from wsgiref.simple_server import WSGIRequestHandler, make_server
from daram.settings import Settings
from daram.service.accounts.setup import prepare_accounts
prepare_accounts(Settings.from_env())
from django.core.handlers.wsgi import WSGIHandler
from daram.service.accounts.people import add_user
for name in ("alice", "berta", "kim", "carol"):
    user = add_user(name, email=f"{name}@example.org", password="hazelnuts-in-the-snow")
user.is_active = False
user.save()
class Quiet(WSGIRequestHandler):
    def log_message(self, *args): pass
server = make_server("127.0.0.1", 0, WSGIHandler(), handler_class=Quiet)
print(server.server_port, flush=True)
threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0)), daemon=True).start()
server.serve_forever()
"""


BERTA = {"sub": "the-one-berta", "email": "berta@example.org", "email_verified": True}


@contextmanager
def service(data: Path, provider: Provider, **environment: str) -> Iterator[str]:
    """The URL of a service that knows the provider."""
    given = {
        "DARAM_DATA": str(data),
        "DARAM_OIDC_URL": provider.url,
        "DARAM_OIDC_CLIENT": "daram-client",
        "DARAM_OIDC_SECRET": "provider-secret",
        "DARAM_OIDC_NAME": "Oak & Sons",
        "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), *filter(None, [os.environ.get("PYTHONPATH")])]),
    }
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", SERVER],
        env={**os.environ, **given, **environment},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None and process.stdin is not None
    try:
        yield f"http://127.0.0.1:{int(process.stdout.readline())}"
    finally:
        process.stdin.close()
        process.wait(120)
        process.stdout.close()


@pytest.fixture(scope="module")
def provider() -> Iterator[Provider]:
    with Provider() as provider:
        yield provider


@pytest.fixture(scope="module")
def closed(provider: Provider, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A service whose users were added by its administrators."""
    with service(tmp_path_factory.mktemp("closed"), provider) as url:
        yield url


@pytest.fixture(scope="module")
def open_to_all(provider: Provider, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A service that makes a user of everybody whom the provider knows."""
    with service(tmp_path_factory.mktemp("open"), provider, DARAM_OIDC_SIGNUP="on") as url:
        yield url


@pytest.fixture
def browser() -> Iterator[httpx.Client]:
    with httpx.Client(follow_redirects=True, timeout=120) as browser:
        yield browser


def session_of(browser: httpx.Client) -> str:
    """The key of its session."""
    (found,) = [key for name, key in browser.cookies.items() if re.fullmatch(r"daram-[0-9a-f]{8}", name)]
    return found


def log_in(browser: httpx.Client, url: str, onward: str = "/account/", **claims: Any) -> httpx.Response:
    """By the link on the login page, to wherever it ends."""
    page = browser.get(f"{url}/login", params={"next": onward})
    assert "Oak &amp; Sons" in page.text and 'href="/login/oidc/sso/login/?next=' in page.text
    return browser.get(f"{url}/login/oidc/sso/login/", params={"next": onward})


def who(browser: httpx.Client, url: str) -> str:
    """The name of who is logged in; empty for nobody."""
    page = browser.get(f"{url}/account/", follow_redirects=False)
    return page.text.partition("logged in as <strong>")[2].partition("<")[0] if page.status_code == 200 else ""


def test_a_verified_address_is_its_user_and_from_then_on_the_subject_is(
    provider: Provider, closed: str, browser: httpx.Client
) -> None:
    subject = ids.uuid7()
    provider.claims = {"sub": subject, "email": "Alice@Example.org", "email_verified": True}
    answer = log_in(browser, closed)
    assert answer.status_code == 200 and answer.url.path == "/account/"
    assert who(browser, closed) == "alice"
    asked = provider.asked[-1]
    assert asked["code_challenge_method"] == "S256" and len(asked["state"]) >= 16

    provider.claims = {"sub": subject, "email": "berta@example.org", "email_verified": True}
    with httpx.Client(follow_redirects=True, timeout=120) as later:
        log_in(later, closed)
        assert who(later, closed) == "alice"  # an address may change hands, a subject does not


def test_who_gets_an_address_later_does_not_get_the_account(
    provider: Provider, closed: str, browser: httpx.Client
) -> None:
    provider.claims = BERTA
    log_in(browser, closed)
    assert who(browser, closed) == "berta"
    provider.claims = {**BERTA, "sub": ids.uuid7()}
    with httpx.Client(follow_redirects=True, timeout=120) as later:
        assert log_in(later, closed).status_code == 403
        assert who(later, closed) == ""


@pytest.mark.parametrize("address", ["\u212aim@example.org", "\uff4bim@example.org"])
def test_an_address_that_looks_like_another_is_another(
    provider: Provider, closed: str, browser: httpx.Client, address: str
) -> None:
    """In the one form that names have, these are kim's."""
    provider.claims = {"sub": ids.uuid7(), "email": address, "email_verified": True}
    assert log_in(browser, closed).status_code == 403
    assert who(browser, closed) == ""


@pytest.mark.parametrize(
    "claims",
    [
        {"email": "berta@example.org", "email_verified": False},
        {"email": "berta@example.org"},
        {"email": "berta@example.org", "email_verified": "false"},
        {"email": "nobody@example.org", "email_verified": True},
        {"preferred_username": "berta"},
        {"email": "carol@example.org", "email_verified": True},  # she is inactive
    ],
)
def test_nobody_else_comes_in(provider: Provider, closed: str, browser: httpx.Client, claims: dict[str, Any]) -> None:
    provider.claims = {"sub": ids.uuid7(), **claims}
    answer = log_in(browser, closed)
    assert answer.status_code == 403 and "There is no account for you" in answer.text
    assert who(browser, closed) == ""


def test_a_session_from_before_the_login_is_not_the_one_after_it(
    provider: Provider, closed: str, browser: httpx.Client
) -> None:
    provider.claims = BERTA
    start = browser.get(f"{closed}/login/oidc/sso/login/", follow_redirects=False)
    before = session_of(browser)
    browser.get(start.headers["location"])
    assert who(browser, closed) == "berta" and session_of(browser) != before


@pytest.mark.parametrize(
    "onward", ["https://evil.example/", "//evil.example", "/\\evil.example", "javascript:alert(1)"]
)
def test_the_login_leads_to_paths_of_this_server_only(
    provider: Provider, closed: str, browser: httpx.Client, onward: str
) -> None:
    provider.claims = BERTA
    browser.follow_redirects = False
    answer = browser.get(f"{closed}/login/oidc/sso/login/", params={"next": onward})
    answer = browser.get(browser.get(answer.headers["location"]).headers["location"])
    assert answer.status_code == 302 and answer.headers["location"] == "/"


def test_what_goes_wrong_leads_back_to_the_login(provider: Provider, closed: str, browser: httpx.Client) -> None:
    provider.claims = BERTA
    for broken in ("token", "userinfo"):
        provider.broken = broken
        answer = log_in(browser, closed)
        assert answer.status_code == 401 and "did not succeed" in answer.text, broken
    provider.broken, provider.refuses = "", "access_denied"
    assert log_in(browser, closed).status_code == 401
    provider.refuses = ""
    # Another browser's answer, and one that was never asked for.
    callback = f"{closed}/login/oidc/sso/login/callback/"
    for query in ({}, {"code": "x"}, {"code": "x", "state": "y"}, {"state": "y", "error": "<script>"}):
        answer = browser.get(callback, params=query)
        assert answer.status_code == 401 and "<script>" not in answer.text
    assert who(browser, closed) == ""
    assert browser.get(f"{closed}/login/oidc/other/login/").status_code == 404


def test_a_stolen_answer_is_of_no_use_in_another_browser(
    provider: Provider, closed: str, browser: httpx.Client
) -> None:
    provider.claims = BERTA
    start = browser.get(f"{closed}/login/oidc/sso/login/", follow_redirects=False)
    answer = browser.get(start.headers["location"], follow_redirects=False).headers["location"]
    with httpx.Client(follow_redirects=True, timeout=120) as thief:
        assert thief.get(answer).status_code == 401
        assert who(thief, closed) == ""


def test_everybody_gets_an_account_where_that_is_wanted(provider: Provider, open_to_all: str) -> None:
    named = []
    for number in range(2):
        subject = ids.uuid7()
        provider.claims = {"sub": subject, "preferred_username": "Dora Müller", "email": "d@example.com"}
        for _ in range(2):
            with httpx.Client(follow_redirects=True, timeout=120) as browser:
                assert log_in(browser, open_to_all).status_code == 200
                named.append(who(browser, open_to_all))
        assert named[-1] == named[-2], number
    assert named[0] == "dora-müller" and named[2].startswith("dora-müller-")
    # An address that has changed hands: an account of one's own, not the one of who had it.
    names = set()
    for _ in range(2):
        provider.claims = {**BERTA, "sub": ids.uuid7(), "preferred_username": "berta"}
        with httpx.Client(follow_redirects=True, timeout=120) as browser:
            log_in(browser, open_to_all)
            names.add(who(browser, open_to_all))
    assert len(names) == 2 and names > {"berta"}
    # An address that was not verified is nobody's: neither does it connect, nor is it kept.
    provider.claims = {"sub": ids.uuid7(), "preferred_username": "alice", "email": "alice@example.org"}
    with httpx.Client(follow_redirects=True, timeout=120) as browser:
        log_in(browser, open_to_all)
        assert who(browser, open_to_all).startswith("alice-")


def test_only_the_protocols_own_addresses_are_there(closed: str, browser: httpx.Client) -> None:
    for path in ("/login/signup/", "/accounts/login/", "/login/social/connections/", "/login/oidc/", "/signup/"):
        assert browser.get(closed + path).status_code == 404, path


def test_a_provider_needs_a_client(tmp_path: Path) -> None:
    code = (
        "from daram.settings import Settings\n"
        "from daram.service.configure import configure\n"
        "configure(Settings.from_env())"
    )
    environment = {**os.environ, "DARAM_DATA": str(tmp_path), "DARAM_OIDC_URL": "https://sso.example.org"}
    environment["PYTHONPATH"] = str(ROOT / "src")
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode != 0 and "DARAM_OIDC_CLIENT" in done.stderr.splitlines()[-1]
