"""Binary class centers, the target of a label set, and label weights."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from numba import njit
from numpy.typing import NDArray
from torch import Tensor

from hashzoo import pack, signs

DRAWS = 100  # random candidates for each separated center
PAIRS, FOURS, BYTES, ONES = (
    np.uint64(2**64 // divisor) for divisor in (3, 5, 17, 255)
)  # 0x55.., 0x33.., 0x0f.., 0x01..


def hadamard_rows(classes: int, bits: int) -> Tensor:
    """(C, K) rows of the Hadamard matrix, then of its negative: any two differ in half of the bits or in all.

    Raises ValueError unless ``bits`` is a power of two and there are enough rows.

    >>> hadamard_rows(3, 2).tolist()
    [[1.0, 1.0], [1.0, -1.0], [-1.0, -1.0]]
    """
    from scipy.linalg import hadamard

    if bits & (bits - 1) or classes > 2 * bits:
        raise ValueError(
            f"Hadamard centers: the bits must be a power of two, and {bits} bits give at most {2 * bits} classes"
        )
    rows = torch.from_numpy(hadamard(bits).astype(np.float32))
    return torch.cat([rows, -rows])[:classes]


def random_rows(classes: int, bits: int) -> Tensor:
    """(C, K) random signs, by the global generator of torch."""
    return torch.randint(0, 2, (classes, bits)).float() * 2 - 1


def words(rows: Tensor) -> NDArray[np.uint64]:
    """Signs (N, K) as bits of 64-bit words (N, W); the last word ends in zeros."""
    packed = pack((rows > 0).numpy())  # (N, bytes)
    return np.pad(packed, [(0, 0), (0, -packed.shape[1] % 8)]).view(np.uint64)


@njit(cache=True)
def farthest(drawn: NDArray, rows: NDArray) -> int:  # type: ignore[type-arg]
    """The first of the rows ``drawn`` (n, W) whose Hamming distance to the nearest of ``rows`` (m, W) is largest.

    A drawn row is given up at a row that is as near as the nearest of the best one so far: few pairs are compared.
    """
    best, least = 0, -1
    for i in range(len(drawn)):
        nearest = 64 * drawn.shape[1] + 1
        for j in range(len(rows)):
            distance = 0
            for w in range(drawn.shape[1]):
                x = drawn[i, w] ^ rows[j, w]  # its ones are counted in pairs of bits, then in fours and in bytes
                x -= (x >> np.uint64(1)) & PAIRS
                x = (x & FOURS) + ((x >> np.uint64(2)) & FOURS)
                x = (x + (x >> np.uint64(4))) & BYTES
                distance += np.int64((x * ONES) >> np.uint64(56))  # type: ignore[assignment]
            nearest = min(nearest, distance)
            if nearest <= least:
                break
        if nearest > least:
            best, least = i, nearest
    return best


def separated_rows(classes: int, bits: int) -> Tensor:
    """(C, K) random signs; each row is the one of ``DRAWS`` candidates that is farthest from the previous rows."""
    rows = random_rows(1, bits).expand(classes, bits).clone()
    found = words(rows)
    for count in range(1, classes):
        drawn = random_rows(DRAWS, bits)
        candidates = words(drawn)
        best = farthest(candidates, found[:count])
        rows[count], found[count] = drawn[best], candidates[best]
    return rows


Kind = Literal["hadamard", "random", "separated", "auto"]


def centers(kind: Kind, classes: int, bits: int) -> Tensor:
    """(C, K) centers of -1 and 1; "auto" takes Hadamard rows if they exist, else separated random rows."""
    if kind == "auto":
        kind = "hadamard" if bits & (bits - 1) == 0 and classes <= 2 * bits else "separated"
    make = {"hadamard": hadamard_rows, "random": random_rows, "separated": separated_rows}[kind]
    return make(classes, bits)


def vote(labels: Tensor, rows: Tensor, ties: Tensor) -> Tensor:
    """(B, K) the sign of the sum of the centers (C, K) of the labels (B, C) of each image; ``ties`` (K,) decides at 0.

    >>> rows, ties = torch.tensor([[1.0, 1], [1, -1]]), torch.tensor([1.0, -1])
    >>> vote(torch.tensor([[1.0, 1], [0, 1]]), rows, ties).tolist()
    [[1.0, -1.0], [1.0, -1.0]]
    """
    total = labels @ rows.to(labels)  # integers, so a sum of 0 is exact
    return torch.where(total == 0, ties.to(labels), signs(total))


def require_labels(method: str, labels: Tensor) -> None:
    """Raise ValueError if an image has no label (B, C), and so no center.

    Labels on another device are not read, since every step would wait for them. A benchmark has rehearsed the loss with
    such an image on the CPU before.
    """
    if labels.device.type == "cpu" and not (labels.sum(1) > 0).all():
        raise ValueError(
            f"{method} needs at least one label per image; remove images without labels from the training split"
        )


def shares(method: str, labels: Tensor) -> Tensor:
    """(B, C) labels divided by their number per image. Raises ValueError if an image has no label.

    >>> shares("csq", torch.tensor([[1.0, 1, 0]])).tolist()
    [[0.5, 0.5, 0.0]]
    """
    require_labels(method, labels)
    return labels / labels.sum(1, keepdim=True)
