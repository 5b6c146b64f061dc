"""Fingerprints of images, to find exact copies and near-duplicates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from hashzoo.data.image_files import ImageFiles, decode, short_digest
from hashzoo.data.integrity import pixel_digest, resolve_rows
from hashzoo.data.transforms import as_tensor
from hashzoo.data.value_range import VALUES
from hashzoo.data.vectors import Vectors
from hashzoo.errors import EnvironmentFailure
from hashzoo.types import ProgressCallback, Split

OK, MISSING, DAMAGED = 0, 1, 2
_BLOCK = 2048  # images between two progress reports
_CHUNK = 32  # images per task of a thread
_COSINES = np.cos(np.pi / 32 * (np.arange(32) + 0.5) * np.arange(8)[:, None])  # (8, 32) lowest frequencies of a DCT


@dataclass
class Fingerprints:
    """Fingerprints of the images of one part, by row.

    ``exact`` are 64 bits of the digest of the decoded pixels, ``perceptual`` 64 bits of a perceptual hash (zero unless
    requested). Both are valid only where ``state`` is OK; ``reasons`` explains the other states, and says of an image
    of more than 8 bits which values were read as black and white.
    """

    exact: NDArray[np.uint64]  # (N,)
    perceptual: NDArray[np.uint64]  # (N,)
    state: NDArray[np.uint8]  # (N,)
    reasons: dict[int, str] = field(default_factory=dict)


class Fingerprint(NamedTuple):
    """The fingerprint of one image."""

    exact: int
    perceptual: int
    state: int
    reason: str


def name_of(split: Split, row: int) -> str:
    """The name of an image for users: its id, and its file if it is one."""
    if isinstance(split.images, Vectors):
        return split.images.name(row)
    images, rows = resolve_rows(split.images)
    file = f" ({images.name(int(rows[row]))})" if isinstance(images, ImageFiles) else ""
    return f"{int(split.ids[row])}{file}"


def perceptual_hash(image: Tensor) -> int:
    """64-bit perceptual hash of an image (C, H, W), as in the pHash library.

    Each bit tells whether one of the 8 x 8 lowest coefficients of the discrete cosine transform of the gray image at
    32 x 32 exceeds their median. Scaling, compression and small changes of brightness change few bits; flips and crops
    change many.
    """
    return hash_of_gray(Image.fromarray((image[0] if len(image) == 1 else image.permute(1, 2, 0)).numpy()).convert("L"))


def hash_of_gray(gray: Image.Image, part: tuple[float, float, float, float] | None = None) -> int:
    """The same of an image in gray, or of a part of it: left, top, right and bottom in pixels."""
    small = np.asarray(gray.resize((32, 32), Image.Resampling.LANCZOS, box=part), dtype=np.float64)
    coefficients = _COSINES @ small @ _COSINES.T
    return int.from_bytes(np.packbits((coefficients > np.median(coefficients)).ravel()).tobytes(), "big")


def compute_fingerprints(
    parts: Mapping[str, Split], near: bool, threads: int, progress: ProgressCallback
) -> dict[str, Fingerprints]:
    """Fingerprints of every part, with perceptual hashes if ``near``.

    An image in several parts is processed once, and identical files are decoded once.
    """
    sources = {name: resolve_rows(part.images) for name, part in parts.items()}
    needed: dict[int, tuple[Any, NDArray[np.int64]]] = {}
    for base, rows in sources.values():
        before = needed[id(base)][1] if id(base) in needed else rows[:0]
        needed[id(base)] = base, np.union1d(before, rows)
    total, done = sum(len(rows) for _, rows in needed.values()), 0
    computed: dict[int, Fingerprints] = {}
    with ThreadPoolExecutor(threads) as pool:
        for key, (base, rows) in needed.items():
            prints = computed[key] = Fingerprints(
                np.zeros(len(rows), np.uint64), np.zeros(len(rows), np.uint64), np.zeros(len(rows), np.uint8)
            )
            fingerprinter = _Fingerprinter(base, near)
            for start in range(0, len(rows), _BLOCK):
                block = rows[start : start + _BLOCK].tolist()
                chunks = [block[i : i + _CHUNK] for i in range(0, len(block), _CHUNK)]
                results = (one for chunk in pool.map(fingerprinter.of_rows, chunks) for one in chunk)
                for at, (exact, perceptual, state, reason) in enumerate(results, start):
                    prints.exact[at], prints.perceptual[at], prints.state[at] = exact, perceptual, state
                    if reason:
                        prints.reasons[at] = reason
                done += len(block)
                progress(done, total)
    result = {}
    for name, (base, rows) in sources.items():
        all_rows, places = computed[id(base)], np.searchsorted(needed[id(base)][1], rows)
        reasons = {row: all_rows.reasons[i] for row, i in enumerate(places.tolist()) if i in all_rows.reasons}
        result[name] = Fingerprints(
            all_rows.exact[places], all_rows.perceptual[places], all_rows.state[places], reasons
        )
    return result


class _Fingerprinter:
    """Computes fingerprints of the images of a sequence. Threads can share it."""

    def __init__(self, images: Sequence[Any] | Tensor, near: bool) -> None:
        self.images, self.near = images, near
        self._by_digest: dict[bytes, Fingerprint] = {}  # by the digest of the file

    def of_row(self, row: int) -> Fingerprint:
        """The fingerprint of one image."""
        try:
            if not isinstance(self.images, ImageFiles):
                return self.of_image(self.images[row])
            data = self.images.read(row)
            key = short_digest(data)
            if key not in self._by_digest:
                image = decode(data)
                self._by_digest[key] = self.of_image(image)._replace(reason=image.info.get(VALUES, ""))
            return self._by_digest[key]
        except FileNotFoundError:
            return Fingerprint(0, 0, MISSING, "file not found")
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError, EnvironmentFailure) as error:
            return Fingerprint(0, 0, DAMAGED, str(error) or type(error).__name__)

    def of_rows(self, rows: Sequence[int]) -> list[Fingerprint]:
        """The fingerprints of some images, in order."""
        return [self.of_row(row) for row in rows]

    def of_image(self, image: Any) -> Fingerprint:
        """The fingerprint of a decoded image."""
        pixels = as_tensor(image).contiguous()
        exact = int.from_bytes(pixel_digest(pixels)[:8], "big")
        return Fingerprint(exact, perceptual_hash(pixels) if self.near else 0, OK, "")


def find_copies(
    query: Fingerprints, query_ids: NDArray[np.int64], stored: Fingerprints, stored_ids: NDArray[np.int64]
) -> dict[int, int]:
    """For each query with an exact copy under another id: row of the query -> row of the copy."""
    valid = np.flatnonzero(stored.state == OK)
    valid = valid[np.argsort(stored.exact[valid], kind="stable")]
    values = stored.exact[valid]
    first, last = (np.searchsorted(values, query.exact, side) for side in ("left", "right"))
    copies = {}
    for row in np.flatnonzero((last > first) & (query.state == OK)).tolist():
        same = valid[first[row] : last[row]]
        if len(same := same[stored_ids[same] != query_ids[row]]):
            copies[row] = int(same[0])
    return copies


def find_copies_inside(prints: Fingerprints, ids: NDArray[np.int64]) -> dict[int, int]:
    """For each image of a part that is an exact copy of an earlier one under another id: its row -> row of the first.

    >>> prints = Fingerprints(np.array([7, 5, 7, 7], np.uint64), np.zeros(4, np.uint64), np.zeros(4, np.uint8))
    >>> find_copies_inside(prints, np.array([10, 11, 12, 10]))
    {2: 0}
    """
    valid = np.flatnonzero(prints.state == OK)
    _, first, inverse = np.unique(prints.exact[valid], return_index=True, return_inverse=True)
    originals = valid[first[inverse.ravel()]]
    different = ids[valid] != ids[originals]
    return dict(zip(valid[different].tolist(), originals[different].tolist(), strict=True))


def find_near_duplicates(
    query: Fingerprints,
    query_ids: NDArray[np.int64],
    stored: Fingerprints,
    stored_ids: NDArray[np.int64],
    distance: int,
) -> dict[int, int]:
    """For each query with a near-duplicate under another id: row of the query -> row of the first one.

    The perceptual hashes of near-duplicates differ in at most ``distance`` bits. Exact copies are excluded; see
    :func:`find_copies`.
    """
    valid = np.flatnonzero(stored.state == OK)
    queries = np.flatnonzero(query.state == OK)
    pairs: dict[int, int] = {}
    for stored_block in np.array_split(valid, max(1, len(valid) // 65536)):
        stored_signs = signs(stored.perceptual[stored_block])
        for query_block in np.array_split(queries, max(1, len(queries) // 64)):
            near = signs(query.perceptual[query_block]) @ stored_signs.T >= 64 - 2 * distance
            for i, j in torch.nonzero(near).tolist():
                row, other = int(query_block[i]), int(stored_block[j])
                different = stored_ids[other] != query_ids[row] and stored.exact[other] != query.exact[row]
                if row not in pairs and different:
                    pairs[row] = other
    return pairs


def signs(hashes: NDArray[np.uint64]) -> Tensor:
    """(N, 64) bits as -1 and 1: the inner product of two rows is 64 minus twice their Hamming distance."""
    bits = np.unpackbits(hashes.astype(">u8").view(np.uint8).reshape(-1, 8), axis=1)
    return torch.from_numpy(bits).float() * 2 - 1
