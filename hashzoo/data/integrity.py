"""Scan every image before anything is trained: which cannot be decoded, and the digests that identify the data."""

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

from hashzoo.data.formats import MissingDecoderError
from hashzoo.data.image_files import DECODER, ImageFiles, decode, short_digest
from hashzoo.data.transforms import as_tensor
from hashzoo.data.vector_checks import scan_vectors
from hashzoo.data.vectors import Vectors
from hashzoo.errors import EnvironmentFailure, HashzooError
from hashzoo.storage import npz
from hashzoo.storage.cache import cache_folder
from hashzoo.storage.files import replace_bytes
from hashzoo.storage.schema import CACHE, refuse_newer
from hashzoo.types import ProgressCallback, Rows, Split, Splits

SCHEMA = 1  # of cached scans; files written before it existed have none
BLOCK = 64  # images that a thread scans between two progress reports


@dataclass(frozen=True)
class Scan:
    """The digest of each image of a sequence, and the reason for each image that cannot be decoded, by row.

    ``cacheable`` is False if a file could not be read, memory was short or a decoder is not installed, since the next
    scan can then differ.
    """

    digests: NDArray[np.uint8]  # (N, 16)
    bad: Mapping[int, str]
    cacheable: bool = True

    @property
    def digest(self) -> str:
        """Digest of all images."""
        return hashlib.sha256(np.ascontiguousarray(self.digests).data).hexdigest()


@dataclass(frozen=True)
class Inspection:
    """What a cell needs to know of its images without scanning them again.

    Attributes:
        digests: By part, the digest of the images that can be decoded, with their labels and ids.
        bad: By part, the rows that cannot be decoded, each with the reason.
        pools: By part, the digest of the image files that the part is taken from.
        unreadable: By the digest of such image files, the rows that cannot be decoded.
    """

    digests: Mapping[str, str]
    bad: Mapping[str, Mapping[int, str]]
    pools: Mapping[str, str]
    unreadable: Mapping[str, Sequence[int]]

    @property
    def left_out(self) -> int:
        """The number of images in all parts that cannot be decoded."""
        return sum(map(len, self.bad.values()))


def resolve_rows(images: Any) -> tuple[Any, NDArray[np.int64]]:
    """The sequence that the images of a split are taken from, and the row of each image in it.

    >>> base, rows = resolve_rows(Rows(Rows("abcd", [3, 2, 1]), [0, 2]))
    >>> base, rows.tolist()
    ('abcd', [3, 1])
    """
    rows = np.arange(len(images))
    while isinstance(images, Rows):
        rows, images = np.asarray(images.rows, dtype=np.int64)[rows], images.base
    return images, rows


def inspect_splits(data: Splits, progress: ProgressCallback | None = None) -> Inspection:
    """Scan the images of every part. Image files are scanned once, and again only if one of them has changed."""
    scans: dict[int, tuple[Any, Scan]] = {}
    bad: dict[str, Mapping[int, str]] = {}
    digests, pools, unreadable = {}, {}, {}
    for part, split in data.parts().items():
        if isinstance(split.images, Tensor):
            digests[part], bad[part] = split_content_digest(split, None), {}
            continue
        if isinstance(split.images, Vectors):
            content, bad[part] = scan_vectors(split.images, progress)
            digests[part] = split_content_digest(_usable(split, bad[part]), content)
            continue
        base, rows = resolve_rows(split.images)
        if id(base) not in scans:
            scans[id(base)] = base, scan(base, progress)
        _, scanned = scans[id(base)]
        bad_rows = np.flatnonzero(np.isin(rows, list(scanned.bad))).tolist() if scanned.bad else []
        bad[part] = {row: scanned.bad[int(rows[row])] for row in bad_rows}
        usable = np.setdiff1d(np.arange(len(split)), bad_rows) if bad_rows else slice(None)
        digests[part] = split_content_digest(_usable(split, bad[part]), scanned.digests[rows[usable]])
        pools[part] = _pool_digest(base, scanned)
        unreadable[pools[part]] = tuple(scanned.bad)
    return Inspection(digests, bad, pools, unreadable)


def _usable(split: Split, bad: Mapping[int, str]) -> Split:
    """The ids and labels of a split without its bad rows."""
    labelled = replace(split, images=range(len(split)), boxes=None)
    return labelled.take(torch.from_numpy(np.setdiff1d(np.arange(len(split)), list(bad)))) if bad else labelled


def _pool_digest(images: Sequence[Any], scanned: Scan) -> str:
    """Digest of all images of a sequence as a network receives them: the files and the processing after decoding."""
    form = images.form if isinstance(images, ImageFiles) else ""
    return hashlib.sha256(f"{scanned.digest} {form}".encode()).hexdigest() if form else scanned.digest


def drop_bad_images(data: Splits, inspection: Inspection) -> Splits:
    """The splits without images that cannot be decoded. Raises EnvironmentFailure if a part would be empty."""
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


def split_content_digest(split: Split, image_digests: NDArray[np.uint8] | None, form: str = "") -> str:
    """Digest of the ids, labels and images of a split; without ``image_digests``, of the pixels in memory.

    ``form`` is the processing of the images after decoding.
    """
    total = hashlib.sha256()
    for part in (split.ids, split.labels):
        total.update(str(tuple(part.shape)).encode())
        total.update(part.contiguous().numpy().data)
    if image_digests is None:
        total.update(str(tuple(split.images.shape)).encode())
        total.update(split.images.contiguous().numpy().data)
    else:
        total.update(np.ascontiguousarray(image_digests).data)
    total.update(form.encode())
    return total.hexdigest()


def scan(images: Sequence[Any], progress: ProgressCallback | None = None) -> Scan:
    """Read and decode every image of a sequence, with one thread per core and at most eight.

    The result for image files is cached until one of the files changes.
    """
    if not isinstance(images, ImageFiles):
        return _concatenate([_scan_rows(images, range(len(images)))])
    stamps = hashlib.sha256(f"{PIL.__version__} {DECODER} {len(images)}".encode())
    for row in range(len(images)):
        try:
            stamp = images.stamp(row)
        except OSError:
            stamp = f"{images.name(row)} is not there"  # part of the cache key: do not change
        stamps.update(stamp.encode("utf-8", "surrogateescape"))
    file = cache_folder() / "inspected" / f"{stamps.hexdigest()[:32]}.npz"
    cached = read_scan(file, len(images))
    if cached is not None:
        return cached
    blocks = [range(start, min(start + BLOCK, len(images))) for start in range(0, len(images), BLOCK)]
    scans = []
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        for block, scanned in zip(blocks, pool.map(lambda rows: _scan_rows(images, rows), blocks), strict=True):
            scans.append(scanned)
            if progress:
                progress(block.stop, len(images))
    result = _concatenate(scans)
    if result.cacheable:
        write_scan(file, result)
    return result


def pixel_digest(image: Tensor) -> bytes:
    """16-byte digest of the pixels of an image."""
    return short_digest(str(tuple(image.shape)).encode() + image.contiguous().numpy().tobytes())


def _scan_rows(images: Sequence[Any], rows: range) -> Scan:
    digests, cacheable = np.zeros((len(rows), 16), np.uint8), True
    bad = {}
    for index, row in enumerate(rows):
        try:
            if isinstance(images, ImageFiles):
                data = images.read(row)
                decode(data)
                digest = short_digest(data)
            else:
                digest = pixel_digest(as_tensor(images[row]))
            digests[index] = np.frombuffer(digest, np.uint8)
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError, HashzooError) as error:
            cacheable = cacheable and not isinstance(error, OSError | MissingDecoderError)
            name = f"{images.name(row)}: " if isinstance(images, ImageFiles) else ""
            bad[row] = name + (str(error) or type(error).__name__)
    return Scan(digests, bad, cacheable)


def _concatenate(scans: Sequence[Scan]) -> Scan:
    bad = {row: reason for one in scans for row, reason in one.bad.items()}
    return Scan(np.concatenate([one.digests for one in scans]), bad, all(one.cacheable for one in scans))


def read_scan(file: Path, count: int) -> Scan | None:
    """The cached scan of ``count`` images; None if it is missing or damaged. Raises NewerSchemaError."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        stored = npz.read(file)
        refuse_newer(file, int(stored["schema"]) if "schema" in stored else SCHEMA, SCHEMA, CACHE)
        digests, rows, reasons = stored["prints"], stored["rows"], stored["reasons"]
        if digests.shape == (count, 16) and digests.dtype == np.uint8:
            return Scan(digests, dict(zip(rows.tolist(), reasons.tolist(), strict=True)))
    return None


def write_scan(file: Path, scanned: Scan) -> None:
    """Cache a scan; a failure to write it is ignored."""
    buffer = io.BytesIO()
    rows = np.array(list(scanned.bad), dtype=np.int64)
    reasons = np.array(list(scanned.bad.values()), dtype=str)
    np.savez(buffer, schema=SCHEMA, prints=scanned.digests, rows=rows, reasons=reasons)
    with suppress(OSError, EnvironmentFailure):
        file.parent.mkdir(parents=True, exist_ok=True)
        replace_bytes(file, buffer.getvalue())


def fingerprint(data: Splits, inspection: Inspection | None = None) -> str:
    """16 hex digits that identify the content of all splits: images, labels, ids and pairs."""
    text = " ".join((inspection or inspect_splits(data)).digests.values())
    if data.pairs is not None:
        rows = torch.stack([data.pairs.first, data.pairs.second])
        text += f" {data.pairs.operation} {rows.tolist()} {data.pairs.labels.tolist()}"
    text += f" {data.metric}" if data.metric else ""
    return hashlib.sha256(text.encode()).hexdigest()[:16]
