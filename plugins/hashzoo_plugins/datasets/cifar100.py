"""CIFAR-100: 60,000 images of 32 x 32 pixels in a hundred classes (Krizhevsky, 2009), with the fine labels.

``root`` is a folder with the binary version of the official files (``cifar-100-binary.tar.gz``, or its content);
without it they are downloaded. The splits have the sizes of those of CIFAR-10 in hashing papers.
"""

from __future__ import annotations

from pathlib import Path

import torch

from hashzoo import EnvironmentFailure, Splits
from hashzoo_plugins.datasets.cifar_files import CIFAR100
from hashzoo_plugins.datasets.pool import Pool

QUERIES, TRAIN = 1000, 5000
NAMES = "fine_label_names.txt"


def pool(root: Path | None) -> tuple[Pool, int]:
    """All 60,000 images, the official training images first, and the number of training images."""
    content = CIFAR100.read_files(root, [NAMES])
    images, classes = CIFAR100.parse(content)
    names = tuple(content[NAMES].decode("ascii", "replace").split())
    if len(names) != 100:
        raise EnvironmentFailure(
            f"{NAMES} of {CIFAR100.folder} has {len(names)} names, expected 100; download it again"
        )
    one_hot = torch.eye(100)[torch.from_numpy(classes)]
    return Pool(images, one_hot, names, "CIFAR-100"), CIFAR100.images["train.bin"]


def disjoint(*, root: Path | None = None, seed: int = 0, validation: float = 0.0) -> Splits:
    """CIFAR-100: 1,000 queries, 5,000 training images (10 and 50 per class), the 54,000 others as the database."""
    whole, _ = pool(root)
    return whole.disjoint_splits("cifar100", QUERIES, TRAIN, seed=seed, validation=validation)


def official(*, root: Path | None = None, seed: int = 0, validation: float = 0.0) -> Splits:
    """CIFAR-100, official split: 10,000 test images as queries; the 50,000 training images are the database."""
    whole, first = pool(root)
    return whole.official_splits("cifar100", first, seed=seed, validation=validation)
