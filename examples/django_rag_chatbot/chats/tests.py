"""``python manage.py test``: the contract, and what the tutorial's design gets wrong."""

import asyncio
import json
import re
import time
from pathlib import Path

from django.contrib.auth import get_user_model
from django.core.cache import cache
from django.test import TestCase
from rest_framework.authtoken.models import Token
from rest_framework.test import APIClient

import daram
from chats.management.commands import demo
from daram.adapters.django import get_documents, get_memory, owner_of
from daram.adapters.django.test import ScriptedModel, fresh_store
from daram.llm.base import Options

BOOK = {"category": "BOOKS", "title_no": 1}
KOREAN = {"category": "BOOKS", "title_no": 2}
DOCS = {"category": "OFFICIAL_DOCS", "title_no": 1}
ADMIN = daram.Reader("demo", admin=True)
STREAM = {"HTTP_ACCEPT": "text/event-stream"}


class Tutor(ScriptedModel):
    """It cites the passages that it is given. While ``thinks`` is set it says nothing; ``fails`` is raised."""

    prefers_notes = True  # else it would be asked to word questions anew

    def __init__(self):
        super().__init__(self.answer)
        self.reset()

    def reset(self):
        self.asked.clear()
        self.thinks = False
        self.fails = None

    @staticmethod
    def answer(messages):
        numbers = re.findall(r'<passage number="(\d+)"', messages[-1].text)
        return f"It says so {''.join(f'[{number}]' for number in numbers)}"

    async def stream(self, messages, options=Options()):
        if self.fails is not None:
            raise self.fails
        while self.thinks:
            await asyncio.sleep(0.01)
        async for delta in super().stream(messages, options):
            yield delta

    @property
    def prompt(self):
        """What it was shown last."""
        return "\n".join(message.text for message in self.asked[-1])


def expire():
    """As ten minutes without a word: the cache has nothing of Daram's any more."""
    if hasattr(cache, "delete_pattern"):  # django-redis, whose clear() empties the whole database
        cache.delete_pattern("daram:cache:*")
    else:
        cache.clear()


def frames(response):
    """The events of a stream, as they come."""
    for frame in response.streaming_content:
        name, data = frame.decode().strip().split("\n")
        yield name.removeprefix("event: "), json.loads(data.removeprefix("data: "))


class Study(TestCase):
    settings_of_daram: dict = {}

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.model = Tutor()
        cls.enterClassContext(fresh_store(model=cls.model, cache="django:default", **cls.settings_of_daram))

    def setUp(self):
        self.put(1)
        self.ann = get_user_model().objects.create_user("ann", password="acorns under oaks")
        self.client = self.as_user(self.ann)
        self.addCleanup(self.forget)

    def forget(self):
        self.model.reset()
        for user in get_user_model().objects.all():
            get_memory().delete_owner(owner_of(user))

    @staticmethod
    def put(title_no, change=lambda text: text):
        title, file = demo.REFERENCES["BOOKS", title_no]
        text = change(Path(demo.LESSONS, file).read_text("utf-8"))
        get_documents().put_reference(ADMIN, "BOOKS", title_no, title, text, owner="official")

    @staticmethod
    def as_user(user):
        client = APIClient()
        client.credentials(HTTP_AUTHORIZATION=f"Token {Token.objects.get_or_create(user=user)[0].key}")
        return client

    def begin(self, about, words, **headers):
        return self.client.post("/api/chats/", {**about, "user_input": words}, format="json", **headers)

    def go_on(self, chat, words, **headers):
        return self.client.post(f"/api/chats/{chat}/", {"user_input": words}, format="json", **headers)

    def said(self, chat):
        found = self.client.get(f"/api/chats/{chat}/").json()["conversation"]
        return [entry.get("USER") or entry["AI"] for entry in found]


class Contract(Study):
    def test_a_chat_about_a_text(self):
        answer = self.begin(BOOK, "What do squirrels hide?")
        self.assertEqual(answer.status_code, 201)
        chat = answer.json()
        self.assertEqual(set(chat), {"id", "AI", "sources", "state"})
        self.assertEqual((chat["AI"], chat["state"]), ("It says so [1]", "answered"))
        [source] = chat["sources"]
        self.assertEqual((source["kind"], source["title"], source["n"]), ("reference", "Squirrels", 1))
        self.assertIn("Red squirrels hide acorns", self.model.prompt)

        more = self.go_on(chat["id"], "And what do they forget?")
        self.assertEqual((more.status_code, more.json()["id"]), (200, chat["id"]))
        self.assertIn("What do squirrels hide?", self.model.prompt)

        whole = self.client.get(f"/api/chats/{chat['id']}/").json()
        self.assertEqual((whole["category"], whole["title_no"]), ("BOOKS", "1"))
        shapes = [sorted(entry) for entry in whole["conversation"]]
        self.assertEqual(shapes, [["USER", "id_user"], ["AI", "id_ai", "sources", "state"]] * 2)
        self.assertEqual(whole["conversation"][1]["sources"], chat["sources"])
        [listed] = self.client.get("/api/chats/").json()["chats"]
        self.assertEqual((listed["id"], listed["category"]), (chat["id"], "BOOKS"))

    def test_in_korean(self):
        self.put(2)
        answer = self.begin(KOREAN, "다람쥐는 무엇을 숨기나요?")
        self.assertIn("도토리를 숨긴다", self.model.prompt)
        self.assertIn("다람쥐", answer.content.decode())  # readable, not escaped

    def test_a_stream(self):
        response = self.begin(BOOK, "What do squirrels hide?", **STREAM)
        self.assertEqual((response.status_code, response["Content-Type"]), (201, "text/event-stream"))
        events = list(frames(response))
        self.assertEqual((events[0][0], events[-1][0]), ("created", "done"))
        done = events[-1][1]
        self.assertEqual("".join(data["AI"] for name, data in events if name == "delta"), done["AI"])
        self.assertEqual(self.said(done["id"]), ["What do squirrels hide?", done["AI"]])

    def test_what_cannot_be_asked(self):
        for asked, field in (
            ({**BOOK}, "user_input"),
            ({**BOOK, "user_input": "   "}, "user_input"),
            ({"category": "BOOKS", "user_input": "?"}, "title_no"),
            ({**BOOK, "title_no": [1], "user_input": "?"}, "title_no"),
        ):
            refused = self.client.post("/api/chats/", asked, format="json")
            self.assertEqual((refused.status_code, list(refused.json())), (400, [field]))
        for response in (
            self.go_on("nothing", "Hello"),
            self.client.get("/api/chats/nothing/"),
            self.client.delete("/api/chats/nothing/"),
        ):
            self.assertEqual(response.status_code, 404)
            self.assertIn("chat 'nothing'", response.json()["error"]["message"])

    def test_whose_is_whose(self):
        chat = self.begin(BOOK, "Mine.").json()["id"]
        self.assertEqual(APIClient().get("/api/chats/").status_code, 401)
        self.client = self.as_user(get_user_model().objects.create_user("bob"))
        self.assertEqual(self.client.get("/api/chats/").json()["chats"], [])
        self.assertEqual(self.client.get(f"/api/chats/{chat}/").status_code, 404)
        self.assertEqual(self.go_on(chat, "Yours?").status_code, 404)
        self.assertEqual(self.client.delete(f"/api/chats/{chat}/").status_code, 404)

    def test_logging_in(self):
        self.client = APIClient(enforce_csrf_checks=True)
        told = self.client.post("/api/login/", {"username": "ann", "password": "acorns under oaks"})
        self.client.credentials(HTTP_AUTHORIZATION=f"Token {told.json()['token']}")
        self.assertEqual(self.begin(BOOK, "By token.").status_code, 201)
        self.client.credentials()
        self.client.login(username="ann", password="acorns under oaks")
        self.assertEqual(len(self.client.get("/api/chats/").json()["chats"]), 1)
        self.assertEqual(self.begin(BOOK, "By session.").status_code, 403)  # a form needs its CSRF token

    def test_what_a_user_said_goes_with_them(self):
        owner = owner_of(self.ann)
        self.begin(BOOK, "Remember me.")
        with self.captureOnCommitCallbacks(execute=True):
            self.ann.delete()
        self.assertEqual(get_memory().list(owner).items, [])


class Defects(Study):
    """The nine of the tutorial, 4 and 5 where a server and its Redis are needed: there it is Daram's own tests."""

    def test_1_an_old_chat_goes_on(self):
        chat = self.begin(BOOK, "Call the squirrel tuna.").json()["id"]
        expire()
        self.go_on(chat, "What is it called?")
        self.assertIn("Call the squirrel tuna.", self.model.prompt)
        self.assertEqual(len(self.said(chat)), 4)

    def test_2_a_new_chat_never_continues_another(self):
        first = self.begin(BOOK, "Call the squirrel tuna.").json()["id"]
        second = self.begin(BOOK, "What is it called?").json()["id"]
        self.assertNotEqual(first, second)
        self.assertNotIn("tuna", self.model.prompt)
        self.assertEqual(len(self.said(second)), 2)

    def test_3_a_deleted_chat_is_gone(self):
        chat = self.begin(BOOK, "Call the squirrel tuna.").json()["id"]
        self.go_on(chat, "And on.")  # it is in the cache now
        self.assertEqual(self.client.delete(f"/api/chats/{chat}/").status_code, 204)
        self.assertEqual(self.client.get(f"/api/chats/{chat}/").status_code, 404)
        self.assertEqual(self.go_on(chat, "Still there?").status_code, 404)
        self.assertEqual(self.client.get(f"/api/chats/{chat}/").status_code, 404)
        self.assertEqual(self.client.get("/api/chats/").json()["chats"], [])

    def test_4_what_a_turn_costs_does_not_grow(self):
        chat = self.begin(BOOK, "Turn 0.").json()["id"]
        for number in range(1, 30):
            self.go_on(chat, f"Turn {number}.")
        self.assertEqual(len(self.model.asked[-1]), len(self.model.asked[-10]))
        self.assertEqual(len(self.said(chat)), 60)

    def test_7_documents_and_what_they_do_not_say(self):
        for file in demo.OFFICIAL_DOCS[1]:
            get_documents().add(ADMIN, daram.Scope("official", "1"), Path(demo.LESSONS, file), wait=True)
        chat = self.begin(DOCS, "When does a QuerySet run its query?").json()
        self.assertIn("querysets.md", [source["name"] for source in chat["sources"]])
        self.assertIn("A QuerySet is lazy", self.model.prompt)
        asked = len(self.model.asked)
        self.assertEqual(self.go_on(chat["id"], "What is the capital of Mongolia?").json()["sources"], [])
        self.assertEqual(len(self.model.asked), asked)  # nobody was asked who could make it up
        korean = self.go_on(chat["id"], "몽골의 수도는 어디인가요?").json()
        self.assertEqual(korean["AI"], "문서에는 그에 대한 내용이 없습니다.")

    def test_7_a_title_that_is_not_there_is_named(self):
        for about, named in (
            ({**DOCS, "title_no": 99}, "OFFICIAL_DOCS/99"),
            ({"category": "NONSENSE", "title_no": 1}, "NONSENSE"),
            ({**BOOK, "title_no": 99}, "BOOKS/99"),
        ):
            refused = self.begin(about, "What does it say?")
            self.assertEqual(refused.status_code, 404)
            self.assertIn(f"'{named}'", refused.json()["error"]["message"])
        self.assertEqual(self.model.asked, [])
        self.assertEqual(self.client.get("/api/chats/").json()["chats"], [])

    def test_7_a_title_that_is_taken_away(self):
        chat = self.begin(BOOK, "What do squirrels hide?").json()["id"]
        get_documents().remove_reference(ADMIN, "BOOKS", 1, owner="official")
        refused = self.go_on(chat, "And then?")
        self.assertEqual(refused.status_code, 404)
        self.assertIn("BOOKS", refused.json()["error"]["message"])
        self.assertEqual(len(self.said(chat)), 2)

    def test_8_what_the_user_said_is_kept(self):
        self.model.fails = daram.ModelUnavailable("the model is down, its key is sk-123")
        failed = self.begin(BOOK, "Call the squirrel tuna.")
        self.assertEqual((failed.status_code, failed.json()["state"]), (503, "failed"))
        self.assertNotIn("sk-123", failed.content.decode())
        chat = failed.json()["id"]
        self.assertEqual(self.said(chat)[0], "Call the squirrel tuna.")
        told = list(frames(self.go_on(chat, "Are you there?", **STREAM)))
        self.assertEqual(told[-1][0], "failed")
        self.assertEqual(told[-1][1]["error"]["code"], "model_unavailable")
        self.assertNotIn("sk-123", str(told))
        self.model.fails = None
        self.go_on(chat, "What is it called?")
        self.assertIn("Call the squirrel tuna.", self.model.prompt)

    def test_9_a_corrected_text_reaches_old_chats(self):
        chat = self.begin(BOOK, "Where do squirrels hide acorns?").json()["id"]
        self.assertIn("oak trees", self.model.prompt)
        self.put(1, lambda text: text.replace("oak", "beech"))
        self.go_on(chat, "Where, again?")
        self.assertIn("beech trees", self.model.prompt)
        self.assertNotIn("oak trees", self.model.prompt)


class Titles(Study):
    settings_of_daram = {"titles": True}

    def test_6_a_chat_is_given_its_title_once(self):
        chat = self.begin(BOOK, "What do squirrels hide?").json()["id"]
        path = f"/api/chats/{chat}/"
        deadline = time.monotonic() + 60
        while (title := self.client.get(path).json()["title"]) is None and time.monotonic() < deadline:
            time.sleep(0.05)
        self.assertTrue(title)
        asked = len(self.model.asked)
        for words in ("And then?", "And after that?"):
            self.go_on(chat, words)
        self.assertEqual(len(self.model.asked), asked + 2)
        self.assertEqual(self.client.get(path).json()["title"], title)


class Late(Study):
    settings_of_daram = {"chat_delayed": 0.1, "chat_failed": 0}

    def test_an_answer_that_takes_its_time(self):
        self.model.thinks = True
        events = []
        for event in frames(self.begin(BOOK, "What do squirrels hide?", **STREAM)):
            events.append(event)
            self.model.thinks = self.model.thinks and event[0] != "delayed"
        name, data = events[-1]
        self.assertEqual((name, data["state"]), ("done", "answered"))
        self.assertIn("delayed", [name for name, _ in events])


class TooLate(Study):
    settings_of_daram = {"chat_delayed": 0.1, "chat_failed": 0.3}

    def test_an_answer_that_takes_too_long(self):
        self.model.thinks = True
        failed = self.begin(BOOK, "What do squirrels hide?")
        self.assertEqual((failed.status_code, failed.json()["state"]), (504, "failed"))
        self.assertEqual(failed.json()["error"]["code"], "answer_failed")
        chat = failed.json()["id"]
        names = [name for name, _ in frames(self.go_on(chat, "Again?", **STREAM))]
        self.assertEqual((names[-1], names.count("delayed")), ("failed", 1))
        questions = [words for words in self.said(chat) if words.endswith("?")]
        self.assertEqual(questions, ["What do squirrels hide?", "Again?"])


class Demonstration(TestCase):
    def test_it_can_be_run_again(self):
        with fresh_store():
            for _ in range(2):
                demo.load()
            documents = get_documents()
            self.assertEqual(len(documents.list(ADMIN, daram.Scope("official", "1")).items), 2)
            self.assertEqual(len(documents.references.list("official").items), 2)
