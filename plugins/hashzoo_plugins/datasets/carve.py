"""Draw the parts of a dataset: stratified, seeded, disjoint."""

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

#: The note of a protocol whose database contains the training images.
INSIDE = {"train": "inside the database"}


class Permuter(Protocol):
    """Puts rows into a random order: a NumPy generator or a :class:`Shuffle`."""

    def permutation(self, rows: Any, /) -> NDArray[np.int64]:
        """The rows in random order."""


class Shuffle:
    """Random orders from SHA-256: the same on every machine and in every version of every library.

    >>> Shuffle("digits", 0).permutation(np.arange(6)).tolist()
    [5, 4, 0, 2, 1, 3]
    """

    def __init__(self, name: str, seed: int) -> None:
        self.name, self.seed, self.calls = name, seed, 0

    def permutation(self, rows: Any) -> NDArray[np.int64]:
        """The rows (integers) in random order, a different one at each call."""
        self.calls += 1
        start = hashlib.sha256(f"{self.name} {self.seed} {self.calls}".encode())

        def key(row: int) -> bytes:
            row_hash = start.copy()
            row_hash.update(row.to_bytes(8, "little"))
            return row_hash.digest()

        return np.array(sorted(np.asarray(rows).tolist(), key=key), dtype=np.int64)


@dataclass(frozen=True)
class Pool:
    """All images of a dataset, from which protocols draw their parts. The id of an image is its row.

    Attributes:
        images: The images (N).
        labels: Labels (N, C), multi-hot.
        class_names: The names of the classes.
        source: Which files the images are, in a few words; part of every row of a leaderboard.
        multilabel: Whether images have several labels.
        pretraining: Datasets of pretrained weights that contain these images.
        names: The path of each image relative to its folder; given if the order of rows has no meaning.
    """

    images: Any  # Tensor | Sequence
    labels: Tensor
    class_names: tuple[str, ...]
    source: str
    multilabel: bool = False
    pretraining: tuple[str, ...] = ()
    names: Sequence[str] | None = None

    def part(self, rows: NDArray[np.int64]) -> Split:
        """Some images as a split."""
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
        """The parts with these rows; ``validation`` as of :func:`hold_out`."""
        data = Splits(
            train=self.part(train),
            database=self.part(database),
            query=self.part(query),
            multilabel=self.multilabel,
            class_names=self.class_names,
            pretraining=self.pretraining,
            notes=notes,
            source=self.source,
            names=self.names,
        )
        return hold_out(data, validation, shuffle)

    def disjoint(
        self, name: str, queries: int, train: int, *, seed: int, validation: float, inside: bool = False
    ) -> Splits:
        """Stratified queries and training images, drawn by ``name`` and ``seed``, for images with one label each.

        All other images are the database, and the training images too if ``inside``.
        """
        shuffle = Shuffle(name, seed)
        classes = self.labels.argmax(1).numpy()
        query_rows, train_rows, others = stratified(classes, [queries, train, len(classes) - queries - train], shuffle)
        database = shuffle.permutation(np.concatenate([others, train_rows])) if inside else others
        notes = INSIDE if inside else {}
        return self.splits(train_rows, database, query_rows, validation=validation, shuffle=shuffle, notes=notes)

    def official(self, name: str, first: int, *, seed: int, validation: float) -> Splits:
        """Training set and database are the ``first`` images, in an order drawn by ``name`` and ``seed``."""
        shuffle = Shuffle(name, seed)
        train, query = shuffle.permutation(np.arange(first)), np.arange(first, len(self.labels))
        return self.splits(train, train, query, validation=validation, shuffle=shuffle, notes=INSIDE)


def stratified(classes: NDArray[np.int64], sizes: Sequence[int], generator: Permuter) -> list[NDArray[np.int64]]:
    """Disjoint parts of ``sizes`` rows, each with the classes in proportion, in random order.

    Rounding favours the classes with the largest remainder. Raises ValueError if there are fewer rows than requested,
    or none at all.

    >>> first, second = stratified(np.array([0, 0, 1, 1]), [2, 2], np.random.default_rng(0))
    >>> sorted(np.array([0, 0, 1, 1])[first].tolist()), len(set(first) & set(second))
    ([0, 1], 0)
    """
    if not len(classes):
        raise ValueError("there are no images to draw parts from")
    if sum(sizes) > len(classes):
        raise ValueError(f"parts of {list(sizes)} images need more than the {len(classes)} images of the dataset")
    left = [generator.permutation(np.flatnonzero(classes == c)) for c in np.unique(classes)]
    parts = []
    for size in sizes:
        available = np.array([len(rows) for rows in left])
        exact = size * available / max(1, available.sum())
        counts = np.floor(exact).astype(int)
        order = np.argsort(counts - exact, kind="stable")
        counts[order[: size - counts.sum()]] += 1
        part = np.concatenate([rows[:n] for rows, n in zip(left, counts, strict=True)])
        left = [rows[n:] for rows, n in zip(left, counts, strict=True)]
        parts.append(generator.permutation(part))
    return parts


def hold_out(data: Splits, share: float, shuffle: Permuter) -> Splits:
    """The splits with a share of the training images, classes in proportion, moved to the validation part."""
    if not 0 <= share < 1:
        raise ValueError(f"validation = {share}: it is a share of the training images, at least 0 and below 1")
    count = round(share * len(data.train))
    if not count:
        return data
    classes = data.train.labels.argmax(1).numpy()
    train, validation = (torch.from_numpy(r) for r in stratified(classes, [len(classes) - count, count], shuffle))
    return replace(data, train=data.train.take(train), validation=data.train.take(validation))
