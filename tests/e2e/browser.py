"""A real Chromium on the page, driven as a user drives it."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Page as BrowserPage
from playwright.sync_api import expect, sync_playwright

ROOT = Path(__file__).resolve().parents[2]
_WAIT = 120_000  # milliseconds: a small model on a busy machine takes its time
_ARGUMENTS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    # What the page asks of others must fail, and be seen; not depend on the network of this machine.
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost",
]


def find_chromium(environ: Mapping[str, str]) -> str:
    """The browser that the tests use; fails the test, with how to get one, where there is none."""
    found = subprocess.run(
        ["sh", str(ROOT / "scripts" / "chromium")], env=dict(environ), capture_output=True, text=True, check=False
    )
    if found.returncode != 0:
        pytest.fail(found.stderr, pytrace=False)
    return found.stdout.strip()


class Browser:
    """One browser. ``asked``: the URLs of all requests and sockets; ``complaints``: errors on its console."""

    def __init__(self, context: Any, url: str, images: Path) -> None:
        self.context = context
        self.url = url
        self.images = images
        self.asked: list[str] = []
        self.complaints: list[str] = []
        context.set_default_timeout(_WAIT)
        expect.set_options(timeout=_WAIT)
        context.on("request", lambda request: self.asked.append(request.url))
        context.on("page", self._watch)
        self.page: BrowserPage = context.new_page()

    def tab(self) -> Browser:
        """Another tab of the same browser; what it asks is counted with the rest."""
        other = object.__new__(Browser)
        other.__dict__ |= self.__dict__
        other.page = self.context.new_page()
        return other

    def _watch(self, page: BrowserPage) -> None:
        page.on("websocket", lambda socket: self.asked.append(socket.url))
        page.on("console", lambda message: self._hear(message.type, message.text))
        page.on("pageerror", lambda error: self._hear("error", str(error)))

    def _hear(self, kind: str, text: str) -> None:
        # A server that is being restarted cannot be reached; the rest is ours to mend.
        if kind == "error" and "ERR_CONNECTION" not in text and "WebSocket connection" not in text:
            self.complaints.append(text)

    def forgive(self, status: int) -> None:
        """That the server said so was expected; the browser's console says it too, and so may Chainlit's own code."""
        told = (f"status of {status}", f": {HTTPStatus(status).phrase}\n")
        self.complaints[:] = [text for text in self.complaints if not any(words in text for words in told)]

    def strangers(self) -> list[str]:
        """What the page asked of other machines."""
        own = urlsplit(self.url).netloc
        return [url for url in self.asked if urlsplit(url).netloc != own and not url.startswith(("data:", "blob:"))]

    # --- what a user does ---

    def open(self, path: str = "/") -> None:
        """Open the chat page and wait until it has said something."""
        self.page.goto(f"{self.url}/chat{path}")
        self.greeted()

    def greeted(self) -> None:
        """Wait until the chat page is there."""
        self.page.locator(".message-content").first.wait_for()

    def log_in_by_link(self, link: str) -> None:
        """Open the link that the server printed, and press its button."""
        self.page.goto(link)
        self.page.locator("main form button").click()
        self.greeted()

    def log_in(self, name: str, password: str) -> None:
        """Open the server's address, which leads to the login, and fill in its form."""
        self.page.goto(self.url)
        self.page.locator("[name=username]").fill(name)
        self.page.locator("[name=password]").fill(password)
        self.page.locator("main form button").click()

    def log_out(self) -> None:
        """Choose it from the menu behind one's name, and see the login page."""
        self.page.locator("#user-nav-button").click()
        self.page.get_by_role("menuitem").last.click()
        self.page.locator("[name=password]").wait_for()

    def reload(self) -> None:
        """Press F5."""
        self.page.reload()
        self.page.locator(".message-content").first.wait_for()

    def say(self, text: str) -> None:
        """Type a message and press Enter."""
        self.page.locator("#chat-input").click()
        self.page.keyboard.insert_text(text)
        self.page.locator("#chat-submit:not([disabled])").wait_for()
        self.page.keyboard.press("Enter")

    def answer(self, number: int) -> Any:
        """The text of the n-th answer (from 1; what the page itself says is none), to be waited on."""
        return self._answers().nth(number - 1).locator(".message-content")

    def finished(self, number: int = 1) -> None:
        """Wait until the n-th answer is whole and no other is being made: then it can be copied."""
        self._answers().nth(number - 1).locator("button").first.wait_for()
        self.page.locator("#stop-button").wait_for(state="detached")
        self.page.locator("#chat-submit").wait_for()

    def _answers(self) -> Any:
        remarks = ":not(:has(#step-greeting)):not(:has([id^=step-model-])):not(:has([id^=step-problem-]))"
        return self.page.locator(f'[data-step-type="assistant_message"]{remarks}')

    def conversations(self) -> Any:
        """The entries of the list."""
        return self.page.locator('#thread-history a[href^="/chat/thread/"]')

    def open_conversation(self, name: str) -> None:
        """Click a conversation of the list."""
        self.conversations().filter(has_text=name).first.click()

    def menu(self, name: str, item: re.Pattern[str] | str) -> None:
        """Choose from the menu of a conversation."""
        entry = self.conversations().filter(has_text=name).first
        entry.hover()
        entry.locator("button[aria-haspopup=menu], #thread-options").last.click()
        self.page.get_by_role("menuitem", name=item).click()

    def picture(self, name: str) -> None:
        """A picture of the page."""
        self.page.mouse.move(0, 0)
        self.page.screenshot(path=self.images / f"{name}.png", animations="disabled")


@contextmanager
def browse(executable: str, url: str, directory: Path, images: Path, *, language: str = "en-US") -> Iterator[Browser]:
    """A new browser with a profile of its own."""
    with sync_playwright() as playwright:
        context = playwright.chromium.launch_persistent_context(
            directory,
            executable_path=executable,
            args=_ARGUMENTS,
            locale=language,
            viewport={"width": 1200, "height": 760},
            color_scheme="light",
        )
        try:
            yield Browser(context, url, images)
        finally:
            context.close()


Open = Callable[..., AbstractContextManager[Browser]]
"""``with browser(page, language=…, name=…, known=…) as chat``: see the fixture ``browser``."""
