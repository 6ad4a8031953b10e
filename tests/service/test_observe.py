"""What the service tells of itself: logs, figures, traces; never a secret, never what was said."""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import re
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from tests.service.people import service_settings

from daram.errors import ModelTimeout
from daram.llm.base import ChatModel, Delta, Options
from daram.model import Message, user
from daram.service.observe import logs, traces
from daram.service.observe.metrics import Metrics
from daram.service.observe.model import watched
from daram.service.observe.requests import Observed, route

KEY = "daram-abcdefghij-" + "S3cret" * 7 + "x"


class Scripted:
    """A model that says what it was given."""

    name, context_tokens, prefers_notes = "scripted", 4096, False

    def __init__(self, *deltas: Delta | Exception) -> None:
        self._deltas = deltas
        self.closed = 0

    async def stream(self, messages: Any, options: Options = Options()) -> AsyncIterator[Delta]:
        try:
            for delta in self._deltas:
                if isinstance(delta, Exception):
                    raise delta
                yield delta
        finally:
            self.closed += 1

    def count_tokens(self, text: str) -> int:
        return len(text)

    async def ready(self) -> None:
        return None

    async def close(self) -> None:
        pass


WHOLE = (Delta(text="a secret"), Delta(finish="stop", usage={"input_tokens": 7, "output_tokens": 2}, model="big-1"))


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> Iterator[InMemorySpanExporter]:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(traces, "_tracer", None)
    assert traces.set_up(provider)
    yield exporter
    provider.shutdown()


async def ask(model: ChatModel) -> list[Delta]:
    return [delta async for delta in model.stream([user("what I said")], Options(max_tokens=9, temperature=0.5))]


# --- logs ---


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        (f"key {KEY} was used", "key daram-abcdefghij-*** was used"),
        ("Authorization: Bearer abc.def-123", "Authorization: Bearer ***"),
        ("GET /login/link?token=abc&x=1", "GET /login/link?token=***&x=1"),
        ("postgresql://me:p@ss@host/db", "postgresql://me:***@host/db"),
        ("sk-proj-0123456789abcdef", "sk-pr***"),
        ("nothing to hide", "nothing to hide"),
    ],
)
def test_secrets_are_masked_wherever_they_come_from(said: str, shown: str) -> None:
    assert logs.masked(said) == shown


@pytest.fixture
def logging_as_it_was() -> Iterator[None]:
    names = ("", "daram", "django.request")
    loggers = [logging.getLogger(name) for name in names]
    before = [(logger, logger.handlers[:], logger.level) for logger in loggers]
    yield
    for logger, handlers, level in before:
        logger.handlers[:] = handlers
        logger.setLevel(level)


@pytest.mark.usefixtures("logging_as_it_was")
def test_lines_of_json_hold_what_happened_and_no_key(capsys: pytest.CaptureFixture[str]) -> None:
    logs.set_up("json")
    log = logging.getLogger("daram.test")
    log.info("with %s", KEY, extra={"request_id": "r1", "status": 200})
    try:
        raise ValueError(KEY)
    except ValueError:
        log.exception("it failed")
    logging.getLogger("somebody.else").info("not ours")
    one, two = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert (one["message"], one["request_id"], one["status"]) == ("with daram-abcdefghij-***", "r1", 200)
    assert two["level"] == "error"
    assert "ValueError: daram-abcdefghij-***" in two["exception"]


@pytest.mark.usefixtures("logging_as_it_was")
@pytest.mark.parametrize(("how", "lines"), [("off", ["bad"]), ("text", ["good", "bad"])])
def test_lines_for_people(capsys: pytest.CaptureFixture[str], how: str, lines: list[str]) -> None:
    logs.set_up(how)
    logging.getLogger("daram.requests").info("good")
    logging.getLogger("daram.requests").warning("bad")
    assert [line.split()[-1] for line in capsys.readouterr().err.splitlines()] == lines


# --- figures and traces ---


def test_every_operation_is_counted_by_itself_and_what_is_none_takes_no_room(tmp_path: Path) -> None:
    service_settings(tmp_path)
    from daram.service.openai_api.api import api

    operations = [re.sub(r"\{[^}]*\}", "{}", path) for path in api.get_openapi_schema(path_prefix="/v1/")["paths"]]
    assert len(operations) > 15
    for operation in operations:
        assert route(operation.replace("{}", "0190")) == operation
    words = ["v1", "models", "conversations", "items", "responses", "cancel", "chat", "admin", "login", "", "x"]
    counted = {route("/".join(parts)) for size in range(1, 6) for parts in itertools.product(words, repeat=size)}
    assert len(counted) < 40


async def test_a_generation_is_counted_and_traced_without_its_words(spans: InMemorySpanExporter) -> None:
    metrics = Metrics()
    inner = Scripted(*WHOLE)
    model = watched(inner, metrics)
    assert (model.name, model.context_tokens, model.prefers_notes) == (
        inner.name,
        inner.context_tokens,
        inner.prefers_notes,
    )
    assert model.count_tokens("four") == 4
    assert await ask(model) == list(WHOLE)
    text = metrics.response(_Idle()).body.decode()
    assert 'daram_generations_total{model="scripted",outcome="stop"} 1.0' in text
    assert 'daram_tokens_total{kind="output",model="scripted"} 2.0' in text
    assert "daram_generating 0.0" in text
    (span,) = spans.get_finished_spans()
    assert span.name == "chat scripted"
    assert dict(span.attributes or {}) == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "daram",
        "gen_ai.request.model": "scripted",
        "gen_ai.request.max_tokens": 9,
        "gen_ai.request.temperature": 0.5,
        "gen_ai.response.finish_reasons": ("stop",),
        "gen_ai.response.model": "big-1",
        "gen_ai.usage.input_tokens": 7,
        "gen_ai.usage.output_tokens": 2,
    }


async def test_a_generation_that_fails_or_is_stopped_says_so(spans: InMemorySpanExporter) -> None:
    metrics = Metrics()
    with pytest.raises(ModelTimeout):
        await ask(watched(Scripted(Delta(text="x"), ModelTimeout("it said nothing to KEY")), metrics))
    inner = Scripted(*WHOLE)
    answer = watched(inner, metrics).stream([Message(role="user", text="x")])
    await anext(answer)
    await answer.aclose()
    assert inner.closed == 1  # the model is stopped with it
    failed, stopped = spans.get_finished_spans()
    assert (failed.attributes or {})["error.type"] == "model_timeout"
    assert "KEY" not in failed.to_json()
    assert "error.type" not in (stopped.attributes or {})
    text = metrics.response(_Idle()).body.decode()
    assert 'outcome="model_timeout"} 1.0' in text
    assert 'outcome="stopped"} 1.0' in text
    assert "daram_generating 0.0" in text


async def test_a_request_goes_on_in_the_trace_of_who_asks(spans: InMemorySpanExporter) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 503, "headers": []})
        await send({"type": "http.response.body", "body": b"x"})

    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    trace = "0af7651916cd43dd8448eb211c80319c"
    headers = [(b"traceparent", f"00-{trace}-b7ad6b7169203331-01".encode()), (b"cookie", b"a=b")]
    scope = {"type": "http", "method": "GET", "path": "/v1/responses/resp_secret", "headers": headers}
    await Observed(app, metrics=None)(scope, asyncio.Event().wait, send)
    (span,) = spans.get_finished_spans()
    assert span.name == "GET /v1/responses/{}"
    assert f"{span.context.trace_id:032x}" == trace
    attributes = dict(span.attributes or {})
    assert attributes["http.response.status_code"] == 503
    assert dict(sent[0]["headers"])[b"x-request-id"].decode() == attributes["daram.request_id"]
    assert "secret" not in span.to_json()


def test_nothing_is_traced_unless_it_is_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(traces, "_tracer", None)
    monkeypatch.delenv("OTEL_EXPORTER_OTLP_ENDPOINT", raising=False)
    assert not traces.set_up()
    model = Scripted()
    assert watched(model, None) is model


def test_without_the_extra_there_are_no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Metrics.available()
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    assert not Metrics.available()


class _Idle:
    """A runtime that works on nothing."""

    draining = False
