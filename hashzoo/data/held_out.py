"""Training images held out for a study: one half of them searches the other, and methods learn from the rest.

A database of images that a method has learned from would reward codes that repeat their labels; a database is new to
the method, as on a test split.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from hashzoo.errors import UsageError
from hashzoo.storage.files import sha256
from hashzoo.types import Splits

_NAME = re.compile(
    r"(?P<dataset>[^@]+)@validation(?:(?P<fold>\d+)of(?P<folds>\d+)|(?P<percent>[\d.]+))\.(?P<seed>\d+)\Z"
)


@dataclass(frozen=True)
class HeldOut:
    """Which training images are held out.

    Attributes:
        folds: Number of folds, of which one is held out; 0 for a fraction of the training set.
        fold: The number of the fold, from 1; 0 for a fraction.
        fraction: The fraction that is held out; 0 for a fold.
        seed: Seed of the draw.
    """

    folds: int = 0
    fold: int = 0
    fraction: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.folds:
            if self.folds < 2 or not 1 <= self.fold <= self.folds:
                raise UsageError(f"there is no fold {self.fold} of {self.folds}; use 2 folds or more")
        elif not 0 < self.fraction < 1:
            raise UsageError(f"the held-out fraction must be above 0 and below 1, not {self.fraction:g}")

    @property
    def suffix(self) -> str:
        """What the name of a dataset ends with if these images are held out.

        >>> HeldOut(3, 1).suffix, HeldOut(fraction=0.2, seed=7).suffix
        ('@validation1of3.0', '@validation20.7')
        """
        part = f"{self.fold}of{self.folds}" if self.folds else f"{self.fraction * 100:g}"
        return f"@validation{part}.{self.seed}"

    def apply(self, data: Splits) -> Splits:
        """The training set without the held-out images; of these, one half as queries and the other as database.

        Classes are shared out in proportion. The queries and the database of ``data`` are not in the result. UsageError
        if one of the three parts would be empty.
        """
        classes = data.train.labels.argmax(1).numpy() if data.labelled else np.zeros(len(data.train), np.int64)
        place = self._places(classes)
        out = self._among(place)
        held = np.flatnonzero(out)[np.argsort(place[out])]  # by class, so that every second one is half of each
        parts = [np.flatnonzero(~out), np.sort(held[::2]), np.sort(held[1::2])]
        if not all(map(len, parts)):
            raise UsageError(f"{len(data.train)} training images are too few to hold out {self.suffix[1:]}; use others")
        train, query, database = (data.train.take(torch.from_numpy(rows)) for rows in parts)
        return replace(data, train=train, database=database, query=query, pairs=None)

    def _places(self, classes: NDArray[np.int64]) -> NDArray[np.int64]:
        """(N,) the place of each image in an order by class, random within a class."""
        text = f"held out {self.folds or self.fraction} {self.seed} {len(classes)}"
        permuter = np.random.default_rng(int(sha256(text.encode())[:16], 16))
        order = permuter.permutation(len(classes))
        order = order[np.argsort(classes[order], kind="stable")]
        place = np.empty(len(classes), np.int64)
        place[order] = np.arange(len(classes))
        return place

    def _among(self, place: NDArray[np.int64]) -> NDArray[np.bool_]:
        """(N,) which images are held out."""
        if self.folds:
            return np.asarray(place % self.folds == self.fold - 1)
        steps = np.floor((place + 1) * self.fraction + 1e-9) - np.floor(place * self.fraction + 1e-9)
        return np.asarray(steps > 0)


def parse(name: str) -> tuple[str, HeldOut | None]:
    """The dataset that a name stands for, and what is held out of its training set; None for a plain name.

    >>> parse("digits.small@validation2of3.0")
    ('digits.small', HeldOut(folds=3, fold=2, fraction=0.0, seed=0))
    >>> parse("digits.small")
    ('digits.small', None)
    """
    found = _NAME.match(name)
    if not found:
        return name, None
    fraction = float(f"{float(found['percent'] or 0) / 100:.10g}")
    return found["dataset"], HeldOut(int(found["folds"] or 0), int(found["fold"] or 0), fraction, int(found["seed"]))


@dataclass(frozen=True)
class HeldOutDataset:
    """The factory of a dataset, of whose training set some images are held out."""

    factory: Callable[..., Splits]
    held_out: HeldOut

    @property
    def doc(self) -> str:
        """The description in one line."""
        return f"Training images, of which {self.held_out.suffix[1:]} are queries and database"

    def __call__(self, **options: Any) -> Splits:
        """The splits, without the queries and the database of the dataset."""
        return self.held_out.apply(self.factory(**options))
