"""Image files packed into one .npz: ``jpeg`` is their concatenation, ``offsets`` the start of each file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from hashzoo import EnvironmentFailure, ImageFiles


class PackedImages(ImageFiles):
    """The image files inside one .npz, by row; ``extra`` holds its other arrays (labels, names, classes)."""

    def __init__(self, path: Path) -> None:
        try:
            with np.load(path, allow_pickle=False) as stored:
                arrays = {name: stored[name] for name in stored.files}
            self._bytes, self._offsets = arrays.pop("jpeg"), arrays.pop("offsets")
            size, modified = path.stat().st_size, path.stat().st_mtime_ns
        except (OSError, ValueError, KeyError, EOFError) as error:
            raise EnvironmentFailure(f"{path} is not an .npz file of packed images: {error}") from error
        self.path, self.extra = path, arrays
        self._stamp = f"{path.resolve()} {size} {modified}"

    def __len__(self) -> int:
        return len(self._offsets) - 1

    def read(self, row: int) -> bytes:
        """The bytes of one image file."""
        return bytes(self._bytes[self._offsets[row] : self._offsets[row + 1]])

    def name(self, row: int) -> str:
        """The path of the .npz, and the name of the image if the .npz has names, else its row."""
        names: Any = self.extra.get("names")
        return f"{self.path}: {names[row] if names is not None else row}"

    def stamp(self, row: int) -> str:
        """The stamp of the .npz, and the row."""
        return f"{self._stamp} {row}"
