"""Binary class centers whose smallest distance reaches the Gilbert-Varshamov bound (Wang, Pan, Liu, Lai, Yin & Liu,
CVPR 2023).

    d = smallest d with  sum_{j < d} binomial(K, j) >= 2^K / C
    centers: any two of the C rows of -1 and 1 differ in d bits or more

Resolved: the paper solves a binary program for one center after another. Here random vectors are drawn, and each one
that lies at least d from all previous ones is kept; the authors' d is one more than the bound guarantees, and for the
numbers of classes and bits of the paper it is reached after a few thousand draws at most. If it is not, d is lowered by
one. Rows of a Hadamard matrix are taken instead where there are enough of them and their distance K / 2 is at least d,
as in the authors' start. Single bits are then flipped as long as the mean distance rises and the smallest does not
fall.

Cite: wang2023mdsh
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from hashzoo_plugins.pointwise import centers as plain
from hashzoo_plugins.pointwise.centers import hadamard_rows, random_rows

BLOCK, BLOCKS = 1000, 100  # random vectors drawn at a time, and how often before the distance is lowered
SWEEPS = 10  # passes of bit flips

Kind = Literal["hadamard", "random", "separated", "auto", "mds"]


def centers(kind: Kind, classes: int, bits: int) -> Tensor:
    """(C, K) centers of -1 and 1 of a kind of :mod:`hashzoo_plugins.pointwise.centers`, or of this module ("mds")."""
    return distant_rows(classes, bits) if kind == "mds" else plain.centers(kind, classes, bits)


def distance_bound(classes: int, bits: int) -> int:
    """The smallest d with sum_{j < d} binomial(K, j) >= 2^K / C.

    >>> [distance_bound(100, bits) for bits in (16, 32, 64, 128)]
    [4, 10, 24, 52]
    """
    distance = volume = 0
    while volume * classes < 2**bits:
        volume += math.comb(bits, distance)
        distance += 1
    return distance


def smallest_distance(rows: Tensor) -> int:
    """The smallest Hamming distance of two rows (C, K) of -1 and 1; K for a single row.

    >>> smallest_distance(torch.tensor([[1.0, 1, 1], [1, -1, -1], [-1, -1, -1]]))
    1
    """
    bits = rows.shape[1]
    return min((int(distances(rows[i + 1 :], rows[i]).min()) for i in range(len(rows) - 1)), default=bits)


def distances(rows: Tensor, row: Tensor) -> Tensor:
    """(C,) Hamming distances of rows (C, K) and a row (K,) of -1 and 1."""
    return (rows.shape[1] - rows @ row) / 2


def distant_rows(classes: int, bits: int) -> Tensor:
    """(C, K) centers with the smallest distance :func:`distance_bound`, by the global generator of torch.

    If so many centers at this distance are not found, it is the largest one at which they are.
    """
    least = distance_bound(classes, bits)
    if bits & (bits - 1) == 0 and classes <= 2 * bits and bits // 2 >= least:
        return spread(hadamard_rows(classes, bits), bits // 2)
    while (rows := drawn(classes, bits, least)) is None:
        least -= 1
    return spread(rows, least)


def drawn(classes: int, bits: int, least: int) -> Tensor | None:
    """(C, K) random signs, each at least ``least`` from all previous ones; None if too few are found."""
    rows = random_rows(1, bits)
    for _ in range(BLOCKS):
        candidates = random_rows(BLOCK, bits)
        far = ((bits - candidates @ rows.T) / 2 >= least).all(1)
        for row in candidates[far]:
            if (distances(rows, row) >= least).all():
                rows = torch.cat([rows, row[None]])
            if len(rows) >= classes:
                return rows[:classes]
    return None


def spread(rows: Tensor, least: int) -> Tensor:
    """Flip bits of rows (C, K) one at a time: the mean distance rises, and the smallest stays ``least`` or more.

    A bit contributes most to the mean distance if it is 1 in half of the rows, so bits of the majority are flipped.
    """
    signs = rows.numpy().astype(np.int16)
    between = ((signs.shape[1] - rows @ rows.T) / 2).numpy().astype(np.int16)  # (C, C) distances
    np.fill_diagonal(between, signs.shape[1] + 1)
    for _ in range(SWEEPS):
        flipped = 0
        for column in signs.T:  # a view
            excess = int(column.sum())
            for i in range(len(signs)):
                if column[i] * excess <= 1:
                    continue
                step = column * column[i]  # distances to equal bits rise by 1, to others they fall by 1
                if (between[i] + step >= least).all():
                    between[i] += step
                    between[:, i] += step
                    excess -= 2 * int(column[i])
                    column[i] = -column[i]
                    flipped += 1
        if not flipped:
            break
    return torch.from_numpy(signs).to(rows)
