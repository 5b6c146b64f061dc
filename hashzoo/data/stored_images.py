"""Image files that are stored in other files: in tables and in archives.

Shapes: N images of a file.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from PIL import Image

from hashzoo.data.image_files import decode
from hashzoo.data.image_paths import MAX_FILE_SIZE
from hashzoo.errors import EnvironmentFailure
from hashzoo.storage.files import disk_errors

SAMPLED = 1 << 20  # bytes at the start and at the end of a table that tell whether it has changed


@dataclass(frozen=True)
class StoredImage:
    """An image file that is stored in another file.

    Attributes:
        name: The file and the place in it, for messages.
        data: Its bytes; None if the row has no image.
    """

    name: str
    data: bytes | None

    def open(self, side: int | None = None) -> Image.Image:
        """The image, as by :func:`hashzoo.data.image_paths.open_image`."""
        if self.data is None:
            raise EnvironmentFailure(f"{self.name} has no image")
        if len(self.data) > MAX_FILE_SIZE:
            raise EnvironmentFailure(f"{self.name} has {len(self.data)} bytes; the limit is {MAX_FILE_SIZE}")
        try:
            return decode(self.data, side)
        except EnvironmentFailure as error:
            raise EnvironmentFailure(f"{self.name} does not decode as an image: {error}") from error


class ImageRun(Protocol):
    """Some images of a file, in order; it can be sent to another machine that has the file."""

    def __iter__(self) -> Iterator[tuple[str, StoredImage | Path]]:
        """Name and image, of which few are in memory at a time; a path where the file names an image file."""


class ImageContainer(Protocol):
    """A file that has images in it."""

    @property
    def file(self) -> Path:
        """The file, or the folder of a table of several files."""

    @property
    def has_ids(self) -> bool:
        """Whether names are ids of a column. Other names are those in the file, and no two are equal."""

    def __len__(self) -> int: ...

    def digest(self) -> str:
        """Changes if images are added, removed or reordered, or are seen to be others."""

    def run(self, start: int, stop: int) -> ImageRun:
        """The images from ``start`` to ``stop``."""


def sampled_digest(file: Path) -> str:
    """A digest of the size of a file and of its first and last MiB."""
    with disk_errors("read", file), file.open("rb") as stream:
        size = file.stat().st_size
        total = hashlib.sha256(str(size).encode())
        total.update(stream.read(SAMPLED))
        stream.seek(max(0, size - SAMPLED))
        total.update(stream.read(SAMPLED))
    return total.hexdigest()
