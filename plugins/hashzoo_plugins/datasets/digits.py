"""The 1,797 scanned handwritten digits of scikit-learn, 8 x 8 pixels; they need no download.

Source: E. Alpaydin & C. Kaynak, Optical Recognition of Handwritten Digits, UCI 1998 (its test part).
"""

from __future__ import annotations

import gzip
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from hashzoo import Split, Splits
from hashzoo_plugins.datasets.pool import TRAIN_IN_DATABASE, hold_out, stratify

CLASSES = tuple(str(digit) for digit in range(10))


def load() -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """All images (1797, 8, 8) uint8, gray values 0..16 scaled to 0..255, and their classes (1797,)."""
    spec = find_spec("sklearn")
    file = Path(spec.origin if spec and spec.origin else "").parent / "datasets" / "data" / "digits.csv.gz"
    if file.is_file():  # importing scikit-learn takes seconds, which a resumed benchmark would spend again
        with gzip.open(file, "rt") as rows:
            table = np.loadtxt(rows, delimiter=",")
        images, classes = table[:, :-1], table[:, -1]
    else:
        from sklearn.datasets import load_digits

        images, classes = load_digits(return_X_y=True)
    return (images.reshape(-1, 8, 8) * (255 / 16)).round().astype(np.uint8), classes.astype(np.int64)


def draw(sizes: dict[str, int], seed: int, validation: float, inside: bool = False) -> Splits:
    """Stratified splits by seed; ``validation`` is the fraction of the training images that is held out."""
    images, classes = load()
    generator = np.random.default_rng(seed)
    query, train, database = stratify(classes, [sizes["query"], sizes["train"], sizes["database"]], generator)
    if inside:
        database = generator.permutation(np.concatenate([database, train]))

    def split(rows: NDArray[np.int64]) -> Split:
        return Split(
            images=torch.from_numpy(images[rows])[:, None],
            labels=torch.eye(10)[torch.from_numpy(classes[rows])],
            ids=torch.from_numpy(rows),
        )

    data = Splits(
        train=split(train),
        database=split(database),
        query=split(query),
        multilabel=False,
        class_names=CLASSES,
        notes=TRAIN_IN_DATABASE if inside else {},
    )
    return hold_out(data, validation, generator)


def standard(*, seed: int = 0, validation: float = 0.0) -> Splits:
    """Digits: 297 queries, 500 training images, 1,000 other images as the database."""
    return draw({"query": 297, "train": 500, "database": 1000}, seed, validation)


def inside(*, seed: int = 0, validation: float = 0.0) -> Splits:
    """Digits with the training images inside the database, as in many papers; this favors memorization."""
    return draw({"query": 297, "train": 500, "database": 1000}, seed, validation, inside=True)


def small(*, seed: int = 0, validation: float = 0.0) -> Splits:
    """Digits, a small part for quick runs: 100 queries, 200 training images, 400 other images as the database."""
    return draw({"query": 100, "train": 200, "database": 400}, seed, validation)


def base_splits(seed: int) -> Splits:
    """The basis of long-tailed and unseen protocols: 297 queries, 1,500 images as training set and database."""
    data = draw({"query": 297, "train": 1500, "database": 0}, seed, 0.0)
    return replace(data, database=data.train, notes=TRAIN_IN_DATABASE)
