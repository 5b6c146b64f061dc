"""CIFAR-10: 60,000 pictures of 32 x 32 pixels in ten classes (Krizhevsky, 2009), as hashing papers split it.

``root`` is a folder with the binary version of the official files, or with ``cifar10_jpeg.npz``, the same pictures
after JPEG compression, whose scores are marked "CIFAR-10 (JPEG)".
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from hashzoo.errors import TroubleError
from hashzoo.types import Splits
from hashzoo_plugins.datasets.carve import Pool, Shuffle, stratified
from hashzoo_plugins.datasets.packed import Packed

JPEG = "cifar10_jpeg.npz"
QUERIES, TRAIN = 1000, 5000


def pool(root: Path | None) -> tuple[Pool, int]:
    """All 60,000 pictures, the official training pictures first, and how many these are."""
    if root is not None and (root / JPEG).is_file():
        files = Packed(root / JPEG)
        labels = torch.eye(10)[torch.from_numpy(files.extra["labels"].astype(np.int64))]
        names = tuple(str(name) for name in files.extra["classes"])
        return Pool(files, labels, names, "CIFAR-10 (JPEG)"), int(files.extra["n_train"])
    raise TroubleError(f"there is no {JPEG} in {root}; name its folder with root")


def drawn(all_of_it: Pool, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], Shuffle]:
    """100 queries and 500 training pictures a class, the 54,000 others, and what drew them."""
    shuffle = Shuffle("cifar10", seed)
    classes = all_of_it.labels.argmax(1).numpy()
    rest = len(classes) - QUERIES - TRAIN
    query, train, database = stratified(classes, [QUERIES, TRAIN, rest], shuffle)
    return train, database, query, shuffle


def disjoint(*, root: Path | None = None, seed: int = 0, validation: float = 0.0) -> Splits:
    """CIFAR-10: 1,000 queries, 5,000 to train on, the 54,000 others as the database."""
    whole, _ = pool(root)
    train, database, query, shuffle = drawn(whole, seed)
    return whole.splits(train, database, query, validation=validation, shuffle=shuffle)


def inside(*, root: Path | None = None, seed: int = 0, validation: float = 0.0) -> Splits:
    """CIFAR-10 with the training pictures inside the database of 59,000, as many papers have it (which flatters)."""
    whole, _ = pool(root)
    train, database, query, shuffle = drawn(whole, seed)
    both = shuffle.permutation(np.concatenate([database, train]))
    return whole.splits(train, both, query, validation=validation, shuffle=shuffle)


def official(*, root: Path | None = None, seed: int = 0, validation: float = 0.0) -> Splits:
    """CIFAR-10 by its own split: 10,000 test pictures ask; the 50,000 others are learned from and searched."""
    whole, first = pool(root)
    shuffle = Shuffle("cifar10", seed)
    train, query = shuffle.permutation(np.arange(first)), np.arange(first, len(whole.labels))
    return whole.splits(train, train, query, validation=validation, shuffle=shuffle)


def source(seed: int, root: Path | None) -> Splits:
    """What long-tailed and unseen parts are drawn from: the official test pictures ask."""
    return official(root=root, seed=seed)
