"""Training images held out for a study: a part of the training set queries the rest, and nothing else is used."""

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

_NAME = re.compile(r"(?P<dataset>[^@]+)@(?:fold(?P<fold>\d+)of(?P<folds>\d+)|held(?P<percent>[\d.]+))\.(?P<seed>\d+)\Z")


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
        ('@fold1of3.0', '@held20.7')
        """
        part = f"fold{self.fold}of{self.folds}" if self.folds else f"held{self.fraction * 100:g}"
        return f"@{part}.{self.seed}"

    def apply(self, data: Splits) -> Splits:
        """The training set without the held-out images as training set and database, and these images as queries.

        Classes are held out in proportion. The queries and the database of ``data`` are not in the result. UsageError
        if one of the two parts would be empty.
        """
        classes = data.train.labels.argmax(1).numpy() if data.labelled else np.zeros(len(data.train), np.int64)
        out = self._among(classes)
        if not out.any() or out.all():
            raise UsageError(f"{len(data.train)} training images are too few to hold out {self.suffix[1:]}; use others")
        kept, held = (torch.from_numpy(np.flatnonzero(rows)) for rows in (~out, out))
        train = data.train.take(kept)
        return replace(data, train=train, database=train, query=data.train.take(held), pairs=None)

    def _among(self, classes: NDArray[np.int64]) -> NDArray[np.bool_]:
        """(N,) which images are held out."""
        text = f"held out {self.folds or self.fraction} {self.seed} {len(classes)}"
        permuter = np.random.default_rng(int(sha256(text.encode())[:16], 16))
        order = permuter.permutation(len(classes))
        order = order[np.argsort(classes[order], kind="stable")]  # by class, random within
        place = np.empty(len(classes), np.int64)
        place[order] = np.arange(len(classes))
        if self.folds:
            return np.asarray(place % self.folds == self.fold - 1)
        steps = np.floor((place + 1) * self.fraction + 1e-9) - np.floor(place * self.fraction + 1e-9)
        return np.asarray(steps > 0)


def parse(name: str) -> tuple[str, HeldOut | None]:
    """The dataset that a name stands for, and what is held out of its training set; None for a plain name.

    >>> parse("digits.small@fold2of3.0")
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
        return f"Training images, of which {self.held_out.suffix[1:]} query the others"

    def __call__(self, **options: Any) -> Splits:
        """The splits, without the queries and the database of the dataset."""
        return self.held_out.apply(self.factory(**options))
