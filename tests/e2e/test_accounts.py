"""Accounts in a real browser: who logs in sees their own conversations, and who logs out sees nothing."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import expect
from tests.e2e.browser import Open
from tests.service.served import Page, scripted_page

pytestmark = pytest.mark.e2e

PASSWORD = "an oak of my own 7"


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with scripted_page(tmp_path_factory.mktemp("accounts"), delay=0.02) as running:
        for name in ("ann", "ben"):
            running.run("user", "add", name, "--password-stdin", stdin=PASSWORD + "\n")
        yield running


def test_the_printed_link_logs_in(tmp_path: Path, browser: Open) -> None:
    with scripted_page(tmp_path) as own, browser(own, known=False) as chat:
        chat.page.goto(own.url)
        expect(chat.page).to_have_url(f"{own.url}/login?next=/chat/")
        chat.log_in_by_link(own.link)
        expect(chat.page).to_have_url(f"{own.url}/chat/")
        chat.say("[[say here you are]]")
        expect(chat.answer(1)).to_have_text("here you are")


def test_a_day_of_two_users(page: Page, browser: Open) -> None:
    """Log in, chat, reload in mid-answer, a second tab, log out; the next user sees nothing of it."""
    with browser(page, known=False, name="one") as chat:
        chat.log_in("ann", PASSWORD)
        chat.greeted()
        chat.say("[[title What ann hid]] [[delay 0.1]] [[tokens 9000]]")
        expect(chat.answer(1)).to_contain_text("word10")
        chat.page.wait_for_url("**/chat/thread/*")
        chat.reload()
        expect(chat.answer(1)).to_contain_text("word1 word2")
        other = chat.tab()
        other.open(chat.page.url.removeprefix(f"{chat.url}/chat"))
        for tab in (chat, other):
            seen = int(re.findall(r"word(\d+)", tab.answer(1).inner_text())[-1])
            expect(tab.answer(1)).to_contain_text(f"word{seen + 5}")
        chat.page.locator("#stop-button").click()
        for tab in (chat, other):
            tab.finished()
        address = chat.page.url
        expect(chat.conversations()).to_have_count(1)
        chat.log_out()
        expect(other.page.locator("[name=password]")).to_be_visible()  # the other tab has noticed
        chat.page.goto(address)
        expect(chat.page.locator("[name=password]")).to_be_visible()
        chat.forgive(401)

        chat.log_in("ben", PASSWORD)
        chat.greeted()
        expect(chat.conversations()).to_have_count(0)
        chat.page.goto(address)
        expect(chat.page.get_by_text("word1 word2")).to_have_count(0)
        chat.open()
        chat.say("[[say hello ben]]")
        expect(chat.answer(1)).to_have_text("hello ben")
        chat.finished()
        chat.log_out()

        chat.log_in("ann", PASSWORD)
        chat.greeted()
        expect(chat.conversations()).to_have_count(1)
        chat.conversations().first.click()
        expect(chat.answer(1)).to_contain_text("word1 word2")
        chat.forgive(401)


PICTURES = [
    ("en-US", "Log in", "mary", "Where did I hide the acorns? [[title Acorns]] [[say Under the old oak, you said.]]"),
    ("ko-KR", "로그인", "minji", "도토리를 어디에 숨겼지? [[title 도토리]] [[say 오래된 참나무 아래라고 하셨어요.]]"),
]


@pytest.mark.parametrize(("language", "heading", "name", "said"), PICTURES, ids=["en", "ko"])
def test_the_pages_in_two_languages(
    page: Page, browser: Open, language: str, heading: str, name: str, said: str
) -> None:
    short = language[:2]
    page.run("user", "add", name, "--password-stdin", stdin=PASSWORD + "\n")
    with browser(page, known=False, language=language) as chat:
        chat.page.goto(page.url)
        expect(chat.page.locator("h1")).to_have_text(heading)
        chat.picture(f"login-{short}")
        chat.log_in(name, PASSWORD)
        chat.greeted()
        chat.say(said)
        chat.finished()
        expect(chat.conversations().filter(has_text=re.compile("^(Acorns|도토리)$"))).to_have_count(1)
        chat.page.locator("#user-nav-button").click()
        chat.page.get_by_role("menuitem").last.wait_for()
        chat.picture(f"menu-{short}")
        chat.page.keyboard.press("Escape")
        chat.page.locator('a[href="/account/"]').click()
        expect(chat.page).to_have_url(f"{page.url}/account/")
        chat.page.goto(f"{page.url}/account/keys")
        chat.page.locator("main form").first.wait_for()
        chat.picture(f"keys-{short}")
