"""What the data layer keeps beside the messages: opinions, favourites, files, users, what a session was set to."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from tests.chainlit_home import load_chainlit

import daram
from daram.errors import NotFound, TooLarge
from daram.memory import Memory

load_chainlit()

from chainlit.element import CustomElement, Text  # noqa: E402
from chainlit.session import ws_sessions_id, ws_sessions_sid  # noqa: E402
from chainlit.types import Feedback  # noqa: E402
from chainlit.user import User  # noqa: E402
from tests.adapters.chainlit_steps import all_records, at, enter, pages, step, texts  # noqa: E402

from daram.adapters.chainlit import DaramDataLayer  # noqa: E402
from daram.adapters.chainlit import records as chainlit_records  # noqa: E402
from daram.adapters.chainlit import writes as chainlit_writes  # noqa: E402


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
