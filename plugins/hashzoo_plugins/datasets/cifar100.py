"""CIFAR-100: 60,000 images of 32 x 32 pixels in a hundred classes (Krizhevsky, 2009), labels as fine as they come.

``root`` is a folder with the binary version of the official files (``cifar-100-binary.tar.gz``, or what it unpacks
to); without it they are downloaded. The parts are of the size that hashing papers give CIFAR-10.
"""

from __future__ import annotations

from pathlib import Path

import torch

from hashzoo import EnvironmentFailure, Splits
from hashzoo_plugins.datasets.carve import Pool
from hashzoo_plugins.datasets.cifar_files import CIFAR100

QUERIES, TRAIN = 1000, 5000
NAMES = "fine_label_names.txt"


def pool(root: Path | None) -> tuple[Pool, int]:
    """All 60,000 images, the official training images first, and how many these are."""
    content = CIFAR100.content(root, [NAMES])
    images, classes = CIFAR100.records(content)
    names = tuple(content[NAMES].decode("ascii", "replace").split())
    if len(names) != 100:
        raise EnvironmentFailure(f"{NAMES} of {CIFAR100.folder} has {len(names)} names, expected 100; get it anew")
    one_hot = torch.eye(100)[torch.from_numpy(classes)]
    return Pool(images, one_hot, names, "CIFAR-100"), CIFAR100.images["train.bin"]


def disjoint(*, root: Path | None = None, seed: int = 0, validation: float = 0.0) -> Splits:
    """CIFAR-100: 1,000 queries, 5,000 to train on (10 and 50 a class), the 54,000 others as the database."""
    whole, _ = pool(root)
    return whole.disjoint("cifar100", QUERIES, TRAIN, seed=seed, validation=validation)


def official(*, root: Path | None = None, seed: int = 0, validation: float = 0.0) -> Splits:
    """CIFAR-100 by its own split: 10,000 test images ask; the 50,000 others are learned from and searched."""
    whole, first = pool(root)
    return whole.official("cifar100", first, seed=seed, validation=validation)
