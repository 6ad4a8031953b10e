"""Chainlit's data layer on Daram's engines, with Chainlit's own classes and context."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from tests.chainlit_home import load_chainlit

import daram
from daram.chat import Chatbot
from daram.errors import InvalidInput, NotFound, Unsupported
from daram.llm.base import Delta, Options
from daram.memory import Memory
from daram.model import Message
from daram.store.wrapper import StoreWrapper

load_chainlit()

from chainlit.context import init_ws_context  # noqa: E402
from chainlit.element import Text  # noqa: E402
from chainlit.session import WebsocketSession, ws_sessions_id, ws_sessions_sid  # noqa: E402
from chainlit.types import Feedback, Pagination, ThreadFilter  # noqa: E402
from tests.adapters.chainlit_steps import ALICE, BOB, all_records, at, enter, pages, step, texts  # noqa: E402

from daram.adapters.chainlit import DaramDataLayer  # noqa: E402
from daram.adapters.chainlit import records as chainlit_records  # noqa: E402


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


# --- what it refuses ---


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
