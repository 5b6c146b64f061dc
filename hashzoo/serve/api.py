"""The API of `hashzoo serve`: search, encode, and change items, in JSON, with an OpenAPI description."""

from __future__ import annotations

import binascii
import logging
from base64 import b64decode
from collections.abc import Callable, Mapping
from functools import partial
from io import BytesIO
from typing import Annotated, Any, TypeVar

from anyio import to_thread
from fastapi import APIRouter, Depends, Query, Request
from fastapi.security import HTTPBearer
from PIL import Image
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator
from starlette.exceptions import HTTPException

from hashzoo.data.image_files import decode
from hashzoo.errors import HashzooError, UnknownItemError, UsageError, printable
from hashzoo.hamming.packing import pack
from hashzoo.retrieval.hit import Hit as Found
from hashzoo.retrieval.metadata_file import Value
from hashzoo.serve.served_index import NewItem, ServedIndex
from hashzoo.types import Codes

MOST_QUERIES, MOST_RESULTS, MOST_ITEMS = 64, 1000, 256
QUERIES: Any = {"min_length": 1, "max_length": MOST_QUERIES}
SUFFIXES = {
    "HEIF": ".heic",
    "AVIF": ".avif",
    "JPEG": ".jpg",
    "PNG": ".png",
    "GIF": ".gif",
    "WEBP": ".webp",
    "TIFF": ".tif",
    "BMP": ".bmp",
}

logger = logging.getLogger("hashzoo.serve")

Result = TypeVar("Result")


def _base64(text: str) -> str:
    try:
        b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("not base64") from None
    return text


def _text(text: str) -> str:
    if not text or "\0" in text:
        raise ValueError("empty, or with a zero byte")
    return text


Base64 = Annotated[
    str,
    Field(min_length=1, description="An image file in base64.", json_schema_extra={"format": "byte"}),
    AfterValidator(_base64),
]
Hex = Annotated[str, Field(pattern=r"^([0-9a-f]{2})+$", max_length=1024, description="Packed bits, bit 0 first.")]
Id = Annotated[str, Field(min_length=1, max_length=1000, pattern=r"^[^\x00]+$"), AfterValidator(_text)]
Text = Annotated[str, Field(max_length=10_000)]
Integer = Annotated[int, Field(ge=-(2**63), le=2**63 - 1)]
Index = Annotated[str | None, Field(description="The name of an index; can be left out if one is served.")]


class Model(BaseModel):
    """A model that takes no other fields."""

    model_config = ConfigDict(extra="forbid")


class Problem(Model):
    """Why a request is refused."""

    detail: str


def _one_of(*names: str) -> ConfigDict:
    """A model that takes one of some fields and no unknown ones."""
    choices: Any = {"oneOf": [{"required": [name]} for name in names]}
    return ConfigDict(extra="forbid", json_schema_extra=choices)


class SearchRequest(Model):
    """Queries: images, codes, or ids of images of the index."""

    model_config = _one_of("images", "codes", "like")
    index: Index = None
    images: Annotated[list[Base64], Field(default_factory=list, **QUERIES)]
    codes: Annotated[list[Hex], Field(default_factory=list, **QUERIES)]
    like: Annotated[list[Id], Field(default_factory=list, **QUERIES)]
    k: Annotated[int, Field(ge=1, le=MOST_RESULTS, description="Most images of each query.")] = 20
    radius: Annotated[
        int | None, Field(ge=0, le=4096, description="Only codes that differ in at most so many bits.")
    ] = None
    where: Annotated[str, Field(max_length=2000, description="A condition on metadata, in SQL.")] = ""

    @model_validator(mode="after")
    def _one_kind(self) -> SearchRequest:
        if sum(map(bool, (self.images, self.codes, self.like))) != 1:
            raise ValueError("give one of images, codes and like")
        return self


class Hit(Model):
    """An image that was found, and its distance."""

    id: str
    distance: float


class SearchResponse(Model):
    """For each query the images found, nearest first, in a state of the index."""

    index: str
    state: int
    answers: list[list[Hit]]


class EncodeRequest(Model):
    """Images to encode."""

    index: Index = None
    images: Annotated[list[Base64], Field(min_length=1, max_length=MOST_QUERIES)]


class EncodeResponse(Model):
    """The binary codes of each image by name, in hexadecimal, and their numbers of bits."""

    index: str
    bits: dict[str, int]
    codes: dict[str, list[str]]


class ItemModel(Model):
    """An item: its image, or its codes."""

    model_config = _one_of("image", "codes")
    id: Id
    image: Annotated[Base64, Field(default_factory=str)]
    codes: Annotated[dict[str, Hex], Field(default_factory=dict, min_length=1)]
    metadata: Annotated[dict[str, Text | Integer | float | None], Field(max_length=50)] = {}

    @model_validator(mode="after")
    def _one_kind(self) -> ItemModel:
        if bool(self.image) == bool(self.codes):
            raise ValueError("give image or codes")
        return self


class ItemsRequest(Model):
    """Items to add, or to replace by id."""

    index: Index = None
    items: Annotated[list[ItemModel], Field(min_length=1, max_length=MOST_ITEMS)]


class ItemsResponse(Model):
    """What was changed, and the new state of the index."""

    index: str
    state: int
    added: int = 0
    replaced: int = 0
    removed: int = 0


class IndexModel(Model):
    """An index that is served."""

    name: str
    method: str
    bits: dict[str, int]
    images: int
    state: int
    changeable: bool


def routes(indexes: Mapping[str, ServedIndex]) -> APIRouter:
    """The routes below ``/v1``."""
    statuses = (400, 401, 403, 404, 408, 413, 415, 422, 429, 503)
    router = APIRouter(prefix="/v1", responses={status: {"model": Problem} for status in statuses})
    token = Depends(HTTPBearer(auto_error=False, description="The token of hashzoo serve."))

    def of(name: str | None) -> tuple[str, ServedIndex]:
        if name is None and len(indexes) > 1:
            raise HTTPException(400, f"There are several indexes; name one: {', '.join(indexes)}")
        name = next(iter(indexes)) if name is None else name
        if name not in indexes:
            raise HTTPException(404, f"There is no index of this name; there are: {', '.join(indexes)}")
        return name, indexes[name]

    @router.get("/indexes", summary="The indexes that are served")
    async def listed(request: Request) -> list[IndexModel]:
        return await in_thread(request, lambda: [describe(name, one) for name, one in indexes.items()], "search")

    @router.post("/search", summary="The nearest images of images, codes or ids")
    async def search(request: Request, asked: SearchRequest) -> SearchResponse:
        name, index = of(asked.index)
        state, hits = await in_thread(request, partial(_searched, index, asked), "search")
        return SearchResponse(index=name, state=state, answers=[[_hit(hit) for hit in found] for found in hits])

    @router.post("/encode", summary="The codes of images")
    async def encode(request: Request, asked: EncodeRequest) -> EncodeResponse:
        name, index = of(asked.index)
        codes = await in_thread(request, lambda: index.encode(_images(asked.images)), "search")
        bits = {code: spec for code, spec in index.binary().items() if code in codes}
        texts = {code: [row.tobytes().hex() for row in pack(codes[code].numpy())] for code in bits}
        return EncodeResponse(index=name, bits=bits, codes=texts)

    @router.post("/items", summary="Add items, or replace them by id", dependencies=[token])
    async def put(request: Request, asked: ItemsRequest) -> ItemsResponse:
        name, index = of(asked.index)
        items = await in_thread(request, lambda: [_new(index, item) for item in asked.items], "search")
        state, added, replaced = await in_thread(request, partial(index.put, items), "write")
        return ItemsResponse(index=name, state=state, added=added, replaced=replaced)

    @router.delete("/items", summary="Remove items by id", dependencies=[token])
    async def remove(
        request: Request,
        id: Annotated[list[Id], Query(min_length=1, max_length=MOST_ITEMS)],
        index: Annotated[str | None, Query()] = None,
    ) -> ItemsResponse:
        name, found = of(index)
        state = await in_thread(request, partial(found.remove, id), "write")
        return ItemsResponse(index=name, state=state, removed=len(set(id)))

    return router


def describe(name: str, index: ServedIndex) -> IndexModel:
    """An index, as ``/v1/indexes`` tells it."""
    state, current = index.current()
    about = current.metadata
    return IndexModel(
        name=name, method=about["method"], bits=index.binary(), images=len(current), state=state,
        changeable=index.changeable,
    )  # fmt: skip


async def in_thread(request: Request, work: Callable[[], Result], limiter: str) -> Result:
    """Run work in a thread when a limiter of the application allows it. An error of hashzoo becomes a response."""
    try:
        return await to_thread.run_sync(work, limiter=getattr(request.app.state, limiter))
    except UnknownItemError as error:
        raise HTTPException(404, f"There is no image {printable(error.item)}; nothing was changed.") from error
    except UsageError as error:
        raise HTTPException(400, f"{error}.") from error
    except NotAnImageError as error:
        raise HTTPException(415, f"{error}.") from error
    except HashzooError as error:  # its message names files of the server
        logger.error("%s", error)
        text = "The index cannot be read or changed now; try again, or see the server log."
        raise HTTPException(503, text, {"Retry-After": "5"}) from error


class NotAnImageError(HashzooError):
    """Bytes that were sent do not decode as an image."""


def _images(texts: list[str]) -> list[Image.Image]:
    return [decoded(b64decode(text), f"images[{number}]") for number, text in enumerate(texts)]


def decoded(data: bytes, name: str) -> Image.Image:
    """An image that was sent. Raises NotAnImageError, which names it."""
    try:
        return decode(data)
    except HashzooError as error:
        raise NotAnImageError(f"{printable(name)} does not decode as an image: {error}") from error


def _searched(index: ServedIndex, asked: SearchRequest) -> tuple[int, list[list[Found]]]:
    queries: Codes | list[str] = asked.like
    if asked.images:
        queries = index.encode(_images(asked.images))
    elif asked.codes:
        code = index.current()[1].code
        if not code:
            raise UsageError("the method does not rank by the Hamming distance of one code; search with images")
        queries = index.unpacked({code: [bytes.fromhex(text) for text in asked.codes]})
    return index.search(queries, asked.k, asked.radius, asked.where)


def _hit(found: Found) -> Hit:
    return Hit(id=printable(found.id), distance=float(found.distance))


def _new(index: ServedIndex, item: ItemModel) -> NewItem:
    metadata: Mapping[str, Value] = item.metadata
    if item.codes:
        codes = index.unpacked({name: [bytes.fromhex(text)] for name, text in item.codes.items()})
        return NewItem(item.id, codes, b"", "", metadata)
    data = b64decode(item.image)
    image = decoded(data, f"the image of {item.id}")
    with Image.open(BytesIO(data)) as opened:
        suffix = SUFFIXES.get(opened.format or "", ".img")
    return NewItem(item.id, index.encode([image]), data, suffix, metadata)
