"""Figures for Prometheus, where ``daram[metrics]`` is installed."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING

from starlette.responses import Response

if TYPE_CHECKING:
    from daram.service.runtime import Runtime

__all__ = ["Metrics"]

_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)


class Metrics:
    """What this process has done since it began."""

    def __init__(self) -> None:
        from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, PlatformCollector, ProcessCollector

        self._registry = CollectorRegistry()
        PlatformCollector(registry=self._registry)
        ProcessCollector(registry=self._registry)
        labels = ("method", "route", "status")
        self._requests = Counter("daram_requests", "Requests answered.", labels, registry=self._registry)
        self._seconds = Histogram(
            "daram_request_seconds",
            "Time until a request was answered to its end.",
            ("method", "route"),
            buckets=_BUCKETS,
            registry=self._registry,
        )
        self._generations = Counter(
            "daram_generations", "What the model was asked for.", ("model", "outcome"), registry=self._registry
        )
        self._first = Histogram(
            "daram_first_token_seconds",
            "Time from asking the model to its first word.",
            ("model",),
            buckets=_BUCKETS,
            registry=self._registry,
        )
        self._tokens = Counter(
            "daram_tokens", "Tokens, as the model counts them.", ("model", "kind"), registry=self._registry
        )
        self._generating = Gauge("daram_generating", "What the model is being asked now.", registry=self._registry)
        self._draining = Gauge("daram_draining", "1 once the end of the process has begun.", registry=self._registry)

    @staticmethod
    def available() -> bool:
        """Whether the library is there."""
        return importlib.util.find_spec("prometheus_client") is not None

    def request(self, method: str, route: str, status: int, seconds: float) -> None:
        """A request was answered."""
        known = method if method in ("GET", "HEAD", "POST", "PATCH", "PUT", "DELETE", "OPTIONS") else "other"
        self._requests.labels(known, route, str(status)).inc()
        self._seconds.labels(known, route).observe(seconds)

    def generation_began(self) -> None:
        """The model is asked."""
        self._generating.inc()

    def generation_ended(self, model: str, outcome: str, first: float | None, usage: dict[str, int] | None) -> None:
        """It has answered, or failed (``outcome``); ``first``: seconds to the first word."""
        self._generating.dec()
        self._generations.labels(model, outcome).inc()
        if first is not None:
            self._first.labels(model).observe(first)
        for kind in ("input_tokens", "output_tokens"):
            if usage and kind in usage:
                self._tokens.labels(model, kind.removesuffix("_tokens")).inc(usage[kind])

    def response(self, runtime: Runtime) -> Response:
        """All of it, as Prometheus reads it."""
        from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

        self._draining.set(runtime.draining)
        return Response(generate_latest(self._registry), media_type=CONTENT_TYPE_LATEST)
