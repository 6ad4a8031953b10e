"""Documents in a real browser, with the local models: two PDFs, a question in each language, the passage that opens."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

import pytest
from playwright.sync_api import expect
from reportlab.pdfbase import pdfmetrics
from reportlab.pdfbase.cidfonts import UnicodeCIDFont
from reportlab.pdfgen import canvas
from tests.e2e.browser import Open
from tests.service.served import Page

from daram.chat.grounding import NOT_SAID
from daram.ui.strings import ENGLISH, KOREAN, Words

pytestmark = pytest.mark.e2e


class Story(NamedTuple):
    """A document in one language: its pages, what is asked, which page says it, the words that the answer holds; what
    they do not say; and a question that another page answers."""

    language: str
    words: Words
    name: str
    pages: list[list[str]]
    asked: str
    page: int
    said: str
    nothing: str
    again: str


STORIES = [
    Story(
        "en-US",
        ENGLISH,
        "handbook.pdf",
        [
            ["The canteen", "The canteen is open from 11:30 to 14:00 on working days."],
            ["Annual leave", "Employees earn two days of paid leave for each month worked."],
            ["Travel", "Journeys by train are booked in the second class."],
        ],
        "How many days of paid leave do employees earn for each month?",
        2,
        "two days",
        "What is the capital of Mongolia?",
        "When is the canteen open on working days?",
    ),
    Story(
        "ko-KR",
        KOREAN,
        "사내규정.pdf",
        [
            ["식당", "식당은 평일 오전 열한 시 삼십 분부터 오후 두 시까지 연다."],
            ["휴가", "직원은 한 달을 일할 때마다 유급 휴가를 이틀 받는다."],
            ["출장", "기차로 출장을 갈 때에는 일반실을 예약한다."],
        ],
        "직원은 한 달에 유급 휴가를 며칠 받나요?",
        2,
        "이틀",
        "몽골의 수도는 어디인가요?",
        "식당은 평일 오전 몇 시에 여나요?",
    ),
]


def pdf(path: Path, pages: list[list[str]]) -> Path:
    """A PDF with text, in a font that every reader of PDF has for Korean too."""
    pdfmetrics.registerFont(UnicodeCIDFont("HYSMyeongJo-Medium"))
    drawing = canvas.Canvas(str(path))
    for lines in pages:
        drawing.setFont("HYSMyeongJo-Medium", 13)
        for number, line in enumerate(lines):
            drawing.drawString(72, 760 - 24 * number, line)
        drawing.showPage()
    drawing.save()
    return path


@pytest.mark.parametrize("story", STORIES, ids=[story.language for story in STORIES])
def test_a_pdf_is_dropped_asked_cited_and_opened(story: Story, local_page: Page, browser: Open, tmp_path: Path) -> None:
    words = story.words
    with browser(local_page, language=story.language) as chat:
        chat.open()
        chat.page.locator('input[type="file"]').first.set_input_files(pdf(tmp_path / story.name, story.pages))
        expect(chat.page.get_by_text(story.name)).to_be_visible()
        chat.say(story.asked)
        expect(chat.page.get_by_text(words.read.format(name=story.name))).to_be_visible()
        chat.finished(1)
        expect(chat.answer(1)).to_contain_text(story.said)
        place = f"[1] {story.name}, {words.page.format(number=story.page)}"
        expect(chat.answer(1)).to_contain_text(f"{words.sources}: {place}")
        # The number is a link, and opens the passage beside the page: when it is clicked, not before.
        panel = chat.page.locator("#side-view-content")
        expect(panel).to_have_count(0)
        chat.answer(1).get_by_text("[1]", exact=True).last.click()
        expect(panel).to_contain_text(story.pages[story.page - 1][1])
        expect(panel).to_contain_text(words.page.format(number=story.page))
        chat.picture(f"documents-{story.language[:2]}")
        chat.say(story.nothing)
        expect(chat.answer(2)).to_have_text(NOT_SAID[words.language])
        # What another answer cites does not push itself beside it.
        chat.say(story.again)
        chat.finished(3)
        expect(chat.answer(3)).to_contain_text(f"{words.sources}: ")
        expect(panel.get_by_text(f"{story.name}, ")).to_have_count(1)
        # All of it is there after a reload.
        chat.reload()
        expect(chat.answer(1)).to_contain_text(f"{words.sources}: {place}")
        expect(panel).to_have_count(0)
        chat.answer(1).get_by_text("[1]", exact=True).last.click()
        expect(chat.page.locator("#side-view-content")).to_contain_text(re.compile(story.pages[story.page - 1][1]))
    assert local_page.strangers() == []
