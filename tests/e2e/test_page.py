"""The page in a real browser: the story of the squirrel, and everything that a user can press."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import pytest
from playwright.sync_api import expect
from tests.e2e.browser import Open
from tests.service.served import Page, scripted_page

from daram.llm import weights
from daram.settings import Settings
from daram.ui.strings import ENGLISH, KOREAN, Words

pytestmark = pytest.mark.e2e


class Story(NamedTuple):
    """What is said, in one language, and the word that the answer must hold."""

    language: str
    words: Words
    told: str
    asked: str
    name: str


STORIES = [
    Story(
        "en-US",
        ENGLISH,
        "From now on a squirrel will be called a tuna.",
        "What is the squirrel called?",
        "tuna",
    ),
    Story("ko-KR", KOREAN, "앞으로 다람쥐를 다랑어라고 부를게.", "내가 다람쥐를 뭐라고 부르지?", "다랑어"),
]


@pytest.fixture
def local_page(tmp_path: Path, outside_environment: Mapping[str, str]) -> Iterator[Page]:
    """The page on the real local model, greedy."""
    settings = Settings.from_env(outside_environment)
    path = settings.local_model or weights.find(settings.data)
    if path is None:
        pytest.fail(
            f"the weights of the local model are not in {settings.data}: fetch them with `daram model get`, or set "
            "DARAM_LOCAL_MODEL to a GGUF file",
            pytrace=False,
        )
    chosen = {"DARAM_MODEL": "local", "DARAM_LOCAL_MODEL": str(path), "DARAM_TEMPERATURE": "0"}
    with Page(tmp_path / "data", tmp_path, **chosen) as page:
        yield page


def tell_the_story(story: Story, page: Page, browser: Open, picture: str = "") -> None:
    """Tell it, kill -9 the server, start it, find the conversation in the list, open it, ask."""
    with browser(page, language=story.language) as chat:
        chat.open()
        expect(chat.page.locator("#step-greeting")).to_have_text(story.words.greeting)
        expect(chat.conversations()).to_have_count(0)
        chat.say(story.told)
        chat.finished()
        expect(chat.answer(1)).not_to_be_empty()
        expect(chat.conversations()).to_have_count(1)
    page.kill()
    page.start()
    with browser(page, language=story.language, name="another-profile") as chat:
        chat.open()
        expect(chat.conversations()).to_have_count(1)
        chat.conversations().first.click()
        expect(chat.page.locator('[data-step-type="user_message"]')).to_have_text(story.told)
        chat.say(story.asked)
        chat.finished(2)
        expect(chat.answer(2)).to_contain_text(re.compile(story.name, re.IGNORECASE))
        expect(chat.page.get_by_text(story.words.incomplete)).to_have_count(0)
        if picture:
            chat.picture(f"{picture}-{story.language[:2]}")
    assert page.strangers() == []


@pytest.mark.parametrize("story", STORIES, ids=[story.language for story in STORIES])
def test_the_story_with_a_scripted_model(story: Story, tmp_path: Path, browser: Open) -> None:
    with scripted_page(tmp_path, delay=0.02) as page:
        tell_the_story(story, page, browser)


@pytest.mark.parametrize("story", STORIES, ids=[story.language for story in STORIES])
def test_the_story_with_the_local_model(story: Story, local_page: Page, browser: Open) -> None:
    tell_the_story(story, local_page, browser, "after-the-restart")


# --- everything that can be pressed ---


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with scripted_page(tmp_path_factory.mktemp("page"), delay=0.02) as running:
        yield running


def test_markdown_code_and_pictures_ask_nobody_else(page: Page, browser: Open) -> None:
    with browser(page) as chat:
        chat.open()
        chat.say(
            "[[say **bold** `code` $x^2$ $$\\int_0^1 x dx$$ ![a](https://evil.example/a.png) <b>raw</b> [l](https://evil.example)]]"
        )
        answer = chat.answer(1)
        expect(answer.locator("span.font-bold")).to_have_text("bold")
        expect(answer.locator("code")).to_have_text("code")
        expect(answer).to_contain_text("$x^2$")
        expect(answer).to_contain_text("<b>raw</b>")
        chat.finished()
        # The picture of another site is refused before it is asked for: that the browser says so is what we want.
        chat.complaints[:] = [text for text in chat.complaints if "Content Security Policy" not in text]
        chat.asked[:] = [url for url in chat.asked if not url.startswith("https://evil.example/a.png")]
        assert chat.page.evaluate("document.querySelectorAll('img[src*=evil]')[0].naturalWidth") == 0


def test_stop_keeps_what_was_said(page: Page, browser: Open) -> None:
    with browser(page, language="ko-KR") as chat:
        chat.open()
        chat.say("[[delay 0.1]] [[tokens 9000]]")
        expect(chat.answer(1)).to_contain_text("word5")
        chat.page.locator("#stop-button").click()
        expect(chat.answer(1)).to_contain_text(KOREAN.cancelled)
        chat.finished()
        chat.reload()
        expect(chat.answer(1)).to_contain_text("word5")
        expect(chat.answer(1)).to_contain_text(KOREAN.cancelled)


def test_an_edit_goes_on_from_the_new_message(page: Page, browser: Open) -> None:
    with browser(page) as chat:
        chat.open()
        chat.say("[[say the first answer]]")
        expect(chat.answer(1)).to_have_text("the first answer")
        chat.finished()
        chat.say("[[say the second answer]]")
        expect(chat.answer(2)).to_have_text("the second answer")
        chat.finished(2)
        for round, said in enumerate(["[[say edited once]]", "[[say edited twice]]"], 1):
            chat.page.locator('[data-step-type="user_message"]').first.hover()
            chat.page.locator("button.edit-message").first.click()
            chat.page.locator("#edit-chat-input").fill(said)
            chat.page.locator("button.confirm-edit").click()
            expect(chat.answer(1)).to_have_text(f"edited {('once', 'twice')[round - 1]}")
            chat.finished()
            expect(chat.page.locator('[data-step-type="user_message"]')).to_have_text([said])
        chat.reload()
        expect(chat.page.locator('[data-step-type="user_message"]')).to_have_text([said])
        expect(chat.answer(1)).to_have_text("edited twice")


def test_the_list_is_searched_renamed_and_deleted_from(page: Page, browser: Open) -> None:
    with browser(page) as chat:
        for title in ("Oak and beech", "도토리 이야기"):
            chat.open()
            chat.say(f"다람쥐 [[title {title}]] [[say {title}]]")  # Korean, so that a title may be Korean
            expect(chat.answer(1)).to_have_text(title)
            chat.finished()
            expect(chat.conversations().filter(has_text=re.compile(f"^{title}$"))).to_have_count(1)  # the model's title
        chat.menu("Oak and beech", "Rename")
        chat.page.locator("#name").fill("A wood of my own")
        chat.page.get_by_role("button", name="Confirm").click()
        expect(chat.conversations().filter(has_text="A wood of my own")).to_have_count(1)

        chat.page.locator("#search-chats-button").click()
        chat.page.get_by_placeholder("Search by title").fill("도토리")
        expect(chat.page.get_by_role("option")).to_have_text(["도토리 이야기"])
        chat.page.get_by_placeholder("Search by title").fill("wood OWN")
        expect(chat.page.get_by_role("option")).to_have_text(["A wood of my own"])
        chat.page.get_by_role("option").click()
        expect(chat.answer(1)).to_have_text("Oak and beech")

        chat.menu("A wood of my own", "Delete")
        chat.page.get_by_role("button", name="Confirm").click()
        expect(chat.conversations().filter(has_text="A wood of my own")).to_have_count(0)
        chat.open()
        expect(chat.conversations().filter(has_text="도토리 이야기")).to_have_count(1)
        expect(chat.conversations().filter(has_text="A wood of my own")).to_have_count(0)


def test_a_reload_and_a_second_tab_in_mid_answer_show_it_going_on(page: Page, browser: Open) -> None:
    with browser(page) as chat:
        chat.open()
        chat.say("[[delay 0.1]] [[tokens 9000]]")  # longer than any of this takes
        expect(chat.answer(1)).to_contain_text("word10")
        chat.page.wait_for_url("**/thread/*")
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
            expect(tab.answer(1)).to_contain_text(ENGLISH.cancelled)
        assert chat.answer(1).inner_text() == other.answer(1).inner_text()
        words = re.findall(r"word(\d+)", chat.answer(1).inner_text())
        assert words == [str(number) for number in range(1, len(words) + 1)]  # none lost, none twice


def test_a_conversation_appears_at_every_reload(page: Page, browser: Open) -> None:
    """Chainlit's page connects twice when it is loaded on a conversation; the wrong one of the two must never stay."""
    with browser(page) as chat:
        chat.open()
        chat.say("[[say still here]]")
        chat.finished()
        chat.page.wait_for_url("**/thread/*")
        for _ in range(15):
            chat.reload()
            expect(chat.answer(1)).to_have_text("still here")


def test_a_new_conversation_begins_with_its_first_message(page: Page, browser: Open) -> None:
    with browser(page) as chat:
        chat.open()
        before = chat.conversations().count()
        chat.say("[[say hello]]")
        chat.finished()
        expect(chat.conversations()).to_have_count(before + 1)
        chat.page.locator("#new-chat-button").first.click()
        expect(chat.page.locator("#step-greeting")).to_have_text(ENGLISH.greeting)
        expect(chat.conversations()).to_have_count(before + 1)
        chat.say("[[say hello again]]")
        expect(chat.answer(1)).to_have_text("hello again")
        expect(chat.conversations()).to_have_count(before + 2)


def test_a_half_finished_answer_is_shown_as_such_after_a_crash(tmp_path: Path, browser: Open) -> None:
    with scripted_page(tmp_path, DARAM_TITLES="off") as page, browser(page, language="ko-KR") as chat:
        chat.open()
        chat.say("[[delay 0.1]] [[tokens 9000]]")
        expect(chat.answer(1)).to_contain_text("word40")
        page.kill()
        page.start()
        # The tab was open all the time: it comes back by itself.
        expect(chat.answer(1)).to_contain_text(KOREAN.incomplete)
        expect(chat.answer(1)).to_contain_text("word1 word2")
        chat.page.get_by_role("button", name=KOREAN.retry).click()
        expect(chat.page.locator("#stop-button")).to_be_visible()
        expect(chat.page.locator('[data-step-type="user_message"]')).to_have_count(1)
        chat.page.locator("#stop-button").click()
        chat.finished()


def test_an_error_is_told_and_can_be_tried_again(tmp_path: Path, browser: Open) -> None:
    missing = {"DARAM_MODEL": "local", "DARAM_LOCAL_MODEL": str(tmp_path / "none.gguf")}
    with Page(tmp_path / "data", tmp_path, **missing) as page, browser(page) as chat:
        chat.open()
        expect(chat.page.locator(".message-content").nth(1)).to_contain_text("not ready yet")
        chat.say("Are you there?")
        expect(chat.page.get_by_text(ENGLISH.problems["model_unavailable"])).to_be_visible()
        chat.page.get_by_role("button", name=ENGLISH.retry).click()
        expect(chat.page.get_by_role("button", name=ENGLISH.retry)).to_have_count(1)
        expect(chat.page.locator('[data-step-type="user_message"]')).to_have_count(1)
