"""Limits of requests: their size, time, rate and number, their origin, and the token."""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

API, HEALTH = "/v1/", "/health"
READING = ("GET", "HEAD")
CLIENTS = 10_000  # whose rates are remembered

#: No external resources, no inline scripts, and no embedding or posting by other sites.
SECURITY_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; img-src 'self' data:; style-src 'self'; script-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


@dataclass(frozen=True)
class Limits:
    """What requests can do.

    Attributes:
        hosts: Host names, without port, that requests can use in addition to the server's address. Other names are
            refused, since a malicious site can resolve its own name to this machine (DNS rebinding).
        max_bytes: Largest size of a request.
        token: The token of changes; empty if there are none.
        private: Whether all requests need the token, and not changes alone.
        rate: Requests a second of one address, on average over two seconds; 0 has no limit.
        pending: Requests that are answered or wait at once.
        seconds: Time in which a request must arrive.
    """

    hosts: Sequence[str] = ()
    max_bytes: int = 16 << 20
    token: str = ""
    private: bool = False
    rate: float = 0.0
    pending: int = 128
    seconds: float = 30.0


class RequestGuard:
    """An ASGI application around another that limits requests and adds ``SECURITY_HEADERS`` to every response.

    Args:
        app: The application.
        limits: The limits.
        clock: Seconds.
    """

    def __init__(self, app: ASGIApp, limits: Limits, clock: Callable[[], float] = time.monotonic) -> None:
        self.app, self.limits, self._clock = app, limits, clock
        self._hosts = {host.lower() for host in limits.hosts}
        self._pending = 0
        self._rates: OrderedDict[str, tuple[float, float]] = OrderedDict()  # address: requests left, when

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request."""
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        secured = _secured(send)
        if refusal := self._refusal(scope, Headers(scope=scope)):
            return await _answer(scope, *refusal)(scope, receive, secured)
        self._pending += 1
        try:
            return await self.app(scope, self._limited(scope, receive), secured)
        finally:
            self._pending -= 1

    def _refusal(self, scope: Scope, headers: Headers) -> tuple[int, str, dict[str, str]] | None:
        """The status, the reason and the headers of a refusal; None if the request is accepted."""
        name = headers.get("host", "").rsplit(":", 1)[0].lower()
        if name not in self._hosts and name != (scope.get("server") or ("",))[0]:
            text = "Unknown host name; use the address that hashzoo serve printed, or allow this name with --name."
            return 400, text, {}
        if scope["path"] == HEALTH:
            return None
        if not self._within_rate((scope.get("client") or ("",))[0]):
            return 429, f"More than {self.limits.rate:g} requests a second; wait.", {"Retry-After": "1"}
        if self._pending >= self.limits.pending:
            return 503, f"{self.limits.pending} requests are being answered; try again.", {"Retry-After": "1"}
        origin = headers.get("origin")
        if scope["method"] not in READING and origin is not None and urlsplit(origin).netloc != headers.get("host"):
            return 403, "Requests from other sites are not allowed.", {}
        return self._unauthorized(scope, headers.get("authorization", ""))

    def _unauthorized(self, scope: Scope, given: str) -> tuple[int, str, dict[str, str]] | None:
        changes = scope["path"].startswith(API + "items")
        if not (self.limits.private or changes):
            return None
        if not self.limits.token:
            return 403, "This server takes no changes; start it with a token, by --token-file or HASHZOO_TOKEN.", {}
        if secrets.compare_digest(_token(given).encode(), self.limits.token.encode()):
            return None
        kind = "Bearer" if scope["path"].startswith(API) else "Basic"
        return 401, "A token is required: Authorization: Bearer TOKEN.", {"WWW-Authenticate": f'{kind} realm="hashzoo"'}

    def _within_rate(self, client: str) -> bool:
        """Whether an address may send a request now; a bucket of two seconds' requests fills at the rate."""
        rate = self.limits.rate
        if not rate:
            return True
        now, most = self._clock(), max(1.0, 2 * rate)
        left, then = self._rates.pop(client, (most, now))
        left = min(most, left + (now - then) * rate)
        self._rates[client] = (left - 1 if left >= 1 else left, now)
        if len(self._rates) > CLIENTS:
            self._rates.popitem(last=False)
        return left >= 1

    def _limited(self, scope: Scope, receive: Receive) -> Receive:
        """Receives the body of a request up to the limits of size and time."""
        most, received = self.limits.max_bytes, 0
        end, arrived = self._clock() + self.limits.seconds, False
        declared = Headers(scope=scope).get("content-length", "0")

        async def limited() -> Message:
            nonlocal received, arrived
            if declared.isdigit() and int(declared) > most:
                raise HTTPException(413, f"The request is too large; the limit is {most >> 20} MiB.")
            if arrived:
                return await receive()  # that the client has gone
            try:
                message = await asyncio.wait_for(receive(), max(0.0, end - self._clock()))
            except TimeoutError:
                raise HTTPException(408, f"The request did not arrive within {self.limits.seconds:g} s.") from None
            received += len(message.get("body", b""))
            arrived = not message.get("more_body", False)
            if received > most:
                raise HTTPException(413, f"The request is too large; the limit is {most >> 20} MiB.")
            return message

        return limited


def _token(given: str) -> str:
    """The token of an Authorization header: that of Bearer, or the password of Basic, which browsers ask for."""
    kind, _, value = given.partition(" ")
    if kind.lower() == "bearer":
        return value.strip()
    if kind.lower() == "basic":
        try:
            return base64.b64decode(value, validate=True).decode().partition(":")[2]
        except (binascii.Error, UnicodeDecodeError):
            return ""
    return ""


def _answer(scope: Scope, status: int, text: str, headers: dict[str, str]) -> Response:
    if scope["path"].startswith(API):
        return Response(json.dumps({"detail": text}), status, headers, "application/json")
    return Response(text, status, headers, "text/plain")


def _secured(send: Send) -> Send:
    async def secured(message: Message) -> None:
        if message["type"] == "http.response.start":
            MutableHeaders(scope=message).update(SECURITY_HEADERS)
        await send(message)

    return secured
