"""OpenAI-compatible endpoints, against the scripted server: real connections, no patched client."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
from contextlib import aclosing, asynccontextmanager

import pytest

from daram import errors
from daram.llm.base import ChatModel, Options
from daram.llm.openai import OpenAIModel
from daram.model import Message, system, user
from daram.testing.model_server import Reply, ScriptedModelServer, call, cut, failure, html, overflow, stall

KEY = "sk-very-secret-0123456789"


@asynccontextmanager
async def endpoint(*script, server=None, **options):
    """A server with a script, and a model that talks to it and does not wait long."""
    defaults = {"read_timeout": 20.0, "backoff": 0.001, "api_key": KEY}
    async with ScriptedModelServer(**(server or {})) as running:
        running.script(*script)
        model = OpenAIModel("scripted", base_url=running.base_url, **defaults | options)
        try:
            yield running, model
        finally:
            await model.close()


async def ask(model: OpenAIModel, *messages: Message, options: Options | None = None):
    return [delta async for delta in model.stream(messages or [user("Hi")], options or Options())]


def joined(deltas) -> str:
    return "".join(delta.text for delta in deltas)


def test_keeps_the_protocol():
    assert isinstance(OpenAIModel("m"), ChatModel)
    assert OpenAIModel("m").count_tokens("text") is None


async def test_streams_text_then_finish_and_usage():
    async with endpoint("one two three") as (server, model):
        deltas = await ask(model, system("Be brief."), user("Count."), options=Options(temperature=0, max_tokens=9))
    assert [delta.text for delta in deltas] == ["one", " two", " three", ""]
    assert [delta.finish for delta in deltas] == [None, None, None, "stop"]
    assert deltas[-1].usage["output_tokens"] == 3
    assert deltas[-1].model == "scripted"
    sent = server.requests[0]
    assert sent["messages"] == [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Count."}]
    assert (sent["temperature"], sent["max_tokens"], sent["stream"]) == (0, 9, True)
    assert server.headers[0]["authorization"] == f"Bearer {KEY}"


async def test_one_connection_serves_many_answers():
    async with endpoint("a", "b", "c") as (server, model):
        assert [joined(await ask(model)) for _ in range(3)] == ["a", "b", "c"]
        assert server.connections == 1


async def test_tool_call_is_joined_from_its_fragments():
    async with endpoint(call("find", {"what": "다람쥐", "deep": [1, 2, 3]})) as (_, model):
        deltas = await ask(model, options=Options(tools=({"type": "function", "function": {"name": "find"}},)))
    assert len(deltas) == 1
    (part,) = deltas[0].parts
    assert deltas[0].finish == "tool_calls"
    assert (part.type, part.data["call_id"], part.data["name"]) == ("tool_call", "call_0", "find")
    assert json.loads(part.data["arguments"]) == {"what": "다람쥐", "deep": [1, 2, 3]}


async def test_a_body_without_streaming_is_taken_too():
    def whole(request):
        answer = {"message": {"role": "assistant", "content": "all at once"}, "finish_reason": "length"}
        return Reply(body=json.dumps({"object": "chat.completion", "choices": [answer]}))

    async with endpoint(whole) as (_, model):
        deltas = await ask(model)
    assert joined(deltas) == "all at once"
    assert deltas[-1].finish == "length"


# --- errors -----------------------------------------------------------------------------------------------------------

BEFORE = [
    (failure(401), errors.ModelRefused, "OPENAI_API_KEY"),
    (failure(403), errors.ModelRefused, "permission"),
    (failure(404, "model not found"), errors.ModelRefused, "DARAM_MODEL"),
    (failure(400, "temperature must be a number"), errors.ModelRefused, "temperature must be a number"),
    (failure(429, "slow down"), errors.ModelRateLimited, "slow down"),
    (failure(500), errors.ModelUnavailable, "500"),
    (failure(503), errors.ModelUnavailable, "503"),
    (Reply(status=307, headers={"Location": "https://elsewhere.example/"}), errors.ModelRefused, "redirects"),
    (html(), errors.ModelBroken, "/v1"),
    (html(502), errors.ModelUnavailable, "Welcome"),
    (Reply(body="[]"), errors.ModelBroken, "not the protocol"),
    (Reply(body='{"choices": 3}'), errors.ModelBroken, "not the protocol"),
    (Reply(body='{"choices": [3]}'), errors.ModelBroken, "not the protocol"),
    (Reply(body="data: 3\n\n", content_type="text/event-stream"), errors.ModelBroken, "not the protocol"),
    (Reply(body="", content_type="text/event-stream"), errors.ModelBroken, "in the middle"),
    (Reply(body="", content_type="text/plain"), errors.ModelBroken, "in the middle"),
    (Reply(body='{"error": {"message": "no engine"}}'), errors.ModelBroken, "no engine"),
    (cut(), errors.ModelBroken, "before the answer"),
    (Reply(text="a b", end="garbage", after=0), errors.ModelBroken, "not the protocol"),
    (Reply(text="a b", end="badjson", after=0), errors.ModelBroken, "not the protocol"),
    (Reply(text="a b", end="error", after=0), errors.ModelUnavailable, "the engine died"),
]


@pytest.mark.parametrize(("reply", "error", "words"), BEFORE)
async def test_errors_before_the_first_token(reply, error, words):
    async with endpoint(reply, max_retries=0) as (_, model):
        with pytest.raises(error, match=words) as caught:
            await ask(model)
    assert type(caught.value) is error
    assert KEY not in repr(caught.value)


@pytest.mark.parametrize(
    ("reply", "error", "words"),
    [
        (cut(after=2, text="a b c"), errors.ModelBroken, "middle"),
        (Reply(text="a b c", end="garbage", after=2), errors.ModelBroken, "not the protocol"),
        (Reply(text="a b c", end="badjson", after=2), errors.ModelBroken, "not the protocol"),
        (Reply(text="a b c", end="error", after=2), errors.ModelBroken, "the engine died"),
        (Reply(text="a b", end="no-finish"), errors.ModelBroken, "middle"),
    ],
)
async def test_errors_in_the_middle_keep_what_came_and_are_not_retried(reply, error, words):
    got = []

    async def collect(model):
        async for delta in model.stream([user("Hi")]):
            got.append(delta)

    async with endpoint(reply, "must not be asked for", max_retries=5) as (server, model):
        with pytest.raises(error, match=words):
            await collect(model)
        assert joined(got) == "a b"
        assert len(server.requests) == 1


async def test_a_missing_done_after_a_finish_loses_nothing():
    async with endpoint(Reply(text="all of it", end="no-done")) as (_, model):
        deltas = await ask(model)
    assert joined(deltas) == "all of it"
    assert deltas[-1].finish == "stop"


async def test_done_without_a_finish_reason_ends_the_answer():
    event = json.dumps({"choices": [{"delta": {"content": "whole"}}]})
    body = f"data: {event}\n\ndata: [DONE]\n\n"
    async with endpoint(Reply(body=body, content_type="text/event-stream")) as (_, model):
        deltas = await ask(model)
    assert (joined(deltas), deltas[-1].finish) == ("whole", "stop")


@pytest.mark.parametrize("after", [None, 2])
async def test_stall(after):
    async with endpoint(stall(after=after, text="a b c"), read_timeout=0.2) as (server, model):
        with pytest.raises(errors.ModelTimeout, match=r"0\.2 s"):
            await ask(model)
        await server.wait_for(lambda s: s.left == 1)  # the connection was closed, not left behind
        assert len(server.requests) == 1  # a silent endpoint may be at work: it is not given the work twice


@pytest.mark.parametrize("after", [0, 2])
async def test_an_endpoint_that_only_pings_is_not_waited_for_for_ever(after):
    async with endpoint(Reply(text="a b c", end="pings", after=after), read_timeout=0.1) as (server, model):
        with pytest.raises(errors.ModelTimeout):
            await ask(model)
        await server.wait_for(lambda s: s.left == 1)


async def test_nobody_listens():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        model = OpenAIModel("m", base_url=f"http://127.0.0.1:{free.getsockname()[1]}/v1", backoff=0.001)
        with pytest.raises(errors.ModelUnavailable, match="is it running"):
            await ask(model)
        assert "is it running" in await model.ready()
        await model.close()


async def test_slow_connect():
    with socket.socket() as deaf, socket.socket() as first, socket.socket() as second:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(0)
        for filler in (first, second):  # the queue of connections is full from here on
            filler.setblocking(False)
            filler.connect_ex(deaf.getsockname())
        port = deaf.getsockname()[1]
        model = OpenAIModel("m", base_url=f"http://127.0.0.1:{port}/v1", connect_timeout=0.2, max_retries=0)
        with pytest.raises((errors.ModelUnavailable, errors.ModelTimeout)):
            await ask(model)
        await model.close()


# --- context length ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dialect", ["openai", "vllm", "llama.cpp", "ollama"])
async def test_context_overflow_in_each_dialect(dialect):
    async with endpoint(overflow(dialect), max_retries=3) as (server, model):
        with pytest.raises(errors.ContextOverflow, match="context"):
            await ask(model)
        assert len(server.requests) == 1


async def test_overflow_reported_inside_the_stream():
    event = json.dumps({"error": {"message": "exceeds the available context size", "code": 400}})
    async with endpoint(Reply(body=f"data: {event}\n\n", content_type="text/event-stream")) as (_, model):
        with pytest.raises(errors.ContextOverflow):
            await ask(model)


# --- trying again -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", [failure(408), failure(409), failure(429), failure(500), failure(502), cut()])
async def test_a_passing_fault_is_tried_again(fault):
    async with endpoint(fault, fault, "at last", max_retries=2) as (server, model):
        assert joined(await ask(model)) == "at last"
        assert len(server.requests) == 3


@pytest.mark.parametrize("fault", [failure(400), failure(401), failure(403), failure(404), overflow()])
async def test_what_will_not_pass_is_not_tried_again(fault):
    async with endpoint(fault, "not reached", max_retries=2) as (server, model):
        with pytest.raises(errors.ModelError):
            await ask(model)
        assert len(server.requests) == 1


async def test_a_used_up_quota_is_not_tried_again():
    quota = failure(429, "You exceeded your current quota", code="insufficient_quota")
    async with endpoint(quota, "not reached") as (server, model):
        with pytest.raises(errors.ModelRateLimited, match="quota"):
            await ask(model)
        assert len(server.requests) == 1


async def test_gives_up_after_its_retries_with_the_last_error():
    async with endpoint(*[failure(503, "try later")] * 5, max_retries=2) as (server, model):
        with pytest.raises(errors.ModelUnavailable, match="try later"):
            await ask(model)
        assert len(server.requests) == 3


async def test_retry_after_is_waited_for(monkeypatch):
    pauses = []
    sleep = asyncio.sleep

    async def noted(seconds, *rest):
        pauses.append(seconds)
        await sleep(0, *rest)

    async with endpoint(failure(429, retry_after=7), failure(503), "ok") as (_, model):
        monkeypatch.setattr("daram.llm.endpoint.asyncio.sleep", noted)
        assert joined(await ask(model)) == "ok"
    waited = [pause for pause in pauses if pause > 0]
    assert waited[0] == 7
    assert 0 < waited[1] < 0.01


async def test_a_long_retry_after_is_reported_at_once():
    async with endpoint(failure(429, "busy", retry_after=3600), "not reached") as (server, model):
        with pytest.raises(errors.ModelRateLimited) as caught:
            await ask(model)
        assert caught.value.retry_after == 3600
        assert len(server.requests) == 1


async def test_an_unknown_stream_options_is_left_out_from_then_on():
    async with endpoint("one", "two", server={"refuse": ["stream_options"]}, max_retries=0) as (server, model):
        assert joined(await ask(model)) == "one"
        assert joined(await ask(model)) == "two"
    assert ["stream_options" in request for request in server.requests] == [True, False, False]


async def test_max_tokens_gets_its_newer_name_where_asked():
    def newer(request):
        if "max_tokens" in request:
            return failure(
                400,
                "Unsupported parameter: 'max_tokens' is not supported with this model. "
                "Use 'max_completion_tokens' instead.",
                code="unsupported_parameter",
            )
        return f"{request['max_completion_tokens']} at most"

    async with endpoint(server={"default": newer}, max_retries=0) as (_, model):
        assert joined(await ask(model, options=Options(max_tokens=9))) == "9 at most"


async def test_a_refused_value_is_an_error_and_not_dropped():
    async with endpoint(failure(400, "temperature must be at most 2"), "not reached") as (server, model):
        with pytest.raises(errors.ModelRefused):
            await ask(model, options=Options(temperature=9))
        assert len(server.requests) == 1


# --- leaving, closing, secrets ----------------------------------------------------------------------------------------


async def test_closing_the_iterator_closes_the_connection():
    async with endpoint(Reply(text="word " * 10_000, delay=0.01)) as (server, model):
        stream = model.stream([user("Hi")])
        async with aclosing(stream):
            assert (await anext(stream)).text == "word"
        await server.wait_for(lambda s: s.left == 1)


async def test_a_cancelled_task_closes_the_connection():
    async with endpoint(stall()) as (server, model):
        task = asyncio.create_task(ask(model))
        await server.wait_for(lambda s: s.requests)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await server.wait_for(lambda s: s.left == 1)


async def test_closed_in_the_middle():
    async def close_at_the_first_word(model):
        async for _ in model.stream([user("Hi")]):
            await model.close()

    async with endpoint(Reply(text="word " * 10_000, delay=0.01)) as (server, model):
        with pytest.raises(errors.ModelError):
            await close_at_the_first_word(model)
        await server.wait_for(lambda s: s.left == 1)
        await model.close()
        with pytest.raises(errors.ModelUnavailable, match="closed"):
            await ask(model)
        assert "closed" in await model.ready()


async def test_the_key_is_in_no_error_and_no_log(caplog):
    caplog.set_level(logging.DEBUG)
    echo = failure(401, f"Incorrect API key provided: {KEY}.")
    async with endpoint(failure(503, f"bad {KEY}"), echo) as (server, model):
        with pytest.raises(errors.ModelRefused) as caught:
            await ask(model)
        assert server.headers[0]["authorization"] == f"Bearer {KEY}"
        shown = f"{caught.value!r} {caught.value.__cause__!r} {model!r} {await model.ready()}"
    assert "***" in shown
    assert KEY not in shown
    assert KEY not in caplog.text


@pytest.mark.parametrize("key", ["sk-1\nX-Evil: yes", "비밀"])
def test_a_key_that_cannot_be_one(key):
    with pytest.raises(errors.ConfigError, match="OPENAI_API_KEY") as caught:
        OpenAIModel("m", api_key=key)
    assert key not in str(caught.value)


@pytest.mark.parametrize(
    "url", ["", "localhost:8080", "ftp://host/v1", "http://", "http://host:port", "http://host:99999"]
)
def test_a_wrong_address_is_named(url):
    with pytest.raises(errors.ConfigError, match="OPENAI_BASE_URL"):
        OpenAIModel("m", base_url=url)


async def test_ready():
    async with endpoint(server={"api_key": KEY}) as (_, model):
        assert await model.ready() is None
    async with endpoint(server={"api_key": "another"}) as (_, model):
        assert "OPENAI_API_KEY" in await model.ready()


async def test_many_answers_at_once_do_not_mix():
    async with endpoint(server={"delay": 0.001, "default": lambda r: r["messages"][-1]["content"] * 20}) as (_, model):
        answers = await asyncio.gather(*(ask(model, user(f"n{number} ")) for number in range(40)))
    assert [joined(answer) for answer in answers] == [f"n{number} " * 20 for number in range(40)]
