"""The web application of the search page: its routes and its limits.

Stored images are addressed by row, so that no address can name another file. One thread encodes and searches, one
request at a time, since methods are not required to be thread-safe.
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
from hashzoo.retrieval.results_page import thumbnail
from hashzoo.serve.views import IndexResult, Query, make_query, search_index, summarize
from hashzoo.types import Operation

MAX_REQUEST_BYTES = 16 << 20
CACHED_THUMBNAILS = 4096
RESULT_COUNTS = (12, 24, 48, 96)
OPERATIONS: tuple[Operation, ...] = get_args(Operation)
STATIC_FILES = {"page.css": "text/css", "page.js": "text/javascript"}

#: No external resources, no inline scripts, and no embedding or posting by other sites.
SECURITY_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; img-src 'self' data:; style-src 'self'; script-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}

Result = TypeVar("Result")
NamedImage = tuple[str, Image.Image]


def application(indexes: Mapping[str, ImageIndex], hosts: Sequence[str], max_bytes: int = MAX_REQUEST_BYTES) -> ASGIApp:
    """The search page as an ASGI application.

    Args:
        indexes: The indexes to search, by name.
        hosts: Host names, without port, that requests can use in addition to the server's address. Other names are
            refused, since a malicious site can resolve its own name to this machine (DNS rebinding).
        max_bytes: Largest size of a request.
    """
    page = SearchPage(indexes)
    app = Starlette(
        routes=[
            Route("/", page.home),
            Route("/search", page.search, methods=["POST"]),
            Route("/search", page.redirect_home, methods=["GET"]),
            Route("/like/{place:int}/{row:int}", page.search_stored),
            Route("/image/{place:int}/{row:int}", page.image),
            *(Route(f"/{name}", partial(_static, _text(name), kind)) for name, kind in STATIC_FILES.items()),
        ],
        exception_handlers={HTTPException: page.error, Exception: page.error},
        lifespan=_lifespan,
    )
    return RequestGuard(app, hosts, max_bytes)  # outermost, so that it covers error responses too


@asynccontextmanager
async def _lifespan(app: Starlette) -> AsyncIterator[None]:
    app.state.search, app.state.images = CapacityLimiter(1), CapacityLimiter(2)
    yield


class SearchPage:
    """The request handlers of the search page."""

    def __init__(self, indexes: Mapping[str, ImageIndex]) -> None:
        self.indexes = list(indexes.items())
        self.summaries = {name: summarize(index) for name, index in self.indexes}
        self.template = _template("page.html")
        self.thumbnail = lru_cache(maxsize=CACHED_THUMBNAILS)(self._thumbnail)

    async def home(self, request: Request) -> Response:
        """The page without results."""
        return self._render()

    async def redirect_home(self, request: Request) -> Response:
        """A redirect for a reload of the results of a form."""
        return RedirectResponse("/", 303)

    async def search(self, request: Request) -> Response:
        """The results of the images in a form."""
        _check_origin(request)
        async with request.form(max_files=2, max_fields=4) as form:
            uploads = [item for item in form.getlist("image") if isinstance(item, UploadFile) and item.filename]
            if not uploads:
                raise HTTPException(400, "Choose an image first.")
            named_bytes = [(upload.filename or "an image", await upload.read()) for upload in uploads]
            top = _result_count(form.get("top"))
            operation = next((known for known in OPERATIONS if known == form.get("operation")), OPERATIONS[0])
        return await self._results(request, partial(_decode, named_bytes), operation, top)

    async def search_stored(self, request: Request) -> Response:
        """The results of an image of an index."""
        place, row = self._place_and_row(request)
        name = printable(self.indexes[place][1].name(row))
        images = partial(self._stored_images, name, place, row)
        return await self._results(request, images, OPERATIONS[0], _result_count(None))

    async def image(self, request: Request) -> Response:
        """The thumbnail of an image of an index."""
        jpeg = await _run_in_thread(request, partial(self.thumbnail, *self._place_and_row(request)), "images")
        return Response(jpeg, media_type="image/jpeg", headers={"Cache-Control": "private, max-age=3600"})

    async def error(self, request: Request, error: Exception) -> Response:
        """The page with an error message."""
        if isinstance(error, HTTPException):
            return self._render(error.status_code, error=error.detail)
        return self._render(500, error="Internal server error; see the server log.")

    async def _results(
        self, request: Request, load_images: Callable[[], list[NamedImage]], operation: Operation, top: int
    ) -> Response:
        def search() -> tuple[Query, list[IndexResult]]:
            query = make_query(load_images(), operation)
            return query, [search_index(place, *named, query, top) for place, named in enumerate(self.indexes)]

        query, results = await _run_in_thread(request, search, "search")
        found = [{neighbour.file for neighbour in result.neighbours} for result in results]
        shared = set.intersection(*found) if len(found) > 1 else set()
        return self._render(query=query, results=results, shared=shared, top=top)

    def _render(self, status: int = 200, **content: Any) -> HTMLResponse:
        text = self.template.render(
            summaries=self.summaries, result_counts=RESULT_COUNTS, operations=OPERATIONS, **content
        )
        return HTMLResponse(text.encode("utf-8", "backslashreplace"), status)

    def _place_and_row(self, request: Request) -> tuple[int, int]:
        place, row = request.path_params["place"], request.path_params["row"]
        if place >= len(self.indexes) or row >= len(self.indexes[place][1]):
            raise HTTPException(404, "There is no such image in the index.")
        return place, row

    def _stored_image(self, place: int, row: int) -> Image.Image:
        try:
            return open_image(self.indexes[place][1].path(row))
        except HashzooError as error:  # its message names the path, which the page does not reveal
            raise HTTPException(404, "The image file was moved, deleted or damaged.") from error

    def _stored_images(self, name: str, place: int, row: int) -> list[NamedImage]:
        return [(name, self._stored_image(place, row))]

    def _thumbnail(self, place: int, row: int) -> bytes:
        return thumbnail(self._stored_image(place, row))


class RequestGuard:
    """An ASGI application around another that limits requests and adds ``SECURITY_HEADERS`` to every response.

    Args:
        app: The application.
        hosts: Host names that requests can use, in addition to the server's address.
        max_bytes: Largest size of a request.
    """

    def __init__(self, app: ASGIApp, hosts: Sequence[str], max_bytes: int) -> None:
        self.app, self.hosts, self.max_bytes = app, {host.lower() for host in hosts}, max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request."""
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        received, declared = 0, Headers(scope=scope).get("content-length", "0")

        async def limited_receive() -> Message:
            nonlocal received
            too_large = declared.isdigit() and int(declared) > self.max_bytes
            message = {} if too_large else await receive()
            received += len(message.get("body", b""))
            if too_large or received > self.max_bytes:
                raise HTTPException(413, f"The request is too large; the limit is {self.max_bytes >> 20} MiB.")
            return message

        async def secured_send(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(SECURITY_HEADERS)
            await send(message)

        name = Headers(scope=scope).get("host", "").rsplit(":", 1)[0].lower()
        if name not in self.hosts and name != (scope.get("server") or ("",))[0]:
            text = "Unknown host name; use the address that hashzoo serve printed, or allow this name with --name."
            return await PlainTextResponse(text, 400)(scope, limited_receive, secured_send)
        return await self.app(scope, limited_receive, secured_send)


async def _static(text: str, kind: str, request: Request) -> Response:
    return Response(text, media_type=kind)


def _text(name: str) -> str:
    return (files("hashzoo.serve") / name).read_text("utf-8")


def _template(name: str) -> Any:
    return Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(_text(name))


async def _run_in_thread(request: Request, work: Callable[[], Result], limiter: str) -> Result:
    """Run work in a thread when the limiter allows it. An error of hashzoo becomes an error response."""
    try:
        return await to_thread.run_sync(work, limiter=getattr(request.app.state, limiter))
    except HashzooError as error:
        raise HTTPException(400 if isinstance(error, UsageError) else 415, f"{error}.") from error


def _check_origin(request: Request) -> None:
    """Refuse a form that another site sends."""
    origin = request.headers.get("origin")
    if origin is not None and urlsplit(origin).netloc != request.headers.get("host"):
        raise HTTPException(403, "Requests from other sites are not allowed.")


def _result_count(value: object) -> int:
    return next((count for count in RESULT_COUNTS if str(count) == value), RESULT_COUNTS[1])


def _decode(named_bytes: Sequence[tuple[str, bytes]]) -> list[NamedImage]:
    """Uploaded images with their names. Raises EnvironmentFailure that names a file that is not an image."""
    images = []
    for name, data in named_bytes:
        try:
            images.append((printable(name), decode(data)))
        except HashzooError as error:
            raise type(error)(f"{printable(name)} does not decode as an image: {error}") from error
    return images
