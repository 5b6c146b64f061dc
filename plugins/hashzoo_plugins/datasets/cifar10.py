"""CIFAR-10: 60,000 images of 32 x 32 pixels in ten classes (Krizhevsky, 2009), as hashing papers split it.

``root`` is a folder with the binary version of the official files (``cifar-10-binary.tar.gz``, or what it unpacks
to), or with ``cifar10_jpeg.npz``, the same images after JPEG compression, whose scores are marked "CIFAR-10 (JPEG)".
Without ``root`` the official files are downloaded.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from hashzoo import Splits
from hashzoo_plugins.datasets.carve import Pool
from hashzoo_plugins.datasets.cifar_files import CIFAR10
from hashzoo_plugins.datasets.packed import Packed

JPEG = "cifar10_jpeg.npz"
QUERIES, TRAIN = 1000, 5000
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def pool(root: Path | None) -> tuple[Pool, int]:
    """All 60,000 images, the official training images first, and how many these are."""
    if root is not None and (root / JPEG).is_file():
        files = Packed(root / JPEG)
        labels = torch.eye(10)[torch.from_numpy(files.extra["labels"].astype(np.int64))]
        names = tuple(str(name) for name in files.extra["classes"])
        return Pool(files, labels, names, "CIFAR-10 (JPEG)"), int(files.extra["n_train"])
    images, classes = CIFAR10.records(CIFAR10.content(root))
    one_hot = torch.eye(10)[torch.from_numpy(classes)]
    return Pool(images, one_hot, CLASSES, "CIFAR-10"), len(images) - CIFAR10.images["test_batch.bin"]


def disjoint(*, root: Path | None = None, seed: int = 0, validation: float = 0.0) -> Splits:
    """CIFAR-10: 1,000 queries, 5,000 to train on, the 54,000 others as the database."""
    whole, _ = pool(root)
    return whole.disjoint("cifar10", QUERIES, TRAIN, seed=seed, validation=validation)


def inside(*, root: Path | None = None, seed: int = 0, validation: float = 0.0) -> Splits:
    """CIFAR-10 with the training images inside the database of 59,000, as many papers have it (which flatters)."""
    whole, _ = pool(root)
    return whole.disjoint("cifar10", QUERIES, TRAIN, seed=seed, validation=validation, inside=True)


def official(*, root: Path | None = None, seed: int = 0, validation: float = 0.0) -> Splits:
    """CIFAR-10 by its own split: 10,000 test images ask; the 50,000 others are learned from and searched."""
    whole, first = pool(root)
    return whole.official("cifar10", first, seed=seed, validation=validation)


def source(seed: int, root: Path | None) -> Splits:
    """What long-tailed and unseen parts are drawn from: the official test images ask."""
    return official(root=root, seed=seed)
