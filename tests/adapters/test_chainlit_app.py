"""The app of docs/how-to/chainlit.md, run by Chainlit itself; killed and started again in between."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
from tests.service.tab import Tab

from daram.testing.model_server import ScriptedModelServer
from daram.testing.servers.base import free_port

PAGE = Path(__file__).resolve().parents[2] / "docs" / "how-to" / "chainlit.md"


@contextmanager
def running(app: Path, url: str, model: str) -> Iterator[Any]:
    """Where the app is, as a ``Tab`` wants it, while it runs."""
    port = free_port()
    secret = {
        "CHAINLIT_AUTH_SECRET": "a secret for tests only, of thirty-two bytes",
        "CHAINLIT_APP_ROOT": str(app.parent),
    }
    log = app.with_suffix(".log")
    with log.open("ab") as said:
        process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "chainlit",
                "run",
                app.name,
                "--headless",
                "--host",
                "127.0.0.1",
                "--port",
                str(port),
            ],
            cwd=app.parent,
            env={**os.environ, **secret, "DARAM_URL": url, "OPENAI_BASE_URL": model},
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=subprocess.STDOUT,
        )
    try:
        where = f"http://127.0.0.1:{port}"
        deadline = time.monotonic() + 120
        while True:
            assert process.poll() is None and time.monotonic() < deadline, log.read_text()
            try:
                if httpx.get(f"{where}/", trust_env=False, timeout=60).status_code == 200:
                    break
            except httpx.ConnectError:
                time.sleep(0.1)
        yield SimpleNamespace(url=where, chat=where, cookies={})
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()


def cookies(where: str, name: str) -> dict[str, str]:
    """Those of a browser in which somebody is logged in."""
    with httpx.Client(base_url=where, trust_env=False, timeout=60) as client:
        assert client.post("/login", data={"username": name, "password": "x"}).status_code == 200
        return dict(client.cookies)


async def test_the_app_of_the_page_remembers_after_kill(url: str, tmp_path: Path) -> None:
    found = re.search(r"cat > app\.py <<'PY'\n(.*?)\nPY\n", PAGE.read_text("utf-8"), re.DOTALL)
    assert found is not None
    app = tmp_path / "app.py"
    app.write_text(found[1], "utf-8")
    async with ScriptedModelServer() as server:
        with running(app, url, server.base_url) as page:
            ann = cookies(page.url, "ann")
            async with Tab(page, cookies=ann, greeted=False) as tab:
                await tab.say("앞으로 다람쥐를 다랑어라고 부를게")
                await tab.until_answered()
                thread = tab.thread
            assert thread
        with running(app, url, server.base_url) as page:
            ann = cookies(page.url, "ann")
            async with Tab(page, thread=thread, cookies=ann) as tab:
                assert tab.shown[0] == "앞으로 다람쥐를 다랑어라고 부를게"
                await tab.say("다람쥐를 뭐라고 부르지?")
                assert "다랑어" in await tab.until_answered(2)
                assert len(await tab.list()) == 1
            async with Tab(page, cookies=cookies(page.url, "bob"), greeted=False) as tab:
                assert await tab.list() == []
