"""Image files in folders, one file per image."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hashzoo import ImageFiles


class ImagePaths(ImageFiles):
    """The image files at these paths, in this order. A file is opened only when its image is accessed."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths = list(paths)

    def __len__(self) -> int:
        return len(self.paths)

    def read(self, row: int) -> bytes:
        """The bytes of one file. Raises OSError if it cannot be read."""
        return self.paths[row].read_bytes()

    def name(self, row: int) -> str:
        """The path."""
        return str(self.paths[row])

    def stamp(self, row: int) -> str:
        """The absolute path, the size and the modification time. Raises OSError if there is no such file."""
        path = self.paths[row]
        status = path.stat()
        return f"{path.resolve()} {status.st_size} {status.st_mtime_ns}"
