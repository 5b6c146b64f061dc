"""Drawing the parts of a dataset: stratified, seeded, without overlap."""

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

#: The note of a protocol whose training images are searched as well.
INSIDE = {"train": "inside the database"}


class Permuting(Protocol):
    """What can put rows into a random order: a NumPy generator, or a Shuffle."""

    def permutation(self, rows: Any, /) -> NDArray[np.int64]:
        """The rows in random order."""


class Shuffle:
    """Random orders made of SHA-256 alone: the same on every machine and in every version of every library.

    >>> Shuffle("digits", 0).permutation(np.arange(6)).tolist()
    [5, 4, 0, 2, 1, 3]
    """

    def __init__(self, name: str, seed: int) -> None:
        self.name, self.seed, self.turn = name, seed, 0

    def permutation(self, rows: Any) -> NDArray[np.int64]:
        """The rows, whole numbers, in random order; another one at each call."""
        self.turn += 1
        start = hashlib.sha256(f"{self.name} {self.seed} {self.turn}".encode())

        def lot(row: int) -> bytes:
            one = start.copy()
            one.update(row.to_bytes(8, "little"))
            return one.digest()

        return np.array(sorted(np.asarray(rows).tolist(), key=lot), dtype=np.int64)


@dataclass(frozen=True)
class Pool:
    """All images of a dataset, of which protocols take their parts. The id of an image is its row.

    ``source`` says in a few words which files these are, for every row of a board. ``names`` (N) are given where rows
    are in no order of their own: the paths of the images below their folder.
    """

    images: Any  # Tensor | Sequence
    labels: Tensor  # (N, C)
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
        shuffle: Permuting,
        notes: Mapping[str, str] = {},
    ) -> Splits:
        """The parts by row. ``validation`` is the share of train that is carved out of it, classes in proportion."""
        if not 0 <= validation < 1:
            raise ValueError(f"validation is a share of train, 0 to below 1, not {validation}")
        held = round(validation * len(train))
        carved = None
        if held:
            order = self.labels[torch.from_numpy(train)].argmax(1).numpy()
            kept, out = stratified(order, [len(train) - held, held], shuffle)
            train, carved = train[kept], train[out]
        return Splits(
            train=self.part(train),
            database=self.part(database),
            query=self.part(query),
            multilabel=self.multilabel,
            class_names=self.class_names,
            validation=None if carved is None else self.part(carved),
            pretraining=self.pretraining,
            notes=notes,
            source=self.source,
            names=self.names,
        )

    def disjoint(
        self, name: str, queries: int, train: int, *, seed: int, validation: float, inside: bool = False
    ) -> Splits:
        """Stratified queries and training images; all others are the database, with the training ones if ``inside``.

        ``name`` and ``seed`` say which; single labels only.
        """
        shuffle = Shuffle(name, seed)
        classes = self.labels.argmax(1).numpy()
        asking, learned, others = stratified(classes, [queries, train, len(classes) - queries - train], shuffle)
        database = shuffle.permutation(np.concatenate([others, learned])) if inside else others
        notes = INSIDE if inside else {}
        return self.splits(learned, database, asking, validation=validation, shuffle=shuffle, notes=notes)

    def official(self, name: str, first: int, *, seed: int, validation: float) -> Splits:
        """The first images are learned from and searched, their order drawn by ``name`` and ``seed``; others ask."""
        shuffle = Shuffle(name, seed)
        train, query = shuffle.permutation(np.arange(first)), np.arange(first, len(self.labels))
        return self.splits(train, train, query, validation=validation, shuffle=shuffle, notes=INSIDE)


def stratified(classes: NDArray[np.int64], sizes: Sequence[int], generator: Permuting) -> list[NDArray[np.int64]]:
    """Disjoint parts of ``sizes`` rows, each with the classes in proportion, rows in random order.

    Remainders of the proportion go to the classes with the largest fraction. ValueError where the parts ask for
    more rows than there are, or there are none.

    >>> first, second = stratified(np.array([0, 0, 1, 1]), [2, 2], np.random.default_rng(0))
    >>> sorted(np.array([0, 0, 1, 1])[first].tolist()), len(set(first) & set(second))
    ([0, 1], 0)
    """
    if not len(classes):
        raise ValueError("there are no images to take parts of")
    if sum(sizes) > len(classes):
        raise ValueError(f"parts of {list(sizes)} rows ask for more than the {len(classes)} there are")
    left = [generator.permutation(np.flatnonzero(classes == c)) for c in np.unique(classes)]
    parts = []
    for size in sizes:
        room = np.array([len(rows) for rows in left])
        exact = size * room / max(1, room.sum())
        take = np.floor(exact).astype(int)
        order = np.argsort(take - exact, kind="stable")
        take[order[: size - take.sum()]] += 1
        part = np.concatenate([rows[:n] for rows, n in zip(left, take, strict=True)])
        left = [rows[n:] for rows, n in zip(left, take, strict=True)]
        parts.append(generator.permutation(part))
    return parts


def held_out(data: Splits, share: float, shuffle: Permuting) -> Splits:
    """The splits with a share of their training images, classes in proportion, as validation images instead."""
    if not 0 <= share < 1:
        raise ValueError(f"validation is a share of train, 0 to below 1, not {share}")
    held = round(share * len(data.train))
    if not held:
        return data
    classes = data.train.labels.argmax(1).numpy()
    kept, out = (torch.from_numpy(rows) for rows in stratified(classes, [len(classes) - held, held], shuffle))
    return replace(data, train=data.train.take(kept), validation=data.train.take(out))
