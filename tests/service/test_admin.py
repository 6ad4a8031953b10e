"""The administration: who may enter, what they see and may do, and that nothing of a key's secret is shown."""

from __future__ import annotations

import html
import re
from collections.abc import AsyncIterator
from itertools import chain
from typing import Any

import httpx
import pytest
from tests.service.people import Person, make_person, person, service_settings

import daram
from daram import ids
from daram.service.runtime import running
from daram.settings import Settings
from daram.store.documents import Scope

PASSWORD = "hazelnuts-in-the-snow"
LEAVE = b"# Leave\n\nEmployees earn two days of paid leave for each month worked.\n"


@pytest.fixture
def settings(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> Settings:
    settings = service_settings(tmp_path, store="memory://", titles=False)
    from daram.service.accounts import backend

    monkeypatch.setattr(backend.Argon2, "memory_cost", 8)
    return settings


@pytest.fixture
async def memory(settings: Settings) -> AsyncIterator[daram.Memory]:
    async with running(settings) as runtime:
        yield runtime.memory


class Desk:
    """A browser in front of the service, through Django's whole ASGI handler."""

    def __init__(self, language: str = "en") -> None:
        from django.core.handlers.asgi import ASGIHandler

        self.client = httpx.AsyncClient(
            transport=httpx.ASGITransport(ASGIHandler(), client=(f"10.9.{ids.uuid7()[-2:]}.1", 1)),
            base_url="http://localhost",
            headers={"accept-language": language},
        )

    async def get(self, path: str, **params: str) -> httpx.Response:
        return await self.client.get(path, params=params or None)

    async def post(self, path: str, page: str, **data: str) -> httpx.Response:
        found = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', (await self.get(page)).text)
        assert found is not None, page
        return await self.client.post(path, data={**data, "csrfmiddlewaretoken": found[1]})

    async def upload(self, path: str, page: str, file: tuple[str, bytes], **data: str) -> httpx.Response:
        found = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', (await self.get(page)).text)
        assert found is not None, page
        return await self.client.post(path, data={**data, "csrfmiddlewaretoken": found[1]}, files={"file": file})

    async def log_in(self, who: Person) -> None:
        answer = await self.post("/login", "/login", username=who.user.username, password=PASSWORD)
        assert answer.status_code == 302


async def administrator(**fields: Any) -> Person:
    """Somebody of the group of administrators."""
    from daram.service.accounts.auth import in_accounts
    from daram.service.accounts.people import add_user, find_user

    def make() -> Person:
        name = "boss-" + ids.uuid7()
        add_user(name, password=PASSWORD, admin=True)
        user = find_user(name)
        for field, value in fields.items():
            setattr(user, field, value)
        user.save()
        return Person(user=user, key="", key_row=None)

    return await in_accounts(make)


def text(response: httpx.Response) -> str:
    return html.unescape(response.text)


PAGES = [
    "/admin/",
    "/admin/accounts/user/",
    "/admin/accounts/user/add/",
    "/admin/accounts/user/1/change/",
    "/admin/accounts/apikey/",
    "/admin/conversations/storedconversation/",
    "/admin/conversations/storedconversation/of/?owner=x",
    "/admin/conversations/storedconversation/show/?owner=x&id=y",
    "/admin/conversations/storedconversation/delete/?owner=x&id=y",
    "/admin/conversations/runninganswer/",
    "/admin/conversations/storedcollection/",
    "/admin/conversations/storedcollection/show/?owner=official&id=x",
    "/admin/conversations/storedreference/",
    "/admin/conversations/storedreference/show/?owner=official&category=x&title_no=1",
    "/admin/no-such-page/",
]


@pytest.mark.parametrize("path", PAGES)
async def test_only_the_staff_enters(memory: daram.Memory, path: str) -> None:
    desk = Desk()
    answer = await desk.get(path)
    assert answer.status_code == 302 and answer.headers["location"].startswith("/admin/login/?next=")
    answer = await desk.get(answer.headers["location"])
    assert answer.status_code == 302 and answer.headers["location"].startswith("/login?next=%2Fadmin%2F")

    await desk.log_in(await person(password=PASSWORD))
    answer = await desk.get(path)
    assert answer.status_code == 302
    assert (await desk.get(answer.headers["location"])).status_code == 403  # and no way round in circles


async def test_a_key_is_no_way_into_the_administration(memory: daram.Memory) -> None:
    boss = await person("admin", is_staff=True, is_superuser=True)
    desk = Desk()
    answer = await desk.client.get("/admin/", headers=boss.headers)
    assert answer.status_code == 302


async def test_staff_without_permissions_sees_an_empty_house(memory: daram.Memory) -> None:
    desk = Desk()
    await desk.log_in(await person(password=PASSWORD, is_staff=True))
    assert (await desk.get("/admin/")).status_code == 200
    for path in PAGES[1:-1]:
        assert (await desk.get(path)).status_code == 403, path
    stop = "/admin/conversations/runninganswer/stop/"
    assert (await desk.post(stop, "/account/", owner="x", conversation="y", answer="z")).status_code == 403


async def test_conversations_are_read_and_deleted_through_the_store(memory: daram.Memory) -> None:
    someone, boss = await person(), await administrator()
    conversation = await memory.create(someone.owner, title="<script>alert(1)</script>")
    part = daram.Part(type="image", data={"url": "data:,<b>"})
    await memory.append(someone.owner, conversation.id, [daram.user("acorn & <b>oak</b>", parts=[part])])
    await memory.append(someone.owner, conversation.id, [daram.assistant("도토리")])
    desk = Desk()
    await desk.log_in(boss)
    house = "/admin/conversations/storedconversation/"
    assert someone.user.username in (await desk.get(house, q=someone.user.username)).text
    page = await desk.get(f"{house}of/", owner=someone.owner)
    assert "<script>alert" not in page.text and "<script>alert(1)</script>" in text(page)
    page = await desk.get(f"{house}show/", owner=someone.owner, id=conversation.id)
    assert "acorn & <b>oak</b>" in text(page) and "<b>oak" not in page.text and "도토리" in page.text
    assert '"url": "data:,<b>"' in text(page)

    ask = f"{house}delete/?owner={someone.owner}&id={conversation.id}"
    assert "gone for good" in (await desk.get(ask)).text
    assert (await desk.client.post(f"{house}delete/", data={"owner": someone.owner})).status_code == 403  # no token
    await memory.get(someone.owner, conversation.id)
    answer = await desk.post(f"{house}delete/", ask, owner=someone.owner, id=conversation.id)
    assert answer.status_code == 302
    with pytest.raises(daram.NotFound):
        await memory.get(someone.owner, conversation.id)
    assert "is deleted" in (await desk.get(answer.headers["location"])).text
    assert (await desk.get(f"{house}show/", owner=someone.owner, id=conversation.id)).status_code == 404


async def test_lists_are_paged_by_key(memory: daram.Memory, monkeypatch: pytest.MonkeyPatch) -> None:
    from daram.adapters.django import stored

    monkeypatch.setattr(stored, "PAGE", 3)
    someone = await person()
    made = [(await memory.create(someone.owner, title=f"title-{number}-end")).id for number in range(7)]
    for number in range(7):
        await memory.append(someone.owner, made[0], [daram.user(f"message-{number}-end")])
    desk = Desk()
    await desk.log_in(await administrator())
    house = "/admin/conversations/storedconversation/"

    async def walk(path: str, pattern: str) -> list[list[str]]:
        pages = []
        while True:
            page = await desk.get(path)
            assert page.status_code == 200
            pages.append(re.findall(pattern, page.text))
            more = re.search(r'<p><a href="(\?[^"]*)">More', page.text)
            if more is None:
                return pages
            path = path.partition("?")[0] + html.unescape(more[1])

    pages = await walk(f"{house}of/?owner={someone.owner}", r"title-(\d)-end")
    assert [len(page) for page in pages] == [3, 3, 1] and len({*chain(*pages)}) == 7
    pages = await walk(f"{house}show/?owner={someone.owner}&id={made[0]}", r"message-(\d)-end")
    assert pages == [["0", "1", "2"], ["3", "4", "5"], ["6"]]
    names = await walk(f"{house}?q={someone.user.username[:8]}", r'">(user-\w+)</a>')
    assert someone.user.username in chain(*names)


@pytest.mark.parametrize(
    "query", ["", "owner=x", "owner=&id=", "owner=x&id=y", "owner=a%00b&id=%ff", "id=" + "a" * 5000]
)
async def test_what_is_not_there_is_not_found(memory: daram.Memory, query: str) -> None:
    desk = Desk()
    await desk.log_in(await administrator())
    for page in ("show", "delete"):
        assert (await desk.get(f"/admin/conversations/storedconversation/{page}/?{query}")).status_code == 404
    for path in (f"of/?{query}", f"of/?owner=x&cursor={query}", f"?q={query}", f"?after={query}"):
        answer = await desk.get(f"/admin/conversations/storedconversation/{path}")
        assert answer.status_code in (200, 404), (path, answer.text)


async def test_a_running_answer_is_seen_and_stopped(memory: daram.Memory) -> None:
    someone, boss = await person(), await administrator()
    conversation = await memory.create(someone.owner)
    turn = await memory.begin_turn(someone.owner, conversation.id, [daram.user("a question")], lease=600)
    assert turn.answer is not None
    token = turn.answer.token
    await memory.checkpoint(someone.owner, conversation.id, turn.answer.id, token, "half an ans", lease=600)
    desk = Desk()
    await desk.log_in(boss)
    house = "/admin/conversations/runninganswer/"
    page = await find_running(desk, conversation.id)
    assert "half an ans" in page.text and someone.user.username in page.text
    page = await desk.get("/admin/conversations/storedconversation/show/", owner=someone.owner, id=conversation.id)
    assert "half an ans" in page.text and 'name="answer"' in page.text
    names = {"owner": someone.owner, "conversation": conversation.id, "answer": turn.answer.id}
    answer = await desk.post(f"{house}stop/", "/account/", **names)
    assert answer.status_code == 302
    (stopped,) = await memory.answers(someone.owner, conversation.id)
    assert stopped.cancel
    assert (await desk.get(f"{house}stop/")).status_code == 405
    assert (await desk.post(f"{house}stop/", "/account/", owner="x", conversation="y")).status_code == 404


async def find_running(desk: Desk, conversation: str) -> httpx.Response:
    """The page of running answers with this conversation on it: other tests made users, too."""
    path = "/admin/conversations/runninganswer/"
    while True:
        page = await desk.get(path)
        more = re.search(r'<p><a href="(\?[^"]*)">More', page.text)
        if conversation in page.text or more is None:
            return page
        path = path.partition("?")[0] + html.unescape(more[1])


async def test_administrators_do_not_make_themselves_superusers(memory: daram.Memory) -> None:
    from daram.service.accounts.models import User

    boss, root = await administrator(), await administrator(is_superuser=True)
    desk = Desk()
    await desk.log_in(boss)
    own = f"/admin/accounts/user/{boss.user.pk}/change/"
    group = await boss.user.groups.aget()
    fields = {"username": boss.user.username, "email": "", "is_active": "on", "is_staff": "on", "is_superuser": "on"}
    fields["groups"] = str(group.pk)
    answer = await desk.post(own, own, **fields)
    assert answer.status_code == 302, text(answer)
    changed = await User.objects.aget(pk=boss.user.pk)
    assert not changed.is_superuser and changed.is_staff
    theirs = f"/admin/accounts/user/{root.user.pk}/"
    answer = await desk.post(f"{theirs}change/", own, username="taken", is_active="")
    assert answer.status_code == 403
    new = {"password1": "acorns-under-the-oak", "password2": "acorns-under-the-oak"}
    assert (await desk.post(f"{theirs}password/", own, **new)).status_code == 403
    assert (await desk.post(f"{theirs}delete/", own, post="yes")).status_code == 403
    untouched = await User.objects.aget(pk=root.user.pk)
    assert untouched.password == root.user.password and untouched.username == root.user.username
    assert (await desk.get("/admin/auth/group/")).status_code == 403


async def test_users_are_added_and_names_brought_to_their_one_form(memory: daram.Memory) -> None:
    from daram.service.accounts.models import User

    desk = Desk()
    await desk.log_in(await administrator())
    name = "New-" + ids.uuid7()
    add = "/admin/accounts/user/add/"
    fields = {"username": name, "email": "", "usable_password": "true", "password1": PASSWORD, "password2": PASSWORD}
    answer = await desk.post(add, add, **fields)
    assert answer.status_code == 302, text(answer)
    user = await User.objects.aget(username=name.lower())
    assert user.owner.startswith("user_") and not user.is_staff
    answer = await desk.post(add, add, **{**fields, "username": name.upper()})
    assert answer.status_code == 200 and "already" in text(answer)


async def test_who_is_deleted_is_gone_from_the_store_too(memory: daram.Memory, monkeypatch: pytest.MonkeyPatch) -> None:
    from daram.service.accounts.auth import in_accounts
    from daram.service.accounts.keys import find_key
    from daram.service.accounts.models import User

    first, second, third = await person(), await person(), await person()
    for each in (first, second, third):
        conversation = await memory.create(each.owner)
        await memory.append(each.owner, conversation.id, [daram.user("acorn")])
    keys = {each.owner: each.key for each in (first, second, third)}
    delete = type(memory).delete_owner
    stopped: list[str] = []

    async def watched(self: daram.Memory, owner: str) -> int:
        if await in_accounts(find_key, keys[owner]) is None:  # by another connection: it is committed
            stopped.append(owner)
        return await delete(self, owner)

    monkeypatch.setattr(type(memory), "delete_owner", watched)
    desk = Desk()
    await desk.log_in(await administrator())
    house = "/admin/accounts/user/"
    ask = f"{house}{first.user.pk}/delete/"
    assert "All conversations of the user are deleted" in (await desk.get(ask)).text
    assert (await desk.post(ask, ask, post="yes")).status_code == 302
    chosen = {"action": "delete_selected", "_selected_action": str(second.user.pk)}
    page = await desk.post(house, house, **chosen)
    assert page.status_code == 200 and "All conversations of the user are deleted" in page.text
    assert (await desk.post(house, house, **chosen, post="yes")).status_code == 302
    assert stopped == [first.owner, second.owner], "what is written while the store is at it would be found by nobody"
    for each in (first, second):
        assert not await User.objects.filter(pk=each.user.pk).aexists()
        assert not (await memory.list(each.owner)).items

    # The store first: a user must not be gone while their conversations are still there.
    async def down(*args: Any) -> int:
        raise daram.StoreUnavailable("the server is down")

    monkeypatch.setattr(type(memory), "delete_owner", down)
    ask = f"{house}{third.user.pk}/delete/"
    answer = await desk.post(ask, ask, post="yes")
    assert answer.status_code == 503 and "the server is down" in answer.text
    assert await User.objects.filter(pk=third.user.pk, is_active=False).aexists()
    assert len((await memory.list(third.owner)).items) == 1


async def test_keys_are_shown_without_their_secret_and_revoked(memory: daram.Memory) -> None:
    from daram.service.accounts.auth import in_accounts
    from daram.service.accounts.keys import find_key

    someone, boss = await person(), await administrator()
    desk = Desk()
    await desk.log_in(boss)
    house = "/admin/accounts/apikey/"
    for path in (f"{house}?q={someone.key_row.prefix}", f"{house}{someone.key_row.pk}/change/"):
        page = await desk.get(path)
        assert page.status_code == 200 and someone.key_row.prefix in page.text
        assert someone.key_row.digest not in page.text and someone.key not in page.text
    assert (await desk.get(f"{house}add/")).status_code == 403
    chosen = {"action": "revoke_selected", "_selected_action": str(someone.key_row.pk)}
    answer = await desk.post(house, house, **chosen)
    assert answer.status_code == 302
    assert await in_accounts(find_key, someone.key) is None


async def test_the_administrations_own_login_logout_and_password_are_ours(memory: daram.Memory) -> None:
    desk = Desk()
    who = await administrator()
    # Django's own form would not count attempts.
    answer = await desk.post("/admin/login/", "/login", username=who.user.username, password=PASSWORD)
    assert answer.status_code == 302 and answer.headers["location"].startswith("/login?")
    await desk.log_in(who)
    assert (await desk.get("/admin/password_change/")).headers["location"] == "/account/password"
    page = await desk.get("/admin/")
    assert not re.search(r"<script>|<script [^>]*>[^<]|\sstyle=|\son\w+=", page.text)  # as the policy wants it
    assert (await desk.post("/admin/logout/", "/admin/")).headers["location"] == "/login"
    assert (await desk.get("/admin/")).status_code == 302


async def test_a_store_that_fails_is_said_in_words(memory: daram.Memory, monkeypatch: pytest.MonkeyPatch) -> None:
    async def down(*args: Any, **kwargs: Any) -> Any:
        raise daram.StoreUnavailable("the server is down")

    monkeypatch.setattr(type(memory), "list", down)
    desk = Desk()
    await desk.log_in(await administrator())
    answer = await desk.get("/admin/conversations/storedconversation/of/", owner="x")
    assert answer.status_code == 503 and "the server is down" in answer.text


def test_every_page_is_behind_the_door(settings: Settings) -> None:
    """Structure: no view of the administration but the login is reachable without `admin_view`."""
    from django.contrib import admin
    from django.urls import URLPattern, URLResolver

    def walk(patterns: Any) -> Any:
        for each in patterns:
            if isinstance(each, URLResolver):
                yield from walk(each.url_patterns)
            elif isinstance(each, URLPattern):
                yield each

    make_person()
    views = {each.name: each.callback for each in walk(admin.site.urls[0]) if each.name}
    assert {"conversations_list", "conversations_show", "conversations_delete", "conversations_stop"} <= set(views)
    for name, view in views.items():
        assert name == "login" or hasattr(view, "__wrapped__"), name


# --- documents ------------------------------------------------------------------------------------------------------

SHELVES = "/admin/conversations/storedcollection"
TEXTS = "/admin/conversations/storedreference"


async def test_official_documents_are_put_in_seen_and_deleted(memory: daram.Memory) -> None:
    documents = running_documents()
    desk = Desk()
    await desk.log_in(await administrator())
    assert "None." in text(await desk.get(f"{SHELVES}/"))
    answer = await desk.upload(f"{SHELVES}/add/", f"{SHELVES}/", ("leave.md", LEAVE), owner="official", id="handbook")
    assert answer.status_code == 302
    shown = answer.headers["location"]
    (document,) = (await documents.list("x", Scope("official", "handbook"))).items
    await documents.wait(document)
    page = text(await desk.get(shown))
    assert "leave.md" in page and ">read<" in page
    assert "handbook" in text(await desk.get(f"{SHELVES}/"))
    assert (await documents.search("anybody", "paid leave", Scope("official", "handbook"))).passages

    korean = text(await desk.client.get(shown, headers={"accept-language": "ko"}))
    assert ">읽음<" in korean and "이 모음과 그 안의 모든 문서가" in korean

    unread = await desk.upload(f"{SHELVES}/add/", shown, ("a.exe", b"MZ"), owner="official", id="handbook")
    assert "no loader reads this kind" in text(await desk.get(unread.headers["location"]))

    await desk.post(f"{SHELVES}/remove/", shown, owner="official", id="handbook", document=document.id)
    assert (await documents.list("x", Scope("official", "handbook"))).items == []
    await desk.post(f"{SHELVES}/delete/", shown, owner="official", id="handbook")
    assert (await desk.get(shown)).status_code == 404


async def test_references_are_put_corrected_and_deleted(memory: daram.Memory) -> None:
    documents = running_documents()
    desk = Desk("ko")
    await desk.log_in(await administrator())
    given = {"owner": "official", "category": "lessons", "title_no": "1", "title": "다람쥐"}
    answer = await desk.post(f"{TEXTS}/put/", f"{TEXTS}/", **given, text="다람쥐는 <b>도토리</b>를 숨긴다.")
    shown = answer.headers["location"]
    page = await desk.get(shown)
    assert "<b>" not in page.text and "<b>도토리</b>" in text(page)
    await desk.post(f"{TEXTS}/put/", shown, **given, text="다람쥐는 밤을 숨긴다.")
    reference = await documents.reference("anybody", "lessons", 1)
    assert (await documents.references.text(reference))[1] == "다람쥐는 밤을 숨긴다."
    refused = await desk.post(f"{TEXTS}/put/", shown, **{**given, "category": "a/b"}, text="x")
    assert "slash" in text(await desk.get(refused.headers["location"]))
    await desk.post(f"{TEXTS}/delete/", shown, owner="official", category="lessons", title_no="1")
    assert (await desk.get(shown)).status_code == 404
    assert "다람쥐" not in text(await desk.get(f"{TEXTS}/"))


async def test_documents_need_their_permissions(memory: daram.Memory) -> None:
    from django.contrib.auth.models import Permission

    from daram.service.accounts.auth import in_accounts

    documents = running_documents()
    await documents.put_reference(daram.Reader("x", admin=True), "c", 1, "t", "what it says", owner="official")
    who = await person(password=PASSWORD)

    def allow(*names: str) -> None:
        who.user.is_staff = True
        who.user.save()
        who.user.user_permissions.set(Permission.objects.filter(codename__in=names))

    desk = Desk()
    await desk.log_in(who)
    await in_accounts(allow)
    shown = f"{TEXTS}/show/?owner=official&category=c&title_no=1"
    for path in (f"{SHELVES}/", f"{TEXTS}/", shown):
        assert (await desk.get(path)).status_code == 403
    await in_accounts(lambda: allow("view_storedreference", "view_storedcollection"))
    page = text(await desk.get(shown))
    assert "what it says" in page and "references_put" not in page and "<textarea" not in page
    forbidden = [f"{TEXTS}/put/", f"{TEXTS}/delete/", f"{SHELVES}/add/", f"{SHELVES}/remove/", f"{SHELVES}/delete/"]
    for path in forbidden:
        given = {"owner": "official", "category": "c", "title_no": "1", "title": "t", "text": "x", "id": "i"}
        assert (await desk.post(path, "/account/", **given)).status_code == 403, path
    assert (await documents.references.text(await documents.reference("x", "c", 1)))[1] == "what it says"


def running_documents() -> daram.Documents:
    from daram.service import runtime

    documents = runtime.current().documents
    assert documents is not None
    return documents
