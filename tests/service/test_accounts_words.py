"""What the pages say: in English and Korean, all of it, by the language of the browser."""

from __future__ import annotations

import gettext
import re
from pathlib import Path

import pytest
from tests.service.people import make_person, service_settings
from tests.service.test_accounts import PASSWORD, Browser, text

DARAM = Path(__file__).resolve().parents[2] / "src" / "daram"
# What speaks, and how many texts it has at least.
ROOMS = {"service": (DARAM / "service", 80), "adapters.django": (DARAM / "adapters" / "django", 30)}


@pytest.fixture(autouse=True)
def _service(tmp_path_factory: pytest.TempPathFactory) -> None:
    service_settings(tmp_path_factory.mktemp("data"))


@pytest.fixture(params=ROOMS)
def room(request: pytest.FixtureRequest) -> tuple[Path, int]:
    return ROOMS[request.param]


def catalog_of(room: Path) -> Path:
    return room / "locale" / "ko" / "LC_MESSAGES"


def said_in_korean(room: Path) -> dict[str, str]:
    with (catalog_of(room) / "django.mo").open("rb") as file:
        catalog = gettext.GNUTranslations(file)._catalog  # type: ignore[attr-defined]  # it has no public listing
    return {key: value for key, value in catalog.items() if key}


def test_everything_that_is_said_is_said_in_korean_too(room: tuple[Path, int]) -> None:
    folder, least = room
    asked = set()
    for file in folder.rglob("*.html"):
        found = file.read_text("utf-8")
        asked |= set(re.findall(r'{% translate "([^"]+)" %}', found))
        blocks = re.findall(r"{% blocktranslate [^%]*%}(.*?){% endblocktranslate %}", found)
        asked |= {re.sub(r"{{ (\w+) }}", r"%(\1)s", block) for block in blocks}
    for file in folder.rglob("*.py"):
        asked |= set(re.findall(r'\b_\(\s*"([^"]+)"\s*\)', file.read_text("utf-8")))
    known = said_in_korean(folder)
    assert len(asked) > least
    assert asked == set(known), (asked - set(known), set(known) - asked)
    assert not [key for key, words in known.items() if not re.search("[가-힣]", words)]


def test_the_compiled_catalog_is_the_one_that_people_write(room: tuple[Path, int]) -> None:
    written = (catalog_of(room[0]) / "django.po").read_text("utf-8")
    pairs = re.findall(r'^msgid "(.+)"\nmsgstr "(.+)"$', written, re.MULTILINE)
    assert dict(pairs) == said_in_korean(room[0])


def test_no_placeholder_is_lost_in_translation(room: tuple[Path, int]) -> None:
    for key, words in said_in_korean(room[0]).items():
        assert set(re.findall(r"%\(\w+\)\w|</?\w+>", key)) == set(re.findall(r"%\(\w+\)\w|</?\w+>", words)), key


@pytest.mark.parametrize(
    ("language", "shown", "heading"),
    [
        ("ko-KR,ko;q=0.9,en;q=0.8", "ko", "로그인"),
        ("ko", "ko", "로그인"),
        ("en-US,en;q=0.9", "en", "Log in"),
        ("de,fr;q=0.8", "en", "Log in"),
        ("de,ko;q=0.5", "ko", "로그인"),
        ("", "en", "Log in"),
        ("x" * 3000, "en", "Log in"),
    ],
)
def test_the_browser_chooses_the_language(language: str, shown: str, heading: str) -> None:
    page = Browser(language).get("/login").content.decode()
    assert f'<html lang="{shown}">' in page and f"<h1>{heading}</h1>" in page


def test_a_korean_reads_korean_on_every_page() -> None:
    who = make_person(password=PASSWORD, is_staff=True, is_superuser=True)
    browser = Browser("ko")
    assert "맞지 않습니다" in text(browser.log_in(who.user.username, "wrong"))
    browser.log_in(who.user.username)
    for path, words in (
        ("/account/", "비밀번호 변경"),
        ("/account/keys", "키 만들기"),
        ("/account/password", "현재 비밀번호"),
        ("/logout", "로그아웃할까요?"),
        ("/login/link?token=x", "사용할 수 없는 링크"),
        ("/missing", "찾을 수 없음"),
        ("/admin/", "진행 중인 답변"),
        ("/admin/accounts/user/", "사용자 이름"),
    ):
        page = text(browser.get(path))
        assert words in page, path
        if not path.startswith("/admin"):
            said = re.sub(r"<[^>]*>|Daram|API|UTC|daram-\w+|read|write|" + re.escape(who.user.username), " ", page)
            assert not re.findall(r"[A-Za-z]{3,}", said), path


def test_every_field_has_a_label_and_every_page_a_title_and_a_heading() -> None:
    who = make_person(password=PASSWORD)
    browser = Browser()
    browser.log_in(who.user.username, "wrong")
    browser.log_in(who.user.username)
    for path in ("/account/", "/account/keys", "/account/password", "/logout", "/missing"):
        page = browser.get(path).content.decode()
        assert re.search(r"<title>[^<]+ · Daram</title>", page), path
        assert len(re.findall("<h1>", page)) == 1, path
        for field in re.findall(r"<(?:input|select)\b[^>]*>", page):
            if 'type="hidden"' in field or " hidden" in field:
                continue
            found = re.search(r'id="([^"]+)"', field)
            assert found is not None and f'<label for="{found[1]}">' in page, field
        for named in re.findall(r'aria-describedby="([^"]+)"', page):
            assert all(f'id="{each}"' in page for each in named.split()), named


def test_a_wrong_login_is_announced_to_who_cannot_see_it() -> None:
    page = Browser().log_in("nobody", "wrong").content.decode()
    assert re.search(r'<p class="note bad" role="alert">[^<]+</p>', page)
