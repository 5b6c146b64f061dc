"""Long-tailed training sets of any single-label dataset, with exponentially decreasing class sizes.

The class sizes follow Cao et al. (LDAM, NeurIPS 2019). The queries are balanced, and so is the database, which is the
whole training split that the long tail is drawn from: rare classes are rare in training only.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from hashzoo import Splits
from hashzoo_plugins.datasets.pool import Permuter, Shuffle, hold_out

FACTORS = (10, 50, 100)
TITLES = {"cifar10": "CIFAR-10", "imagenette": "ImageNette"}


def class_sizes(largest: int, factor: float, classes: int) -> list[int]:
    """The number of images of each class: floor(largest * factor^(-c / (C - 1))), in double precision.

    >>> class_sizes(5000, 100, 10)
    [5000, 2997, 1796, 1077, 645, 387, 232, 139, 83, 50]
    """
    return [math.floor(largest * factor ** (-c / max(1, classes - 1))) for c in range(classes)]


class TorchShuffle:
    """Random permutations by a generator of torch, with which the long tails of the digits were first drawn."""

    def __init__(self, seed: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)

    def permutation(self, rows: Any) -> NDArray[np.int64]:
        """The rows in random order."""
        order: NDArray[np.int64] = torch.randperm(len(rows), generator=self.generator).numpy()
        return np.asarray(rows, dtype=np.int64)[order]


def draw(data: Splits, factor: float, shuffle: Permuter, database: Literal["balanced", "longtail"]) -> Splits:
    """The splits with a long-tailed part of their training split as the training split.

    Args:
        data: Splits of a single-label dataset.
        factor: The imbalance, the size of the largest class divided by that of the smallest. The largest class has as
            many images as the smallest class of ``data.train``.
        shuffle: The source of randomness.
        database: "balanced" for all of ``data.train``, "longtail" for the long-tailed training images.

    Raises:
        ValueError: If a class would have no images.
    """
    if data.multilabel:
        raise ValueError("a long tail needs images with one label each; this dataset has several labels per image")
    classes = data.train.labels.argmax(1)
    counts = torch.bincount(classes, minlength=data.train.labels.shape[1])
    sizes = class_sizes(int(counts.min()), factor, len(counts))
    if min(sizes) < 1:
        raise ValueError(
            f"an imbalance of {factor:g} leaves classes without an image: the smallest class has {int(counts.min())}"
        )
    by_class = [np.flatnonzero(classes.numpy() == c) for c in range(len(sizes))]
    rows = np.concatenate([shuffle.permutation(own)[:size] for own, size in zip(by_class, sizes, strict=True)])
    train = data.train.take(torch.from_numpy(shuffle.permutation(rows)))
    notes = {"long tail": f"classes of {', '.join(map(str, sizes))} images", "database": database}
    return replace(
        data,
        train=train,
        database=data.train if database == "balanced" else train,
        notes={**data.notes, **notes},
    )


def protocols(
    name: str,
    embedded: Callable[[int], Splits] | None = None,
    files: Callable[[int, Path | None], Splits] | None = None,
) -> dict[str, Callable[..., Splits]]:
    """The protocols ``NAME.lt10``, ``NAME.lt50`` and ``NAME.lt100``, whose training split is sampled.

    Args:
        name: The name of the dataset.
        embedded: The splits of a dataset without files, by seed.
        files: The splits of a dataset in a folder, by seed and root; exactly one of the two is given.
    """

    def of_embedded(factor: int, *, seed: int = 0, database: Literal["balanced", "longtail"] = "balanced") -> Splits:
        assert embedded is not None  # noqa: S101 # nosec B101 # one of the two is given
        return draw(embedded(seed), factor, TorchShuffle(seed), database)

    def of_files(
        factor: int,
        *,
        root: Path | None = None,
        seed: int = 0,
        database: Literal["balanced", "longtail"] = "balanced",
        validation: float = 0.0,
    ) -> Splits:
        assert files is not None  # noqa: S101 # nosec B101 # one of the two is given
        shuffle = Shuffle(f"{name} lt{factor}", seed)
        return hold_out(draw(files(seed, root), factor, shuffle, database), validation, shuffle)

    found: dict[str, Callable[..., Splits]] = {}
    for factor in FACTORS:
        protocol = partial(of_embedded if files is None else of_files, factor)
        title = TITLES.get(name, name.capitalize())
        protocol.__doc__ = f"{title}, long-tailed: the largest class has {factor} times the images of the smallest."
        found[f"{name}.lt{factor}"] = protocol
    return found
