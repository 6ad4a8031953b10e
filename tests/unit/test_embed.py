"""Embedding models: the local one as it is installed, and endpoints against the scripted server."""

from __future__ import annotations

import asyncio
import json
import math
from contextlib import asynccontextmanager

import pytest

from daram import errors
from daram.config import Settings, make_embedder
from daram.llm import embed_local
from daram.llm.base import Embedder
from daram.llm.embed_local import LocalEmbedder
from daram.llm.embed_openai import OpenAIEmbedder
from daram.testing.model_server import Reply, ScriptedModelServer, failure

KEY = "sk-very-secret-0123456789"


def cosine(one: list[float], other: list[float]) -> float:
    return math.fsum(a * b for a, b in zip(one, other, strict=True))


@pytest.fixture(scope="module")
def local() -> LocalEmbedder:
    return LocalEmbedder()


@asynccontextmanager
async def endpoint(*script, **options):
    async with ScriptedModelServer() as server:
        server.script(*script)
        embedder = OpenAIEmbedder(
            **{"name": "counting", "base_url": server.base_url, "api_key": KEY, "dimensions": 8, "backoff": 0.001}
            | options
        )
        try:
            yield server, embedder
        finally:
            await embedder.close()


async def test_local_vectors_have_unit_length_and_tell_meanings_apart_in_both_languages(local: LocalEmbedder):
    assert isinstance(local, Embedder)
    vectors = await local.embed(
        [
            "Where does the squirrel hide its acorns?",
            "다람쥐는 도토리를 어디에 숨기나요?",
            "The interest rate of the central bank rose again.",
        ]
    )
    assert [len(vector) for vector in vectors] == [local.dimensions] * 3
    assert all(abs(cosine(vector, vector) - 1) < 1e-5 for vector in vectors)
    assert cosine(vectors[0], vectors[1]) > cosine(vectors[0], vectors[2]) + 0.2


async def test_local_takes_whatever_a_text_may_hold(local: LocalEmbedder):
    assert await local.embed([]) == []
    odd = ["", "\ud800 half a letter", "\x00", "\ufdfa" * 3000, "한" * 50_000, "🐿️"]
    assert [len(vector) for vector in await local.embed(odd)] == [512] * len(odd)


async def test_of_a_long_text_the_beginning_counts(local: LocalEmbedder):
    text = "squirrels " * 300
    (cut, whole) = await local.embed([text[: embed_local.MAX_CHARS], text + "x" * 100_000])
    assert cut == whole


async def test_local_does_not_stop_the_loop(local: LocalEmbedder):
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    counting = asyncio.create_task(count())
    await local.embed(["acorn " * 300] * 64)
    counting.cancel()
    assert turns > 4  # at least once for each batch


def test_without_the_package_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(embed_local, "find_spec", lambda name: None)
    with pytest.raises(errors.MissingExtra, match=r"daram\[documents\]"):
        LocalEmbedder()
    assert make_embedder(Settings.from_env({})) is None
    with pytest.raises(errors.MissingExtra):
        make_embedder(Settings.from_env({"DARAM_EMBEDDER": "local"}))


async def test_an_endpoint_gives_vectors_in_order_and_of_unit_length():
    texts = [f"text {number}" for number in range(100)]
    async with endpoint() as (server, embedder):
        assert isinstance(embedder, Embedder)
        vectors = await embedder.embed(texts)
        again = await embedder.embed(texts[99:])
    assert [len(request["input"]) for request in server.requests] == [64, 36, 1]
    assert server.headers[0]["authorization"] == f"Bearer {KEY}"
    assert "dimensions" not in server.requests[0]
    assert all(abs(cosine(vector, vector) - 1) < 1e-9 for vector in vectors)
    assert vectors[99] == again[0]


async def test_an_endpoint_is_sent_nothing_that_it_would_refuse():
    async with endpoint() as (server, embedder):
        assert await embedder.embed([]) == []
        assert len(await embedder.embed(["", " ", "\ud800", "x" * 100_000])) == 4
    (request,) = server.requests
    assert request["input"][:3] == ["-", "-", "?"]
    assert len(request["input"][3]) == 8000


async def test_an_answer_out_of_order_is_put_in_order():
    body = {"data": [{"index": 1, "embedding": [0.0, 2.0]}, {"index": 0, "embedding": [3.0, 0.0]}]}
    async with endpoint(Reply(body=json.dumps(body)), dimensions=2) as (_, embedder):
        assert await embedder.embed(["a", "b"]) == [[1.0, 0.0], [0.0, 1.0]]


async def test_a_fault_that_passes_is_tried_again():
    async with endpoint(failure(429, retry_after=0), failure(503)) as (server, embedder):
        assert len(await embedder.embed(["a"])) == 1
        assert len(server.requests) == 3


@pytest.mark.parametrize(
    ("reply", "error", "words"),
    [
        (failure(401, f"wrong key {KEY}"), errors.ModelRefused, "DARAM_EMBEDDER_KEY"),
        (failure(404, "no such model"), errors.ModelRefused, "DARAM_EMBEDDER, and DARAM_EMBEDDER_URL"),
        (failure(429, retry_after=3600), errors.ModelRateLimited, "slow down"),
        (Reply(body="<html>"), errors.ModelBroken, "not an embeddings answer"),
        (Reply(body=json.dumps({"data": []})), errors.ModelBroken, "0 vectors for 1 texts"),
        (Reply(body=json.dumps({"data": [{"embedding": [1.0]}]})), errors.ModelBroken, "DARAM_EMBEDDER_DIMENSIONS"),
        (Reply(body=json.dumps({"data": [{"embedding": [0.0] * 8}]})), errors.ModelBroken, "direction"),
    ],
)
async def test_what_an_endpoint_may_do_wrong_is_said(reply, error, words):
    async with endpoint(reply) as (_, embedder):
        with pytest.raises(error, match=words) as raised:
            await embedder.embed(["a"])
    assert KEY not in str(raised.value)


def test_the_length_of_vectors_must_be_known():
    assert OpenAIEmbedder("text-embedding-3-small").dimensions == 1536
    with pytest.raises(errors.ConfigError, match="DARAM_EMBEDDER_DIMENSIONS"):
        OpenAIEmbedder("my-model")


async def test_shorter_vectors_are_asked_for_where_the_model_can():
    async with endpoint(name="text-embedding-3-small", dimensions=16) as (server, embedder):
        (vector,) = await embedder.embed(["a"])
    assert (server.requests[0]["dimensions"], len(vector)) == (16, 16)


def test_the_settings_name_the_embedder():
    assert isinstance(make_embedder(Settings.from_env({})), LocalEmbedder)
    assert make_embedder(Settings.from_env({"DARAM_EMBEDDER": "off"})) is None
    made = make_embedder(
        Settings.from_env(
            {"DARAM_EMBEDDER": "openai:mine", "DARAM_EMBEDDER_DIMENSIONS": "64", "OPENAI_BASE_URL": "http://there/v1"}
        )
    )
    assert isinstance(made, OpenAIEmbedder)
    assert (made.name, made.dimensions) == ("mine", 64)
    assert "http://there/v1" in repr(made)


def test_the_chat_models_key_is_not_sent_to_another_endpoint():
    made = make_embedder(
        Settings.from_env(
            {
                "DARAM_EMBEDDER": "openai:bge-m3",
                "DARAM_EMBEDDER_URL": "http://elsewhere/v1",
                "OPENAI_API_KEY": KEY,
            }
        )
    )
    assert isinstance(made, OpenAIEmbedder)
    assert made._key == ""
