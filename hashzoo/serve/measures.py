"""What the server measures, for Prometheus."""

from __future__ import annotations

import time
from collections.abc import Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from hashzoo.serve.served_index import ServedIndex

KNOWN = ("/", "/search", "/health", "/metrics", "/openapi.json", "/v1/indexes", "/v1/search", "/v1/encode", "/v1/items")
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")


class Measures:
    """An ASGI application around another that counts and times its requests.

    Args:
        app: The application.
        indexes: The indexes that are served, by name.
    """

    def __init__(self, app: ASGIApp, indexes: Mapping[str, ServedIndex]) -> None:
        self.app, self._indexes, self.registry = app, indexes, CollectorRegistry()
        labels = ("method", "path")
        self._requests = Counter("hashzoo_requests", "Requests", (*labels, "status"), registry=self.registry)
        self._seconds = Histogram("hashzoo_request_seconds", "Seconds of a request", labels, registry=self.registry)
        self._active = Gauge("hashzoo_requests_in_progress", "Requests in progress", registry=self.registry)
        self._images = Gauge("hashzoo_index_images", "Images of an index", ("index",), registry=self.registry)
        self._state = Gauge("hashzoo_index_state", "Number of changes of an index", ("index",), registry=self.registry)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request."""
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        # few values, whatever is asked for
        path = scope["path"] if scope["path"] in KNOWN else "other"
        labels = (scope["method"] if scope["method"] in METHODS else "other", path)
        status, started = 500, time.perf_counter()

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        with self._active.track_inprogress():
            try:
                await self.app(scope, receive, watched)
            finally:
                self._requests.labels(*labels, str(status)).inc()
                self._seconds.labels(*labels).observe(time.perf_counter() - started)

    def text(self) -> bytes:
        """All measures in the text format of Prometheus."""
        for name, index in self._indexes.items():
            state, current = index.current()
            self._images.labels(name).set(len(current))
            self._state.labels(name).set(state)
        return generate_latest(self.registry)
