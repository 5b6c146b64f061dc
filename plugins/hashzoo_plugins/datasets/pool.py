"""Draw the splits of a dataset: stratified, seeded and without overlap."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hashzoo import Split, Splits

#: The note of a protocol whose training images are in the database.
TRAIN_IN_DATABASE = {"train": "inside the database"}


class Permuter(Protocol):
    """A source of random permutations: a NumPy generator, or a :class:`Shuffle`."""

    def permutation(self, rows: Any, /) -> NDArray[np.int64]:
        """The rows in random order."""


class Shuffle:
    """Random permutations computed by SHA-256, which are the same on every machine and with all library versions.

    >>> Shuffle("digits", 0).permutation(np.arange(6)).tolist()
    [5, 4, 0, 2, 1, 3]
    """

    def __init__(self, name: str, seed: int) -> None:
        self.name, self.seed, self.calls = name, seed, 0

    def permutation(self, rows: Any) -> NDArray[np.int64]:
        """The rows, integers, in random order; each call gives another order."""
        self.calls += 1
        start = hashlib.sha256(f"{self.name} {self.seed} {self.calls}".encode())

        def sort_key(row: int) -> bytes:
            digest = start.copy()
            digest.update(row.to_bytes(8, "little"))
            return digest.digest()

        return np.array(sorted(np.asarray(rows).tolist(), key=sort_key), dtype=np.int64)


@dataclass(frozen=True)
class Pool:
    """All images of a dataset, from which protocols draw splits. The id of an image is its row.

    Args:
        images: N images, a uint8 tensor or a sequence, as in :class:`hashzoo.Split`.
        labels: (N, C) multi-hot labels.
        class_names: The names of the C classes.
        source: A short description of the files, which is shown in every row of a board.
        multilabel: Whether images can have several labels.
        pretraining: Names of datasets for pretrained weights that contain these images.
        names: The path of each image below its folder, if the order of the rows has no meaning of its own.
    """

    images: Any  # Tensor | Sequence
    labels: Tensor
    class_names: tuple[str, ...]
    source: str
    multilabel: bool = False
    pretraining: tuple[str, ...] = ()
    names: Sequence[str] | None = None

    def split(self, rows: NDArray[np.int64]) -> Split:
        """The images in these rows."""
        chosen = torch.from_numpy(np.asarray(rows, dtype=np.int64))
        return Split(self.images, self.labels, torch.arange(len(self.labels))).take(chosen)

    def splits(
        self,
        train: NDArray[np.int64],
        database: NDArray[np.int64],
        query: NDArray[np.int64],
        *,
        validation: float = 0.0,
        shuffle: Permuter,
        notes: Mapping[str, str] = {},
    ) -> Splits:
        """The splits with these rows. ``validation`` is the fraction of the training images that is held out."""
        data = Splits(
            train=self.split(train),
            database=self.split(database),
            query=self.split(query),
            multilabel=self.multilabel,
            class_names=self.class_names,
            pretraining=self.pretraining,
            notes=notes,
            source=self.source,
            names=self.names,
        )
        return hold_out(data, validation, shuffle)

    def disjoint_splits(
        self, name: str, queries: int, train: int, *, seed: int, validation: float, inside: bool = False
    ) -> Splits:
        """Stratified queries and training images; all other images are the database.

        With ``inside`` the database contains the training images too. The draw depends on ``name`` and ``seed``.
        Single-label datasets only.
        """
        shuffle = Shuffle(name, seed)
        classes = self.labels.argmax(1).numpy()
        query_rows, train_rows, others = stratify(classes, [queries, train, len(classes) - queries - train], shuffle)
        database = shuffle.permutation(np.concatenate([others, train_rows])) if inside else others
        notes = TRAIN_IN_DATABASE if inside else {}
        return self.splits(train_rows, database, query_rows, validation=validation, shuffle=shuffle, notes=notes)

    def official_splits(self, name: str, first: int, *, seed: int, validation: float) -> Splits:
        """The ``first`` images are both training set and database, in an order drawn by name and seed; others query."""
        shuffle = Shuffle(name, seed)
        train, query = shuffle.permutation(np.arange(first)), np.arange(first, len(self.labels))
        return self.splits(train, train, query, validation=validation, shuffle=shuffle, notes=TRAIN_IN_DATABASE)


def stratify(classes: NDArray[np.int64], sizes: Sequence[int], permuter: Permuter) -> list[NDArray[np.int64]]:
    """Draw disjoint parts of ``sizes`` rows, each with the classes in proportion, rows in random order.

    Remainders of the proportion go to the classes with the largest fractions.

    Raises:
        ValueError: If there are fewer rows than the parts need, or no rows.

    >>> first, second = stratify(np.array([0, 0, 1, 1]), [2, 2], np.random.default_rng(0))
    >>> sorted(np.array([0, 0, 1, 1])[first].tolist()), len(set(first) & set(second))
    ([0, 1], 0)
    """
    if not len(classes):
        raise ValueError("there are no images to draw from")
    if sum(sizes) > len(classes):
        raise ValueError(f"parts of {list(sizes)} images need more than the {len(classes)} images of the dataset")
    left = [permuter.permutation(np.flatnonzero(classes == c)) for c in np.unique(classes)]
    parts = []
    for size in sizes:
        available = np.array([len(rows) for rows in left])
        exact = size * available / max(1, available.sum())
        take = np.floor(exact).astype(int)
        order = np.argsort(take - exact, kind="stable")
        take[order[: size - take.sum()]] += 1
        part = np.concatenate([rows[:n] for rows, n in zip(left, take, strict=True)])
        left = [rows[n:] for rows, n in zip(left, take, strict=True)]
        parts.append(permuter.permutation(part))
    return parts


def hold_out(data: Splits, fraction: float, permuter: Permuter) -> Splits:
    """Move a fraction of the training images, with the classes in proportion, to the validation split.

    Args:
        data: The splits.
        fraction: 0 to below 1; 0 changes nothing.
        permuter: The source of randomness.
    """
    if not 0 <= fraction < 1:
        raise ValueError(f"validation = {fraction}: it must be a fraction of the training images, 0 to below 1")
    count = round(fraction * len(data.train))
    if not count:
        return data
    classes = data.train.labels.argmax(1).numpy() if data.labelled else np.zeros(len(data.train), np.int64)
    train, validation = (torch.from_numpy(r) for r in stratify(classes, [len(classes) - count, count], permuter))
    return replace(data, train=data.train.take(train), validation=data.train.take(validation))
