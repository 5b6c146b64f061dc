"""Drawing the parts of a data set: stratified, seeded, without overlap."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def stratified(
    classes: NDArray[np.int64], sizes: Sequence[int], generator: np.random.Generator
) -> list[NDArray[np.int64]]:
    """Disjoint parts of ``sizes`` rows, each with the classes in proportion, rows in random order.

    Remainders of the proportion go to the classes with the largest fraction. ValueError where the parts ask for
    more rows than there are.

    >>> first, second = stratified(np.array([0, 0, 1, 1]), [2, 2], np.random.default_rng(0))
    >>> sorted(np.array([0, 0, 1, 1])[first].tolist()), len(set(first) & set(second))
    ([0, 1], 0)
    """
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
