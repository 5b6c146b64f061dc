"""MIML scenes: 2,000 photographs of landscapes with one to three of five labels (Zhou & Zhang, NIPS 2006).

``root`` is the folder of ``miml_scenes2000.npz``, or that file: the images as ``jpeg`` and ``offsets``, multi-hot
``labels`` (2000, 5) and ``classes``. Its publishers state no license, and no official address serves the images, so
nothing is downloaded.

Cite: zhou2006miml
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch

from hashzoo import EnvironmentFailure, Splits
from hashzoo_plugins.datasets.packed import PackedImages
from hashzoo_plugins.datasets.pool import Pool, Shuffle

FILE = "miml_scenes2000.npz"
QUERIES, TRAIN = 200, 1000
SPLITS = 5


def split(number: int, *, root: Path, seed: int = 0, validation: float = 0.0) -> Splits:
    """One of the splits, drawn by its number and ``seed``: queries, training images and database are disjoint."""
    file = root / FILE if root.is_dir() else root
    if not file.is_file():
        raise EnvironmentFailure(f"{root} has no {FILE}; set root to the folder of that file")
    images = PackedImages(file)
    labels, names = images.extra.get("labels"), images.extra.get("classes")
    if labels is None or names is None or labels.shape != (len(images), len(names)):
        raise EnvironmentFailure(f"{file} has no multi-hot labels of its images and classes; give the original {FILE}")
    if len(images) <= QUERIES + TRAIN:
        raise EnvironmentFailure(f"{file} has {len(images)} images, and more than {QUERIES + TRAIN} are needed")
    pool = Pool(
        images,
        torch.from_numpy(labels.astype(np.float32)),
        tuple(str(name) for name in names),
        "MIML scenes",
        multilabel=True,
    )
    shuffle = Shuffle(f"miml {number}", seed)
    order = shuffle.permutation(np.arange(len(images)))
    query, train, database = np.split(order, [QUERIES, QUERIES + TRAIN])
    return pool.splits(train, database, query, validation=validation, shuffle=shuffle)


def protocols() -> dict[str, Callable[..., Splits]]:
    """The protocols ``miml.split1`` to ``miml.split5``."""
    found: dict[str, Callable[..., Splits]] = {}
    for number in range(1, SPLITS + 1):
        protocol = partial(split, number)
        protocol.__doc__ = (
            f"MIML scenes, several labels, split {number} of {SPLITS}: 200 queries, 1,000 training images, the 800 "
            "other images as the database."
        )
        found[f"miml.split{number}"] = protocol
    return found
