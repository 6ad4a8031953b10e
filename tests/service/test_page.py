"""The page over HTTP: what it serves, to whom, and that nothing of it comes from elsewhere."""

from __future__ import annotations

import dataclasses
import json
import re
import socket
import stat
import subprocess
import sys
import time
from base64 import b64encode
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest
from tests.service.served import Page, scripted_page

from daram.errors import ConfigError
from daram.model import Message
from daram.ui import home, strings
from daram.ui.guard import refusal
from daram.ui.html import at_home

_FOREIGN = re.compile(r"(?:https?:)?//(?!127\.0\.0\.1|localhost|\[::1\])[\w.-]+\.[a-z]{2,}")


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with scripted_page(tmp_path_factory.mktemp("page")) as running:
        yield running


@pytest.fixture
def browser(page: Page) -> Iterator[httpx.Client]:
    """A client in which the user of this machine is logged in, below the chat page."""
    with httpx.Client(base_url=page.chat, timeout=60, trust_env=False, cookies=page.cookies) as client:
        assert client.get("/").status_code == 200
        yield client


# --- what it serves ---


@pytest.mark.parametrize("path", ["/", "/thread/some-id", "/thread/a%2Fb", "/element/x"])
def test_the_page_is_served_and_asks_nobody_else(browser: httpx.Client, path: str) -> None:
    answer = browser.get(path)
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/html")
    assert "<title>Daram</title>" in answer.text
    assert _FOREIGN.findall(answer.text) == []


@pytest.mark.parametrize(
    "path",
    [
        "/auth/config",
        "/user",
        "/project/settings?language=ko-KR",
        "/project/translations?language=ko-KR",
        "/public/daram.css",
    ],
)
def test_what_the_page_asks_for_names_nobody_else(browser: httpx.Client, path: str) -> None:
    answer = browser.get(path)
    assert answer.status_code == 200
    assert _FOREIGN.findall(answer.text) == []


def test_every_file_that_the_page_names_is_there(page: Page, browser: httpx.Client) -> None:
    html = browser.get("/").text
    named = re.findall(r'(?:href|src|content)="(/[^"]+)"', html)
    assert any(name.endswith(".js") for name in named)
    for name in [*named, "/chat/favicon", "/chat/logo?theme=dark", "/chat/avatars/Daram"]:
        answer = browser.get(f"{page.url}{name}", follow_redirects=True)
        assert answer.status_code == 200, name
        assert answer.content, name
    squirrel = (Path(home.__file__).parent / "static" / "squirrel.svg").read_bytes()
    assert browser.get("/favicon").content == browser.get("/avatars/Daram").content == squirrel


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/docs"),
        ("GET", "/redoc"),
        ("GET", "/openapi.json"),
        ("GET", "/copilot/index.js"),
        ("GET", "/project/share/some-id"),
        ("GET", "/auth/oauth/github"),
        ("POST", "/mcp"),
        ("GET", "/project/file/x?session_id=x"),
        ("PUT", "/project/element"),
        ("POST", "/auth/jwt"),
        ("GET", "/public/../auth-secret"),
        ("GET", "/public/%2e%2e/auth-secret"),
        ("GET", "/thread"),
    ],
)
def test_chainlits_other_doors_are_shut(browser: httpx.Client, method: str, path: str) -> None:
    assert browser.request(method, path).status_code in (400, 404)


def test_the_policy_lets_the_page_reach_its_own_server_only(page: Page, browser: httpx.Client) -> None:
    answer = browser.get("/")
    policy = dict(rule.split(" ", 1) for rule in answer.headers["content-security-policy"].split("; "))
    host = page.url.removeprefix("http://")
    assert policy["default-src"] == "'self'"
    assert policy["connect-src"] == f"'self' ws://{host}"
    assert policy["img-src"] == "'self' data: blob:"
    assert policy["frame-ancestors"] == "'none'"
    inline = [text for text in re.findall(r"<script>(.*?)</script>", answer.text, re.DOTALL) if text]
    assert inline
    for text in inline:
        assert f"'sha256-{b64encode(sha256(text.encode()).digest()).decode()}'" in policy["script-src"]
    assert "unsafe" not in policy["script-src"]
    assert answer.headers["x-content-type-options"] == "nosniff"
    # Answers of Chainlit and refusals carry the policy of the page too, or nothing that could run.
    assert (
        browser.get("/project/settings").headers["content-security-policy"] == answer.headers["content-security-policy"]
    )
    assert not any(name.startswith("access-control-") for name in browser.get("/user").headers)


def test_who_is_not_logged_in_is_led_to_the_login(page: Page) -> None:
    with httpx.Client(base_url=page.url, timeout=60, trust_env=False) as client:
        assert client.get("/").headers["location"] == "/chat/"
        assert client.get("/chat").headers["location"] == "/chat/"
        for path in ("/", "/thread/some-id", "/element/x"):
            answer = client.get(f"/chat{path}")
            assert (answer.status_code, answer.headers["location"]) == (303, f"/login?next=/chat{path}")
        assert client.get("/chat/login").headers["location"] == "/login?next=/chat/"
        for method, path in [
            ("GET", "/user"),
            ("POST", "/auth/header"),
            ("POST", "/project/threads"),
            ("POST", "/logout"),
        ]:
            assert client.request(method, f"/chat{path}").status_code == 401
        assert web_socket(page, {}) == 403


def test_the_pages_own_login_is_the_accounts_and_never_leaves(page: Page, browser: httpx.Client) -> None:
    assert browser.get("/user").json()["identifier"] == "local"
    again = browser.post("/auth/header")
    assert again.json() == {"success": True}
    assert "set-cookie" not in again.headers
    # Chainlit's own cookie opens nothing, not even one that is signed with the right key.
    secret = (page.data / "page" / "auth-secret").read_text().strip()
    token = jwt.encode({"identifier": "local", "exp": time.time() + 600}, secret, algorithm="HS256")
    cookies = {f"daram_{sha256(secret.encode()).hexdigest()[:12]}": token}
    bearer = {"authorization": f"Bearer {token}"}
    with httpx.Client(base_url=page.chat, timeout=60, trust_env=False, cookies=cookies, headers=bearer) as client:
        assert client.get("/user").status_code == 401
        assert client.post("/project/threads", json={}).status_code == 401


@pytest.mark.parametrize("other", ['theirs={"a": 1}', "two words", "a@b=1", "path=/", "a=b c; expires=1"])
def test_cookies_of_other_programs_of_the_host_are_not_in_the_way(page: Page, other: str) -> None:
    """Cookies do not know ports; who is logged in for the login page, but not for this one, would be led in circles."""
    ours = "; ".join(f"{name}={value}" for name, value in page.cookies.items())
    answer = httpx.get(f"{page.chat}/user", headers={"cookie": f"{other}; {ours}"}, timeout=60, trust_env=False)
    assert (answer.status_code, answer.json()["identifier"]) == (200, "local")


def test_a_login_survives_neither_a_log_out_nor_another_key(tmp_path: Path) -> None:
    with scripted_page(tmp_path) as own:
        with httpx.Client(base_url=own.chat, timeout=60, trust_env=False, cookies=own.cookies) as client:
            assert client.get("/user").status_code == 200
            assert client.post("/logout").json() == {"success": True}
        with httpx.Client(base_url=own.chat, timeout=60, trust_env=False, cookies=own.cookies) as client:
            assert client.get("/user").status_code == 401
        again = httpx.get(own.link, timeout=60, trust_env=False)
        assert again.status_code == 404  # it logs in once


# --- to whom ---

BAD = [
    ({"host": "evil.example"}, "another name: DNS rebinding"),
    ({"host": "evil.example:{port}"}, "another name with our port"),
    ({"host": "localhost.evil.example"}, "a name that begins like ours"),
    ({"host": "127.0.0.1.evil.example:{port}"}, "a name that begins like our address"),
    ({"host": "evil.example#@localhost"}, "a trick with a fragment"),
    ({"host": "user@localhost:{port}"}, "a user's name"),
    ({"host": "0.0.0.0:{port}"}, "every address"),
    ({"host": "192.168.0.10:{port}"}, "an address of the network"),
    ({"host": ""}, "no name"),
    ({"origin": "http://evil.example"}, "a page of another site"),
    ({"origin": "https://localhost.evil.example"}, "a page of a site with a similar name"),
    ({"origin": "null"}, "a page of nobody: a sandbox, a file"),
    ({"origin": "http://localhost:1"}, "a page of another program of this machine"),
    ({"origin": "http://127.0.0.1"}, "the same, on the standard port"),
    ({"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors", "sec-fetch-dest": "image"}, "an image elsewhere"),
    ({"sec-fetch-site": "same-site", "sec-fetch-mode": "cors", "sec-fetch-dest": "empty"}, "another port"),
    ({"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "iframe"}, "a frame elsewhere"),
]


@pytest.mark.parametrize(("headers", "why"), BAD, ids=[why for _, why in BAD])
@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/login",
        "/v1/models",
        "/chat/project/settings",
        "/chat/ws/socket.io/?EIO=4&transport=polling",
        "/chat/public/daram.css",
    ],
)
def test_no_other_site_gets_in(page: Page, headers: dict[str, str], why: str, path: str) -> None:
    port = page.url.rpartition(":")[2]
    status, text = raw(page, "GET", path, {name: value.format(port=port) for name, value in headers.items()})
    assert status == 403, text
    assert re.search(r"403 Forbidden: |\"message\": \"", text)  # says what was wrong


@pytest.mark.parametrize(("headers", "why"), BAD, ids=[why for _, why in BAD])
def test_no_other_site_opens_a_web_socket(page: Page, headers: dict[str, str], why: str) -> None:
    port = page.url.rpartition(":")[2]
    given = {name: value.format(port=port) for name, value in headers.items()}
    assert web_socket(page, given) == 403


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"host": "localhost:{port}"},
        {"host": "LOCALHOST:{port}"},
        {"host": "localhost:4711"},  # through an SSH tunnel
        {"host": "[::1]:{port}"},
        {"origin": "http://127.0.0.1:{port}"},
        {"host": "localhost:{port}", "origin": "http://localhost:{port}"},
        {"sec-fetch-site": "same-origin", "sec-fetch-mode": "cors", "sec-fetch-dest": "empty"},
        {"sec-fetch-site": "none", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"},
        {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"},  # a link
    ],
)
def test_this_machine_gets_in(page: Page, headers: dict[str, str]) -> None:
    port = page.url.rpartition(":")[2]
    given = {name: value.format(port=port) for name, value in headers.items()}
    assert raw(page, "GET", "/login", given)[0] == 200
    if given.get("sec-fetch-mode") != "navigate":
        cookie = "; ".join(f"{name}={value}" for name, value in page.cookies.items())
        assert web_socket(page, {**given, "cookie": cookie}) == 101


@pytest.mark.parametrize(
    ("client", "may"),
    [
        (("127.0.0.1", 1), True),
        (("::1", 1), True),
        (None, True),
        (("192.168.0.7", 1), False),
        (("::ffff:10.0.0.1", 1), False),
    ],
)
def test_another_machine_is_refused_whatever_the_server_listens_on(client: Any, may: bool) -> None:
    scope = {"type": "http", "method": "GET", "path": "/", "client": client, "headers": [(b"host", b"localhost:8000")]}
    assert (refusal(scope) is None) is may


def test_two_hosts_are_one_too_many() -> None:
    headers = [(b"host", b"localhost"), (b"host", b"evil.example")]
    assert refusal({"type": "http", "method": "GET", "path": "/", "client": None, "headers": headers})


# --- in two languages ---


def test_the_korean_page_speaks_korean(browser: httpx.Client) -> None:
    for language in ("ko", "ko-KR"):
        words = browser.get(f"/project/translations?language={language}").json()["translation"]
        assert words["threadHistory"]["sidebar"]["title"] == "대화"
        assert words["chat"]["input"]["placeholder"] == "메시지를 입력하세요…"
        assert words["common"]["actions"]["cancel"] == "취소"  # Chainlit's own
    english = browser.get("/project/translations?language=en-US").json()["translation"]
    assert keys(words) == keys(english)
    assert english["threadHistory"]["sidebar"]["title"] == "Conversations"


def test_the_pages_language_is_the_browsers(browser: httpx.Client) -> None:
    for accepted, language in [("ko-KR,ko;q=0.9", "ko"), ("en-US", "en"), ("de", "en")]:
        assert f'<html lang="{language}">' in browser.get("/", headers={"accept-language": accepted}).text


def test_both_languages_say_everything() -> None:
    assert set(strings.CHROME["ko"]) == set(strings.CHROME["en-US"])
    assert set(strings.KOREAN.problems) == set(strings.ENGLISH.problems)
    fields = [field.name for field in dataclasses.fields(strings.Words) if field.name not in ("language", "problems")]
    pairs = [(getattr(strings.ENGLISH, name), getattr(strings.KOREAN, name)) for name in fields]
    pairs += [(text, strings.KOREAN.problems[code]) for code, text in strings.ENGLISH.problems.items()]
    pairs += [(text, strings.CHROME["ko"][key]) for key, text in strings.CHROME["en-US"].items()]
    for english, korean in pairs:
        assert re.search("[가-힣]", korean), korean
        assert not re.search("[가-힣]", english), english
        assert re.findall(r"{\w+}", english) == re.findall(r"{\w+}", korean), english


def test_the_greeting_is_the_tutorials() -> None:
    said = "저는 대화의 맥락을 고려해 답변할 수 있는 채팅봇입니다. 메시지를 입력하세요."
    assert strings.words("ko-KR,ko;q=0.9,en;q=0.8").greeting == said
    assert strings.words("ko").greeting == said
    for other in ("en-US", "kok", "de", "", None):
        assert strings.words(other) is strings.ENGLISH


def test_every_error_of_a_turn_has_words_of_its_own() -> None:
    from daram import errors

    for kind in vars(errors).values():
        if isinstance(kind, type) and issubclass(kind, errors.ModelError):
            assert kind.code in strings.ENGLISH.problems, kind
    text = strings.ENGLISH.explain("model_unavailable", "run `daram model get` or set [DARAM_MODEL](x) *now* <b>")
    assert text.startswith("**There is no language model yet. Your message is kept.**\n\n")
    assert r"\`daram model get\` or set \[DARAM\_MODEL\](x) \*now\* \<b\>" in text


def test_what_is_not_whole_says_so() -> None:
    for table in (strings.ENGLISH, strings.KOREAN):
        whole = Message(role="assistant", text="x")
        assert table.note(whole) == ""
        assert table.note(Message(role="user", text="x", status="incomplete")) == ""
        notes = {
            table.note(Message(role="assistant", text="x", status="incomplete")),
            table.note(Message(role="assistant", text="x", status="incomplete", metadata={"finish": "length"})),
            table.note(Message(role="assistant", text="x", status="cancelled")),
            table.note(Message(role="assistant", text="x", status="failed", metadata={"error": "model_timeout"})),
            table.note(Message(role="assistant", text="x", status="failed", metadata={"error": "news to us"})),
        }
        assert len(notes) == 5


# --- where it keeps its things ---


def test_it_writes_into_the_data_directory_only(page: Page) -> None:
    data = page.data
    where = data.parent
    assert {path.name for path in where.iterdir()} - {"data", "watcher", "connections.txt"} == {
        path.name for path in where.glob("stderr-*.txt")
    }
    assert stat.S_IMODE(data.stat().st_mode) == 0o700
    secret = data / "page" / "auth-secret"
    assert stat.S_IMODE(secret.stat().st_mode) == 0o600
    assert len(secret.read_text()) >= 43


def test_it_calls_nobody(page: Page, browser: httpx.Client) -> None:
    assert browser.get("/project/settings").status_code == 200
    assert "socket.connect" in page.connections.read_text()  # the watcher watches: the model was asked
    assert page.strangers() == []
    assert page.stderr().count("Traceback") == 0


def test_a_second_page_of_the_process_must_be_the_same() -> None:
    code = """
import sys
from pathlib import Path
from daram.errors import ConfigError
from daram.ui import home
one, two = Path(sys.argv[1]) / "one", Path(sys.argv[1]) / "two"
home.load(one); home.load(one, 1000)
try:
    home.load(two)
except ConfigError as error:
    print(error)
"""
    import tempfile

    with tempfile.TemporaryDirectory() as directory:
        done = subprocess.run(
            [sys.executable, "-c", code, directory], capture_output=True, text=True, timeout=120, check=True
        )
        assert "process of its own" in done.stdout
        before = (Path(directory) / "one" / "auth-secret").read_text()
        subprocess.run([sys.executable, "-c", code, directory], capture_output=True, timeout=120, check=True)
        assert (Path(directory) / "one" / "auth-secret").read_text() == before  # sessions outlive a restart


def test_an_unknown_chainlit_is_refused_rather_than_served() -> None:
    assert at_home('<link rel="x" href="https://cdn.example/a.css"><link href="/a.css">') == '<link href="/a.css">'
    with pytest.raises(ConfigError, match=r"cdn\.example"):
        at_home('<script src="https://cdn.example/a.js"></script>')


def test_without_a_model_the_page_starts(tmp_path: Path) -> None:
    with Page(tmp_path / "data", tmp_path, DARAM_MODEL="local") as page:
        assert httpx.get(page.chat + "/", timeout=60, trust_env=False, cookies=page.cookies).status_code == 200


def test_a_store_that_cannot_be_opened_is_told_in_words(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "daram.db").write_text("this is not a database, but it was the user's" * 100)
    page = Page(tmp_path / "data", tmp_path, DARAM_MODEL="local")
    with pytest.raises(AssertionError, match="did not start"):
        page.start()
    said = page.stderr()
    assert "daram.db" in said
    assert "Traceback" not in said


# --- helpers ---


def keys(words: Any, prefix: str = "") -> set[str]:
    found = set()
    for key, value in words.items():
        found |= keys(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key}
    return found


def raw(page: Page, method: str, target: str, headers: dict[str, str]) -> tuple[int, str]:
    """A request byte by byte: clients would mend what is to be sent broken. Returns status and body."""
    host, _, port = page.url.removeprefix("http://").partition(":")
    lines = {"host": f"{host}:{port}", "connection": "close", **headers}
    text = "".join(
        [f"{method} {target} HTTP/1.1\r\n", *(f"{name}: {value}\r\n" for name, value in lines.items()), "\r\n"]
    )
    with socket.create_connection((host, int(port)), timeout=60) as connection:
        connection.sendall(text.encode("latin-1"))
        answer = b""
        while chunk := connection.recv(65536):
            answer += chunk
            if headers.get("upgrade") and b"\r\n\r\n" in answer:
                break
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), body.decode("utf-8", "replace")


def web_socket(page: Page, headers: dict[str, str]) -> int:
    """The status that a web socket's handshake gets."""
    handshake = {
        "upgrade": "websocket",
        "connection": "Upgrade",
        "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ==",
        "sec-websocket-version": "13",
    }
    return raw(page, "GET", "/chat/ws/socket.io/?EIO=4&transport=websocket", handshake | headers)[0]


def test_json_helpers_see_differences() -> None:
    assert keys(json.loads('{"a": {"b": 1}, "c": 2}')) == {"a.b", "c"}
