"""Collections that are encoded part by part: images in folders, in tables and in archives, and vectors."""

from __future__ import annotations

import hashlib
import os
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path, PurePath
from typing import Any, Protocol

from hashzoo.data import image_containers, image_paths
from hashzoo.data.image_tables import Table, check_ids
from hashzoo.data.stored_images import ImageContainer, ImageRun, StoredImage
from hashzoo.data.vectors import Vectors
from hashzoo.errors import EnvironmentFailure, UsageError
from hashzoo.retrieval.code_file import CodeCollector, StoredCodes
from hashzoo.retrieval.encoder import Encoder
from hashzoo.retrieval.vector_encoder import VectorEncoder
from hashzoo.retrieval.vector_index import encode_vectors, sample_digest
from hashzoo.storage.files import disk_errors
from hashzoo.types import ProgressCallback

#: The codes of a run of items, None if there are none, and a message for each item that was left out.
Result = tuple[StoredCodes | None, Sequence[str]]


#: The codes to keep; None keeps all.
Names = Sequence[str] | None


class Part(Protocol):
    """A run of items, which can be sent to another machine that has the files."""

    def encode(self, encoder: Any, names: Names, progress: ProgressCallback | None = None) -> Result:
        """The codes of some names of the items; ``progress`` receives how many are done, and their total."""


@dataclass(frozen=True)
class ImagePart:
    """Some images of a folder."""

    root: Path
    paths: Sequence[PurePath]
    strict: bool

    def __iter__(self) -> Iterator[tuple[PurePath, Path]]:
        """Path and file of each image."""
        return ((path, self.root / path) for path in self.paths)

    def encode(self, encoder: Encoder, names: Names, progress: ProgressCallback | None = None) -> Result:
        """The codes of the images. EnvironmentFailure, if it is strict, for one that does not decode."""
        return _encode(encoder, self, len(self.paths), CodeCollector(names), progress)


@dataclass(frozen=True)
class StoredPart:
    """Some images of tables and archives.

    Attributes:
        root: The folder that their names are relative to.
        runs: For each file, what precedes the names of its images, and the images.
        count: The number of images.
        strict: Whether an image that does not decode is an error.
    """

    root: Path
    runs: Sequence[tuple[PurePath, ImageRun]]
    count: int
    strict: bool

    def __iter__(self) -> Iterator[tuple[PurePath, Path | StoredImage]]:
        """Name and content of each image."""
        return ((prefix / name, image) for prefix, run in self.runs for name, image in run)

    def encode(self, encoder: Encoder, names: Names, progress: ProgressCallback | None = None) -> Result:
        """The codes of the images. EnvironmentFailure, if it is strict, for one that does not decode."""
        return _encode(encoder, self, self.count, CodeCollector(names), progress)


def _encode(
    encoder: Encoder, part: ImagePart | StoredPart, count: int, collector: CodeCollector, progress: Any
) -> Result:
    """The codes of images, by one pass over them."""
    rows, skipped, names = list[int](), list[str](), list[PurePath]()

    def images() -> Iterator[Path | StoredImage]:
        for name, image in part:
            names.append(name)
            yield image

    on_unreadable = None if part.strict else lambda _, reason: skipped.append(reason)
    for indices, codes in encoder.encode_batches(images(), on_unreadable, progress, count):
        collector.add(codes)
        rows += indices
    if not rows:
        return None, skipped
    return collector.finish(encoder.describe(), part.root, [names[row] for row in rows]), skipped


@dataclass(frozen=True)
class VectorPart:
    """Some rows of a file of vectors."""

    file: Path
    column: str
    start: int
    stop: int

    def encode(self, encoder: VectorEncoder, names: Names, progress: ProgressCallback | None = None) -> Result:
        """The codes of the rows."""
        whole = encoder.open(self.file, self.column)
        part = Vectors(whole.matrix, whole.rows[self.start : self.stop], unit=whole.unit)
        return encode_vectors(encoder, part, names, progress), ()


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

    @property
    def passed_over(self) -> Mapping[str, int]:
        """The number of images in folders of thumbnails and copies, by the name of the folder."""

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
        self.left_out, self.passed_over = self.found.left_out, self.found.passed_over
        if strict and self.left_out:
            raise EnvironmentFailure(f"{self.left_out[0]} ({len(self.left_out)} such files in total)")

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


class StoredItems:
    """The images of tables and archives."""

    kind = "images"
    left_out: Sequence[str] = ()
    passed_over: Mapping[str, int] = {}

    def __init__(self, files: Sequence[ImageContainer], strict: bool) -> None:
        self.files, self.strict = files, strict
        self.root = Path(os.path.commonpath([file.file.parent for file in files]))
        self.ends = list(accumulate(map(len, files)))
        check_ids([file for file in files if isinstance(file, Table) and file.has_ids])

    def __len__(self) -> int:
        return self.ends[-1]

    def digest(self) -> str:
        """Of the files, each by its own digest."""
        listed = (f"{file.file.relative_to(self.root).as_posix()}\0{file.digest()}\n" for file in self.files)
        return hashlib.sha256("".join(listed).encode("utf-8", "surrogateescape")).hexdigest()

    def part(self, start: int, stop: int) -> StoredPart:
        """The images from ``start`` to ``stop``."""
        runs, place = list[tuple[PurePath, ImageRun]](), start
        while place < stop:
            number = bisect_right(self.ends, place)
            file, first = self.files[number], self.ends[number - 1] if number else 0
            prefix = PurePath() if file.has_ids else file.file.relative_to(self.root)
            end = min(stop, self.ends[number])
            runs.append((prefix, file.run(place - first, end - first)))
            place = end
        return StoredPart(self.root, runs, stop - start, self.strict)


class VectorItems:
    """The rows of a file of vectors."""

    kind, strict = "vectors", True
    left_out: Sequence[str] = ()
    passed_over: Mapping[str, int] = {}

    def __init__(self, encoder: VectorEncoder, file: Path, column: str = "") -> None:
        self.file, self.column, self.vectors = file, column, encoder.open(file, column)

    def __len__(self) -> int:
        return len(self.vectors)

    def digest(self) -> str:
        """Of the shape of the file and of some of its rows."""
        return sample_digest(self.vectors.matrix)

    def part(self, start: int, stop: int) -> Part:
        """The rows from ``start`` to ``stop``."""
        return VectorPart(self.file, self.column, start, stop)


def items_of(
    encoder: Encoder | VectorEncoder, sources: Sequence[Path], strict: bool = False, column: str = "", ids: str = ""
) -> Items:
    """The collection that an encoder takes from files and folders.

    Args:
        encoder: The encoder.
        sources: Images and folders of them, tables and archives of images, or a file of vectors.
        strict: Whether an image that does not decode is an error.
        column: The column of images or vectors in a file that has several.
        ids: The column of ids in a table of images.

    Raises:
        UsageError: For several files of vectors, for images in files together with other images, and if there is no
            such file or column.
        EnvironmentFailure: If a file is damaged, or a package that reads it is not installed.
    """
    if isinstance(encoder, VectorEncoder):
        if len(sources) > 1:
            raise UsageError(f"{encoder.cell} encodes one file of vectors at a time, not {len(sources)}; name one")
        if ids:
            raise UsageError("--ids is for tables of images, and vectors are named by their rows; leave it out")
        return VectorItems(encoder, _absolute(sources[0]), column)
    if files := image_containers.find_containers(sources):
        return StoredItems([image_containers.open_container(_absolute(file), column, ids) for file in files], strict)
    if column or ids:
        option = "--column" if column else "--ids"
        raise UsageError(f"{option} is for tables and archives, and these are image files; leave it out")
    return ImageItems(sources, strict)


def _absolute(path: Path) -> Path:
    """The path from any folder; links are not resolved."""
    return Path(os.path.abspath(path))  # noqa: PTH100


def encode_all(
    encoder: Encoder | VectorEncoder, items: Items, progress: ProgressCallback | None = None
) -> tuple[StoredCodes, list[str]]:
    """All codes of a collection at once.

    Args:
        encoder: The encoder.
        items: The collection.
        progress: Called with the number of items that are done and their total.

    Returns:
        The codes, and a message for each item that was left out. The metadata of the codes have ``passed_over``, if
        images in folders of thumbnails and copies were.

    Raises:
        EnvironmentFailure: If no item can be encoded.
    """
    stored, left_out = items.part(0, len(items)).encode(encoder, None, progress)
    if stored is None:
        raise EnvironmentFailure(f"none of {len(items)} {items.kind} can be encoded: {left_out[0]}")
    if items.passed_over:
        stored = replace(stored, metadata={**stored.metadata, "passed_over": dict(items.passed_over)})
    return stored, [*items.left_out, *left_out]
