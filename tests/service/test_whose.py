"""Whose is whose: every route of the OpenAPI document, with every kind of key, for ids that are there and that are not.

For who may not see it, a thing that is there must look exactly like one that is not: the same status, the same body.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import httpx
import pytest
from tests.service.echo import Echo
from tests.service.live import Live, live_service, reading_here
from tests.service.people import Person, log_in, make_person

from daram import ids

MISSING = {
    "conversation_id": "conv_" + "0" * 32,
    "item_id": "msg_" + "0" * 32,
    "response_id": "resp_" + "0" * 64,
    "model": "no-such-model",
    "file_id": "file-" + "0" * 32,
    "vector_store_id": "vs_" + "0" * 32,
    "batch_id": "vsfb_" + "0" * 32,
    "chat_id": "conv_" + "0" * 32,
    "collection_id": "vs_" + "0" * 32,
    "document_id": "file-" + "0" * 32,
    "category": "category-000",
    "title_no": "title-000",
}
# Two names of one thing.
ALIASES = {"chat_id": "conversation_id", "collection_id": "vector_store_id", "document_id": "file_id"}
# Bodies for operations that need one; {name} stands for an id.
BODIES: dict[str, dict[str, Any]] = {
    "POST /v1/conversations/{conversation_id}": {"title": "taken"},
    "PATCH /v1/conversations/{conversation_id}": {"title": "taken"},
    "POST /v1/conversations/{conversation_id}/items": {"items": [{"role": "user", "content": "taken"}]},
    "POST /v1/responses": {"input": "taken", "conversation": "{conversation_id}"},
    "POST /v1/responses/input_tokens": {"input": "taken", "conversation": "{conversation_id}"},
    "POST /v1/responses/compact": {"model": "echo", "input": "taken", "previous_response_id": "{response_id}"},
    "POST /v1/chat/completions": {
        "model": "echo",
        "messages": [{"role": "user", "content": "taken"}],
        "metadata": {"conversation": "{conversation_id}"},
    },
    "POST /v1/vector_stores/{vector_store_id}": {"name": "taken"},
    "POST /v1/vector_stores/{vector_store_id}/files": {"file_id": "{file_id}"},
    "POST /v1/vector_stores/{vector_store_id}/files/{file_id}": {"attributes": {"taken": True}},
    "POST /v1/vector_stores/{vector_store_id}/file_batches": {"file_ids": ["{file_id}"]},
    "POST /v1/vector_stores/{vector_store_id}/search": {"query": "taken"},
    "POST /v1/chats/": {"category": "{category}", "title_no": "{title_no}", "user_input": "taken"},
    "POST /v1/chats/{chat_id}/": {"user_input": "taken"},
    "POST /v1/collections": {"name": "mine"},
    "PATCH /v1/collections/{collection_id}": {"name": "taken"},
    "PUT /v1/references/{category}/{title_no}": {"title": "taken", "text": "taken"},
}
# They bring a file.
UPLOADS = {
    "POST /v1/files",
    "POST /v1/chats/{chat_id}/files/",
    "POST /v1/collections/{collection_id}/documents",
}
QUERIES = {"/v1/conversations/search": "?q=hello", "/v1/documents/search": "?q=hello"}
# Ids in other places than the path.
MORE: list[tuple[str, str, dict[str, Any] | None]] = [
    ("GET", "/v1/conversations?after={conversation_id}", None),
    ("GET", "/v1/conversations/search?q=hello&conversation={conversation_id}", None),
    ("GET", "/v1/conversations/{conversation_id}/items?after={item_id}", None),
    ("POST", "/v1/conversations/{conversation_id}/items", {"items": [{"type": "x"}], "beside": "{item_id}"}),
    ("POST", "/v1/responses", {"input": "taken", "previous_response_id": "{response_id}"}),
    ("POST", "/v1/responses", {"input": "taken", "conversation": {"id": "{conversation_id}"}}),
    ("POST", "/v1/responses/input_tokens", {"input": "taken", "previous_response_id": "{response_id}"}),
    ("GET", "/v1/responses/{response_id}?stream=true&starting_after=1", None),
    (
        "POST",
        "/v1/responses",
        {"input": "taken", "tools": [{"type": "file_search", "vector_store_ids": ["{vector_store_id}"]}]},
    ),
]
# The same of what is under /v1 alone, and under /api alone.
MORE_OF_V1: list[tuple[str, str, dict[str, Any] | None]] = [
    ("POST", "/v1/vector_stores", {"file_ids": ["{file_id}"]}),
    ("GET", "/v1/vector_stores?after={vector_store_id}", None),
    ("GET", "/v1/files?after={file_id}", None),
]
MORE_OF_NATIVE: list[tuple[str, str, dict[str, Any] | None]] = [
    ("GET", "/api/documents/search?q=hello&collection={collection_id}", None),
    ("PUT", "/api/references/{category}/{title_no}", {"title": "x", "text": "x", "owner": "group:{category}"}),
]
# They say nothing of anybody's, so they answer everybody alike.
OF_NOBODY = {"GET /v1/models", "GET /v1/models/{model}"}
# They make or find something of the caller's own: there is no id that could be somebody else's.
OF_THE_CALLER = {
    "POST /v1/conversations",
    "GET /v1/conversations",
    "GET /v1/conversations/search",
    "POST /v1/files",
    "GET /v1/files",
    "POST /v1/vector_stores",
    "GET /v1/vector_stores",
    "GET /v1/chats/",
    "POST /v1/collections",
    "GET /v1/collections",
    "GET /v1/documents/search",
    "GET /v1/references",
}
# It makes something of the caller's own, under a name that somebody else may have given too: asked last.
BY_NAME = "PUT /api/references/{category}/{title_no}"


class Route(NamedTuple):
    """An operation. ``name``: method and path as in the document."""

    method: str
    path: str
    body: dict[str, Any] | None

    @property
    def name(self) -> str:
        return f"{self.method} {self.path.partition('?')[0]}"


def routes() -> list[Route]:
    """All operations of the document, and the other ways by which an id may come in."""
    from daram.service.openai_api.api import api

    document = api.get_openapi_schema(path_prefix="/v1/")
    found = [
        Route(method.upper(), path + QUERIES.get(path, ""), BODIES.get(f"{method.upper()} {path}"))
        for path, methods in document["paths"].items()
        for method in methods
    ]
    return found + [Route(*more) for more in [*MORE, *MORE_OF_V1]]


class House(NamedTuple):
    """The service, an owner of things, and the ids of those."""

    service: Live
    owner: Person
    things: dict[str, str]


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    folder = tmp_path_factory.mktemp("whose")
    with reading_here(), live_service(folder, model=Echo(), rate_limit=0, embedder="off") as service:
        yield House(service, make_person("write"), {})


@pytest.fixture
def things(house: House) -> dict[str, str]:
    """New things of the owner: some requests delete them."""
    with web(house, house.owner.key) as client:
        asked = client.post("/v1/responses", json={"input": "hello", "model": "echo", "conversation": made(client)})
        assert asked.status_code == 200, asked.text
        response = asked.json()
        conversation = response["conversation"]["id"]
        items = client.get(f"/v1/conversations/{conversation}/items").json()["data"]
        file = client.post("/v1/files", files={"file": ("a.txt", b"hello")}, data={"purpose": "assistants"}).json()
        store = client.post("/v1/vector_stores", json={"file_ids": [file["id"]]}).json()
        batches = f"/v1/vector_stores/{store['id']}/file_batches"
        batch = client.post(batches, json={"file_ids": [file["id"]]}).json()
        category = "category-" + ids.uuid7()
        put = client.put(f"/api/references/{category}/title-111", json={"title": "One", "text": "hello"})
        assert put.status_code == 200, put.text
    return {
        "file_id": file["id"],
        "vector_store_id": store["id"],
        "batch_id": batch["id"],
        "chat_id": conversation,
        "collection_id": store["id"],
        "document_id": file["id"],
        "category": category,
        "title_no": "title-111",
        "conversation_id": conversation,
        "item_id": items[-1]["id"],
        "response_id": response["id"],
        "model": "echo",
    }


def made(client: httpx.Client) -> str:
    id: str = client.post("/v1/conversations", json={}).json()["id"]
    return id


def web(house: House, key: str | None) -> httpx.Client:
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    return httpx.Client(base_url=house.service.url, headers=headers, timeout=120)


def ask(client: httpx.Client, route: Route, values: Mapping[str, str]) -> tuple[int, str]:
    """Status and body of the answer, with the ids in it made alike."""
    answer = client.request(route.method, _filled(route.path, values), **sent(route, values))
    body = answer.text
    for name, value in values.items():
        body = body.replace(value, f"<{ALIASES.get(name, name)}>")
    if answer.status_code == 401:
        assert answer.headers["www-authenticate"] == "Bearer"
    if answer.status_code >= 400:
        assert answer.json()["error"].keys() == {"message", "type", "param", "code"}
    return answer.status_code, body


def sent(route: Route, values: Mapping[str, str]) -> dict[str, Any]:
    """The body of a request."""
    if route.name.replace("/api/", "/v1/", 1) in UPLOADS:
        return {"files": {"file": ("a.txt", b"taken")}, "data": {"purpose": "assistants"}}
    return {} if route.body is None else {"json": _filled(route.body, values)}


def _filled(value: Any, ids_: Mapping[str, str]) -> Any:
    if isinstance(value, dict):
        return {key: _filled(inner, ids_) for key, inner in value.items()}
    if isinstance(value, list):
        return [_filled(inner, ids_) for inner in value]
    if isinstance(value, str):
        for name, id in ids_.items():
            value = value.replace("{" + name + "}", id)
    return value


def state(house: House, conversation: str) -> Any:
    with web(house, house.owner.key) as client:
        return client.get(f"/v1/conversations/{conversation}").json(), client.get(
            f"/v1/conversations/{conversation}/items"
        ).json()


def test_every_parameter_of_a_path_is_known(house: House) -> None:
    """A new kind of id must be added here, with a thing that it names."""
    unknown = {name.partition("}")[0] for route in routes() for name in route.path.split("{")[1:]} - MISSING.keys()
    assert not unknown


def test_nobody_without_a_key(house: House, things: dict[str, str]) -> None:
    revoked = make_person("write")
    _revoke(revoked)
    before = state(house, things["conversation_id"])
    wrong = house.owner.key[:-1] + ("A" if house.owner.key[-1] != "A" else "B")
    answers: dict[str, set[tuple[int, str]]] = {}
    for kind, key in {"none": None, "wrong": wrong, "revoked": revoked.key}.items():
        with web(house, key) as client:
            for route in routes():
                for values in (things, MISSING):
                    answers.setdefault(kind, set()).add(ask(client, route, values))
    for kind, found in answers.items():
        assert len(found) == 1, f"{kind}: every route and id must be refused alike, not {found}"
        assert next(iter(found))[0] == 401
    with web(house, "no key at all") as client:
        assert {ask(client, routes()[0], MISSING)} == answers["wrong"] == answers["revoked"]
    assert state(house, things["conversation_id"]) == before


def test_a_key_that_may_only_read(house: House, things: dict[str, str]) -> None:
    before = state(house, things["conversation_id"])
    with web(house, _another_key(house.owner, "read")) as client:
        for route in routes():
            there, missing = (ask(client, route, values) for values in (things, MISSING))
            if route.method == "GET":
                assert there[0] == 200, (route, there)
            elif there[0] != 200:  # some operations only read what a body names
                assert there[0] == 403, (route, there)
                assert missing == there, route
    assert state(house, things["conversation_id"]) == before


def test_the_things_of_somebody_else(house: House, things: dict[str, str]) -> None:
    before = state(house, things["conversation_id"])
    with web(house, make_person("write").key) as client:
        for route in routes():
            foreign, missing = (ask(client, route, values) for values in (things, MISSING))
            if route.name in OF_NOBODY:
                assert foreign[0] == 200
                continue
            if route.name in OF_THE_CALLER and "{" not in route.path:
                continue
            assert foreign == missing, route
            if "search" not in route.path:  # where nothing is there, nothing is found
                # OpenAI answers 400 for an id in a body.
                assert foreign[0] == 404 or (route.body is not None and foreign[0] == 400), (route, foreign)
    assert state(house, things["conversation_id"]) == before


def test_what_is_missing_looks_alike_to_its_owner(house: House, things: dict[str, str]) -> None:
    """An id that was never there, and what the stranger is told of one that is: word for word the same."""
    never = {**MISSING, "conversation_id": "conv_" + ids.uuid7()}
    with web(house, house.owner.key) as mine, web(house, make_person("write").key) as theirs:
        for route in routes():
            if "{conversation_id}" in route.path and "search" not in route.path:
                assert ask(mine, route, never) == ask(theirs, route, things), route


def test_the_owner_of_a_conversation_with_the_same_id(house: House, things: dict[str, str]) -> None:
    """Two owners may use one id, and learn nothing of each other."""
    other = make_person("write")
    house.service.call(house.service.memory.create(other.owner, id=things["conversation_id"], title="theirs"))
    before = state(house, things["conversation_id"])
    path = f"/v1/conversations/{things['conversation_id']}"
    with web(house, other.key) as client:
        assert client.get(path).json()["title"] == "theirs"
        assert client.get(f"{path}/items").json()["data"] == []
        assert client.get(f"{path}/items/{things['item_id']}").status_code == 404
        assert client.get(f"/v1/responses/{things['response_id']}").status_code == 404
        assert client.delete(path).status_code == 200
    assert state(house, things["conversation_id"]) == before


def _revoke(person: Person) -> None:
    from daram.service.accounts.keys import revoke

    revoke(person.key_row)


def _another_key(person: Person, *scopes: str) -> str:
    from daram.service.accounts.keys import create_key

    return create_key(person.user, scopes=scopes)[1]


# --- with a session instead of a key: the native API ------------------------------------------------------------------


def native_routes() -> list[Route]:
    """All operations of the native API, with the bodies of those of ``/v1``."""
    from daram.service.native_api.api import api

    document = api.get_openapi_schema(path_prefix="/api/")
    found = []
    for path, methods in document["paths"].items():
        for method in methods:
            same = f"{method.upper()} {path.replace('/api/', '/v1/', 1)}"
            query = QUERIES.get(path.replace("/api/", "/v1/", 1), "")
            found.append(Route(method.upper(), path + query, BODIES.get(same)))
    more = [Route(method, path.replace("/v1/", "/api/", 1), body) for method, path, body in MORE]
    more += [Route(*one) for one in MORE_OF_NATIVE]
    return sorted(found + more, key=lambda route: route.name == BY_NAME)


def opens_by_key(route: Route) -> bool:
    """Whether a key opens it as well as a session."""
    return route.path.startswith(("/api/chats/", "/api/collections", "/api/documents/", "/api/references"))


@contextmanager
def browser(house: House, who: Person) -> Iterator[httpx.Client]:
    """Somebody who is logged in, with the token."""
    with httpx.Client(base_url=house.service.url, cookies=log_in(who), timeout=120) as client:
        client.headers["X-CSRFToken"] = client.get("/api/me").json()["csrf_token"]
        yield client


def test_nobody_without_a_session(house: House, things: dict[str, str]) -> None:
    """Nor with a key where that opens nothing, nor when the session has ended, nor without the token."""
    before = state(house, things["conversation_id"])
    ended = make_person("write")
    cookies = log_in(ended)
    ended.user.set_password("another one 83!")
    ended.user.save()
    answers = set()
    for headers, jar in (({}, {}), (house.owner.headers, {}), ({}, cookies)):
        with httpx.Client(base_url=house.service.url, headers=headers, cookies=jar, timeout=120) as client:
            for route in native_routes():
                if headers and opens_by_key(route):
                    continue
                for values in (things, MISSING):
                    answer = client.request(route.method, _filled(route.path, values), **sent(route, values))
                    assert "www-authenticate" not in answer.headers
                    answers.add((answer.status_code, answer.text))
    assert len(answers) == 1
    assert next(iter(answers))[0] == 401
    with browser(house, house.owner) as client:
        for token in (None, "x" * 32):
            del client.headers["X-CSRFToken"]
            if token is not None:
                client.headers["X-CSRFToken"] = token
            for route in native_routes():
                if route.method != "GET":
                    for values in (things, MISSING):
                        status, body = ask(client, route, values)
                        assert (status, json.loads(body)["error"]["code"]) == (403, "csrf_failed"), route
            client.headers["X-CSRFToken"] = ""
    assert state(house, things["conversation_id"]) == before


def test_a_session_opens_nothing_under_v1(house: House, things: dict[str, str]) -> None:
    with browser(house, house.owner) as client:
        assert {ask(client, route, things)[0] for route in routes()} == {401}


def test_the_things_of_somebody_else_with_a_session(house: House, things: dict[str, str]) -> None:
    before = state(house, things["conversation_id"])
    with browser(house, make_person("write")) as client:
        for route in native_routes():
            foreign, missing = (ask(client, route, values) for values in (things, MISSING))
            name = route.name.replace("/api/", "/v1/", 1)
            own = name in OF_THE_CALLER and "{" not in route.path
            own = own or (route.name == BY_NAME and "owner" not in (route.body or {}))
            if name in OF_NOBODY or own or name == "GET /v1/me":
                assert foreign[0] in (200, 201), (route, foreign)
            else:
                assert foreign == missing, route
                if "search" not in route.path:
                    assert foreign[0] == 404 or (route.body is not None and foreign[0] == 400), (route, foreign)
    assert state(house, things["conversation_id"]) == before


def test_the_things_of_somebody_else_with_a_key(house: House, things: dict[str, str]) -> None:
    """Chats and documents are opened by a key, too: one that works, that may write, and of their owner."""
    with (
        web(house, house.owner.key[:-1] + "!") as wrong,
        web(house, _another_key(house.owner, "read")) as reader,
        web(house, make_person("write").key) as stranger,
    ):
        for route in filter(opens_by_key, native_routes()):
            assert ask(wrong, route, things)[0] == 401, route
            if route.method != "GET":
                assert ask(reader, route, things)[0] == 403, route
            if "{" in route.path + json.dumps(list((route.body or {}).values())) and route.method != "PUT":
                foreign, missing = (ask(stranger, route, values) for values in (things, MISSING))
                assert foreign == missing, route
                assert foreign[0] == 404, (route, foreign)
    with web(house, house.owner.key) as owner:
        for route in filter(opens_by_key, native_routes()):
            if route.method == "GET":
                assert ask(owner, route, things)[0] == 200, route


def test_groups(house: House) -> None:
    """What is shared with a group is read and changed by its members, for as long as they are."""
    from django.contrib.auth.models import Group

    group = Group.objects.create(name="editors:" + ids.uuid7())
    member, other = make_person("write"), make_person("write")
    member.user.groups.add(group)
    with web(house, member.key) as inside, web(house, other.key) as outside:
        new = {"id": "shared", "owner": f"group:{group.name}", "name": "Shared"}
        assert outside.post("/api/collections", json=new).status_code == 404
        made = inside.post("/api/collections", json=new).json()
        path = f"/api/collections/{made['id']}"
        assert inside.post(f"{path}/documents", files={"file": ("a.txt", b"hello")}).status_code == 201
        assert inside.get(f"/v1/vector_stores/{made['id']}").json()["file_counts"]["total"] == 1
        assert outside.get(path).status_code == outside.get(f"/v1/vector_stores/{made['id']}").status_code == 404
        assert made["id"] not in outside.get("/api/collections").text
        assert made["id"] in inside.get("/api/collections").text
        member.user.groups.remove(group)
        assert inside.get(path).status_code == 404


def test_what_is_official(house: House) -> None:
    """All read it; only who may administrate changes it."""
    admin, anybody = make_person("admin", is_staff=True), make_person("write")
    id = "o" + ids.uuid7()
    with web(house, admin.key) as writes, web(house, anybody.key) as reads:
        new = {"id": id, "owner": "official"}
        assert reads.post("/api/collections", json=new).json()["error"]["code"] == "not_allowed"
        assert writes.post("/api/collections", json=new).status_code == 201
        path = f"/api/collections/official:{id}"
        assert reads.get(path).json()["shared"] == "official"
        file = {"file": ("a.txt", b"hello")}
        assert reads.post(f"{path}/documents", files=file).status_code == 403
        assert reads.delete(path).status_code == reads.patch(path, json={"name": "x"}).status_code == 403
        assert reads.post(f"/v1/vector_stores/official:{id}", json={"name": "x"}).status_code == 403
        assert reads.delete(f"/v1/vector_stores/official:{id}").status_code == 403
        text = {"title": "x", "text": "x", "owner": "official"}
        assert reads.put(f"/api/references/{id}/1", json=text).status_code == 403
        assert writes.put(f"/api/references/{id}/1", json=text).status_code == 200
        assert reads.get(f"/api/references/{id}/1").json()["text"] == "x"
        assert reads.delete(f"/api/references/{id}/1?owner=official").status_code == 403
        assert writes.post(f"{path}/documents", files=file).status_code == 201
    with browser(house, admin) as page:  # a login of the staff is one of an administrator
        assert page.delete(path).status_code == 204


def test_what_a_page_does(house: House) -> None:
    """List, read, name, pin, archive, ask with a stream, export, delete: the same things that ``/v1`` shows."""
    who = make_person("write", username="page-" + ids.uuid7())
    with browser(house, who) as client, web(house, who.key) as program:
        me = client.get("/api/me").json()
        assert (me["username"], me["is_staff"]) == (who.user.username, False)
        path = "/api/conversations/" + client.post("/api/conversations", json={}).json()["id"]
        named = {"title": "Nuts", "pinned": True, "archived": True}
        changed = client.patch(path, json=named).json()
        assert changed | named == changed == program.get(path.replace("/api/", "/v1/")).json()
        assert client.get("/api/conversations").json() == program.get("/v1/conversations").json()
        asked = {"input": "Hello", "conversation": changed["id"], "stream": True}
        frames = client.post("/api/responses", json=asked)
        assert frames.headers["content-type"].startswith("text/event-stream")
        assert "event: response.completed" in frames.text
        items = client.get(f"{path}/items?order=asc").json()["data"]
        assert [item["content"][0]["text"] for item in items] == ["Hello", "You said: Hello"]
        assert client.get(f"{path}/export").text.count("\n") > 2
        refused = client.patch(path, json={"pinned": None})
        assert (refused.status_code, refused.json()["error"]["param"]) == (400, "pinned")
        large = client.post(f"{path}/items", json={"items": [{"role": "user", "content": "x" * (2 << 20)}]})
        assert (large.status_code, large.json()["error"]["code"]) == (413, "too_large")
        assert client.delete(path).json()["deleted"] is True
        assert client.get(path).status_code == program.get(path.replace("/api/", "/v1/")).status_code == 404
        nowhere = client.get("/api/nothing")
        assert (nowhere.status_code, nowhere.json()["error"]["code"]) == (404, "unknown_url")


def test_the_document_of_the_native_api(house: House) -> None:
    with httpx.Client(base_url=house.service.url, timeout=120) as nobody:
        document = nobody.get("/api/openapi.json").json()
        assert nobody.get("/api/docs").status_code == 200
    assert {"/api/me", "/api/conversations/{conversation_id}", "/api/responses"} <= document["paths"].keys()
    for path, methods in document["paths"].items():
        for operation in methods.values():
            key = [{"Key": []}] if opens_by_key(Route("", path, None)) else []
            assert operation["security"] == [{"Session": []}, *key]
    assert "/api/chat/completions" not in document["paths"]
