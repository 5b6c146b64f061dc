"""Image files that lie in folders, one file an image."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hashzoo import ImageFiles


class Paths(ImageFiles):
    """The image files at these paths, in this order. None is opened before it is asked for."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths = list(paths)

    def __len__(self) -> int:
        return len(self.paths)

    def read(self, row: int) -> bytes:
        """The bytes of one file. OSError where they cannot be read."""
        return self.paths[row].read_bytes()

    def name(self, row: int) -> str:
        """The path."""
        return str(self.paths[row])

    def stamp(self, row: int) -> str:
        """The whole path, the size and the time of the last change. OSError where there is no such file."""
        path = self.paths[row]
        status = path.stat()
        return f"{path.resolve()} {status.st_size} {status.st_mtime_ns}"
