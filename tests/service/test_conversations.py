"""The Conversations API as the official SDK uses it, against the service on a real port."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from hashlib import sha256
from typing import Any
from urllib.parse import quote

import httpx
import openai
import pytest
from openai import AsyncOpenAI, OpenAI
from tests.service.live import Live, live_service
from tests.service.people import Person, make_person

import daram
from daram import Message, Part
from daram.store.validate import Limits


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    with live_service(tmp_path_factory.mktemp("conversations"), rate_limit=0) as running:
        yield running


@pytest.fixture
def somebody(service: Live) -> Person:
    return make_person("write")


@pytest.fixture
def client(service: Live, somebody: Person) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{service.url}/v1", api_key=somebody.key, max_retries=0) as made:
        yield made


@pytest.fixture
def web(service: Live, somebody: Person) -> Iterator[httpx.Client]:
    """Plain HTTP, for what is beyond the SDK."""
    with httpx.Client(base_url=f"{service.url}/v1", headers=somebody.headers, timeout=120) as made:
        yield made


def said(*texts: str, role: str = "user") -> list[Any]:
    return [{"role": role, "content": text} for text in texts]


def texts_of(found: Any) -> list[str]:
    return [item.content[0].text for item in found]


# --- conversations --------------------------------------------------------------------------------------------------


def test_a_conversation_from_its_making_to_its_end(client: OpenAI) -> None:
    made = client.conversations.create(metadata={"topic": "squirrels"}, items=said("hello"))
    assert made.object == "conversation" and made.metadata == {"topic": "squirrels"}
    assert made.id.startswith("conv_") and isinstance(made.created_at, int)
    assert client.conversations.retrieve(made.id) == made

    changed = client.conversations.update(made.id, metadata={"topic": "nuts"})
    assert changed.id == made.id and changed.metadata == {"topic": "nuts"}
    assert client.conversations.update(made.id, metadata=None).metadata == {}

    gone = client.conversations.delete(made.id)
    assert (gone.id, gone.deleted, gone.object) == (made.id, True, "conversation.deleted")
    for again in (client.conversations.retrieve, client.conversations.delete, client.conversations.items.list):
        with pytest.raises(openai.NotFoundError) as caught:
            again(made.id)
        assert caught.value.body == {
            "message": f"Conversation with id '{made.id}' not found.",
            "type": "invalid_request_error",
            "param": None,
            "code": "not_found",
        }
        assert caught.value.request_id


def test_an_empty_conversation(client: OpenAI) -> None:
    for made in (client.conversations.create(), client.conversations.create(items=[], metadata=None)):
        assert made.metadata == {}
        assert client.conversations.items.list(made.id).data == []


def test_what_no_conversation_may_have(client: OpenAI, web: httpx.Client) -> None:
    refused: list[tuple[dict[str, Any], str]] = [
        ({"metadata": {str(i): "x" for i in range(17)}}, "metadata"),
        ({"metadata": {"k": "x" * 513}}, "metadata['k']"),
        ({"metadata": {"k" * 65: "x"}}, "metadata key"),
        ({"metadata": {"k": 1}}, "metadata.k"),
        ({"items": said(*"x" * 21)}, "items"),
        ({"items": [{"role": "user"}]}, "items[0].content"),
        ({"items": [*said("x"), {"role": "user", "content": "a\x00b"}]}, "items[1]"),
        ({"items": [*said("x"), {"id": "a/b", "role": "user", "content": "x"}]}, "items[1].id"),
        ({"itmes": []}, "itmes"),
    ]
    for body, field in refused:
        answer = web.post("/conversations", json=body)
        assert answer.status_code == 400, body
        assert answer.json()["error"]["type"] == "invalid_request_error"
        assert answer.json()["error"]["param"].startswith(field), answer.text
    assert web.get("/conversations").json()["data"] == [], "a refused conversation must not be there"


def test_too_much_for_one_item(web: httpx.Client) -> None:
    answer = web.post("/conversations", json={"items": said("x" * (Limits().message_bytes + 1))})
    assert answer.status_code == 413 and answer.json()["error"]["code"] == "too_large"
    assert answer.json()["error"]["param"] == "items[0]", answer.text
    assert web.get("/conversations").json()["data"] == []


def test_titles_pins_and_archives(web: httpx.Client) -> None:
    made = web.post("/conversations", json={"title": "Nuts", "metadata": {"a": "b"}}).json()
    assert made["title"] == "Nuts" and made["pinned"] is False
    changed = web.post(f"/conversations/{made['id']}", json={"pinned": True, "archived": True, "title": None}).json()
    assert (changed["title"], changed["pinned"], changed["archived"]) == (None, True, True)
    assert changed["metadata"] == {"a": "b"}, "what is not given stays"
    assert web.post(f"/conversations/{made['id']}", json={"pinned": None}).status_code == 400
    assert web.get(f"/conversations/{made['id']}").json() == changed


def test_the_list_is_paged(web: httpx.Client) -> None:
    made = [web.post("/conversations", json={"title": str(i)}).json()["id"] for i in range(5)]
    web.post(f"/conversations/{made[1]}/items", json={"items": said("changed last")})
    order = [made[1], made[4], made[3], made[2], made[0]]

    for by in ("after", "cursor"):
        found: list[str] = []
        page = web.get("/conversations", params={"limit": 2}).json()
        while True:
            found += [one["id"] for one in page["data"]]
            assert (page["first_id"], page["last_id"]) == (page["data"][0]["id"], page["data"][-1]["id"])
            if not page["has_more"]:
                break
            place = page["last_id"] if by == "after" else page["next_cursor"]
            page = web.get("/conversations", params={"limit": 2, by: place}).json()
        assert found == order
    assert web.get("/conversations", params={"after": "conv_x"}).status_code == 404
    assert web.get("/conversations", params={"cursor": "garbage"}).status_code == 400


def test_items_that_come_with_it_are_one_write(service: Live, client: OpenAI, monkeypatch: pytest.MonkeyPatch) -> None:
    """There is no moment at which a crash would leave an empty conversation."""
    monkeypatch.setattr(service.memory, "create", None)
    made = client.conversations.create(items=said("one", "two"))
    assert texts_of(client.conversations.items.list(made.id, order="asc")) == ["one", "two"]


@pytest.mark.parametrize("id", ["notes/2026", "/", "a%2Fb/c", "다람쥐/둘", "../v1/models", "a/b?c#d"])
def test_an_id_with_a_slash_is_reached(
    service: Live, somebody: Person, client: OpenAI, web: httpx.Client, id: str
) -> None:
    """Other doors take ids of the caller's own making."""
    service.call(service.memory.create(somebody.owner, id=id))
    assert id in [found["id"] for found in web.get("/conversations").json()["data"]]
    assert client.conversations.retrieve(id).id == id
    item = client.conversations.items.create(id, items=said("hello")).data[0]
    assert client.conversations.items.retrieve(item.id or "", conversation_id=id) == item
    path = f"/conversations/{quote(id, safe='')}"
    assert web.get(f"{path}/items").json()["data"][0]["id"] == item.id
    assert client.conversations.delete(id).deleted
    assert [web.get(f"/conversations/{other}").status_code for other in ("%00", "%00%2F")] == [400, 404]
    assert web.get(path).json()["error"]["message"] == f"Conversation with id {id!r} not found."


# --- items ----------------------------------------------------------------------------------------------------------


def test_items_come_in_pages_in_both_directions(client: OpenAI) -> None:
    conversation = client.conversations.create().id
    for start in (0, 20, 40):
        made = client.conversations.items.create(conversation, items=said(*(str(start + i) for i in range(20))))
        assert texts_of(made.data) == [str(start + i) for i in range(20)]
        assert (made.first_id, made.last_id, made.has_more) == (made.data[0].id, made.data[-1].id, False)

    newest = client.conversations.items.list(conversation)
    assert texts_of(newest.data) == [str(i) for i in range(59, 39, -1)] and newest.has_more
    for order, limit in (("asc", 7), ("desc", 1), ("asc", 100), ("desc", 20)):
        found = texts_of(client.conversations.items.list(conversation, order=order, limit=limit))  # type: ignore[arg-type]
        assert found == [str(i) for i in (range(60) if order == "asc" else range(59, -1, -1))]
    after = newest.data[3].id
    assert texts_of(client.conversations.items.list(conversation, after=after, limit=2).data) == ["55", "54"]
    assert texts_of(client.conversations.items.list(conversation, after=after, order="asc").data) == ["57", "58", "59"]
    with pytest.raises(openai.NotFoundError):
        client.conversations.items.list(conversation, after="msg_x")
    for limit in (0, 101):
        with pytest.raises(openai.BadRequestError) as caught:
            client.conversations.items.list(conversation, limit=limit)
        assert caught.value.param == "limit"
    with pytest.raises(openai.BadRequestError):
        client.conversations.items.list(conversation, order="up")  # type: ignore[arg-type]


def test_a_page_of_large_items_ends_early(client: OpenAI) -> None:
    conversation = client.conversations.create().id
    for start in (0, 10, 20):
        items = said(*(f"{start + i} " + "x" * 500_000 for i in range(10)))
        client.conversations.items.create(conversation, items=items)
    first = client.conversations.items.list(conversation, order="asc", limit=100)
    assert 0 < len(first.data) < 30 and first.has_more
    found = [
        text.split()[0] for text in texts_of(client.conversations.items.list(conversation, order="asc", limit=100))
    ]
    assert found == [str(i) for i in range(30)]


def test_one_item(client: OpenAI) -> None:
    conversation = client.conversations.create(items=said("one", "two")).id
    two, one = client.conversations.items.list(conversation).data
    include: list[Any] = ["message.input_image.image_url"]
    assert client.conversations.items.retrieve(one.id, conversation_id=conversation, include=include) == one  # type: ignore[arg-type]
    left = client.conversations.items.delete(one.id, conversation_id=conversation)  # type: ignore[arg-type]
    assert left.id == conversation and left.object == "conversation"
    assert client.conversations.items.list(conversation).data == [two]
    for again in (client.conversations.items.retrieve, client.conversations.items.delete):
        with pytest.raises(openai.NotFoundError) as caught:
            again(one.id, conversation_id=conversation)  # type: ignore[arg-type]
        assert caught.value.body["message"] == f"Item with id '{one.id}' not found."  # type: ignore[index]
    # It must not come back by a late repetition.
    with pytest.raises(openai.ConflictError) as gone:
        client.conversations.items.create(conversation, items=[{"id": one.id, **said("one")[0]}])
    assert gone.value.code == "gone"


def test_items_of_every_kind_come_back(client: OpenAI) -> None:
    given: list[Any] = [
        {"type": "message", "role": "developer", "content": "be brief"},
        {
            "role": "user",
            "content": [
                {"type": "input_text", "text": "what is this?"},
                {"type": "input_image", "image_url": "data:image/png;base64,AAAA", "detail": "low"},
                {"type": "input_file", "filename": "a.pdf", "file_data": "data:application/pdf;base64,AAAA"},
            ],
        },
        {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "hm"}]},
        {"type": "function_call", "call_id": "c1", "name": "look", "arguments": "{}", "status": "completed"},
        {"type": "function_call_output", "call_id": "c1", "output": "a nut"},
        {
            "type": "message",
            "role": "assistant",
            "status": "completed",
            "content": [
                {
                    "type": "output_text",
                    "text": "A nut.",
                    "annotations": [
                        {"type": "url_citation", "url": "http://x", "title": "x", "start_index": 0, "end_index": 1}
                    ],
                },
                {"type": "refusal", "refusal": "No more."},
            ],
        },
        {"type": "mcp_list_tools", "id": "mcpl_1", "server_label": "s", "tools": []},
    ]
    conversation = client.conversations.create(items=given).id
    found = [item.model_dump(exclude_unset=True) for item in client.conversations.items.list(conversation, order="asc")]
    for before, after in zip(given, found, strict=True):
        content = before.get("content")
        if isinstance(content, str):
            before = {**before, "content": [{"type": "input_text", "text": content}]}
        assert before.items() <= after.items()


def test_an_answer_of_several_items_is_paged_item_by_item(service: Live, somebody: Person, client: OpenAI) -> None:
    conversation = client.conversations.create(items=said("add")).id
    call = {"name": "add", "arguments": "{}"}
    answer = Message(
        role="assistant",
        text="I add.",
        parts=(
            Part(type="reasoning", data={"text": "hm"}),
            Part(type="tool_call", data={"call_id": "a", **call}),
            Part(type="tool_call", data={"call_id": "b", **call}),
        ),
    )
    service.call(service.memory.append(somebody.owner, conversation, [answer]))
    client.conversations.items.create(
        conversation, items=[{"type": "function_call_output", "call_id": "a", "output": "1"}]
    )
    kinds = ["message", "reasoning", "message", "function_call", "function_call", "function_call_output"]
    whole = list(client.conversations.items.list(conversation, order="asc"))
    assert [item.type for item in whole] == kinds
    for limit in (1, 2, 3, 4, 5):
        assert list(client.conversations.items.list(conversation, order="asc", limit=limit)) == whole
        assert list(client.conversations.items.list(conversation, limit=limit)) == whole[::-1]
    for item in whole:
        assert client.conversations.items.retrieve(item.id, conversation_id=conversation) == item  # type: ignore[arg-type]
    with pytest.raises(openai.ConflictError):  # an id must lead to one item
        client.conversations.items.create(conversation, items=[whole[3].model_dump(exclude_unset=True)])  # type: ignore[list-item]
    client.conversations.items.delete(str(whole[4].id), conversation_id=conversation)
    assert [item.type for item in client.conversations.items.list(conversation)] == ["function_call_output", "message"]


def test_an_id_is_used_once(client: OpenAI) -> None:
    conversation = client.conversations.create(items=[{"id": "msg_a", **said("one")[0]}]).id
    with pytest.raises(openai.ConflictError):
        client.conversations.items.create(conversation, items=[{"id": "msg_a", **said("two")[0]}])
    with pytest.raises(openai.BadRequestError):
        client.conversations.items.create(conversation, items=[{"id": "msg_b", **said(t)[0]} for t in "xy"])
    assert texts_of(client.conversations.items.list(conversation)) == ["one"]
    assert client.conversations.create(items=[{"id": "msg_a", **said("another conversation")[0]}])


# --- branches, export, search, models -------------------------------------------------------------------------------


def test_an_edit_is_a_branch(web: httpx.Client) -> None:
    made = web.post("/conversations", json={"items": [*said("one"), *said("1", role="assistant"), *said("two")]}).json()
    path = f"/conversations/{made['id']}"

    def shown() -> list[str]:
        return [item["content"][0]["text"] for item in web.get(f"{path}/items?order=asc").json()["data"]]

    def branches(item: str) -> list[tuple[str, bool]]:
        found = web.get(f"{path}/items/{item}/branches").json()["data"]
        return [(one["items"][0]["content"][0]["text"], one["in_use"]) for one in found]

    first, _, two = [item["id"] for item in web.get(f"{path}/items?order=asc").json()["data"]]
    edited = web.post(f"{path}/items", json={"items": said("2"), "beside": two}).json()["data"][0]["id"]
    assert shown() == ["one", "1", "2"]
    assert branches(two) == branches(edited) == [("two", False), ("2", True)]
    web.post(f"{path}/items", json={"items": said("three")})
    assert branches(two) == [("two", False), ("2", True)]

    assert web.post(f"{path}/items/{two}/use").json()["id"] == made["id"]
    assert shown() == ["one", "1", "two"]
    assert branches(edited) == [("two", True), ("2", False)]
    web.post(f"{path}/items/{edited}/use")
    assert shown() == ["one", "1", "2", "three"], "the branch comes back to its end"

    web.post(f"{path}/items", json={"items": said("anew"), "beside": first})
    assert shown() == ["anew"]
    assert branches(first) == [("one", False), ("anew", True)]
    assert web.post(f"{path}/items", json={"items": said("x"), "beside": "msg_x"}).status_code == 404


def test_many_branches_are_paged_and_cost_few_reads(
    service: Live, somebody: Person, web: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = web.post("/conversations", json={"items": [*said("one"), *said("0", role="assistant")]}).json()
    path = f"/conversations/{made['id']}"
    first = web.get(f"{path}/items").json()["data"][0]["id"]
    for number in range(1, 30):
        assert web.post(f"{path}/items", json={"items": said(str(number)), "beside": first}).status_code == 200
    used = web.get(f"{path}/items/{first}/branches", params={"limit": 100}).json()["data"][12]["id"]
    web.post(f"{path}/items/{used}/use")
    web.post(f"{path}/items", json={"items": said("behind it")})

    reads: list[str] = []

    def counted(name: str, call: Any) -> Any:
        def read(*args: Any, **kwargs: Any) -> Any:
            reads.append(name)
            return call(*args, **kwargs)

        return read

    for name in ("message", "messages", "branches", "get", "tail"):
        monkeypatch.setattr(daram.Memory, name, counted(name, getattr(daram.Memory, name)))
    found: list[Any] = []
    more: dict[str, str] = {}
    while True:
        reads.clear()
        page = web.get(f"{path}/items/{first}/branches", params=more).json()
        assert len(reads) < 6
        assert len(page["data"]) <= 20
        found += page["data"]
        if not page["has_more"]:
            break
        more = {"after": page["last_id"]}
    assert [one["items"][0]["content"][0]["text"] for one in found] == [str(number) for number in range(30)]
    assert [one["id"] for one in found if one["in_use"]] == [used]
    assert web.get(f"{path}/items/{first}/branches", params={"after": "msg_x"}).status_code == 404


def test_the_export_is_read_while_it_is_sent(
    service: Live, somebody: Person, web: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = service.call(service.memory.create(somebody.owner)).id
    for _ in range(3):
        texts = [daram.user(f"{number} " + "acorn " * 200) for number in range(80)]
        service.call(service.memory.append(somebody.owner, made, texts))
    arrived = threading.Event()
    waited: list[bool] = []
    log = daram.Memory.log

    async def held_back(self: daram.Memory, *args: Any, **kwargs: Any) -> Any:
        if kwargs["after"]:  # a later page is there only when some of the first one has arrived
            waited.append(await asyncio.to_thread(arrived.wait, 60))
        return await log(self, *args, **kwargs)

    monkeypatch.setattr(daram.Memory, "log", held_back)
    with web.stream("GET", f"/conversations/{made}/export") as answer:
        whole = b""
        for chunk in answer.iter_bytes():
            arrived.set()
            whole += chunk
    assert waited == [True, True]
    found = [json.loads(line) for line in whole.splitlines()]
    assert [line["type"] for line in found] == ["header", "conversation", *["message"] * 240, "end"]


def test_an_export_that_fails_on_its_way_is_cut(
    service: Live, somebody: Person, web: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = web.post("/conversations", json={"items": said("one")}).json()["id"]

    async def down(*args: Any, **kwargs: Any) -> Any:
        raise daram.StoreUnavailable("the server is down")

    monkeypatch.setattr(daram.Memory, "log", down)
    with pytest.raises(httpx.RemoteProtocolError):
        web.get(f"/conversations/{made}/export")


def test_the_export_can_be_read(service: Live, web: httpx.Client) -> None:
    made = web.post("/conversations", json={"title": "Nuts", "items": said("하나", "two")}).json()["id"]
    answer = web.get(f"/conversations/{made}/export")
    assert answer.headers["content-type"] == "application/jsonl"
    found = [json.loads(line) for line in answer.text.splitlines()]
    assert [line["type"] for line in found] == ["header", "conversation", "message", "message", "end"]
    assert [line["text"] for line in found[2:4]] == ["하나", "two"]
    assert web.get("/conversations/conv_x/export").status_code == 404


def test_the_search_finds_words(web: httpx.Client) -> None:
    one = web.post("/conversations", json={"title": "Nuts", "items": said("다람쥐가 도토리를 숨긴다")}).json()["id"]
    web.post("/conversations", json={"items": said("nothing")})
    [found] = web.get("/conversations/search", params={"q": "도토리"}).json()["data"]
    assert (found["conversation_id"], found["title"]) == (one, "Nuts")
    assert found["items"][0]["content"][0]["text"] == "다람쥐가 도토리를 숨긴다"
    assert web.get(f"/conversations/{one}/items/{found['id']}").json() == found["items"][0]
    assert web.get("/conversations/search", params={"q": "elephant"}).json()["data"] == []
    assert web.get("/conversations/search", params={"q": "도토리", "conversation": "conv_x"}).status_code == 404
    assert web.get("/conversations/search").status_code == 400


def test_models(client: OpenAI) -> None:
    assert [model.id for model in client.models.list()] == [], "none is set up"
    with pytest.raises(openai.InternalServerError) as caught:
        client.responses.create(model="any", input="kept?")
    assert (caught.value.status_code, caught.value.code) == (503, "model_unavailable")
    assert "daram doctor" in caught.value.message
    assert [hit["title"] for hit in client.get("/conversations/search?q=kept", cast_to=object)["data"]] == [None]  # type: ignore[index]
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("no/such-model")


# --- repetitions ----------------------------------------------------------------------------------------------------


def test_a_repetition_with_the_same_key_is_one_request(service: Live, somebody: Person, web: httpx.Client) -> None:
    once = {"Idempotency-Key": "first"}
    made = web.post("/conversations", json={"items": said("x")}, headers=once)
    again = web.post("/conversations", json={"items": said("x")}, headers=once)
    assert again.json() == made.json() and again.headers["idempotent-replayed"] == "true"
    assert len(web.get("/conversations").json()["data"]) == 1

    other = web.post("/conversations", json={"items": said("y")}, headers=once)
    assert other.status_code == 422 and other.json()["error"]["code"] == "idempotency_key_reused"
    elsewhere = web.post(f"/conversations/{made.json()['id']}", json={"items": said("x")}, headers=once)
    assert elsewhere.status_code in (400, 422)

    path = f"/conversations/{made.json()['id']}/items"
    first, second = (web.post(path, json={"items": said("y")}, headers={"Idempotency-Key": "k"}) for _ in range(2))
    assert second.json() == first.json()
    assert [item["content"][0]["text"] for item in web.get(path).json()["data"]] == ["y", "x"]
    for bad in ("", "k" * 256):
        assert web.post(path, json={"items": said("z")}, headers={"Idempotency-Key": bad}).status_code == 400

    with httpx.Client(base_url=f"{service.url}/v1", headers=make_person("write").headers, timeout=120) as another:
        theirs = another.post("/conversations", json={"items": said("x")}, headers=once)
        assert theirs.status_code == 200 and theirs.json()["id"] != made.json()["id"], "keys are each owner's own"


async def test_repetitions_at_once_do_it_once(service: Live, somebody: Person) -> None:
    async with httpx.AsyncClient(base_url=f"{service.url}/v1", headers=somebody.headers, timeout=120) as web:
        made = (await web.post("/conversations", json={})).json()["id"]
        path, body = f"/conversations/{made}/items", {"items": said("once")}
        answers = await asyncio.gather(*(web.post(path, json=body, headers={"Idempotency-Key": "k"}) for _ in range(8)))
        done = [answer.json() for answer in answers if answer.status_code == 200]
        assert done and all(answer == done[0] for answer in done)
        assert all(answer.status_code in (200, 409) for answer in answers)
        assert len((await web.get(path)).json()["data"]) == 1


def test_a_repetition_after_a_crash_stores_nothing_twice(service: Live, somebody: Person, web: httpx.Client) -> None:
    """As if the process had died between the writing and the noting of it: the record says "being worked on"."""
    from daram.service.openai_api import idempotency

    made = web.post("/conversations", json={}).json()["id"]
    path, key = f"/conversations/{made}/items", {"Idempotency-Key": "k"}
    first = web.post(path, json={"items": said("a", "b")}, headers=key).json()

    async def die() -> None:
        [record] = (await service.memory.scan_records(somebody.owner, idempotency.NAMESPACE)).items
        kept = idempotency._decode(record.value)
        undone = idempotency._Kept(request=kept.request, seed=kept.seed, until=0.0)
        await service.memory.put_record(somebody.owner, idempotency.NAMESPACE, record.key, idempotency._encode(undone))

    service.call(die())
    again = web.post(path, json={"items": said("a", "b")}, headers=key)
    assert "idempotent-replayed" not in again.headers
    assert again.json() == first
    assert len(web.get(path).json()["data"]) == 2


def test_a_repetition_brings_nothing_back_that_was_deleted(service: Live, somebody: Person, web: httpx.Client) -> None:
    key, item_key = {"Idempotency-Key": "c"}, {"Idempotency-Key": "i"}
    body, more = {"items": said("a secret")}, {"items": said("another secret")}
    made = web.post("/conversations", json=body, headers=key).json()["id"]
    path = f"/conversations/{made}/items"
    item = web.post(path, json=more, headers=item_key).json()["data"][0]["id"]

    async def records() -> bytes:
        return b"".join([one.value for one in (await service.memory.scan_records(somebody.owner, "idempotency")).items])

    assert b"secret" not in service.call(records())
    web.delete(f"{path}/{item}")
    again = web.post(path, json=more, headers=item_key)
    assert again.status_code == 404 and "secret" not in again.text
    web.delete(f"/conversations/{made}")
    for answer in (web.post("/conversations", json=body, headers=key), web.post(path, json=more, headers=item_key)):
        assert answer.status_code == 404 and "secret" not in answer.text
    assert web.get("/conversations").json()["data"] == []


def test_a_key_keeps_no_copy_of_what_was_said(service: Live, somebody: Person, web: httpx.Client) -> None:
    """Not even a digest that somebody could compare with a guess."""
    body = {"items": said("a secret of the squirrel")}
    sent = httpx.Request("POST", "http://x", json=body).content
    web.post("/conversations", json=body, headers={"Idempotency-Key": "k"})
    [record] = service.call(service.memory.scan_records(somebody.owner, "idempotency")).items
    guess = sha256(f"POST {len('/v1/conversations')} /v1/conversations ".encode() + sent).digest()
    assert b"squirrel" not in record.value
    assert guess not in record.value


def test_a_repeated_change_does_not_undo_a_later_one(web: httpx.Client) -> None:
    key = {"Idempotency-Key": "k"}
    path = f"/conversations/{web.post('/conversations', json={}).json()['id']}"
    web.post(path, json={"title": "first"}, headers=key)
    web.post(path, json={"title": "second"})
    assert web.post(path, json={"title": "first"}, headers=key).json()["title"] == "second"


def test_a_refused_request_may_be_tried_again_with_its_key(web: httpx.Client) -> None:
    key = {"Idempotency-Key": "k"}
    body = {"items": said("x"), "beside": "msg_1"}
    made = web.post("/conversations", json={}).json()["id"]
    assert web.post(f"/conversations/{made}/items", json=body, headers=key).status_code == 404
    web.post(f"/conversations/{made}/items", json={"items": [{"id": "msg_1", **said("w")[0]}]})
    assert web.post(f"/conversations/{made}/items", json=body, headers=key).status_code == 200


# --- what is malformed ----------------------------------------------------------------------------------------------


def test_malformed_requests(web: httpx.Client) -> None:
    as_json = {"Content-Type": "application/json"}
    for body in (b"{", b"\xff", b"[]", b'"x"', b'{"metadata": NaN}', b'{"title": "\\ud800"}', b"[" * 100_000):
        answer = web.post("/conversations", content=body, headers=as_json)
        assert answer.status_code == 400, body[:20]
        assert answer.json()["error"]["type"] == "invalid_request_error"
    assert web.post("/conversations", content=b"{}").status_code == 415
    assert web.post("/conversations", data={"metadata": "x"}).status_code == 415
    refused = web.put("/conversations", json={})
    assert refused.status_code == 405 and set(refused.headers["allow"].split(", ")) == {"GET", "POST"}
    said = [
        web.post(path, json=body).json()["error"]["message"]
        for path, body in (("/conversations", []), ("/responses", {}))
    ]
    assert said == ["The body of the request must be a JSON object.", "input: is missing"]
    for path in ("/nothing", "/conversations/a/b", "/", "/conversations/x/items/y/z"):
        answer = web.get(path)
        assert answer.status_code == 404 and answer.json()["error"]["code"] == "unknown_url", path
    assert web.get("/conversations/" + "x" * 300).status_code == 400


def test_nothing_of_the_inside_is_told(service: Live, web: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    async def breaks(*_: object, **__: object) -> None:
        raise RuntimeError("secret inside")

    async def unreachable(*_: object, **__: object) -> None:
        raise daram.errors.StoreUnavailable("/secret/path/daram.db cannot be opened")

    monkeypatch.setattr(service.memory, "get", breaks)
    answer = web.get("/conversations/conv_x")
    assert answer.status_code == 500 and answer.json()["error"]["type"] == "server_error"
    assert "secret" not in answer.text and "Traceback" not in answer.text
    monkeypatch.setattr(service.memory, "get", unreachable)
    answer = web.get("/conversations/conv_x")
    assert answer.status_code == 503 and "secret" not in answer.text
    assert answer.headers["retry-after"] == "1"


# --- the other faces ------------------------------------------------------------------------------------------------


async def test_the_asynchronous_sdk(service: Live, somebody: Person) -> None:
    async with AsyncOpenAI(base_url=f"{service.url}/v1", api_key=somebody.key, max_retries=0) as client:
        made = await client.conversations.create(items=said("one"), metadata={"a": "b"})
        assert await client.conversations.retrieve(made.id) == made
        assert (await client.conversations.update(made.id, metadata={})).metadata == {}
        created = await client.conversations.items.create(made.id, items=said("two", role="assistant"))
        assert texts_of(created.data) == ["two"]
        found = [item async for item in client.conversations.items.list(made.id, order="asc", limit=1)]
        assert texts_of(found) == ["one", "two"]
        one = await client.conversations.items.retrieve(str(found[0].id), conversation_id=made.id)
        assert one == found[0]
        assert (await client.conversations.items.delete(str(one.id), conversation_id=made.id)).id == made.id
        assert [model.id async for model in client.models.list()] == []
        assert (await client.conversations.delete(made.id)).deleted


async def test_the_session_of_the_agents_sdk(service: Live, somebody: Person) -> None:
    agents = pytest.importorskip("agents")
    async with AsyncOpenAI(base_url=f"{service.url}/v1", api_key=somebody.key, max_retries=0) as client:
        session = agents.OpenAIConversationsSession(openai_client=client)
        assert await session.get_items() == []
        history: list[Any] = said(*(f"message {i}" for i in range(45)))
        await session.add_items(history)
        answer: Any = {
            "id": "__fake_id__",
            "type": "message",
            "role": "assistant",
            "status": "completed",
            "content": [{"type": "output_text", "text": "yes", "annotations": []}],
        }
        await session.add_items([answer])
        await session.add_items([answer])
        kept = await session.get_items()
        assert [item["content"][0]["text"] for item in kept] == [*(f"message {i}" for i in range(45)), "yes", "yes"]
        assert [item["content"][0]["text"] for item in await session.get_items(limit=3)] == ["message 44", "yes", "yes"]
        popped = await session.pop_item()
        assert popped == kept[-1]
        assert await session.get_items() == kept[:-1]
        one = session.session_id
        await session.clear_session()
        with pytest.raises(openai.NotFoundError):
            await client.conversations.retrieve(one)
        assert await session.pop_item() is None, "it begins anew"
