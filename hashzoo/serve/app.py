"""The web application: what can be asked of it, and what is refused.

It shows stored images by their row alone, so that no address can name another file. Encoding and searching take turns
in one thread: methods need not be safe to run in several, and neighbours come in milliseconds.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import lru_cache, partial
from importlib.resources import files
from typing import Any, TypeVar, get_args
from urllib.parse import urlsplit

from anyio import CapacityLimiter, to_thread
from jinja2 import Environment
from PIL import Image
from starlette.applications import Starlette
from starlette.datastructures import Headers, MutableHeaders, UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from hashzoo.data.image_files import decode
from hashzoo.data.image_paths import open_image
from hashzoo.errors import HashzooError, UsageError, printable
from hashzoo.retrieval.image_index import ImageIndex
from hashzoo.retrieval.results_page import shrunk
from hashzoo.serve.views import Answer, Asked, answer, asked_about, summary
from hashzoo.types import Operation

LARGEST = 16 << 20  # bytes of a request, its images included
KEPT = 4096  # small images that are held in memory
TOP = (12, 24, 48, 96)
OPERATIONS: tuple[Operation, ...] = get_args(Operation)

#: Nothing is loaded from elsewhere, nothing inline is run, and no other site may show or post to the page.
SAFETY = {
    "Content-Security-Policy": "default-src 'none'; img-src 'self' data:; style-src 'self'; script-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}

Result = TypeVar("Result")


def application(indexes: Mapping[str, ImageIndex], hosts: Sequence[str], largest: int = LARGEST) -> ASGIApp:
    """The page of some indexes by their names.

    ``hosts`` are the names by which it may be asked for, without port, beside the address that a request comes to: a
    site elsewhere that sends people to this machine under its own name is refused. ``largest`` bounds the bytes of a
    request.
    """
    page = _template("page.html")
    several = list(indexes.items())
    known = {name: summary(index) for name, index in several}

    def rendered(status: int = 200, **content: Any) -> HTMLResponse:
        text = page.render(known=known, tops=TOP, operations=OPERATIONS, **content)
        return HTMLResponse(text.encode("utf-8", "backslashreplace"), status)

    def stored(place: int, row: int) -> Image.Image:
        try:
            return open_image(several[place][1].path(row))
        except HashzooError as error:  # which says where the file lies
            raise HTTPException(404, "The image is no longer where it was.") from error

    @lru_cache(maxsize=KEPT)
    def thumbnail(place: int, row: int) -> bytes:
        return shrunk(stored(place, row))

    async def home(request: Request) -> Response:
        return rendered()

    async def back(request: Request) -> Response:
        return RedirectResponse("/", 303)

    async def search(request: Request) -> Response:
        _insist_on_own_page(request)
        async with request.form(max_files=2, max_fields=4) as form:
            given = [one for one in form.getlist("picture") if isinstance(one, UploadFile) and one.filename]
            if not given:
                raise HTTPException(400, "Choose an image first.")
            files = [(one.filename or "an image", await one.read()) for one in given]
            top = _top(form.get("top"))
            operation = next((known for known in OPERATIONS if known == form.get("operation")), OPERATIONS[0])
        return await found(request, partial(_decoded, files), operation, top)

    async def like(request: Request) -> Response:
        place, row = _asked_for(several, request)
        name = printable(several[place][1].name(row))
        return await found(request, lambda: [(name, stored(place, row))], OPERATIONS[0], _top(None))

    async def found(
        request: Request, images: Callable[[], list[tuple[str, Image.Image]]], operation: Operation, top: int
    ) -> Response:
        def work() -> tuple[Asked, list[Answer]]:
            asked = asked_about(images(), operation)
            return asked, [answer(place, *one, asked, top) for place, one in enumerate(several)]

        asked, answers = await _in_turn(request, work)
        files = [{hit.file for hit in one.hits} for one in answers]
        both = set.intersection(*files) if len(files) > 1 else set()
        return rendered(asked=asked, answers=answers, both=both, top=top)

    async def image(request: Request) -> Response:
        found = await _in_turn(request, partial(thumbnail, *_asked_for(several, request)), "images")
        return Response(found, media_type="image/jpeg", headers={"Cache-Control": "private, max-age=3600"})

    async def refused(request: Request, error: Exception) -> Response:
        status = error.status_code if isinstance(error, HTTPException) else 500
        told = error.detail if isinstance(error, HTTPException) else "This went wrong here; the terminal says how."
        return rendered(status, refusal=told)

    @asynccontextmanager
    async def life(app: Starlette) -> AsyncIterator[None]:
        app.state.work, app.state.images = CapacityLimiter(1), CapacityLimiter(2)
        yield

    app = Starlette(
        routes=[
            Route("/", home),
            Route("/search", search, methods=["POST"]),
            Route("/search", back, methods=["GET"]),
            Route("/like/{place:int}/{row:int}", like),
            Route("/image/{place:int}/{row:int}", image),
            *(Route(f"/{name}", partial(_static, _text(name), kind)) for name, kind in STATIC.items()),
        ],
        exception_handlers={HTTPException: refused, Exception: refused},
        lifespan=life,
    )
    return Guarded(app, hosts, largest)  # around the answers to errors as well


class Guarded:
    """Sends the headers of ``SAFETY`` with every answer; refuses other names than ``hosts``, and more than ``largest``
    bytes.
    """

    def __init__(self, app: ASGIApp, hosts: Sequence[str], largest: int) -> None:
        self.app, self.hosts, self.largest = app, {host.lower() for host in hosts}, largest

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """An ASGI application around another."""
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        seen, declared = 0, Headers(scope=scope).get("content-length", "0")

        async def counted() -> Message:
            nonlocal seen
            much = declared.isdigit() and int(declared) > self.largest
            message = {} if much else await receive()  # what is too much is not waited for
            seen += len(message.get("body", b""))
            if much or seen > self.largest:
                raise HTTPException(413, f"That is too much: at most {self.largest >> 20} MiB are taken.")
            return message

        async def told(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(SAFETY)
            await send(message)

        name = Headers(scope=scope).get("host", "").rsplit(":", 1)[0].lower()
        if name not in self.hosts and name != (scope.get("server") or ("",))[0]:
            refusal = "This page answers at the address that hashzoo serve printed; --name gives it another name."
            return await PlainTextResponse(refusal, 400)(scope, counted, told)
        return await self.app(scope, counted, told)


STATIC = {"page.css": "text/css", "page.js": "text/javascript"}


async def _static(text: str, kind: str, request: Request) -> Response:
    return Response(text, media_type=kind)


def _text(name: str) -> str:
    return (files("hashzoo.serve") / name).read_text("utf-8")


def _template(name: str) -> Any:
    return Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(_text(name))


async def _in_turn(request: Request, work: Callable[[], Result], line: str = "work") -> Result:
    """Wait for our turn and work in a thread; what is wrong with a person's image is said to them."""
    try:
        return await to_thread.run_sync(work, limiter=getattr(request.app.state, line))
    except HashzooError as error:
        raise HTTPException(415 if not isinstance(error, UsageError) else 400, f"{error}.") from error


def _insist_on_own_page(request: Request) -> None:
    origin = request.headers.get("origin")
    if origin is not None and urlsplit(origin).netloc != request.headers.get("host"):
        raise HTTPException(403, "Only this page may send images here.")


def _asked_for(several: Sequence[tuple[str, ImageIndex]], request: Request) -> tuple[int, int]:
    place, row = request.path_params["place"], request.path_params["row"]
    if place >= len(several) or row >= len(several[place][1]):
        raise HTTPException(404, "There is no such image in the index.")
    return place, row


def _top(asked: object) -> int:
    return next((top for top in TOP if str(top) == asked), TOP[1])


def _decoded(given: Sequence[tuple[str, bytes]]) -> list[tuple[str, Image.Image]]:
    """Images that were sent. EnvironmentFailure naming the one that is none."""
    found = []
    for name, data in given:
        try:
            found.append((printable(name), decode(data)))
        except HashzooError as error:
            raise type(error)(f"{printable(name)} does not decode as an image: {error}") from error
    return found
