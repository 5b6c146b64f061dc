"""CIFAR-10: 60,000 images of 32 x 32 pixels in ten classes (Krizhevsky, 2009), with the splits of hashing papers.

``root`` is a folder with the binary version of the official files (``cifar-10-binary.tar.gz``, or its content), or with
``cifar10_jpeg.npz``, the same images after JPEG compression; rows measured on these are marked "CIFAR-10 (JPEG)".
Without ``root`` the official files are downloaded.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from hashzoo import Splits
from hashzoo_plugins.datasets.cifar_files import CIFAR10
from hashzoo_plugins.datasets.packed import PackedImages
from hashzoo_plugins.datasets.pool import Pool

JPEG = "cifar10_jpeg.npz"
QUERIES, TRAIN = 1000, 5000
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def pool(root: Path | None) -> tuple[Pool, int]:
    """All 60,000 images, the official training images first, and the number of training images."""
    if root is not None and (root / JPEG).is_file():
        files = PackedImages(root / JPEG)
        labels = torch.eye(10)[torch.from_numpy(files.extra["labels"].astype(np.int64))]
        names = tuple(str(name) for name in files.extra["classes"])
        return Pool(files, labels, names, "CIFAR-10 (JPEG)"), int(files.extra["n_train"])
    images, classes = CIFAR10.parse(CIFAR10.read_files(root))
    one_hot = torch.eye(10)[torch.from_numpy(classes)]
    return Pool(images, one_hot, CLASSES, "CIFAR-10"), len(images) - CIFAR10.images["test_batch.bin"]


def disjoint(*, root: Path | None = None, seed: int = 0, validation: float = 0.0) -> Splits:
    """CIFAR-10: 1,000 queries, 5,000 training images, the 54,000 other images as the database."""
    whole, _ = pool(root)
    return whole.disjoint_splits("cifar10", QUERIES, TRAIN, seed=seed, validation=validation)


def inside(*, root: Path | None = None, seed: int = 0, validation: float = 0.0) -> Splits:
    """CIFAR-10, training images inside the database of 59,000, as in many papers; this favors memorization."""
    whole, _ = pool(root)
    return whole.disjoint_splits("cifar10", QUERIES, TRAIN, seed=seed, validation=validation, inside=True)


def official(*, root: Path | None = None, seed: int = 0, validation: float = 0.0) -> Splits:
    """CIFAR-10, official split: 10,000 test images as queries; the 50,000 training images are the database."""
    whole, first = pool(root)
    return whole.official_splits("cifar10", first, seed=seed, validation=validation)


def base_splits(seed: int, root: Path | None) -> Splits:
    """The basis of long-tailed and unseen protocols: the official split."""
    return official(root=root, seed=seed)
