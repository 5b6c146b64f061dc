"""Picture files as they are stored, and how each becomes a picture."""

from __future__ import annotations

import hashlib
import io
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from PIL import Image, ImageOps

from hashzoo.errors import TroubleError

#: Pictures above this many pixels are refused: a small file can hold a picture of many gigabytes.
PIXELS = 64 << 20


class PictureFiles(Sequence[Any], ABC):
    """A sequence of picture files, decoded one at a time, when asked for. Nothing is held in memory.

    What a data set gives as ``Split.images`` where pictures are files: fingerprints are then made of the bytes of the
    files, and pictures that do not decode are found before anything is trained.
    """

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def read(self, row: int) -> bytes:
        """The bytes of one file. OSError where they cannot be read."""

    @abstractmethod
    def name(self, row: int) -> str:
        """What a message calls the picture: a path, or a name inside an archive."""

    @abstractmethod
    def stamp(self, row: int) -> str:
        """Text that changes whenever the file does, found without reading it (a path, its size and time)."""

    def __getitem__(self, row: Any) -> Any:
        """One picture, upright, in RGB. TroubleError naming it where it does not decode."""
        if row >= len(self):
            raise IndexError(row)
        try:
            return decode(self.read(row))
        except (TroubleError, OSError) as error:
            raise TroubleError(f"{self.name(row)}: {error}") from error


def decode(data: bytes) -> Image.Image:
    """The picture in a file's bytes, upright, in RGB. TroubleError with the reason where it does not decode."""
    try:
        with Image.open(io.BytesIO(data)) as opened:
            if opened.width * opened.height > PIXELS:
                raise TroubleError(f"it has {opened.width} x {opened.height} pixels; at most {PIXELS} are read")
            return ImageOps.exif_transpose(opened).convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise TroubleError(str(error) or type(error).__name__) from error


def digest(data: bytes) -> bytes:
    """16 bytes that stand for a file's content."""
    return hashlib.sha256(data).digest()[:16]
