"""Run by tests/adapters/test_django.py: ``manage.py test``, on each engine."""

import asyncio
import json
import os
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from asgiref.sync import async_to_sync
from django.contrib.auth.models import Group, Permission, User
from django.core.cache import cache
from django.core.files.uploadedfile import SimpleUploadedFile
from django.core.management import CommandError, call_command
from django.test import AsyncClient, Client, SimpleTestCase, TestCase

import daram
from daram.adapters.django import (
    aget_chatbot,
    aget_documents,
    aget_memory,
    aget_titled_chats,
    conversation_deleted,
    get_chatbot,
    get_documents,
    get_memory,
    get_titled_chats,
    json_errors,
    owner_deleted,
    owner_of,
    reader_of,
    turn_finished,
)
from daram.adapters.django.test import DaramTestMixin, ScriptedModel, fresh_store
from daram.errors import (
    DocumentError,
    DocumentTooLarge,
    InvalidInput,
    ModelRefused,
    NotAllowed,
    StoreUnavailable,
    SyncInAsync,
    Unsupported,
    UnsupportedDocument,
)
from site_app.model import recall

STORE = os.environ["SITE_STORE"]


def events(response):
    """The frames of an answered stream."""
    frames = response.getvalue().decode().strip().split("\n\n")
    return [dict(line.split(": ", 1) for line in frame.splitlines()) for frame in frames]


class Chat(DaramTestMixin, TestCase):
    daram_store = STORE
    daram_model = staticmethod(lambda: ScriptedModel(recall))

    def setUp(self):
        super().setUp()
        self.ann, self.bob = (User.objects.create_user(name, password="x") for name in ("ann", "bob"))
        self.client.force_login(self.ann)
        self.addCleanup(self.empty)

    def empty(self):
        for user in (self.ann, self.bob):
            self.memory.delete_owner(owner_of(user))

    def say(self, id, text, client=None):
        client = client or self.client
        return client.post(f"/chats/{id}/", json.dumps({"user_input": text}), content_type="application/json")

    def test_it_remembers_and_forgets(self):
        self.assertEqual(self.say("one", "tuna").json(), {"AI": "1 so far: tuna"})
        self.assertEqual(self.say("one", "squirrel").json(), {"AI": "2 so far: tuna | squirrel"})
        self.assertEqual(self.say("two", "oak").json(), {"AI": "1 so far: oak"})
        self.assertEqual(self.client.get("/chats/").json(), {"chats": ["two", "one"], "next": None})
        self.assertEqual(self.client.get("/chats/two/").json()["messages"][0], ["user", "oak"])
        self.assertEqual(self.client.delete("/chats/one/").status_code, 204)
        gone = self.client.get("/chats/one/")
        self.assertEqual((gone.status_code, gone.json()["error"]["code"]), (404, "not_found"))
        self.assertEqual(self.say("one", "again").status_code, 404)  # nothing brings it back

    def test_another_users_chat_is_one_that_is_not_there(self):
        self.say("mine", "secret")
        other = Client()
        other.force_login(self.bob)
        for method in (other.get, other.delete):
            theirs, none = method("/chats/mine/"), method("/chats/none/")
            self.assertEqual(theirs.status_code, 404)
            self.assertEqual(theirs.json()["error"]["code"], none.json()["error"]["code"])
        self.assertEqual(self.say("mine", "hello", other).json(), {"AI": "1 so far: hello"})
        self.assertEqual(Client().get("/chats/").status_code, 403)

    def test_a_stream_and_coming_back_to_it(self):
        response = self.client.get("/chats/s/stream/?text=tuna")
        self.assertEqual(response["Content-Type"], "text/event-stream")
        frames = events(response)
        self.assertEqual([frame["id"] for frame in frames], [str(n) for n in range(1, len(frames) + 1)])
        told = [json.loads(frame["data"]) for frame in frames]
        self.assertEqual((frames[0]["event"], frames[-1]["event"]), ("created", "completed"))
        self.assertEqual("".join(event.get("text", "") for event in told), "1 so far: tuna")
        back = self.client.get(
            f"/chats/s/stream/?answer={told[0]['answer']}", headers={"Last-Event-ID": frames[1]["id"]}
        )
        self.assertEqual(events(back), frames[2:])
        lost = events(self.client.get("/chats/s/stream/?answer=nothing"))
        self.assertEqual((lost[0]["event"], json.loads(lost[0]["data"])["code"]), ("error", "not_found"))

    def test_a_client_that_leaves_does_not_stop_the_answer(self):
        running = get_chatbot().start(owner_of(self.ann), "left", "tuna")
        told = running.events()
        next(told)
        told.close()
        self.assertEqual(running.message().text, "1 so far: tuna")

    async def test_the_same_from_asynchronous_views(self):
        client = AsyncClient()
        await client.aforce_login(self.ann)

        async def say(text):
            body = json.dumps({"user_input": text})
            return (await client.post("/achats/a/", body, content_type="application/json")).json()

        self.assertEqual(await say("tuna"), {"AI": "1 so far: tuna"})
        self.assertEqual(await say("oak"), {"AI": "2 so far: tuna | oak"})
        response = await client.get("/achats/a/stream/?text=fir")
        content = b"".join([part async for part in response.streaming_content]).decode()
        self.assertTrue(content.startswith("id: 1\nevent: created\n"), content)
        self.assertIn("event: completed", content)
        self.assertEqual(len((await client.get("/achats/a/")).json()["messages"]), 6)
        self.assertEqual((await client.delete("/achats/a/")).status_code, 204)
        self.assertEqual((await client.get("/achats/a/")).status_code, 404)
        with self.assertRaises(SyncInAsync):
            get_memory()

    def test_threads_and_loops_at_once_lose_nothing(self):
        owner = owner_of(self.ann)

        def write(number):
            if number % 2:
                get_memory().append(owner, "many", [daram.user(str(number))], create=True)
            else:
                async_to_sync(self.write)(owner, number)

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(write, range(40)))
        stored = self.memory.tail(owner, "many", 100)
        self.assertEqual(sorted(int(message.text) for message in stored), list(range(40)))

    @staticmethod
    async def write(owner, number):
        memory = await aget_memory()
        await memory.append(owner, "many", [daram.user(str(number))], create=True)

    def test_a_projects_cache_stands_in_front(self):
        with fresh_store(store=STORE, cache="django:default", model=ScriptedModel(recall)) as memory:
            owner = owner_of(self.ann)
            cache.clear()
            bot = get_chatbot()
            self.assertEqual(bot.ask(owner, "cached", "one").text, "1 so far: one")
            self.assertEqual(bot.ask(owner, "cached", "two").text, "2 so far: one | two")
            self.assertTrue(any("daram:cache:" in key for key in cache._cache), list(cache._cache))
            self.assertIn("django", memory.describe()["cache"].lower())
            memory.delete_owner(owner)

    def test_signals(self):
        heard, done = [], threading.Event()

        def finished(owner, conversation, message, **_):
            heard.append((owner, conversation, message.text, threading.current_thread() is threading.main_thread()))
            done.set()

        def broken(**_):
            raise RuntimeError("a receiver that fails")

        def deleted(signal, **said):
            heard.append({name: said[name] for name in ("owner", "conversation", "conversations") if name in said})

        owner = owner_of(self.ann)
        for signal, receiver in (
            (turn_finished, broken),
            (turn_finished, finished),
            (conversation_deleted, deleted),
            (owner_deleted, deleted),
        ):
            signal.connect(receiver, weak=False)
            self.addCleanup(signal.disconnect, receiver)
        with self.assertLogs("django.dispatch", "ERROR"):
            self.say("told", "tuna")
            self.assertTrue(done.wait(60))
        self.assertEqual(heard, [(owner, "told", "1 so far: tuna", False)])
        heard.clear()
        self.client.delete("/chats/told/")
        self.say("more", "oak")
        done.clear()
        self.memory.delete_owner(owner)
        self.assertEqual(heard[0], {"owner": owner, "conversation": "told"})
        self.assertEqual(heard[-1], {"owner": owner, "conversations": 1})

    def test_refusals_by_their_kind(self):
        def refuse(messages):
            raise ModelRefused("the key sk-123 is wrong")

        self.model._replies[:] = [refuse]
        with self.assertLogs("daram.adapters.django.http", "ERROR"):
            response = self.say("r", "tuna")
        self.assertEqual(response.status_code, 502)
        self.assertNotIn("sk-123", response.content.decode())
        self.assertEqual(self.client.get("/chats/r/").json()["messages"][0], ["user", "tuna"])  # it is kept
        self.assertEqual(self.say("x" * 5000, "tuna").status_code, 413)


class Administration(DaramTestMixin, TestCase):
    daram_store = STORE

    def setUp(self):
        super().setUp()
        self.ann = User.objects.create_user("ann", email="ann@example.org")
        self.owner = owner_of(self.ann)
        self.addCleanup(self.memory.delete_owner, self.owner)
        self.memory.create(self.owner, id="c1", title="<b>Squirrels</b>")
        self.memory.append(self.owner, "c1", [daram.user("tuna <i>"), daram.assistant("noted")])
        self.house = "/admin/daram/storedconversation/"

    def enter(self, *permissions, superuser=False):
        staff = User.objects.create_user("staff", is_staff=True, is_superuser=superuser)
        staff.user_permissions.set(Permission.objects.filter(codename__in=permissions))
        self.client.force_login(staff)

    def test_conversations_are_read_through_the_store(self):
        self.enter("view_storedconversation")
        self.assertContains(self.client.get(self.house, {"q": "ann@"}), "user:")
        self.assertNotContains(self.client.get(self.house, {"q": "nobody"}), f"{self.owner}<")
        self.assertContains(self.client.get(f"{self.house}of/", {"owner": self.owner}), "&lt;b&gt;Squirrels")
        page = self.client.get(f"{self.house}show/", {"owner": self.owner, "id": "c1"})
        self.assertContains(page, "tuna &lt;i&gt;")
        self.assertNotContains(page, "deletelink")
        self.assertEqual(self.client.get(f"{self.house}show/", {"owner": self.owner, "id": "no"}).status_code, 404)
        gone = self.client.post(f"{self.house}delete/", {"owner": self.owner, "id": "c1"})
        self.assertEqual(gone.status_code, 403)
        self.memory.get(self.owner, "c1")

    def test_deleting_is_told(self):
        heard = []
        receiver = lambda conversation, **_: heard.append(conversation)  # noqa: E731
        conversation_deleted.connect(receiver)
        self.enter("view_storedconversation", "delete_storedconversation")
        asked = self.client.get(f"{self.house}delete/", {"owner": self.owner, "id": "c1"})
        self.assertContains(asked, "for good")
        done = self.client.post(f"{self.house}delete/", {"owner": self.owner, "id": "c1"})
        self.assertRedirects(done, f"{self.house}of/?owner={self.owner.replace(':', '%3A')}")
        self.assertEqual(heard, ["c1"])
        self.assertEqual(self.memory.list(self.owner).items, [])

    def test_running_answers_are_stopped(self):
        self.enter(superuser=True)
        turn = self.memory.begin_turn(self.owner, "c1", [daram.user("go on")], lease=60.0)
        self.assertContains(self.client.get("/admin/daram/runninganswer/"), "c1")
        where = {"owner": self.owner, "conversation": "c1", "answer": turn.answer.id}
        self.assertEqual(self.client.post("/admin/daram/runninganswer/stop/", where).status_code, 302)
        self.assertTrue(self.memory.answers(self.owner, "c1")[0].cancel)

    def test_nobody_else_enters(self):
        for path in ("", "of/", "show/", "delete/"):
            self.assertEqual(self.client.get(self.house + path).status_code, 302)
        self.enter()
        self.assertEqual(self.client.get(self.house).status_code, 403)


LESSON = "Red squirrels hide acorns under oak trees before the winter."
ADMIN = daram.Reader("root", admin=True)


class WithDocuments(DaramTestMixin):
    daram_store = STORE

    def setUp(self):
        super().setUp()
        self.model.prefers_notes = True  # questions are searched for as they were asked
        self.ann = User.objects.create_user("ann")
        self.owner = owner_of(self.ann)
        self.client.force_login(self.ann)
        self.addCleanup(self.memory.delete_owner, self.owner)

    def test_an_upload_is_searched_and_cited(self):
        documents = get_documents()
        upload = SimpleUploadedFile("squirrels.txt", LESSON.encode())
        added = documents.add(reader_of(self.ann), "animals", upload.chunks(), name=upload.name, wait=True)
        self.assertEqual((added.state, added.bytes), ("ready", len(LESSON)))
        self.assertEqual(documents.search(self.owner, "Where are acorns hidden?").passages[0].text, LESSON)
        documents.bind(self.owner, "c", ["animals"])
        answer = get_chatbot().ask(self.owner, "c", "Where do squirrels hide acorns?")
        self.assertEqual([part.data["name"] for part in answer.parts], ["squirrels.txt"])
        asked = len(self.model.asked)
        answer = get_chatbot().ask(self.owner, "c", "What is the capital of Mongolia?")
        self.assertEqual((answer.metadata["documents"], len(self.model.asked)), ("none", asked))
        documents.remove(self.owner, "animals", added.id)
        self.assertEqual(documents.list(self.owner, "animals").items, [])

    async def test_the_same_from_asynchronous_code(self):
        documents = await aget_documents()
        added = await documents.add(self.owner, "animals", LESSON.encode(), name="squirrels.txt")
        self.assertEqual((await documents.wait(added)).state, "ready")
        self.assertEqual((await documents.search(self.owner, "acorns")).passages[0].text, LESSON)
        with self.assertRaises(SyncInAsync):
            get_documents()
        await documents.put_reference(self.owner, "books", 1, "Squirrels", LESSON)
        chats = await aget_titled_chats()
        turn = await chats.begin(self.owner, "books", 1, "What do squirrels hide?")
        self.assertEqual((await turn.reply())["sources"][0]["title"], "Squirrels")
        client = AsyncClient()
        await client.aforce_login(self.ann)
        body = json.dumps({"user_input": "And then?"})
        path = f"/atitled/{turn.chat}/"
        whole = (await client.post(path, body, content_type="application/json")).json()
        self.assertEqual((whole["id"], whole["AI"]), (turn.chat, "All right."))
        stream = await client.post(path, body, content_type="application/json", headers={"Accept": "text/event-stream"})
        told = b"".join([part async for part in stream.streaming_content]).decode()
        self.assertTrue(told.startswith("event: created\n") and "event: done\n" in told, told)
        heard = []
        receiver = lambda conversation, **_: heard.append(conversation)  # noqa: E731
        conversation_deleted.connect(receiver)
        await chats.delete(self.owner, turn.chat)
        self.assertEqual(heard, [turn.chat])
        missing = await client.post(path, body, content_type="application/json")
        self.assertEqual(missing.status_code, 404)
        self.assertEqual((await chats.list(self.owner))["chats"], [])

    def test_who_may_read_what(self):
        documents = get_documents()
        self.ann.groups.add(Group.objects.create(name="editors"))
        who = reader_of(self.ann)
        self.assertEqual((who.owner, who.groups, who.admin), (self.owner, ("editors",), False))
        self.ann.is_staff = True
        self.assertTrue(reader_of(self.ann).admin)
        with self.assertRaises(NotAllowed):
            documents.put_reference(who, "books", 1, "Squirrels", LESSON, owner="official")
        drafts = daram.Scope("group:editors", "drafts")
        documents.add(who, drafts, LESSON.encode(), name="draft.txt", wait=True)
        self.addCleanup(documents.delete_collection, who, drafts)
        documents.bind(who, "c", [drafts])
        ask = lambda: get_chatbot().ask(self.owner, "c", "Where do squirrels hide acorns?").status  # noqa: E731
        self.assertEqual(ask(), "complete")

    def test_groups_that_the_project_tells_anew_at_each_turn(self):
        told = []
        with (
            self.settings(
                DARAM={"MODEL": "site_app.model.make", "GROUPS": lambda owner: told.append(owner) or ["all"]}
            ),
            fresh_store(model=self.model),
        ):
            who = reader_of(self.ann)
            self.assertEqual(who.groups, ("all",))
            get_documents().add(who, daram.Scope("group:all", "d"), LESSON.encode(), name="d.txt", wait=True)
            get_documents().bind(who, "c", [daram.Scope("group:all", "d")])
            told.clear()
            get_chatbot().ask(self.owner, "c", "Where do squirrels hide acorns?")
            self.assertEqual(told, [self.owner])

    def test_refusals_by_their_kind(self):
        for error, status in (
            (NotAllowed("official"), 403),
            (UnsupportedDocument("a.exe", "no loader"), 415),
            (DocumentTooLarge("a.txt", "too long"), 413),
            (DocumentError("a.pdf", "is broken"), 422),
        ):

            @json_errors
            def view(request, error=error):
                raise error

            self.assertEqual(view(None).status_code, status)


class WithoutDocuments(DaramTestMixin):
    daram_store = STORE

    def test_it_is_said_who_keeps_documents(self):
        with self.assertRaisesRegex(Unsupported, "SQLite and PostgreSQL"):
            get_documents()
        with self.assertRaisesRegex(Unsupported, "SQLite and PostgreSQL"):
            get_titled_chats().begin("ann", "books", 1, "What do squirrels hide?")
        self.assertEqual(get_titled_chats().list("ann")["chats"], [])


class DocumentTests(WithoutDocuments if STORE.startswith("redis") else WithDocuments, TestCase):
    pass


class Fresh(SimpleTestCase):
    def test_each_block_has_a_store_of_its_own(self):
        with fresh_store() as memory:
            memory.create("ann", id="c")
            with fresh_store():
                self.assertEqual(get_memory().list("ann").items, [])
            self.assertEqual([c.id for c in get_memory().list("ann").items], ["c"])

    @fresh_store(model=ScriptedModel("one", lambda messages: messages[-1].text.upper()))
    def test_a_decorator_with_a_script(self):
        bot = get_chatbot()
        self.assertEqual([bot.ask("ann", "c", text).text for text in ("a", "b", "c")], ["one", "B", "C"])

    async def test_cancelling_a_caller_leaves_the_store_open(self):
        with fresh_store():
            task = asyncio.ensure_future(aget_memory())
            await asyncio.sleep(0)
            task.cancel()
            memory = await aget_memory()
            await memory.create("ann", id="c")
            bot = await aget_chatbot()
            self.assertEqual((await bot.ask("ann", "c", "hello")).text, "All right.")
            with self.assertRaises(InvalidInput):
                await bot.ask("ann", "c", "")


class Commands(SimpleTestCase):
    def test_they_work_on_the_projects_store(self):
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "daram.db"
            store = {"MODEL": "site_app.model.make", "STORE": f"sqlite:///{file}"}
            with self.settings(DARAM=store):
                call_command("daram", "migrate")
                self.assertTrue(file.exists())
                call_command("daram", "check", "--json")
                call_command("daram", "export", f"{folder}/all.jsonl")
                self.assertTrue(Path(folder, "all.jsonl").exists())
                lesson = Path(folder) / "lesson.md"
                lesson.write_text("# Squirrels\n\nThey hide acorns.\n")
                call_command("daram", "docs", "add", str(lesson), "--official", "--title-no", "1")
                call_command("daram", "docs", "search", "--official", "--title-no", "1", "acorns")
                with self.assertRaisesRegex(CommandError, "No such command"):
                    call_command("daram", "fly")
            store["STORE"] = f"sqlite:///{folder}/none.db"
            with self.settings(DARAM=store), self.assertRaisesRegex(CommandError, "no store") as refused:
                call_command("daram", "purge")
            self.assertEqual(refused.exception.returncode, 2)
            store["STORE"] = f"sqlite:///{folder}/no/such/folder/d.db"
            with self.settings(DARAM=store), self.assertRaises((CommandError, StoreUnavailable)):
                call_command("daram", "list")
