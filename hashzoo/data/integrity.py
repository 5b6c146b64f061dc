"""One look at every image before anything is trained: does it decode, and what tells this data from other data."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from hashzoo.data.image_files import DECODER, ImageFiles, decode, digest
from hashzoo.data.transforms import as_tensor
from hashzoo.errors import EnvironmentFailure, HashzooError
from hashzoo.storage import npz
from hashzoo.storage.cache import cache_folder
from hashzoo.storage.files import replace_bytes
from hashzoo.storage.schema import CACHE, refuse_newer
from hashzoo.types import ProgressCallback, Rows, Split, Splits

SCHEMA = 1  # of what is kept; files from before it was written lack it
AT_ONCE = 64  # images a thread looks at before it says so


@dataclass(frozen=True)
class Looked:
    """What became of each image of a sequence: 16 bytes that stand for it, or the reason why it does not decode.

    ``lasting`` is False where a file could not even be read, or memory ran out: that may be otherwise the next time.
    """

    prints: NDArray[np.uint8]  # (N, 16)
    bad: Mapping[int, str]
    lasting: bool = True

    @property
    def digest(self) -> str:
        """Of all of it."""
        return hashlib.sha256(np.ascontiguousarray(self.prints).data).hexdigest()


@dataclass(frozen=True)
class Inspection:
    """What a cell must know of its data without looking at every image again.

    ``digests`` are of each part's sound images, labels and ids; ``bad`` are the rows that do not decode, with the
    reason; ``pools`` the digest of the image files that a part is taken from, and ``unreadable`` the rows of such
    files, by that digest, that do not decode.
    """

    digests: Mapping[str, str]
    bad: Mapping[str, Mapping[int, str]]
    pools: Mapping[str, str]
    unreadable: Mapping[str, Sequence[int]]

    @property
    def left_out(self) -> int:
        """Images of all parts that do not decode."""
        return sum(map(len, self.bad.values()))


def below(images: Any) -> tuple[Any, NDArray[np.int64]]:
    """The sequence that a split's images are taken from, and the row there of each.

    >>> base, rows = below(Rows(Rows("abcd", [3, 2, 1]), [0, 2]))
    >>> base, rows.tolist()
    ('abcd', [3, 1])
    """
    rows = np.arange(len(images))
    while isinstance(images, Rows):
        rows, images = np.asarray(images.rows, dtype=np.int64)[rows], images.base
    return images, rows


def inspect(data: Splits, tell: ProgressCallback | None = None) -> Inspection:
    """Look at every image of every part. Those in files are looked at once, and again only when a file changes."""
    seen: dict[int, tuple[Any, Looked]] = {}
    bad: dict[str, Mapping[int, str]] = {}
    digests, pools, unreadable = {}, {}, {}
    for part, split in data.parts().items():
        if isinstance(split.images, Tensor):
            digests[part], bad[part] = digest_of_split(split, None), {}
            continue
        base, rows = below(split.images)
        if id(base) not in seen:
            seen[id(base)] = base, look(base, tell)
        _, looked = seen[id(base)]
        hit = np.flatnonzero(np.isin(rows, list(looked.bad))).tolist() if looked.bad else []
        bad[part] = {row: looked.bad[int(rows[row])] for row in hit}
        labelled = replace(split, images=range(len(split)), boxes=None)
        if hit:
            sound = np.setdiff1d(np.arange(len(split)), hit)
            labelled, rows = labelled.take(torch.from_numpy(sound)), rows[sound]
        digests[part], pools[part] = digest_of_split(labelled, looked.prints[rows]), pooled(base, looked)
        unreadable[pools[part]] = tuple(looked.bad)
    return Inspection(digests, bad, pools, unreadable)


def form_of(images: Any) -> str:
    """What is done with images after decoding, in words; empty where nothing is."""
    return images.form if isinstance(images, ImageFiles) else ""


def pooled(images: Sequence[Any], looked: Looked) -> str:
    """A digest of all images of a sequence as they reach a network: of their files, and of what is done with them."""
    form = form_of(images)
    return hashlib.sha256(f"{looked.digest} {form}".encode()).hexdigest() if form else looked.digest


def kept(data: Splits, inspection: Inspection) -> Splits:
    """The data without the images that do not decode. EnvironmentFailure where a part would be empty."""
    parts, pairs = {}, data.pairs
    for part, split in data.parts().items():
        bad = inspection.bad[part]
        if not bad:
            continue
        rows = [row for row in range(len(split)) if row not in bad]
        if not rows:
            raise EnvironmentFailure(f"no image of the {part} split decodes: {next(iter(bad.values()))}")
        parts[part] = split.take(torch.tensor(rows))
        if part == "query" and pairs is not None:
            pairs = pairs.among(rows)
    return replace(data, **parts, pairs=pairs)  # type: ignore[arg-type]


def digest_of_split(split: Split, prints: NDArray[np.uint8] | None, form: str = "") -> str:
    """A digest of a split's ids and labels, and of its images: by their prints, or by pixels held in memory.

    ``form`` is what is done with an image after decoding.
    """
    total = hashlib.sha256()
    for part in (split.ids, split.labels):
        total.update(str(tuple(part.shape)).encode())
        total.update(part.contiguous().numpy().data)
    if prints is None:
        total.update(str(tuple(split.images.shape)).encode())
        total.update(split.images.contiguous().numpy().data)
    else:
        total.update(np.ascontiguousarray(prints).data)
    total.update(form.encode())
    return total.hexdigest()


def look(images: Sequence[Any], tell: ProgressCallback | None = None) -> Looked:
    """Read and decode each image of a sequence, in as many threads as there are cores.

    What was found of image files is kept in the cache folder for as long as none of them changes.
    """
    if not isinstance(images, ImageFiles):
        return _joined([_glance(images, range(len(images)))])
    stamps = hashlib.sha256(f"{PIL.__version__} {DECODER} {len(images)}".encode())
    for row in range(len(images)):
        try:
            stamp = images.stamp(row)
        except OSError:
            stamp = f"{images.name(row)} is not there"
        stamps.update(stamp.encode("utf-8", "surrogateescape"))
    file = cache_folder() / "inspected" / f"{stamps.hexdigest()[:32]}.npz"
    former = _read(file, len(images))
    if former is not None:
        return former
    groups = [range(start, min(start + AT_ONCE, len(images))) for start in range(0, len(images), AT_ONCE)]
    parts = []
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        for group, found in zip(groups, pool.map(lambda rows: _glance(images, rows), groups), strict=True):
            parts.append(found)
            if tell:
                tell(group.stop, len(images))
    looked = _joined(parts)
    if looked.lasting:
        _write(file, looked)
    return looked


def pixel_digest(image: Tensor) -> bytes:
    """16 bytes that stand for an image's pixels."""
    return digest(str(tuple(image.shape)).encode() + image.contiguous().numpy().tobytes())


def _glance(images: Sequence[Any], rows: range) -> Looked:
    prints, lasting = np.zeros((len(rows), 16), np.uint8), True
    bad = {}
    for place, row in enumerate(rows):
        try:
            if isinstance(images, ImageFiles):
                data = images.read(row)
                decode(data)
                found = digest(data)
            else:
                found = pixel_digest(as_tensor(images[row]))
            prints[place] = np.frombuffer(found, np.uint8)
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError, HashzooError) as error:
            lasting = lasting and not isinstance(error, OSError)
            where = f"{images.name(row)}: " if isinstance(images, ImageFiles) else ""
            bad[row] = where + (str(error) or type(error).__name__)
    return Looked(prints, bad, lasting)


def _joined(parts: Sequence[Looked]) -> Looked:
    bad = {row: reason for part in parts for row, reason in part.bad.items()}
    lasting = all(part.lasting for part in parts)
    return Looked(np.concatenate([part.prints for part in parts]), bad, lasting)


def _read(file: Path, count: int) -> Looked | None:
    with suppress(OSError, ValueError, KeyError, TypeError):
        stored = npz.read(file)
        refuse_newer(file, int(stored["schema"]) if "schema" in stored else SCHEMA, SCHEMA, CACHE)
        prints, rows, reasons = stored["prints"], stored["rows"], stored["reasons"]
        if prints.shape == (count, 16) and prints.dtype == np.uint8:
            return Looked(prints, dict(zip(rows.tolist(), reasons.tolist(), strict=True)))
    return None


def _write(file: Path, looked: Looked) -> None:
    packed = io.BytesIO()
    rows = np.array(list(looked.bad), dtype=np.int64)
    reasons = np.array(list(looked.bad.values()), dtype=str)
    np.savez(packed, schema=SCHEMA, prints=looked.prints, rows=rows, reasons=reasons)
    with suppress(OSError, EnvironmentFailure):  # a cache that cannot be written is no reason to stop
        file.parent.mkdir(parents=True, exist_ok=True)
        replace_bytes(file, packed.getvalue())


def fingerprint(data: Splits, inspection: Inspection | None = None) -> str:
    """A digest of everything in the splits."""
    text = " ".join((inspection or inspect(data)).digests.values())
    if data.pairs is not None:
        rows = torch.stack([data.pairs.first, data.pairs.second])
        text += f" {data.pairs.operation} {rows.tolist()} {data.pairs.labels.tolist()}"
    return hashlib.sha256(text.encode()).hexdigest()[:16]
