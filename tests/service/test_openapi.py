"""The OpenAPI document: it is true of what comes, nothing that it allows breaks the service, and it can be read."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import response_schema_conformance, status_code_conformance
from tests.service.echo import Echo
from tests.service.live import Live, live_service, reading_here
from tests.service.people import make_person

EXAMPLES = 8  # of each operation


class Place:
    """The service, the key of somebody, and ids of theirs that are there."""

    def __init__(self, service: Live, client: httpx.Client) -> None:
        self.url = service.url
        self.client = client
        self.document: dict[str, Any] = self.client.get("/v1/openapi.json").json()
        made = self.client.post("/v1/conversations", json={"items": [{"role": "user", "content": "hello"}]}).json()
        item = self.client.get(f"/v1/conversations/{made['id']}/items").json()["data"][0]
        response = self.client.post("/v1/responses", json={"model": "echo", "input": "hello"}).json()
        form = {"files": {"file": ("a.txt", b"hello")}, "data": {"purpose": "assistants"}}
        file = self.client.post("/v1/files", **form).json()
        store = self.client.post("/v1/vector_stores", json={"file_ids": [file["id"]]}).json()
        batches = f"/v1/vector_stores/{store['id']}/file_batches"
        batch = self.client.post(batches, json={"file_ids": [file["id"]]}).json()
        self.ids = {
            "conversation_id": made["id"],
            "item_id": item["id"],
            "response_id": response["id"],
            "model": "echo",
            "file_id": file["id"],
            "vector_store_id": store["id"],
            "batch_id": batch["id"],
        }


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with (
        reading_here(),
        live_service(
            tmp_path_factory.mktemp("openapi"), model=Echo(), rate_limit=0, wait=1.0, embedder="off"
        ) as service,
        httpx.Client(base_url=service.url, headers=make_person("write").headers, timeout=120) as client,
    ):
        yield Place(service, client)


def test_nothing_that_the_document_allows_breaks_the_service(place: Place) -> None:
    operations = [found.ok() for found in schemathesis.openapi.from_dict(place.document).get_all_operations()]
    assert len(operations) >= 15
    for operation in operations:
        _try(place, operation)


def _try(place: Place, operation: Any) -> None:
    @settings(max_examples=EXAMPLES, database=None, suppress_health_check=list(HealthCheck), deadline=None)
    @given(case=operation.as_strategy(), real=st.booleans())
    def test(case: Any, real: bool) -> None:
        if real and operation.method != "delete":
            case.path_parameters = {name: place.ids[name] for name in case.path_parameters or {}}
        if isinstance(case.body, dict):
            case.body.pop("stream", None)  # frames are no JSON; they have tests of their own
        (case.query or {}).pop("stream", None)
        answer = case.call(base_url=place.url, headers=dict(place.client.headers), timeout=120)
        checks = [not_a_server_error, status_code_conformance]
        if "export" not in operation.path and operation.path != "/v1/files/{file_id}/content":
            checks.append(response_schema_conformance)
        case.validate_response(answer, checks=checks)

    test()


def test_the_document_is_one(place: Place) -> None:
    document = place.document
    assert document["openapi"].startswith("3.")
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            assert operation["security"], f"{method} {path} needs a key, and the document must say so"
            assert operation["description"], f"{method} {path} is not described"
    names = [operation["operationId"] for methods in document["paths"].values() for operation in methods.values()]
    assert len(names) == len(set(names))


def test_the_page_needs_nothing_from_elsewhere(place: Place) -> None:
    with httpx.Client(base_url=place.url) as nobody:
        answer = nobody.get("/v1/docs")
        document = nobody.get("/v1/openapi.json")
    assert answer.status_code == document.status_code == 200
    assert answer.headers["content-type"].startswith("text/html")
    assert not re.search(r"<script|<link|<img|<style|style=|@import", answer.text)
    targets = re.findall(r'(?:src|href|action)="([^"]*)"', answer.text)
    assert targets == ["/v1/openapi.json"]
    for path in place.document["paths"]:
        assert f" {path}</code>" in answer.text
    assert json.loads(document.text) == place.document
