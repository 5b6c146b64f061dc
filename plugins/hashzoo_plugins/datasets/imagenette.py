"""ImageNette: ten easy classes of ImageNet (fast.ai), 9,469 training and 3,925 validation pictures.

``root`` is a folder with the official ``train`` and ``val`` folders, or with ``imagenette224_train.npz`` and
``imagenette224_val.npz``, the same pictures at 224 x 224. Networks pretrained on ImageNet have seen these classes with
their labels; rows say so.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from hashzoo.errors import TroubleError
from hashzoo.picture_files import PictureFiles
from hashzoo.types import Splits
from hashzoo_plugins.datasets.carve import Pool, Shuffle
from hashzoo_plugins.datasets.packed import Packed

PACKED = ("imagenette224_train.npz", "imagenette224_val.npz")


class Both(PictureFiles):
    """The picture files of one sequence, then those of another."""

    def __init__(self, first: PictureFiles, second: PictureFiles) -> None:
        self.first, self.second = first, second

    def __len__(self) -> int:
        return len(self.first) + len(self.second)

    def _of(self, row: int) -> tuple[PictureFiles, int]:
        return (self.first, row) if row < len(self.first) else (self.second, row - len(self.first))

    def read(self, row: int) -> bytes:
        """The bytes of one file."""
        files, at = self._of(row)
        return files.read(at)

    def name(self, row: int) -> str:
        """As its own sequence calls it."""
        files, at = self._of(row)
        return files.name(at)

    def stamp(self, row: int) -> str:
        """As of its own sequence."""
        files, at = self._of(row)
        return files.stamp(at)


def pool(root: Path | None) -> tuple[Pool, int]:
    """All pictures, the official training pictures first, and how many these are."""
    if root is not None and all((root / name).is_file() for name in PACKED):
        train, val = (Packed(root / name) for name in PACKED)
        labels = np.concatenate([train.extra["labels"], val.extra["labels"]]).astype(np.int64)
        names = tuple(str(name) for name in train.extra["classes"])
        one_hot = torch.eye(10)[torch.from_numpy(labels)]
        return Pool(Both(train, val), one_hot, names, "ImageNette (224)", pretraining=("ImageNet",)), len(train)
    raise TroubleError(f"there are no {PACKED[0]} and {PACKED[1]} in {root}; name their folder with root")


def standard(*, root: Path | None = None, seed: int = 0, validation: float = 0.0) -> Splits:
    """ImageNette by its own split: 3,925 validation pictures ask; the 9,469 others are learned from and searched."""
    whole, first = pool(root)
    shuffle = Shuffle("imagenette", seed)
    train, query = shuffle.permutation(np.arange(first)), np.arange(first, len(whole.labels))
    return whole.splits(train, train, query, validation=validation, shuffle=shuffle)


def source(seed: int, root: Path | None) -> Splits:
    """What long-tailed parts are drawn from."""
    return standard(root=root, seed=seed)
