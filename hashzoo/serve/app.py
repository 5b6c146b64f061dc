"""The web application: the search page, the API, and what watches over it.

Stored images are addressed by state and row, so that no address can name another file, and none names another image
after a change. One thread encodes and searches, one request at a time, since methods are not required to be
thread-safe; another one changes the index.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import lru_cache, partial
from importlib.resources import files
from pathlib import Path
from typing import Any, get_args

from anyio import CapacityLimiter
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from jinja2 import Environment
from PIL import Image
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from hashzoo._version import __version__
from hashzoo.data.image_paths import open_image
from hashzoo.errors import HashzooError, printable
from hashzoo.retrieval.image_index import ImageIndex
from hashzoo.retrieval.results_page import thumbnail
from hashzoo.serve import measures
from hashzoo.serve.api import decoded, in_thread, routes
from hashzoo.serve.guard import API, Limits, RequestGuard
from hashzoo.serve.served_index import ServedIndex
from hashzoo.serve.views import IndexResult, Query, make_query, search_index, summarize
from hashzoo.types import Operation

CACHED_THUMBNAILS = 4096
RESULT_COUNTS = (12, 24, 48, 96)
OPERATIONS: tuple[Operation, ...] = get_args(Operation)
STATIC_FILES = {"page.css": "text/css", "page.js": "text/javascript"}

NamedImage = tuple[str, Image.Image]


def application(indexes: Mapping[str, ServedIndex], limits: Limits) -> ASGIApp:
    """The search page and the API as an ASGI application.

    Args:
        indexes: The indexes to search, by name.
        limits: What requests can do.
    """
    page = SearchPage(indexes)
    app = FastAPI(
        title="hashzoo", version=__version__, docs_url=None, redoc_url=None, lifespan=_lifespan,
        description="Search images by their codes. See the page 'Serve an index' of the documentation.",
        exception_handlers={HTTPException: page.error, RequestValidationError: _invalid, Exception: page.error},
    )  # fmt: skip
    app.router.routes += page.routes()
    app.include_router(routes(indexes))
    measured = measures.Measures(app, indexes)

    @app.get("/health", summary="Whether the last states of the indexes can be read")
    async def health(request: Request) -> dict[str, Any]:
        def images() -> int:
            return sum(len(one.current()[1]) for one in indexes.values() if one.check() >= 0)

        return {"status": "ok", "images": await in_thread(request, images, "images")}

    @app.get("/metrics", include_in_schema=False)
    async def metrics(request: Request) -> Response:
        return Response(await in_thread(request, measured.text, "images"), media_type=CONTENT_TYPE_LATEST)

    return RequestGuard(measured, limits)  # outermost, so that it covers error responses too


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    app.state.search, app.state.images, app.state.write = CapacityLimiter(1), CapacityLimiter(2), CapacityLimiter(1)
    yield


async def _invalid(request: Request, error: Exception) -> Response:
    """What is wrong with a request of the API, without the images that it sent."""
    problems = error.errors() if isinstance(error, RequestValidationError) else []
    lines = [f"{'.'.join(str(place) for place in one['loc'])}: {one['msg']}" for one in problems]
    return JSONResponse({"detail": "; ".join(printable(line) for line in lines[:8])}, 422)


class SearchPage:
    """The request handlers of the search page."""

    def __init__(self, indexes: Mapping[str, ServedIndex]) -> None:
        self.indexes = list(indexes.items())
        self.template = _template("page.html")
        self.thumbnail = lru_cache(maxsize=CACHED_THUMBNAILS)(self._thumbnail)

    def routes(self) -> Iterable[Route]:
        """The routes of the page."""
        return [
            Route("/", self.home),
            Route("/search", self.search, methods=["POST"]),
            Route("/search", self.redirect_home, methods=["GET"]),
            Route("/like/{place:int}/{state:int}/{row:int}", self.search_stored),
            Route("/image/{place:int}/{state:int}/{row:int}", self.image),
            *(Route(f"/{name}", partial(_static, _text(name), kind)) for name, kind in STATIC_FILES.items()),
        ]

    async def home(self, request: Request) -> Response:
        """The page without results."""
        return await in_thread(request, self._render, "images")  # which can open a new state of an index

    async def redirect_home(self, request: Request) -> Response:
        """A redirect for a reload of the results of a form."""
        return RedirectResponse("/", 303)

    async def search(self, request: Request) -> Response:
        """The results of the images in a form."""
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
        index, row = self._index_and_row(request)
        name = printable(index.name(row))
        images = partial(self._stored_images, name, index.path(row))
        return await self._results(request, images, OPERATIONS[0], _result_count(None))

    async def image(self, request: Request) -> Response:
        """The thumbnail of an image of an index."""
        index, row = self._index_and_row(request)
        cached = partial(self.thumbnail, index.path(row), request.path_params["state"])
        jpeg = await in_thread(request, cached, "images")
        return Response(jpeg, media_type="image/jpeg", headers={"Cache-Control": "private, max-age=3600"})

    async def error(self, request: Request, error: Exception) -> Response:
        """The page with an error message, or the message as JSON."""
        status, text, headers = 500, "Internal server error; see the server log.", {}
        if isinstance(error, HTTPException):
            status, text, headers = error.status_code, error.detail, dict(error.headers or {})
        if status == 405:  # the framework names the methods of one route of the path
            known = request.app.openapi()["paths"].get(request.url.path, {})
            headers |= {"Allow": ", ".join(sorted(map(str.upper, known)))} if known else {}
        if request.url.path.startswith(API) or request.url.path == "/health":
            return JSONResponse({"detail": text}, status, headers)
        return self._render(status, headers, error=text)

    async def _results(
        self, request: Request, load_images: Callable[[], list[NamedImage]], operation: Operation, top: int
    ) -> Response:
        def search() -> tuple[Query, list[IndexResult]]:
            query = make_query(load_images(), operation)
            return query, [
                search_index(place, name, *index.current(), query, top)
                for place, (name, index) in enumerate(self.indexes)
            ]

        query, results = await in_thread(request, search, "search")
        found = [{neighbour.file for neighbour in result.neighbours} for result in results]
        shared = set.intersection(*found) if len(found) > 1 else set()
        return self._render(query=query, results=results, shared=shared, top=top)

    def _render(self, status: int = 200, headers: Mapping[str, str] | None = None, **content: Any) -> HTMLResponse:
        summaries = {name: summarize(index.current()[1]) for name, index in self.indexes}
        text = self.template.render(summaries=summaries, result_counts=RESULT_COUNTS, operations=OPERATIONS, **content)
        return HTMLResponse(text.encode("utf-8", "backslashreplace"), status, headers)

    def _index_and_row(self, request: Request) -> tuple[ImageIndex, int]:
        place, state, row = (request.path_params[name] for name in ("place", "state", "row"))
        index = self.indexes[place][1].at(state) if place < len(self.indexes) else None
        if index is None or row >= len(index):
            raise HTTPException(404, "There is no such image in the index, or it has changed; search again.")
        return index, row

    def _stored_image(self, path: Path) -> Image.Image:
        try:
            return open_image(path)
        except HashzooError as error:  # its message names the path, which the page does not reveal
            raise HTTPException(404, "The image file was moved, deleted or damaged.") from error

    def _stored_images(self, name: str, path: Path) -> list[NamedImage]:
        return [(name, self._stored_image(path))]

    def _thumbnail(self, path: Path, state: int) -> bytes:
        """The thumbnail of a file, which is read again after a change of the index."""
        return thumbnail(self._stored_image(path))


async def _static(text: str, kind: str, request: Request) -> Response:
    return Response(text, media_type=kind)


def _text(name: str) -> str:
    return (files("hashzoo.serve") / name).read_text("utf-8")


def _template(name: str) -> Any:
    return Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(_text(name))


def _result_count(value: object) -> int:
    return next((count for count in RESULT_COUNTS if str(count) == value), RESULT_COUNTS[1])


def _decode(named_bytes: Sequence[tuple[str, bytes]]) -> list[NamedImage]:
    """Uploaded images with their names. Raises NotAnImageError that names a file that is not an image."""
    return [(printable(name), decoded(data, name)) for name, data in named_bytes]
