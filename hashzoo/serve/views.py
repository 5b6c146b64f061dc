"""What a page of results shows: the images asked with, their codes, where a method looks, and what it found."""

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
from hashzoo.retrieval.image_index import ImageIndex
from hashzoo.retrieval.overlay import heated, to_pil
from hashzoo.retrieval.results_page import address, shrunk
from hashzoo.types import Operation

SIDE = 224  # pixels of the image asked with, at most
WIDE = 32  # squares a row of a drawn code


@dataclass(frozen=True)
class Asked:
    """The one or two images of a query, each with its name and as the address of its data, and what joins two."""

    images: Sequence[Image.Image]
    shown: Sequence[tuple[str, str]]
    operation: Operation


@dataclass(frozen=True)
class Drawn:
    """A code: its name, its bits in hexadecimal digits, and the outline of its ones on a grid of unit squares."""

    name: str
    bits: int
    digits: str
    outline: str
    width: int
    height: int


@dataclass(frozen=True)
class Found:
    """A neighbour: ``file`` tells it from others, ``name``, below the folder of the index, is shown.

    ``differs`` outlines the bits in which its code is another.
    """

    rank: int
    row: int
    file: Path
    name: str
    distance: str
    differs: str


@dataclass(frozen=True)
class Answer:
    """What one index says to a query: ``looks`` are the addresses of images, or none with ``blind`` for the reason.

    ``width`` is how many bits a stored code has, 0 where neighbours are not told apart by one code.
    """

    place: int
    name: str
    codes: Sequence[Drawn]
    looks: Sequence[str]
    blind: str
    hits: Sequence[Found]
    width: int
    milliseconds: float


def summary(index: ImageIndex) -> str:
    """One line of what an index holds."""
    about = index.about
    return f"{about['method']}, {about['bits']} bits, learned on {about['dataset']}: {len(index):,} images"


def asked_about(images: Sequence[tuple[str, Image.Image]], operation: Operation) -> Asked:
    """A query of images by name; ``operation`` joins two."""
    small = [(name, address(shrunk(image, SIDE))) for name, image in images]
    return Asked([image for _, image in images], small, operation)


def answer(place: int, name: str, index: ImageIndex, asked: Asked, top: int) -> Answer:
    """What the index at a place, by its name, finds."""
    encoded = [index.encoder.encode(image) for image in asked.images]
    began = time.perf_counter()
    query = encoded[0] if len(encoded) == 1 else index.encoder.compose(asked.operation, encoded[0], encoded[1])
    (hits,) = index.search(query, top)
    seconds = time.perf_counter() - began
    width, found = 0, list[Found]()
    for rank, hit in enumerate(hits, 1):
        differs, far = "", f"score {hit.distance:g}"
        if index.code:
            stored = index.codes(hit.row)[index.code]
            width = stored.shape[1]
            differs, far = (
                squares((stored != query[index.code]).numpy()[0], width),
                f"{hit.distance:.0f} of {width} bits differ",
            )
        found.append(Found(rank, hit.row, hit.path, printable(index.name(hit.row)), far, differs))
    looks, blind = _looks(index, asked.images)
    codes = [drawn(code, bits[0].numpy()) for code, bits in query.items() if bits.dtype == torch.bool]
    return Answer(place, name, codes, looks, blind, found, width, 1000 * seconds)


def drawn(name: str, bits: NDArray[np.bool_]) -> Drawn:
    """A code (K,) as it is drawn.

    >>> drawn("code", np.array([True, False, False, True, True]))
    Drawn(name='code', bits=5, digits='98', outline='M0 0h1v1h-1zM3 0h1v1h-1zM4 0h1v1h-1z', width=5, height=1)
    """
    digits = np.packbits(bits).tobytes().hex()
    return Drawn(name, len(bits), digits, squares(bits, WIDE), min(WIDE, len(bits)), -(-len(bits) // WIDE))


def squares(bits: NDArray[np.bool_], wide: int) -> str:
    """The SVG path of unit squares where bits (K,) are set, so many a row.

    >>> squares(np.array([False, True, True]), 2)
    'M1 0h1v1h-1zM0 1h1v1h-1z'
    """
    return "".join(f"M{place % wide} {place // wide}h1v1h-1z" for place in np.flatnonzero(bits))


def _looks(index: ImageIndex, images: Sequence[Image.Image]) -> tuple[list[str], str]:
    try:
        seen, where = index.encoder.looks(images)
    except HashzooError as error:
        return [], str(error)
    return [_overlaid(s, w) for s, w in zip(seen.numpy(), where.numpy(), strict=True)], ""


def _overlaid(seen: NDArray[np.float32], where: NDArray[np.float32]) -> str:
    """The address of an image (C, H, W) under the map (H, W) of where a method looks, ``SIDE`` pixels."""
    under = heated(to_pil(seen), where)
    scale = SIDE / max(under.size)
    larger = under.resize((round(scale * under.width), round(scale * under.height)), Image.Resampling.BICUBIC)
    return address(shrunk(larger, SIDE))
