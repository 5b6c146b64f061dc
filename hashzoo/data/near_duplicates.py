"""Prints of images: which decode, which are the same to the last pixel, and which look alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from hashzoo.data.image_files import ImageFiles, decode, digest
from hashzoo.data.integrity import below, pixel_digest
from hashzoo.data.transforms import as_tensor
from hashzoo.errors import EnvironmentFailure
from hashzoo.types import ProgressCallback, Split

FINE, MISSING, DAMAGED = 0, 1, 2
_BLOCK = 2048  # images handed to the threads at a time
_GRAIN = 32  # of them to one thread
_COSINES = np.cos(np.pi / 32 * (np.arange(32) + 0.5) * np.arange(8)[:, None])  # (8, 32) the slowest waves of a DCT


@dataclass
class Prints:
    """What is known of the images of one part, by row.

    ``exact`` are 64 bits of the digest of the decoded pixels, ``look`` 64 bits of the rough appearance (zero unless
    asked for); both mean something only where ``state`` is FINE. ``reasons`` says of the others what is wrong.
    """

    exact: NDArray[np.uint64]  # (N,)
    look: NDArray[np.uint64]  # (N,)
    state: NDArray[np.uint8]  # (N,)
    reasons: dict[int, str] = field(default_factory=dict)


def name_of(split: Split, row: int) -> str:
    """What a person calls an image: its id, and its file where it is one."""
    images, rows = below(split.images)
    file = f" ({images.name(int(rows[row]))})" if isinstance(images, ImageFiles) else ""
    return f"{int(split.ids[row])}{file}"


def appearance(image: Tensor) -> int:
    """64 bits of how an image (C, H, W) looks: which of its 8 x 8 slowest waves are stronger than their median.

    A perceptual hash as of the pHash library: the discrete cosine transform of the grey image at 32 x 32. Scaling,
    compressing and small changes of brightness turn few of the bits; flips and crops turn many.
    """
    grey = Image.fromarray((image[0] if len(image) == 1 else image.permute(1, 2, 0)).numpy()).convert("L")
    small = np.asarray(grey.resize((32, 32), Image.Resampling.LANCZOS), dtype=np.float64)
    waves = _COSINES @ small @ _COSINES.T
    return int.from_bytes(np.packbits((waves > np.median(waves)).ravel()).tobytes(), "big")


def take(parts: Mapping[str, Split], near: bool, threads: int, tell: ProgressCallback) -> dict[str, Prints]:
    """The prints of every part. An image in several parts is looked at once, and equal files are decoded once.

    ``near`` asks for the appearance too. ``tell`` is called with the images looked at so far, and with all of them.
    """
    where = {name: below(part.images) for name, part in parts.items()}
    wanted: dict[int, tuple[Any, NDArray[np.int64]]] = {}
    for base, rows in where.values():
        before = wanted[id(base)][1] if id(base) in wanted else rows[:0]
        wanted[id(base)] = base, np.union1d(before, rows)
    total, done = sum(len(rows) for _, rows in wanted.values()), 0
    found: dict[int, Prints] = {}
    with ThreadPoolExecutor(threads) as pool:
        for key, (base, rows) in wanted.items():
            prints = found[key] = Prints(
                np.zeros(len(rows), np.uint64), np.zeros(len(rows), np.uint64), np.zeros(len(rows), np.uint8)
            )
            one_of = _Look(base, near)
            for start in range(0, len(rows), _BLOCK):
                block = rows[start : start + _BLOCK].tolist()
                grains = [block[i : i + _GRAIN] for i in range(0, len(block), _GRAIN)]
                looked = (one for some in pool.map(one_of.several, grains) for one in some)
                for at, (exact, rough, state, reason) in enumerate(looked, start):
                    prints.exact[at], prints.look[at], prints.state[at] = exact, rough, state
                    if reason:
                        prints.reasons[at] = reason
                done += len(block)
                tell(done, total)
    made = {}
    for name, (base, rows) in where.items():
        whole, places = found[id(base)], np.searchsorted(wanted[id(base)][1], rows)
        reasons = {row: whole.reasons[i] for row, i in enumerate(places.tolist()) if i in whole.reasons}
        made[name] = Prints(whole.exact[places], whole.look[places], whole.state[places], reasons)
    return made


class _Look:
    """One image after another of a sequence: (exact, appearance, state, reason). Threads may share it."""

    def __init__(self, images: Sequence[Any] | Tensor, near: bool) -> None:
        self.images, self.near = images, near
        self.seen: dict[bytes, tuple[int, int, int, str]] = {}  # by the digest of the file

    def __call__(self, row: int) -> tuple[int, int, int, str]:
        try:
            if not isinstance(self.images, ImageFiles):
                return self.prints(self.images[row])
            data = self.images.read(row)
            key = digest(data)
            if key not in self.seen:
                self.seen[key] = self.prints(decode(data))
            return self.seen[key]
        except FileNotFoundError:
            return 0, 0, MISSING, "not there"
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError, EnvironmentFailure) as error:
            return 0, 0, DAMAGED, str(error) or type(error).__name__

    def several(self, rows: Sequence[int]) -> list[tuple[int, int, int, str]]:
        """Of some rows, in their order."""
        return [self(row) for row in rows]

    def prints(self, image: Any) -> tuple[int, int, int, str]:
        """Of an image that is at hand."""
        pixels = as_tensor(image).contiguous()
        exact = pixel_digest(pixels)[:8]
        return int.from_bytes(exact, "big"), appearance(pixels) if self.near else 0, FINE, ""


def copies(query: Prints, ids: NDArray[np.int64], among: Prints, others: NDArray[np.int64]) -> dict[int, int]:
    """Row of a query -> row of an image under another id that is the same to the last pixel; only such queries."""
    fine = np.flatnonzero(among.state == FINE)
    fine = fine[np.argsort(among.exact[fine], kind="stable")]
    values = among.exact[fine]
    first, last = (np.searchsorted(values, query.exact, side) for side in ("left", "right"))
    found = {}
    for row in np.flatnonzero((last > first) & (query.state == FINE)).tolist():
        same = fine[first[row] : last[row]]
        if len(same := same[others[same] != ids[row]]):
            found[row] = int(same[0])
    return found


def lookalikes(
    query: Prints, ids: NDArray[np.int64], among: Prints, others: NDArray[np.int64], distance: int
) -> dict[int, int]:
    """Row of a query -> row of the first image under another id that looks the same within ``distance`` bits.

    Exact copies are left out; :func:`copies` has them.
    """
    fine = np.flatnonzero(among.state == FINE)
    asking = np.flatnonzero(query.state == FINE)
    found: dict[int, int] = {}
    for many in np.array_split(fine, max(1, len(fine) // 65536)):
        stored = _signs(among.look[many])
        for some in np.array_split(asking, max(1, len(asking) // 64)):
            near = _signs(query.look[some]) @ stored.T >= 64 - 2 * distance
            for i, j in torch.nonzero(near).tolist():
                row, other = int(some[i]), int(many[j])
                if row not in found and others[other] != ids[row] and among.exact[other] != query.exact[row]:
                    found[row] = other
    return found


def _signs(looks: NDArray[np.uint64]) -> Tensor:
    """(N, 64) bits as -1 and 1, so that a product of two rows is 64 less twice their distance."""
    bits = np.unpackbits(looks.astype(">u8").view(np.uint8).reshape(-1, 8), axis=1)
    return torch.from_numpy(bits).float() * 2 - 1
