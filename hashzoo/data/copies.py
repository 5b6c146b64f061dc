"""Copies of images that differ in their bytes: recompressed, resized, cropped, in gray, with a mark, mirrored.

Candidates come from perceptual hashes of 64 bits: that of a whole image is compared with those of parts of every other
image, so that a crop is found by the part that it shows. The pixels of a candidate are then compared: a copy correlates
with its original, and so do the details of most blocks, whatever a mark covers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageFilter, ImageOps

from hashzoo.data.near_duplicates import hash_of_gray, signs
from hashzoo.errors import EnvironmentFailure
from hashzoo.types import ProgressCallback

#: Parts of an image as left, top, right and bottom in shares of its sides: itself, and crops at several places.
PARTS = (
    (0.0, 0.0, 1.0, 1.0),
    (0.05, 0.05, 0.95, 0.95),
    (0.025, 0.025, 0.975, 0.975),
    (0.1, 0.1, 0.9, 0.9),
    (0.0, 0.0, 0.9, 0.9),
    (0.1, 0.0, 1.0, 0.9),
    (0.0, 0.1, 0.9, 1.0),
    (0.1, 0.1, 1.0, 1.0),
    (0.0, 0.0, 0.9, 1.0),
    (0.1, 0.0, 1.0, 1.0),
    (0.0, 0.0, 1.0, 0.9),
    (0.0, 0.1, 1.0, 1.0),
)

SIDE = 64  # pixels of the small gray images whose pixels are compared
FINE = 32  # pixels of each side of the comparison
SHIFTS = (-0.04, -0.02, 0.0, 0.02, 0.04)  # of a part, where it correlates best
RADIUS = 14  # bits of 64 in which the hashes of a candidate differ at most
CORRELATION = 0.7  # of the pixels of a copy, at least
DETAIL = 0.7  # of the details of most blocks
HOPELESS = 0.4  # correlation below which moving a part does not help
EDGE = 8  # pixels of a block whose details are compared
FLAT = 2.0  # standard deviation of brightness below which an image shows nothing
CHUNK = 32  # images a task of a thread
BLOCK = 512  # images that are compared with all others at a time

Box = tuple[float, float, float, float]


class Pair(NamedTuple):
    """Two images of which one shows the other, or a part of it.

    Attributes:
        first: Row of the image that shows more.
        second: Row of the other one.
        distance: Bits of 64 in which their hashes differ.
        correlation: Correlation of their pixels.
        part: The part of the first image that the second one shows.
        mirrored: Whether the second one is mirrored.
    """

    first: int
    second: int
    distance: int
    correlation: float
    part: Box
    mirrored: bool


@dataclass
class Prints:
    """What copies are found by, of N images.

    Attributes:
        hashes: (N, P) uint64 perceptual hashes of the parts of each image, the whole first.
        mirrored: (N,) uint64 hashes of the mirrored images.
        small: (N, SIDE, SIDE) uint8 images in gray.
        valid: (N,) which images could be read.
        sizes: (N, 2) width and height.
        reasons: Why an image could not be read, by row.
    """

    hashes: NDArray[np.uint64]
    mirrored: NDArray[np.uint64]
    small: NDArray[np.uint8]
    valid: NDArray[np.bool_]
    sizes: NDArray[np.int64]
    reasons: dict[int, str] = field(default_factory=dict)


def print_images(
    count: int, read: Callable[[int], Image.Image], threads: int, progress: ProgressCallback = lambda *_: None
) -> Prints:
    """Read images, and compute what copies are found by.

    Args:
        count: Number of images.
        read: Returns an image in RGB by its row; it can raise EnvironmentFailure.
        threads: Threads that read images.
        progress: Called with the number of images read and their total.
    """
    prints = Prints(
        np.zeros((count, len(PARTS)), np.uint64),
        np.zeros(count, np.uint64),
        np.zeros((count, SIDE, SIDE), np.uint8),
        np.zeros(count, bool),
        np.zeros((count, 2), np.int64),
    )

    def fill(start: int) -> int:
        rows = range(start, min(start + CHUNK, count))
        for row in rows:
            try:
                image = read(row)
            except EnvironmentFailure as error:
                prints.reasons[row] = str(error)
                continue
            gray = image.convert("L")
            prints.hashes[row] = [hash_of_gray(gray, _scaled(part, *gray.size)) for part in PARTS]
            prints.mirrored[row] = hash_of_gray(ImageOps.mirror(gray))
            prints.small[row] = np.asarray(gray.resize((SIDE, SIDE), Image.Resampling.LANCZOS))
            prints.sizes[row], prints.valid[row] = image.size, True
        return len(rows)

    done = 0
    with ThreadPoolExecutor(threads) as pool:
        for number in pool.map(fill, range(0, count, CHUNK)):
            done += number
            progress(done, count)
    return prints


def find_pairs(
    prints: Prints, radius: int = RADIUS, correlation: float = CORRELATION, detail: float = DETAIL, flips: bool = False
) -> list[Pair]:
    """The pairs of copies, each once, by the rows of their images.

    Args:
        prints: The images.
        radius: Bits in which the hashes of an image and of a part of another one differ at most.
        correlation: Least correlation of their pixels.
        detail: Least agreement of their details, see :func:`agreement`.
        flips: Whether mirrored copies are found too.
    """
    best: dict[tuple[int, int], Pair] = {}
    promising = _Glance(prints.small)
    for first, second, part, distance, mirrored in _candidates(prints, radius, flips):
        key = min(first, second), max(first, second)
        if (key in best and best[key].distance <= distance) or not promising(first, second, part, mirrored):
            continue
        alike, fine, box = compare(prints.small[first], prints.small[second], PARTS[part], mirrored)
        if alike >= correlation and fine >= detail:
            best[key] = Pair(first, second, distance, alike, box, mirrored)
    return [best[key] for key in sorted(best)]


def _candidates(prints: Prints, radius: int, flips: bool) -> list[tuple[int, int, int, int, bool]]:
    """Rows of two images, the part of the first, the distance of its hash to that of the second, whether mirrored."""
    rows = np.flatnonzero(prints.valid)
    parts = torch.stack([signs(prints.hashes[rows, part]) for part in range(len(PARTS))])  # (P, N, 64)
    found: list[tuple[int, int, int, int, bool]] = []
    for mirrored in (False, True) if flips else (False,):
        wholes = signs((prints.mirrored if mirrored else prints.hashes[:, 0])[rows])  # (N, 64)
        for start in range(0, len(rows), BLOCK):
            near = parts @ wholes[start : start + BLOCK].T  # (P, N, B): 64 minus twice the distance
            for part, i, j in torch.nonzero(near >= 64 - 2 * radius).tolist():
                first, second = int(rows[i]), int(rows[start + j])
                if first < second or (part and first != second):  # two whole images are compared once
                    found.append((first, second, part, (64 - int(near[part, i, j])) // 2, mirrored))
    return sorted(found, key=lambda one: one[3])


class _Glance:
    """Tells candidates that can be copies, from the correlation of their pixels before a part is moved."""

    def __init__(self, small: NDArray[np.uint8]) -> None:
        self._small = small
        self._wholes: dict[tuple[int, bool], NDArray[np.float32]] = {}

    def __call__(self, first: int, second: int, part: int, mirrored: bool) -> bool:
        """Whether two images, of one a part, can be copies."""
        one = self._pixels(first, part, False) if part else self._whole(first, False)
        other = self._whole(second, mirrored)
        flat = not (one.any() and other.any())
        return flat or float(one @ other) > HOPELESS

    def _whole(self, row: int, mirrored: bool) -> NDArray[np.float32]:
        if (row, mirrored) not in self._wholes:
            self._wholes[row, mirrored] = self._pixels(row, 0, mirrored)
        return self._wholes[row, mirrored]

    def _pixels(self, row: int, part: int, mirrored: bool) -> NDArray[np.float32]:
        """The centered pixels (FINE^2,) of a part, of length 1; zeros for one that shows nothing."""
        image = Image.fromarray(self._small[row])
        crop = _crop(ImageOps.mirror(image) if mirrored else image, PARTS[part])
        pixels = np.asarray(crop, dtype=np.float32).ravel()
        spread = float(pixels.std())
        return (pixels - pixels.mean()) / (spread * FINE) if spread >= FLAT else np.zeros_like(pixels)


def compare(
    first: NDArray[np.uint8], second: NDArray[np.uint8], part: Box, mirrored: bool = False
) -> tuple[float, float, Box]:
    """How well a part of one small image, moved a little, agrees with another one.

    Returns:
        The correlation of pixels, that of details, and the part that correlates best.
    """
    image, other = Image.fromarray(first), Image.fromarray(second)
    wanted = (ImageOps.mirror(other) if mirrored else other).resize((FINE, FINE), Image.Resampling.BOX)

    def score(box: Box) -> float:
        return correlate(np.asarray(_crop(image, box)), np.asarray(wanted))

    box = part
    if part != PARTS[0]:
        box = max((_moved(box, shift, 0.0) for shift in SHIFTS), key=score)
        box = max((_moved(box, 0.0, shift) for shift in SHIFTS), key=score)
    return score(box), agreement(details(_crop(image, box)), details(wanted)), box


def _moved(part: Box, dx: float, dy: float) -> Box:
    left, top, right, bottom = part
    return max(0.0, left + dx), max(0.0, top + dy), min(1.0, right + dx), min(1.0, bottom + dy)


def _crop(image: Image.Image, part: Box) -> Image.Image:
    return image.resize((FINE, FINE), Image.Resampling.BICUBIC, box=_scaled(part, SIDE, SIDE))


def _scaled(part: Box, width: int, height: int) -> Box:
    left, top, right, bottom = part
    return left * width, top * height, right * width, bottom * height


def details(image: Image.Image) -> NDArray[np.float64]:
    """A gray image minus its blurred self."""
    return np.asarray(image, dtype=np.float64) - np.asarray(image.filter(ImageFilter.GaussianBlur(2)), dtype=np.float64)


def agreement(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    """The median correlation of the blocks of two images, which a mark in some of them does not change.

    Blocks that show nothing in both images, such as those of a sky, say nothing; 1 if all do.
    """
    blocks = [np.stack(np.split(one.reshape(FINE, -1, EDGE), FINE // EDGE)).swapaxes(1, 2) for one in (first, second)]
    pairs = zip(*(one.reshape(-1, EDGE * EDGE) for one in blocks), strict=True)
    known = [correlate(a, b) for a, b in pairs if max(a.std(), b.std()) >= FLAT]
    return float(np.median(known)) if known else 1.0


def correlate(first: NDArray[np.generic], second: NDArray[np.generic]) -> float:
    """The correlation of two images; of images that show nothing, 1 if they are equally bright and else 0.

    >>> a = np.arange(64.0).reshape(8, 8)
    >>> round(correlate(a, 3 * a + 5), 6), round(correlate(a, -a), 6), correlate(a, np.zeros((8, 8)))
    (1.0, -1.0, 0.0)
    """
    a, b = (one.astype(np.float64).ravel() for one in (first, second))
    spread = a.std(), b.std()
    if max(spread) < FLAT:
        return float(abs(a.mean() - b.mean()) < FLAT)
    if min(spread) == 0:
        return 0.0
    return float(((a - a.mean()) * (b - b.mean())).mean() / (spread[0] * spread[1]))


def clusters(count: int, pairs: Sequence[Pair]) -> list[list[int]]:
    """The groups of at least two images that pairs connect, by their first rows.

    >>> whole = PARTS[0]
    >>> clusters(6, [Pair(4, 1, 0, 1.0, whole, False), Pair(1, 2, 0, 1.0, whole, False)])
    [[1, 2, 4]]
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    first, second = [pair.first for pair in pairs], [pair.second for pair in pairs]
    _, labels = connected_components(coo_array((np.ones(len(pairs)), (first, second)), shape=(count, count)))
    order = np.argsort(labels, kind="stable")
    groups = np.split(order, np.flatnonzero(np.diff(labels[order])) + 1)
    return sorted(group.tolist() for group in groups if len(group) > 1)
