"""The service as it is run: one process, real sockets, several users, from start to SIGTERM."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import socketio
from tests.service.served import ROOT, Page, Process, log_in, scripted_page
from tests.service.tab import Tab

from daram.service.observe.requests import route

PASSWORD = "an oak of my own 7"
BODY_LIMIT = 100_000
RATE, RUNNING = 1000, 2


class People:
    """The users of a running service: their keys and cookies."""

    def __init__(self, page: Page, *names: str) -> None:
        self.page = page
        self.keys: dict[str, str] = {}
        self._cookies: dict[str, dict[str, str]] = {}
        for name in names:
            page.run("user", "add", name, "--password-stdin", stdin=PASSWORD + "\n")
            self.keys[name] = page.run("key", "create", name, "--scope", "write")

    def client(self, name: str) -> httpx.AsyncClient:
        """A client of the API."""
        headers = {"authorization": f"Bearer {self.keys[name]}"}
        return httpx.AsyncClient(base_url=f"{self.page.url}/v1", headers=headers, timeout=120, trust_env=False)

    def cookies(self, name: str) -> dict[str, str]:
        """Those of a browser in which they are logged in."""
        if name not in self._cookies:
            with httpx.Client(timeout=60, trust_env=False) as client:
                assert log_in(client, self.page.url, name, PASSWORD).status_code in (302, 303)
                self._cookies[name] = dict(client.cookies)
        return self._cookies[name]


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    settings = {
        "DARAM_LOG": "json",
        "DARAM_RATE_LIMIT": str(RATE),
        "DARAM_STREAM_LIMIT": str(RUNNING),
        "DARAM_BODY_LIMIT": str(BODY_LIMIT),
        "DARAM_BODY_TIMEOUT": "10",
        "DARAM_DRAIN": "0.5",
        "DARAM_TITLES": "off",
        "DARAM_CORS_ORIGINS": "https://app.example.org",
    }
    with scripted_page(tmp_path_factory.mktemp("service"), delay=0.02, **settings) as running:
        yield running


@pytest.fixture(scope="module")
def people(page: Page) -> People:
    return People(page, "ann", "ben", "cho", "dan")


# --- whether it lives ---


def test_the_probes_answer_anybody_and_say_little(page: Page) -> None:
    for host in ("127.0.0.1", "10.1.2.3:8000"):
        answer = httpx.get(f"{page.url}/healthz", headers={"host": host}, timeout=60, trust_env=False)
        assert (answer.status_code, answer.json()) == (200, {"status": "ok"})
        answer = httpx.get(f"{page.url}/readyz", headers={"host": host}, timeout=60, trust_env=False)
        assert answer.status_code == 200
        assert answer.json() == {"status": "ok", "store": "ok", "accounts": "ok", "model": "ok"}


async def test_figures_are_for_this_machine(page: Page, people: People) -> None:
    async with people.client("ann") as client:
        await client.get("/conversations/somebody-s-secret-name")
    counted = 'daram_requests_total{method="GET",route="/v1/conversations/{}",status="404"}'
    async with asyncio.timeout(60):  # it is counted when the answer has been sent
        while counted not in (text := httpx.get(f"{page.url}/metrics", timeout=60, trust_env=False).text):
            await asyncio.sleep(0.05)
    assert "somebody-s-secret-name" not in text
    proxied = httpx.get(f"{page.url}/metrics", headers={"x-forwarded-for": "10.0.0.9"}, timeout=60, trust_env=False)
    assert proxied.status_code == 404
    page.run("user", "add", "boss", "--admin", "--password-stdin", stdin=PASSWORD + "\n")
    scopes = {"admin": page.run("key", "create", "boss", "--scope", "admin"), "write": people.keys["ann"], "none": "x"}
    for scope, key in scopes.items():
        headers = {"x-forwarded-for": "10.0.0.9", "authorization": f"Bearer {key}"}
        proxied = httpx.get(f"{page.url}/metrics", headers=headers, timeout=60, trust_env=False)
        assert proxied.status_code == (200 if scope == "admin" else 404), scope


def test_paths_are_counted_by_our_own_words_only() -> None:
    assert route("/v1/conversations/conv_1/items/msg_2") == "/v1/conversations/{}/items/{}"
    assert route("/login/link/secret") == "/login/…"
    assert route("/chat/thread/0190") == "/chat/thread/{}"
    assert route("/chat/thread/0190/secret") == "/chat/…"
    assert route("/v1/models/acme/big") == "/v1/…"
    assert route("/wp-admin/setup.php") == "other"
    assert route("/") == "/"


# --- the API and the page over the same conversations ---


async def test_what_the_api_writes_the_page_shows_and_the_other_way(page: Page, people: People) -> None:
    async with people.client("ann") as client:
        made = await client.post("/conversations", json={})
        conversation = made.json()["id"]
        asked = {"model": "scripted", "conversation": conversation, "input": "[[say from the API]]"}
        answer = await client.post("/responses", json=asked)
        assert answer.json()["status"] == "completed"
        async with Tab(page, thread=conversation, cookies=people.cookies("ann")) as tab:
            await tab.until(lambda tab: "from the API" in tab.shown)
            await tab.say("[[say from the page]]")
            await tab.until(lambda tab: "from the page" in tab.shown and not tab.loading)
        items = (await client.get(f"/conversations/{conversation}/items", params={"order": "asc"})).json()["data"]
        said = [item["content"][0]["text"] for item in items]
        assert said == ["[[say from the API]]", "from the API", "[[say from the page]]", "from the page"]


async def test_an_answer_of_the_api_is_seen_being_made_in_the_page(page: Page, people: People) -> None:
    async with people.client("ann") as client:
        conversation = (await client.post("/conversations", json={})).json()["id"]
        asked = {"model": "scripted", "conversation": conversation, "input": "[[delay 0.1]] [[tokens 9000]]"}
        begun = (await client.post("/responses", json={**asked, "background": True})).json()
        async with Tab(page, thread=conversation, cookies=people.cookies("ann")) as tab:
            await tab.until(lambda tab: any("word3" in text for text in tab.shown))
            assert tab.loading
            await tab.stop()
            await tab.until(lambda tab: not tab.loading)
        assert (await client.get(f"/responses/{begun['id']}")).json()["status"] == "cancelled"


async def test_nobody_sees_what_is_anothers(page: Page, people: People) -> None:
    async with Tab(page, cookies=people.cookies("ann")) as ann:
        await ann.say("[[say what ann hid]]")
        await ann.until_answered()
        thread, list_of_ann = ann.thread, await ann.list()
        assert list_of_ann
        async with Tab(page, thread=thread, cookies=people.cookies("ben")) as ben:
            assert not [text for text in ben.shown if "ann" in text]
            assert ben.errors
            assert await ben.list() == []
            for method, path, body in [
                ("GET", f"/project/thread/{thread}", None),
                ("PUT", "/project/thread", {"threadId": thread, "name": "mine"}),
                ("DELETE", "/project/thread", {"threadId": thread}),
            ]:
                answer = await ben.http.request(method, path, json=body)
                assert answer.status_code in (401, 404), (method, path, answer.text)
            button = {"name": "retry", "payload": {}, "label": "", "tooltip": "", "forId": "x", "id": "y"}
            pressed = await ben.http.post("/project/action", json={"action": button, "sessionId": ann.session})
            assert pressed.status_code == 401
            file = {"file": ("a.txt", b"from ben", "text/plain")}
            dropped = await ben.http.post("/project/file", params={"session_id": ann.session}, files=file)
            assert dropped.status_code == 401
            large = {"file": ("a.txt", b"from ben" * BODY_LIMIT, "text/plain")}
            dropped = await ben.http.post("/project/file", params={"session_id": ann.session}, files=large)
            assert dropped.status_code == 401
            assert not (page.data / "page" / ".files" / ann.session).exists()
            hidden = next(step["id"] for step in ann.steps.values() if step["type"] == "assistant_message")
            assert (await ben.http.get(f"/citation/{thread}/{hidden}/1")).status_code == 404
        # Not even with the id of the socket itself.
        poll = {"EIO": "4", "transport": "polling", "sid": str(ann._socket.eio.sid)}
        for cookies, status in [(people.cookies("ben"), 401), ({}, 401)]:
            async with httpx.AsyncClient(timeout=60, trust_env=False, cookies=cookies) as client:
                answer = await client.post(f"{page.chat}/ws/socket.io/", params=poll, content="1")
                assert answer.status_code == status
        with pytest.raises(Exception, match="(?i)refused|authorization|failed|error"):
            async with Tab(page, session=ann.session, cookies=people.cookies("ben")):
                pass
        assert await ann.list() == list_of_ann


async def test_a_tab_cannot_name_a_directory_of_the_server(page: Page, people: People, tmp_path: Path) -> None:
    """Chainlit deletes the directory that it finds by the id of a session."""
    for id in (str(tmp_path), "../public", "."):
        with pytest.raises(socketio.exceptions.ConnectionError):
            async with Tab(page, session=id, cookies=people.cookies("ben")):
                pass
    assert tmp_path.is_dir()
    assert (page.data / "page" / "public").is_dir()


async def test_logging_out_ends_the_tabs_of_that_login_only(page: Page, people: People) -> None:
    with httpx.Client(timeout=60, trust_env=False) as client:
        log_in(client, page.url, "cho", PASSWORD)
        second = dict(client.cookies)
    async with Tab(page, cookies=people.cookies("cho")) as here, Tab(page, cookies=second) as there:
        assert (await here.http.post("/logout")).json() == {"success": True}
        await here.until(lambda tab: tab.closed)
        assert (await here.http.get("/user")).status_code == 401
        await there.say("[[say still here]]")
        assert await there.until_answered() == "still here"
        # From Django's own page it is the same.
        with httpx.Client(timeout=60, trust_env=False, cookies=second) as client:
            form = client.get(f"{page.url}/logout")
            token = re.search(r'name="csrfmiddlewaretoken" value="([^"]*)"', form.text)
            assert token is not None
            client.post(f"{page.url}/logout", data={"csrfmiddlewaretoken": token[1]})
        await there.until(lambda tab: tab.closed)


# --- how much ---


async def test_a_user_is_told_how_many_requests_are_left(people: People) -> None:
    async with people.client("dan") as dan:
        answer = await dan.get("/models")
    assert answer.headers["x-ratelimit-limit-requests"] == str(RATE)
    assert answer.headers["x-ratelimit-remaining-requests"] == str(RATE - 1)


async def test_a_user_has_so_many_requests_at_once(people: People) -> None:
    asked = {"model": "scripted", "input": "[[delay 0.05]] [[tokens 9000]]", "stream": True}
    async with people.client("ben") as ben:
        async with ben.stream("POST", "/responses", json=asked) as one:
            reading = one.aiter_lines()  # to be kept: a forgotten reader closes the connection
            await anext(reading)
            async with ben.stream("POST", "/responses", json=asked) as two:
                also = two.aiter_lines()
                await anext(also)
                refused = await ben.get("/models")
                assert (one.status_code, two.status_code, refused.status_code) == (200, 200, 429)
                assert refused.headers["retry-after"] == "1"
        # The two have been left: what they took is free again as soon as the server has noticed.
        async with asyncio.timeout(60):
            while (await ben.get("/models")).status_code != 200:
                await asyncio.sleep(0.2)


async def test_a_body_that_is_too_large_is_refused(people: People) -> None:
    async with people.client("ann") as client:
        large = json.dumps({"metadata": {"x": "y" * BODY_LIMIT}}).encode()

        async def pieces() -> object:
            for start in range(0, len(large), 10_000):
                yield large[start : start + 10_000]

        for body in (large, pieces()):
            headers = {"content-type": "application/json"}
            answer = await client.post("/conversations", content=body, headers=headers)
            assert answer.status_code == 413
            assert answer.json()["error"]["code"] == "too_large"


def test_what_does_not_come_is_not_waited_for(page: Page, people: People) -> None:
    """A body (408), a head, and anything at all; all at once, for each takes its time."""
    begun = f"POST /v1/conversations HTTP/1.1\r\nhost: 127.0.0.1\r\nauthorization: Bearer {people.keys['ann']}\r\n"
    half_a_body = f"{begun}content-type: application/json\r\ncontent-length: 100\r\n\r\n{{"
    half_a_head = f"{begun}x-slow: "
    with _connection(page) as body, _connection(page) as head, _connection(page) as nothing:
        body.sendall(half_a_body.encode())
        head.sendall(half_a_head.encode())
        assert body.recv(65536).startswith(b"HTTP/1.1 408")
        assert head.recv(65536) == b""
        assert nothing.recv(65536) == b""


# --- who may ask ---


def test_other_sites_may_use_the_api_only_where_it_is_said(page: Page, people: People) -> None:
    headers = {"origin": "https://app.example.org", "authorization": f"Bearer {people.keys['ann']}"}
    with httpx.Client(base_url=page.url, timeout=60, trust_env=False, headers=headers) as client:
        answer = client.get("/v1/models")
        assert answer.headers["access-control-allow-origin"] == "https://app.example.org"
        asked = {"access-control-request-method": "POST", "access-control-request-headers": "authorization"}
        assert client.options("/v1/responses", headers=asked).headers["access-control-allow-headers"] == "authorization"
        assert client.get("/chat/user").status_code == 403
        assert client.get("/login").status_code == 403
        other = client.get("/v1/models", headers={"origin": "https://evil.example"})
        assert other.status_code == 403
        assert "access-control-allow-origin" not in other.headers


def test_an_address_that_is_not_there_says_so_as_openai_does(page: Page) -> None:
    answer = httpx.get(f"{page.url}/v1/nothing", timeout=60, trust_env=False)
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "unknown_url")
    assert httpx.post(f"{page.url}/healthz", timeout=60, trust_env=False).status_code == 405


# --- what it tells of itself ---


async def test_a_request_is_logged_with_its_id_and_no_secret(page: Page, people: People) -> None:
    secrets = [*people.keys.values(), PASSWORD, page.link.partition("token=")[2], "hidden-acorn-4711"]
    async with people.client("ann") as client:
        asked = {"model": "scripted", "input": "[[say hidden-acorn-4711]]"}
        answer = await client.post("/responses", json=asked, headers={"x-request-id": "my-own.id_1"})
        assert answer.headers["x-request-id"] == "my-own.id_1"
        strange = await client.get("/models", headers={"x-request-id": 'a"b\\n{}' * 40})
        assert re.fullmatch(r"req_[\w-]+", strange.headers["x-request-id"])
    assert page.cookies  # the link was used

    def told() -> tuple[list[Any], list[Any]]:
        lines = [json.loads(line) for line in page.stderr().splitlines(keepends=True) if line.endswith("}\n")]
        return lines, [line for line in lines if line.get("request_id") == "my-own.id_1" and "status" in line]

    async with asyncio.timeout(60):  # it is written when the answer has been sent
        while not told()[1]:
            await asyncio.sleep(0.05)
    lines, (line,) = told()
    assert (line["method"], line["route"], line["status"]) == ("POST", "/v1/responses", 200)
    assert line["user"] > 0
    secrets += [value for name in ("ann", "cho") for value in people.cookies(name).values()]
    assert [secret[:6] for secret in secrets if secret in page.stderr()] == []
    assert [line["exception"] for line in lines if "exception" in line] == []


# --- its end, and other machines ---


async def test_on_sigterm_running_answers_end_as_incomplete_and_their_clients_hear_it(tmp_path: Path) -> None:
    with scripted_page(tmp_path, DARAM_DRAIN="0.5", DARAM_TITLES="off") as own:
        people = People(own, "ann")
        asked = {"model": "scripted", "input": "[[delay 0.1]] [[tokens 9000]]", "stream": True}
        events: list[str] = []
        response_id, told = "", False
        async with people.client("ann") as client, client.stream("POST", "/responses", json=asked) as stream:
            async for line in stream.aiter_lines():
                if line.startswith("event: "):
                    events.append(line.removeprefix("event: "))
                elif line.startswith("data: ") and events[-1] == "response.created":
                    response_id = json.loads(line.removeprefix("data: "))["response"]["id"]
                if not told and events.count("response.output_text.delta") == 2 and own.process is not None:
                    own.process.send_signal(signal.SIGTERM)
                    told = True
        assert events[-1] == "response.incomplete"
        assert own.process is not None
        own.process.wait(60)
        own.stop()
        own.start()
        async with people.client("ann") as client:
            stored = (await client.get(f"/responses/{response_id}")).json()
            assert stored["status"] == "incomplete"
            assert stored["output"][0]["content"][0]["text"].startswith("word1 word2")


def test_other_machines_need_names_and_an_account(tmp_path: Path) -> None:
    settings = {"DARAM_HOST": "0.0.0.0", "DARAM_MODEL": "local", "DARAM_ALLOWED_HOSTS": "chat.example.org"}
    own = Page(tmp_path / "data", tmp_path, **settings)
    with pytest.raises(AssertionError, match="daram user add"):
        own.start()
    own.run("user", "add", "ann", "--admin", "--password-stdin", stdin=PASSWORD + "\n")
    own.says = Process.says  # it prints no link: whoever reads its output is not at this machine's door
    with own:
        assert "/login/link" not in own.said
        url = re.sub(r"//[^:]+:", "//127.0.0.1:", own.url)
        for host, status in [("chat.example.org", 307), ("evil.example", 403)]:
            assert httpx.get(url, headers={"host": host}, timeout=60, trust_env=False).status_code == status


_WITHOUT = """
import sys
sys.modules["ninja"] = None
sys.argv = ["daram", "serve", "--port", "0"]
from daram.cli import main
main()
"""


def test_the_service_needs_its_extra(tmp_path: Path) -> None:
    environ = {**os.environ, "DARAM_DATA": str(tmp_path), "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(
        [sys.executable, "-c", _WITHOUT], env=environ, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 1
    assert 'pip install "daram[serve]"' in done.stderr


def _connection(page: Page) -> socket.socket:
    host, _, port = page.url.removeprefix("http://").partition(":")
    return socket.create_connection((host, int(port)), timeout=120)
