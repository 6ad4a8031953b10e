"""Documents on the page: files dropped into a conversation, collections to answer from, citations that open."""

from __future__ import annotations

import http.client
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.service.served import Page, scripted_page
from tests.service.tab import Tab

import daram
from daram.chat.grounding import NOT_SAID
from daram.ui.strings import ENGLISH, KOREAN, Words

LEAVE = "# Leave\n\nEmployees earn two days of paid leave for each month worked.\n"
FOOD = "# 식당\n\n식당은 평일 오전 11시 30분부터 오후 2시까지 연다. 금요일에는 비빔밥이 나온다.\n"
MARKDOWN = "text/markdown"
LARGEST = 33_000_000  # bytes of a file, where a request may have 32 MiB


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with scripted_page(tmp_path_factory.mktemp("documents"), DARAM_UPLOAD_LIMIT=str(32 << 20)) as running:
        yield running


async def opened(tab: Tab, element: dict[str, object]) -> str:
    """The passage that a click on a citation shows."""
    answer = await tab.http.get(str(element["url"]).removeprefix("/chat"))
    assert answer.status_code == 200, answer.text
    return answer.text


@pytest.mark.parametrize(
    ("language", "words", "name", "text", "question", "place"),
    [
        ("en-US", ENGLISH, "leave.md", LEAVE, "How many days of paid leave do employees earn?", "leave.md, Leave"),
        ("ko-KR", KOREAN, "식당.md", FOOD, "금요일에는 식당에서 무엇이 나오나요?", "식당.md, 식당"),
    ],
)
async def test_a_file_that_is_dropped_is_read_asked_cited_and_opened(
    page: Page, language: str, words: Words, name: str, text: str, question: str, place: str
) -> None:
    async with Tab(page, language=language) as tab:
        file = await tab.drop(name, text.encode(), MARKDOWN)
        await tab.say(question, file)
        answer = await tab.until_answered()
        assert answer.splitlines()[-1] == f"{words.sources}: [1] {place}"
        await tab.until(lambda tab: words.read.format(name=name) in tab.shown)
        (element,) = tab.elements.values()
        assert (element["name"], element["display"]) == ("[1]", "side")
        passage = await opened(tab, element)
        assert passage.startswith(f"**{place}**\n\n")
        assert text.split("\n")[2] in passage
        # What the file does not say is not made up.
        nothing = {"en-US": "What is the capital of Mongolia?", "ko-KR": "몽골의 수도는 어디인가요?"}[language]
        await tab.say(nothing)
        assert await tab.until_answered(2) == NOT_SAID[words.language]
        thread = tab.thread
    async with Tab(page, thread=thread, language=language) as again:  # a reload shows them as they were
        await again.until(lambda tab: len(tab.elements) == 1)
        assert again.elements == {element["id"]: element}
        assert again.shown[:1] == [words.files.format(names=name)]
        assert again.shown[2] == answer
        await again.http.request("DELETE", "/project/thread", json={"threadId": thread})
        gone = await again.http.get(str(element["url"]).removeprefix("/chat"))
        assert gone.status_code == 404
    async with daram.open(f"sqlite:///{page.data / 'daram.db'}") as memory:  # and it went with its conversation
        left = await daram.Documents(memory).search("local", question, f"conversation:{thread}")
        assert left.passages == []


async def test_a_file_alone_is_read_and_can_be_asked_about_later(page: Page) -> None:
    async with Tab(page) as tab:
        await tab.say("", await tab.drop("leave.md", LEAVE.encode(), MARKDOWN))
        await tab.until(lambda tab: ENGLISH.read.format(name="leave.md") in tab.shown and not tab.loading)
        await tab.say("How many days of paid leave do employees earn?")
        assert "[1] leave.md" in await tab.until_answered()


async def test_a_file_dropped_into_a_conversation_leaves_what_was_said_in_use(page: Page) -> None:
    async with Tab(page) as tab:
        await tab.say("From now on call a squirrel tuna.")
        await tab.until_answered()
        await tab.say("", await tab.drop("leave.md", LEAVE.encode(), MARKDOWN))
        await tab.until(lambda tab: ENGLISH.read.format(name="leave.md") in tab.shown)
        await tab.say("What do you call a squirrel?")
        assert "tuna" in await tab.until_answered(2)


@pytest.mark.parametrize(("language", "words"), [("en", ENGLISH), ("ko", KOREAN)])
async def test_a_file_that_cannot_be_read_is_explained(page: Page, language: str, words: Words) -> None:
    async with Tab(page, language=language) as tab:
        await tab.say("What is this?", await tab.drop("a.exe", b"MZ", "application/x-msdownload"))
        await tab.until(lambda tab: any(words.problems["unsupported_document"] in said for said in tab.shown))
        await tab.until(lambda tab: not tab.loading)
        assert len(tab.shown) == 3  # the greeting, the message, the problem: no answer from nothing
        await tab.say("", await tab.drop("broken.pdf", b"%PDF-1.7 no more", "application/pdf"))
        await tab.until(lambda tab: any(words.problems["document"] in said for said in tab.shown))


async def test_a_conversation_is_answered_from_the_collections_that_are_chosen(page: Page, tmp_path: Path) -> None:
    file = tmp_path / "leave.md"
    file.write_text(LEAVE)
    page.run("docs", "add", str(file), "--official", "--title-no", "7", "--title", "Handbook")
    page.run("docs", "add", str(file), "--collection", "mine")
    page.run("docs", "add", str(file), "--collection", "theirs", "--owner", "somebody-else")
    async with Tab(page) as tab:
        await tab.until(lambda tab: tab.settings)
        (setting,) = tab.settings
        assert setting["label"] == ENGLISH.answer_from
        items = {item["label"]: item["value"] for item in setting["items"]}
        assert set(items) == {f"Handbook ({ENGLISH.official})", "mine"}
        before = await tab.list()
        await tab.choose(documents=[items[f"Handbook ({ENGLISH.official})"], "somebody-else/theirs"])
        assert await tab.list() == before  # a choice alone begins nothing
        await tab.say("How many days of paid leave do employees earn?")
        assert (await tab.until_answered()).endswith(f"{ENGLISH.sources}: [1] leave.md, Leave")
        await tab.choose(documents=[])
        await tab.say("How many days of paid leave do employees earn?")
        assert ENGLISH.sources not in await tab.until_answered(2)
        await tab.choose(documents=[items["mine"]])
        thread = tab.thread
        await tab.say("What is the capital of Mongolia?")
        assert await tab.until_answered(3) == NOT_SAID["en"]
    async with Tab(page, thread=thread) as again:
        await again.until(lambda tab: tab.settings)
        assert again.settings[0]["initial"] == [items["mine"]]


async def test_a_passage_that_was_changed_since_is_shown_as_it_was_cited(page: Page, tmp_path: Path) -> None:
    file = tmp_path / "rules.md"
    file.write_text("# Doors\n\nThe gate of the courtyard closes at nine in the evening.\n")
    page.run("docs", "add", str(file), "--collection", "rules")
    async with Tab(page) as tab:
        await tab.choose(documents=["local/rules"])
        await tab.say("When does the gate of the courtyard close?")
        await tab.until_answered()
        await tab.until(lambda tab: tab.elements)
        (element,) = tab.elements.values()
        assert ENGLISH.changed_since not in await opened(tab, element)
        file.write_text("# Doors\n\nThe gate of the courtyard closes at ten in the evening.\n")
        page.run("docs", "add", str(file), "--collection", "rules")
        passage = await opened(tab, element)
        assert ENGLISH.changed_since in passage
        assert "at nine" in passage
        for path in (
            "/citation/none/none/1",
            f"/citation/{tab.thread}/none/1",
            element["url"].removeprefix("/chat")[:-1] + "9",
        ):
            assert (await tab.http.get(path)).status_code == 404


# --- large files ---


def peak(page: Page) -> int:
    """How much memory the server had at most, in bytes."""
    assert page.process is not None
    status = Path(f"/proc/{page.process.pid}/status").read_text()
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    assert found is not None
    return int(found[1]) << 10


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
async def test_a_large_file_is_taken_without_being_held_in_memory(page: Page) -> None:
    kept = page.data / "page" / ".files"
    async with Tab(page) as tab:
        file = await tab.drop("leave.md", b"\n" * (9 << 20) + LEAVE.encode(), MARKDOWN)
        await tab.say("How many days of paid leave do employees earn?", file)
        assert "[1] leave.md, Leave" in await tab.until_answered()
        before = peak(page)  # what the first one costs is no matter of its size
        file = await tab.drop("large.md", b"\n" * (24 << 20) + FOOD.encode(), MARKDOWN)
        (stored,) = (kept / tab.session).glob("*")
        assert (stored.stem, stored.stat().st_size) == (file, (24 << 20) + len(FOOD.encode()))
        await tab.say("", file)
        await tab.until(lambda tab: any(said.startswith("Reading large.md") for said in tab.shown))
        assert peak(page) - before < 12 << 20
        assert not stored.exists()
        await tab.http.request("DELETE", "/project/thread", json={"threadId": tab.thread})  # nobody waits for it


@pytest.mark.parametrize(("language", "words"), [("en-US", ENGLISH), ("ko-KR", KOREAN)])
async def test_a_file_that_is_too_large_is_refused_in_words(page: Page, language: str, words: Words) -> None:
    said = words.file_too_large(LARGEST)
    assert "33 MB" in said
    kept = page.data / "page" / ".files"
    async with Tab(page, language=language) as tab:
        where, spoken = {"session_id": tab.session}, {"accept-language": language}
        file = {"file": ("a.txt", b"x" * (LARGEST + 1), "text/plain")}
        refused = await tab.http.post("/project/file", params=where, headers=spoken, files=file)
        assert (refused.status_code, refused.json()) == (413, {"detail": said})
        assert list((kept / tab.session).glob("*")) == []
        # Before it is sent, where the request alone says so; and nothing of the kind to who is not logged in.
        cookies = "; ".join(f"{name}={value}" for name, value in page.cookies.items())
        for cookie, detail in ((cookies, said), ("", None)):
            web = http.client.HTTPConnection(page.url.removeprefix("http://"), timeout=60)
            web.putrequest("POST", f"/chat/project/file?session_id={tab.session}")
            for name, value in {
                **spoken,
                "cookie": cookie,
                "content-type": "multipart/form-data; boundary=x",
                "content-length": "40000000",
            }.items():
                web.putheader(name, value)
            web.endheaders()
            answer = web.getresponse()
            assert (answer.status, json.loads(answer.read()).get("detail")) == (413, detail)
            web.close()
        # The page knows it before.
        assert (await tab.http.get("/project/settings")).json()["features"]["spontaneous_file_upload"][
            "max_size_mb"
        ] == 33
        script = re.search(r'src="/chat(/assets/index-[^"]+)"', (await tab.http.get("/")).text)
        assert script is not None
        code = (await tab.http.get(script[1])).text
        assert f"maxSize:{LARGEST}" in code
        assert json.dumps(said) in code


async def test_what_is_no_upload_into_this_tab_is_refused(page: Page) -> None:
    file = {"file": ("a.txt", b"x", "text/plain")}
    async with Tab(page) as tab:
        for session, sent, status in (
            ("none", file, 404),
            ("../public", file, 404),
            (tab.session, {"other": ("a.txt", b"x", "text/plain")}, 400),
            (tab.session, {"file": ("", b"x", "text/plain")}, 400),
        ):
            answer = await tab.http.post("/project/file", params={"session_id": session}, files=sent)
            assert answer.status_code == status, answer.text
            assert answer.json()["detail"]
        broken = await tab.http.post(
            "/project/file",
            params={"session_id": tab.session},
            headers={"content-type": "multipart/form-data; boundary=x"},
            content=b"no form at all",
        )
        assert broken.status_code == 400


def test_the_administration_takes_large_files_too(page: Page) -> None:
    shelf = "/admin/conversations/storedcollection"
    with httpx.Client(base_url=page.url, cookies=page.cookies, timeout=60, trust_env=False) as web:

        def post(to: str, **sent: Any) -> httpx.Response:
            token = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', web.get(f"{shelf}/").text)
            assert token is not None
            data = {"csrfmiddlewaretoken": token[1], "owner": "local", "id": "large"}
            headers = {"origin": page.url}
            return web.post(f"{shelf}/{to}/", data=data, headers=headers, follow_redirects=True, **sent)

        shown = post("add", files={"file": ("large.md", b"\n" * (9 << 20) + LEAVE.encode(), MARKDOWN)})
        assert shown.status_code == 200
        assert "large.md" in shown.text
        assert post("delete").status_code == 200
