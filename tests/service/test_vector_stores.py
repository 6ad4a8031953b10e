"""``/v1/files``, ``/v1/vector_stores`` and the tool ``file_search``, as the official SDK calls them."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Iterator

import httpx
import openai
import pytest
from openai import AsyncOpenAI, OpenAI
from openai.types.responses import ResponseFileSearchToolCall, ResponseOutputMessage
from tests.service.live import Live, live_service
from tests.service.people import Person, make_person
from tests.service.quoting import Quoting

LEAVE = b"# Leave\n\nEmployees earn 1.5 days of paid leave for each month worked.\n"
MENU = "# 식당\n\n식당은 평일 오전 11시 30분부터 오후 2시까지 연다. 금요일에는 비빔밥이 나온다.\n".encode()
_THRESHOLD = "ranking_options.score_threshold"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    folder = tmp_path_factory.mktemp("vector-stores")
    with live_service(folder, model=Quoting(), rate_limit=0, titles=False, embedder="off") as found:
        yield found


@pytest.fixture
def who(service: Live) -> Person:
    return make_person("write")


@pytest.fixture
def client(service: Live, who: Person) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{service.url}/v1", api_key=who.key, max_retries=0, timeout=120) as found:
        yield found


def stored(client: OpenAI, *files: tuple[str, bytes]) -> str:
    """A vector store with these files, read."""
    store = client.vector_stores.create(name="handbook")
    for file in files:
        done = client.vector_stores.files.upload_and_poll(vector_store_id=store.id, file=file, poll_interval_ms=100)
        assert (done.status, done.last_error) == ("completed", None)
    return store.id


def test_files(client: OpenAI) -> None:
    made = client.files.create(file=("leave.md", LEAVE), purpose="assistants")
    assert (made.filename, made.bytes, made.purpose, made.status) == ("leave.md", len(LEAVE), "assistants", "processed")
    other = client.files.create(file=("넷.txt", io.BytesIO(b"x" * 3_000_000)), purpose="user_data")
    assert client.files.retrieve(made.id) == made
    assert client.files.content(made.id).read() == LEAVE
    assert len(client.files.content(other.id).read()) == other.bytes == 3_000_000
    assert [file.id for file in client.files.list()] == [other.id, made.id]
    assert [file.filename for file in client.files.list(order="asc", limit=1)] == ["leave.md", "넷.txt"]
    assert [file.id for file in client.files.list(purpose="user_data")] == [other.id]
    assert client.files.delete(made.id).deleted
    with pytest.raises(openai.NotFoundError):
        client.files.content(made.id)
    assert [file.id for file in client.files.list()] == [other.id]


def test_a_repeated_upload_is_one_file(service: Live, who: Person, client: OpenAI) -> None:
    key = {"Idempotency-Key": "one"}
    first, second = (
        client.files.create(file=("leave.md", LEAVE), purpose="assistants", extra_headers=key) for _ in range(2)
    )
    assert first == second
    assert len(list(client.files.list())) == 1
    with pytest.raises(openai.UnprocessableEntityError):
        client.files.create(file=("leave.md", LEAVE + b"!"), purpose="assistants", extra_headers=key)


def test_a_file_goes_from_its_vector_stores_when_it_is_deleted(client: OpenAI) -> None:
    store = stored(client, ("leave.md", LEAVE))
    [file] = client.vector_stores.files.list(store)
    assert [found.filename for found in client.vector_stores.search(store, query="paid leave")] == ["leave.md"]
    client.files.delete(file.id)
    assert list(client.vector_stores.files.list(store)) == []
    assert list(client.vector_stores.search(store, query="paid leave")) == []


def test_vector_stores(client: OpenAI) -> None:
    assert list(client.vector_stores.list()) == []
    file = client.files.create(file=("leave.md", LEAVE), purpose="assistants")
    store = client.vector_stores.create(
        name="handbook",
        file_ids=[file.id],
        metadata={"a": "b"},
        chunking_strategy={"type": "static", "static": {"max_chunk_size_tokens": 100, "chunk_overlap_tokens": 20}},
    )
    assert (store.name, store.metadata, store.file_counts.total) == ("handbook", {"a": "b"}, 1)
    assert client.vector_stores.files.poll(file.id, vector_store_id=store.id).status == "completed"
    other = client.vector_stores.create(name="empty")
    assert [found.id for found in client.vector_stores.list(limit=1)] == [other.id, store.id]
    assert [found.id for found in client.vector_stores.list(order="asc", after=store.id)] == [other.id]
    assert [found.id for found in client.vector_stores.list(before=store.id)] == [other.id]
    changed = client.vector_stores.update(store.id, name="renamed", metadata={})
    assert (changed.name, changed.metadata) == ("renamed", {})
    again = client.vector_stores.retrieve(store.id)
    assert (again.name, again.status, again.usage_bytes) == ("renamed", "completed", len(LEAVE))
    assert again.file_counts.completed == 1
    assert client.vector_stores.delete(store.id).deleted
    with pytest.raises(openai.NotFoundError):
        client.vector_stores.search(store.id, query="paid leave")
    assert client.files.retrieve(file.id).id == file.id  # the upload stays


def test_files_of_a_vector_store(client: OpenAI) -> None:
    store = stored(client, ("leave.md", LEAVE), ("menu.md", MENU))
    menu, leave = client.vector_stores.files.list(store)
    assert [one.id for one in client.vector_stores.files.list(store, order="asc")] == [leave.id, menu.id]
    assert list(client.vector_stores.files.list(store, filter="failed")) == []
    read = client.vector_stores.files.content(menu.id, vector_store_id=store)
    assert "비빔밥" in "".join(piece.text or "" for piece in read)
    [best] = client.vector_stores.search(store, query="비빔밥은 언제 나오나요?", max_num_results=1)
    assert (best.file_id, best.filename) == (menu.id, "menu.md")
    assert best.score > 0.5
    assert "비빔밥" in best.content[0].text
    asked = client.vector_stores.search(store, query=["paid leave", "비빔밥"], ranking_options={"score_threshold": 0.5})
    assert {found.filename for found in asked} == {"leave.md", "menu.md"}
    assert client.vector_stores.files.delete(menu.id, vector_store_id=store).deleted
    assert [one.id for one in client.vector_stores.files.list(store)] == [leave.id]
    assert client.files.retrieve(menu.id).bytes == len(MENU)
    with pytest.raises(openai.NotFoundError):
        client.vector_stores.files.retrieve(menu.id, vector_store_id=store)


def test_what_cannot_be_read_says_so(client: OpenAI) -> None:
    store = client.vector_stores.create(name="broken")
    broken = client.vector_stores.files.upload_and_poll(
        vector_store_id=store.id, file=("broken.pdf", b"%PDF-1.7 no"), poll_interval_ms=100
    )
    assert broken.status == "failed"
    assert broken.last_error is not None
    assert broken.last_error.message
    assert client.vector_stores.retrieve(store.id).file_counts.failed == 1
    program = client.files.create(file=("program.exe", b"MZ"), purpose="assistants")
    with pytest.raises(openai.APIStatusError) as refused:
        client.vector_stores.files.create(store.id, file_id=program.id)
    assert (refused.value.status_code, refused.value.code) == (415, "unsupported_file")


def test_an_answer_from_files(client: OpenAI) -> None:
    store = stored(client, ("leave.md", LEAVE), ("menu.md", MENU))
    response = client.responses.create(
        input="How many days of paid leave do employees earn?",
        tools=[{"type": "file_search", "vector_store_ids": [store], "max_num_results": 1}],
        include=["file_search_call.results"],
    )
    search, message = response.output
    assert isinstance(search, ResponseFileSearchToolCall)
    assert isinstance(message, ResponseOutputMessage)
    assert search.queries == ["How many days of paid leave do employees earn?"]
    assert search.results is not None
    assert [result.filename for result in search.results] == ["leave.md"]
    assert "1.5 days" in (search.results[0].text or "")
    [annotation] = message.content[0].annotations  # type: ignore[union-attr]
    assert annotation.type == "file_citation"
    assert (annotation.file_id, annotation.filename) == (search.results[0].file_id, "leave.md")
    assert response.output_text[: annotation.index].endswith("[1]")
    assert client.responses.retrieve(response.id, include=["file_search_call.results"]).output == response.output
    bare = client.responses.retrieve(response.id).output[0]
    assert isinstance(bare, ResponseFileSearchToolCall)
    assert bare.results is None  # they are shown to who asks for them
    # The next turn has no such tool: it is not answered from the documents.
    plain = client.responses.create(input="How many days of leave?", previous_response_id=response.id)
    assert [item.type for item in plain.output] == ["message"]


def test_an_answer_from_files_as_a_stream(client: OpenAI) -> None:
    store = stored(client, ("menu.md", MENU))
    with client.responses.stream(
        model="quoting",
        input="비빔밥은 언제 나오나요?",
        tools=[{"type": "file_search", "vector_store_ids": [store]}],
    ) as stream:
        kinds = [event.type for event in stream]
        final = stream.get_final_response()
    assert [item.type for item in final.output] == ["file_search_call", "message"]
    begun = kinds.index("response.file_search_call.searching")
    ended = kinds.index("response.file_search_call.completed")
    assert kinds.index("response.in_progress") < begun < ended < kinds.index("response.output_text.annotation.added")
    kept, streamed = client.responses.retrieve(final.id).output, final.output
    assert kept[0] == streamed[0]
    assert kept[1].id == streamed[1].id
    assert [piece.annotations for piece in kept[1].content] == [piece.annotations for piece in streamed[1].content]


@pytest.mark.parametrize(
    ("tool", "param"),
    [
        ({}, "tools[0].vector_store_ids"),
        ({"vector_store_ids": []}, "tools[0].vector_store_ids"),
        ({"vector_store_ids": ["{store}"], "max_num_results": 51}, "tools[0].max_num_results"),
        ({"vector_store_ids": ["{store}"], "filters": {"type": "eq"}}, "tools[0].filters.key"),
        ({"vector_store_ids": ["{store}"], "filters": {"type": "and", "filters": []}}, "tools[0].filters.filters"),
        ({"vector_store_ids": ["{store}"], "other": 1}, "tools[0].other"),
        (
            {"vector_store_ids": ["{store}"], "ranking_options": {"score_threshold": 2}},
            f"tools[0].{_THRESHOLD}",
        ),
    ],
)
def test_what_the_tool_cannot_do(client: OpenAI, tool: dict[str, object], param: str) -> None:
    store = client.vector_stores.create(name="empty").id
    filled = {"type": "file_search"} | {key: [store] if value == ["{store}"] else value for key, value in tool.items()}
    with pytest.raises(openai.BadRequestError) as refused:
        client.responses.create(input="Hello", tools=[filled])  # type: ignore[list-item]
    assert refused.value.param == param


def test_the_async_client(service: Live, who: Person) -> None:
    async def ask() -> str:
        async with AsyncOpenAI(base_url=f"{service.url}/v1", api_key=who.key, max_retries=0, timeout=120) as client:
            store = await client.vector_stores.create(name="handbook")
            await client.vector_stores.files.upload_and_poll(
                vector_store_id=store.id, file=("leave.md", LEAVE), poll_interval_ms=100
            )
            found = [one async for one in client.vector_stores.search(store.id, query="paid leave")]
            assert [one.filename for one in found] == ["leave.md"]
            tools = [{"type": "file_search", "vector_store_ids": [store.id]}]
            answer = await client.responses.create(input="How much paid leave is earned?", tools=tools)  # type: ignore[arg-type]
            return answer.output_text

    assert asyncio.run(ask()) == "The documents say so [1]."


def test_more_than_a_request_may_have_is_taken_from_who_is_known(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("uploads")
    with live_service(folder, model=Quoting(), body_limit=20_000, upload_limit=200_000, embedder="off") as service:
        known = make_person("write").headers
        with httpx.Client(base_url=service.url, timeout=120) as web:

            def upload(size: int, headers: dict[str, str], path: str = "/v1/files") -> httpx.Response:
                form = {"files": {"file": ("a.txt", b"x" * size)}, "data": {"purpose": "assistants"}}
                return web.post(path, headers=headers, **form)  # type: ignore[arg-type]

            assert upload(100_000, known).json()["bytes"] == 100_000
            for headers, size, code in (({}, 100_000, "BODY"), (known, 300_000, "UPLOAD")):
                refused = upload(size, headers)
                assert refused.status_code == 413
                assert f"DARAM_{code}_LIMIT" in refused.json()["error"]["message"]
            assert upload(100, {}).status_code == 401
            assert upload(100_000, known, "/v1/conversations").status_code == 413
            assert upload(100, known, "/v1/conversations").status_code == 415
            chunked = web.post(
                "/v1/files", headers={"Content-Type": "multipart/form-data; boundary=x"}, content=iter([b"x" * 30_000])
            )
            assert chunked.status_code == 413
