"""Codes of a large collection as a folder of Parquet files, written one after another and continued after an end.

Each file has the codes of a run of items, in the order of the collection (:mod:`hashzoo.export.code_folder`). The call
that began a folder encodes the rest of it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePath
from typing import Any, Protocol

import filelock

from hashzoo.data import image_paths
from hashzoo.data.vectors import Vectors
from hashzoo.errors import EnvironmentFailure, UsageError
from hashzoo.export import code_folder
from hashzoo.export.parquet import import_pyarrow
from hashzoo.registry import hub
from hashzoo.retrieval.code_file import CodeCollector, StoredCodes
from hashzoo.retrieval.encoder import Encoder, ImageLike
from hashzoo.retrieval.vector_encoder import VectorEncoder, load_any_encoder
from hashzoo.retrieval.vector_index import encode_vectors, sample_digest
from hashzoo.storage.files import disk_errors
from hashzoo.types import ProgressCallback


@dataclass(frozen=True)
class Encoded:
    """What a folder of codes holds: rows, a message for each item that was left out, and files kept from before."""

    rows: int
    left_out: Sequence[str]
    files: int
    kept: int


#: The codes of a run of items, None if there are none, and a message for each item that was left out.
Result = tuple[StoredCodes | None, Sequence[str]]


class Part(Protocol):
    """A run of items, which can be sent to another machine that has the files."""

    def encode(self, encoder: Any) -> Result:
        """The codes of the items."""


@dataclass(frozen=True)
class ImagePart:
    """Some images of a folder."""

    root: Path
    paths: Sequence[PurePath]
    strict: bool

    def encode(self, encoder: Encoder) -> Result:
        """The codes of the images. EnvironmentFailure, if it is strict, for one that does not decode."""
        rows, skipped, collector = list[int](), list[str](), CodeCollector(stored_codes(encoder))
        files: list[ImageLike] = [self.root / path for path in self.paths]
        on_unreadable = None if self.strict else lambda _, reason: skipped.append(reason)
        for indices, codes in encoder.encode_batches(files, on_unreadable):
            collector.add(codes)
            rows += indices
        if not rows:
            return None, skipped
        return collector.finish(encoder.describe(), self.root, [self.paths[row] for row in rows]), skipped


@dataclass(frozen=True)
class VectorPart:
    """Some rows of a file of vectors."""

    file: Path
    start: int
    stop: int

    def encode(self, encoder: VectorEncoder) -> Result:
        """The codes of the rows."""
        whole = encoder.open(self.file)
        part = Vectors(whole.matrix, whole.rows[self.start : self.stop], unit=whole.unit)
        return encode_vectors(encoder, part, stored_codes(encoder)), ()


class Items(Protocol):
    """A collection in a fixed order."""

    @property
    def kind(self) -> str:
        """What the items are called."""

    @property
    def strict(self) -> bool:
        """Whether an item that cannot be encoded is an error."""

    @property
    def left_out(self) -> Sequence[str]:
        """A message for each item that is known to be unreadable."""

    def __len__(self) -> int: ...

    def digest(self) -> str:
        """Changes if items are added, removed or reordered, or are seen to be others."""

    def part(self, start: int, stop: int) -> Part:
        """A run of the items."""


class ImageItems:
    """Image files and all images in folders."""

    kind = "images"

    def __init__(self, images: Sequence[Path], strict: bool) -> None:
        self.found, self.strict = image_paths.find_images(images), strict
        self.left_out = self.found.left_out
        if strict and self.left_out:
            raise EnvironmentFailure(self.left_out[0])

    def __len__(self) -> int:
        return len(self.found.images)

    def digest(self) -> str:
        """Of the paths and sizes of the files."""
        total = hashlib.sha256()
        for path in self.found.images:
            file = self.found.root / path
            with disk_errors("read", file):
                size = file.stat().st_size
            total.update(f"{path.as_posix()}\0{size}\n".encode("utf-8", "surrogateescape"))
        return total.hexdigest()

    def part(self, start: int, stop: int) -> Part:
        """The images from ``start`` to ``stop``."""
        return ImagePart(self.found.root, self.found.images[start:stop], self.strict)


class VectorItems:
    """The rows of a file of vectors."""

    kind, strict = "vectors", True

    def __init__(self, encoder: VectorEncoder, file: Path) -> None:
        self.file, self.vectors = file, encoder.open(file)
        self.left_out: Sequence[str] = ()

    def __len__(self) -> int:
        return len(self.vectors)

    def digest(self) -> str:
        """Of the shape of the file and of some of its rows."""
        return sample_digest(self.vectors.matrix)

    def part(self, start: int, stop: int) -> Part:
        """The rows from ``start`` to ``stop``."""
        return VectorPart(self.file, start, stop)


def stored_codes(encoder: Encoder | VectorEncoder) -> Sequence[str] | None:
    """The codes that the method compares items by, None for all; those of queries alone are not stored."""
    return encoder.trained.method.index().reads()


def items_of(encoder: Encoder | VectorEncoder, sources: Sequence[Path], strict: bool = False) -> Items:
    """The collection that an encoder takes from files and folders. Raises UsageError for several files of vectors."""
    if isinstance(encoder, Encoder):
        return ImageItems(sources, strict)
    if len(sources) > 1:
        raise UsageError(f"{encoder.cell} encodes one file of vectors at a time, not {len(sources)}; name one")
    return VectorItems(encoder, sources[0])


#: Encodes parts, and yields the number of each with its result, in any order.
Spread = Callable[[Sequence[Part]], Iterable[tuple[int, Result]]]


def encode(
    encoder: Encoder | VectorEncoder,
    items: Items,
    folder: Path,
    rows: int,
    progress: ProgressCallback | None = None,
    spread: Spread | None = None,
) -> Encoded:
    """Write the codes of a collection to a folder, or continue.

    Args:
        encoder: The trained method.
        items: The collection, by :func:`items_of`.
        folder: A new folder, or one that the same call has written to before.
        rows: Items of a file.
        progress: Called with the number of items that are done and their total.
        spread: Encodes parts elsewhere; by default, this process encodes them one after another.

    Returns:
        What the folder holds.

    Raises:
        UsageError: If the folder holds other files, or codes of another method or collection.
        EnvironmentFailure: If another process writes to the folder, no item can be encoded, or the disk fails.
    """
    pyarrow = import_pyarrow()
    head = _head(encoder, items, rows)
    code_folder.check(folder, head)  # before anything is written to it
    lock = filelock.FileLock(folder / code_folder.LOCK)
    with disk_errors("write to", folder):
        folder.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout:
            raise EnvironmentFailure(f"another process writes to {folder}; wait for its end") from None
    try:
        here: Spread = lambda parts: ((n, part.encode(encoder)) for n, part in enumerate(parts))  # noqa: E731
        return _encode(pyarrow, items, folder, head, progress, spread or here)
    finally:
        lock.release()


def _encode(
    pyarrow: Any,
    items: Items,
    folder: Path,
    head: dict[str, Any],
    progress: ProgressCallback | None,
    spread: Spread,
) -> Encoded:
    former, rows = code_folder.check(folder, head), head["rows"]  # again: a process can have ended in between
    files = former.get("files", ())
    if files:
        head |= {name: former[name] for name in ("codes", "root")}
    wanted = [part for part in files if not (items.strict and part["left_out"])]
    done = {part["start"]: part for part in wanted if code_folder.is_whole(folder, part)}
    code_folder.clean(folder, done)
    code_folder.write_manifest(folder, head, done, len(items))  # first, so that the folder is known as one of codes
    kept, starts = len(done), [start for start in range(0, len(items), rows) if start not in done]
    for number, (stored, left_out) in spread([items.part(start, min(start + rows, len(items))) for start in starts]):
        start = starts[number]
        count = min(rows, len(items) - start)
        part = {"start": start, "items": count, "rows": 0, "name": None, "sha256": None, "left_out": list(left_out)}
        if stored is not None:
            part |= code_folder.write_file(pyarrow, folder, start // rows, stored)
            head |= {"codes": stored.metadata["codes"], "root": stored.metadata["root"]}
        done[start] = part
        code_folder.write_manifest(folder, head, done, len(items))
        if progress:
            progress(sum(one["items"] for one in done.values()), len(items))
    parts = [done[start] for start in sorted(done)]
    reasons = [*items.left_out, *(reason for part in parts for reason in part["left_out"])]
    found = Encoded(sum(part["rows"] for part in parts), reasons, len(parts), kept)
    if not found.rows:
        raise EnvironmentFailure(f"none of {len(items)} {items.kind} can be encoded: {found.left_out[0]}")
    return found


def sent(encoder: Encoder | VectorEncoder) -> tuple[str, str, tuple[str, ...]]:
    """The arguments of :func:`worker` for an encoder."""
    return str(hub.origin(encoder.cell) or encoder.cell), str(encoder.trained.run.device), encoder.plugins


@lru_cache(1)
def worker(cell: str, device: str, plugins: tuple[str, ...]) -> Callable[[Part], Result]:
    """What encodes parts in another process, which loads the method once."""
    encoder = load_any_encoder(cell, device=device, plugins=plugins)
    return lambda part: part.encode(encoder)


def _head(encoder: Encoder | VectorEncoder, items: Items, rows: int) -> dict[str, Any]:
    """What is equal in all calls that continue a folder, and how it is described."""
    described = encoder.describe()
    if isinstance(encoder, VectorEncoder):
        described["vectors"] = {"metric": encoder.metric, "dim": encoder.dim, "copy": "none", **encoder.choice}
    return {
        "format": code_folder.FORMAT,
        "schema": code_folder.SCHEMA,
        "encoder": described,
        "source": {"kind": items.kind, "items": len(items), "digest": items.digest()},
        "rows": rows,
        "codes": None,
        "root": None,
    }
