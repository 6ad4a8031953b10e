"""Attributes, filters, batches of files, and the tool ``file_search`` to its ends, as the official SDK calls them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from agents import Agent, FileSearchTool, OpenAIResponsesModel, RunConfig, Runner
from openai import AsyncOpenAI, OpenAI
from openai.types.responses import ResponseFileSearchToolCall, ResponseOutputMessage, ResponseOutputText
from tests.service.live import Live, live_service
from tests.service.people import Person, make_person
from tests.service.quoting import Quoting

from daram.knowledge.ingest import Ingester
from daram.store.documents import Document

POLL = {"poll_interval_ms": 50}


@pytest.fixture(scope="module")
def model() -> Quoting:
    return Quoting()


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, model: Quoting) -> Iterator[Live]:
    folder = tmp_path_factory.mktemp("file-search")
    with live_service(folder, model=model, rate_limit=0, titles=False, embedder="off") as found:
        yield found


@pytest.fixture
def who(service: Live) -> Person:
    return make_person("write")


@pytest.fixture
def client(service: Live, who: Person) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{service.url}/v1", api_key=who.key, max_retries=0, timeout=120) as found:
        yield found


def leave_of(year: int) -> bytes:
    return f"Employees earn {year % 100} days of paid leave in the year {year}.\n".encode()


def stored(client: OpenAI, count: int = 4) -> str:
    """A vector store of files that say the same of different years, which their attributes tell too."""
    store = client.vector_stores.create(name="years")
    made = [
        client.files.create(file=(f"{year}.txt", leave_of(year)), purpose="assistants")
        for year in range(2020, 2020 + count)
    ]
    files: Any = [
        {"file_id": file.id, "attributes": {"year": 2020 + n, "even": n % 2 == 0, "name": f"y{n}", "half": n / 2}}
        for n, file in enumerate(made)
    ]
    batch = client.vector_stores.file_batches.create_and_poll(store.id, files=files, **POLL)  # type: ignore[arg-type]
    assert (batch.status, batch.file_counts.completed, batch.file_counts.total) == ("completed", count, count)
    return store.id


def years(client: OpenAI, store: str, filters: Any, **more: Any) -> set[str]:
    found = client.vector_stores.search(store, query="paid leave", filters=filters, **more)
    return {one.filename.removesuffix(".txt") for one in found}


def test_filters(client: OpenAI) -> None:
    store = stored(client)
    every = {"2020", "2021", "2022", "2023"}

    def compare(type: str, key: str, value: Any) -> dict[str, Any]:
        return {"type": type, "key": key, "value": value}

    for filters, wanted in (
        (None, every),
        (compare("eq", "year", 2021), {"2021"}),
        (compare("eq", "year", "2021"), set()),
        (compare("eq", "half", 1), {"2022"}),
        (compare("eq", "even", True), {"2020", "2022"}),
        (compare("eq", "even", 1), set()),
        (compare("ne", "even", True), {"2021", "2023"}),
        (compare("ne", "none", 1), every),
        (compare("gt", "year", 2021), {"2022", "2023"}),
        (compare("gte", "half", 1), {"2022", "2023"}),
        (compare("lt", "name", "y2"), {"2020", "2021"}),
        (compare("lte", "year", 2021.5), {"2020", "2021"}),
        (compare("in", "name", ["y0", "y3", 7]), {"2020", "2023"}),
        (compare("nin", "year", [2020, 2023]), {"2021", "2022"}),
        ({"type": "and", "filters": [compare("gt", "year", 2020), compare("eq", "even", True)]}, {"2022"}),
        (
            {
                "type": "or",
                "filters": [
                    compare("eq", "year", 2020),
                    {"type": "and", "filters": [compare("gt", "half", 1), compare("eq", "even", False)]},
                ],
            },
            {"2020", "2023"},
        ),
    ):
        assert years(client, store, filters if filters is not None else openai.omit) == wanted, filters
    [best] = client.vector_stores.search(store, query="leave", filters=compare("eq", "year", 2023))  # type: ignore[arg-type]
    assert best.attributes == {"year": 2023, "even": False, "name": "y3", "half": 1.5}


def test_a_filter_comes_before_the_best_are_taken(client: OpenAI) -> None:
    store = client.vector_stores.create(name="many").id
    good = [client.files.create(file=(f"{n}.txt", b"paid leave, paid leave"), purpose="assistants") for n in range(25)]
    poor = client.files.create(
        file=("poor.txt", b"Among very many other matters the page has some words on leave."), purpose="assistants"
    )
    ids = [file.id for file in good]
    client.vector_stores.file_batches.create_and_poll(store, file_ids=ids, attributes={"kind": "good"}, **POLL)  # type: ignore[arg-type]
    client.vector_stores.files.create_and_poll(poor.id, vector_store_id=store, attributes={"kind": "poor"}, **POLL)  # type: ignore[arg-type]
    wanted: Any = {"type": "eq", "key": "kind", "value": "poor"}
    assert "poor" not in years(client, store, openai.omit, max_num_results=1)
    assert years(client, store, wanted, max_num_results=1) == {"poor"}


@pytest.mark.parametrize(
    ("changed", "param"),
    [
        ({"filters": []}, "filters"),
        ({"filters": {"type": "like", "key": "a", "value": 1}}, "filters.type"),
        ({"filters": {"type": "eq", "key": "", "value": 1}}, "filters.key"),
        ({"filters": {"type": "eq", "key": "a", "value": None}}, "filters.value"),
        ({"filters": {"type": "gt", "key": "a", "value": True}}, "filters.value"),
        ({"filters": {"type": "in", "key": "a", "value": "x"}}, "filters.value"),
        ({"filters": {"type": "eq", "key": "a", "value": 1, "more": 1}}, "filters.more"),
        ({"filters": {"type": "or", "filters": [{"type": "eq"}]}}, "filters.filters[0].key"),
        ({"ranking_options": {"ranker": "best"}}, "ranking_options.ranker"),
        ({"ranking_options": {"score_threshold": True}}, "ranking_options.score_threshold"),
        ({"ranking_options": {"hybrid_search": {"text_weight": 1}}}, "ranking_options.hybrid_search"),
        ({"ranking_options": {"more": 1}}, "ranking_options.more"),
        ({"max_num_results": 0}, "max_num_results"),
        ({"query": []}, "query"),
        ({"query": 1}, "query"),
    ],
)
def test_a_search_that_cannot_be_made(client: OpenAI, changed: dict[str, Any], param: str) -> None:
    store = client.vector_stores.create(name="empty").id
    with pytest.raises(openai.BadRequestError) as refused:
        client.vector_stores.search(store, **({"query": "leave"} | changed))
    assert refused.value.param is not None
    assert refused.value.param.startswith(param)


def test_ranking_and_rewriting(client: OpenAI) -> None:
    store = stored(client, 2)
    ranking: Any = {"ranker": "none", "hybrid_search": {"text_weight": 0.2, "embedding_weight": 0.8}}
    assert years(client, store, openai.omit, ranking_options=ranking) == {"2020", "2021"}
    assert years(client, store, openai.omit, ranking_options={"ranker": "auto", "score_threshold": 1}) == set()
    wide = client.vector_stores.search(store, query="paid leave", rewrite_query=True)
    assert {one.filename for one in wide} == {"2020.txt", "2021.txt"}
    raw = client.vector_stores.with_raw_response.search(
        store, query="paid leave", rewrite_query=True
    ).http_response.json()
    assert raw["search_query"][0] == "paid leave"
    assert len(raw["search_query"]) == 4


def test_attributes_are_changed(client: OpenAI) -> None:
    store = stored(client, 1)
    [file] = client.vector_stores.files.list(store)
    changed = client.vector_stores.files.update(file.id, vector_store_id=store, attributes={"new": 1.5})
    assert (changed.attributes, changed.status) == ({"new": 1.5}, "completed")
    assert years(client, store, {"type": "eq", "key": "new", "value": 1.5}) == {"2020"}
    again = client.vector_stores.files.create_and_poll(file.id, vector_store_id=store, attributes={"b": True}, **POLL)  # type: ignore[arg-type]
    assert again.attributes == {"b": True}
    assert client.vector_stores.files.update(file.id, vector_store_id=store, attributes=None).attributes == {}
    for wrong in ({"a": "x" * 513}, {"a": [1]}, {"a" * 65: 1}, {str(n): n for n in range(17)}, {"a": 1 << 60}):
        with pytest.raises(openai.BadRequestError):
            client.vector_stores.files.update(file.id, vector_store_id=store, attributes=wrong)  # type: ignore[arg-type]
    with pytest.raises(openai.NotFoundError):
        client.vector_stores.files.update("file-none", vector_store_id=store, attributes={})


def test_a_file_is_cut_as_it_is_asked_for(client: OpenAI) -> None:
    store = client.vector_stores.create(name="cut").id
    long = "\n\n".join(f"Paragraph {n} says something of its own about squirrels." for n in range(100)).encode()
    small: Any = {"type": "static", "static": {"max_chunk_size_tokens": 100, "chunk_overlap_tokens": 10}}
    cut = client.vector_stores.files.upload_and_poll(
        vector_store_id=store, file=("a.txt", long), chunking_strategy=small, poll_interval_ms=50
    )
    whole = client.vector_stores.files.upload_and_poll(vector_store_id=store, file=("b.txt", long), poll_interval_ms=50)
    assert cut.chunking_strategy is not None
    assert cut.chunking_strategy.model_dump() == small
    assert whole.chunking_strategy is not None
    assert whole.chunking_strategy.type == "other"
    assert cut.to_dict()["passages"] > whole.to_dict()["passages"]  # type: ignore[operator]
    wrong: Any = {"type": "static", "static": {"max_chunk_size_tokens": 100, "chunk_overlap_tokens": 60}}
    with pytest.raises(openai.BadRequestError) as refused:
        client.vector_stores.files.create(store, file_id=cut.id, chunking_strategy=wrong)
    assert refused.value.param == "chunking_strategy"


def test_batches(client: OpenAI) -> None:
    store = client.vector_stores.create(name="batch").id
    files = [(f"{n}.txt", leave_of(2000 + n)) for n in range(3)]
    batch = client.vector_stores.file_batches.upload_and_poll(store, files=[*files, ("bad.exe", b"MZ")], **POLL)  # type: ignore[arg-type]
    counts = batch.file_counts
    assert (batch.status, batch.object, batch.vector_store_id) == ("completed", "vector_store.files_batch", store)
    assert (counts.completed, counts.failed, counts.in_progress, counts.cancelled, counts.total) == (3, 1, 0, 0, 4)
    batches = client.vector_stores.file_batches
    assert batches.retrieve(batch.id, vector_store_id=store) == batch
    listed = list(batches.list_files(batch.id, vector_store_id=store, limit=3))
    assert len(listed) == 4
    [failed] = batches.list_files(batch.id, vector_store_id=store, filter="failed")
    assert failed.last_error is not None
    assert failed.last_error.code == "unsupported_file"
    done = [one.id for one in batches.list_files(batch.id, vector_store_id=store, filter="completed", order="asc")]
    assert len(done) == 3
    first = batches.list_files(batch.id, vector_store_id=store, order="asc", after=done[0], filter="completed", limit=1)
    assert [one.id for one in first] == done[1:]
    assert client.vector_stores.retrieve(store).file_counts.failed == 1
    client.vector_stores.files.delete(failed.id, vector_store_id=store)
    assert batches.retrieve(batch.id, vector_store_id=store).file_counts.total == 3
    assert batches.cancel(batch.id, vector_store_id=store).status == "completed"  # there is nothing left to cancel
    client.vector_stores.delete(store)
    with pytest.raises(openai.NotFoundError):
        batches.retrieve(batch.id, vector_store_id=store)


def test_a_batch_is_cancelled(client: OpenAI, monkeypatch: pytest.MonkeyPatch) -> None:
    store = client.vector_stores.create(name="batch").id
    files = [client.files.create(file=(f"{n}.txt", leave_of(2000 + n)), purpose="assistants").id for n in range(2)]
    batches = client.vector_stores.file_batches

    async def elsewhere(_ingester: Ingester, _document: Document) -> bool:
        return False

    with monkeypatch.context() as held:
        held.setattr(Ingester, "read", elsewhere)  # nobody comes to read them
        batch = batches.create(store, file_ids=files)
        assert (batch.status, batch.file_counts.in_progress) == ("in_progress", 2)
        assert client.vector_stores.retrieve(store).status == "in_progress"
        assert len(list(batches.list_files(batch.id, vector_store_id=store, filter="in_progress"))) == 2
        given_up = batches.cancel(batch.id, vector_store_id=store)
    assert (given_up.status, given_up.file_counts.cancelled, given_up.file_counts.in_progress) == ("cancelled", 2, 0)
    [one, _] = batches.list_files(batch.id, vector_store_id=store, filter="cancelled")
    assert (one.status, one.last_error) == ("cancelled", None)
    again = client.vector_stores.files.create_and_poll(files[0], vector_store_id=store, **POLL)  # type: ignore[arg-type]
    assert again.status == "completed"
    assert batches.retrieve(batch.id, vector_store_id=store).file_counts.completed == 1


def test_wrong_batches(client: OpenAI) -> None:
    store = client.vector_stores.create(name="batch").id
    file = client.files.create(file=("a.txt", b"hello"), purpose="assistants").id
    batches = client.vector_stores.file_batches
    wrong: list[tuple[dict[str, Any], int]] = [
        ({}, 400),
        ({"file_ids": []}, 400),
        ({"file_ids": [file], "files": [{"file_id": file}]}, 400),
        ({"file_ids": [file, "file-none"]}, 404),
        ({"file_ids": ["x"] * 501}, 400),
        ({"file_ids": [file], "attributes": {"a": [1]}}, 400),
        ({"files": [{"file_id": file, "chunking_strategy": {"type": "static"}}]}, 400),
        ({"files": [{"attributes": {}}]}, 400),
    ]
    for given, code in wrong:
        with pytest.raises(openai.APIStatusError) as refused:
            batches.create(store, **given)
        assert refused.value.status_code == code, given
    assert list(client.vector_stores.files.list(store)) == []
    for call in (batches.retrieve, batches.cancel):
        with pytest.raises(openai.NotFoundError):
            call("vsfb_none", vector_store_id=store)


def test_a_vector_store_and_a_file_that_expire(client: OpenAI) -> None:
    store = client.vector_stores.create(name="brief", expires_after={"anchor": "last_active_at", "days": 3})
    assert store.expires_after is not None
    assert store.expires_at is not None
    assert store.expires_at - store.created_at == 3 * 86_400
    longer = client.vector_stores.update(store.id, expires_after={"anchor": "last_active_at", "days": 5})
    assert longer.expires_after is not None
    assert (longer.expires_after.days, longer.status) == (5, "completed")
    assert client.vector_stores.update(store.id, expires_after=None).expires_at is None
    file = client.files.create(
        file=("a.txt", b"hello"), purpose="user_data", expires_after={"anchor": "created_at", "seconds": 3600}
    )
    assert file.expires_at is not None
    assert 3599 <= file.expires_at - file.created_at <= 3601
    assert client.files.wait_for_processing(file.id).expires_at == file.expires_at
    for wrong in (
        {"anchor": "created_at", "seconds": 5},
        {"anchor": "last_active_at", "seconds": 4000},
        {"seconds": 4000},
    ):
        with pytest.raises(openai.BadRequestError) as refused:
            client.files.create(file=("a.txt", b"x"), purpose="user_data", expires_after=wrong)  # type: ignore[arg-type]
        assert (refused.value.param or "").startswith("expires_after")
    days: Any = {"anchor": "last_active_at", "days": 400}
    with pytest.raises(openai.BadRequestError):
        client.vector_stores.create(expires_after=days)


# --- the tool -------------------------------------------------------------------------------------------------------


def tool_of(store: str, **more: Any) -> Any:
    return {"type": "file_search", "vector_store_ids": [store], **more}


def test_the_tool_with_a_filter(client: OpenAI) -> None:
    store = stored(client)
    response = client.responses.create(
        input="How many days of paid leave?",
        tools=[tool_of(store, filters={"type": "eq", "key": "year", "value": 2022})],
        include=["file_search_call.results"],
    )
    [search, _] = response.output
    assert isinstance(search, ResponseFileSearchToolCall)
    assert [(one.filename, one.attributes) for one in search.results or ()] == [
        ("2022.txt", {"year": 2022, "even": True, "name": "y2", "half": 1.0})
    ]
    assert response.tools[0].to_dict()["filters"] == {"type": "eq", "key": "year", "value": 2022}


@pytest.mark.parametrize("streamed", [False, True])
def test_the_tool_without_storing(client: OpenAI, streamed: bool) -> None:
    store = stored(client, 1)
    asked: Any = {
        "input": "How many days of paid leave?",
        "tools": [tool_of(store)],
        "store": False,
        "include": ["file_search_call.results"],
        "model": "quoting",
    }
    if streamed:
        with client.responses.stream(**asked) as stream:
            kinds = [event.type for event in stream]
            response: Any = stream.get_final_response()
        for kind in ("in_progress", "searching", "completed"):
            assert f"response.file_search_call.{kind}" in kinds
        assert "response.output_text.annotation.added" in kinds
    else:
        response = client.responses.create(**asked)
    [search, message] = response.output
    assert [one.filename for one in search.results] == ["2020.txt"]
    assert search.queries == ["How many days of paid leave?"]
    assert [note.filename for note in message.content[0].annotations] == ["2020.txt"]
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(response.id)


def test_its_items_go_back_in(client: OpenAI, model: Quoting) -> None:
    store = stored(client, 1)
    first = client.responses.create(
        input="How many days of paid leave?", tools=[tool_of(store)], include=["file_search_call.results"], store=False
    )
    past: Any = [{"role": "user", "content": "How many days of paid leave?"}]
    past += [item.to_dict() for item in first.output]
    past.append({"role": "user", "content": "Thank you, and what is a squirrel?"})
    for keep in (False, True):
        second = client.responses.create(input=past, store=keep)
        assert [item.type for item in second.output] == ["message"]
        said = [(message.role, message.text) for message in model.asked[-1] if message.role != "system"]
        assert said == [
            ("user", "How many days of paid leave?"),
            ("assistant", "The documents say so [1]."),
            ("user", "Thank you, and what is a squirrel?"),
        ]
    items = client.responses.input_items.list(second.id, order="asc").data
    kinds = [item.type for item in items]
    assert kinds == ["message", "file_search_call", "message", "message"]
    search, message = items[1], items[2]
    assert isinstance(search, ResponseFileSearchToolCall)
    assert search.to_dict() == first.output[0].to_dict()
    assert isinstance(message, ResponseOutputMessage)
    assert isinstance(message.content[0], ResponseOutputText)
    assert [note.type for note in message.content[0].annotations] == ["file_citation"]


def test_the_choice_of_a_tool(client: OpenAI) -> None:
    store = stored(client, 1)
    function: Any = {"type": "function", "name": "look", "parameters": {"type": "object", "properties": {}}}
    tools = [tool_of(store), function]
    searching: list[Any] = [
        "auto",
        "required",
        {"type": "file_search"},
        {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "file_search"}]},
    ]
    not_searching: list[Any] = [
        "none",
        {"type": "function", "name": "look"},
        {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "look"}]},
    ]
    for choice in searching + not_searching:
        response = client.responses.create(input="How much paid leave?", tools=tools, tool_choice=choice)
        assert ("file_search_call" in {item.type for item in response.output}) == (choice in searching), choice
        assert ("[1]" in response.output_text) == (choice in searching), choice
    with pytest.raises(openai.BadRequestError) as refused:
        client.responses.create(input="Hello", tools=[function], tool_choice={"type": "file_search"})
    assert refused.value.param == "tool_choice"


def test_a_vector_store_that_is_not_there_is_named(client: OpenAI, service: Live) -> None:
    with OpenAI(base_url=f"{service.url}/v1", api_key=make_person("write").key, max_retries=0) as other:
        theirs = other.vector_stores.create(name="theirs").id
    for id in (theirs, "vs_none"):
        for keep in (True, False):
            with pytest.raises(openai.NotFoundError, match=id):
                client.responses.create(input="Hello", tools=[tool_of(id)], store=keep)
        with pytest.raises(openai.NotFoundError, match=id):
            client.vector_stores.search(id, query="x")


def test_the_agents_sdk(service: Live, who: Person, client: OpenAI) -> None:
    store = stored(client)

    async def ask() -> None:
        async with AsyncOpenAI(base_url=f"{service.url}/v1", api_key=who.key, max_retries=0, timeout=120) as found:
            batch = await found.vector_stores.file_batches.upload_and_poll(
                store, files=[("extra.txt", b"Lunch is at noon.")], poll_interval_ms=50
            )
            assert batch.status == "completed"
            tool = FileSearchTool(
                vector_store_ids=[store],
                max_num_results=2,
                include_search_results=True,
                filters={"type": "gte", "key": "year", "value": 2023},
                ranking_options={"ranker": "auto", "score_threshold": 0.1},
            )
            agent = Agent(
                name="clerk",
                instructions="Answer from the files.",
                model=OpenAIResponsesModel("quoting", found),
                tools=[tool],
            )
            quiet = RunConfig(tracing_disabled=True)
            first = await Runner.run(agent, "How many days of paid leave?", run_config=quiet)
            assert first.final_output == "The documents say so [1]."
            [search] = [item.raw_item for item in first.new_items if item.type == "tool_call_item"]
            assert isinstance(search, ResponseFileSearchToolCall)
            assert [one.filename for one in search.results or ()] == ["2023.txt"]
            again = [*first.to_input_list(), {"role": "user", "content": "How much paid leave is that?"}]
            second = Runner.run_streamed(agent, again, run_config=quiet)  # type: ignore[arg-type]
            kinds = {event.data.type async for event in second.stream_events() if event.type == "raw_response_event"}
            assert "response.file_search_call.searching" in kinds
            assert second.final_output == "The documents say so [1]."

    asyncio.run(ask())
