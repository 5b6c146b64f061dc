"""Long-tailed training sets of any single-label dataset: classes of exponentially falling size.

The profile of Cao et al. (LDAM, NeurIPS 2019). The queries stay balanced, and so does the database, which is the
whole training split that the long tail was drawn from: rare classes are rare to learn from, not to find.
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
from hashzoo_plugins.datasets.carve import Permuter, Shuffle, hold_out

FACTORS = (10, 50, 100)
TITLES = {"cifar10": "CIFAR-10", "imagenette": "ImageNette"}


def sizes(largest: int, factor: float, classes: int) -> list[int]:
    """Images of each class: floor(largest * factor^(-c / (C - 1))), in double precision.

    >>> sizes(5000, 100, 10)
    [5000, 2997, 1796, 1077, 645, 387, 232, 139, 83, 50]
    """
    return [math.floor(largest * factor ** (-c / max(1, classes - 1))) for c in range(classes)]


class Torch:
    """Random orders of torch's generator, by which the tails of the embedded digits were first drawn."""

    def __init__(self, seed: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)

    def permutation(self, rows: Any) -> NDArray[np.int64]:
        """The rows in random order."""
        order: NDArray[np.int64] = torch.randperm(len(rows), generator=self.generator).numpy()
        return np.asarray(rows, dtype=np.int64)[order]


def draw(data: Splits, factor: float, shuffle: Permuter, database: Literal["balanced", "longtail"]) -> Splits:
    """The splits with a long-tailed part of their training split to learn from.

    The first class is as large as the smallest class of that split. ``database`` is all of that split, or, as
    "longtail", what is learned from. ValueError where a class would be left without an image.
    """
    if data.multilabel:
        raise ValueError("a long tail is drawn of images with one label each; this dataset has several")
    classes = data.train.labels.argmax(1)
    counts = torch.bincount(classes, minlength=data.train.labels.shape[1])
    wanted = sizes(int(counts.min()), factor, len(counts))
    if min(wanted) < 1:
        raise ValueError(
            f"an imbalance of {factor:g} leaves classes without an image: the smallest class has {int(counts.min())}"
        )
    own = [np.flatnonzero(classes.numpy() == c) for c in range(len(wanted))]
    rows = np.concatenate([shuffle.permutation(those)[:size] for those, size in zip(own, wanted, strict=True)])
    train = data.train.take(torch.from_numpy(shuffle.permutation(rows)))
    kept = data.train if database == "balanced" else train
    notes = {"long tail": f"classes of {', '.join(map(str, wanted))} images", "database": database}
    return replace(data, train=train, database=kept, notes={**data.notes, **notes})


def protocols(
    name: str, source: Callable[[int], Splits] | None = None, files: Callable[[int, Path | None], Splits] | None = None
) -> dict[str, Callable[..., Splits]]:
    """``NAME.lt10``, ``NAME.lt50`` and ``NAME.lt100`` of splits by seed, whose training split is what is sampled.

    They are a ``source``, or ``files`` that lie in a folder ``root``.
    """

    def longtail(factor: int, *, seed: int = 0, database: Literal["balanced", "longtail"] = "balanced") -> Splits:
        assert source is not None  # noqa: S101 # nosec B101 # one of the two is given
        return draw(source(seed), factor, Torch(seed), database)

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

    made: dict[str, Callable[..., Splits]] = {}
    for factor in FACTORS:
        one = partial(longtail if files is None else of_files, factor)
        title = TITLES.get(name, name.capitalize())
        one.__doc__ = f"{title}, long-tailed: the largest class has {factor} times the images of the smallest."
        made[f"{name}.lt{factor}"] = one
    return made
