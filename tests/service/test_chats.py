"""``/api/chats/``: the second tutorial's contract, with its nine defects impossible."""

from __future__ import annotations

import concurrent.futures
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
from tests.service.live import Live, live_service, reading_here
from tests.service.people import Person, log_in, make_person
from tests.service.quoting import Quoting

import daram
from daram import ids
from daram.chat.grounding import NOT_SAID

LESSON = "Squirrels hide acorns before the winter and find most of them again."
GUIDE = b"# QuerySets\n\nA QuerySet is lazy: no database query runs until the QuerySet is evaluated.\n"


@pytest.fixture(scope="module")
def model() -> Quoting:
    return Quoting()


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, model: Quoting) -> Iterator[Live]:
    folder = tmp_path_factory.mktemp("chats")
    with reading_here(), live_service(folder, model=model, rate_limit=0, titles=False, embedder="off") as found:
        yield found


@pytest.fixture
def who() -> Person:
    return make_person("write")


@pytest.fixture
def web(service: Live, who: Person) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=service.url, headers=who.headers, timeout=120) as found:
        yield found


@pytest.fixture(scope="module")
def admin(service: Live) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=service.url, headers=make_person("admin", is_staff=True).headers, timeout=120) as found:
        yield found


@pytest.fixture(scope="module")
def official(service: Live, admin: httpx.Client) -> str:
    """The number of an official title, which has a document."""
    number = "t" + ids.uuid7()
    made = admin.post("/api/collections", json={"id": number, "owner": "official", "name": "Django"})
    assert made.status_code == 201, made.text
    upload(admin, f"official:{number}", "querysets.md", GUIDE)
    return number


@pytest.fixture
def lesson(admin: httpx.Client) -> dict[str, str]:
    """A category with one title."""
    category = "lessons-" + ids.uuid7()
    put = admin.put(f"/api/references/{category}/1", json={"title": "Squirrels", "text": LESSON, "owner": "official"})
    assert put.status_code == 200, put.text
    return {"category": category, "title_no": "1"}


def upload(web: httpx.Client, collection: str, name: str, data: bytes) -> dict[str, Any]:
    """A document of a collection, read."""
    path = f"/api/collections/{collection}/documents"
    added = web.post(path, files={"file": (name, data)})
    assert added.status_code == 201, added.text
    return read(web, f"{path}/{added.json()['id']}")


def read(web: httpx.Client, path: str) -> dict[str, Any]:
    while True:
        document: dict[str, Any] = web.get(path).json()
        if document["state"] not in ("waiting", "reading"):
            return document


def begin(web: httpx.Client, about: dict[str, Any], words: str) -> dict[str, Any]:
    answer = web.post("/api/chats/", json={**about, "user_input": words})
    assert answer.status_code == 201, answer.text
    done: dict[str, Any] = answer.json()
    return done


def go_on(web: httpx.Client, chat: str, words: str) -> httpx.Response:
    return web.post(f"/api/chats/{chat}/", json={"user_input": words})


def said(web: httpx.Client, chat: str) -> list[str]:
    found = web.get(f"/api/chats/{chat}/").json()["conversation"]
    return [entry.get("USER") or entry["AI"] for entry in found]


@contextmanager
def thinking(model: Quoting) -> Iterator[None]:
    """Within, the model says nothing."""
    model.thinks.clear()
    try:
        yield
    finally:
        model.thinks.set()


# --- the contract -----------------------------------------------------------------------------------------------------


def test_a_chat_about_official_documents(web: httpx.Client, official: str, model: Quoting) -> None:
    about = {"category": "OFFICIAL_DOCS", "title_no": official}
    first = begin(web, about, "When does a QuerySet run its database query?")
    assert first.keys() == {"id", "AI", "sources", "state"}
    assert (first["AI"], first["state"]) == ("The documents say so [1].", "answered")
    [source] = first["sources"]
    assert (source["n"], source["name"], source["heading"]) == (1, "querysets.md", ["QuerySets"])
    assert "until the QuerySet is evaluated" in model.asked[-1][-1].text
    opened = web.get(source["url"]).json()
    assert opened["document"]["name"] == "querysets.md"
    assert opened["data"][0]["text"] in GUIDE.decode()
    assert source["quote"] in opened["data"][0]["text"]

    second = go_on(web, first["id"], "Is a QuerySet lazy?")
    assert (second.status_code, second.json()["id"]) == (200, first["id"])
    prompts = len(model.asked)
    nothing = go_on(web, first["id"], "What is the capital of Mongolia?").json()
    assert (nothing["AI"], nothing["sources"]) == (NOT_SAID["en"], [])
    assert len(model.asked) == prompts  # nobody who could make it up was asked

    chat = web.get(f"/api/chats/{first['id']}/").json()
    assert (chat["category"], chat["title_no"]) == ("OFFICIAL_DOCS", official)
    assert [sorted(entry) for entry in chat["conversation"][:2]] == [
        ["USER", "id_user"],
        ["AI", "id_ai", "sources", "state"],
    ]
    assert chat["conversation"][1]["sources"] == first["sources"]
    assert [one["id"] for one in web.get("/api/chats/").json()["chats"]] == [first["id"]]


def test_a_citation_opens_the_passage_that_was_cited_or_says_that_it_was_replaced(
    web: httpx.Client, admin: httpx.Client, official: str
) -> None:
    upload(admin, f"official:{official}", "pages.md", b"# Pages\n\nA Paginator splits a long list into pages.\n")
    about = {"category": "OFFICIAL_DOCS", "title_no": official}
    [source] = begin(web, about, "What does a Paginator split into pages?")["sources"]
    opened = web.get(source["url"])
    assert (opened.status_code, opened.json()["document"]["revision"]) == (200, source["revision"])
    changed = b"# Pages\n\nAnother beginning.\n\n# Lists\n\nA Paginator splits a long list into pages.\n"
    upload(admin, f"official:{official}", "pages.md", changed)
    again = web.get(source["url"])
    assert (again.status_code, again.json()["error"]["code"]) == (409, "conflict")


def test_citations_of_others_are_left_alone(
    service: Live, web: httpx.Client, who: Person, lesson: dict[str, str]
) -> None:
    chat = begin(web, lesson, "What do squirrels hide?")["id"]
    elsewhere = daram.Part(type="citation", data={"doc": "d"})
    message = daram.assistant("It is said elsewhere.", parts=(elsewhere,))
    service.call(service.memory.append(who.owner, chat, [message]))
    said = web.get(f"/api/chats/{chat}/").json()["conversation"]
    assert said[-1]["sources"] == []


def test_a_chat_about_a_reference(web: httpx.Client, lesson: dict[str, str], model: Quoting) -> None:
    chat = begin(web, lesson, "What do squirrels hide?")
    assert LESSON in model.asked[-1][-1].text
    [source] = chat["sources"]
    assert (source["kind"], source["title"]) == ("reference", "Squirrels")
    assert web.get(source["url"]).json()["text"][source["start"] : source["end"]] == LESSON
    go_on(web, chat["id"], "And what do they find?")
    assert [message.text for message in model.asked[-1] if message.role == "assistant"]  # with the history


@pytest.mark.parametrize(
    ("about", "named"),
    [
        ({"category": "OFFICIAL_DOCS", "title_no": 404404}, "OFFICIAL_DOCS/404404"),
        ({"category": "nothing", "title_no": 1}, "nothing"),
        ({"category": "{category}", "title_no": 2}, "{category}/2"),
    ],
)
def test_what_is_not_there_is_named(
    web: httpx.Client, lesson: dict[str, str], about: dict[str, Any], named: str
) -> None:
    about = about | {"category": about["category"].format(**lesson)}
    answer = web.post("/api/chats/", json={**about, "user_input": "Hello"})
    assert answer.status_code == 404
    assert repr(named.format(**lesson)) in answer.json()["error"]["message"]
    assert web.get("/api/chats/").json()["chats"] == []  # nothing is left of the try


def test_a_first_question_that_is_too_long_leaves_no_chat(web: httpx.Client, lesson: dict[str, str]) -> None:
    for headers in ({}, {"idempotency-key": "k"}, {"idempotency-key": "k"}):
        answer = web.post("/api/chats/", json={**lesson, "user_input": "x" * (2 << 20)}, headers=headers)
        assert (answer.status_code, answer.json()["error"]["code"]) == (413, "too_large")
    assert web.get("/api/chats/").json()["chats"] == []


def test_an_unknown_chat_is_named(web: httpx.Client) -> None:
    for answer in (go_on(web, "conv_0", "Hello"), web.get("/api/chats/conv_0/"), web.delete("/api/chats/conv_0/")):
        assert (answer.status_code, answer.json()["error"]["message"]) == (404, "Chat with id 'conv_0' not found.")
    assert web.post("/api/chats/", json={"category": "x", "title_no": 1}).json()["error"]["param"] == "user_input"
    assert go_on(web, "conv_0", "  ").json()["error"]["param"] == "user_input"


def test_a_login_instead_of_a_key(service: Live, who: Person, official: str) -> None:
    about = {"category": "OFFICIAL_DOCS", "title_no": official, "user_input": "Is a QuerySet lazy?"}
    with httpx.Client(base_url=service.url, cookies=log_in(who), timeout=120) as browser:
        assert browser.post("/api/chats/", json=about).json()["error"]["code"] == "csrf_failed"
        token = {"X-CSRFToken": browser.get("/api/me").json()["csrf_token"]}
        chat = browser.post("/api/chats/", json=about, headers=token).json()
        assert browser.get(f"/api/chats/{chat['id']}/", headers=who.headers).status_code == 200


def test_a_stream(web: httpx.Client, lesson: dict[str, str]) -> None:
    accept = {"Accept": "text/event-stream"}
    answer = web.post("/api/chats/", json={**lesson, "user_input": "What do squirrels hide?"}, headers=accept)
    assert (answer.status_code, answer.headers["content-type"]) == (201, "text/event-stream; charset=utf-8")
    frames = parsed(answer.text)
    assert frames[0][0] == "created"
    assert frames[-1][0] == "done"
    done = frames[-1][1]
    assert "".join(data["AI"] for name, data in frames if name == "delta") == done["AI"]
    assert [source["title"] for source in done["sources"]] == ["Squirrels"]
    assert said(web, frames[0][1]["id"]) == ["What do squirrels hide?", done["AI"]]


def parsed(text: str) -> list[tuple[str, dict[str, Any]]]:
    frames = [frame.split("\n") for frame in text.split("\n\n") if frame.startswith("event: ")]
    return [(name.removeprefix("event: "), json.loads(data.removeprefix("data: "))) for name, data in frames]


def test_an_answer_that_takes_long(tmp_path_factory: pytest.TempPathFactory, who: Person) -> None:
    model = Quoting()
    folder = tmp_path_factory.mktemp("late")
    settings = {"chat_delayed": 0.2, "chat_failed": 1.0, "titles": False, "embedder": "off"}
    with (
        live_service(folder, model=model, **settings) as service,
        httpx.Client(base_url=service.url, headers=who.headers, timeout=120) as web,
    ):
        web.put("/api/references/mine/1", json={"title": "Mine", "text": LESSON})
        about = {"category": "mine", "title_no": 1, "user_input": "What do squirrels hide?"}
        with thinking(model):
            failed = web.post("/api/chats/", json=about)
            body = failed.json()
            assert (failed.status_code, body["state"], body["error"]["code"]) == (504, "failed", "answer_failed")
            path = f"/api/chats/{body['id']}/"
            stream = web.post(path, json={"user_input": "Again?"}, headers={"Accept": "text/event-stream"})
            states = [(name, data["state"]) for name, data in parsed(stream.text)]
            assert states == [("created", "running"), ("delayed", "delayed"), ("failed", "failed")]
        kept = web.get(path).json()["conversation"]
        assert [entry["USER"] for entry in kept if "USER" in entry] == [about["user_input"], "Again?"]
        assert {entry["state"] for entry in kept if "AI" in entry} <= {"cancelled", "running", "delayed"}
        assert go_on(web, body["id"], "And now?").json()["AI"] == "The documents say so [1]."


def test_files_of_a_chat(web: httpx.Client, lesson: dict[str, str]) -> None:
    chat = begin(web, lesson, "What do squirrels hide?")["id"]
    note = {"file": ("note.txt", b"The office is closed on 24 December.")}
    added = web.post(f"/api/chats/{chat}/files/", files=note)
    assert (added.status_code, added.json()["name"]) == (201, "note.txt")
    answer = go_on(web, chat, "When is the office closed?").json()
    assert "note.txt" in [source.get("name") for source in answer["sources"]]
    [source] = [source for source in answer["sources"] if source.get("name") == "note.txt"]
    assert web.get(source["url"]).json()["data"][0]["text"] == note["file"][1].decode()
    [file] = web.get(f"/api/chats/{chat}/files/").json()["data"]
    assert file["state"] == "ready"
    assert web.delete(f"/api/chats/{chat}/").status_code == 204
    assert web.get(source["url"]).status_code == 404


# --- the nine defects, where this door shows them ---------------------------------------------------------------------


def test_1_an_old_chat_goes_on(tmp_path_factory: pytest.TempPathFactory, who: Person) -> None:
    """There is no cache to fall out of: a process that knows nothing of a chat goes on with all that was said."""
    folder, chat = tmp_path_factory.mktemp("old"), ""
    for words in ("What do squirrels hide?", "And then?"):
        model = Quoting()
        with (
            live_service(folder, model=model, cache="memory://", titles=False, embedder="off") as service,
            httpx.Client(base_url=service.url, headers=who.headers, timeout=120) as web,
        ):
            if chat:
                assert go_on(web, chat, words).status_code == 200
                assert any("What do squirrels hide?" in message.text for message in model.asked[0][:-1])
                assert len(said(web, chat)) == 4
            else:
                web.put("/api/references/mine/1", json={"title": "Mine", "text": LESSON})
                chat = begin(web, {"category": "mine", "title_no": 1}, words)["id"]


def test_2_a_new_chat_never_continues_another(web: httpx.Client, lesson: dict[str, str], model: Quoting) -> None:
    first = begin(web, lesson, "What do squirrels hide?")
    second = begin(web, lesson, "What do squirrels find?")
    assert first["id"] != second["id"]
    assert "hide?" not in "".join(message.text for message in model.asked[-1] if message.role == "user")
    assert said(web, second["id"])[0] == "What do squirrels find?"
    assert len(said(web, second["id"])) == 2


def test_3_a_deleted_chat_is_gone(web: httpx.Client, lesson: dict[str, str]) -> None:
    chat = begin(web, lesson, "What do squirrels hide?")["id"]
    assert web.delete(f"/api/chats/{chat}/").status_code == 204
    for answer in (web.get(f"/api/chats/{chat}/"), go_on(web, chat, "Still there?")):
        assert answer.status_code == 404
    assert web.get(f"/v1/conversations/{chat}").status_code == 404
    assert web.get("/api/chats/").json()["chats"] == []


def test_4_two_turns_at_once_are_both_kept(web: httpx.Client, lesson: dict[str, str]) -> None:
    chat = begin(web, lesson, "What do squirrels hide?")["id"]
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(lambda words: go_on(web, chat, words).status_code, ("One?", "Two?")))
    assert answers == [200, 200]
    found = said(web, chat)
    assert len(found) == 6
    assert {"One?", "Two?"} <= set(found)
    assert [entry in ("One?", "Two?") for entry in found[2:]] == [True, False, True, False]


def test_6_a_chat_is_named_once(tmp_path_factory: pytest.TempPathFactory, who: Person) -> None:
    model = Quoting()
    folder = tmp_path_factory.mktemp("titles")
    with (
        live_service(folder, model=model, embedder="off") as service,
        httpx.Client(base_url=service.url, headers=who.headers, timeout=120) as web,
    ):
        web.put("/api/references/mine/1", json={"title": "Mine", "text": LESSON})
        chat = begin(web, {"category": "mine", "title_no": 1}, "What do squirrels hide?")["id"]
        while (title := web.get(f"/api/chats/{chat}/").json()["title"]) is None:
            pass
        asked = len(model.asked)
        for words in ("And then?", "And after that?"):
            assert go_on(web, chat, words).status_code == 200
        assert len(model.asked) == asked + 2  # the turns, and nobody summed up anything
        assert web.get(f"/api/chats/{chat}/").json()["title"] == title


def test_7_a_title_that_is_taken_away(web: httpx.Client, admin: httpx.Client, lesson: dict[str, str]) -> None:
    """A missing title is said, by its name, and never answered from nothing."""
    chat = begin(web, lesson, "What do squirrels hide?")["id"]
    path = f"/api/references/{lesson['category']}/1"
    assert admin.delete(path, params={"owner": "official"}).status_code == 204
    answer = go_on(web, chat, "And then?")
    assert answer.status_code == 404
    assert lesson["category"] in answer.json()["error"]["message"]
    assert len(said(web, chat)) == 2


def test_8_the_question_is_kept_before_it_is_answered(
    service: Live, web: httpx.Client, lesson: dict[str, str], model: Quoting
) -> None:
    chat = begin(web, lesson, "What do squirrels hide?")["id"]
    with (
        thinking(model),
        web.stream(
            "POST",
            f"/api/chats/{chat}/",
            json={"user_input": "And then?"},
            headers={"Accept": "text/event-stream"},
        ) as stream,
    ):
        assert next(stream.iter_lines()) == "event: created"
        assert said(web, chat)[2:3] == ["And then?"]
        [running] = web.get(f"/api/chats/{chat}/").json()["conversation"][3:]
        assert running["state"] == "running"


def test_9_a_corrected_reference_reaches_old_chats(
    web: httpx.Client, admin: httpx.Client, lesson: dict[str, str], model: Quoting
) -> None:
    chat = begin(web, lesson, "What do squirrels hide?")["id"]
    corrected = {"title": "Squirrels", "text": "Squirrels hide walnuts.", "owner": "official"}
    assert admin.put(f"/api/references/{lesson['category']}/1", json=corrected).status_code == 200
    go_on(web, chat, "What do squirrels hide?")
    asked = model.asked[-1][-1].text
    assert "walnuts" in asked
    assert "acorns before" not in asked
    stored = web.get(f"/v1/conversations/{chat}/items").text
    assert LESSON not in json.loads(stored)["data"][-1]["content"][0]["text"]
