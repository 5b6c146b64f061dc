"""The 1,797 scanned handwritten digits that come with scikit-learn: real, embedded, 8 x 8 pixels.

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
from hashzoo_plugins.datasets.carve import INSIDE, hold_out, stratified

CLASSES = tuple(str(digit) for digit in range(10))


def load() -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """All images (1797, 8, 8) uint8, grey values 0..16 stretched to 0..255, and their classes (1797,)."""
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
    """Stratified parts by seed; ``validation`` is the share of the training images that is held out."""
    images, classes = load()
    generator = np.random.default_rng(seed)
    query, train, database = stratified(classes, [sizes["query"], sizes["train"], sizes["database"]], generator)
    if inside:
        database = generator.permutation(np.concatenate([database, train]))

    def part(rows: NDArray[np.int64]) -> Split:
        return Split(
            images=torch.from_numpy(images[rows])[:, None],
            labels=torch.eye(10)[torch.from_numpy(classes[rows])],
            ids=torch.from_numpy(rows),
        )

    data = Splits(
        train=part(train),
        database=part(database),
        query=part(query),
        multilabel=False,
        class_names=CLASSES,
        notes=INSIDE if inside else {},
    )
    return hold_out(data, validation, generator)


def standard(*, seed: int = 0, validation: float = 0.0) -> Splits:
    """Digits: 297 queries, 500 to train on, 1,000 others as the database."""
    return draw({"query": 297, "train": 500, "database": 1000}, seed, validation)


def inside(*, seed: int = 0, validation: float = 0.0) -> Splits:
    """Digits with the training images inside the database, as many papers have it (which flatters)."""
    return draw({"query": 297, "train": 500, "database": 1000}, seed, validation, inside=True)


def small(*, seed: int = 0, validation: float = 0.0) -> Splits:
    """Digits, a quick part: 100 queries, 200 to train on, 400 others as the database."""
    return draw({"query": 100, "train": 200, "database": 400}, seed, validation)


def source(seed: int) -> Splits:
    """What long-tailed parts are drawn from: 297 queries, the other 1,500 to train on and as the database."""
    data = draw({"query": 297, "train": 1500, "database": 0}, seed, 0.0)
    return replace(data, database=data.train, notes=INSIDE)
