"""Traces for OpenTelemetry, where ``daram[otel]`` is installed and an exporter is configured by its own variables.

Spans follow the conventions for HTTP servers and for generative AI. What was said is in none of them.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
from collections.abc import Iterator
from typing import Any

from starlette.types import Scope

__all__ = ["Span", "active", "generation", "request", "set_up"]

_WANTED = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
_tracer: Any = None


def set_up(provider: Any = None) -> bool:
    """Begin to trace, if that is wanted and the libraries are there; returns whether it is so.

    ``provider``: a ``TracerProvider`` of one's own, as tests have it.
    """
    global _tracer
    if provider is None:
        wanted = any(os.environ.get(name) for name in _WANTED) and os.environ.get("OTEL_SDK_DISABLED") != "true"
        if not wanted or importlib.util.find_spec("opentelemetry.sdk") is None:
            return False
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        provider = TracerProvider(
            resource=Resource.create({"service.name": os.environ.get("OTEL_SERVICE_NAME", "daram")})
        )
        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    _tracer = provider.get_tracer("daram")
    return True


def active() -> bool:
    """Whether anybody traces."""
    return _tracer is not None


class Span:
    """A span, or nothing where nobody traces."""

    def __init__(self, span: Any = None) -> None:
        self._span = span

    def set(self, **attributes: object) -> None:
        """Attributes by their names, with ``__`` for the dots."""
        if self._span is not None:
            for name, value in attributes.items():
                if value is not None:
                    self._span.set_attribute(name.replace("__", "."), value)

    def ended(self, status: int) -> None:
        """The status that the request was answered with."""
        self.set(http__response__status_code=status)
        if status >= 500:
            self.failed(str(status))

    def failed(self, kind: str) -> None:
        """It went wrong: the kind of error, without its words."""
        if self._span is not None:
            from opentelemetry.trace import Status, StatusCode

            self._span.set_attribute("error.type", kind)
            self._span.set_status(Status(StatusCode.ERROR))


@contextlib.contextmanager
def request(method: str, route: str, id: str, scope: Scope) -> Iterator[Span]:
    """A span around a request, within the trace of whoever asks."""
    if _tracer is None:
        yield Span()
        return
    from opentelemetry.propagate import extract
    from opentelemetry.trace import SpanKind

    carrier = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
    parent = extract({name: carrier[name] for name in ("traceparent", "tracestate") if name in carrier})
    attributes = {"http.request.method": method, "http.route": route, "daram.request_id": id}
    with _tracer.start_as_current_span(
        f"{method} {route}",
        context=parent,
        kind=SpanKind.SERVER,
        attributes=attributes,
        record_exception=False,
        set_status_on_exception=False,
    ) as span:
        yield Span(span)


@contextlib.contextmanager
def generation(model: str, **options: object) -> Iterator[Span]:
    """A span around what a model is asked."""
    if _tracer is None:
        yield Span()
        return
    from opentelemetry.trace import SpanKind

    # Not made current: an async generator may be closed in another context than it was begun in.
    span = _tracer.start_span(f"chat {model}", kind=SpanKind.CLIENT)
    found = Span(span)
    found.set(gen_ai__operation__name="chat", gen_ai__provider__name="daram", gen_ai__request__model=model)
    found.set(**{f"gen_ai__request__{name}": value for name, value in options.items()})
    try:
        yield found
    finally:
        span.end()
