"""Chainlit's data layer on Daram's engines, with Chainlit's own classes and context."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from tests.chainlit_home import load_chainlit

import daram
from daram.chat import Chatbot
from daram.errors import InvalidInput, NotFound, TooLarge, Unsupported
from daram.llm.base import Delta, Options
from daram.memory import Memory
from daram.model import Message
from daram.store.wrapper import StoreWrapper

load_chainlit()

from chainlit.context import init_http_context, init_ws_context  # noqa: E402
from chainlit.element import CustomElement, Text  # noqa: E402
from chainlit.session import WebsocketSession, ws_sessions_id, ws_sessions_sid  # noqa: E402
from chainlit.types import Feedback, Pagination, ThreadFilter  # noqa: E402
from chainlit.user import PersistedUser, User  # noqa: E402

from daram.adapters.chainlit import DaramDataLayer  # noqa: E402
from daram.adapters.chainlit import records as chainlit_records  # noqa: E402
from daram.adapters.chainlit import writes as chainlit_writes  # noqa: E402

ALICE = PersistedUser(id="alice", identifier="alice", createdAt="2026-01-01T00:00:00Z", metadata={})
BOB = PersistedUser(id="bob", identifier="bob", createdAt="2026-01-01T00:00:00Z", metadata={})


@pytest.fixture
def store(memory: Memory) -> Memory:
    return memory


@pytest.fixture
def layer(store: Memory) -> DaramDataLayer:
    return DaramDataLayer(store)


@pytest.fixture(autouse=True)
def no_context_left() -> Any:
    yield
    ws_sessions_id.clear()
    ws_sessions_sid.clear()


def enter(user: PersistedUser | None = ALICE, thread: str = "t1") -> None:
    """Do as Chainlit does before it calls the layer for this user and thread."""
    init_http_context(thread_id=thread, user=user)


def step(text: str, *, id: str | None = None, type: str = "user_message", thread: str = "t1", **more: Any) -> Any:
    """A step as Chainlit's ``to_dict`` gives it."""
    return {
        "id": id or str(uuid.uuid4()),
        "threadId": thread,
        "parentId": None,
        "name": "x",
        "type": type,
        "input": "",
        "output": text,
        "createdAt": "2026-01-01T00:00:00Z",
        "streaming": False,
        "isError": False,
        "metadata": {},
        "tags": None,
    } | more


def texts(thread: Any) -> list[str]:
    return [s["output"] for s in thread["steps"] if s["type"].endswith("_message")]


async def all_records(store: Memory, owner: str = "alice") -> list[str]:
    found = []
    for namespace in chainlit_records.OF_A_THREAD:
        page = await store.scan_records(owner, namespace, limit=1000)
        found += [f"{namespace} {record.key}" for record in page.items]
    return found


class Echo:
    """A model that says the question again, once it may."""

    name = "echo"
    context_tokens = 10_000
    prefers_notes = False

    def __init__(self) -> None:
        self.may_speak = asyncio.Event()
        self.may_speak.set()

    async def stream(self, messages: Any, options: Options = Options()) -> AsyncIterator[Delta]:
        yield Delta(text="You said: ")
        await self.may_speak.wait()
        yield Delta(text=messages[-1].text, finish="stop")

    def count_tokens(self, text: str) -> int | None:
        return None

    async def ready(self) -> str | None:
        return None

    async def close(self) -> None: ...


# --- threads and messages ---


async def test_a_thread_is_a_conversation_and_its_messages_are_messages(layer: DaramDataLayer, store: Memory) -> None:
    enter()
    await layer.update_thread("t1", name="Squirrels\nand more", user_id="alice")
    await layer.create_step(step("a squirrel is called tuna", id="m1"))
    await layer.create_step(step("", id="r1", type="run", name="on_message"))
    await layer.create_step(step("noted", id="m2", type="assistant_message", parentId="r1", metadata={"a": [1]}))

    stored = await store.tail("alice", "t1")
    assert [(m.id, m.role, m.text) for m in stored] == [
        ("m1", "user", "a squirrel is called tuna"),
        ("m2", "assistant", "noted"),
    ]
    thread: Any = await layer.get_thread("t1")
    assert thread["name"] == "Squirrels"
    assert (thread["id"], thread["userId"], thread["userIdentifier"]) == ("t1", "alice", "alice")
    assert [(s["id"], s["type"], s["parentId"]) for s in thread["steps"]] == [
        ("m1", "user_message", None),
        ("r1", "run", None),
        ("m2", "assistant_message", "r1"),
    ]
    assert thread["steps"][2]["metadata"] == {"a": [1]}
    assert await layer.get_thread_author("t1") == "alice"


async def test_a_repeated_step_is_stored_once(layer: DaramDataLayer, store: Memory) -> None:
    enter()
    said = step("once", id="m1")
    await asyncio.gather(*(layer.create_step(dict(said)) for _ in range(5)))
    await layer.update_step(said)
    assert [m.text for m in await store.tail("alice", "t1")] == ["once"]


async def test_an_answer_that_is_streamed_after_it_was_sent_is_stored_when_it_has_a_text(
    layer: DaramDataLayer, store: Memory
) -> None:
    enter()
    await layer.create_step(step("hello", id="m1"))
    await layer.create_step(step("", id="r1", type="run"))
    await layer.create_step(step("", id="m2", type="assistant_message", parentId="r1"))
    assert [m.id for m in await store.tail("alice", "t1")] == ["m1"]
    await layer.update_step(step("hello to you", id="m2", type="assistant_message", parentId="r1"))
    assert [m.text for m in await store.tail("alice", "t1")] == ["hello", "hello to you"]
    thread: Any = await layer.get_thread("t1")
    assert [s["id"] for s in thread["steps"]] == ["m1", "r1", "m2"]


async def test_a_changed_text_is_shown_and_the_first_one_kept(layer: DaramDataLayer, store: Memory) -> None:
    enter()
    await layer.create_step(step("one", id="m1"))
    await layer.create_step(step("two", id="m2", type="assistant_message"))
    await layer.update_step(step("one, corrected", id="m1"))
    assert texts(await layer.get_thread("t1")) == ["one, corrected", "two"]
    assert [m.text for m in await store.tail("alice", "t1")] == ["one", "two"]
    await layer.update_step(step("one", id="m1"))
    assert texts(await layer.get_thread("t1")) == ["one", "two"]


async def test_tools_are_shown_under_their_run_and_a_lost_parent_hides_no_message(layer: DaramDataLayer) -> None:
    enter()
    await layer.create_step(step("what is the weather", id="m1"))
    await layer.create_step(step("", id="r1", type="run"))
    await layer.create_step(step("", id="tool1", type="tool", parentId="r1", input="Seoul", name="weather"))
    await layer.update_step(step("rain", id="tool1", type="tool", parentId="r1", input="Seoul", name="weather"))
    await layer.create_step(step("inner", id="tool2", type="tool", parentId="tool1"))
    await layer.create_step(step("it rains", id="m2", type="assistant_message", parentId="tool1"))
    await layer.create_step(step("an orphan", id="m3", type="assistant_message", parentId="nowhere"))
    thread: Any = await layer.get_thread("t1")
    by_id = {s["id"]: s for s in thread["steps"]}
    assert by_id["tool1"]["output"] == "rain"
    assert by_id["tool1"]["parentId"] == "r1"
    assert by_id["tool2"]["parentId"] == "tool1"
    assert by_id["m2"]["parentId"] == "tool1"
    assert by_id["m3"]["parentId"] in by_id  # else the page would drop it
    order = [s["id"] for s in thread["steps"]]
    assert order.index("r1") < order.index("tool1") < order.index("tool2")
    assert len(order) == len(set(order))


@pytest.mark.parametrize("history", [10, 1])
async def test_a_run_below_the_message_that_began_it(store: Memory, history: int) -> None:
    """As Chainlit itself makes them."""
    layer = DaramDataLayer(store, history=history)
    enter()
    await layer.create_step(step("hi", id="m1", metadata={"kept": "beside it"}))
    await layer.create_step(step("", id="r1", type="run", parentId="m1"))
    await layer.create_step(step("yes", id="m2", type="assistant_message", parentId="r1"))
    thread: Any = await layer.get_thread("t1")
    shown = [("m1", None), ("r1", "m1"), ("m2", "r1")] if history > 1 else [("r1", None), ("m2", "r1")]
    assert [(s["id"], s["parentId"]) for s in thread["steps"]] == shown


def at(second: int) -> str:
    return f"2026-01-01T00:00:{second:02}.000001Z"


async def test_a_turn_is_shown_in_the_order_of_time(layer: DaramDataLayer) -> None:
    enter()
    turn = [
        step("hi", id="m1", createdAt=at(1)),
        step("", id="r1", type="run", parentId="m1", createdAt=at(2)),
        step("let me look", id="m2", type="assistant_message", parentId="r1", createdAt=at(3)),
        step("rain", id="tool1", type="tool", parentId="r1", createdAt=at(4)),
        step("inner", id="tool2", type="tool", parentId="tool1", createdAt=at(5)),
        step("it rains", id="m3", type="assistant_message", parentId="r1", createdAt=at(6)),
        step("noted", id="tool3", type="tool", parentId="r1", createdAt=at(7)),
    ]
    for made in turn:
        await layer.create_step(made)
    thread: Any = await layer.get_thread("t1")
    assert [(s["id"], s["parentId"]) for s in thread["steps"]] == [(s["id"], s["parentId"]) for s in turn]


@pytest.mark.parametrize("whole", [True, False])
async def test_what_has_no_text_is_shown_too(
    store: Memory, layer: DaramDataLayer, whole: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    enter()
    turns = [
        step("a picture, please", id="m1", createdAt=at(1)),
        step("", id="r1", type="run", parentId="m1", createdAt=at(2)),
        step("", id="m2", type="assistant_message", parentId="r1", createdAt=at(3)),
        step("", id="m3", type="assistant_message", createdAt=at(4)),  # of an action: below nothing
        step("and then", id="m4", createdAt=at(5)),
        step("", id="r2", type="run", parentId="m4", createdAt=at(6)),
        step("cut off here", id="tool", type="tool", parentId="r2", createdAt=at(7)),
    ]
    for made in turns:
        await layer.create_step(made)
    await layer.create_element(Text(thread_id="t1", id="e1", name="picture", content="x", for_id="m2"))
    if not whole:  # then each is asked for, and what is below nothing is not found
        monkeypatch.setattr(chainlit_records, "_SCAN_ITEMS", 3)
        turns = [made for made in turns if made["id"] != "m3"]
    thread: Any = await layer.get_thread("t1")
    assert [s["id"] for s in thread["steps"]] == [s["id"] for s in turns]
    assert [element["id"] for element in thread["elements"]] == ["e1"]
    last: Any = await DaramDataLayer(store, history=1).get_thread("t1")
    assert [s["id"] for s in last["steps"]] == ["m4", "r2", "tool"]


async def test_deleting_a_step_deletes_its_message(layer: DaramDataLayer, store: Memory) -> None:
    enter()
    await layer.create_step(step("keep", id="m1"))
    await layer.create_step(step("drop", id="m2", type="assistant_message"))
    await layer.upsert_feedback(Feedback(forId="m2", value=1, threadId="t1"))
    await layer.delete_step("m2")
    await layer.delete_step("m2")
    assert texts(await layer.get_thread("t1")) == ["keep"]
    assert not [record for record in await all_records(store) if "m2" in record]
    await layer.update_step(step("drop, back again", id="m2", type="assistant_message"))  # a late write
    assert texts(await layer.get_thread("t1")) == ["keep"]


async def test_what_comes_before_the_first_message_waits_for_it(layer: DaramDataLayer, store: Memory) -> None:
    async def emit(event: str, data: Any) -> None: ...

    session = WebsocketSession(
        id="s1", socket_id="sid1", emit=emit, emit_call=emit, user_env={}, client_type="webapp", user=ALICE
    )
    init_ws_context(session)
    await layer.create_step(step("greeting", type="assistant_message", thread=session.thread_id))
    assert (await store.list("alice")).items == []
    session.has_first_interaction = True
    await layer.update_thread(session.thread_id, name="hello", user_id="alice")
    await session.flush_method_queue()
    assert texts(await layer.get_thread(session.thread_id)) == ["greeting"]


async def test_only_the_last_messages_are_shown(store: Memory) -> None:
    layer = DaramDataLayer(store, history=3)
    enter()
    for number in range(10):
        await store.append("alice", "t1", [daram.user(str(number))], create=True)
    assert texts(await layer.get_thread("t1")) == ["7", "8", "9"]


async def test_a_step_may_come_a_moment_before_its_thread(layer: DaramDataLayer, store: Memory) -> None:
    enter()
    run = asyncio.create_task(layer.create_step(step("", id="r1", type="run")))
    await asyncio.sleep(0.05)
    await layer.update_thread("t1", name="x", user_id="alice")
    await run
    await layer.create_step(step("yes", id="m1", type="assistant_message", parentId="r1"))
    thread: Any = await layer.get_thread("t1")
    assert [s["id"] for s in thread["steps"]] == ["r1", "m1"]


async def test_answers_made_elsewhere_get_a_run_and_a_note(store: Memory) -> None:
    layer = DaramDataLayer(store, note=lambda message: f"[{message.status}]" if message.status != "complete" else "")
    turn = await store.begin_turn("alice", "t1", [daram.user("hi", id="m1")], answer_id="a1", create=True)
    assert turn.answer is not None
    await store.finish_turn("alice", "t1", "a1", turn.answer.token, text="half", status="incomplete")
    enter()
    thread: Any = await layer.get_thread("t1")
    assert [(s["id"], s["type"], s["parentId"]) for s in thread["steps"]] == [
        ("m1", "user_message", None),
        ("run-a1", "run", None),
        ("a1", "assistant_message", "run-a1"),
    ]
    assert thread["steps"][2]["output"] == "half\n\n[incomplete]"
    assert thread["steps"][2]["metadata"] == {"status": "incomplete"}


# --- with a chatbot that stores the messages itself ---


@pytest.mark.parametrize("first", ["chainlit", "chatbot"])
async def test_a_chatbot_and_chainlit_store_a_message_once(layer: DaramDataLayer, store: Memory, first: str) -> None:
    enter()
    model = Echo()
    model.may_speak.clear()
    async with Chatbot(store, model, titles=False) as chatbot:
        await layer.update_thread("t1", name="hi", user_id="alice")
        if first == "chainlit":
            await layer.create_step(step("hi", id="m1"))
        running = await chatbot.start("alice", "t1", daram.user("hi", id="m1"))
        if first == "chatbot":
            await layer.create_step(step("hi", id="m1"))
        answer = {"id": running.answer_id, "type": "assistant_message"}
        await layer.create_step(step("", **answer))
        await layer.update_step(step("You said: ", **answer))  # while it is still being made
        assert [m.id for m in await store.tail("alice", "t1")] == ["m1"]
        model.may_speak.set()
        message = await running.message()
        await layer.update_step(step(message.text, **answer))
    assert [(m.id, m.text) for m in await store.tail("alice", "t1")] == [
        ("m1", "hi"),
        (running.answer_id, "You said: hi"),
    ]
    assert texts(await layer.get_thread("t1")) == ["hi", "You said: hi"]


async def test_a_thread_that_begins_without_a_text_is_named_by_what_follows(layer: DaramDataLayer) -> None:
    enter()
    await layer.update_thread("t1", name=" ", user_id="alice")  # a file was sent, and nothing said
    assert [thread["name"] for thread in (await pages(layer, 20))[0]] == [None]
    await layer.create_step(step("What a squirrel!", type="assistant_message"))
    assert [thread["name"] for thread in (await pages(layer, 20))[0]] == ["What a squirrel!"]


async def test_without_messages_the_layer_writes_none(store: Memory) -> None:
    layer = DaramDataLayer(store, messages=False)
    enter()
    await layer.update_thread("t1", name="the beginning of the first message", user_id="alice")
    await layer.create_step(step("hi", id="m1"))
    assert (await store.list("alice")).items == []
    await store.append("alice", "t1", [daram.user("hi", id="m1")], create=True)
    await layer.update_thread("t1", name="the beginning of the first message", user_id="alice")
    await layer.delete_step("m1")
    assert [m.id for m in await store.tail("alice", "t1")] == ["m1"]
    assert (await store.get("alice", "t1")).title is None
    await layer.update_thread("t1", name="a name of my own")
    assert (await store.get("alice", "t1")).title == "a name of my own"


# --- lists and search ---


class Counting(StoreWrapper):
    """Counts what is read."""

    def __init__(self, inner: Any) -> None:
        super().__init__(inner)
        self.listed = 0
        self.read = 0

    async def list(self, owner: str, *, limit: int = 20, cursor: str | None = None) -> Any:
        page = await super().list(owner, limit=limit, cursor=cursor)
        self.listed += len(page.items)
        return page

    async def tail(self, owner: str, id: str, limit: int = 20) -> list[Message]:
        self.read += limit
        return await super().tail(owner, id, limit)

    async def messages(self, owner: str, id: str, **more: Any) -> Any:
        self.read += more["limit"]
        return await super().messages(owner, id, **more)


async def pages(layer: DaramDataLayer, first: int, **filters: Any) -> list[Any]:
    found, cursor = [], None
    while True:
        page = await layer.list_threads(Pagination(first=first, cursor=cursor), ThreadFilter(userId="alice", **filters))
        assert len(page.data) <= first
        found.append(page.data)
        if not page.pageInfo.hasNextPage:
            return found
        cursor = page.pageInfo.endCursor
        assert cursor


async def test_the_list_is_paged_in_the_store(store: Memory) -> None:
    for number in range(83):
        await store.create("alice", id=f"t{number}", title=f"Number {number}")
    counting = Counting(store)
    layer = DaramDataLayer(counting)
    page = await layer.list_threads(Pagination(first=35), ThreadFilter(userId="alice"))
    assert (counting.listed, counting.read) == (35, 0)
    assert [thread["steps"] for thread in page.data] == [[]] * 35
    found = await pages(layer, 35)
    assert [len(data) for data in found] == [35, 35, 13]
    names = [thread["name"] for data in found for thread in data]
    assert names == [c.title for c in (await store.list("alice", limit=1000)).items]


async def test_search_by_title_finds_all_of_them_page_by_page(store: Memory) -> None:
    layer = DaramDataLayer(store)
    for number in range(230):
        title = f"다람쥐 이야기 {number}" if number % 3 == 0 else f"Ｔｕｎａ Salad {number}"
        await store.create("alice", id=f"t{number}", title=title)
    for query, expected in [("다람쥐", 77), ("이야기 다람", 77), ("tuna SALAD", 153), ("salad 22", 9), ("nothing", 0)]:
        found = await pages(layer, 20, search=query)
        ids = [thread["id"] for data in found for thread in data]
        assert len(ids) == len(set(ids)) == expected, query


class Moving(StoreWrapper):
    """Somebody says something in a conversation that was listed a moment ago, which moves it to the front."""

    listed: Any = None

    async def list(self, owner: str, *, limit: int = 20, cursor: str | None = None) -> Any:
        if self.listed and limit < 100:
            await self.inner.append(owner, self.listed.pop(0).id, [daram.user("again")])
        page = await super().list(owner, limit=limit, cursor=cursor)
        if limit == 100:
            self.listed = list(page.items[3:5])
        return page


async def test_a_search_misses_nothing_while_others_move(store: Memory) -> None:
    for number in range(70):
        await store.create("alice", id=f"t{number}", title=f"the one {number}")
    found = await pages(DaramDataLayer(Moving(store)), 20, search="the one")
    assert {thread["id"] for data in found for thread in data} == {f"t{number}" for number in range(70)}


async def test_one_search_looks_at_a_bounded_number_of_conversations(store: Memory) -> None:
    for number in range(350):
        await store.create("alice", id=f"t{number}", title="the one" if number == 0 else "another")
    counting = Counting(store)
    layer = DaramDataLayer(counting, search=150)
    page = await layer.list_threads(Pagination(first=20), ThreadFilter(userId="alice", search="the one"))
    assert page.data == []
    assert page.pageInfo.hasNextPage
    assert counting.listed <= 150 + 100
    found = await pages(layer, 20, search="the one")
    assert [thread["id"] for data in found for thread in data] == ["t0"]


async def test_a_conversation_without_a_title_is_listed_by_its_beginning(layer: DaramDataLayer, store: Memory) -> None:
    await store.append("alice", "t1", [daram.user("\n  Where do squirrels sleep?\nTell me.")], create=True)
    await store.append("alice", "t2", [daram.user("x" * 300)], create=True)
    found = (await pages(layer, 20))[0]
    assert [thread["name"] for thread in found] == ["x" * 99 + "…", "Where do squirrels sleep?"]
    assert [len(data) for data in await pages(layer, 20, search="squirrels")] == [1]


async def test_the_conversation_changed_last_comes_first(layer: DaramDataLayer, store: Memory) -> None:
    for name in ("a", "b", "c"):
        await store.append("alice", name, [daram.user(name)], create=True)
    await store.append("alice", "a", [daram.user("again")])
    found = (await pages(layer, 20))[0]
    assert [thread["id"] for thread in found] == ["a", "c", "b"]
    assert found == sorted(found, key=lambda thread: thread["createdAt"], reverse=True)  # as the page sorts them


# --- whose is whose ---


async def test_another_users_thread_looks_like_none(layer: DaramDataLayer, store: Memory) -> None:
    enter(ALICE)
    await layer.update_thread("t1", name="mine", user_id="alice")
    await layer.create_step(step("a secret", id="m1"))
    enter(BOB)
    assert await layer.get_thread("t1") is None
    assert await layer.get_thread_author("t1") == ""
    await layer.update_thread("t1", name="stolen")
    with pytest.raises(NotFound):
        await layer.upsert_feedback(Feedback(forId="m1", value=0, threadId="t1"))
    await layer.delete_thread("t1")
    page = await layer.list_threads(Pagination(first=20), ThreadFilter(userId="bob"))
    assert page.data == []
    enter(ALICE)
    thread: Any = await layer.get_thread("t1")
    assert (thread["name"], texts(thread)) == ("mine", ["a secret"])
    assert "feedback" not in thread["steps"][0]


async def test_in_a_request_the_user_is_who_was_asked_for(layer: DaramDataLayer, store: Memory) -> None:
    await store.create("alice", id="t1")

    async def request(identifier: str) -> str:
        # Chainlit's HTTP doors have no session: they ask for the user, then name the thread only.
        await layer.get_user(identifier)
        return await layer.get_thread_author("t1")

    answers = await asyncio.gather(*(asyncio.create_task(request(who)) for who in ("alice", "bob") * 5))
    assert answers == ["alice", ""] * 5


async def test_a_user_sees_the_threads_of_the_owner_whom_the_app_names(store: Memory) -> None:
    """By the two questions that Chainlit asks before it shows a thread or lets it be gone on with."""
    for owner in ("team", lambda: "team"):
        layer = DaramDataLayer(store, owner=owner)
        await store.create("team", id="t1")
        enter(ALICE)
        assert await layer.get_thread_author("t1") == "alice"
        thread: Any = await layer.get_thread("t1")
        assert thread["userIdentifier"] == "alice"
        page = await layer.list_threads(Pagination(first=20), ThreadFilter(userId="alice"))
        assert [(found["id"], found["userId"]) for found in page.data] == [("t1", "alice")]
        await layer.delete_thread("t1")
        assert await layer.get_thread_author("t1") == ""


async def test_without_a_login_everything_is_one_owners(store: Memory) -> None:
    enter(None)
    await DaramDataLayer(store).update_thread("gone", metadata={"late": 1})  # as a tab says when it is closed
    assert (await store.list("anonymous")).items == []
    await DaramDataLayer(store).create_step(step("hi"))
    assert len((await store.list("anonymous")).items) == 1
    await DaramDataLayer(store, owner="local").create_step(step("hi"))
    assert len((await store.list("local")).items) == 1


# --- what is kept beside the messages ---


async def test_deleting_a_thread_leaves_nothing_and_nothing_brings_it_back(
    layer: DaramDataLayer, store: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    enter()
    await layer.update_thread("t1", name="x", user_id="alice", metadata={"chat_profile": "p"})
    await layer.create_step(step("hi", id="m1"))
    await layer.create_step(step("", id="r1", type="run"))
    await layer.create_step(step("out", id="tool", type="tool", parentId="r1"))
    await layer.create_step(step("yes", id="m2", type="assistant_message", parentId="r1"))
    await layer.upsert_feedback(Feedback(forId="m2", value=1, threadId="t1"))
    await layer.upsert_feedback(Feedback(forId="m1", value=0, threadId="t1"))
    await layer.set_step_favorite(step("hi", id="m1"), True)
    await layer.create_element(Text(thread_id="t1", name="note", content="words", for_id="m2"))
    kinds = {record.split()[0] for record in await all_records(store)}
    assert kinds == set(chainlit_records.OF_A_THREAD)

    await layer.delete_thread("t1")
    await layer.delete_thread("t1")
    assert await all_records(store) == []
    assert await layer.get_thread("t1") is None
    monkeypatch.setattr(chainlit_writes, "_PAUSES", (0.01,))
    await layer.update_thread("t1", metadata={"late": 1})
    await layer.update_thread("t1", name="late")
    await layer.create_step(step("late", id="m3"))
    await layer.create_step(step("", id="m4", type="assistant_message", parentId="r1"))
    await layer.create_step(step("late", id="r2", type="run"))
    await layer.create_element(Text(thread_id="t1", name="late", content="words", for_id="m3"))
    for late in (
        layer.upsert_feedback(Feedback(forId="m2", value=1, threadId="t1")),
        layer.set_step_favorite(step("hi", id="m1"), True),
    ):
        with pytest.raises(NotFound):
            await late
    assert await layer.get_thread("t1") is None
    assert (await store.list("alice")).items == []
    assert await all_records(store) == []


async def test_feedback_is_one_per_step_and_can_be_taken_back(layer: DaramDataLayer, store: Memory) -> None:
    enter()
    await layer.create_step(step("hi", id="m1"))
    await layer.create_step(step("yes", id="m2", type="assistant_message"))
    first = await layer.upsert_feedback(Feedback(forId="m2", value=1, threadId="t1"))
    second = await layer.upsert_feedback(Feedback(forId="m2", value=0, threadId="t1", comment="no", id=first))
    assert first == second
    thread: Any = await layer.get_thread("t1")
    given = next(s["feedback"] for s in thread["steps"] if s["id"] == "m2")
    assert given == {"id": second, "forId": "m2", "value": 0, "comment": "no"}
    assert [len(data) for data in await pages(layer, 20, feedback=0)] == [1]
    assert [len(data) for data in await pages(layer, 20, feedback=1)] == [0]
    assert await layer.delete_feedback(second)
    assert not await layer.delete_feedback(second)
    thread = await layer.get_thread("t1")
    assert not any("feedback" in s for s in thread["steps"])


async def test_favourites(layer: DaramDataLayer) -> None:
    enter()
    favourite = step("a good question", id="m1")
    await layer.create_step(dict(favourite))
    await layer.set_step_favorite(dict(favourite), True)
    for number in (3, 9, 4):
        await layer.set_step_favorite(step("another", id=f"n{number}", createdAt=at(number)), True)
    assert [s["id"] for s in await layer.get_favorite_steps("alice")] == ["n9", "n4", "n3", "m1"]
    assert await layer.get_favorite_steps("bob") == []
    thread: Any = await layer.get_thread("t1")
    assert thread["steps"][0]["metadata"] == {"favorite": True}
    await layer.set_step_favorite(dict(favourite), False)
    assert [s["id"] for s in await layer.get_favorite_steps("alice")] == ["n9", "n4", "n3"]


async def test_elements_come_back_with_their_content(layer: DaramDataLayer, tmp_path: Path) -> None:
    enter()
    await layer.create_step(step("hi", id="m1"))
    await layer.create_element(
        Text(thread_id="t1", id="e1", name="note", content="다람쥐", for_id="m1", mime="text/plain")
    )
    (tmp_path / "a.bin").write_bytes(b"\x00\x01")
    from_file = Text(thread_id="t1", id="e2", name="file", path=str(tmp_path / "a.bin"), for_id="m1")
    await layer.create_element(from_file)
    await layer.create_element(Text(thread_id="t1", id="e3", name="elsewhere", content="x", for_id="not shown"))
    thread: Any = await layer.get_thread("t1")
    urls = {element["id"]: element["url"] for element in thread["elements"]}
    assert urls == {
        "e1": "data:text/plain;base64,64uk656M7KWQ",
        "e2": "data:application/octet-stream;base64,AAE=",
    }
    one: Any = await layer.get_element("t1", "e1")
    assert one["url"] == urls["e1"]
    await layer.delete_element("e1")
    assert await layer.get_element("t1", "e1") is None
    with pytest.raises(TooLarge):
        await layer.create_element(Text(thread_id="t1", name="big", content=b"x" * (3 * 2**20 + 1), for_id="m1"))


async def test_elements_are_shown_in_the_order_in_which_they_were_sent(
    layer: DaramDataLayer, monkeypatch: pytest.MonkeyPatch
) -> None:
    enter()
    ids = ["z", "b", "y", "a", "m"]
    await layer.create_step(step("first", id="m1", type="assistant_message", createdAt=at(1)))
    await layer.create_step(step("see below", id="m2", type="assistant_message", createdAt=at(2)))
    made = [CustomElement(thread_id="t1", id=id, name=id, for_id="m2", props={"n": 1}) for id in ids]
    made.append(CustomElement(thread_id="t1", id="of-the-first", name="first", for_id="m1", props={"n": 1}))
    await asyncio.gather(*(layer.create_element(element) for element in made))
    made[1].props = {"n": 2}
    await layer.create_element(made[1])  # as Chainlit does where one is changed

    async def shown() -> dict[str, bool]:
        thread: Any = await layer.get_thread("t1")
        return {element["id"]: element["url"] is not None for element in thread["elements"]}

    assert list((await shown()).items()) == [(id, True) for id in ("of-the-first", *ids)]
    monkeypatch.setattr(chainlit_records, "_INLINE_BYTES", 5 * len(made[1].content))
    assert [id for id, whole in (await shown()).items() if not whole] == ["of-the-first"]  # the last have theirs


async def test_deleting_a_step_deletes_its_elements(layer: DaramDataLayer, store: Memory) -> None:
    enter()
    await layer.create_step(step("hi", id="m1"))
    await layer.create_step(step("see below", id="m2", type="assistant_message"))
    for message in ("m2", "m1"):  # sent with one, then with the other
        await layer.create_element(Text(thread_id="t1", id="kept", name="kept", content="words", for_id=message))
    for number in range(3):
        await layer.create_element(Text(thread_id="t1", id=f"e{number}", name="note", content="secret", for_id="m2"))
    # What is being stored as its step is deleted goes too.
    late = Text(thread_id="t1", id="late", name="late", content="secret", for_id="m2")
    await asyncio.gather(layer.create_element(late), layer.delete_step("m2"))
    assert {record.split("/")[-1] for record in await all_records(store) if not record.endswith("/m1")} == {"kept"}
    assert [element["id"] for element in (await layer.get_thread("t1") or {})["elements"] or []] == ["kept"]


async def test_a_user_is_made_once(layer: DaramDataLayer, store: Memory) -> None:
    assert await layer.get_user("alice") is None
    made = await asyncio.gather(*(layer.create_user(User(identifier="alice", metadata={"a": 1})) for _ in range(5)))
    assert {user.id for user in made if user} == {"alice"}
    known: Any = await layer.get_user("alice")
    changed: Any = await layer.create_user(User(identifier="alice", metadata={"a": 2}))
    assert (changed.createdAt, changed.metadata) == (known.createdAt, {"a": 2})
    assert await layer.get_user("alice") == changed


async def test_what_a_session_was_set_to_is_merged_and_comes_back(layer: DaramDataLayer) -> None:
    enter()
    await layer.update_thread("t1", name="x", user_id="alice", tags=["one"])
    await asyncio.gather(*(layer.update_thread("t1", metadata={f"k{n}": n}) for n in range(4)))
    await layer.update_thread("t1", metadata={"k0": None, "k1": [], "empty": {}})
    thread: Any = await layer.get_thread("t1")
    assert thread["metadata"] == {"k1": [], "k2": 2, "k3": 3, "empty": {}}  # a cart that is empty is a cart
    assert thread["tags"] == ["one"]
    assert thread["name"] == "x"


@pytest.mark.parametrize("thread", ["a/b", "a%2Fb", "다" * 256, "a" * 256, "conv with spaces"])
async def test_ids_of_other_doors(layer: DaramDataLayer, store: Memory, thread: str) -> None:
    enter(thread=thread)
    await store.append("alice", thread, [daram.user("hi", id="m/1" + "x" * 100)], create=True)
    await store.append("alice", "a", [daram.user("hi", id="m1")], create=True)
    await layer.upsert_feedback(Feedback(forId="m/1" + "x" * 100, value=1, threadId=thread))
    await layer.create_step(step("more", id="m2", thread=thread))
    found: Any = await layer.get_thread(thread)
    assert texts(found) == ["hi", "more"]
    assert found["steps"][0]["feedback"]["value"] == 1
    neighbour: Any = await layer.get_thread("a")
    assert "feedback" not in neighbour["steps"][0]
    await layer.delete_thread(thread)
    assert await all_records(store) == []


@pytest.mark.parametrize("thread", ["", "x" * 257, "nul\0", "\ud800"])
async def test_an_id_that_none_can_have_is_one_that_none_has(layer: DaramDataLayer, thread: str) -> None:
    enter()
    assert await layer.get_thread(thread) is None
    assert await layer.get_thread_author(thread) == ""


@pytest.mark.parametrize("bounds", [{"history": 0}, {"history": 1001}, {"search": 0}])
def test_bounds_that_no_call_could_keep_are_refused_at_once(store: Memory, bounds: Any) -> None:
    with pytest.raises(InvalidInput, match=next(iter(bounds))):
        DaramDataLayer(store, **bounds)


async def test_an_owner_that_says_nothing_is_no_owner_at_any_door(store: Memory) -> None:
    layer = DaramDataLayer(store, owner=lambda: "")
    enter()
    with pytest.raises(InvalidInput):
        await layer.update_thread("t1", name="x", user_id="alice")
    for call in (
        layer.list_threads(Pagination(first=20), ThreadFilter(userId="alice")),
        layer.get_favorite_steps("alice"),
    ):
        with pytest.raises(InvalidInput):
            await call
    assert (await store.list("alice")).items == []


def test_a_store_without_records_is_refused(store_without_records: Callable[[], Any]) -> None:
    with pytest.raises(Unsupported):
        DaramDataLayer(store_without_records())


@pytest.fixture
def store_without_records() -> Callable[[], Any]:
    class Bare:
        pass

    return Bare
