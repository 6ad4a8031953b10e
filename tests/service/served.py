"""The real programs as child processes: ``daram serve`` and the scripted model, to be killed and started again."""

from __future__ import annotations

import os
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx

ROOT = Path(__file__).resolve().parents[2]
_STARTS_WITHIN = 120.0  # seconds; a busy machine takes its time

# Loaded by every Python that finds it on its path: writes down to where the process connects and what it looks up.
_WATCHER = """
import os, sys

def _watch(event, args, path=os.environ.get("TESTS_CONNECTIONS")):
    if path and event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto"):
        target = args[1] if event in ("socket.connect", "socket.sendto") else args[0]
        with open(path, "a") as file:
            file.write(f"{event} {target!r}\\n")

sys.addaudithook(_watch)
"""


class Process:
    """A child process that says on its standard output where it is."""

    says = re.compile(rb"http://\S+(?=\s)")
    """What it has said when it is ready; the first URL in it is where it is."""

    def __init__(self, command: list[str], environ: Mapping[str, str], directory: Path) -> None:
        self._command = command
        self._environ = dict(environ)
        self._directory = directory
        self._errors = directory / f"stderr-{os.urandom(4).hex()}.txt"
        self.process: subprocess.Popen[bytes] | None = None
        self.url = ""
        self.said = ""

    def start(self) -> str:
        """Start it and wait until it has said its URL."""
        with self._errors.open("ab") as errors:
            self.process = subprocess.Popen(
                self._command, stdout=subprocess.PIPE, stderr=errors, env=self._environ, cwd=self._directory
            )
        assert self.process.stdout is not None
        said, deadline = b"", time.monotonic() + _STARTS_WITHIN
        while (found := self.says.search(said)) is None:
            ready, _, _ = select.select([self.process.stdout], [], [], max(0.0, deadline - time.monotonic()))
            chunk = os.read(self.process.stdout.fileno(), 4096) if ready else b""
            if not chunk:
                self.stop()
                raise AssertionError(f"{self._command} did not start:\n{said.decode()}{self.stderr()}")
            said += chunk
        self.said = said.decode()
        self.url = found[0].decode().split()[0].rstrip("/")
        if "--port" in self._command:
            # A second start takes the same port, so that who knew it finds it again.
            port = re.search(r":(\d+)", self.url.removeprefix("http:"))
            assert port is not None
            self._command[self._command.index("--port") + 1] = port[1]
        return self.url

    def kill(self) -> None:
        """As a power cut would: no chance to tidy up."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """As Ctrl-C does."""
        self._end(signal.SIGINT)

    def stderr(self) -> str:
        """What it has complained about."""
        return self._errors.read_text() if self._errors.exists() else ""

    def _end(self, number: signal.Signals) -> None:
        if self.process is None:
            return
        if self.process.poll() is None:
            self.process.send_signal(number)
            try:
                self.process.wait(timeout=60)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()
        self.process = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


class Page(Process):
    """``daram serve`` on a data directory, watched for connections to other machines."""

    says = re.compile(rb"http://\S+/ [^\0]*(?:http://\S+/login/link\S+)\s")

    def __init__(self, data: Path, directory: Path, *, program: list[str] | None = None, **settings: str) -> None:
        watcher = directory / "watcher"
        watcher.mkdir(exist_ok=True)
        (watcher / "sitecustomize.py").write_text(_WATCHER)
        self.connections = directory / "connections.txt"
        self.data = data
        self._cookies: dict[str, str] = {}
        own = {"DARAM_DATA": str(data), "TESTS_CONNECTIONS": str(self.connections), **settings}
        command = program or [*_PYTHON, "-m", "daram", "serve", "--port", "0"]
        super().__init__(command, _environment(watcher) | own, directory)

    @property
    def link(self) -> str:
        """The link that logs in once, as the last start said it."""
        return re.findall(r"http://\S+/login/link\S+", self.said)[-1]

    @property
    def cookies(self) -> dict[str, str]:
        """Those of a browser in which the user of this machine is logged in; a login outlives the server."""
        if not self._cookies:
            with httpx.Client(timeout=60, trust_env=False) as client:
                log_in_by_link(client, self.link)
                self._cookies = dict(client.cookies)
        return self._cookies

    @property
    def chat(self) -> str:
        """Where the chat page is."""
        return f"{self.url}/chat"

    def run(self, *arguments: str, stdin: str = "") -> str:
        """What a command of Daram prints, on the same data."""
        done = subprocess.run(
            [*_PYTHON, "-m", "daram", *arguments],
            env=self._environ,
            cwd=self._directory,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def strangers(self) -> list[str]:
        """To whom it has spoken, or wanted to, who is not on this machine."""
        lines = self.connections.read_text().splitlines() if self.connections.exists() else []
        return [line for line in lines if not re.search(r"'(?:127\.0\.0\.1|::1|localhost)'|\s'/|None", line)]


def log_in_by_link(client: httpx.Client, link: str) -> httpx.Response:
    """Open the link and press its button. Returns what comes of that."""
    opened = client.get(link)
    assert opened.status_code == 200, opened.text
    return _submit(client, opened)


def log_in(client: httpx.Client, url: str, name: str, password: str) -> httpx.Response:
    """Fill in the form of the login page. Returns what comes of that."""
    return _submit(client, client.get(f"{url}/login"), username=name, password=password)


def _submit(client: httpx.Client, page: httpx.Response, **filled: str) -> httpx.Response:
    hidden = dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)"', page.text))
    action = re.search(r'<form method="post" action="([^"]*)"', page.text)
    assert action is not None, page.text
    return client.post(page.url.join(action[1]), data=hidden | filled)


_PYTHON = [sys.executable, "-X", "utf8"]


def _environment(*first: Path) -> dict[str, str]:
    paths = [*map(str, first), str(ROOT / "src"), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths)), "PYTHONUNBUFFERED": "1"}


def model_server(directory: Path, *arguments: str) -> Process:
    """The scripted model server; its URL ends in /v1."""
    program = str(Path(__file__).with_name("naming_model.py"))
    return Process([*_PYTHON, program, "--port", "0", *arguments], _environment(), directory)


@contextmanager
def scripted_page(directory: Path, *, delay: float = 0.0, **settings: str) -> Iterator[Page]:
    """The page on the scripted model, which waits ``delay`` seconds before each word."""
    with model_server(directory, "--delay", str(delay)) as model:
        chosen = {"OPENAI_BASE_URL": model.url, "DARAM_MODEL": "openai:scripted", **settings}
        with Page(directory / "data", directory, **chosen) as page:
            yield page
