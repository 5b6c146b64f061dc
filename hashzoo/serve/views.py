"""The content of a page of results: the query, its codes, heatmaps, and the images found."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from hashzoo.errors import HashzooError, printable
from hashzoo.retrieval.hit import Hit
from hashzoo.retrieval.image_index import ImageIndex
from hashzoo.retrieval.overlay import blend, to_pil
from hashzoo.retrieval.results_page import data_uri, thumbnail
from hashzoo.types import Codes, Operation

SIDE = 224  # longest side of a query's image in pixels
SQUARES_PER_ROW = 32  # of a drawn code


@dataclass(frozen=True)
class Query:
    """A query of one image, or of two images that ``operation`` combines.

    Attributes:
        images: The images.
        previews: The name of each image and the data URI of its thumbnail.
        operation: How two images are combined.
    """

    images: Sequence[Image.Image]
    previews: Sequence[tuple[str, str]]
    operation: Operation


@dataclass(frozen=True)
class CodeDrawing:
    """A binary code as hexadecimal digits and as a drawing.

    Attributes:
        name: Name of the code.
        bits: Number of bits.
        digits: The bits in hexadecimal.
        outline: SVG path of a unit square for each bit that is 1.
        width: Squares in a row.
        height: Rows.
    """

    name: str
    bits: int
    digits: str
    outline: str
    width: int
    height: int


@dataclass(frozen=True)
class Neighbour:
    """An image found by a search.

    Attributes:
        rank: Its place among the images found, from 1.
        row: Its row in the index.
        file: Its file, which identifies it across indexes.
        name: Its path relative to the folder of the index, for display.
        distance: Its distance from the query, in words.
        difference: SVG path of a unit square for each bit in which its code differs from the query's.
    """

    rank: int
    row: int
    file: Path
    name: str
    distance: str
    difference: str


@dataclass(frozen=True)
class IndexResult:
    """The result of a query in one index.

    Attributes:
        place: The place of the index among those served.
        name: The name of the index.
        state: The number of its state, which the rows are of.
        codes: The codes of the query.
        heatmaps: Data URIs of the query's images under their heatmaps.
        heatmap_error: Why there are no heatmaps; empty if there are.
        neighbours: The images found.
        width: Number of bits of a stored code; 0 if the index does not rank by a single code.
        milliseconds: Duration of the search.
    """

    place: int
    name: str
    state: int
    codes: Sequence[CodeDrawing]
    heatmaps: Sequence[str]
    heatmap_error: str
    neighbours: Sequence[Neighbour]
    width: int
    milliseconds: float


def summarize(index: ImageIndex) -> str:
    """One line about an index: its method, code length, training data and size."""
    about = index.metadata
    return f"{about['method']}, {about['bits']} bits, trained on {about['dataset']}: {len(index):,} images"


def make_query(images: Sequence[tuple[str, Image.Image]], operation: Operation) -> Query:
    """A query of one or two images, each with its name."""
    previews = [(name, data_uri(thumbnail(image, SIDE))) for name, image in images]
    return Query([image for _, image in images], previews, operation)


def search_index(place: int, name: str, state: int, index: ImageIndex, query: Query, top: int) -> IndexResult:
    """Search one index for the ``top`` nearest images of a query; ``place`` and ``name`` identify the index."""
    encoded = [index.encoder.encode(image) for image in query.images]
    start = time.perf_counter()
    codes = encoded[0] if len(encoded) == 1 else index.encoder.compose(query.operation, encoded[0], encoded[1])
    (hits,) = index.search(codes, top)
    seconds = time.perf_counter() - start
    heatmaps, error = _heatmap_uris(index, query.images)
    return IndexResult(
        place,
        name,
        state,
        codes=[draw_code(code, bits[0].numpy()) for code, bits in codes.items() if bits.dtype == torch.bool],
        heatmaps=heatmaps,
        heatmap_error=error,
        neighbours=[_neighbour(index, codes, rank, hit) for rank, hit in enumerate(hits, 1)],
        width=codes[index.code].shape[1] if index.code and hits else 0,
        milliseconds=1000 * seconds,
    )


def _neighbour(index: ImageIndex, query: Codes, rank: int, hit: Hit) -> Neighbour:
    distance, difference = f"score {hit.distance:g}", ""
    if index.code:
        stored = index.codes(hit.row)[index.code]
        width = stored.shape[1]
        distance = f"{hit.distance:.0f} of {width} bits differ"
        difference = squares_path((stored != query[index.code]).numpy()[0], width)
    return Neighbour(rank, hit.row, hit.path, printable(index.name(hit.row)), distance, difference)


def draw_code(name: str, bits: NDArray[np.bool_]) -> CodeDrawing:
    """The drawing of a code (K,).

    >>> draw_code("code", np.array([True, False, False, True, True]))
    CodeDrawing(name='code', bits=5, digits='98', outline='M0 0h1v1h-1zM3 0h1v1h-1zM4 0h1v1h-1z', width=5, height=1)
    """
    outline, height = squares_path(bits, SQUARES_PER_ROW), -(-len(bits) // SQUARES_PER_ROW)
    return CodeDrawing(
        name, len(bits), np.packbits(bits).tobytes().hex(), outline, min(SQUARES_PER_ROW, len(bits)), height
    )


def squares_path(bits: NDArray[np.bool_], width: int) -> str:
    """An SVG path with a unit square for each bit (K,) that is set, ``width`` squares in a row.

    >>> squares_path(np.array([False, True, True]), 2)
    'M1 0h1v1h-1zM0 1h1v1h-1z'
    """
    return "".join(f"M{place % width} {place // width}h1v1h-1z" for place in np.flatnonzero(bits))


def _heatmap_uris(index: ImageIndex, images: Sequence[Image.Image]) -> tuple[list[str], str]:
    """The images under their heatmaps, or the reason why there are none."""
    try:
        shown, heatmaps = index.encoder.heatmaps(images)
    except HashzooError as error:
        return [], str(error)
    return [_overlay_uri(image, heatmap) for image, heatmap in zip(shown.numpy(), heatmaps.numpy(), strict=True)], ""


def _overlay_uri(image: NDArray[np.float32], heatmap: NDArray[np.float32]) -> str:
    """The data URI of an image (C, H, W) under a heatmap (H, W), enlarged to ``SIDE`` pixels."""
    overlay = blend(to_pil(image), heatmap)
    scale = SIDE / max(overlay.size)
    size = (round(scale * overlay.width), round(scale * overlay.height))
    return data_uri(thumbnail(overlay.resize(size, Image.Resampling.BICUBIC), SIDE))
